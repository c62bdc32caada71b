"""All probes at once, each within its time, and their findings in a fixed order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Final

from daemon import log, opening
from daemon.config import Loaded
from daemon.doctor import backups, clock, dns, doors, files, habits, ledger, mailboxes, public, running, upstreams
from daemon.doctor.findings import Finding, House, Look, Probe, Step

SECONDS: Final = 20.0  # for each probe; they run beside each other, so for all of them
_GLANCE_SECONDS: Final = 0.1
_SILENT: Final = (
    "whatever is asked there neither answers nor refuses: look whether that program hangs, or whether a firewall drops"
    " what goes to it"
)


def probes_of(loaded: Loaded) -> list[tuple[str, Probe]]:
    """(part, probe) of everything that the config has, in the order in which it is told."""
    config = loaded.config
    boxes: list[tuple[str, Probe]] = [(f"imap {box.name}", partial(mailboxes.probe, box)) for box in config.mailbox]
    hooks: list[tuple[str, Probe]] = [
        (f"webhook {hook.name}", partial(public.webhook, hook)) for hook in config.webhook
    ]
    return [
        ("config", files.config),
        ("daemon", running.probe),
        ("secrets", files.secrets),
        ("site key", ledger.probe),  # and `database`, `audit chain`
        ("backups", backups.probe),
        ("clock", clock.probe),
        *(boxes or [("imap", mailboxes.none)]),
        ("upstream", upstreams.probe),
        ("relay", doors.relay),
        ("web", doors.web),
        ("web", public.probe),
        ("postfix", doors.policy),
        *hooks,
        ("notices", habits.notices),
        ("lists", habits.lists),
        ("dns", dns.probe),
        ("systemd", running.systemd),
    ]


def examine(
    loaded: Loaded,
    *,
    traces: bool = False,
    seconds: float = SECONDS,
    probes: Iterable[tuple[str, Probe]] | None = None,
    trying: Callable[[Sequence[str]], object] = lambda _: None,
) -> Iterator[Finding]:
    """Try everything. What a probe has not found out after so many seconds is a failure by itself.

    `traces`: `--probe`. `trying` is told again and again what is under way. `probes`: other ones than all there are.
    """
    here = None if loaded.in_postgres else opening.is_running(loaded)
    house = House(loaded, opening.now(), here, traces)
    visits = [_Visit(Look(house, part, Step(part)), probe) for part, probe in probes or probes_of(loaded)]
    end = time.monotonic() + seconds
    for visit in visits:
        visit.start()
    for visit in visits:
        while visit.is_alive() and time.monotonic() < end:
            trying([v.doing for v in visits if v.is_alive()])
            visit.join(_GLANCE_SECONDS)
        yield from visit.told(seconds)


def has_failed(findings: Iterable[Finding]) -> bool:
    """Is there a failure among them?"""
    return any(finding.state == "FAIL" for finding in findings)


class _Visit(threading.Thread):
    """A probe at work. A daemon thread: one that hangs must not keep us from ending."""

    def __init__(self, look: Look, probe: Probe):
        super().__init__(name=f"doctor {look.part}", daemon=True)
        self._look, self._probe = look, probe
        self._found: list[Finding] = []

    @property
    def doing(self) -> str:
        """What it tries just now."""
        at = self._look.at
        return f"{at.part}: {at.doing}".removesuffix(": ")

    def run(self) -> None:
        """Find what there is to find."""
        try:
            for finding in self._probe(self._look):
                self._found.append(finding)
        except Exception as bug:  # noqa: BLE001 - the outermost frame of this thread: a bug in one probe hides no other's findings
            where = " < ".join(reversed(log.trace_of(bug)[-3:]))
            self._found.append(self._look.fail(f"the doctor itself failed: {where}", "please report it"))

    def told(self, seconds: float) -> list[Finding]:
        """What was found, and what was not in time."""
        late, at = self.is_alive(), self._look.at
        found = list(self._found)
        if late:
            said = f"{at.doing or 'the first step'}: no answer within {seconds:.0f} s"
            found.append(self._look.of(at.part).fail(said, _SILENT))
        return found
