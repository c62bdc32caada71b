"""The HTTP door in a thread of its own, and a client that says octet for octet what a test wants said."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, get_args

from daemon.config import House
from daemon.gate import Gate
from daemon.intake import Intake
from daemon.mail import tokens
from daemon.opening import lookup_of
from daemon.options import MailingList
from daemon.values import Right
from daemon.vitals import Vitals
from daemon.web.context import Context, Holder, Inside
from daemon.web.server import Server
from storage import suppressions
from storage.address import parse, person
from storage.terms import Reason, seconds
from tests.ledgers import Books
from tests.loopback import HOST

ANN = "ann@customer.example"
FORM = "application/x-www-form-urlencoded"
ONE_CLICK = b"List-Unsubscribe=One-Click"
PATIENCE = 30.0


@dataclass(frozen=True)
class Answer:
    """A response. Names of header fields are in small letters."""

    status: int
    headers: dict[str, str]
    body: str


def read_answer(raw: bytes) -> Answer:
    """The first response in these octets, whose end is where they end."""
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(int(status.split()[1]), headers, body.decode("utf-8", "replace"))


def regret_link(page: str) -> str:
    """Where the button posts that undoes the click before this page."""
    (found,) = re.findall(r'action="([^"]*/undo/[a-z2-7]{64})"', page)
    return str(found)


def without_tokens(page: str) -> str:
    """What two people's pages must have in common."""
    return re.sub(r"\b[a-z2-7]{48,64}\b", "TOKEN", page)


def house(*lists: str, **other: Any) -> House:
    """Quill PDF, with these lists."""
    facts: dict[str, Any] = {"name": "Quill & <PDF>", "addresses": ("support@quillpdf.example",), **other}
    made = House.model_validate(facts)
    return made.model_copy(update={"lists": tuple(MailingList(id=i, title=f"The {i}") for i in lists)})


@dataclass
class Door:
    """A running door, and the ledger behind it."""

    books: Books
    context: Context
    server: Server
    loop: asyncio.AbstractEventLoop
    port: int = 0

    def stopping(self) -> Future[None]:
        """Begin to stop it."""
        return asyncio.run_coroutine_threadsafe(self.server.stop(), self.loop)

    def raw(self, octets: bytes) -> bytes:
        """Say this on a connection of its own; all that comes back until the door hangs up."""
        with socket.create_connection((HOST, self.port), timeout=PATIENCE) as client:
            client.sendall(octets)
            heard = b""
            with contextlib.suppress(ConnectionResetError):
                while piece := client.recv(65536):
                    heard += piece
            return heard

    def ask(
        self, method: str, path: str, *headers: str, body: bytes = b"", host: str = "mail.quillpdf.example"
    ) -> Answer:
        """One request."""
        length = [f"Content-Length: {len(body)}"] if body else []
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *length, *headers]
        return read_answer(self.raw("\r\n".join([*lines, "", ""]).encode("latin-1") + body))

    def post(self, token: str, body: bytes = ONE_CLICK, content_type: str = FORM) -> Answer:
        """As a mail program does."""
        return self.ask("POST", f"/u/{token}", f"Content-Type: {content_type}", body=body)

    def undo(self, page: str, body: bytes = b"undo=1") -> Answer:
        """Press the button of this page that undoes the click before it."""
        return self.ask("POST", regret_link(page), f"Content-Type: {FORM}", body=body)

    def notice(self, list_id: str | None = None, *, day: int = 0, address: str = ANN) -> str:
        """The path of an undo link as a notice has it; `day`: made so many days from today."""
        number, today = self.books.numbers[list_id] if list_id else 0, seconds(self.context.now()) // 86_400
        return "/undo/" + tokens.make(self.books.ledger.site_key, "undo", self.key(address), number, day=today + day)

    def token(self, list_id: str | None = None, address: str = ANN) -> str:
        """As the relay stamps it."""
        number = self.books.numbers[list_id] if list_id else 0
        return tokens.make(self.books.ledger.site_key, "link", self.key(address), number)

    def key(self, address: str = ANN) -> bytes:
        """The address key."""
        ledger = self.books.ledger
        return ledger.site_key.address_key(person(parse(address), ledger.same_person))

    def standing(self, address: str = ANN) -> list[tuple[int, Reason]]:
        """(scope, reason) of what stands against an address."""
        with self.books.ledger.connect() as db:
            rows = suppressions.standing(db, self.books.ledger.site_key, parse(address))
        return sorted((row[1], Reason(row[2])) for row in rows)

    def audit_rows(self) -> int:
        """How much was ever written."""
        with self.books.ledger.connect() as db:
            return int(db.exec_driver_sql("SELECT count(*) FROM audit").scalar_one())


def context(
    books: Books,
    *lists: str,
    public_url: str = "https://mail.quillpdf.example",
    colour: str = "",
    trusted_proxies: tuple[str, ...] = (),
    **other: Any,
) -> Context:
    """What a door answers with."""
    made = house(*(lists or tuple(books.numbers)), **other)
    return Context(books.ledger, made, books.numbers, public_url, lambda: datetime.now(UTC), colour, trusted_proxies)


ADMIN: Final = Holder("admin", "correct horse battery", frozenset(get_args(Right)))


def inside(books: Books, house: House, **other: Any) -> Inside:
    """The operators' rooms: one operator with all rights, one who may only look, and a program."""
    looker = Holder("kim", "only looking", frozenset({"check"}))
    facts: dict[str, Any] = {
        "open_gate": lambda: Gate(lookup_of(books.ledger), books.numbers),
        "intake": Intake(books.ledger, house, books.numbers),
        "vitals": lambda: Vitals(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        "operators": {ADMIN.name: ADMIN, looker.name: looker},
        "programs": (Holder("shop", "shop-token-shop-token", frozenset({"check", "suppress"})),),
        "settings": (("house.name", '"Quill"'),),
        "uploads": books.ledger.store.path.parent if books.ledger.store.path else Path("/nonexistent"),
        "max_upload": 1 << 20,
        **other,
    }
    return Inside(**facts)


def whole(books: Books, *, trusted_proxies: tuple[str, ...] = (), **other: Any) -> Context:
    """A door with the operators' rooms."""
    made = context(books)
    return replace(made, trusted_proxies=trusted_proxies, inside=inside(books, made.house, **other))


@contextlib.contextmanager
def door(books: Books, of: Context | None = None) -> Iterator[Door]:
    """A door that listens on a free port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="door")
    thread.start()

    def wait(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(PATIENCE)

    try:
        made = of or context(books)
        server = Server(f"{HOST}:0", made)
        bound = wait(server.start())
        try:
            yield Door(books, made, server, loop, int(bound[0].rpartition(":")[2]))
        finally:
            wait(server.stop())
    finally:
        wait(loop.shutdown_default_executor())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()
