"""A list comes out without those who may not be mailed, and every other octet as it was."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.exchange.digests import Digests, read
from daemon.exchange.rows import Bad, NotUnderstood
from daemon.exchange.scrubbing import Counts, Scrub
from daemon.gate import Pass, Refused
from storage.address import NotAnAddress, SiteKey, keys_of, parse
from storage.engine import Unavailable
from storage.sweep import sweep
from storage.terms import Reason
from tests.ledgers import Books, books

ROOT = Path(__file__).parents[2]
GONE = {"ann@example.com": "opt-out", "bob@example.org": "complaint"}


def verdicts(texts: Sequence[str]) -> list[str | NotAnAddress]:
    """Who is on the list of this test."""
    found: list[str | NotAnAddress] = []
    for text in texts:
        try:
            found.append(GONE.get(str(parse(text)).lower(), ""))
        except NotAnAddress as why:
            found.append(why)
    return found


def scrubbed(
    octets: bytes, column: str | None = None, against: Digests | None = None
) -> tuple[bytes, bytes, Counts, list[Bad]]:
    kept, removed, bad = io.BytesIO(), io.BytesIO(), list[Bad]()
    counts = Scrub(io.BytesIO(octets), column).run(verdicts, kept.write, removed.write, against, bad.append)
    return kept.getvalue(), removed.getvalue(), counts, bad


LIST = (
    'Name;E-Mail;Note\r\n"Ann; A";ann@example.com;"1"\r\n"C\r\n""C""";Carl@Example.org;\r\nD;"dora@example.org";x\r\n'
    "E;nobody;\r\n\r\nF;ANN@example.com ;\r\nG;Gil <gil@example.org>;\r\nB;bob@example.org;no end"
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
def test_what_stays_is_as_it_was(encoding: str, end: str) -> None:
    lines = LIST.replace("\r\n", end)
    octets = lines.encode(encoding)
    bom = octets[
        : len(octets) - len(lines.encode(encoding.replace("-sig", "") if encoding != "utf-16" else "utf-16-le"))
    ]
    plain = "utf-16-le" if encoding == "utf-16" else encoding.replace("-sig", "")
    kept, removed, counts, bad = scrubbed(octets)
    rows = [row.encode(plain) for row in _rows(lines, end)]
    header, ann, carl, dora, _, blank, ann2, gil, bob = rows
    assert kept == bom + header + carl + dora + blank + gil
    assert removed == bom + header + ann + ann2 + bob
    assert (counts.kept, counts.removed, counts.unreadable) == (3, 3, 1)
    assert counts.reasons == {"opt-out": 2, "complaint": 1}
    assert [row.line for row in bad] == [6]


def _rows(text: str, end: str) -> list[str]:
    """The rows of LIST, of which the third goes over two lines."""
    lines = text.split(end)
    whole = [*lines[:2], f"{lines[2]}{end}{lines[3]}", *lines[4:]]
    return [line + end for line in whole[:-1]] + whole[-1:]


@given(
    st.lists(
        st.sampled_from(
            [
                b"1,ann@example.com\n",
                b"2,carl@example.org\r\n",
                b'"3\n,",carl@example.org\n',
                b'4,"ann@example.com"\r',
                b"\n",
                b'5,"open\n',
                b"6\n",
                b"\xff,dora@example.org\n",
                b'"a""b",dora@example.org\n',
            ]
        ),
        max_size=12,
    )
)
def test_every_row_is_in_one_place(rows: list[bytes]) -> None:
    header = b"id,email\n"
    kept, removed, counts, bad = scrubbed(header + b"0,x@example.com\n" + b"".join(rows))
    assert kept.startswith(header + b"0,x@example.com\n")
    assert removed.startswith(header)
    lost = len(header) + sum(map(len, rows)) + 16 - len(kept) - len(removed) + len(header)
    assert lost == sum(len(row.text.encode("utf-8", "surrogateescape")) + 1 for row in bad)
    assert counts.unreadable == len(bad)
    assert b"ann@example.com" not in kept


def test_text_and_json_lines() -> None:
    kept, removed, counts, _ = scrubbed(b"# people\nann@example.com\n\ncarl@example.org\n")
    assert (kept, removed, counts.kept) == (b"# people\n\ncarl@example.org\n", b"ann@example.com\n", 1)
    lines = b'{"n": 1, "email": "ann@example.com"}\n{"email":"carl@example.org" }\n[]\n\n{"n": 2}\n'
    kept, removed, counts, bad = scrubbed(lines)
    assert kept == b'{"email":"carl@example.org" }\n\n'
    assert removed == b'{"n": 1, "email": "ann@example.com"}\n'
    assert [row.line for row in bad] == [3, 5]
    assert scrubbed(lines, "EMail")[2].kept == 1


def test_no_header_and_a_column_by_number() -> None:
    assert scrubbed(b"1,ann@example.com,x@example.com\n2,carl@example.org,x@example.com\n", "2")[0] == (
        b"2,carl@example.org,x@example.com\n"
    )


@pytest.mark.parametrize("octets", [b"", b"a,b\n1,2\n", b"[]", b'{"items": [\n1]}', b"0" * 32 + b"\n", b"PK\x03\x04"])
def test_what_cannot_be_scrubbed_is_refused(octets: bytes) -> None:
    with pytest.raises(NotUnderstood):
        scrubbed(octets)


def test_which_address_of_several_in_json_lines() -> None:
    with pytest.raises(NotUnderstood, match="--column"):
        scrubbed(b'{"email": "a@example.com", "recipient": "b@example.com"}\n')


def test_a_file_cut_off_in_utf16_loses_no_octet() -> None:
    octets = "id,email\n1,x@example.org\n".encode("utf-16") + "2,carl@example.org,x".encode("utf-16-le")[:-1]
    assert scrubbed(octets)[0] == octets


# ------------------------------------------------------------------ against hashes


def hashed(*addresses: str, kind: str = "sha256") -> Digests:
    found = Digests()
    text = "".join(hashlib.new(kind, a.encode()).hexdigest() + "\n" for a in addresses)
    assert not list(read(io.BytesIO(text.encode()), found))
    return found


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_against_a_list_of_hashes(kind: str) -> None:
    against = hashed("carl@example.org", "eve@gmail.com", kind=kind)
    octets = b"email\nCARL@Example.org\ndora@example.org\nE.ve+x@googlemail.com\nann@example.com\n"
    kept, _, counts, _ = scrubbed(octets, against=against)
    assert kept == b"email\ndora@example.org\n"
    assert counts.reasons == {"hash": 2, "opt-out": 1}


def test_a_list_of_hashes_that_is_none() -> None:
    with pytest.raises(NotUnderstood):
        list(read(io.BytesIO(b"ann@example.com\n"), Digests()))
    with pytest.raises(NotUnderstood):
        list(read(io.BytesIO(b" \n"), Digests()))
    found = Digests()
    bad = list(read(io.BytesIO(b"md5\n" + b"0" * 32 + b"\nx\n# y\n\n" + b"f" * 31 + b"\n"), found))
    assert [(row.line, found.count, found.kinds) for row in bad] == [(3, 1, {"md5"}), (6, 1, {"md5"})]


@given(
    st.lists(st.binary(min_size=16, max_size=32), max_size=40), st.lists(st.integers(0, 3), min_size=16, max_size=16)
)
def test_digests_are_a_set(members: list[bytes], close: list[int]) -> None:
    """Also where they lie close together, and are found across two of them."""
    found = Digests()
    members = [*members, bytes(close), bytes([0, 0, *close[2:]]), bytes(16)]
    for digest in members:
        found.add("md5", digest)
    assert all(digest in found for digest in members)
    starts = {digest[:16] for digest in members}
    for n in range(64):
        asked = bytes([0, 0, *((close[(n + i) % 16] + n) % 4 for i in range(14))])
        assert (asked in found) == (asked in starts)


# ------------------------------------------------------------------ the quick way of asking

PLAIN = st.from_regex(r"[a-zA-Z0-9.+_%-]{1,12}@([a-z0-9-]{1,8}\.){0,2}[a-zA-Z]{2,6}\.?", fullmatch=True)
ODD = st.text(st.sampled_from(list("aBé.+@%! \n\"'")), max_size=12)
KEYS = SiteKey((b"n" * 32, b"o" * 32))


@given(st.lists(PLAIN | ODD | st.sampled_from(["a.b@gmail.com", "x@GMX.de", "a@[192.0.2.1]", ""]), max_size=9))
def test_the_keys_of_many_are_those_of_each(texts: list[str]) -> None:
    swept = sweep(KEYS, texts, ("md5", "sha256"))
    assert len(swept.domains) == len(texts)
    wanted = set()
    for number, text in enumerate(texts):
        domain = swept.domains[number]
        if domain is None:
            assert {own[number] for own in swept.own + swept.hashed} == {b""}
            continue
        found = [(own[number], "exact") for own in swept.own] + list(domain)
        assert found == list(keys_of(KEYS, parse(text)))
        octets = text.lower().encode()
        digests = [hashlib.md5(octets).digest(), hashlib.sha256(octets).digest()[:16]]
        assert [kind[number] for kind in swept.hashed] == digests
        wanted |= {key for key, _ in found} | set(digests)
    assert swept.wanted == sorted(wanted)


def test_nearly_every_address_is_asked_for_quickly() -> None:
    texts = ["ann@example.com", "B.ob_2-x@mail.example.co.uk"]
    assert None not in sweep(KEYS, texts).domains


@pytest.fixture
def ledger(tmp_path: Path) -> Books:
    made = books(tmp_path / "books")
    made.suppress("ann@example.com")
    made.suppress("eve@gmail.com", reason=Reason.COMPLAINT)
    made.suppress("gil@example.org", "offers")
    made.suppress("@corp.example", reason=Reason.OPERATOR)
    made.suppress("wi@example.org")
    made.suppress("wi@example.org", "offers", Reason.WANTED)
    return made


def test_the_gate_says_the_same_of_many_as_of_each(ledger: Books) -> None:
    texts = [
        "ann@example.com", "ANN@EXAMPLE.COM", "ann+x@example.com", "e.ve@googlemail.com", "gil@example.org", "x@corp.example",
        "x@mail.corp.example", "ann%example.com@example.net", "wi@example.org", "nobody@example.net", "ü@bücher.example",
    ]  # fmt: skip
    gate = ledger.gate()
    for list_id in (None, "offers", "newsletter"):
        each = [gate.may(parse(text), list_id) for text in texts]
        assert gate.may_each(texts, list_id) == each
        assert sum(isinstance(a, Refused) for a in each) == {None: 8, "offers": 8, "newsletter": 8}[list_id]
    assert gate.may_each([]) == []
    nobody, domain = gate.may_each(["nobody", "@example.com"])
    assert isinstance(nobody, NotAnAddress)
    assert isinstance(domain, NotAnAddress)
    assert gate.may_each(["x@example.net"]) == [Pass()]


def test_what_cannot_be_asked_is_no_list_of_clear_people(ledger: Books) -> None:
    gate = ledger.gate()
    ledger.ledger.path.write_bytes(b"garbage")
    (answer,) = gate.may_each(["nobody@example.net"])
    assert not isinstance(answer, Pass | Refused | NotAnAddress)

    def away(_: Sequence[str]) -> list[str | NotAnAddress]:
        raise Unavailable("away")

    with pytest.raises(Unavailable):
        Scrub(io.BytesIO(b"email\nann@example.com\n")).run(away, io.BytesIO().write)


# ------------------------------------------------------------------ memory

_FLAT = """
import io, sys
from daemon.exchange.formats import open_list
from daemon.exchange.scrubbing import Scrub
class Made(io.RawIOBase):
    "A list that is made while it is read: 30 MB are never in one place."
    def __init__(self, head, row, rows, tail=b""):
        self.parts = (part for n in range(rows + 2) for part in [head if n == 0 else tail if n > rows else row(n)])
        self.held = b""
    def read(self, size=-1):
        while len(self.held) < size:
            more = b"".join(part for _, part in zip(range(1000), self.parts))
            if not more:
                break
            self.held += more
        out, self.held = self.held[:size], self.held[size:]
        return out
def peak():
    (line,) = [x for x in open("/proc/self/status") if x.startswith("VmHWM")]
    return int(line.split()[1]) // 1024
csv = lambda n: b'"Some Body, %d";u%d@example.com;"%s"\\r\\n' % (n, n, b"x" * 100)
json = lambda n: b'{"address": "u%d@example.com", "created_at": "%s"},\\n' % (n, b"x" * 100)
ROWS, early = 160_000, 0
def seen(rows):
    global early
    early = early or (rows >= 60_000 and peak())
def scrub():
    found = Scrub(Made(b"Name;E-Mail;Note\\r\\n", csv, ROWS))
    return found.run(lambda texts: [""] * len(texts), lambda octets: None, progress=seen).kept
def read(head, row, tail=b""):
    for number, _ in enumerate(open_list(Made(head, row, ROWS, tail)).found(), 1):
        seen(number)
    return number
todo = {
    "scrub": scrub,
    "csv": lambda: read(b"Name;E-Mail;Note\\r\\n", csv),
    "json": lambda: read(b'{"items": [', json, b'{"address": "z@example.com", "created_at": ""}]}'),
}
print(todo[sys.argv[1]](), peak() - early, peak())
"""


@pytest.mark.parametrize(("what", "rows"), [("scrub", 160_000), ("csv", 160_000), ("json", 160_001)])
def test_memory_stays_flat(what: str, rows: int) -> None:
    """From the first 60,000 rows to the end of some 25 MB."""
    done = subprocess.run([sys.executable, "-c", _FLAT, what], cwd=ROOT, capture_output=True, text=True, check=True)
    found, grown, peak = map(int, done.stdout.split())
    assert found == rows
    assert grown <= 6
    assert peak < 150
