"""Do the pages keep up while a campaign runs, and does the campaign keep up while the pages are used?

    python bench/web.py                      7 rounds: some minutes
    python bench/web.py --rounds 3 --scale 0.5

One daemon with everything on, over a ledger of 200,000 (--listed), before a discarding server. Rounds take turns:

    quiet       the campaign alone: workload A5 of bench/relay.py
    clicks      the same while people click stamped links, 40 times a second: each a one-click POST of somebody else, on
                a connection of its own, as mail programs do it
    console     the same while an operator goes through the console: four pages a second
    both

Printed: the campaign's messages a second and their ratio to the quiet round beside it (median over the rounds), and how
long a one-click POST takes until its answer (each answer means that it is committed). Bars: p99 of the POST at most
50 ms; the campaign loses at most 15 % to the console.

Needs gcc.
"""

from __future__ import annotations

import contextlib
import re
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import common
from bench.common import Bar, percentile, say
from bench.peers import discard, greets
from bench.relay import WORKLOADS, Client, Plan, Workload, recipients
from daemon.mail import tokens
from storage.address import SiteKey, parse, person
from tests.loopback import HOST, free_port

_PASSWORD: Final = "a password for the bench"
_FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}
_CLICKS: Final = 40.0  # a second
_PAGES: Final = 4.0  # a second
_WAYS: Final = ("/console/", "/console/suppressions?q={}", "/console/review", "/console/audit", "/console/suppressions")


@dataclass
class Clicker:
    """People who click: who they are, and how long each waited (ms)."""

    port: int
    site_key: SiteKey
    waited: list[float] = field(default_factory=list)
    wrong: int = 0
    _number: int = 0

    def __call__(self) -> None:
        """One click."""
        self._number += 1
        key = self.site_key.address_key(person(parse(f"clicker{self._number}@readers.example"), ("tag", "alias")))
        token = tokens.make(self.site_key, "link", key, 0)
        began = time.perf_counter()
        with contextlib.closing(HTTPConnection(HOST, self.port, timeout=30)) as connection:
            connection.request("POST", f"/u/{token}", "List-Unsubscribe=One-Click", _FORM)
            status = connection.getresponse().status
        self.waited.append(1000 * (time.perf_counter() - began))
        self.wrong += status != 200


@dataclass
class Visitor:
    """An operator who goes from page to page."""

    port: int
    wrong: int = 0
    seen: int = 0
    _cookie: str = ""

    def log_in(self) -> None:
        """At the entrance."""
        _, headers, page = self._ask("GET", "/console/login")
        (token,) = re.findall(r'name="csrf_token" value="([^"]+)"', page)
        self._cookie = headers["set-cookie"].partition(";")[0]
        fields = urlencode({"username": "admin", "password": _PASSWORD, "csrf_token": token})
        status, headers, _ = self._ask("POST", "/console/login", fields)
        assert status == 303, status
        self._cookie = headers["set-cookie"].partition(";")[0]

    def __call__(self) -> None:
        """One page."""
        way = _WAYS[self.seen % len(_WAYS)].format(common.suppressed(self.seen))
        self.seen += 1
        self.wrong += self._ask("GET", way)[0] != 200

    def _ask(self, method: str, path: str, body: str | None = None) -> tuple[int, dict[str, str], str]:
        with contextlib.closing(HTTPConnection(HOST, self.port, timeout=30)) as connection:
            headers = {**(_FORM if body else {}), **({"Cookie": self._cookie} if self._cookie else {})}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode()


Doing = tuple[Callable[[], None], float]  # what, and how often a second


@contextlib.contextmanager
def beside(*doings: Doing) -> Iterator[None]:
    """Have this done so often a second until the block ends, each in a thread of its own."""
    stop = threading.Event()

    def work(doing: Callable[[], None], every: float) -> None:
        due = time.monotonic()
        while not stop.is_set():
            doing()
            due = max(due + every, time.monotonic() - 1)  # a second behind at most: no storm after a stall
            stop.wait(max(0.0, due - time.monotonic()))

    threads = [threading.Thread(target=work, args=(doing, 1 / rate)) for doing, rate in doings]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def daemon(work: Path, ledger: common.Seeded, upstream: int) -> Iterator[tuple[int, int]]:
    """The daemon with everything on: the ports of relay and web."""
    relay, web = free_port(), free_port()
    (work / "admin").write_text(_PASSWORD)
    (work / "admin").chmod(0o600)
    config = work / "optoutd.toml"
    config.write_text(
        f'[house]\nname = "Quill PDF"\ndomains = ["quillpdf.example"]\naddresses = ["support@quillpdf.example"]\n'
        f'[[list]]\nid = "offers"\ntitle = "Offers"\n'
        f'[storage]\nurl = "sqlite:///{ledger.database}"\nkey_file = "{ledger.key_file}"\n'
        f'[relay]\nlisten = "{HOST}:{relay}"\nhostname = "relay.example"\n'
        f'[upstream]\nhost = "{HOST}"\nport = {upstream}\nconnections = 40\n'
        f'[web]\nlisten = "{HOST}:{web}"\npublic_url = "https://mail.quillpdf.example"\nadmin_password_file = "admin"\n'
    )
    config.chmod(0o600)
    with common.process(common.daemon_command(config), work / "daemon.log", lambda: greets(relay)):
        yield relay, web


@dataclass(frozen=True)
class Bench:
    """What a round is made of."""

    client: Client
    campaign: Workload
    plan: Plan
    relay: int
    clicker: Clicker
    visitor: Visitor

    def rounds(self, number: int) -> dict[str, list[float]]:
        """Messages a second of each kind of round."""
        click: Doing = (self.clicker, _CLICKS)
        page: Doing = (self.visitor, _PAGES)
        kinds: dict[str, list[Doing]] = {"quiet": [], "clicks": [click], "console": [page], "both": [click, page]}
        found: dict[str, list[float]] = {kind: [] for kind in kinds}
        for n in range(number):
            for kind, doings in kinds.items():
                with beside(*doings):
                    seen = self.client.run(self.relay, self.campaign, self.plan, enforced=True)
                if seen.wrong:
                    raise SystemExit(f"{kind}: {seen.wrong} wrong replies, the first: {seen.first_wrong}")
                found[kind].append(seen.taken / seen.seconds)
            say(f"round {n + 1} of {number}: " + ", ".join(f"{k} {v[-1]:,.0f}/s" for k, v in found.items()))
        return found


def told(found: dict[str, list[float]], clicker: Clicker, visitor: Visitor) -> list[Bar]:
    """Print the figures; the bars."""
    ratios = {
        kind: statistics.median(a / b for a, b in zip(v, found["quiet"], strict=True)) for kind, v in found.items()
    }
    rows = [(kind, f"{statistics.median(v):,.0f}", f"{ratios[kind]:.2f}") for kind, v in found.items()]
    common.table(["round", "messages/s", "of quiet"], rows)
    p50, p99 = (percentile(clicker.waited, share) for share in (0.5, 0.99))
    print(
        f"\n{len(clicker.waited):,} one-click POSTs: p50 {p50:.1f} ms, p99 {p99:.1f} ms, worst {max(clicker.waited):.0f} ms"
    )
    print(f"{visitor.seen:,} pages of the console")
    wrong = clicker.wrong + visitor.wrong
    return [
        Bar("one-click POST, p99", p99, 50, "ms"),
        Bar("what the campaign loses to the console", 1 - ratios["console"], 0.15),
        Bar("wrong answers", wrong, 0),
    ]


def main() -> int:
    """Run it; the exit code."""
    parser = common.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--scale", type=float, default=1.0, help="of the campaign's messages")
    parser.add_argument("--listed", type=int, default=200_000, help="addresses on the list")
    arguments = parser.parse_args()
    with common.place(arguments) as work, discard(work) as upstream:
        ledger = common.seeded(work / "ledger", arguments.listed)
        opened = ledger.open()
        site_key = opened.site_key
        opened.close()
        campaign = replace(WORKLOADS["A5"], messages=int(WORKLOADS["A5"].messages * arguments.scale))
        plan = recipients(campaign, arguments.listed, 1)
        with daemon(work, ledger, upstream.port) as (relay, web):
            bench = Bench(Client(work), campaign, plan, relay, Clicker(web, site_key), Visitor(web))
            bench.visitor.log_in()
            bench.client.run(relay, campaign, plan, enforced=True)  # to warm up
            bars = told(bench.rounds(arguments.rounds), bench.clicker, bench.visitor)
    return common.judge(bars, arguments.no_bar)


if __name__ == "__main__":
    sys.exit(main())
