"""The fault campaign: the real daemon between real servers, under load, while things break; and a judge of what came of it.

    python -m tests.chaos --minutes 20 --seed 7        (make chaos ARGS=...)

`stage` brings everything up, `faults` breaks it, `senders` and `askers` are the load. All of them only write down what they
saw and when (`history`). `checker` reads that, what the upstream took, the mailbox and the database, and says what was wrong.
"""
