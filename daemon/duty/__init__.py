"""The clock of duty: is the promise still being kept, and who is told when it is not?

Somebody looks once a year; the process has to say by itself what is wrong, to whom it matters, with what to do about it.
"""
