"""The third part of bench/soak.py: an hour at a steady rate, with everything on, and nothing may grow.

One daemon with relay, web and a watched mailbox of a private Dovecot. Every five seconds a slice of the campaign goes
through the relay, one kind of bench/soak.py after the other, while people click, an operator goes from page to page,
a monitor scrapes /metrics, customers write opt-outs and ordinary mail, and every ten minutes the config is read again
(SIGHUP). Once a minute, between two slices, the process is looked at from outside: RSS, descriptors, sockets, threads, and the
size of the write-ahead log.

What is judged: the medians of the first and of the last ten looks after the warm-up.
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import common
from bench.common import HOST, Bar, say
from bench.enforcement import mail
from bench.peers import Discard, discard, greets
from bench.relay import Client, Workload, recipients
from bench.web import Clicker, Visitor, beside
from tests.servers import Dovecot, dovecot, free_port

_SLICE_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 60.0
_RELOAD_SECONDS: Final = 600.0
_LOOKS: Final = 10  # whose median counts, at the beginning and at the end
_GROWTH: Final = 0.02  # of RSS
_WAL_MB: Final = 64.0  # what the write-ahead log may come to: it is written back and begun anew

_ADMIN: Final = "a password for the bench"
_ORDINARY: Final = (
    b"From: Ordinary <o%d@example.com>\r\nTo: support@quillpdf.example\r\nSubject: a question\r\n"
    b"Message-ID: <q%d@example.com>\r\n\r\nHow do I rotate a page?\r\n"
)


class Seen(NamedTuple):
    """One look: minutes since the start, messages so far, MB, numbers of things, MB of the log, CPU seconds."""

    minute: float
    messages: int
    rss: float
    descriptors: int
    sockets: int
    threads: int
    wal: float
    cpu: float


@dataclass
class Writer:
    """Customers: every other mail is an opt-out of somebody new."""

    imap: Dovecot
    number: int = 0

    def __call__(self) -> None:
        """One mail into the mailbox."""
        self.number += 1
        raw = mail(self.number) if self.number % 2 else _ORDINARY % (self.number, self.number)
        self.imap.lmtp("support", raw)


@dataclass
class Steady:
    """An hour of it. `rate`: messages a second; `wrong`: what should not have been."""

    client: Client
    works: Sequence[Workload]
    listed: int
    port: int
    pid: int
    end: Discard
    database: Path
    rate: float
    sent: int = 0
    seen: list[Seen] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def run(self, minutes: float, reload: Callable[[], None]) -> None:
        """Send, look, reload, each at its time."""
        began = time.monotonic()
        looked = reloaded = began
        number = 0
        while (now := time.monotonic()) - began < 60 * minutes:
            self._slice(number)
            number += 1
            if time.monotonic() - looked >= _LOOK_SECONDS:
                looked = time.monotonic()
                self._look((looked - began) / 60)
            if time.monotonic() - reloaded >= _RELOAD_SECONDS:
                reloaded = time.monotonic()
                reload()
            time.sleep(max(0.0, now + _SLICE_SECONDS - time.monotonic()))
        self._look((time.monotonic() - began) / 60)

    def _slice(self, number: int) -> None:
        kind = self.works[number % len(self.works)]
        kind = replace(kind, messages=round(self.rate * _SLICE_SECONDS))
        before = self.end.messages()
        said = self.client.run(self.port, kind, recipients(kind, self.listed, number), enforced=True)
        wanted = kind.messages if kind.recipients > kind.suppressed else 0
        came = self.end.wait(before + wanted, 10) - before
        self.sent += kind.messages
        if said.wrong or (said.taken, came) != (wanted, wanted):
            self.wrong.append(f"{kind.name}: {said.taken} taken, {came} came, of {wanted}; {said.first_wrong}")

    def _look(self, minute: float) -> None:
        wal = self.database.with_name(self.database.name + "-wal")
        size = wal.stat().st_size / 1e6 if wal.exists() else 0.0
        links = list(_links(self.pid))
        sockets = sum(link.startswith("socket:") for link in links)
        status = _status(self.pid)
        cpu = common.cpu_seconds(self.pid)
        rss, threads = int(status["VmRSS"].split()[0]) / 1024, int(status["Threads"])
        self.seen.append(Seen(minute, self.sent, rss, len(links), sockets, threads, size, cpu))
        say(_line(self.seen[-1]))


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _links(pid: int) -> Iterator[str]:
    """What each descriptor of the process is."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            yield str(entry.readlink())
        except OSError:  # closed meanwhile
            continue


def _line(seen: Seen) -> str:
    return (
        f"{seen.minute:.0f} min, {seen.messages:,} messages: {seen.rss:.1f} MB, {seen.descriptors} descriptors"
        f" ({seen.sockets} sockets), {seen.threads} threads, log {seen.wal:.1f} MB, CPU {seen.cpu:.0f} s"
    )


@contextmanager
def _daemon(work: Path, ledger: common.Seeded, imap: Dovecot, upstream: int) -> Iterator[tuple[int, int, int]]:
    """With everything on: the ports of relay and web, and its pid."""
    relay, web, config = free_port(), free_port(), work / "steady.toml"
    for name, secret in (("imap-password", imap.users["support"]), ("admin", _ADMIN)):
        (work / name).write_text(secret)
        (work / name).chmod(0o600)
    config.write_text(f"""\
[house]
name = "Quill PDF"
domains = ["quillpdf.example"]
addresses = ["support@quillpdf.example"]
[storage]
url = "sqlite:///{ledger.database}"
key_file = "{ledger.key_file}"
backup_dir = "backups"
[[mailbox]]
name = "support"
host = "{HOST}"
port = {imap.imap_port}
tls = "none"
username = "support"
password_file = "imap-password"
poll_seconds = 10
[intake]
unproven_per_hour = 100000
[relay]
listen = "{HOST}:{relay}"
[upstream]
host = "{HOST}"
port = {upstream}
[notices]
confirm = false
[web]
listen = "{HOST}:{web}"
public_url = "https://mail.quillpdf.example"
admin_password_file = "admin"
""")
    config.chmod(0o600)
    with common.process(
        common.daemon_command(config), work / "steady.log", lambda: greets(relay) and _heeds(web)
    ) as child:
        yield relay, web, child.pid


def _heeds(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=5):
            return True
    except OSError:
        return False


def run(
    work: Path, ledger: common.Seeded, listed: int, works: Sequence[Workload], messages: int, minutes: float
) -> tuple[list[Seen], list[str]]:
    """Every look, and what was wrong."""
    opened = ledger.open()
    site_key = opened.site_key
    opened.close()
    with ExitStack() as stack:
        end = stack.enter_context(discard(work))
        imap = stack.enter_context(dovecot())
        relay, web, pid = stack.enter_context(_daemon(work, ledger, imap, end.port))
        clicker, visitor = Clicker(web, site_key), Visitor(web)
        visitor.log_in()
        rate = messages / (60 * minutes)
        hour = Steady(Client(work), works, listed, relay, pid, end, ledger.database, rate)
        doings = ((clicker, 2.0), (visitor, 0.2), (Writer(imap), 0.2), (_scraper(web), 1 / 15))
        with beside(*doings):
            hour.run(minutes, lambda: os.kill(pid, signal.SIGHUP))
        hour.wrong += [f"{clicker.wrong} clicks, {visitor.wrong} pages"] if clicker.wrong or visitor.wrong else []
        say(f"beside it: {len(clicker.waited):,} clicks, {visitor.seen:,} pages")
    return hour.seen, hour.wrong


def _scraper(web: int) -> Callable[[], None]:
    def scrape() -> None:
        with urllib.request.urlopen(f"http://{HOST}:{web}/metrics", timeout=30) as answer:
            answer.read()

    return scrape


def bars(seen: Sequence[Seen], warm: float) -> list[Bar]:
    """What grew, from the first looks after `warm` minutes to the last ones."""
    after = [s for s in seen if s.minute >= warm]
    first, last = after[:_LOOKS], after[-_LOOKS:]

    def median(looks: Sequence[Seen], what: str) -> float:
        return float(statistics.median(getattr(look, what) for look in looks))

    things = ("descriptors", "sockets", "threads")
    return [
        Bar("growth of RSS", median(last, "rss") / median(first, "rss") - 1, _GROWTH),
        *(Bar(f"more {what}", median(last, what) - median(first, what), 0) for what in things),
        Bar("largest write-ahead log", max(s.wal for s in seen), _WAL_MB, "MB"),
    ]
