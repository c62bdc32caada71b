"""check, suppress, lift, show, list: facts, keys and exit codes against a real ledger."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest

from daemon.cli import common
from storage import refusals
from storage.refusals import Refusal
from storage.terms import REASONS, SOURCES, Reason, when
from storage.write import write
from tests.cli.desk import CONFIG, Desk, Said

ZULU = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
CHECK = ["address", "suppressed", "scope", "reason", "since", "matched", "lists", "error"]
HAPPENED = [
    "at",
    "event",
    "source",
    "mailbox",
    "uid",
    "message_id",
    "words",
    "rules",
    "actor",
    "because",
    "ref",
    "scope",
    "reason",
]


# ------------------------------------------------------------------ check


def test_all_clear_is_0_and_somebody_suppressed_1(desk: Desk) -> None:
    desk.books().suppress("ann@example.com")
    assert desk("check", "bob@example.org") == Said(0, "bob@example.org: clear\n", "")
    assert desk("check", "bob@example.org", "ann@example.com").code == 1


def test_the_facts_of_a_check(desk: Desk) -> None:
    books = desk.books()
    books.suppress("ann@example.com")
    books.suppress("bob@example.org", "offers")
    said = desk("check", "Ann+x@Example.com", "bob@example.org", "nonsense", "carla@example.net", "--json")
    assert said.code == 65
    assert said.err == ""
    assert all(list(fact) == CHECK for fact in said.facts)
    ann, bob, bad, carla = said.facts
    assert ZULU.fullmatch(ann.pop("since"))
    assert ann == {
        "address": "Ann+x@Example.com",
        "suppressed": True,
        "scope": "all",
        "reason": "opt-out",
        "matched": "tag",
        "lists": [],
        "error": None,
    }
    nothing = dict.fromkeys(CHECK)
    assert bob == nothing | {"address": "bob@example.org", "suppressed": False, "lists": ["offers"]}
    assert bad["suppressed"] is None
    assert bad["error"] == "an address looks like name@example.com"
    assert carla == nothing | {"address": "carla@example.net", "suppressed": False, "lists": []}


def test_what_is_found_by(desk: Desk) -> None:
    books = desk.books()
    books.suppress("a.nn@gmail.com")
    books.suppress("@example.com", reason=Reason.OPERATOR)
    said = desk("check", "ann@gmail.com", "an.n+x@googlemail.com", "x@mail.example.com", "--json")
    assert [f["matched"] for f in said.facts] == ["exact", "alias", "domain"]


def test_a_narrower_row_counts_only_for_its_list(desk: Desk) -> None:
    desk.books().suppress("ann@example.com", "offers")
    assert desk("check", "ann@example.com").out == "ann@example.com: clear (but suppressed for offers)\n"
    assert desk("check", "ann@example.com", "--list", "newsletter").code == 0
    said = desk("check", "ann@example.com", "--list", "offers", "--json")
    assert (said.code, said.fact["scope"], said.fact["lists"]) == (1, "list:offers", ["offers"])


def test_a_list_nobody_knows_is_64(desk: Desk) -> None:
    desk.books()
    for command in (["check", "a@b.example"], ["suppress", "a@b.example"], ["list"]):
        said = desk(*command, "--list", "webinars")
        assert (said.code, said.sentence) == (64, "no list 'webinars'; known: newsletter, offers")
    assert desk("lift", "a@b.example", "--because", "x", "--list", "").code == 64


def test_a_list_of_the_config_that_has_no_number_yet(desk: Desk) -> None:
    desk.books()
    desk.configure(CONFIG + '[[list]]\nid = "webinars"\n')
    assert desk("check", "ann@example.com", "--list", "webinars").code == 0
    assert desk("list", "--list", "webinars").code == 0
    assert desk("lift", "ann@example.com", "--list", "webinars", "--because", "x").code == 1
    assert desk("suppress", "ann@example.com", "--list", "webinars").code == 0
    assert desk("check", "ann@example.com", "--list", "webinars").code == 1


def test_stdin_with_a_bom_empty_lines_and_octets_that_are_no_utf_8(desk: Desk) -> None:
    desk.books().suppress("ann@example.com")
    given = b"\xef\xbb\xbfann@example.com\r\n\n  bob@example.org \n\xff@example.com\na\0b@example.com\n"
    said = desk("check", "-", "--json", stdin=given)
    assert said.code == 65
    assert [f["suppressed"] for f in said.facts] == [True, False, None, None]
    assert desk.process("check", "-", stdin=given, LC_ALL="C").code == 65


def test_where_several_hold(desk: Desk) -> None:
    assert desk("check", "nonsense").code == 65
    assert desk("check", "ann@example.com").code == 75
    assert desk("check", "nonsense", "ann@example.com").code == 75
    desk.books().suppress("ann@example.com")
    assert desk("check", "nonsense", "ann@example.com").code == 65
    assert desk("check", "").code == 65


def test_check_never_creates(desk: Desk) -> None:
    said = desk("check", "ann@example.com", "--json")
    assert (said.code, said.fact["suppressed"]) == (75, None)
    assert said.fact["error"].startswith("no database at ")
    assert {p.name for p in desk.directory.iterdir()} == {"optoutd.toml"}


def test_hostile_arguments_do_not_reach_the_terminal(desk: Desk) -> None:
    desk.books()
    said = desk("check", "\x1b[31mred\nann@example.com: clear", "\x9b@x")
    assert (said.code, len(said.out.splitlines())) == (65, 2)
    assert "\x1b" not in said.out


# ------------------------------------------------------------------ suppress


def test_suppress_creates_database_and_key_when_both_are_missing(desk: Desk) -> None:
    said = desk("suppress", "ann@example.com", "--note", "by phone", "--source", "phone", "--json")
    assert said.code == 0
    assert said.fact == {
        "address": "ann@example.com",
        "outcome": "new",
        "scope": "all",
        "reason": "operator",
        "ref": 1,
    }
    assert (desk.directory / "optoutd.db").exists()
    assert (desk.directory / "site.key").stat().st_mode & 0o777 == 0o600
    assert desk("check", "ann@example.com").out.startswith("ann@example.com: suppressed: operator (all) since ")


def test_suppress_creates_nothing_where_the_config_says_so(desk: Desk) -> None:
    desk.configure(CONFIG + "[storage]\ncreate = false\n")
    assert desk("suppress", "ann@example.com").code == 75
    assert not (desk.directory / "site.key").exists()


@pytest.mark.parametrize(
    "ours", ["support@quillpdf.example", "Support+x@quillpdf.example", "letter@news.quillpdf.example"]
)
def test_our_own_addresses_are_not_suppressed(desk: Desk, ours: str) -> None:
    desk.configure(CONFIG + 'sender = "letter@news.quillpdf.example"\n')
    desk.books()
    said = desk("suppress", "ann@example.com", ours)
    assert said.code == 64
    assert "one of our own addresses" in said.sentence
    assert desk("check", "ann@example.com", ours).code == 0  # nor was the other one


def test_suppress_twice_is_0(desk: Desk) -> None:
    assert desk("suppress", "ann@example.com").code == 0
    said = desk("suppress", "ANN@example.com")
    assert (said.code, said.out) == (0, "ANN@example.com: was suppressed already (all, ref 1)\n")


def test_the_good_rows_are_done_and_the_bad_ones_are_65(desk: Desk) -> None:
    said = desk("suppress", "-", "", stdin=b"ann@example.com\nnonsense\nbob@example.org\n")
    assert said.code == 65
    assert [line.partition(":")[0] for line in said.out.splitlines()] == ["ann@example.com", "bob@example.org"]
    assert said.err.count("is not an address: ") == 2


def test_an_address_with_its_name(desk: Desk) -> None:
    assert desk("suppress", "Ann <ann@example.com>").err == (
        "optoutd: 'Ann <ann@example.com>' is not an address: give only what is in the brackets: ann@example.com\n"
    )


def test_words_that_are_none(desk: Desk) -> None:
    assert desk("suppress", "a@b.example", "--reason", "spam").sentence.startswith("--reason 'spam': must be one of ")
    assert desk("suppress", "a@b.example", "--source", "fax").code == 64
    assert desk("suppress", "a@b.example", "--reason", "wanted").code == 64
    assert desk("list", "--reason", "spam").code == 64
    assert desk("list", "--source", "fax").code == 64


def test_the_words_are_those_of_the_storage() -> None:
    assert tuple(REASONS) == common.REASONS
    assert SOURCES == common.SOURCES


def test_a_whole_domain(desk: Desk) -> None:
    assert desk("suppress", "@example.com").code == 0
    assert desk("check", "anybody@mail.example.com").code == 1
    said = desk("suppress", "bob@example.org", "@gmail.com")
    assert (said.code, "--force" in said.sentence) == (64, True)
    assert desk("check", "bob@example.org").code == 0
    assert desk("suppress", "@gmail.com", "--force").code == 0
    assert desk("check", "anybody@gmail.com").code == 1


def test_a_top_level_domain_would_suppress_nobody(desk: Desk) -> None:
    assert desk("suppress", "@com").code == 65


# ------------------------------------------------------------------ lift


def test_lift(desk: Desk) -> None:
    books = desk.books()
    books.suppress("ann@example.com")
    books.suppress("ann@example.com", reason=Reason.COMPLAINT)
    books.suppress("ann@example.com", "offers")
    said = desk("lift", "ann@example.com", "--because", "wrote again", "--json")
    assert said.code == 0
    assert said.fact == {"address": "ann@example.com", "scope": "all", "lifted": ["complaint", "opt-out"]}
    assert "still suppressed: list:offers" in said.err
    assert desk("check", "ann@example.com").code == 0
    assert desk("lift", "ann@example.com", "--because", "x").code == 1
    assert desk("lift", "ann@example.com", "--because", "x", "--list", "offers").code == 0
    history = desk("show", "ann@example.com", "--json").fact["history"]
    assert [h["because"] for h in history if h["event"] == "lifted"] == ["wrote again", "wrote again", "x"]


def test_lift_of_nobody_says_what_stands(desk: Desk) -> None:
    desk.books().suppress("ann@example.com", "offers")
    assert "list:offers" in desk("lift", "ann@example.com", "--because", "x").sentence
    assert desk("lift", "bob@example.org", "--because", "x").sentence == "no such suppression: bob@example.org (all)"


def test_lift_of_one_of_a_domain_says_so(desk: Desk) -> None:
    desk.books().suppress("@example.com", reason=Reason.OPERATOR)
    assert "all as part of a whole domain" in desk("lift", "ann@example.com", "--because", "x").sentence
    assert desk("lift", "@example.com", "--because", "x").code == 0


def test_lift_wants_a_reason_and_an_address(desk: Desk) -> None:
    desk.books()
    assert desk("lift", "ann@example.com").sentence == "missing option '--because' (see `optoutd lift --help`)"
    assert desk("lift", "ann@example.com", "--because", " ").code == 64
    assert desk("lift", "nonsense", "--because", "x").code == 65


# ------------------------------------------------------------------ show, list


def test_show(desk: Desk) -> None:
    desk("suppress", "ann@example.com", "--note", "by phone", "--source", "phone")
    said = desk("show", "ANN@example.com", "--json")
    assert said.code == 0
    fact = said.fact
    assert list(fact) == ["address", "suppressed", "suppressions", "history", "import"]
    assert (fact["address"], fact["suppressed"]) == ("ANN@example.com", True)
    (row,) = fact["suppressions"]
    assert ZULU.fullmatch(row.pop("since"))
    assert row == {"scope": "all", "reason": "operator", "source": "phone", "note": "by phone", "ref": 1}
    (past,) = fact["history"]
    assert list(past) == HAPPENED
    assert ZULU.fullmatch(past["at"])
    assert past["actor"].startswith("cli ")
    text = desk("show", "ann@example.com").out
    assert "suppressed: operator (all) since" in text
    assert "because: by phone" in text


def test_show_ref(desk: Desk) -> None:
    desk("suppress", "ann@example.com")
    by_ref = desk("show", "--ref", "1", "--json")
    assert by_ref.code == 0
    assert by_ref.fact == desk("show", "ann@example.com", "--json").fact


def test_show_tells_of_refusals(desk: Desk) -> None:
    books = desk.books()
    ref = books.suppress("ann@example.com").evidence
    key = books.ledger.site_key.address_key("ann@example.com")
    later = common.now() + timedelta(minutes=5)
    one = Refusal(later, "refused", key, books.numbers["offers"], Reason.OPT_OUT, "crm", "<1@crm.example>", ref)
    two = Refusal(later + timedelta(hours=1), "service", key, 0, 0, "", "", 0)
    bob = one._replace(key=books.ledger.site_key.address_key("bob@example.org"))
    with write(books.ledger, later, "relay") as w:
        refusals.record(w, [one, two, bob], {})
    history = desk("show", "ann+tag@example.com", "--json").fact["history"]
    assert all(list(past) == HAPPENED for past in history)
    assert [past["event"] for past in history] == ["suppressed", "refused", "service"]
    assert history[1] == dict.fromkeys(HAPPENED) | {
        "at": when(later),
        "event": "refused",
        "message_id": "<1@crm.example>",
        "actor": "relay crm",
        "because": "opt-out, mail to list:offers",
        "ref": ref,
    }
    assert history[2] == dict.fromkeys(HAPPENED) | {"at": history[2]["at"], "event": "service", "actor": "relay"}
    text = desk("show", "ann@example.com").out
    assert f"refused by relay crm, ref {ref}\n      message: <1@crm.example>\n      because: opt-out" in text
    assert text.endswith("service by relay\n")
    of_ref = desk("show", "--ref", str(ref), "--json").fact["history"]
    assert [past["event"] for past in of_ref] == ["suppressed", "refused"], "the other one names another reason"


@pytest.mark.parametrize("ref", ["2", "0", "-1", "99999999999999999999"])
def test_show_of_a_ref_that_is_none(desk: Desk, ref: str) -> None:
    desk("suppress", "ann@example.com")
    said = desk("show", "--ref", ref)
    assert (said.code, said.sentence) == (1, f"no such ref: {ref}")


def test_show_of_nobody(desk: Desk) -> None:
    desk.books()
    said = desk("show", "ann@example.com", "--json")
    assert said.code == 0
    assert said.fact == {
        "address": "ann@example.com",
        "suppressed": False,
        "suppressions": [],
        "history": [],
        "import": None,
    }
    assert "not suppressed" in desk("show", "ann@example.com").out
    assert desk("show").code == 64
    assert desk("show", "ann@example.com", "--ref", "1").code == 64
    assert desk("show", "").code == 65
    assert desk("show", "--ref", "one").code == 64


def test_wanted_is_no_suppression(desk: Desk) -> None:
    desk.books()
    desk("suppress", "ann@example.com", "--reason", "wanted", "--list", "newsletter")
    assert desk("show", "ann@example.com", "--json").fact["suppressed"] is False
    text = desk("show", "ann@example.com").out
    assert "not suppressed" in text
    assert "wanted all the same (list:newsletter)" in text


def test_list(desk: Desk) -> None:
    desk("suppress", "ann@example.com", "--reason", "opt-out", "--source", "letter")
    desk("suppress", "bob@example.org", "--list", "offers")
    said = desk("list", "--json")
    assert said.code == 0
    assert all(list(f) == ["address", "key", "scope", "reason", "source", "since"] for f in said.facts)
    rows = {f["address"]: f for f in said.facts}
    assert re.fullmatch("[0-9a-f]{32}", rows["ann@example.com"]["key"])
    assert ZULU.fullmatch(rows["ann@example.com"]["since"])
    assert rows["bob@example.org"]["scope"] == "list:offers"

    def named(*options: str) -> set[str]:
        return {f["address"] for f in desk("list", "--json", *options).facts}

    assert named("--reason", "opt-out") == {"ann@example.com"}
    assert named("--list", "offers") == {"bob@example.org"}
    assert named("--source", "letter") == {"ann@example.com"}
    assert named("--since", "2026-01-31") == {"ann@example.com", "bob@example.org"}
    assert named("--since", "2999-01-01T00:00:00Z") == set()


def test_list_of_nobody_says_so_on_stderr(desk: Desk) -> None:
    desk.books()
    assert desk("list").err == "nobody is on the list\n"
    assert desk("list", "--reason", "opt-out").err == "nobody fits\n"
    said = desk("list", "--json")
    assert (said.code, said.out, said.err) == (0, "", "")


@pytest.mark.parametrize("since", ["yesterday", "", "2026-13-01", "0001-01-01T00:00:00+14:00", "9" * 30])
def test_dates_that_are_none(desk: Desk, since: str) -> None:
    desk.books()
    assert desk("list", "--since", since).code == 64


def test_without_addresses_kept(desk: Desk) -> None:
    desk.configure(CONFIG + "[storage]\nkeep_addresses = false\n")
    desk("suppress", "ann@example.com")
    assert desk("list", "--json").fact["address"] is None
    assert desk("list").out.startswith("(key ")


def test_a_locked_database_is_75(desk: Desk) -> None:
    books = desk.books()
    with closing(sqlite3.connect(books.ledger.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert desk("check", "ann@example.com").code == 0  # readers do not wait for writers
        assert desk("suppress", "ann@example.com").code == 75
    assert desk("check", "ann@example.com").code == 0
