"""Addresses: what is read is written and read again the same; whoever is suppressed is found under every spelling."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from storage.address import NotAnAddress, SiteKey, forms, keys_of, parse, person
from storage.routes import meant
from tests.fuzz.driving import One

_KEY: Final = SiteKey((bytes(32), bytes([1]) * 32))
_SAME: Final = ((), ("tag",), ("alias",), ("tag", "alias"))
BASES: Final = tuple(
    text.encode()
    for text in (
        "ann@customer.example",
        "A.nn+news@GoogleMail.com",
        "@customer.example",
        '"ann b"@customer.example',
        "ann@[192.0.2.7]",
        "a..b.@docomo.ne.jp",
        "jörg@bücher.example",
        "ann@xn--bcher-kva.example.",
        "ann%customer.example@relay.example",
        "ΣΑΣ+ß@customer.example",
        "customer.example!ann",
    )
)
WORDS: Final = tuple(
    text.encode("utf-8", "surrogatepass")
    for text in '@ + . %  ! " \\ [ ] xn-- gmail.com me.com \u0130 \u1e9e \u212a \u037e \uff0e \u3002 \u200d \u0345\u0334 <> ,'.split(
        " "
    )
)


def one(octets: bytes) -> None:
    """These octets as an address."""
    text = octets.decode("utf-8", "surrogateescape")
    with suppress(NotAnAddress):
        meant(text)
    try:
        address = parse(text)
    except NotAnAddress:
        return
    again = parse(str(address))
    assert again == address, (address, again)
    assert forms(again) == forms(address)
    asked = {key for key, _ in keys_of(_KEY, address)}
    assert asked == {key for _, form in forms(address) for key in _KEY.address_keys(form)}
    for same in _SAME:
        written = person(address, same)
        assert set(_KEY.address_keys(written)) <= asked, (same, written)
        _one_person(written, same)


def _one_person(written: str, same: tuple[str, ...]) -> None:
    """The form under which somebody is written is an address by itself, and the same person's."""
    local, _, domain = written.rpartition("@")
    try:
        bare = parse(written if local == local.strip() else f'"{local}"@{domain}')
    except NotAnAddress:  # it would have to be quoted
        return
    assert _KEY.address_key(written) in {key for key, _ in keys_of(_KEY, bare)}, (same, written, bare)


@contextmanager
def ready() -> Iterator[One]:
    """Nothing is needed for it."""
    yield one
