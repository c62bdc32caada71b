"""How this house's unsubscribe links look: for the relay that stamps them, and for whoever asks for one. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import quote

from daemon.config import House, Mailbox

_LOCAL_LIMIT: Final = 64  # octets of a local part (RFC 5321 4.5.3.1.1)
_TAG: Final = "+u-"


@dataclass(frozen=True, slots=True)
class Links:
    """Tokens become links. Each may be None: the house has no place where such a link could lead.

    `address`: the mailbox people write to; "": no mail links. `subaddress`: mail to support+u-TOKEN@ is known to
    arrive. `public_url`: https base without a slash at its end; "": no web links.
    """

    address: str
    subaddress: bool
    public_url: str

    def one_click(self, token: str) -> str | None:
        """Where a mail program posts a one-click opt-out (RFC 8058)."""
        return f"{self.public_url}/u/{token}" if self.public_url else None

    def mailto(self, token: str | None) -> str | None:
        """A mail to us that opts out (RFC 2369, RFC 6068). No token: of whoever sends it.

        The token is in an address of its own where that is known to arrive and short enough, for some programs drop
        the subject; else it is in the subject.
        """
        if not self.address:
            return None
        local, domain = _parts(self.address)
        if token is None:
            return f"mailto:{local}@{domain}?subject=unsubscribe"
        if self.subaddress and _takes_tag(self.address, token):
            return f"mailto:{local}{_TAG}{token}@{domain}"
        return f"mailto:{local}@{domain}?subject=unsubscribe%20{token}"

    def undo(self, token: str) -> str | None:
        """What gives back: a page, or a mail to us where there is no web door."""
        return undo_link(self.public_url, self.address, token) if self.public_url or self.address else None


def undo_link(public_url: str, address: str, token: str) -> str:
    """What gives back: a page under this base, or where there is none ("") a mail to this address."""
    return f"{public_url}/undo/{token}" if public_url else undo_by_mail(address, token)


def undo_by_mail(address: str, token: str) -> str:
    """What gives back where there is no page for it: a mail to this address, ready to be sent."""
    return "mailto:{}@{}?subject=undo%20{}".format(*_parts(address), token)


def links_of(house: House, mailboxes: Iterable[Mailbox], public_url: str) -> Links:
    """How the links of a house look that has these mailboxes."""
    return Links(next(iter(house.addresses), ""), any(box.subaddress == "+" for box in mailboxes), public_url)


@lru_cache(maxsize=16)
def _parts(address: str) -> tuple[str, str]:
    """Local part and domain as they may stand in a mailto URI: all but letters, digits and `+-._~` in percents.

    RFC 6068 2 lets a few more stand, but also `%`, `?`, `&` and the quotes of a quoted local part are legal in an
    address, and would end or change it here.
    """
    local, _, domain = address.rpartition("@")
    return quote(local, safe="+"), quote(domain, safe="")


def _takes_tag(address: str, token: str) -> bool:
    """Is there room for the token? A quoted local part ends in its quote: nothing can be put behind that."""
    local = address.rpartition("@")[0]
    return not local.endswith('"') and len(local.encode()) + len(_TAG) + len(token) <= _LOCAL_LIMIT
