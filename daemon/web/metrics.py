"""/metrics: what was counted while the daemon ran (daemon.metrics), and how things are right now, for Prometheus.

A scrape never waits long for the database, and never fails for it: what only the ledger knows is then left out, and
`optoutd_database_up` is 0. How many are on the list is counted by walking over all of it, 0.1 s a million; so it is counted
again only when the record has grown, and if that took long, not for a minute and twenty times as long as it took.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from prometheus_client import ProcessCollector, exposition
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import daemon
from daemon import metrics
from daemon.duty.alarm import KINDS
from daemon.vitals import DutyVitals, Vitals
from daemon.web.context import context_of, inside_of, workers_of
from daemon.web.health import OK, Pulse, Shared
from daemon.web.rendering import SECURITY
from daemon.web.workers import Workers
from storage import canaries, census
from storage.engine import Ledger, Unavailable, Unusable
from storage.terms import Reason

_PATIENCE: Final = 2.0  # s for each of two questions; Prometheus waits 10 for all
_QUICK: Final = 0.01  # s; a count that takes no longer may be had at every scrape
_SELDOM: Final = (60.0, 20.0)  # another one: not before so many seconds, and so many times as long as it took
_AT: Final = "_timestamp_seconds"
_OPENMETRICS: Final = "application/openmetrics-text"
_as_openmetrics: Callable[[Collector], bytes] = openmetrics.generate_latest  # which says nothing of types


@dataclass(frozen=True, slots=True)
class _Counted:
    """The suppressions, as they were when the record had so many rows. `at`, `took`: s."""

    suppressions: Mapping[Reason, int]
    audit_rows: int
    at: float
    took: float

    @property
    def may_be_renewed(self) -> bool:
        least, times = _SELDOM
        return self.took < _QUICK or time.monotonic() - self.at > max(least, times * self.took)


@dataclass(frozen=True, slots=True)
class _Found:
    """What the ledger says. `free`: of database and backups -> octets left on its disk; `canaries`: of the mailboxes."""

    numbers: census.Numbers
    suppressions: Mapping[Reason, int]
    free: Mapping[str, int]
    canaries: Mapping[str, canaries.State]


class Figures:
    """What the ledger says, between one scrape and the next."""

    def __init__(self) -> None:
        self._looking: Shared[tuple[census.Numbers, Mapping[str, int], dict[str, canaries.State]]] = Shared()
        self._counting: Shared[None] = Shared()
        self._counted: _Counted | None = None

    async def found(self, request: Request) -> _Found | None:
        """What it says, or None: it is away."""
        ledger, workers = context_of(request).ledger, workers_of(request)
        try:
            numbers, free, tests = await self._looking.ask(lambda: workers.read(partial(_look, ledger)), _PATIENCE)
        except (Unavailable, Unusable, TimeoutError):
            return None
        counted = self._counted
        if counted is None or (counted.audit_rows != numbers.audit_rows and counted.may_be_renewed):
            with suppress(Unavailable, Unusable, TimeoutError):  # what was counted last is told meanwhile
                await self._counting.ask(lambda: self._count(ledger, workers, numbers.audit_rows), _PATIENCE)
        return _Found(numbers, self._counted.suppressions if self._counted else {}, free, tests)

    async def _count(self, ledger: Ledger, workers: Workers, audit_rows: int) -> None:
        began = time.monotonic()
        found = await workers.read(partial(_suppressions, ledger))
        now = time.monotonic()
        self._counted = _Counted(found, audit_rows, now, now - began)


def _look(ledger: Ledger) -> tuple[census.Numbers, Mapping[str, int], dict[str, canaries.State]]:
    with ledger.connect() as db:
        numbers, tests = census.numbers(db), canaries.states(db)
    return numbers, ledger.free(), tests


def _suppressions(ledger: Ledger) -> dict[Reason, int]:
    with ledger.connect() as db:
        return census.suppressions(db)


# ------------------------------------------------------------------ as families of the library


def _counted() -> Iterator[Metric]:
    """What daemon.metrics has."""
    for counter in metrics.COUNTERS:
        family = CounterMetricFamily(counter.name, counter.about, labels=counter.labels)
        for values, number in counter.samples():
            family.add_metric(values, number)
        yield family
    for histogram in metrics.HISTOGRAMS:
        buckets, total = histogram.snapshot()
        yield HistogramMetricFamily(histogram.name, histogram.about, buckets=buckets, sum_value=total)
    for switch in metrics.SWITCHES:
        yield GaugeMetricFamily(switch.name, switch.about, value=switch.on)


def _gauge(name: str, about: str, label: str, values: Iterable[tuple[str, float]]) -> Metric:
    family = GaugeMetricFamily(f"optoutd_{name}", about, labels=(label,))
    for value, number in values:
        family.add_metric((value,), number)
    return family


def _of_parts(vitals: Vitals) -> Iterator[Metric]:
    """The parts of the daemon. Of several nodes each tells of the mailboxes that it watches."""
    yield _gauge("build_info", "Always 1; `version` of the running daemon.", "version", [(daemon.__version__, 1)])
    ours = [mailbox for mailbox in vitals.mailboxes if mailbox.ours]
    up = [(mailbox.name, float(mailbox.connected)) for mailbox in ours]
    yield _gauge("mailbox_up", "1 while the mailbox is connected and read.", "mailbox", up)
    heard = [(mailbox.name, mailbox.last_success.timestamp()) for mailbox in ours if mailbox.last_success]
    yield _gauge(f"mailbox_last_success{_AT}", "When the IMAP server last answered us.", "mailbox", heard)
    if vitals.upstream is not None:
        reached = not vitals.upstream
        yield GaugeMetricFamily("optoutd_upstream_up", "1 if an upstream was reached when last tried.", value=reached)


def _of_duty(duty: DutyVitals, now: float) -> Iterator[Metric]:
    """What the clock of duty saw last."""
    standing = {alarm.kind for alarm in duty.alarms}
    raised = [(kind, float(kind in standing)) for kind in KINDS]
    yield _gauge("alarm", "1 while an alarm of this kind stands, on whatever node.", "kind", raised)
    if duty.open_since is not None and duty.due is not None:
        name, since = f"optoutd_duty_oldest_open{_AT}", duty.open_since.timestamp()
        yield GaugeMetricFamily(name, "Since when the oldest request that may be open has waited.", value=since)
        left = duty.due.timestamp() - now
        yield GaugeMetricFamily("optoutd_duty_seconds_left", "Until it is due; below 0: it is late.", value=left)
    yield GaugeMetricFamily("optoutd_notices_owed", "Mails of our own that people are owed.", value=duty.notices)
    if duty.oldest_notice is not None:
        name, since = f"optoutd_notices_oldest{_AT}", duty.oldest_notice.timestamp()
        yield GaugeMetricFamily(name, "Since when the oldest of them is owed.", value=since)


def _of_ledger(found: _Found, now: float) -> Iterator[Metric]:
    """What only the ledger knows. `now`: seconds since 1970."""
    numbers, jobs = found.numbers, found.numbers.jobs
    rows = [(reason.word, float(number)) for reason, number in found.suppressions.items()]
    yield _gauge("suppressions", "Rows that stand, by reason; `wanted` ones suppress nobody.", "reason", rows)
    yield GaugeMetricFamily(
        "optoutd_review_open", "Doubtful messages that wait for a person.", value=numbers.review_open
    )
    age = max(0.0, now - numbers.review_oldest) if numbers.review_oldest is not None else 0.0
    yield GaugeMetricFamily("optoutd_review_oldest_seconds", "Since the oldest of them was received.", value=age)
    yield GaugeMetricFamily("optoutd_audit_rows", "Rows of the record of all changes.", value=numbers.audit_rows)
    ended = [(name, float(at)) for name, at in jobs.items()]
    yield _gauge(f"job_last_success{_AT}", "When a scheduled job last ended well.", "job_name", ended)
    if "back_up" in jobs:
        made = GaugeMetricFamily(f"optoutd_backup_last_success{_AT}", "When the last backup was made.")
        made.add_metric((), jobs["back_up"])
        yield made
    took = [(m, s.result.seconds["refused"]) for m, s in found.canaries.items() if s.result and not s.result.step]
    about = "From sending the daily test message to the refusal of its sender, of the last one if that came through."
    yield _gauge("canary_seconds", about, "mailbox", took)
    passed = [(mailbox, float(state.passed)) for mailbox, state in found.canaries.items() if state.passed]
    yield _gauge(f"canary_last_success{_AT}", "When a daily test message came through last.", "mailbox", passed)
    yield _gauge(
        "disk_free_bytes", "Octets free where these lie.", "of", [(of, float(n)) for of, n in found.free.items()]
    )


@dataclass(frozen=True)
class _Scrape(Collector):
    """All of one scrape, in the shape the library writes."""

    families: tuple[Metric, ...]
    process: ProcessCollector = field(default_factory=lambda: ProcessCollector(registry=None))

    def collect(self) -> Iterable[Metric]:
        """Every family that has something to say, in any order."""
        return (*(family for family in self.families if family.samples), *self.process.collect())


def _written(scrape: _Scrape, accepted: str) -> Response:
    """In the format that is asked for; whatever else is, gets the text format that everybody reads."""
    if _OPENMETRICS in accepted:
        octets, kind = _as_openmetrics(scrape), f"{_OPENMETRICS}; version=1.0.0; charset=utf-8"
    else:
        octets, kind = exposition.generate_latest(scrape), "text/plain; version=0.0.4; charset=utf-8"
    return Response(octets, headers={**SECURITY, "Content-Type": kind})


async def _scraped(request: Request) -> Response:
    pulse: Pulse = request.state.pulse
    figures: Figures = request.state.figures
    database = await pulse.database(request)
    found = await figures.found(request)
    reachable = database == OK and found is not None
    up = GaugeMetricFamily("optoutd_database_up", "1 if the suppression list can be asked.", value=reachable)
    now = context_of(request).now().timestamp()
    vitals = inside_of(request).vitals()
    duty = () if vitals.duty is None else _of_duty(vitals.duty, now)
    families = (up, *_counted(), *_of_parts(vitals), *duty, *(_of_ledger(found, now) if found else ()))
    return await asyncio.to_thread(_written, _Scrape(families), request.headers.get("accept", ""))


ROUTES: Final = (Route("/metrics", _scraped),)
