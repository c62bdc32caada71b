"""The mails we write ourselves: what is in them, when they go, and what becomes of those that cannot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon import notices
from daemon.config import House, MailingList
from daemon.mail import phrases, tokens, triage
from daemon.mail.links import undo_by_mail
from daemon.mail.reading import AutoReply, OptOut, Resubscribe, Review
from daemon.notices import Post, compose, sender_of, texts
from daemon.upstream import Endpoint, Pool
from storage import outbox
from storage.address import NotAnAddress, SiteKey, parse
from storage.outbox import Notice
from storage.terms import ALL, Reason
from storage.write import write
from tests.ledgers import Books, books
from tests.sink import Sink, sink, told_to_stop_in_mid_message

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
KEY = SiteKey((bytes(range(32)),))
HOUSE = House(
    name="Quill PDF",
    domains=("quillpdf.example",),
    addresses=("support@quillpdf.example",),
    lists=(MailingList(id="newsletter", title="The Quill Letter"), MailingList(id="offers")),
)
IDS = {1: "newsletter", 2: "offers"}
UNDO = partial(undo_by_mail, "support@quillpdf.example")
ANN = "ann@example.com"


def notice(
    kind: outbox.Kind = "confirm", language: str = "en", scopes: tuple[int, ...] = (ALL,), address: str = ANN
) -> Notice:
    return Notice(7, NOW, kind, KEY.address_key(address), address, language, scopes, 0)


def composed(of: Notice) -> EmailMessage:
    raw = compose(of, HOUSE, "support@quillpdf.example", IDS, KEY, UNDO, NOW)
    assert b"\n" not in raw.replace(b"\r\n", b"")
    message = message_from_bytes(raw, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


# ------------------------------------------------------------------ what is in them


def test_a_notice_says_what_was_done_and_how_to_undo_it() -> None:
    message = composed(notice())
    body = message.get_content()
    assert message["Subject"] == "You will get no more e-mail from Quill PDF"
    assert "this address is on our suppression list" in body
    assert body.count("mailto:support@quillpdf.example?subject=undo%20") == 1
    assert (message["From"], message["To"]) == ("Quill PDF <support@quillpdf.example>", ANN)
    assert message["Auto-Submitted"] == "auto-replied"  # RFC 3834 section 5
    assert message["Message-ID"] == "<optoutd.1777896000.7@quillpdf.example>"


def test_several_lists_have_a_link_each_with_their_titles() -> None:
    body = composed(notice(scopes=(1, 2))).get_content()
    assert "The Quill Letter, offers" in body
    assert "The Quill Letter: mailto:" in body
    assert "offers: mailto:" in body


def test_the_link_comes_back_as_the_confirmed_wish() -> None:
    link = composed(notice(scopes=(2,))).get_content().partition("mailto:")[2].split()[0]
    subject = link.partition("subject=")[2].replace("%20", " ")
    raw = f"From: {ANN}\nTo: support@quillpdf.example\nSubject: {subject}\n\n".encode()
    reading = triage.read(raw, HOUSE, KEY)
    assert isinstance(reading, Resubscribe)
    assert reading.token == tokens.Token(KEY.address_key(ANN), 2, int(NOW.timestamp()) // 86_400)
    assert not isinstance(triage.read(raw, HOUSE, SiteKey((bytes(32),))), Resubscribe)  # another site's


@pytest.mark.parametrize("language", sorted(texts()))
@pytest.mark.parametrize("kind", ["confirm", "comeback"])
def test_every_language_has_all_texts(language: str, kind: outbox.Kind) -> None:
    assert set(texts()[language]) == set(texts()["en"])
    for scopes in ((ALL,), (1,)):
        message = composed(notice(kind, language, scopes))
        assert "{" not in message["Subject"] + message.get_content()
        assert message["Content-Language"] == language


def test_whoever_is_understood_is_answered_in_his_language() -> None:
    assert set(phrases.languages()) == set(texts())


def test_an_unknown_language_gets_that_of_the_house() -> None:
    house = HOUSE.model_copy(update={"language": "de"})
    raw = compose(notice(language="xx"), house, "s@quillpdf.example", IDS, KEY, UNDO, NOW)
    assert b"keine E-Mails mehr" in raw


def test_our_own_notice_is_no_request_to_ourselves() -> None:
    """It may come back to us: by a forward, a list, a bounce."""
    for kind in ("confirm", "comeback"):
        for language in texts():
            raw = composed(notice(kind, language)).as_bytes()
            assert not isinstance(triage.read(raw, HOUSE, KEY), OptOut), language
            foreign = raw.replace(b"support@quillpdf.example>", b"support@other.example>")
            assert isinstance(triage.read(foreign, HOUSE, KEY), AutoReply | Review), language


@settings(max_examples=60)
@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=20))
def test_no_address_breaks_the_header(local: str, name: str) -> None:
    try:
        address = str(parse(f"{local}@example.com"))
    except NotAnAddress:
        return
    house = HOUSE.model_copy(update={"name": name.replace("\r", " ").replace("\n", " ")})
    raw = compose(notice(address=address), house, "s@quillpdf.example", IDS, KEY, UNDO, NOW)
    head = raw.partition(b"\r\n\r\n")[0]
    assert head.count(b"\r\nAuto-Submitted: auto-replied") == 1


@pytest.mark.parametrize(
    ("configured", "addresses", "expected"),
    [("news@x.example", ("a@x.example",), "news@x.example"), ("", ("a@x.example", "b@x.example"), "a@x.example"), ("", (), "")],
)  # fmt: skip
def test_whom_they_are_from(configured: str, addresses: tuple[str, ...], expected: str) -> None:
    assert sender_of(configured, House(name="Q", addresses=addresses)) == expected


# ------------------------------------------------------------------ sending


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Books]:
    it = books(tmp_path / "ledger")
    yield it
    it.ledger.close()


@pytest.fixture
def server() -> Iterator[Sink]:
    with sink() as it:
        yield it


@pytest.fixture
async def post(ledger: Books, server: Sink, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Post]:
    monkeypatch.setattr(notices, "POLL_SECONDS", 0.02)
    pool = Pool([Endpoint("127.0.0.1", server.port)], hostname="relay.example", timeout=2)
    yield Post(ledger.ledger, HOUSE, "support@quillpdf.example", pool, UNDO, lambda: NOW)
    pool.close()
    await asyncio.sleep(0)


def owe(ledger: Books, address: str = ANN, kind: outbox.Kind = "confirm") -> None:
    with write(ledger.ledger, NOW, "test") as w:
        assert outbox.owe(w, kind, parse(address), "en", [ALL], proven=True)


def states(ledger: Books) -> list[tuple[str, int]]:
    with ledger.ledger.connect() as db:
        return [(r[0], r[1]) for r in db.exec_driver_sql("SELECT state, attempts FROM outbox ORDER BY id")]


async def until(post: Post, done: object) -> None:
    """Let it work until `done()`."""
    task = asyncio.create_task(post.run())
    try:
        async with asyncio.timeout(10):
            while not done():  # type: ignore[operator]
                await asyncio.sleep(0.02)
    finally:
        task.cancel()


async def test_what_is_owed_is_sent_with_the_null_sender(post: Post, ledger: Books, server: Sink) -> None:
    owe(ledger)
    owe(ledger, "bob@example.org")
    await until(post, lambda: [s for s, _ in states(ledger)] == ["sent", "sent"])
    first, second = server.messages
    assert (first.mail_from, first.rcpt_to, second.rcpt_to) == ("<>", (f"<{ANN}>",), ("<bob@example.org>",))
    assert b"Auto-Submitted: auto-replied\r\n" in first.data


async def test_an_upstream_that_is_away_only_delays_it(post: Post, ledger: Books, server: Sink) -> None:
    owe(ledger)
    server.stop()
    await until(post, lambda: states(ledger) == [("owed", 1)])
    server.start()
    await until(replace(post, now=lambda: NOW + timedelta(minutes=2)), lambda: states(ledger) == [("sent", 2)])
    assert len(server.messages) == 1


@pytest.mark.parametrize(
    ("reply", "state"), [("450 4.2.0 later", "owed"), ("550 5.1.1 nobody", "dropped"), ("451 4.3.0 full", "owed")]
)
@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA", "DOT"])
async def test_a_refusal_for_good_ends_it(
    post: Post, ledger: Books, server: Sink, step: str, reply: str, state: str
) -> None:
    owe(ledger)
    server.replies[step] = reply
    await until(post, lambda: states(ledger)[0][1] == 1)
    assert (states(ledger), server.messages) == ([(state, 1)], [])


async def test_after_a_day_it_is_dropped(post: Post, ledger: Books, server: Sink) -> None:
    owe(ledger)
    late = replace(post, now=lambda: NOW + timedelta(hours=25))
    await until(late, lambda: states(ledger) == [("dropped", 1)])
    assert server.messages == []


@pytest.mark.parametrize("reason", [Reason.HARD_BOUNCE, Reason.COMPLAINT])
async def test_nobody_is_written_to_who_is_not_there_or_complained(
    post: Post, ledger: Books, server: Sink, reason: Reason
) -> None:
    ledger.suppress(ANN, reason=reason)
    owe(ledger)
    await until(post, lambda: states(ledger) == [("dropped", 1)])
    assert server.messages == []


async def test_a_database_that_is_away_does_not_end_the_sending(post: Post, ledger: Books, server: Sink) -> None:
    owe(ledger)
    path = ledger.ledger.path
    aside = path.with_name("aside.db")
    with ledger.ledger.connect() as db:
        db.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    path.rename(aside)
    task = asyncio.create_task(post.run())
    await asyncio.sleep(0.2)
    assert not task.done()
    aside.rename(path)
    await until(post, lambda: states(ledger) == [("sent", 1)])
    task.cancel()


async def test_an_address_beyond_ascii_needs_smtputf8(post: Post, ledger: Books, server: Sink) -> None:
    owe(ledger, "jörg@example.com")
    await until(post, lambda: states(ledger) == [("sent", 1)])
    assert server.messages[0].mail_from == "<> SMTPUTF8"


async def test_one_that_trips_a_bug_keeps_no_other_back(
    post: Post, ledger: Books, server: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    owe(ledger)
    owe(ledger, "bob@example.org")
    whole = notices.compose

    def failing(notice: outbox.Notice, *rest: Any) -> bytes:
        if notice.address == ANN:
            raise KeyError("a bug")
        return whole(notice, *rest)

    monkeypatch.setattr(notices, "compose", failing)
    await until(post, lambda: states(ledger) == [("owed", 1), ("sent", 1)])
    monkeypatch.undo()
    await until(replace(post, now=lambda: NOW + timedelta(minutes=2)), lambda: states(ledger)[0] == ("sent", 2))
    assert len(server.messages) == 2


async def test_a_line_that_begins_with_a_dot_arrives_whole(post: Post, ledger: Books, server: Sink) -> None:
    owe(ledger)
    await until(
        replace(post, house=HOUSE.model_copy(update={"name": ".dots"})), lambda: states(ledger) == [("sent", 1)]
    )
    assert b"\r\n.dots\r\n" in server.messages[0].data


async def test_told_to_stop_it_finishes_the_notice_in_hand(post: Post, ledger: Books, server: Sink) -> None:
    """Else it would be sent again at the next start."""
    owe(ledger)
    await told_to_stop_in_mid_message(post.run(), server)
    assert (states(ledger), len(server.messages)) == ([("sent", 1)], 1)
