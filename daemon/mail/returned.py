"""What comes back of a mail of ours, in a report: is it ours at all, and whom do our tokens in its header name?"""

from __future__ import annotations

from typing import Final

from daemon.config import House
from daemon.mail import addresses, tokens
from daemon.mail.message import Part
from daemon.mail.reading import Proof
from daemon.mail.rewritten import undone
from daemon.mail.tokens import Token
from storage.address import NotAnAddress, SiteKey, keys_of, parse

# Fields of a returned message in which tokens of ours travel; reporters redact some and leave others.
_CARRIERS: Final = ("received", "list-unsubscribe", "cfbl-feedback-id", "feedback-id", "message-id")


def is_ours(original: Part, house: House) -> bool:
    """Is there a sender in our domain? A copy that shows no sender at all is not held against us."""
    values = [
        v
        for name in ("from", "sender", "return-path", "resent-from", "x-original-from")
        for v in original.fields.all(name)
    ]
    senders = [undone(a) for v in values for a in addresses.specs(v)]
    return not senders or any(house.owns(a.rpartition("@")[2]) for a in senders)


def _tokens(original: Part | None, site_key: SiteKey | None) -> list[Token]:
    """Our tokens in a returned header: nobody else can have made them."""
    if original is None or site_key is None:
        return []
    values = [value[:4000] for name in _CARRIERS for value in original.fields.all(name)[:60]]
    return [token for value in values for token in tokens.find(site_key, ("received", "link"), value)]


def proof(original: Part | None, recipients: tuple[str, ...], site_key: SiteKey | None) -> Proof:
    """Is there a token of ours for everybody reported?"""
    for token in _tokens(original, site_key):
        assert site_key is not None
        if all(is_about(token, address, site_key) for address in recipients):
            return "token"
    return "none"


def person(original: Part | None, site_key: SiteKey | None) -> Token | None:
    """The one person that the tokens in a returned header name; None if they name nobody, or several."""
    named = {token.address_key: token for token in _tokens(original, site_key)}
    named.pop(tokens.NOBODY, None)
    return next(iter(named.values())) if len(named) == 1 else None


def is_about(token: Token, address: str, site_key: SiteKey) -> bool:
    """Does it name this address? One of a message to several people names nobody: each of them holds it."""
    try:
        return any(key == token.address_key for key, kind in keys_of(site_key, parse(address)) if kind != "domain")
    except NotAnAddress:
        return False
