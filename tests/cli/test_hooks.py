"""hooks: how it is with the programs that are told, and what they were never told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from storage import hooks, suppressions
from storage.write import write
from tests.cli.desk import CONFIG, Desk

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
HOOK = '\n[[webhook]]\nname = "crm"\nurl = "https://crm.quillpdf.example/hook"\nsecret_file = "secret"\nevents = ["opt-out"]\n'
KEYS = "name url events state waiting undelivered again failures trouble next_try reached".split()
UNTOLD = "id hook seq type at scope reason ref given_up again trouble".split()


def configured(desk: Desk) -> None:
    (desk.directory / "secret").write_text("a secret of more than 24 characters")
    desk.configure(CONFIG + HOOK)


def given_up(desk: Desk) -> None:
    it = desk.books()
    for address in ("ann@customer.example", "bob@customer.example"):
        it.suppress(address)
    with it.ledger.connect() as db:
        changes, _ = hooks.window(db, 0, 2)
    with write(it.ledger, NOW, "test") as w:
        hooks.begin(w, "crm")
        hooks.give_up(w, "crm", changes, "HTTP 500")
        hooks.failed(w, "crm", 2, 80, NOW + timedelta(hours=1), "HTTP 500")
    it.suppress("carla@customer.example")
    it.lift("carla@customer.example")
    it.close()


def test_without_a_hook_there_is_nothing_to_tell(desk: Desk) -> None:
    desk.books()
    said = desk("hooks")
    assert (said.code, said.out, said.err) == (0, "", "no [[webhook]] in the config\n")
    assert (desk("hooks", "--json").out, desk("hooks", "list").out) == ("", "")


def test_a_new_one_has_not_begun(desk: Desk) -> None:
    configured(desk)
    desk.books()
    said = desk("hooks", "--json")
    assert (said.code, list(said.fact), said.fact["state"]) == (0, KEYS, "new")


def test_one_that_cannot_be_told_is_a_no(desk: Desk) -> None:
    configured(desk)
    given_up(desk)
    said = desk("hooks", "--json")
    assert said.code == 1
    assert said.fact == {
        "name": "crm",
        "url": "https://crm.quillpdf.example/hook",
        "events": ["opt-out"],
        "state": "failing",
        "waiting": 1,
        "undelivered": 2,
        "again": 0,
        "failures": 80,
        "trouble": "HTTP 500",
        "next_try": "2026-05-04T13:00:00Z",
        "reached": 2,
    }
    assert desk("hooks").out.splitlines() == [
        "crm  cannot be told, 1 waiting, 2 undelivered",
        "    HTTP 500 (80 times; next try 2026-05-04T13:00:00Z)",
    ]


def test_what_was_never_told_is_listed_and_can_be_sent_again(desk: Desk) -> None:
    configured(desk)
    given_up(desk)
    facts = desk("hooks", "list", "--json").facts
    assert [list(f) for f in facts] == [UNTOLD] * 2
    assert [(f["id"], f["type"], f["scope"], f["again"], f["trouble"]) for f in facts] == [
        (1, "opt-out", "all", False, "HTTP 500"),
        (2, "opt-out", "all", False, "HTTP 500"),
    ]
    assert desk("hooks", "list", "shop", "--json").out == ""
    assert desk("hooks", "again", "--id", "2").out == "1 change to be sent again\n"
    assert [f["again"] for f in desk("hooks", "list", "crm", "--json").facts] == [False, True]
    assert desk("hooks", "again", "crm", "--json").fact == {"changes": 2}
    assert desk("hooks", "--json").fact["again"] == 2
    assert "to be sent again" in desk("hooks", "list").out


def test_what_is_let_go_says_why(desk: Desk) -> None:
    configured(desk)
    given_up(desk)
    assert desk("hooks", "drop", "crm").code == 64
    assert desk("hooks", "drop", "crm", "--because", "told by hand").out == "2 changes dropped\n"
    assert desk("hooks", "drop", "crm", "--because", "told by hand").code == 1
    with desk.books().ledger.reading() as db:
        (fact,) = [f for f, _ in suppressions.facts(db) if f.event == "hook-dropped"]
        assert fact.evidence is not None
        assert suppressions.details(db, [fact.evidence])[fact.evidence]["because"] == "told by hand"


def test_one_or_the_other_is_named(desk: Desk) -> None:
    configured(desk)
    given_up(desk)
    assert desk("hooks", "again").code == desk("hooks", "again", "crm", "--id", "1").code == 64
    said = desk("hooks", "again", "crmm")
    assert (said.code, said.sentence) == (1, "no hook 'crmm' (`optoutd hooks` names them)")
    assert desk("hooks", "again", "--id", "99").code == desk("hooks", "again", "--id", "9" * 30).code == 1
