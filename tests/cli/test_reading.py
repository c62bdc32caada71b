"""read and review: every kind of PATH, and the queue from the list to the decision."""

from __future__ import annotations

import mailbox
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from storage import incoming
from storage.incoming import Place
from storage.write import write
from tests.cli.desk import CONFIG, Desk
from tests.ledgers import Books

READ = ["file", "label", "addresses", "scope", "keep", "rules", "stays"]
ITEM = ["id", "mailbox", "uid", "received", "from", "addresses", "scope", "rules", "state"]


def mail(sender: str, words: str) -> bytes:
    """A message to support."""
    return f"From: {sender}\nTo: support@quillpdf.example\nSubject: hello\n\n{words}\n".encode()


REQUEST = mail("ann@example.com", "Please take me off your mailing list.")
QUESTION = mail("bob@example.org", "How do I merge two files into one?")


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Nobody may read this; root only as somebody else."""
    path.chmod(0)
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(was)
        path.chmod(0o600)


# ------------------------------------------------------------------ read


def test_a_file(desk: Desk) -> None:
    Path("a.eml").write_bytes(REQUEST)
    said = desk("read", "a.eml", "--json")
    assert (said.code, said.err) == (0, "")
    fact = said.fact
    assert list(fact) == READ
    assert fact["rules"]
    del fact["rules"]
    assert fact == {
        "file": "a.eml",
        "label": "opt-out",
        "addresses": ["ann@example.com"],
        "scope": "all",
        "keep": [],
        "stays": False,
    }
    assert desk("read", "a.eml").out == "a.eml: opt-out  ann@example.com  (all)\n"


def test_explain(desk: Desk) -> None:
    Path("a.eml").write_bytes(REQUEST)
    out = desk("read", "a.eml", "--explain").out
    assert "    2-opt-out: asks that our mailings stop" in out
    assert "    words: 'Please take me off your mailing list.'" in out


def test_read_acts_on_nothing_and_needs_no_database(desk: Desk) -> None:
    Path("a.eml").write_bytes(REQUEST)
    desk("read", "a.eml")
    assert {p.name for p in desk.directory.iterdir()} == {"optoutd.toml", "a.eml"}


def test_a_directory_in_order_with_empty_and_lost_files(desk: Desk) -> None:
    box = desk.directory / "box"
    (box / "inner").mkdir(parents=True)
    (box / "b.eml").write_bytes(QUESTION)
    (box / "a.eml").write_bytes(REQUEST)
    (box / "c.eml").write_bytes(b"")
    (box / "d.eml").symlink_to("nowhere")
    said = desk("read", "box", "--json")
    assert [(f["file"], f["label"]) for f in said.facts[:2]] == [("box/a.eml", "opt-out"), ("box/b.eml", "ordinary")]
    assert [f["file"] for f in said.facts[2:]] == ["box/c.eml", "box/d.eml"]
    assert all(list(f) == READ for f in said.facts)
    assert (said.code, said.err) == (0, "optoutd: box/d.eml: No such file or directory\n")


def test_a_maildir(desk: Desk) -> None:
    box = mailbox.Maildir("Maildir")
    box.add(REQUEST)
    box.add(QUESTION)
    (desk.directory / "Maildir" / "dovecot-uidlist").write_text("not a message")
    said = desk("read", "Maildir", "--json")
    assert sorted(f["label"] for f in said.facts) == ["opt-out", "ordinary"]
    assert all(f["file"].startswith("Maildir/new/") for f in said.facts)


def test_an_mbox_from_a_file_and_from_a_pipe(desk: Desk) -> None:
    box = mailbox.mbox("box.mbox")
    box.add(REQUEST)
    box.add(mail("bob@example.org", "Hi,\n>From here on I am lost.\nFrom here too."))
    box.add(REQUEST)
    box.close()
    said = desk("read", "box.mbox", "--json")
    assert [f["file"] for f in said.facts] == ["box.mbox#1", "box.mbox#2", "box.mbox#3"]
    assert [f["label"] for f in said.facts] == ["opt-out", "ordinary", "opt-out"]
    piped = desk("read", "-", "--json", stdin=Path("box.mbox").read_bytes())
    assert [f["file"] for f in piped.facts] == ["-#1", "-#2", "-#3"]
    joined = b"From a@b Thu Jan  1 00:00:01 2026\n" + REQUEST  # no empty line between them
    said = desk("read", "-", "--json", stdin=joined * 2)
    assert [f["label"] for f in said.facts] == ["opt-out", "opt-out"]


def test_stdin_and_process_substitution(desk: Desk) -> None:
    assert desk("read", "-", stdin=REQUEST).out == "-: opt-out  ann@example.com  (all)\n"
    read_end, write_end = os.pipe()
    os.write(write_end, REQUEST)
    os.close(write_end)
    assert ": opt-out  ann@example.com" in desk("read", f"/dev/fd/{read_end}").out
    os.close(read_end)


def test_an_empty_file_has_its_line(desk: Desk) -> None:
    Path("empty.eml").touch()
    said = desk("read", "empty.eml", "-", "--json")
    assert (said.code, [f["file"] for f in said.facts]) == (0, ["empty.eml", "-"])


def test_what_cannot_be_opened_is_66_and_the_rest_is_read(desk: Desk) -> None:
    Path("a.eml").write_bytes(REQUEST)
    said = desk("read", "nowhere.eml", "", "a\0b", "a.eml", "--json")
    assert (said.code, said.fact["file"]) == (66, "a.eml")
    assert said.err.splitlines() == [
        "optoutd: nowhere.eml: No such file or directory",
        "optoutd: '': No such file or directory",
        "optoutd: a\ufffdb: embedded null byte",
    ]


@pytest.fixture
def open_directory(desk: Desk) -> Iterator[Path]:
    """A directory that everybody may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        config = Path(name) / "optoutd.toml"
        config.write_text(CONFIG)
        desk.monkeypatch.setenv("OPTOUTD_CONFIG", str(config))
        yield Path(name)


def test_an_unreadable_path_is_66_an_unreadable_file_in_a_directory_a_line(desk: Desk, open_directory: Path) -> None:
    box = open_directory / "box"
    box.mkdir(0o755)
    file = box / "a.eml"
    file.write_bytes(REQUEST)
    assert desk("read", str(file)).code == 0  # imports what it needs while we may read it
    with unreadable(file):
        one, all_ = desk("read", str(file)), desk("read", str(box), "--json")
    assert (one.code, one.sentence) == (66, f"{file}: Permission denied")
    assert (all_.code, all_.fact["file"], all_.fact["addresses"]) == (0, str(file), [])
    assert all_.err == f"optoutd: {file}: Permission denied\n"


def test_without_any_config(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.eml").write_bytes(REQUEST)
    Path("optoutd.toml").unlink()
    monkeypatch.setattr("daemon.config.DEFAULT_PATHS", (Path("optoutd.toml"),))
    said = desk("read", "a.eml", "--json")
    assert (said.code, said.fact["label"]) == (0, "opt-out")
    assert said.err.startswith("optoutd: no config")
    assert desk("-c", "nowhere.toml", "read", "a.eml").code == 78


def test_a_name_that_is_no_utf_8(desk: Desk) -> None:
    Path("caf\udce9.eml").write_bytes(REQUEST)
    said = desk.process("read", b"caf\xe9.eml", "--json")
    assert (said.code, said.fact["file"]) == (0, "caf\udce9.eml")
    assert desk.process("read", b"caf\xe9.eml").code == 0
    assert desk.process("read", b"th\xe9.eml").code == 66


# ------------------------------------------------------------------ review


def wait_for_a_person(books: Books, addresses: tuple[str, ...] = ("ann@example.com",), excerpt: str = "") -> int:
    """Put an item into the queue."""
    now = datetime.now(UTC)
    place = Place("support", "INBOX", 1, 7 + len(addresses) + len(excerpt))
    with write(books.ledger, now, "test") as w:
        number = incoming.record(
            w,
            place,
            digest=b"",
            size=1,
            message_id="<1@example.com>",
            internaldate=now,
            label="review",
            state="done",
            target="Opt-outs",
        )
        return incoming.open_review(
            w,
            number,
            received=now,
            sender="ann@example.com" if addresses else "",
            addresses=addresses,
            scope="all",
            rules=("2-review-a-unclear",),
            words="please cancel",
            wish="review",
            excerpt=excerpt,
        )


def test_review_from_the_list_to_the_decision(desk: Desk) -> None:
    books = desk.books()
    one, two = wait_for_a_person(books), wait_for_a_person(books, excerpt="please cancel\x1b[2J\nAnn")
    listed = desk("review", "list", "--json").facts
    assert [f["id"] for f in listed] == [one, two]
    assert all(list(f) == ITEM for f in listed)
    assert listed[0]["state"] == "open"
    shown = desk("review", "show", str(two))
    assert shown.code == 0
    assert "accepting would suppress ann@example.com (all)" in shown.out
    assert "\x1b" not in shown.out
    assert f"optoutd review accept {two}" in shown.err
    assert list(desk("review", "show", str(two), "--json").fact) == [*ITEM, "words", "excerpt"]

    assert desk("review", "reject", str(one), "--note", "a customer", "--json").fact["state"] == "rejected"
    assert desk("check", "ann@example.com").code == 0
    accepted = desk("review", "accept", str(two))
    assert (accepted.code, accepted.out.startswith(f"{two}: accepted (ref ")) == (0, True)
    assert desk("check", "ann@example.com").code == 1
    with books.ledger.reading() as db:
        assert [seen.target for seen in incoming.owed(db, "support")] == ["Opt-outs"]

    again = desk("review", "accept", str(two))
    assert (again.code, again.sentence) == (1, f"item {two} was accepted already")
    assert desk("review", "list").err == "nothing waits\n"
    assert [f["state"] for f in desk("review", "list", "--all", "--json").facts] == ["rejected", "accepted"]
    assert {f["event"] for f in desk("audit", "export").facts} >= {"review-rejected", "review-accepted", "suppressed"}


def test_an_item_that_names_nobody(desk: Desk) -> None:
    number = wait_for_a_person(desk.books(), addresses=())
    said = desk("review", "accept", str(number))
    assert (said.code, said.sentence) == (
        64,
        f"item {number} names nobody: use `optoutd suppress ADDR`, then reject it",
    )
    assert desk("review", "reject", str(number)).code == 0


@pytest.mark.parametrize("number", ["3", "0", "99999999999999999999"])
@pytest.mark.parametrize("verb", ["show", "accept", "reject"])
def test_an_unknown_item_is_1(desk: Desk, verb: str, number: str) -> None:
    desk.books()
    said = desk("review", verb, number)
    assert (said.code, said.sentence.startswith(f"no item {number} in the review queue")) == (1, True)
    assert desk("review", verb, "three").code == 64
    assert desk("review", verb, "--", "-1").code == 1
