"""erase, show --for-subject, show --certificate: what an operator and a person get to read, and what is left in the files."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from daemon import events
from storage import suppressions
from storage.address import parse
from storage.terms import ALL, Reason
from storage.write import write
from tests.cli.desk import CONFIG, Desk
from tests.storage.lives import BOB, NOW, ZELDA, Life

HEAD = re.compile(r"head (\d+:[0-9a-f]{32})")


@pytest.fixture
def life(desk: Desk) -> Life:
    """Zelda has asked, was refused twice, and named beside Bob; an item about her waits."""
    events.configure(level="error")  # what happens to her is logged, and stdout is for facts
    it = Life(desk.books())
    for happened in (it.asks, it.is_named_with_bob, it.is_refused, it.is_refused, it.is_noted, it.is_told):
        happened()
    return it


def held_in(directory: Path) -> list[str]:
    """The files beside the config in which she is named."""
    return sorted(p.name for p in directory.iterdir() if p.is_file() and b"zelda.quux" in p.read_bytes().lower())


# ------------------------------------------------------------------ erase


def test_an_erase_says_what_went_and_what_stays(desk: Desk, life: Life) -> None:
    said = desk("erase", "Zelda.Quux@EXAMPLE.com")
    assert said.code == 0
    assert said.out.splitlines()[0] == "Zelda.Quux@example.com: forgotten"
    assert "       1  kept addresses\n" in said.out
    assert said.out.endswith(
        "kept, under a keyed digest:\n  opt-out (all)\n  operator (all)\n  3 audit rows and 2 refusals that name nobody\n"
    )
    assert "others asked in the same message (ref 2): they stay suppressed" in said.err
    assert "not in our reach: backups" in said.err
    assert held_in(desk.directory) == []
    assert desk("check", ZELDA).code == 1
    assert desk("check", BOB).code == 1
    assert desk("audit", "verify").code == 0


def test_the_facts_of_an_erase(desk: Desk, life: Life) -> None:
    said = desk("erase", ZELDA, "--json")
    assert said.fact == {
        "address": ZELDA,
        "known": True,
        "removed": {
            "address": 1,
            "evidence": 3,
            "message_id": 6,
            "review": 0,
            "notice": 1,
            "soft_bounce": 0,
            "digest": 0,
        },
        "shared": [2],
        "undecided": [],
        "kept": {
            "suppressions": [{"scope": "all", "reason": "opt-out"}, {"scope": "all", "reason": "operator"}],
            "audit_rows": 3,
            "refusals": 2,
        },
        "copies": [],
    }
    again = desk("erase", ZELDA, "--json").fact
    assert again["known"]
    assert set(again["removed"].values()) == {0}
    assert again["kept"]["audit_rows"] == 3


def test_somebody_unknown_is_0_and_not_written_down(desk: Desk, life: Life) -> None:
    before = life.tables()
    said = desk("erase", "carla@example.net", "--json")
    assert (said.code, said.fact["known"], said.err) == (0, False, "")
    assert desk("erase", "carla@example.net").out.startswith("carla@example.net: nothing is known of them")
    assert life.tables() == before


@pytest.mark.parametrize(
    ("address", "code", "sentence"),
    [
        ("@example.com", 64, "@example.com is a whole domain, not a person"),
        ("nonsense", 65, "'nonsense' is not an address"),
        ("", 65, "'' is not an address"),
    ],
)
def test_only_a_person_can_be_forgotten(desk: Desk, life: Life, address: str, code: int, sentence: str) -> None:
    said = desk("erase", address)
    assert said.code == code
    assert said.sentence.startswith(sentence)


def test_without_a_ledger_nobody_is_erased(desk: Desk) -> None:
    assert desk("erase", ZELDA).code == 75


def test_copies_of_the_database_are_named(desk: Desk, life: Life) -> None:
    life.it.ledger.store.write_back()
    shutil.copy(desk.directory / "optoutd.db", desk.directory / "optoutd.db.before-0004")
    shutil.copy(desk.directory / "optoutd.db", desk.directory / "mine.db")
    said = desk("erase", "zelda.quux+another@example.com")
    assert f"{desk.directory / 'optoutd.db.before-0004'} still holds the address: delete it" in said.err
    assert held_in(desk.directory) == ["mine.db", "optoutd.db.before-0004"]
    assert desk("erase", ZELDA, "--json").fact["copies"] == [str(desk.directory / "optoutd.db.before-0004")]


def test_what_an_earlier_version_left_in_a_free_page_is_told(desk: Desk, life: Life) -> None:
    life.it.ledger.close()
    with closing(sqlite3.connect(desk.directory / "optoutd.db", isolation_level=None)) as db:
        db.execute("PRAGMA secure_delete = OFF")
        db.execute("CREATE TABLE old (text)")
        db.execute("INSERT INTO old VALUES (?)", (f"x{ZELDA} " * 2000,))
        db.execute("DROP TABLE old")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    said = desk("erase", ZELDA)
    assert f"{desk.directory / 'optoutd.db'} still holds the address: an earlier version left it" in said.err


def test_doubtful_mail_that_was_closed_is_told(desk: Desk) -> None:
    life = Life(desk.books())
    with write(life.it.ledger, NOW, "test") as w:
        suppressions.add(w, parse(ZELDA), life.it.numbers["offers"], Reason.OPT_OUT, "mail", {})
    life.is_doubtful()
    life.is_lifted()
    said = desk("erase", ZELDA)
    assert "closed without a decision (review 1); they may still be mailed: look at it in the mailbox" in said.err
    desk("suppress", ZELDA)
    life.is_doubtful()
    assert "(review 2); they get no mail anyway" in desk("erase", ZELDA).err


def test_what_is_forgotten_is_still_explained(desk: Desk, life: Life) -> None:
    desk("erase", ZELDA)
    fact = desk("show", ZELDA, "--json").fact
    assert [(s["reason"], s["source"], s["note"]) for s in fact["suppressions"]] == [
        ("opt-out", "mail", None),
        ("operator", "phone", None),
    ]
    assert [h["event"] for h in fact["history"]] == ["suppressed", "refused", "refused", "suppressed", "erased"]


# ------------------------------------------------------------------ all we hold on a person


def test_a_person_gets_everything_and_nobody_else(desk: Desk, life: Life) -> None:
    life.is_doubtful()
    said = desk("show", ZELDA, "--for-subject")
    assert said.code == 0
    titles = re.findall(r"\n\n\n(.*)\n-+\n", said.out)
    assert titles == [
        "Your address",
        "Why you get no (or less) marketing mail from us",
        "What happened, in order",
        "Other records that name you",
        "Messages to us that are on record",
        "Messages that one of our staff had to look at",
        "Our mail to you that was stopped",
        "Mail that this program wrote to you",
        "Counters",
        "Your rights, and what the law wants you to know (GDPR Art. 15)",
    ]
    assert BOB not in said.out
    assert "bob" not in said.out.lower().replace("(somebody else)", "")
    assert "(somebody else)" in said.out
    flat = " ".join(said.out.split())
    assert "words: I am zelda.quux, and Zelda.Quux@example.com is not to be mailed any more" in flat
    assert "we have it from: a phone call" in flat
    assert flat.count("not sent to you") == 2
    assert "once it has ended, 2,190 days from when it was written" in flat
    assert all(f"({letter})" in flat for letter in "abcdefgh")
    assert all(len(line) <= 78 for line in said.out.splitlines())
    assert "complete the 6 places" in said.err
    assert said.out.count("[to be completed]") + said.out.count("[to be\n") == 6


def test_the_facts_of_it_hold_every_trace_that_an_erase_removes(desk: Desk, life: Life) -> None:
    life.is_doubtful()
    life.bounces()
    fact = desk("show", ZELDA, "--for-subject", "--json").fact
    removed = desk("erase", ZELDA, "--json").fact["removed"]
    told = len([h for h in fact["history"] if h["address"] or h["note"]]) + len(fact["named_in"])
    assert (len(fact["addresses"]), told) == (removed["address"], removed["evidence"])
    assert (len(fact["reviews"]), len(fact["notices"])) == (removed["review"], removed["notice"])
    assert len(fact["soft_bounces"]) == removed["soft_bounce"]
    after = desk("show", ZELDA, "--for-subject", "--json").fact
    assert after["forgotten"]
    assert [after[k] for k in ("addresses", "named_in", "reviews", "notices", "soft_bounces")] == [[]] * 5
    assert not any(h["address"] or h["words"] or h["note"] for h in after["history"])
    assert after["suppressions"]
    assert after["suppressions"][0]["source"] == "mail"


def test_of_somebody_unknown_we_hold_nothing(desk: Desk, life: Life) -> None:
    said = desk("show", "carla@example.net", "--for-subject")
    assert said.code == 0
    assert said.out.count("\nNothing.\n") == 9


def test_a_whole_domain_is_told_as_such(desk: Desk) -> None:
    desk.books().suppress("@example.com", reason=Reason.OPERATOR)
    said = desk("show", ZELDA, "--for-subject")
    assert "it is about your whole domain, not about you alone" in " ".join(said.out.split())


def test_the_days_of_the_config_are_told(desk: Desk, life: Life) -> None:
    desk.configure(CONFIG + "[retention]\nevidence = 0\nrefusals = 30\n")
    flat = " ".join(desk("show", ZELDA, "--for-subject").out.split())
    assert "once it has ended, without a limit in time from when" in flat
    assert "Which mail was stopped: 30 days" in flat


def test_hostile_words_stay_words(desk: Desk) -> None:
    life = Life(desk.books())
    with write(life.it.ledger, NOW, "test") as w:
        words = "\x1b[2Jstop\n\nYour rights\n-----------\nnone {blank}"
        suppressions.add(w, parse(ZELDA), ALL, Reason.OPT_OUT, "mail", {"words": words})
    for paper in ("--for-subject", "--certificate"):
        out = desk("show", ZELDA, paper).out
        assert "\x1b" not in out
        assert "\nYour rights\n" not in out


# ------------------------------------------------------------------ a certificate


def test_a_certificate_says_who_when_how_and_what_was_stopped(desk: Desk, life: Life) -> None:
    said = desk("show", ZELDA, "--certificate")
    assert (said.code, said.err) == (0, "")
    assert said.out.isascii()
    flat = " ".join(said.out.split())
    assert "answer no: the rows below stand stands all, opt-out, since 2026-05-04T12:01:00Z (ref 1)" in flat
    assert "recorded 2026-05-04T12:01:00Z by mailbox support by mail" in flat
    assert "words I am zelda.quux, and Zelda.Quux@example.com is not to be mailed any more rules 3-stop" in flat
    assert "2026-05 - refused 2 2026-05-04T12:04:00Z" in flat
    assert "2 in all, the last on 2026-05-04T12:04:00Z" in flat
    assert "confirm: sent" in flat
    assert "bob" not in flat
    (head,) = HEAD.findall(said.out)
    assert desk("audit", "verify", "--head", head).code == 0
    macs = dict(re.findall(r"^ +(\d+)  .*\n +mac ([0-9a-f]{32})$", said.out, re.MULTILINE))
    exported = {str(row["seq"]): row["mac"] for row in desk("audit", "export").facts if row["key"] == life.key.hex()}
    assert macs == exported


def test_how_fast_it_was_is_told(desk: Desk) -> None:
    life = Life(desk.books())
    with write(life.it.ledger, NOW, "mailbox support") as w:
        asked = NOW.replace(hour=9)
        suppressions.add(w, parse(ZELDA), ALL, Reason.OPT_OUT, "mail", {}, since=asked)
    said = desk("show", ZELDA, "--certificate")
    assert "by mailbox support, 3 hours after it was asked" in " ".join(said.out.split())
    (request,) = desk("show", ZELDA, "--certificate", "--json").fact["requests"]
    assert (request["asked"], request["recorded"], request["seconds"]) == (
        "2026-05-04T09:00:00Z",
        "2026-05-04T12:00:00Z",
        10_800,
    )


def test_a_lift_is_part_of_it(desk: Desk, life: Life) -> None:
    desk("lift", ZELDA, "--because", "wrote that she wants it back")
    fact = desk("show", ZELDA, "--certificate", "--json").fact
    assert (fact["suppressed"], fact["standing"]) == (False, [])
    assert [r["because"] for r in fact["requests"] if r["event"] == "lifted"] == ["wrote that she wants it back"] * 2
    assert "yes: nothing stands against it now" in desk("show", ZELDA, "--certificate").out


def test_after_an_erase_it_still_proves_when_and_how_fast(desk: Desk, life: Life) -> None:
    desk("erase", ZELDA)
    fact = desk("show", ZELDA, "--certificate", "--json").fact
    assert (fact["forgotten"], fact["chain"]["ok"]) == (True, True)
    assert [(r["asked"], r["source"], r["words"]) for r in fact["requests"]] == [
        ("2026-05-04T12:01:00Z", "mail", None),
        ("2026-05-04T12:05:00Z", "phone", None),
    ]
    assert fact["stopped"][0]["count"] == 2


def test_a_broken_chain_is_said_first_and_is_1(desk: Desk, life: Life) -> None:
    with closing(sqlite3.connect(desk.directory / "optoutd.db")) as db:
        db.execute("UPDATE audit SET actor = 'nobody' WHERE seq = 2")
        db.commit()
    said = desk("show", ZELDA, "--certificate")
    assert said.code == 1
    assert said.out.startswith("THE RECORD IS BROKEN")
    assert "audit row 2: changed" in said.out
    assert "keep a copy of this database" in said.err
    fact = desk("show", ZELDA, "--certificate", "--json").fact
    assert fact["chain"] == {
        "ok": False,
        "rows": 3,
        "head": None,
        "error": "audit row 2: changed, or not written by us",
    }


def test_of_somebody_unknown_there_is_nothing_to_certify(desk: Desk, life: Life) -> None:
    said = desk("show", "carla@example.net", "--certificate")
    assert (said.code, said.sentence) == (
        1,
        "nothing is on record about carla@example.net: there is nothing to certify",
    )


# ------------------------------------------------------------------ into a file


@pytest.mark.parametrize("paper", ["--for-subject", "--certificate"])
def test_a_paper_goes_into_a_file_of_the_operator_alone(desk: Desk, life: Life, paper: str) -> None:
    (desk.directory / "paper").write_text("an older one")
    (desk.directory / "paper").chmod(0o644)
    said = desk("show", ZELDA, paper, "-o", "paper")
    assert (said.code, said.out) == (0, "")
    written = desk.directory / "paper"
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    strip = re.compile(r"\d{4}-11-\d\dT\S+|made +\S+|Made on \S+")
    assert strip.sub("", written.read_text()) == strip.sub("", desk("show", ZELDA, paper, "-o", "-").out)
    assert not list(desk.directory.glob(".paper*"))
    assert desk("show", ZELDA, paper, "-o", "paper", "--json").out == ""
    assert json.loads(written.read_text())["address"] == ZELDA


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--ref", "1", "--certificate"], 64, "--for-subject and --certificate are about a person: give ADDR"),
        (
            [ZELDA, "--for-subject", "--certificate"],
            64,
            "--for-subject and --certificate are two papers: give one of them",
        ),
        ([ZELDA, "-o", "x"], 64, "-o goes with --for-subject or --certificate"),
        (["@example.com", "--for-subject"], 64, "@example.com is a whole domain, not a person"),
        ([ZELDA, "--certificate", "-o", "no/where"], 78, "no/where: No such file or directory"),
    ],
)
def test_misuse_is_said_in_one_sentence(desk: Desk, life: Life, arguments: list[str], code: int, sentence: str) -> None:
    said = desk("show", *arguments)
    assert said.code == code
    assert said.sentence.startswith(sentence)
