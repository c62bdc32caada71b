"""What every message of a relay works with, and what is known of the client that sends it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from typing import Final, Protocol

from daemon.config import Relay
from daemon.gate import Gate
from daemon.relay.stamping import Stamping
from daemon.upstream import Pool
from storage.address import Address, SiteKey
from storage.refusals import Outcome, Refusal

GROWN: Final = 4096  # octets: more than the longest names and links make of the lines that we write, for SIZE
# As on the wire, where a line may have a dot before it that the next server takes off.
_LIST_ID: Final = re.compile(
    rb"^\.?List-Id[ \t]*:([^\r\n]*(?:\r\n\.?[ \t][^\r\n]*){0,20})", re.IGNORECASE | re.MULTILINE
)
_HELO_ODD: Final = re.compile(r"[^A-Za-z0-9.:_\[\]-]")  # what a client calls itself must not break our own line


class Record(Protocol):
    """Where it is written down what became of recipients: daemon.register.Register."""

    def note(self, outcome: Outcome, list_number: int, credential: str, reason: int, n: int = 1) -> None:
        """Count recipients."""

    def keep(self, *of_one_transaction: Refusal) -> None:
        """Keep refusals, and count them."""


class NoRecord:
    """Nothing is written down."""

    def note(self, outcome: Outcome, list_number: int, credential: str, reason: int, n: int = 1) -> None:
        """Nothing."""

    def keep(self, *of_one_transaction: Refusal) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class Client:
    """What is known of who sends: `helo`, what it calls itself; `peer`, its IP address; how it came."""

    helo: str
    peer: str
    extended: bool
    encrypted: bool = False
    authenticated: bool = False

    def logged_in(self) -> Client:
        """The same after AUTH."""
        return replace(self, authenticated=True)

    @property
    def protocol(self) -> str:
        """The `with` of a Received line (RFC 3848)."""
        return "ESMTP" + "S" * self.encrypted + "A" * self.authenticated if self.extended else "SMTP"


@dataclass
class Context:
    """What every message works with. `lists`: RFC 2919 value (lower case) -> list id; `numbers`: id -> number."""

    settings: Relay
    gate: Gate
    pool: Pool
    site_key: SiteKey
    lists: Mapping[str, str]
    numbers: Mapping[str, int]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    same_person: tuple[str, ...] = ("tag", "alias")  # storage.same_person: under which form a person's rows are written
    stamping: Stamping | None = None
    record: Record = field(default_factory=NoRecord)
    saw: Callable[[Sequence[Address], int, float], None] | None = None  # daemon.witness.Witness, if there is one
    _seen: dict[str, str] | None = field(default=None, init=False)  # the features that the next two were made of
    _offers: dict[str, str] = field(default_factory=dict, init=False)
    _max_size: int = field(default=0, init=False)

    @property
    def hostname(self) -> str:
        """What we call ourselves."""
        return self.settings.hostname

    @property
    def max_size(self) -> int:
        """Octets of the largest message: our own limit, and never more than the upstream takes with our lines added."""
        self.offers()
        return self._max_size

    def offers(self) -> dict[str, str]:
        """Our EHLO keywords: what we do ourselves, and of the rest what the upstream offered last."""
        upstream = self.pool.features
        if upstream is not self._seen:
            self._max_size = _most(self.settings.max_size, upstream.get("SIZE", ""))
            self._offers = {"PIPELINING": "", "ENHANCEDSTATUSCODES": ""}
            if "SIZE" in upstream:
                self._offers["SIZE"] = str(self._max_size)
            self._offers |= {k: "" for k in ("8BITMIME", "SMTPUTF8", "DSN") if k in upstream}
            self._seen = upstream
        return self._offers

    def list_of(self, block: bytes) -> str | None:
        """The id of our list that a List-Id field (RFC 2919) of a header block names; None: no field, or not ours."""
        for field_ in _LIST_ID.findall(block):
            value = field_.decode("ascii", "replace")
            for name in re.findall(r"<([^<>]*)>", value) or [value]:  # brackets may also stand in the quoted phrase
                found = self.lists.get("".join(name.split()).lower())
                if found is not None:
                    return found
        return None

    def received(self, client: Client, token: str, *, utf8: bool) -> bytes:
        """Our Received line (RFC 5321 4.4). `token`: its id, by which a bounce proves that it is of our mail."""
        date = _date(self.now().replace(microsecond=0))
        return _trace(client, self.hostname, utf8) + f"{token};\r\n\t{date}\r\n".encode()


def _most(ours: int, offered: str) -> int:
    theirs = int(offered) if re.fullmatch(r"[0-9]{1,20}", offered) else 0  # RFC 1870: 0 is no limit
    return min(ours, max(theirs - GROWN, 1)) if theirs else ours


@lru_cache(maxsize=256)
def _trace(client: Client, hostname: str, utf8: bool) -> bytes:
    peer = client.peer or "unknown"
    literal = f"IPv6:{peer}" if ":" in peer else peer
    protocol = f"UTF8{client.protocol.removeprefix('E')}" if utf8 else client.protocol  # RFC 6531 4.3: UTF8SMTPSA
    helo = _HELO_ODD.sub("?", client.helo)
    return f"Received: from {helo} ([{literal}])\r\n\tby {hostname} (optoutd) with {protocol}\r\n\tid ".encode()


@lru_cache(maxsize=4)
def _date(moment: datetime) -> str:
    """RFC 5322 date: made once for all messages of a second."""
    return format_datetime(moment)
