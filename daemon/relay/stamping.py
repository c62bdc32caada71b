"""Which header fields a message gets on its way: the links of this house, and for whom."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from daemon.mail import tokens
from daemon.mail.headers import Stamped, Stamps, stamp, unsubscribe_value
from daemon.mail.links import Links
from storage.address import SiteKey

_ODD: Final = re.compile(r"[^A-Za-z0-9.@_-]")  # a user name may be of any characters; a colon would end the part
_ANY: Final = "t" * tokens.LENGTH  # stands for a token: all are of one length, so they fold alike


@lru_cache(maxsize=16)
def _value(links: Links, token: str | None) -> bytes:
    one_click = links.one_click(token) if token else None
    return unsubscribe_value(one_click, links.mailto(token))


@dataclass(frozen=True)
class Stamping:
    """What is written on messages. `list_ids`: list id -> value of its List-Id field; `numbers`: list id -> number.

    `sender_id`: the last part of Feedback-ID, "": no such field. `cfbl_address`: value of that field (RFC 9477), b"":
    none. `replace`: unsubscribe fields that came with the message give way to ours.
    """

    links: Links
    site_key: SiteKey
    numbers: Mapping[str, int]
    list_ids: Mapping[str, bytes]
    sender_id: str = ""
    cfbl_address: bytes = b""
    replace: bool = False

    def on(self, block: bytes, person: bytes | None, list_id: str | None, credential: str) -> Stamped:
        """What to write on a message with this header block.

        `person`: the address key of its one recipient; None: it has several, and a personal link in the header of
        somebody else's copy would let them opt each other out, so there is no one-click, only a mail to us.
        """
        if person is None:
            unsubscribe = _value(self.links, None)
        else:
            token = tokens.make(self.site_key, "link", person, self.numbers.get(list_id or "", 0))
            unsubscribe = _value(self.links, _ANY).replace(_ANY.encode(), token.encode())
        stamps = Stamps(
            unsubscribe=unsubscribe,
            one_click=person is not None and bool(self.links.public_url),
            list_id=self.list_ids.get(list_id or "", b""),
            feedback_id=self._feedback_id(list_id, credential),
            cfbl_address=self.cfbl_address,
        )
        return stamp(block, stamps, replace=self.replace)

    def _feedback_id(self, list_id: str | None, credential: str) -> bytes:
        """Gmail's `campaign:customer:type:sender`: it reports complaints by these, and never by person."""
        if not self.sender_id:
            return b""
        customer = _ODD.sub("_", credential)[:64] or "relay"
        return f"{list_id or 'all'}:{customer}:marketing:{self.sender_id}".encode("ascii")
