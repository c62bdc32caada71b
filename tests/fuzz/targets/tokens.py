"""Signed tokens: whatever is not one of ours, to the bit, is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, get_args

from daemon.mail import tokens
from storage.address import SiteKey
from tests.fuzz.driving import One

_KEY: Final = SiteKey((bytes(range(32)), bytes(32)))
_OTHER: Final = SiteKey((bytes([7]) * 32,))
_PURPOSES: Final = get_args(tokens.Purpose)
_ANN: Final = bytes(range(16))
_CLICK: Final = bytes(tokens.CLICK_OCTETS)


def _made(key: SiteKey) -> dict[tokens.Purpose, str]:
    return {
        purpose: tokens.make(
            key,
            purpose,
            _ANN,
            3,
            day=20_000 if purpose in ("undo", "canary") else 0,
            click=_CLICK if purpose == "regret" else b"",
        )
        for purpose in _PURPOSES
    }


_OURS: Final = _made(_KEY)
BASES: Final = tuple(text.encode() for made in (_OURS, _made(_OTHER)) for text in made.values())
WORDS: Final = (b"a", b"b", b"7", b"aaaaaaaa", b"=", b"1", b"A", "\u212a".encode(), "\u017f".encode(), *BASES)


def one(octets: bytes) -> None:
    """These octets for every purpose, alone and in a text."""
    text = octets.decode("utf-8", "surrogateescape")
    for purpose in _PURPOSES:
        is_ours = text.isascii() and text.lower() == _OURS[purpose]
        assert (tokens.read(_KEY, purpose, text) is not None) == is_ours, purpose
        found = list(tokens.find(_KEY, [purpose], f"https://x.example/u/{text} {text}"))
        assert all(token.address_key == _ANN and token.list_number == 3 for token in found)


@contextmanager
def ready() -> Iterator[One]:
    """Nothing is needed for it."""
    yield one
