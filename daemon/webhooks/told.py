"""What a program is told of a change, and how it is signed (https://www.standardwebhooks.com: webhook-id, webhook-timestamp,
webhook-signature). Pure but for the questions to the ledger: whom is it about, and what holds now?"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection

from storage import hooks, journal, suppressions
from storage.engine import Ledger
from storage.suppressions import Fact
from storage.terms import Reason, reason_word, seconds, when

_WHSEC: Final = "whsec_"  # what the libraries of the scheme call a secret that is written in base64
_SHORTEST: Final = 24  # characters of a secret as it is, or octets of one in base64
_OF_REASON: Final = {
    Reason.OPT_OUT: "opt-out",
    Reason.COMPLAINT: "complaint",
    Reason.HARD_BOUNCE: "bounce",
    Reason.SOFT_BOUNCE: "bounce",
    Reason.OPERATOR: "operator",
    Reason.WANTED: "lift",  # one list may be mailed again
}


class WrongSecret(ValueError):
    """The secret of a hook cannot be used; the message says why, and not what it is."""


@dataclass(frozen=True, slots=True)
class Hook:
    """A program to be told. `keys`: it gets a signature by each; `ca_file`: whom its certificate is from, if not from a
    public authority; `events`: which kinds of changes it is told of."""

    name: str
    url: str
    keys: tuple[bytes, ...] = field(repr=False)
    events: frozenset[str]
    ca_file: Path | None = None


def keys_in(secret: str) -> tuple[bytes, ...]:
    """The keys in a secret file: one a line, so that a new one can be used beside the old. Raises WrongSecret."""
    keys = tuple(_key(line.strip()) for line in secret.splitlines() if line.strip())
    if not keys:
        raise WrongSecret("the file is empty")
    return keys


def _key(text: str) -> bytes:
    key = text.encode()
    if text.startswith(_WHSEC):
        try:
            key = base64.b64decode(text.removeprefix(_WHSEC), validate=True)
        except (binascii.Error, ValueError):
            raise WrongSecret(f"begins with {_WHSEC}, but what follows is not base64") from None
    if len(key) < _SHORTEST:
        raise WrongSecret(f"must be {_SHORTEST} characters or more (`openssl rand -hex 32` makes one)")
    return key


def kind_of(event: str, reason: int | None) -> str | None:
    """Which kind of change an audit row is (an option of `events`); None: none of which programs are told.

    `wanted` exempts a list from an opt-out of everything, so it is a lift; and that it ended is an opt-out of that list.
    """
    if event not in hooks.CHANGES or reason is None:
        return None
    if event == "lifted":
        return "opt-out" if reason == Reason.WANTED else "lift"
    return _OF_REASON[Reason(reason)]


def id_of(name: str, seq: int, epoch: int) -> str:
    """The name of a message: the same however often it is sent. After a restore audit numbers are given once more."""
    return f"{name}-{seq}" + (f".{epoch}" if epoch > 1 else "")


def compose(db: Connection, ledger: Ledger, hook: Hook, change: Fact) -> tuple[str, bytes]:
    """(id, body) of what is said of a change, as things are now. `db`: a connection with a consistent snapshot."""
    address = hooks.address_of(db, ledger.site_key, change)
    scope = change.scope or 0
    said: dict[str, Any] = {
        "id": id_of(hook.name, change.seq, journal.epoch_of(db)),
        "type": kind_of(change.event, change.reason),
        "at": when(change.at),
        "address": None if address is None else str(address),
        "key": (change.key or b"").hex(),
        "scope": suppressions.scope_word(db, scope),
        "suppressed": hooks.stands(db, ledger.site_key, change, address),
        "reason": reason_word(change.reason),
        "source": change.source,
        "ref": change.evidence,
    }
    return said["id"], json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


def signed(hook: Hook, message_id: str, body: bytes, now: datetime) -> Mapping[str, str]:
    """The header fields by which whoever has the secret knows that it is from us, and when it was sent."""
    moment = str(seconds(now))
    content = b".".join((message_id.encode(), moment.encode(), body))
    made = (hmac.new(key, content, hashlib.sha256).digest() for key in hook.keys)
    signature = " ".join("v1," + base64.b64encode(digest).decode() for digest in made)
    return {"webhook-id": message_id, "webhook-timestamp": moment, "webhook-signature": signature}
