"""lift by cause: what is shown, asked and told."""

from __future__ import annotations

import io
from datetime import timedelta

import pytest

from daemon.cli import common
from storage import suppressions
from storage.address import parse
from storage.terms import ALL, Reason, when
from storage.write import write
from tests.cli.desk import Desk
from tests.ledgers import Books, bring

KEYS = ["dry_run", "lifted", "kept", "by", "kept_because", "first"]
IMPORT = ("lift", "--import", "list.csv")
DO = ("--because", "the wrong file", "--yes")


@pytest.fixture
def books(desk: Desk) -> Books:
    """Ann, Bob and Cem were imported, Bob has asked since; Dee asked herself, and her mailbox bounced."""
    it = desk.books()
    people = sorted((it.ledger.site_key.address_key(a), a) for a in map("{}@example.com".format, ("ann", "bob", "cem")))
    with write(it.ledger, common.now(), "import") as w:
        rows = [(key, ALL, int(Reason.OPT_OUT), 1_700_000_000) for key, _ in people]
        bring(w, rows, "import", {"file": "list.csv", "import": 3}, people)
    it.suppress("bob@example.com")
    it.suppress("dee@example.com", "offers")
    desk("suppress", "dee@example.com", "--reason", "hard-bounce", "--source", "dsn")
    return it


class Terminal(io.StringIO):
    """Somebody at the keyboard."""

    def isatty(self) -> bool:
        return True


def test_a_dry_run_counts_and_changes_nothing(desk: Desk, books: Books) -> None:
    said = desk(*IMPORT, "--dry-run", "--json")
    assert (said.code, said.err, list(said.fact)) == (0, "", KEYS)
    assert said.fact == {
        "dry_run": True,
        "lifted": 2,
        "kept": 1,
        "by": {"opt-out": {"all": 2}},
        "kept_because": {"own": 0, "asked-again": 1},
        "first": ["ann@example.com", "cem@example.com"],
    }
    assert desk(*IMPORT, "--dry-run").out == (
        "would be lifted: 2 suppressions\n"
        "          2  opt-out  all\n"
        "  ann@example.com, cem@example.com\n"
        "kept: 1 asked for, or reported, again apart from this\n"
    )
    assert desk("check", "ann@example.com").code == 1
    assert desk("audit", "verify", "--json").fact["rows"] == 3


def test_undone(desk: Desk, books: Books) -> None:
    said = desk(*IMPORT, *DO, "--json")
    assert (said.code, said.err) == (0, "")
    assert (said.fact["dry_run"], said.fact["lifted"], said.fact["kept"]) == (False, 2, 1)
    assert said.fact["by"] == {"opt-out": {"all": 2}}
    assert desk("check", "ann@example.com", "cem@example.com").code == 0
    assert desk("check", "bob@example.com").code == 1
    assert desk("check", "dee@example.com").code == 1
    assert desk("show", "ann@example.com", "--json").fact["history"][-1]["because"] == "the wrong file"
    assert desk("audit", "verify").code == 0
    again = desk(*IMPORT, *DO)
    assert (again.code, again.out) == (1, "nothing to lift\nkept: 1 asked for, or reported, again apart from this\n")
    assert desk("lift", "--import", "elsewhere/list.csv", "--dry-run", "--even-opt-outs", "--json").fact["lifted"] == 1
    assert desk("lift", "--import", "3", "--dry-run", "--even-opt-outs", "--json").fact["lifted"] == 1


def test_what_people_asked_for_is_kept_and_told(desk: Desk, books: Books) -> None:
    said = desk("lift", "--cause", "opt-out", "--list", "offers", *DO)
    assert (said.code, "--even-opt-outs" in said.out) == (1, True)
    assert desk("lift", "--cause", "opt-out", "--list", "offers", *DO, "--even-opt-outs").code == 0
    assert desk("lift", "--source", "dsn", "--cause", "hard-bounce", *DO).code == 0
    assert desk("check", "dee@example.com", "--list", "offers").code == 0


def test_by_the_domain_and_the_status_of_a_bounce(desk: Desk, books: Books) -> None:
    with write(books.ledger, common.now(), "mailbox bounces") as w:
        for name, cause in (("eve", "bounces:outlook.com/5.1.1"), ("fay", "bounces:google.com/5.1.1")):
            detail = {"cause": cause}
            suppressions.add(w, parse(f"{name}@example.com"), ALL, Reason.HARD_BOUNCE, "dsn", detail)
    assert desk("lift", "--domain", "OUTLOOK.com", "--dry-run", "--json").fact["first"] == ["eve@example.com"]
    assert desk("lift", "--diagnostic", "5.1.1", "--dry-run", "--json").fact["lifted"] == 2
    assert desk("lift", "--domain", "outlook.com", "--diagnostic", "5.1.1", *DO).code == 0
    assert (desk("check", "eve@example.com").code, desk("check", "fay@example.com").code) == (0, 1)


def test_the_window(desk: Desk, books: Books) -> None:
    today, now = common.now().date().isoformat(), common.now()
    before, after = (when(now + timedelta(hours=n)) for n in (-1, 1))
    for window, code in (
        (("--from", today), 0),
        (("--to", today), 0),
        (("--from", str(before), "--to", str(after)), 0),
        (("--from", str(after)), 1),
        (("--to", str(before)), 1),
        (("--to", "2026-01-31"), 1),
    ):
        assert desk(*IMPORT, *window, "--dry-run").code == code, window


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "missing option '--because' (see `optoutd lift --help`)"),
        (("--because", " ", "--cause", "complaint"), "--because must say why"),
        (("--because", "x"), "say whose suppression to end, or what to undo"),
        (("--because", "x", "--from", "2026-01-31"), "say whose suppression to end, or what to undo"),
        (("ann@example.com", "--cause", "complaint", "--because", "x"), "either one ADDR, or --cause"),
        (("ann@example.com", "--dry-run"), "either one ADDR, or --cause"),
        (("--cause", "spam", "--dry-run"), "--cause 'spam': must be one of complaint, opt-out"),
        (("--cause", "wanted", "--dry-run"), "--cause 'wanted': must be one of complaint, opt-out"),
        (("--source", "fax", "--dry-run"), "--source 'fax': must be one of mail"),
        (("--cause", "complaint", "--list", "x", "--dry-run"), "no list 'x'; known: newsletter, offers"),
        (("--cause", "complaint", "--from", "yesterday", "--dry-run"), "--from: 'yesterday' is no date"),
        (("--cause", "complaint", "--to", "", "--dry-run"), "--to: '' is no date"),
        (
            ("--cause", "complaint", "--from", "2026-02-01", "--to", "2026-01-31", "--dry-run"),
            "--from is later than --to",
        ),
        (("--cause", "complaint", "--import", "", "--dry-run"), "--import and --mailbox must name something"),
        (("--cause", "complaint", "--mailbox", "", "--dry-run"), "--import and --mailbox must name something"),
        (("--cause", "complaint", "--domain", "", "--dry-run"), "--domain and --diagnostic must name something"),
        (("--cause", "complaint", "--diagnostic", "", "--dry-run"), "--domain and --diagnostic must name something"),
        (("--cause", "complaint", "--because", "x"), "nothing done: look with --dry-run"),
    ],
)
def test_slips_are_64_and_change_nothing(desk: Desk, books: Books, words: tuple[str, ...], sentence: str) -> None:
    said = desk("lift", *words)
    assert said.code == 64
    assert said.sentence.startswith(sentence)


@pytest.mark.parametrize(("answer", "code", "lifted"), [("y\n", 0, 2), ("n\n", 1, 0), ("\n", 1, 0), ("", 130, 0)])
def test_on_a_terminal_it_asks(
    desk: Desk, books: Books, answer: str, code: int, lifted: int, capsys: pytest.CaptureFixture[str]
) -> None:
    from daemon.cli import invoke

    desk.monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert invoke([*IMPORT, "--because", "the wrong file"]) == code
    said = capsys.readouterr()
    assert "would be lifted: 2 suppressions" in said.err
    assert "Undo this?" in said.err
    assert ("lifted: 2 suppressions" in said.out) == bool(lifted)
    assert desk("check", "ann@example.com").code == (0 if lifted else 1)


def test_nothing_to_lift_is_not_asked_about(desk: Desk, books: Books, capsys: pytest.CaptureFixture[str]) -> None:
    from daemon.cli import invoke

    desk.monkeypatch.setattr("sys.stdin", Terminal(""))
    assert invoke(["lift", "--cause", "soft-bounce", "--because", "x"]) == 1
    assert capsys.readouterr().out == "nothing to lift\n"
