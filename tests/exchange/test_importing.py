"""Rows of a list become rows of the ledger: what is let in, what they come to, and where it may be cut."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.exchange import importing, pace, portions
from daemon.exchange.importing import Import
from daemon.exchange.portions import Tally, Terms
from daemon.exchange.rows import Bad, Entry, Found, Skipped
from daemon.options import House, MailingList
from storage import audit, hashes, imports, suppressions
from storage.address import NotAnAddress, SiteKey, parse, person
from storage.engine import Unavailable
from storage.terms import ALL, Reason, seconds
from storage.write import write
from tests.ledgers import Books, books

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
DAY = timedelta(days=1)
HOUSE = House(
    name="Quill PDF",
    domains=("quillpdf.example",),
    addresses=("support@quillpdf.example",),
    lists=(MailingList(id="newsletter", sender="Letter@news.example"),),
)


def no_wait(_: float) -> None:
    """Time passes by itself."""


class Desk:
    """Imports into one ledger."""

    def __init__(self, it: Books):
        self.it, self.bad = it, list[Bad]()
        self.now = NOW

    def make(self, terms: Terms | None = None, wait: Callable[[float], object] = no_wait) -> Import:
        detail = {"file": "a.csv", "format": "csv"}
        it = Import(self.it.ledger, HOUSE, self.it.numbers, terms or Terms(), detail, "test", lambda: self.now)
        it.bad, it.wait = self.bad.append, wait
        return it

    def __call__(
        self,
        *rows: Found | str,
        digest: bytes = b"",
        terms: Terms | None = None,
        wait: Callable[[float], object] = no_wait,
    ) -> Tally:
        it = self.make(terms, wait)
        found: list[Found] = [Entry(n, row) if isinstance(row, str) else row for n, row in enumerate(rows, 1)]
        return it.run(it.begin(digest or repr(rows).encode(), "a.csv"), iter(found))

    def why(self, row: Found | str, **terms: object) -> str:
        """Why this row is bad."""
        self.bad.clear()
        assert self(row, terms=Terms(**terms)).bad == 1  # type: ignore[arg-type]
        (bad,) = self.bad
        return bad.why

    def stands(self, address: str) -> list[tuple[int, int, int]]:
        with self.it.ledger.connect() as db:
            found = suppressions.standing(db, self.it.ledger.site_key, parse(address))
        return sorted(r[1:4] for r in found)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    it = books(tmp_path / "ledger")
    yield Desk(it)
    with it.ledger.reading() as db:
        audit.verify(db, it.ledger.site_key)
    it.ledger.close()


# ------------------------------------------------------------------ what a row comes to


def test_what_a_row_does_not_say_the_terms_say(desk: Desk) -> None:
    offers = desk.it.numbers["offers"]
    desk("ann@example.com", terms=Terms(offers, Reason.COMPLAINT, NOW - DAY))
    assert desk.stands("ann@example.com") == [(offers, Reason.COMPLAINT, seconds(NOW - DAY))]
    desk("bob@example.com")
    assert desk.stands("bob@example.com") == [(ALL, Reason.OPT_OUT, seconds(NOW))]


def test_what_a_row_says_counts(desk: Desk) -> None:
    newsletter, offers = desk.it.numbers["newsletter"], desk.it.numbers["offers"]
    tally = desk(
        Entry(1, "ann@example.com", "hard-bounce", ("newsletter", "offers", "newsletter"), NOW - DAY),
        Entry(2, "bob@example.com", "", ("offers", "all")),
        terms=Terms(newsletter),
    )
    assert tally == Tally(2, 2, 0, 0, 0)
    assert desk.stands("ann@example.com") == [(n, 4, seconds(NOW - DAY)) for n in (newsletter, offers)]
    assert desk.stands("bob@example.com") == [(ALL, 2, seconds(NOW))]


def test_a_list_of_nothing_but_addresses(desk: Desk) -> None:
    """The usual case has a way of its own, if no addresses are kept."""
    desk.it.ledger.keep_addresses = False
    offers = desk.it.numbers["offers"]
    terms = Terms(offers, Reason.COMPLAINT, NOW - DAY)
    assert desk("ann@example.com", "Bob@example.com", "ann@example.com", terms=terms) == Tally(3, 2, 1, 0, 0)
    for row in (Entry(1, "cem@example.com", since=NOW), Entry(1, "", hashed=("md5", b"m" * 16))):
        assert desk("dan@example.com", row, digest=repr(row).encode(), terms=Terms(offers)).added > 0
    assert desk.stands("ann@example.com") == desk.stands("bob@example.com") == [(offers, 1, seconds(NOW - DAY))]
    assert desk.stands("cem@example.com") == desk.stands("dan@example.com") == [(offers, 2, seconds(NOW))]


def test_one_person_is_one_key_however_written(desk: Desk) -> None:
    assert desk("A.nn+x@GoogleMail.com", "ann@gmail.com", "Bob+y@example.com", "BOB@EXAMPLE.COM.") == Tally(
        4, 2, 2, 0, 0
    )
    with desk.it.ledger.connect() as db:
        kept = db.exec_driver_sql("SELECT address FROM person ORDER BY 1").scalars().all()
    assert kept == ["A.nn+x@googlemail.com", "Bob+y@example.com"]


LOCALS = st.sampled_from(
    ["ann", "A.nn", "ann+x", "+x", "a.b-c_d", "ä", '"a b"', "o'neil", ".", "a.", "x" * 64, "x" * 65]
)
DOMAINS = st.sampled_from(
    "example.com Example.COM gmail.com GoogleMail.com me.com icloud.com yandex.ru proton.me hey.com bücher.example [127.0.0.1]"
    " example example.com. a..b -x.example news.example quillpdf.example".split()
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.builds("{}@{}".format, LOCALS, DOMAINS), max_size=6), st.sampled_from([(), ("tag",), ("tag", "alias")])
)
def test_the_quick_way_comes_to_the_same_keys(desk: Desk, texts: list[str], same: tuple[str, ...]) -> None:
    desk.it.ledger.same_person = same
    reader = desk.make()._reader(NOW)
    (made,) = reader.chunks(Entry(n, text) for n, text in enumerate(texts)) if texts else (None,)
    expected = list[tuple[bytes, str]]()
    for text in texts:
        with suppress(NotAnAddress):
            address = parse(text)
            if not HOUSE.never_suppresses(str(address)):
                expected.append((desk.it.ledger.site_key.address_key(person(address, same)), str(address)))
    if made:
        assert [r[0] for r in made.batch.rows] == sorted(key for key, _ in expected)
        assert made.batch.addresses == dict(reversed(expected))


@pytest.mark.parametrize(
    ("since", "kept"),
    [(NOW + DAY, NOW), (datetime(1960, 1, 1, tzinfo=UTC), datetime.fromtimestamp(1, UTC)), (NOW - DAY, NOW - DAY)],
)
def test_dates_that_cannot_be_are_drawn_in(desk: Desk, since: datetime, kept: datetime) -> None:
    desk(Entry(1, "ann@example.com", since=since))
    assert desk.stands("ann@example.com") == [(ALL, 2, seconds(kept))]


def test_of_an_entry_with_several_lists_the_best_counts(desk: Desk) -> None:
    one, both = (
        Entry(1, "ann@example.com", scopes=("offers",)),
        Entry(1, "ann@example.com", scopes=("offers", "newsletter")),
    )
    assert desk(one) == Tally(1, 1, 0, 0, 0)
    assert desk(both) == Tally(1, 1, 0, 0, 0)
    assert desk(both, one) == Tally(2, 0, 2, 0, 0)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("nonsense", "an address looks like name@example.com"),
        ("support+old@quillpdf.example", "one of our own addresses: it is never suppressed"),
        ("Support@QuillPDF.example", "one of our own addresses: it is never suppressed"),
        ("letter@news.example", "one of our own addresses: it is never suppressed"),
        (Entry(1, "ann@example.com", scopes=("webinars",)), "no list 'webinars' in the config"),
        (Entry(1, "ann@example.com", "bored"), "no such reason: 'bored'"),
        (Entry(1, "ann@example.com", "wanted"), "`wanted` exempts one list, and none is named"),
        (
            "@example.com",
            "a whole domain, and a list of this kind names people: use `optoutd suppress` if it is meant",
        ),
        (Bad(7, "no address in it", ";;"), "no address in it"),
    ],
)
def test_what_is_not_let_in(desk: Desk, row: Found | str, why: str) -> None:
    assert desk.why(row) == why
    with desk.it.ledger.connect() as db:
        assert db.exec_driver_sql("SELECT count(*) FROM suppression").scalar() == 0


def test_whole_domains(desk: Desk) -> None:
    assert desk("@example.com", terms=Terms(domains=True)).added == 1
    assert desk.why("@gmail.com", domains=True) == "a public mail provider, and all its users would be suppressed"
    assert desk.why("@com", domains=True) == "a top-level domain cannot be suppressed as a whole"
    for ours in ("@quillpdf.example", "@news.example", "@example"):
        assert desk.why(ours, domains=True) in (
            "one of our own domains",
            "a top-level domain cannot be suppressed as a whole",
        )


def test_the_row_of_a_bad_one_is_told_but_not_all_of_it(desk: Desk) -> None:
    desk.why(Entry(3, "x" * 100_000))
    assert (desk.bad[0].line, len(desk.bad[0].text)) == (3, 500)


def test_soft_bounces_that_have_run_out_are_skipped(desk: Desk) -> None:
    old, new = (Entry(1, f"{d}@example.com", "soft-bounce", since=NOW - d * DAY) for d in (31, 29))
    assert desk(old, new, Skipped(3, "subscribed")) == Tally(3, 1, 0, 2, 0)


def test_hashes_are_announced_before_they_are_written(desk: Desk) -> None:
    seen = list[tuple[float, int]]()

    def wait(seconds_: float) -> None:
        with desk.it.ledger.connect() as db:
            rows = db.exec_driver_sql("SELECT count(*) FROM suppression").scalar()
            seen.append((seconds_, int(rows or 0)))
            assert hashes.kinds(db) == (("md5",) if len(seen) == 1 else ("md5", "sha256"))

    rows = [Entry(1, "", hashed=("md5", b"m" * 16)), Entry(2, "", hashed=("sha256", b"s" * 32))]
    assert desk(*rows, wait=wait) == Tally(2, 2, 0, 0, 0)
    assert seen == [(hashes.SETTLED, 0), (hashes.SETTLED, 0)]
    with desk.it.ledger.connect() as db:
        assert db.exec_driver_sql("SELECT key FROM suppression ORDER BY 1").scalars().all() == [b"m" * 16, b"s" * 16]
        assert db.exec_driver_sql("SELECT count(*) FROM person").scalar() == 0


def test_older_site_keys_are_looked_under(desk: Desk) -> None:
    desk("ann@example.com")
    it = desk.it.ledger
    it.site_key = SiteKey((b"n" * 32, *it.site_key.keys))
    assert desk("ann@example.com", "bob@example.com") == Tally(2, 1, 1, 0, 0)


# ------------------------------------------------------------------ a rehearsal


def test_a_rehearsal_says_what_would_come_of_it_and_does_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portions, "CHUNK", 2)
    desk("ann@example.com")
    rows = [
        Entry(n, f"{who}@example.com") for n, who in enumerate(("ann", "bob", "cem", "bob", "dan", "bob", "x@x"), 1)
    ]
    before = desk.it.ledger.path.with_name("optoutd.db-wal").read_bytes()
    assert desk.make().rehearse(iter(rows)) == Tally(7, 3, 3, 0, 1)
    assert desk.it.ledger.path.with_name("optoutd.db-wal").read_bytes() == before
    assert [b.line for b in desk.bad] == [7]
    assert desk(*rows) == Tally(7, 3, 3, 0, 1)


# ------------------------------------------------------------------ cut, and gone on with


def cut_after(rows: Iterable[Found], count: int) -> Iterator[Found]:
    for n, row in enumerate(rows):
        if n == count:
            raise KeyboardInterrupt
        yield row


def test_it_goes_on_where_it_stopped(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "BESIDE_OTHERS", 10)
    monkeypatch.setattr(pace, "_FEWEST", 10)
    monkeypatch.setattr(portions, "CHUNK", 20)
    rows: list[Found] = [Entry(n, f"p{n}@example.com" if n % 7 else "bad") for n in range(1, 101)]
    it = desk.make()
    for cut in (35, 36, 80):
        with pytest.raises(KeyboardInterrupt):
            it.run(it.begin(b"file", "a.csv"), cut_after(rows, cut))
        with desk.it.ledger.connect() as db:
            assert db.exec_driver_sql("SELECT position FROM import_run").scalar() == cut // 20 * 20
    desk.bad.clear()
    desk.now = NOW + DAY
    assert it.run(it.begin(b"file", "a.csv"), iter(rows)) == Tally(100, 86, 0, 0, 14)
    assert [b.line for b in desk.bad] == list(range(7, 101, 7))  # those of before it was cut, too
    assert desk.stands("p99@example.com") == [(ALL, 2, seconds(NOW))]  # of the day on which it was begun
    assert it.run(it.begin(b"file", "a.csv"), iter(rows)) == Tally(100, 0, 86, 0, 14)


def test_the_same_list_again_brings_nobody_back_who_was_lifted(desk: Desk) -> None:
    dated = Entry(2, "bob@example.com", since=NOW - DAY)
    assert desk("ann@example.com", dated).added == 2
    desk.now = NOW + DAY
    for who in ("ann@example.com", "bob@example.com"):
        with write(desk.it.ledger, desk.now, "test") as w:
            suppressions.lift(w, parse(who), ALL, "asked")
    desk.now = NOW + 2 * DAY
    assert desk("ann@example.com", dated) == Tally(2, 0, 0, 2, 0)
    assert desk("ann@example.com", dated, digest=b"another export") == Tally(2, 0, 0, 2, 0)
    assert desk("ann@example.com", digest=b"a new one", terms=Terms(as_of=desk.now)) == Tally(1, 1, 0, 0, 0)


def test_two_at_once_do_not_count_twice(desk: Desk) -> None:
    it = desk.make()
    first = it.begin(b"file", "a.csv")
    second = it.begin(b"file", "a.csv")
    assert it.run(first, iter([Entry(1, "ann@example.com")])).added == 1
    with pytest.raises(Unavailable, match="another import of the same file"):
        it.run(second, iter([Entry(1, "ann@example.com")]))


def test_the_octets_and_the_question_make_the_digest(tmp_path: Path) -> None:
    def of(octets: bytes, **asked: object) -> bytes:
        (tmp_path / "a").write_bytes(octets)
        with (tmp_path / "a").open("rb") as file:
            return importing.digest(file, asked)

    assert of(b"x", list=None) == of(b"x", list=None)
    assert len({of(b"x", list=None), of(b"y", list=None), of(b"x", list="None"), of(b"x", reason=None)}) == 4


_KILLED = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from daemon.exchange import pace, portions
from daemon.exchange.importing import Import
from daemon.exchange.portions import Terms
from daemon.exchange.rows import Entry
from tests.exchange.test_importing import HOUSE
from tests.ledgers import books
pace.BESIDE_OTHERS = pace._FEWEST = 200
portions.CHUNK = 900
it = books(Path(sys.argv[1]))
def say():
    print("done", flush=True)
made = Import(it.ledger, HOUSE, it.numbers, Terms(), {}, "test", lambda: datetime.now(UTC), done=say, ahead=True)
rows = (Entry(n, f"p{n}@example.com" if n % 9 else "bad") for n in range(1, 5001))
print(made.run(made.begin(b"file", "a.csv"), rows), flush=True)
"""


def test_killed_at_any_point_nothing_is_lost_and_nothing_counted_twice(desk: Desk) -> None:
    dice, came_to, heard = random.Random(7), "", list[int]()
    while not came_to:
        command = [sys.executable, "-c", _KILLED, str(desk.it.ledger.path.parent)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout
            transactions = dice.randint(1, 12)
            for n, line in enumerate(child.stdout):
                if line.startswith("Tally"):
                    came_to = line.strip()
                elif n == transactions and len(heard) < 3:
                    time.sleep(dice.random() * 0.02)
                    child.kill()
            heard.append(child.wait())
        with desk.it.ledger.reading() as db:
            audit.verify(db, desk.it.ledger.site_key)
            rows = db.exec_driver_sql("SELECT count(*) FROM suppression").scalar()
            counted = db.exec_driver_sql("SELECT added FROM import_run").scalar()
        assert rows == counted
    assert heard[:-1] == [-9] * (len(heard) - 1)
    assert len(heard) > 2
    assert came_to == str(Tally(5000, 5000 - 555, 0, 0, 555))


# ------------------------------------------------------------------ others do not wait

_IMPORTING = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from daemon.exchange.importing import Import
from daemon.exchange.portions import Terms
from daemon.exchange.rows import Entry
from tests.exchange.test_importing import HOUSE
from tests.ledgers import books
it = books(Path(sys.argv[1]))
made = Import(it.ledger, HOUSE, it.numbers, Terms(), {}, "test", lambda: datetime.now(UTC))
run = made.begin(b"file", "a.csv")
print("begun", flush=True)
made.run(run, (Entry(n, f"p{n}@example.com") for n in range(30_000)))
"""


def test_a_live_opt_out_does_not_wait_for_an_import(desk: Desk) -> None:
    command = [sys.executable, "-c", _IMPORTING, str(desk.it.ledger.path.parent)]
    waits = list[float]()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        assert child.stdout.readline() == "begun\n"
        while child.poll() is None:
            began = time.monotonic()
            desk.it.suppress(f"live{len(waits)}@example.org")
            waits.append(time.monotonic() - began)
            time.sleep(0.005)
    assert child.returncode == 0
    assert len(waits) > 3
    assert max(waits) < 2  # bench/storage.py has the figures


def test_the_evidence_says_which_list_and_where_in_it(desk: Desk) -> None:
    desk("bad", "ann@example.com", "bob@example.com", "bad")
    with desk.it.ledger.connect() as db:
        (text,) = db.exec_driver_sql("SELECT detail FROM evidence").scalars()
        run = db.exec_driver_sql("SELECT id FROM import_run").scalar()
        assert imports.brought(db, 1) == imports.Brought("a.csv", "csv", 2, 3, 2, 2, 2, 2)
    told = {"file": "a.csv", "format": "csv", "first": 2, "last": 3, "rows": 2, "source": "import", "import": run}
    assert json.loads(text) == told
