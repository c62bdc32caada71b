"""Lists of others, as their services write them: what each row comes to, the bad ones with their line."""

from __future__ import annotations

import io
import json
import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.exchange.formats import FORMATS, ForeignList, open_list
from daemon.exchange.rows import Bad, Entry, Found, NotUnderstood, Skipped


def opened(data: str | bytes, format: str = "auto", column: str | None = None) -> ForeignList:
    octets = data.encode() if isinstance(data, str) else data
    return open_list(io.BytesIO(octets), format=format, column=column)


def found(data: str | bytes, format: str = "auto", column: str | None = None) -> list[Found]:
    return list(opened(data, format, column).found())


def short(rows: list[Found]) -> list[tuple[object, ...]]:
    """Rows as tuples one can read: (line, address, reason), (line, "skipped"), (line, "bad")."""
    out: list[tuple[object, ...]] = []
    for row in rows:
        match row:
            case Entry():
                out.append((row.line, row.address, row.reason))
            case Skipped():
                out.append((row.line, "skipped"))
            case Bad():
                out.append((row.line, "bad"))
    return out


def refusal(data: str | bytes, format: str = "auto", column: str | None = None) -> str:
    with pytest.raises(NotUnderstood) as why:
        opened(data, format, column)
    assert "\n" not in str(why.value)
    return str(why.value)


# ------------------------------------------------------------------ services

LISTS = Path(__file__).parent / "lists"
EXPECTED: dict[str, list[tuple[object, ...]]] = {
    "ses": [
        (1, "ann@example.com", "hard-bounce"),
        (2, "bad"),
        (3, "bob@example.org", "complaint"),
        (4, "bad"),
        (5, "dora@example.org", "hard-bounce"),
    ],
    "ses-csv": [(2, "ann@example.com", "hard-bounce"), (3, "bad")],
    "ses-lines": [(1, "ann@example.com", "hard-bounce"), (2, "bad"), (3, "bob@example.org", "complaint")],
    "sendgrid-bounces": [(1, "ann@example.com", "hard-bounce"), (2, "skipped"), (3, "skipped")],
    "sendgrid-blocks": [(2, "skipped")],
    "sendgrid-invalid": [(2, "ann@example", "hard-bounce")],
    "sendgrid-spam": [(1, "ann@example.com", "complaint")],
    "sendgrid-global": [(2, "ann@example.com", "opt-out"), (5, "bob@example.org", "opt-out")],
    "sendgrid-group": [(1, "ann@example.com", "opt-out")],
    "mailgun-bounces": [(2, "ann@example.com", "hard-bounce"), (3, "skipped")],
    "mailgun-complaints": [(1, "ann@example.com", "complaint")],
    "mailgun-unsubscribes": [(1, "ann@example.com", "opt-out"), (2, "bad")],
    "postmark": [
        (1, "ann@example.com", "opt-out"),
        (2, "bob@example.org", "operator"),
        (3, "carl@example.org", "complaint"),
        (4, "dora@example.org", "hard-bounce"),
    ],
    "mailchimp-unsubscribed": [(2, "ann@example.com", "opt-out"), (4, "bad"), (5, "bob@example.org", "complaint")],
    "mailchimp-cleaned": [(2, "ann@example.com", "hard-bounce")],
    "mailchimp-members": [(1, "ann@example.com", "hard-bounce"), (2, "skipped")],
    "sparkpost": [(1, "ann@example.com", "complaint"), (2, "bob@example.org", "hard-bounce")],
    "sparkpost-csv": [(2, "ann@example.com", "opt-out"), (3, "bob@example.org", "complaint")],
    "listmonk": [(2, "ann@example.com", "opt-out"), (3, "skipped"), (4, "carl@example.org", "operator")],
    "listmonk-api": [(1, "ann@example.com", "opt-out"), (2, "skipped")],
    "mautic": [
        (2, "ann@example.com", "opt-out"),
        (3, "skipped"),
        (4, "carl@example.org", "hard-bounce"),
        (5, "dora@example.org", "operator"),
    ],
    "mautic-report": [(2, "ann@example.com", "opt-out"), (3, "skipped")],
    "postfix": [
        (2, "ann@example.com", "operator"),
        (3, "bob@example.org", "operator"),
        (5, "@example.net", "operator"),
        (6, "@example.info", "operator"),
        (7, "skipped"),
        (8, "skipped"),
        (9, "skipped"),
        (10, "@126.de", "operator"),
        (11, "skipped"),
        (12, "bad"),
        (13, "bad"),
    ],
    "optoutd": [
        (2, "=a@example.com", "opt-out"),
        (3, "bob@example.org", "wanted"),
        (4, "bad"),
        (5, "@example.net", "operator"),
    ],
}

CASES = {path.stem: path.read_text() for path in sorted(LISTS.glob("*.txt"))}


def test_every_list_has_its_expectation() -> None:
    assert CASES.keys() == EXPECTED.keys()


@pytest.mark.parametrize("case", CASES)
def test_what_services_write(case: str) -> None:
    assert short(found(CASES[case])) == EXPECTED[case]
    assert opened(CASES[case]).format == case.partition("-")[0]


@pytest.mark.parametrize("case", [c for c in CASES if not c.startswith("postfix")])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_in_every_encoding(case: str, encoding: str) -> None:
    data, expected = CASES[case], EXPECTED[case]
    assert short(found(data.encode(encoding))) == expected


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_with_every_line_end(case: str, end: str) -> None:
    data, expected = CASES[case], EXPECTED[case]
    assert short(found(data.replace("\n", end))) == expected


@pytest.mark.parametrize("case", CASES)
def test_named_formats_read_the_same(case: str) -> None:
    data, expected = CASES[case], EXPECTED[case]
    assert short(found(data, case.partition("-")[0])) == expected


def test_what_is_kept_of_a_row() -> None:
    ann, _, bob, *_ = found(CASES["ses"])
    assert isinstance(ann, Entry)
    assert ann.since == datetime(2020, 4, 10, 19, 3, 5, tzinfo=UTC)
    assert isinstance(bob, Entry)
    assert bob.since == datetime(2020, 4, 10, 21, 3, 5, tzinfo=UTC)
    group = found(CASES["sendgrid-group"])[0]
    assert isinstance(group, Entry)
    assert (group.scopes, group.note) == ((), "group 7 Weekly")
    everything = found(CASES["mailgun-unsubscribes"])[0]
    assert isinstance(everything, Entry)
    assert everything.scopes == ("all",)
    assert everything.since == datetime(2011, 10, 21, 11, 2, 55, tzinfo=UTC)
    own, wanted, *_ = found(CASES["optoutd"])
    assert own == Entry(2, "=a@example.com", "opt-out", ("all",), datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC), "mail")
    assert wanted == Entry(3, "bob@example.org", "wanted", ("news", "offers"), None, "phone")


def test_a_bad_row_is_told_as_it_was_found() -> None:
    bad = found(CASES["optoutd"])[2]
    assert bad == Bad(4, "reason: 'because' is not understood", "carl@example.org,all,because,,")


# ------------------------------------------------------------------ generic


def test_a_table_of_anybody() -> None:
    data = "Name;E-Mail;Status;Created At;list\nAnn;Ann <ann@example.com>;unsubscribed;2020-01-02;news\nBob;bob@example.org;Active;;\n"
    ann, bob = found(data)
    assert ann == Entry(2, "ann@example.com", "opt-out", ("news",), datetime(2020, 1, 2, tzinfo=UTC))
    assert isinstance(bob, Skipped)


@pytest.mark.parametrize(
    ("column", "cells", "reasons"),
    [
        ("HasOptedOutOfEmail", ["true", "0"], ["opt-out", None]),
        ("unsubscribed", ["Yes", ""], ["opt-out", None]),
        ("Subscribed", ["no", "yes"], ["opt-out", None]),
        ("accepts_marketing", ["FALSE", "TRUE"], ["opt-out", None]),
        ("status", ["Spam complaint", "hard bounced"], ["complaint", "hard-bounce"]),
    ],
)
def test_columns_that_say_who_is_meant(column: str, cells: list[str], reasons: list[str | None]) -> None:
    rows = found(f"email,{column}\n" + "".join(f"x@example.com,{cell}\n" for cell in cells))
    assert [row.reason if isinstance(row, Entry) else None for row in rows] == reasons


def test_a_date_that_cannot_be_read_is_kept_as_a_note() -> None:
    (row,) = found("email,since\nann@example.com,03/04/2021\n")
    assert row == Entry(2, "ann@example.com", note="date: 03/04/2021")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters(delimiter: str) -> None:
    data = f"id{delimiter}email\n1{delimiter}ann@example.com\n"
    assert short(found(data)) == [(2, "ann@example.com", "")]
    assert opened(data).delimiter == delimiter


def test_excel_says_which_delimiter() -> None:
    assert short(found("sep=;\r\nemail;a,b\r\nann@example.com;1,2\r\n")) == [(3, "ann@example.com", "")]


@pytest.mark.parametrize("column", ["2", "Second", "second"])
def test_the_column_may_be_named(column: str) -> None:
    data = "First,Second\na@example.com,b@example.com\n"
    assert short(found(data, column=column)) == [(2, "b@example.com", "")]


def test_of_several_columns_the_one_with_addresses_counts() -> None:
    assert short(found("address,email\n1 Main St,ann@example.com\n")) == [(2, "ann@example.com", "")]


def test_no_header() -> None:
    data = "1,ann@example.com\n2,bob@example.org\n"
    assert short(found(data)) == [(1, "ann@example.com", ""), (2, "bob@example.org", "")]
    assert not opened(data).header


def test_plain_text() -> None:
    data = '# ours\n\nann@example.com\n"bob@example.org"\n  carl@example.org\n"a,b"@example.com\n'
    assert [r.address for r in found(data) if isinstance(r, Entry)] == [
        "ann@example.com",
        "bob@example.org",
        "carl@example.org",
        '"a,b"@example.com',
    ]


def test_json_lines_and_arrays_of_anybody() -> None:
    lines = '{"email": "ann@example.com", "n": 1}\n\n{"email": "bob@example.org"}\n[1]\n{"email"\n'
    assert short(found(lines)) == [(1, "ann@example.com", ""), (3, "bob@example.org", ""), (4, "bad"), (5, "bad")]
    assert short(found('["ann@example.com", "bob@example.org"]')) == [
        (1, "ann@example.com", ""),
        (2, "bob@example.org", ""),
    ]
    assert short(found('{"data": [{"mail": "ann@example.com"}]}')) == [(1, "ann@example.com", "")]
    assert found("[]") == []


def test_octets_that_are_no_utf8_in_another_column_do_no_harm() -> None:
    assert short(found(b"name,email\nM\xfcller,ann@example.com\n")) == [(2, "ann@example.com", "")]


@pytest.mark.parametrize("header", ["", "sha256\n", '"Email_SHA256"\r\n'])
def test_hashes(header: str) -> None:
    md5, sha = "0" * 31 + "A", "f" * 64
    rows = found(f"{header}{sha}\n{md5}\nzz\n\n{'0' * 40}\nann@example.com\n", "auto")
    first = 1 + bool(header)
    assert rows[:2] == [
        Entry(first, "", hashed=("sha256", bytes.fromhex(sha))),
        Entry(first + 1, "", hashed=("md5", bytes.fromhex(md5))),
    ]
    assert [r.line for r in rows if isinstance(r, Bad)] == [first + 2, first + 4, first + 5]
    assert opened(f"{header}{sha}\n").hashed


def test_hashes_in_a_column_of_a_table_or_of_objects() -> None:
    sha = "f" * 64
    rows = found(f"hash,reason\n{sha},complaint\nann@example.com,complaint\n")
    assert rows[0] == Entry(2, "", "complaint", hashed=("sha256", bytes.fromhex(sha)))
    assert isinstance(rows[1], Bad)
    assert isinstance(found(f'{{"md5": "{sha[:32]}"}}\n')[0], Entry)
    assert found(f"email\nann@example.com\n{sha}\n")[1] == Entry(3, sha)  # for the importing to refuse


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("", "empty"),
        (" \r\n\n", "empty"),
        ("a,b\n1,2\n", "--column"),
        ("email,second\na@example.com,b@example.com\n", ""),
        ("x,y\na@example.com,b@example.com\n", "several columns"),
        ("email,status\na@example.com,dormant\n", "'dormant'"),
        ("EmailAddress,Reason\na@example.com,UNKNOWN\n", "'UNKNOWN'"),
        ("uuid,email,status,scope,reason,since\n1,a@example.com,enabled,all,opt-out,\n", "could be"),
        ("Email Address,First Name,LEID,EUID\na@example.com,Ann,1,a\n", "subscribed contacts"),
        ('{"a": 1,\n "b": [1]}', "no array"),
        ('{"items": [{"a": 1}]}', "--column"),
        ("PK\x03\x04....", "ZIP"),
        ("".join(map(chr, range(128))), "not text"),
        ("a@example.com;b@example.com\n", "several columns"),
    ],
)
def test_what_cannot_be_understood_is_refused_in_a_sentence(data: str, words: str) -> None:
    if words:
        assert words in refusal(data)
    else:
        opened(data)


def test_a_wrong_name_is_refused() -> None:
    assert "no column" in refusal("email\na@example.com\n", column="nope")
    assert "no format" in refusal("email\na@example.com\n", "zip")
    assert "Postmark" in refusal("email\na@example.com\n", "postmark")
    assert "not JSON" in refusal("email\na@example.com\n", "ndjson")
    assert "hashes" in refusal("a@example.com\n", "hashes")
    assert "access map" in refusal("a@example.com\n", "postfix")
    assert "no 'nope'" in refusal('[{"email": "a@example.com"}]', column="nope")


def test_an_unknown_status_further_down_is_a_bad_row() -> None:
    rows = found("email,status\n" + "a@example.com,bounced\n" * 500 + "b@example.com,dormant\n")
    assert short(rows[-1:]) == [(502, "bad")]


def test_the_description_says_what_was_found() -> None:
    said = opened("Name;E-Mail\r\nAnn;ann@example.com\r\n".encode("utf-16")).description
    assert said == "CSV, UTF-16 LE with BOM, semicolon-separated, with header, addresses in 'E-Mail'"
    assert "SendGrid" in opened(CASES["sendgrid-spam"]).description
    assert set(FORMATS) >= {c.partition("-")[0] for c in CASES} | {"auto", "csv", "hashes"}


def test_the_documents_name_every_format() -> None:
    table = (LISTS.parents[2] / "docs/lists.md").read_text().partition("| format |")[2].partition("\n\n")[0]
    named = {word for row in table.splitlines()[2:] for word in re.findall("`([a-z]+)`", row.split("|")[1])}
    assert named == set(FORMATS) - {"auto"}


# ------------------------------------------------------------------ large and hostile


def test_a_list_cut_off_in_the_middle_is_told() -> None:
    whole = json.dumps({"items": [{"address": f"a{n}@example.com", "created_at": ""} for n in range(3)]})
    rows = found(whole[:-30])
    assert short(rows) == [
        (1, "a0@example.com", "complaint"),
        (2, "a1@example.com", "complaint"),
        (3, "bad"),
        (4, "bad"),
    ]


def test_pages_after_each_other_are_one_list() -> None:
    page = '{"items": [{"address": "%s@example.com", "created_at": ""}], "paging": {}}\n'
    assert len(found(page % "a" + page % "b")) == 2
    assert short(found(page % "a" + "x"))[-1] == (2, "bad")


def test_items_larger_than_allowed_and_nested_too_deeply_are_bad_and_the_rest_is_read() -> None:
    large = '{"address": "x@example.com", "created_at": "' + "x" * (1 << 21) + '"}'
    deep = '{"address": ' + "[" * 100_000 + "]" * 100_000 + "}"
    good = '{"address": "%s@example.com", "created_at": ""}'
    rows = found(f'{{"items": [{good % "a"}, {large}, {good % "b"}, {deep}, {good % "c"}]}}')
    read = [(1, "a@example.com", "complaint"), (3, "b@example.com", "complaint"), (5, "c@example.com", "complaint")]
    assert short(rows) == sorted([*read, (2, "bad"), (4, "bad")])


def test_a_row_without_end_is_one_bad_row() -> None:
    data = "email\n" + "a" * (3 << 20) + "\nann@example.com\n"
    assert short(found(data)) == [(2, "bad"), (3, "ann@example.com", "")]


def test_a_quotation_mark_left_open_costs_one_row() -> None:
    data = 'id,name,email\n1,"oops,a@example.com\n2,Bob,b@example.com\n3,"Carl",c@example.com\n4,"D\nd",d@example.com\n'
    assert short(found(data)) == [
        (2, "bad"),
        (3, "b@example.com", ""),
        (4, "c@example.com", ""),
        (5, "d@example.com", ""),
    ]
    assert short(found('id,email\n1,a@example.com\n2,"b@example.com\n')) == [(2, "a@example.com", ""), (3, "bad")]


WORDS = (
    'email|address|,|;|\n|\r\n|"|{|}|[|]|:|\\|a@example.com|reason| |REJECT|created|\x00|\ufeff|é|\ud800|status|5.1.1|items|#|=|'
    "'|1e999|sep=;|scope|since|00000000000000000000000000000000"
).split("|")
SOUP = st.lists(st.sampled_from(WORDS), max_size=30).map("".join)


@given(SOUP, st.sampled_from(FORMATS), st.sampled_from([None, "1", "email"]), st.sampled_from(["utf-8", "utf-16"]))
@settings(max_examples=200)
def test_whatever_it_is_it_is_rows_or_a_refusal(soup: str, format: str, column: str | None, encoding: str) -> None:
    octets = soup.encode(encoding, "surrogatepass")
    try:
        rows = found(octets, format, column)
    except NotUnderstood:
        return
    assert all(isinstance(row, Entry | Skipped | Bad) for row in rows)
    lines = [row.line for row in rows]
    assert lines == sorted(lines)
    assert all(len(row.text) <= 500 for row in rows if isinstance(row, Bad))
    assert all(len(row.address) <= 512 and len(row.note) <= 600 for row in rows if isinstance(row, Entry))


@given(st.binary(max_size=300))
def test_octets_of_any_kind(octets: bytes) -> None:
    with suppress(NotUnderstood):
        assert all(isinstance(row, Entry | Skipped | Bad) for row in open_list(io.BytesIO(octets)).found())


def test_the_first_row_is_no_header_if_anything_in_it_may_be_an_address() -> None:
    rows = found('"""ann lee""@example.com"\nbob@example.com\n', "csv")
    assert [r.address for r in rows if isinstance(r, Entry)] == ['"ann lee"@example.com', "bob@example.com"]


def test_a_yes_counts_whatever_the_status_of_the_address() -> None:
    data = "email,email_status,unsubscribed\nann@example.com,valid,1\nbob@example.com,valid,0\n"
    assert short(found(data, "csv")) == [(2, "ann@example.com", "opt-out"), (3, "skipped")]


def test_the_day_of_the_request_goes_before_the_day_of_the_contact() -> None:
    [row] = found("email,created_at,unsubscribed_at\nann@example.com,2020-01-01,2026-02-03\n", "csv")
    assert isinstance(row, Entry)
    assert row.since is not None
    assert row.since.year == 2026


def test_a_mark_between_two_files_is_no_part_of_an_address() -> None:
    rows = found("email\nann@example.com\n\ufeffbob@example.com\n", "csv")
    assert [r.address for r in rows if isinstance(r, Entry)] == ["ann@example.com", "bob@example.com"]
