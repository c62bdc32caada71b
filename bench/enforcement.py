"""How long after somebody writes "unsubscribe" is mail to them refused?

    python bench/enforcement.py                     200 mails, about four minutes
    python bench/enforcement.py --mails 40

Measured: the real daemon as a process, watching a mailbox of a private Dovecot, its relay in front of a sink. One mail
after the other is put into the mailbox by IMAP APPEND, each from somebody else. The clock starts when APPEND is answered
(the server has the mail then, and may tell others) and stops at the first 550 that the relay gives to RCPT TO that
person, asked every 2 ms. So it holds the server's own delay in telling of new mail, the fetch, the reading, the commit,
and the lookup.

Peer, in the same run, turn about: a bare IMAPClient in IDLE on another mailbox of the same server, from the answer to
APPEND to its EXISTS. That is the part which is the server's (Dovecot gathers news for about half a second).

Bars: p50 at most 0.35 s above the peer's p50; at most one of 200 above 2 s (in proportion for other numbers, but one
always may be). Needs Debian's dovecot-imapd and dovecot-lmtpd.
"""

from __future__ import annotations

import contextlib
import smtplib
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from imapclient import IMAPClient

from bench import common
from bench.common import HOST, Bar, percentile, say
from tests.servers import Dovecot, dovecot, free_port
from tests.sink import sink

_ASK_SECONDS: Final = 0.002
_GIVE_UP_SECONDS: Final = 30
_LATE_SECONDS: Final = 2.0


def config(work: Path, imap: Dovecot, port: int, upstream: int) -> Path:
    """Write the daemon's config and the mailbox's password."""
    (work / "password").write_text(imap.users["support"])
    (work / "password").chmod(0o600)
    path = work / "enforcement.toml"
    path.write_text(f"""\
[house]
name = "Quill PDF"
domains = ["quillpdf.example"]
addresses = ["support@quillpdf.example"]

[storage]
url = "sqlite:///enforcement.db"
key_file = "enforcement.key"

[[mailbox]]
name = "support"
host = "{HOST}"
port = {imap.imap_port}
tls = "none"
username = "support"
password_file = "password"

[relay]
listen = "{HOST}:{port}"

[upstream]
host = "{HOST}"
port = {upstream}
""")
    return path


def mail(n: int) -> bytes:
    """The n-th person's request."""
    lines = (
        f"From: Person {n} <person{n}@example.com>",
        "To: support@quillpdf.example",
        "Subject: your newsletter",
        f"Message-ID: <request-{n}@example.com>",
        time.strftime("Date: %a, %d %b %Y %H:%M:%S +0000", time.gmtime()),
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "",
        "Please unsubscribe me",
        "",
    )
    return "\r\n".join(lines).encode()


class Asker:
    """Asks the relay for one recipient until it refuses."""

    def __init__(self, port: int):
        self._line = smtplib.SMTP(HOST, port, timeout=_GIVE_UP_SECONDS)
        self._line.ehlo()

    def until_refused(self, person: str, began: float) -> float:
        """Seconds from `began` to the first 550."""
        self._line.mail("news@quillpdf.example")
        try:
            while (took := time.perf_counter() - began) < _GIVE_UP_SECONDS:
                code, text = self._line.rcpt(person)
                if code == 550:
                    return time.perf_counter() - began
                if code == 452:  # asked too often for one message
                    self._line.rset()
                    self._line.mail("news@quillpdf.example")
                elif code != 250:
                    raise SystemExit(f"RCPT: {code} {text!r}")
                time.sleep(_ASK_SECONDS)
            return took
        finally:
            self._line.rset()

    def close(self) -> None:
        """Say goodbye."""
        self._line.quit()


class Idler:
    """A bare client in IDLE."""

    def __init__(self, client: IMAPClient):
        self._client = client
        client.select_folder("INBOX")

    def until_told(self, append: Callable[[], float]) -> float:
        """Seconds from the answer to APPEND to EXISTS."""
        self._client.idle()
        began = append()
        while (took := time.perf_counter() - began) < _GIVE_UP_SECONDS:
            told = self._client.idle_check(timeout=1)
            if any(len(news) == 2 and news[1] == b"EXISTS" for news in told):
                took = time.perf_counter() - began
                break
        self._client.idle_done()
        return took


def run(imap: Dovecot, port: int, mails: int) -> tuple[list[float], list[float]]:
    """Seconds to refusal, and to the bare client's notice, of each mail."""
    with imap.connect("support") as writer, imap.connect("bob") as other, imap.connect("bob") as idle:
        asker, idler = Asker(port), Idler(idle)

        def append(client: IMAPClient, n: int) -> float:
            client.append("INBOX", mail(n))
            return time.perf_counter()

        refused, told = [], []
        for n in range(-1, mails):  # the first one warms up
            ours = asker.until_refused(f"person{n}@example.com", append(writer, n))
            theirs = idler.until_told(partial(append, other, n))
            if n >= 0:
                refused.append(ours)
                told.append(theirs)
            if n >= 0 and n % 20 == 19:
                say(f"{n + 1} mails: p50 {percentile(refused, 0.5):.3f} s, bare IDLE {percentile(told, 0.5):.3f} s")
        asker.close()
    return refused, told


@contextlib.contextmanager
def running(path: Path, port: int) -> Iterator[None]:
    """The daemon, from when its mailbox is connected."""
    log = path.with_suffix(".log")
    with common.process(common.daemon_command(path), log, lambda: "mailbox_connected" in log.read_text()):
        say(f"the daemon is up on port {port}")
        yield


def main() -> int:
    """Run it."""
    options = common.parser(__doc__)
    options.add_argument("--mails", type=int, default=200, help="mails, one after the other (default 200)")
    given = options.parse_args()
    with common.place(given) as work, dovecot() as imap, sink() as upstream:
        for old in work.glob("enforcement.*"):
            old.unlink()
        port = free_port()
        with running(config(work, imap, port, upstream.port), port):
            refused, told = run(imap, port, given.mails)
    head = ["s, from the answer to APPEND", "p50", "p90", "p99", "max"]
    rows = {"to the first 550 at the relay": refused, "to EXISTS at a bare IDLE client": told}
    print(f"\n{given.mails} mails\n")
    common.table(head, [[name, *(f"{percentile(v, p):.3f}" for p in (0.5, 0.9, 0.99, 1))] for name, v in rows.items()])
    bars = [
        Bar("p50 above the bare client's p50", percentile(refused, 0.5) - percentile(told, 0.5), 0.35, "s"),
        Bar(f"mails above {_LATE_SECONDS:g} s", sum(t > _LATE_SECONDS for t in refused), max(1, given.mails // 200)),
    ]
    return common.judge(bars, given.no_bar)


if __name__ == "__main__":
    sys.exit(main())
