"""replay and token: old requests found, and links for mail that does not pass the relay."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from daemon.mail import tokens, triage
from daemon.mail.reading import OptOut
from storage import incoming, suppressions
from storage.address import parse
from storage.terms import ALL, Reason
from tests.cli.desk import CONFIG, Desk

ASKS = "Please unsubscribe me from your mailing list."
DOUBTFUL = "If you raise your prices again, please unsubscribe me from your mailing list."
BACK = "Please put me back on your mailing list, I unsubscribed by mistake."


def message(sender: str, body: str, *, day: int = 1, subject: str = "hello", month: str = "Mar") -> str:
    return (
        f"Received: from mx by mx.quillpdf.example; {day} {month} 2024 10:00:00 +0000\n"
        f"From: {sender}\nTo: support@quillpdf.example\nSubject: {subject}\n"
        f"Message-ID: <{sender}.{day}>\n\n{body}\n"
    )


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A tree: .eml files, an mbox and a Maildir in it."""
    root = tmp_path / "archive"
    (root / "2024").mkdir(parents=True)
    (root / "Maildir" / "cur").mkdir(parents=True)
    (root / "Maildir" / "tmp").mkdir()
    (root / "2024" / "ann.eml").write_text(message("ann@example.com", ASKS, day=3))
    (root / "2024" / "question.eml").write_text(message("q@example.com", "How do I merge two files?"))
    (root / "Maildir" / "cur" / "1:2,S").write_text(message("bob@example.com", ASKS, day=2))
    (root / "Maildir" / "tmp" / "half").write_text(message("half@example.com", ASKS))
    mbox = "".join(
        f"From x@y Mon Mar  4 10:00:00 2024\n{message(*m)}\n" for m in (("carl@example.com", ASKS), ("dora@example.com", DOUBTFUL))
    )  # fmt: skip
    (root / "old.mbox").write_text(mbox)
    return root


def states(desk: Desk, *arguments: str) -> dict[str, str]:
    said = desk("replay", *arguments, "--json")
    assert said.code == 0, said.err
    return {fact["from"]: fact["state"] for fact in said.facts}


def test_a_dry_run_tells_who_never_left_the_list_oldest_first(desk: Desk, archive: Path) -> None:
    ledger = desk.books().ledger
    said = desk("replay", str(archive), "--json")
    assert [(f["from"], f["state"], f["received"]) for f in said.facts] == [
        ("carl@example.com", "missing", "2024-03-01T10:00:00Z"),
        ("dora@example.com", "doubtful", "2024-03-01T10:00:00Z"),
        ("bob@example.com", "missing", "2024-03-02T10:00:00Z"),
        ("ann@example.com", "missing", "2024-03-03T10:00:00Z"),
    ]
    assert "3 people never left the list" in said.err
    with ledger.connect() as db:
        assert db.exec_driver_sql("SELECT count(*) FROM audit").scalar() == 0


def test_applying_records_them_with_the_date_at_which_they_asked(desk: Desk, archive: Path) -> None:
    ledger = desk.books().ledger
    assert "3 people are suppressed now" in desk("replay", str(archive), "--apply").err
    with ledger.connect() as db:
        (row,) = suppressions.standing(db, ledger.site_key, parse("ann@example.com"))
        (fact,) = suppressions.by_evidence(db, row[4])
        assert incoming.reviews(db) == []
    assert datetime.fromtimestamp(row[3], UTC) == datetime(2024, 3, 3, 10, tzinfo=UTC)
    assert (row[1], row[2], fact.source) == (ALL, Reason.OPT_OUT, "mail")
    assert (fact.detail or {})["message_id"] == "<ann@example.com.3>"
    assert set(states(desk, str(archive), "--apply").values()) == {"suppressed", "doubtful"}  # twice is harmless


def test_what_is_doubtful_can_be_queued(desk: Desk, archive: Path) -> None:
    desk.books()
    desk("replay", str(archive), "--apply", "--reviews")
    (item,) = desk("review", "list", "--json").facts
    assert (item["from"], item["mailbox"]) == ("dora@example.com", None)
    assert desk("review", "accept", str(item["id"])).code == 0
    assert desk("check", "dora@example.com").code == 1


def test_what_has_no_date_is_queued_once(desk: Desk, tmp_path: Path) -> None:
    desk.books()
    file = tmp_path / "undated.eml"
    file.write_text(f"From: dora@example.com\nTo: support@quillpdf.example\nSubject: hm\n\n{DOUBTFUL}\n")
    for _ in range(2):
        desk("replay", str(file), "--apply", "--reviews")
        time.sleep(1.1)  # dates are kept in seconds
    assert len(desk("review", "list", "--json").facts) == 1


def test_whoever_was_lifted_or_came_back_later_is_left_alone(desk: Desk, archive: Path) -> None:
    books = desk.books()
    books.suppress("ann@example.com")
    books.lift("ann@example.com")
    (archive / "later.eml").write_text(message("bob@example.com", BACK, day=20, subject="Put me back"))
    before = states(desk, str(archive))
    assert (before["ann@example.com"], before["bob@example.com"]) == ("lifted", "taken-back")
    assert states(desk, str(archive), "--apply")["carl@example.com"] == "applied"
    assert desk("check", "ann@example.com", "bob@example.com").code == 0


def test_a_request_that_names_nobody_but_ourselves_is_not_said_to_be_applied(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rules send such mail to review by themselves; should they ever not, nothing is claimed that was not done."""
    desk.books()
    ours = OptOut(("support@quillpdf.example",), ("all",), (), None, "none", False, "en", ("2-opt-out",), ASKS)
    monkeypatch.setattr(triage, "read", lambda *_: ours)
    (tmp_path / "ours.eml").write_text(message("support@quillpdf.example", ASKS))
    assert states(desk, str(tmp_path / "ours.eml"), "--apply") == {"support@quillpdf.example": "doubtful"}


def test_a_wish_to_come_back_takes_back_only_what_it_is_later_and_wide_enough_for(desk: Desk, archive: Path) -> None:
    desk.books()
    (archive / "earlier.eml").write_text(message("bob@example.com", BACK, day=1, subject="Put me back"))
    one = "Please put me back on your mailing list, but only for the offers."
    (archive / "one.eml").write_text(message("ann@example.com", one, day=20, subject="Put me back"))
    assert desk("read", str(archive / "one.eml"), "--json").fact["scope"] == "list:offers"
    found = states(desk, str(archive))
    assert (found["bob@example.com"], found["ann@example.com"]) == ("missing", "missing")


def test_an_exemption_older_than_the_request_leaves_it_unhonoured(desk: Desk, archive: Path) -> None:
    books = desk.books()
    books.suppress("ann@example.com", since=datetime(2024, 1, 1, tzinfo=UTC))
    books.suppress("ann@example.com", "offers", Reason.WANTED, since=datetime(2024, 2, 1, tzinfo=UTC))
    assert states(desk, str(archive), "--apply")["ann@example.com"] == "applied"
    said = desk("check", "ann@example.com", "--list", "offers")
    assert said.code == 1


def test_files_that_are_no_mail_are_nobodys_request(desk: Desk, archive: Path) -> None:
    desk.books()
    before = states(desk, str(archive))
    for name, text in (
        ("README", f"Note: frank@example.com wrote:\n\n{ASKS}\n"),
        ("index", f"\0From: frank@example.com\n\n{ASKS}\n"),
        ("words.txt", f"{ASKS}\nFrom: frank@example.com\n"),
    ):
        (archive / name).write_text(text)
    said = desk("replay", str(archive), "--json")
    assert {f["from"]: f["state"] for f in said.facts} == before
    assert "3 file(s) left out that are no mail" in said.err


def test_options_that_would_do_nothing_are_refused(desk: Desk, archive: Path) -> None:
    desk.books()
    assert desk("replay", str(archive), "--reviews").code == 64
    assert desk("replay", str(archive), "--folder", "INBOX").code == 64


def test_since_leaves_out_what_is_older(desk: Desk, archive: Path) -> None:
    desk.books()
    assert set(states(desk, str(archive), "--since", "2024-03-03")) == {"ann@example.com"}
    assert "not a date" in desk("replay", str(archive), "--since", "soon").sentence


def test_a_token_in_an_old_request_suppresses_whom_it_names(desk: Desk, archive: Path) -> None:
    ledger = desk.books().ledger
    token = tokens.make(ledger.site_key, "link", ledger.site_key.address_key("zoe@example.org"), 0)
    (archive / "token.eml").write_text(message("zoe.alias@example.net", "", subject=f"unsubscribe {token}"))
    desk("replay", str(archive), "--apply")
    assert desk("check", "zoe@example.org").code == 1
    assert desk("check", "zoe.alias@example.net").code == 0


def test_neither_a_mailbox_nor_a_path_is_said_so(desk: Desk) -> None:
    desk.books()
    said = desk("replay", "nowhere")
    assert said.code == 66
    assert "nor is it a mailbox of the config (none)" in said.sentence


def test_a_mailbox_that_cannot_be_reached_names_the_step(desk: Desk) -> None:
    desk.books()
    box = '[[mailbox]]\nname = "support"\nhost = "127.0.0.1"\nport = 1\ntls = "none"\nusername = "u"\npassword_file = "/dev/null"\n'
    desk.configure(CONFIG + box)
    said = desk("replay", "support")
    assert (said.code, said.sentence.startswith("mailbox support: connect: ")) == (75, True)


# ------------------------------------------------------------------ token


def test_a_token_opts_out_by_mail_and_undo_gives_back(desk: Desk) -> None:
    ledger = desk.books().ledger
    fact = desk("token", "Ann+x@Example.com", "--list", "offers", "--json").fact
    assert (fact["address"], fact["list"], fact["one_click"]) == ("Ann+x@Example.com", "offers", None)
    assert fact["mailto"] == f"mailto:support@quillpdf.example?subject=unsubscribe%20{fact['token']}"
    found = tokens.read(ledger.site_key, "link", fact["token"])
    assert found is not None
    assert found.address_key == ledger.site_key.address_key("ann@example.com")
    assert tokens.read(ledger.site_key, "undo", fact["undo"].rpartition("%20")[2]) is not None


def test_where_there_are_pages_they_undo(desk: Desk) -> None:
    desk.books()
    desk.configure(CONFIG + '[web]\npublic_url = "https://mail.quillpdf.example"\n')
    fact = desk("token", "ann@example.com", "--json").fact
    assert fact["one_click"] == f"https://mail.quillpdf.example/u/{fact['token']}"
    assert fact["undo"].startswith("https://mail.quillpdf.example/undo/")


def test_where_subaddresses_arrive_the_token_is_one(desk: Desk) -> None:
    desk.books()
    box = '[[mailbox]]\nname = "s"\nhost = "localhost"\nport = 1\ntls = "none"\nusername = "u"\npassword_file = "/dev/null"\nsubaddress = "+"\n'
    desk.configure(CONFIG + box)
    fact = desk("token", "ann@example.com", "--json").fact
    assert fact["mailto"] == f"mailto:support+u-{fact['token']}@quillpdf.example"


def test_a_bad_address_does_not_keep_the_others_from_theirs(desk: Desk) -> None:
    desk.books()
    said = desk("token", "nobody", "ann@example.com", "--json")
    assert (said.code, len(said.facts)) == (65, 1)
