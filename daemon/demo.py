"""`optoutd demo`: the whole promise in one process, with pip packages only and nothing left behind.

The mailbox is pymap, the upstream a few lines of aiosmtpd; between them stands the real daemon, made from a real
config in a temporary directory, so that from a second terminal every other command can be tried on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import smtplib
import socket
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Final

from aiosmtpd.smtp import SMTP
from imapclient import IMAPClient
from rich.console import Console
from rich.panel import Panel
from rich.rule import Rule
from rich.text import Text

from daemon import events
from daemon.config import load
from daemon.mail import tokens
from daemon.opening import now, number_lists, open_for_run
from daemon.service import Service
from storage import audit, suppressions
from storage.address import parse, person

CUSTOMERS: Final = ("ann@example.com", "bob@example.org", "carla@example.net")
WORDS: Final = """Hello,

I enjoyed your letters, but I have retired and my inbox should too.
Could you please take me off your mailing list? Many thanks for everything.

Ann
"""
_FROM_BOB: Final = """\
From: Bob <bob@example.org>
To: support@quillpdf.example
Subject: enough

No more of your letters please, and delete me from the list.
"""
_PASSWORD: Final = "demo"  # noqa: S105 - printed for the reader: it opens an invented mailbox and console on loopback
_PATIENCE: Final = 20.0  # seconds


class DemoFailed(Exception):
    """The story did not go as it should; the message says where."""


@dataclass
class _Sink:
    """The mail server behind the relay: takes everything and remembers for whom. Our own notice to Ann is no campaign's."""

    delivered: list[str] = field(default_factory=list)

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd calls a handler by this very name
        if envelope.mail_from:  # a mail of our own has the null sender, and comes when it comes
            self.delivered += envelope.rcpt_tos
        return "250 2.0.0 taken"


def play(*, once: bool) -> None:
    """Tell the story; without `once`, stay up until Ctrl-C. Raises DemoFailed, and KeyboardInterrupt before the end."""
    events.configure("auto", "error")
    try:
        asyncio.run(_play(once=once, console=Console(highlight=False)))
    except asyncio.CancelledError:  # SIGTERM in the middle of the story
        raise KeyboardInterrupt from None


async def _play(*, once: bool, console: Console) -> None:
    _end_tidily()
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="optoutd-demo-")))
        imap_port = await stack.enter_async_context(_mailbox())
        sink = _Sink()
        smtp_port = await stack.enter_async_context(_upstream(sink))
        daemon = await _daemon(stack, home, imap_port, smtp_port)
        relay_port = int(daemon.doors.bound["relay"][0].rpartition(":")[2])
        await _story(console, daemon, sink, imap_port, relay_port)
        if not once:
            _where_to_look(console, daemon, home, imap_port)
            with contextlib.suppress(asyncio.CancelledError):
                await _tell_what_happens(console, daemon)
            console.print("\nEnded. Nothing is left behind.")


def _end_tidily() -> None:
    """A closed window and `kill` end it like Ctrl-C does: nothing is left behind."""
    task = asyncio.current_task()
    assert task is not None
    for name in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(name, task.cancel)


# ------------------------------------------------------------------ the stage


@contextlib.asynccontextmanager
async def _mailbox() -> AsyncIterator[int]:
    """An IMAP server with a mailbox `support` on a free port."""
    from pymap.backend.dict import DictBackend
    from pymap.imap import IMAPService

    port = _free_port()
    parser = ArgumentParser()
    IMAPService.add_arguments(parser)
    DictBackend.add_subparser("dict", parser.add_subparsers())
    parser.set_defaults(skip_services=[], passlib_cfg=None, debug=False)
    address = ["--host", "127.0.0.1", "--port", str(port), "--no-tls"]
    user = ["dict", "--demo-data", "--demo-user", "support", "--demo-password", _PASSWORD]
    backend, config = await DictBackend.init(parser.parse_args(address + user))
    config.apply_context()
    async with AsyncExitStack() as stack:
        await backend.start(stack)
        await IMAPService(backend, config).start(stack)
        await asyncio.to_thread(_empty_inbox, port)
        yield port


def _empty_inbox(port: int) -> None:
    """pymap's mailbox comes with messages of its own."""
    with IMAPClient("127.0.0.1", port, ssl=False, timeout=10) as client:
        client.login("support", _PASSWORD)
        client.select_folder("INBOX")
        uids = client.search()
        if uids:
            client.delete_messages(uids)
            client.expunge()


@contextlib.asynccontextmanager
async def _upstream(sink: _Sink) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(sink, hostname="mx.example", loop=loop), "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def _daemon(stack: AsyncExitStack, home: Path, imap_port: int, smtp_port: int) -> Service:
    """The real thing, from a config as an operator would write it."""
    (home / "imap-password").write_text(_PASSWORD)
    (home / "admin-password").write_text(_PASSWORD)
    (home / "bob.eml").write_text(_FROM_BOB)
    config = home / "optoutd.toml"
    config.write_text(
        f"""\
[house]
name = "Quill PDF"
domains = ["quillpdf.example"]
addresses = ["support@quillpdf.example"]

[[list]]
id = "newsletter"
list_id = "newsletter.quillpdf.example"
title = "The Quill Letter"

[[mailbox]]
name = "support"
host = "127.0.0.1"
port = {imap_port}
tls = "none"
username = "support"
password_file = "imap-password"
poll_seconds = 2

[relay]
listen = "127.0.0.1:0"
hostname = "relay.quillpdf.example"

[upstream]
port = {smtp_port}

[web]
listen = "127.0.0.1:0"
admin_password_file = "admin-password"
"""
    )
    config.chmod(0o600)
    loaded = load(config)
    ledger = await asyncio.to_thread(open_for_run, loaded)
    stack.callback(ledger.close)
    daemon = Service(loaded, ledger, now(), number_lists(ledger, loaded.config))
    await daemon.start(stack)
    return daemon


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


# ------------------------------------------------------------------ the story


async def _story(console: Console, daemon: Service, sink: _Sink, imap_port: int, relay_port: int) -> None:
    console.print(Rule("[bold]optoutd: the promise kept[/bold]"))
    console.print(
        "Quill PDF tells its customers: [italic]“If you do not want to receive e-mail from us in the future, please let"
        " us know by sending us e-mail at support@quillpdf.example.”[/italic]\n"
    )
    console.print("[bold]1.[/bold] The first campaign goes out through the relay.")
    await _campaign(console, relay_port, "The Quill Letter, spring")
    _expect(sorted(sink.delivered) == sorted(CUSTOMERS), "the first campaign was not delivered to everybody")
    sink.delivered.clear()

    console.print("\n[bold]2.[/bold] Ann writes to support in her own words; Bob asks about the product.")
    console.print(Panel(WORDS.strip(), title="From: ann@example.com   Subject: your letters", expand=False))
    await asyncio.to_thread(_deliver, imap_port)
    await _until(daemon, "ann@example.com")
    with daemon.ledger.reading() as db:
        fact = suppressions.history(db, daemon.ledger.site_key, parse("ann@example.com"))[-1]
    await _tell_what_was_recorded(console, daemon, fact, imap_port)

    console.print("\n[bold]3.[/bold] The second campaign.")
    await _campaign(console, relay_port, "The Quill Letter, summer")
    _expect(sorted(sink.delivered) == sorted(CUSTOMERS[1:]), "the second campaign did not go to exactly the others")
    console.print("\nThe refusal came before the message was passed on: nothing has left for Ann.")


async def _campaign(console: Console, port: int, subject: str) -> None:
    for customer in CUSTOMERS:
        answer = await asyncio.to_thread(_send, port, customer, subject)
        word = Text("delivered", "green") if answer.startswith("250") else Text("refused  ", "bold red")
        console.print("  ", word, f" {customer:<18} ", Text(answer, "dim"), sep="")


def _send(port: int, customer: str, subject: str) -> str:
    """What a marketing tool does; returns the relay's last word."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "letter@news.quillpdf.example", customer, subject
    message["List-Id"] = "The Quill Letter <newsletter.quillpdf.example>"
    message.set_content("New brushes, new inks.\n")
    with smtplib.SMTP("127.0.0.1", port, timeout=_PATIENCE) as client:
        try:
            client.send_message(message)
        except smtplib.SMTPRecipientsRefused as refused:
            code, text = next(iter(refused.recipients.values()))
            return f"{code} {text.decode()}"
    return "250 ok"


def _deliver(port: int) -> None:
    """Two mails arrive in the support mailbox."""
    question = EmailMessage()
    question["From"], question["Subject"] = "Bob <bob@example.org>", "Merging files"
    question["To"], question["Message-ID"] = "support@quillpdf.example", "<2@example.org>"
    question.set_content("Hi, how do I merge two files into one? And do my readers get an unsubscribe link?\n")
    request = EmailMessage()
    request["From"], request["Subject"] = "Ann <ann@example.com>", "your letters"
    request["To"], request["Message-ID"] = "support@quillpdf.example", "<1@example.com>"
    request.set_content(WORDS)
    with IMAPClient("127.0.0.1", port, ssl=False, timeout=_PATIENCE) as client:
        client.login("support", _PASSWORD)
        for mail in (question, request):
            client.append("INBOX", bytes(mail), msg_time=datetime.now(UTC))


async def _until(daemon: Service, address: str) -> None:
    """Wait until the daemon has understood."""
    end = asyncio.get_running_loop().time() + _PATIENCE
    while True:
        with daemon.ledger.reading() as db:
            if suppressions.standing(db, daemon.ledger.site_key, parse(address)):
                return
        _expect(asyncio.get_running_loop().time() < end, "the request was not understood in time")
        await asyncio.sleep(0.05)


async def _tell_what_was_recorded(console: Console, daemon: Service, fact: suppressions.Fact, imap_port: int) -> None:
    detail = fact.detail or {}
    console.print("  ", Text("opted out", "bold yellow"), f" ann@example.com, recorded as ref {fact.evidence}", sep="")
    console.print(f"     because of the words  “{detail.get('words', '')}”")
    console.print(f"     under the rules       {', '.join(detail.get('rules', []))}")
    with daemon.ledger.reading() as db:
        head = audit.verify(db, daemon.ledger.site_key)
    console.print(f"     audit log             {head.seq} row(s), chain and table verified")
    inbox, filed = await asyncio.to_thread(_folders, imap_port)
    console.print(f"     the mailbox           {inbox} still unread in INBOX, {filed} filed in Opt-outs")


def _folders(port: int) -> tuple[int, int]:
    """How many messages are unread in INBOX, and how many are filed; waits a moment for the filing."""
    with IMAPClient("127.0.0.1", port, ssl=False, timeout=_PATIENCE) as client:
        client.login("support", _PASSWORD)
        for _ in range(100):
            client.select_folder("Opt-outs", readonly=True)
            filed = len(client.search())
            client.select_folder("INBOX", readonly=True)
            if filed:
                break
        return len(client.search("UNSEEN")), filed


def _expect(true: bool, otherwise: str) -> None:
    if not true:
        raise DemoFailed(otherwise)


def _where_to_look(console: Console, daemon: Service, home: Path, imap_port: int) -> None:
    relay_port, web = daemon.doors.bound["relay"][0].rpartition(":")[2], f"http://{daemon.doors.bound['web'][0]}"
    program = "optoutd" if shutil.which("optoutd") else str(Path(sys.argv[0]).absolute())
    console.print(Rule("[bold]now you[/bold]"))
    console.print(
        f"The daemon stays up until Ctrl-C. Look around in the console (admin, {_PASSWORD}):\n\n"
        f"  {web}/console/\n\n"
        f"Be Bob, who follows the link below a letter:\n\n"
        f"  {web}/u/{_link_of(daemon, 'bob@example.org')}\n\n"
        f"In a second terminal:\n\n"
        f"  cd {home}\n"
        f"  {program} list\n"
        f"  {program} show ann@example.com\n"
        f"  {program} check carla@example.net\n\n"
        "Mail Carla through the relay, then suppress her, and try again:\n\n"
        f"  curl smtp://127.0.0.1:{relay_port} --mail-from letter@quillpdf.example \\\n"
        "      --mail-rcpt carla@example.net --crlf -T bob.eml\n"
        f"  {program} suppress carla@example.net --note 'by phone'\n\n"
        "Write to support as Bob (edit bob.eml, say it in your own words):\n\n"
        f"  curl imap://127.0.0.1:{imap_port}/INBOX -u support:{_PASSWORD} -T bob.eml\n\n"
        "What the daemon records shows up below. For your own mailbox: README.md.",
        soft_wrap=True,
        markup=False,
    )


def _link_of(daemon: Service, address: str) -> str:
    ledger = daemon.ledger
    key = ledger.site_key.address_key(person(parse(address), ledger.same_person))
    return tokens.make(ledger.site_key, "link", key, daemon.present.gate.numbers["newsletter"])


async def _tell_what_happens(console: Console, daemon: Service) -> None:
    """What is recorded from now on, a line each, until somebody ends it."""
    told = len(_recorded(daemon))
    while True:
        for fact in _recorded(daemon)[told:]:
            told += 1
            detail = fact.detail or {}
            why = detail.get("words") or detail.get("because") or detail.get("note") or ""
            what = f" {detail.get('address', '')} by {fact.actor}" + f": “{why}”" * bool(why)
            console.print("  ", Text(f"{fact.event:<10}", "bold yellow"), Text(what), sep="")
        await asyncio.sleep(0.5)


def _recorded(daemon: Service) -> list[suppressions.Fact]:
    """The whole record with what explains it; in a demo that is little."""
    with daemon.ledger.reading() as db:
        numbers = [fact.evidence for fact, _ in suppressions.facts(db)]
        return [fact for n in dict.fromkeys(numbers) if n is not None for fact in suppressions.by_evidence(db, n)]
