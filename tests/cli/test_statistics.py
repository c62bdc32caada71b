"""stats: keys, sums and tables against a real ledger."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest

from daemon.cli import statistics
from storage import incoming, refusals
from storage.incoming import Place
from storage.refusals import Refusal, Tally
from storage.terms import Reason
from storage.write import write
from tests.cli.desk import Desk, Said

NOW = datetime(2026, 11, 27, 12, 30, tzinfo=UTC)
HOUR = int(NOW.timestamp()) // 3600
STATS = ["suppressions", "by_reason", "by_scope", "intake", "review_open", "audit_rows", "relay"]
RELAY = "passed refused stripped withdrawn would_refuse service deferred rejected duplicate foreign".split()
COUNTS = RELAY[:-2]


def record(desk: Desk, *some: Refusal, tallies: dict[Tally, int] | None = None) -> None:
    with write(desk.books().ledger, NOW, "relay") as w:
        refusals.record(w, some, tallies or {})


def refusal(**other: Any) -> Refusal:
    return Refusal(NOW, "refused", bytes(16), 1, Reason.OPT_OUT, "crm", "<1@crm.example>", 7)._replace(**other)


CAMPAIGN = {
    Tally(HOUR, 1, "crm", "passed", 0): 98_765,
    Tally(HOUR, 1, "crm", "refused", Reason.OPT_OUT): 110,
    Tally(HOUR, 1, "crm", "refused", Reason.COMPLAINT): 17,
    Tally(HOUR - 30 * 24, 2, "shop", "would-refuse", Reason.HARD_BOUNCE): 1,
    Tally(HOUR, 0, "", "deferred", 0): 2,
}


# ------------------------------------------------------------------ the whole


def test_an_empty_ledger(desk: Desk) -> None:
    desk.books()
    said = desk("stats", "--json")
    assert (said.code, said.err, list(said.fact)) == (0, "", STATS)
    assert said.fact == {
        "suppressions": 0,
        "by_reason": {},
        "by_scope": {},
        "intake": {},
        "review_open": 0,
        "audit_rows": 0,
        "relay": dict.fromkeys(RELAY, 0),
    }
    assert desk("stats").out.splitlines()[0] == "suppressions  0"


def test_what_is_counted(desk: Desk) -> None:
    books = desk.books()
    books.suppress("ann@example.com")
    books.suppress("ann@example.com", "offers")
    books.suppress("bob@example.org", reason=Reason.COMPLAINT)
    books.suppress("carla@example.net", "newsletter", reason=Reason.WANTED)
    with write(books.ledger, NOW, "mailbox support") as w:
        for uid, label in enumerate(("opt-out", "opt-out", "ordinary")):
            place = Place("support", "INBOX", 1, uid)
            incoming.attempt(w, place)
            incoming.record(
                w, place, digest=b"%d" % uid, size=1, message_id="", internaldate=NOW, label=label, state="done"
            )
    record(desk, tallies=CAMPAIGN)
    assert desk("stats", "--json").fact == {
        "suppressions": 3,
        "by_reason": {"opt-out": 2, "complaint": 1, "wanted": 1},
        "by_scope": {"all": 2, "list:offers": 1},
        "intake": {"opt-out": 2, "ordinary": 1},
        "review_open": 0,
        "audit_rows": 4,
        "relay": dict.fromkeys(RELAY, 0) | {"passed": 98_765, "refused": 127, "would_refuse": 1, "deferred": 2},
    }
    assert desk("stats", "--since", "2026-11-27").out == (
        "suppressions  3\n"
        "  by reason   opt-out 2, complaint 1, wanted 1\n"
        "  by scope    all 2, list:offers 1\n"
        "relay         passed 98,765, refused 127, deferred 2 (since 2026-11-27T00:00:00Z)\n"
        "mail read     opt-out 2, ordinary 1\n"
        "review        0 open\n"
        "audit         4 rows\n"
    )


def test_since_is_about_the_relay_alone(desk: Desk) -> None:
    desk.books().suppress("ann@example.com")
    record(desk, tallies=CAMPAIGN)
    fact = desk("stats", "--since", "2026-11-27T12:59:59Z", "--json").fact
    assert (fact["suppressions"], fact["relay"]["passed"], fact["relay"]["would_refuse"]) == (1, 98_765, 0)
    assert desk("stats", "--since", "2026-11-27T13:00:00Z", "--json").fact["relay"] == dict.fromkeys(RELAY, 0)


# ------------------------------------------------------------------ in groups


def test_by_list(desk: Desk) -> None:
    record(desk, tallies=CAMPAIGN)
    said = desk("stats", "--by", "list", "--json")
    assert all(list(fact) == ["list", *COUNTS, "reasons"] for fact in said.facts)
    nothing = dict.fromkeys(COUNTS, 0)
    assert said.facts == [
        {"list": None, **nothing, "deferred": 2, "reasons": {}},
        {
            "list": "newsletter",
            **nothing,
            "passed": 98_765,
            "refused": 127,
            "reasons": {"complaint": 17, "opt-out": 110},
        },
        {"list": "offers", **nothing, "would_refuse": 1, "reasons": {"hard-bounce": 1}},
    ]
    assert [f["list"] for f in desk("stats", "--by", "list", "--since", "2026-11-01", "--json").facts] == [
        None,
        "newsletter",
    ]
    assert desk("stats", "--by", "list") == Said(
        0,
        "list        passed  refused  would refuse  deferred  reasons\n"
        "(no list)        0        0             0         2\n"
        "newsletter  98,765      127             0         0  opt-out 110, complaint 17\n"
        "offers           0        0             1         0  hard-bounce 1\n",
        "",
    )


def test_by_credential(desk: Desk) -> None:
    record(desk, tallies=CAMPAIGN)
    said = desk("stats", "--by", "credential", "--json")
    assert all(list(fact) == ["credential", *COUNTS, "reasons"] for fact in said.facts)
    assert {f["credential"]: f["refused"] for f in said.facts} == {None: 0, "crm": 127, "shop": 0}
    assert "(no log-in)" in desk("stats", "--by", "credential").out


def test_by_message_id(desk: Desk) -> None:
    record(
        desk,
        refusal(others=98),
        refusal(reason=Reason.HARD_BOUNCE),
        refusal(message_id=""),
        refusal(message_id=f"<{'x' * 60}@crm.example>", outcome="would-refuse"),
        refusal(message_id="<\x1b[31m@x>"),
    )
    said = desk("stats", "--by", "message-id", "--json")
    assert all(list(fact) == ["message_id", *COUNTS, "reasons"] for fact in said.facts)
    assert said.facts[-1] == {
        "message_id": "<1@crm.example>",
        **dict.fromkeys(COUNTS, 0),
        "passed": 98,
        "refused": 2,
        "deferred": None,  # nobody wrote down of which message
        "rejected": None,
        "reasons": {"opt-out": 1, "hard-bounce": 1},
    }
    assert [f["message_id"] is None for f in said.facts] == [False, False, True, False]
    hostile, long, none, last = desk("stats", "--by", "message-id").out.splitlines()[1:]
    assert "\x1b" not in hostile
    assert long.startswith("<" + "x" * 22 + "…")
    assert long.split()[0].endswith("@crm.example>")
    assert none.startswith("(no Message-ID)")
    assert last.split() == ["<1@crm.example>", "98", "2", "0", "hard-bounce", "1,", "opt-out", "1"]


def test_a_person_gets_the_latest_messages_and_a_program_all(desk: Desk) -> None:
    record(desk, *(refusal(message_id=f"<{n}@crm>", at=NOW + timedelta(seconds=n)) for n in range(50)))
    said = desk("stats", "--by", "message-id")
    assert len(said.out.splitlines()) == 41
    assert said.out.splitlines()[1].startswith("<49@crm>")
    assert said.err == "these are the latest 40 messages; --since DATE for others, --json for all\n"
    assert len(desk("stats", "--by", "message-id", "--json").facts) == 50
    since = desk("stats", "--by", "message-id", "--json", "--since", "2026-11-27T12:30:45Z")
    assert [f["message_id"] for f in since.facts] == [f"<{n}@crm>" for n in (49, 48, 47, 46, 45)]


@pytest.mark.parametrize("by", ["list", "credential", "message-id"])
def test_nothing_to_tell(desk: Desk, by: str) -> None:
    desk.books()
    assert desk("stats", "--by", by, "--json") == Said(0, "", "")
    said = desk("stats", "--by", by)
    assert (said.code, said.out, len(said.err.splitlines())) == (0, "", 1)


# ------------------------------------------------------------------ slips


@pytest.mark.parametrize("words", [["--by", "person"], ["--by", ""], ["--since", "yesterday"]])
def test_slips_are_64(desk: Desk, words: list[str]) -> None:
    desk.books()
    said = desk("stats", *words)
    assert said.code == 64
    assert "must be one of list, credential, message-id" in said.sentence or "is no date" in said.sentence


def test_a_ledger_that_is_away_is_75(desk: Desk) -> None:
    assert desk("stats").code == 75


def test_the_groups_are_those_of_the_ledger() -> None:
    assert tuple(statistics._GROUPS) == get_args(refusals.By)
