"""What is counted while the daemon runs: every counter and histogram, its meaning and its labels. Leaf, and pure Python.

Counted is where it happens: in the functions of `events`, and where the relay knows what became of everybody. What can
be asked for at any time (how many are on the list, is a mailbox connected) is asked for at the scrape, by
`daemon.web.metrics`, which also writes all of it in Prometheus' formats with prometheus_client. The library is not used
for the counting: it would cost each message of a campaign 2 us instead of 0.5, and each command 40 ms at its start.

Labels have words of ours as values, and names of the config: never an address, a token or a path. `job` and `instance` are
Prometheus' own: a job of ours is `job_name`.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

Labels = tuple[str, ...]
# All there are, in the order in which they are written out.
COUNTERS: Final[list[Counter]] = []
HISTOGRAMS: Final[list[Histogram]] = []
SWITCHES: Final[list[Switch]] = []


class Count:
    """One number that grows. `inc` is for any thread; what only one thread ever counts may be added to `value` itself, which
    saves 0.1 us."""

    __slots__ = ("_lock", "value")

    def __init__(self) -> None:
        self._lock, self.value = threading.Lock(), 0

    def inc(self, n: int = 1) -> None:
        """Add to it."""
        with self._lock:
            self.value += n


class Counter:
    """A number for each combination of label values. `name` is without the `_total` that is written behind it.

    `known`: values of the (one) label that are told as 0 until they happen, so that a rate sees the first time, too.
    """

    def __init__(self, name: str, about: str, labels: Labels = (), known: Iterable[str] = ()):
        self.name, self.about, self.labels = name, about, labels
        self._counts: dict[Labels, Count] = {(value,): Count() for value in known} if labels else {(): Count()}
        COUNTERS.append(self)

    def of(self, *values: str) -> Count:
        """The number of these label values."""
        found = self._counts.get(values)
        return self._counts.setdefault(values, Count()) if found is None else found

    def inc(self, *values: str) -> None:
        """One more of these label values."""
        self.of(*values).inc()

    def samples(self) -> list[tuple[Labels, int]]:
        """(label values, number)."""
        return [(values, count.value) for values, count in list(self._counts.items())]


class Histogram:
    """How long something took, in seconds. `bounds`: the upper ends of its buckets, the last one (infinity) left out."""

    def __init__(self, name: str, about: str, bounds: Sequence[float]):
        self.name, self.about, self.bounds = name, about, tuple(bounds)
        self._lock = threading.Lock()
        self._numbers = [0] * (len(bounds) + 1)
        self._sum = 0.0
        HISTOGRAMS.append(self)

    def observe(self, seconds: float) -> None:
        """It took so long once more. For any thread."""
        place = bisect_left(self.bounds, seconds)
        with self._lock:
            self._numbers[place] += 1
            self._sum += seconds

    def snapshot(self) -> tuple[list[tuple[str, int]], float]:
        """(upper end, how many took so long or less) of every bucket, and the sum of all."""
        with self._lock:
            numbers, total = list(self._numbers), self._sum
        return list(zip((*map(str, self.bounds), "+Inf"), _running(numbers), strict=True)), total


class LoopHistogram(Histogram):
    """One that the event loop alone observes, several times a message: without the lock, which is half of the cost."""

    def observe(self, seconds: float) -> None:
        """It took so long once more. For the event loop."""
        self._numbers[bisect_left(self.bounds, seconds)] += 1
        self._sum += seconds


def _running(numbers: Iterable[int]) -> Iterator[int]:
    so_far = 0
    for number in numbers:
        so_far += number
        yield so_far


class Switch:
    """Something that is so or is not, as of when it was last looked at."""

    def __init__(self, name: str, about: str):
        self.name, self.about, self.on = name, about, False
        SWITCHES.append(self)


# ------------------------------------------------------------------ the promise

promise_broken = Counter(
    "optoutd_promise_broken",
    "Recipients the relay passed although a suppression stood, by a spot check after the delivery.",
)
looked_at_again = Counter(
    "optoutd_promise_checked", "Recipients whom that spot check asked about again, of those the upstream took."
)
late_opt_outs = Counter(
    "optoutd_late_opt_outs",
    "Recipients who opted out between RCPT and the dot: the message was withdrawn, the client told 451.",
)
audit_broken = Switch(
    "optoutd_audit_broken",
    "1 if the last check of the record found that it was changed; 0 after a whole one, and at start.",
)

suppressions_unexplained = Switch(
    "optoutd_suppressions_unexplained",
    "1 if the last daily check found suppressions without evidence; 0 after a check that found none, and at start.",
)
duty_mails = Counter(
    "optoutd_duty_mails",
    "Mails to the operators (alarms, digests) that the upstream took, or did not.",
    ("outcome",),
    ("sent", "failed"),
)

# ------------------------------------------------------------------ the relay

relay_recipients = Counter(
    "optoutd_relay_recipients",
    "Recipients of the relay, each counted once, as what became of them when the transaction ended.",
    ("outcome",),
    ("passed", "refused", "stripped", "deferred", "rejected"),
)
relay_messages = Counter(
    "optoutd_relay_messages",
    "Messages that clients sent to their dot: the upstream took them, we deferred or rejected them, or nobody was left.",
    ("outcome",),
    ("sent", "deferred", "rejected", "withheld"),
)
passed_all_the_same = Counter(
    "optoutd_relay_passed_despite",
    "Recipients who passed although something stood against them: the relay only observes, or it was service mail.",
    ("why",),
    ("observe", "service"),
)
lookup_seconds = LoopHistogram(
    "optoutd_lookup_seconds",
    "One question to the suppression list by the relay or the policy service, about one or more recipients.",
    (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0),
)
possibly_duplicated = Counter(
    "optoutd_upstream_possibly_duplicated",
    "Messages whose upstream was lost after the dot: it may have them, and the client was told to send them again.",
)
policy_recipients = Counter(
    "optoutd_policy_recipients",
    "Recipients that Postfix asked the policy service about.",
    ("outcome",),
    ("passed", "refused", "deferred"),
)

# What stands in the record (storage.refusals.Outcome) -> what it is counted as here.
COUNTED_AS: Final = {
    "passed": "passed",
    "refused": "refused",
    "stripped": "stripped",
    "withdrawn": "deferred",
    "would-refuse": "passed",
    "service": "passed",
    "deferred": "deferred",
    "rejected": "rejected",
}

# ------------------------------------------------------------------ mailboxes, the web, the house

intake_messages = Counter(
    "optoutd_intake_messages", "Messages read in a mailbox, by what they were read as.", ("mailbox", "label")
)
intake_missed = Counter(
    "optoutd_intake_missed",
    "Messages that lay unread below others that were read, and were found by comparing folder and record.",
    ("mailbox",),
)
enforcement_seconds = Histogram(
    "optoutd_enforcement_seconds",
    "From noticing the mail of an opt-out to its commit, after which nobody mails that person.",
    (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0),
)
brake_pulled = Counter(
    "optoutd_brake_pulled",
    "How often the brake was pulled by itself, because one cause suppressed too many.",
    ("kind",),
    ("bounces", "complaints"),
)
oneclick = Counter(
    "optoutd_oneclick",
    "POSTs to stamped https links: recorded, repeated (stood already), malformed (400, 408, 413), unavailable (503).",
    ("outcome",),
    ("recorded", "repeated", "malformed", "unavailable"),
)
http_requests = Counter(
    "optoutd_http_requests", "Requests answered, by the first word of the path.", ("area", "status")
)
backup_failures = Counter("optoutd_backup_failures", "Backups that could not be made; tried again in five minutes.")
job_failures = Counter("optoutd_job_failures", "Scheduled jobs that did not end well.", ("job_name",))
failures = Counter("optoutd_failures", "Bugs of optoutd: errors that reached the outermost loop of a part.")
