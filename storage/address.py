"""When are two addresses the same person? Canonical forms, address keys, and Who (what logs may say). Pure.

An address has up to four kinds of form, narrow to wide: `exact`, `tag` (without "+tag"), `alias` (what a provider
is known to treat as one mailbox) and `domain`. A lookup asks for all of them; a suppression is written once, under
the widest personal form the operator allows. That makes sameness symmetric: an opt-out of `a.nn+x@gmail.com` stops
`ann@gmail.com`, and the other way round. Forms may be added, never removed: a key once written is found for ever.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal

import idna

FormKind = Literal["exact", "tag", "alias", "domain", "hash"]
HashKind = Literal["md5", "sha256"]  # of foreign lists: of the trimmed address in small letters
KEY_OCTETS: Final = 16

# Local parts are taken as people have them, not as RFC 5321 wishes: docomo gave out `a..b@` and `a.@` for years.
# C0 controls, space, and the characters that end a path are all that cannot be part of one unquoted.
_PLAIN = re.compile(
    r'([^\x00-\x20\x7f-\x9f"<>()\[\]\\,;:@]{1,64})@([A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*)\.?\Z'
)
_QUOTED_LOCAL = re.compile(r'"((?:[^\x00-\x1f\x7f"\\]|\\[^\x00-\x1f\x7f]){0,128})"\Z')
_LONGEST_LOCAL = 4 * 128  # characters that may become 128 octets: none is composed of more than four (Unicode 15)
_BARE_LOCAL = re.compile(r'[^\x00-\x20\x7f-\x9f"<>()\[\]\\,;:@]{1,64}\Z')
_ASCII_DOMAIN = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\Z")
_LITERAL = re.compile(r"\[[A-Za-z0-9:.\-]{2,60}\]\Z")

# Providers that document that these spellings are one mailbox: their domains, and whether dots in the local part
# are ignored. googlemail.com: support.google.com/mail/answer/10313.
_ALIASES: Final[dict[str, tuple[str, bool]]] = {
    "gmail.com": ("gmail.com", True),
    "googlemail.com": ("gmail.com", True),
    "proton.me": ("proton.me", True),
    "protonmail.com": ("proton.me", True),
    "pm.me": ("proton.me", True),
    "icloud.com": ("icloud.com", False),
    "me.com": ("icloud.com", False),
    "mac.com": ("icloud.com", False),
    "yandex.ru": ("yandex.ru", False),
    "yandex.com": ("yandex.ru", False),
    "ya.ru": ("yandex.ru", False),
    "fastmail.com": ("fastmail.com", False),
    "hey.com": ("hey.com", True),
}

# A suppression of one of these as a whole domain is nearly always a slip: `suppress @gmail.com` asks for --force.
PUBLIC_PROVIDERS: Final = frozenset(_ALIASES) | frozenset(
    (
        "aol.com gmx.de gmx.net gmx.com gmx.at gmx.ch web.de t-online.de freenet.de hotmail.com hotmail.co.uk hotmail.fr"
        " hotmail.de live.com outlook.com outlook.de msn.com yahoo.com yahoo.co.uk yahoo.de yahoo.fr yahoo.co.jp ymail.com"
        " orange.fr wanadoo.fr free.fr laposte.net sfr.fr libero.it virgilio.it tiscali.it alice.it mail.ru inbox.ru list.ru"
        " bk.ru rambler.ru ukr.net wp.pl o2.pl onet.pl interia.pl seznam.cz centrum.cz qq.com 163.com 126.com sina.com"
        " naver.com daum.net hanmail.net docomo.ne.jp ezweb.ne.jp softbank.ne.jp uol.com.br bol.com.br terra.com.br"
        " telefonica.net comcast.net verizon.net att.net sbcglobal.net btinternet.com sky.com virginmedia.com zoho.com"
        " tutanota.com tuta.io posteo.de mailbox.org bluewin.ch sunrise.ch telenet.be skynet.be ziggo.nl kpnmail.nl"
    ).split()
)


class NotAnAddress(ValueError):
    """The text is no e-mail address; the message is fit for a person to read."""


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed address: `local` as written (NFC, unquoted), `domain` in lower-case A-labels. local "" = a whole domain."""

    local: str
    domain: str

    @property
    def is_domain(self) -> bool:
        """Was it given as `@example.com`?"""
        return not self.local

    def __str__(self) -> str:
        bare = self.local == self.local.strip() and (not self.local or _BARE_LOCAL.match(self.local))
        return f"{self.local if bare else _quote(self.local)}@{self.domain}"


def parse(text: str) -> Address:
    """Read an addr-spec, or `@domain`. Raises NotAnAddress.

    Takes what RFC 5321 mailboxes and RFC 6531 (UTF-8) allow and the loose local parts that exist in the wild;
    refuses control characters, surrogates (octets that were no UTF-8), empty domains and over-long parts.
    """
    plain = _PLAIN.match(text)
    if plain and text.isascii() and len(plain[2]) <= 253:
        return Address(plain[1], plain[2].lower())
    local, at, domain = text.strip().rpartition("@")
    if not at or not domain:
        raise NotAnAddress("an address looks like name@example.com")
    return Address(_local(local), a_label(domain)) if local else Address("", a_label(domain))


def _local(text: str) -> str:
    if len(text) > _LONGEST_LOCAL:  # before it is composed, which takes the square of a row of accents
        raise NotAnAddress("the part before the @ is empty or too long")
    text = unicodedata.normalize("NFC", text)  # first: it can make a text longer, or a `;` of a Greek question mark
    try:
        octets = len(text.encode())
    except UnicodeEncodeError:
        raise NotAnAddress("the part before the @ is not valid UTF-8") from None
    quoted = _QUOTED_LOCAL.match(text)
    if quoted:
        text = re.sub(r"\\(.)", r"\1", quoted[1])
    elif not _BARE_LOCAL.match(text):
        raise NotAnAddress("the part before the @ has a character that must be quoted, or is too long")
    if not text or octets > 128:
        raise NotAnAddress("the part before the @ is empty or too long")
    return text


def _quote(local: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", local) + '"'


def a_label(domain: str) -> str:
    """A domain in lower-case A-labels (RFC 5890), without a final dot. Raises NotAnAddress."""
    domain = domain.removesuffix(".")
    if _LITERAL.match(domain):
        return domain.lower()
    if domain.isascii():
        ascii_domain = domain.lower()
    else:
        try:
            ascii_domain = idna.encode(domain, uts46=True).decode().removesuffix(".")
        except (idna.IDNAError, UnicodeError):
            raise NotAnAddress("the domain is not a valid name") from None
    if len(ascii_domain) > 253 or not _ASCII_DOMAIN.match(ascii_domain):
        raise NotAnAddress("the domain is not a valid name")
    return ascii_domain


def forms(address: Address) -> tuple[tuple[FormKind, str], ...]:
    """All forms of an address, narrow to wide; equal forms are one (the narrowest name wins).

    >>> forms(parse("A.nn+x@GoogleMail.com"))
    (('exact', 'a.nn+x@googlemail.com'), ('tag', 'a.nn@googlemail.com'), ('alias', 'ann@gmail.com'), ('domain', '@googlemail.com'))
    """
    domain = address.domain
    out: list[tuple[FormKind, str]] = []
    if address.local:
        folded = address.local.lower() if address.local.isascii() else _fold(address.local)
        exact = f"{folded}@{domain}"
        out.append(("exact", exact))
        bare = folded.partition("+")[0] if folded.find("+") > 0 else folded
        if bare is not folded:
            out.append(("tag", f"{bare}@{domain}"))
        provider = _ALIASES.get(domain)
        if provider:
            home, dotless = provider
            alias = f"{bare.replace('.', '') or bare if dotless else bare}@{home}"
            if alias not in (exact, f"{bare}@{domain}"):
                out.append(("alias", alias))
    out += _domains(domain)
    return tuple(out)


def _domains(domain: str) -> list[tuple[FormKind, str]]:
    """`@mail.example.com`, `@example.com`; a top-level domain alone is never asked for."""
    found: list[tuple[FormKind, str]] = [("domain", "@" + domain)]
    if domain.startswith("["):
        return found  # an address literal has no parents
    dot = domain.find(".")
    while dot >= 0 and domain.find(".", dot + 1) > 0:
        found.append(("domain", "@" + domain[dot + 1 :]))
        dot = domain.find(".", dot + 1)
    return found


def _fold(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def spellings(address: Address) -> tuple[str, bool, tuple[str, ...]]:
    """What all addresses that are the same person as this one, at the widest, have in common.

    Returns (local part without tag, folded; may dots stand anywhere in it?; the domains).
    """
    folded = address.local.lower() if address.local.isascii() else _fold(address.local)
    bare = folded.partition("+")[0] if folded.find("+") > 0 else folded
    home, dotless = _ALIASES.get(address.domain, (address.domain, False))
    domains = tuple(domain for domain, of in _ALIASES.items() if of[0] == home) or (address.domain,)
    return (bare.replace(".", "") or bare if dotless else bare), dotless, domains


def person(address: Address, same: Iterable[str]) -> str:
    """The form under which a suppression of this address is written: the widest personal form that `same` allows.

    `same` is `storage.same_person`: any of "tag" and "alias". A whole domain is written as itself.
    """
    allowed = {"exact", *same}
    if address.is_domain:
        return "@" + address.domain
    return [form for kind, form in forms(address) if kind in allowed][-1]


@dataclass(frozen=True, eq=False)
class SiteKey:
    """The site's secret: one or more 32-octet keys, newest first. New rows use the first; lookups try all.

    `number` of a key is its place counted from the oldest, starting at 1, so that it stays when a key is added.
    """

    keys: tuple[bytes, ...] = field(repr=False)
    hashers: tuple[hashlib.blake2b, ...] = field(init=False, repr=False, compare=False)
    _who: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.keys or any(len(k) != 32 for k in self.keys):
            raise ValueError("a site key is one or more keys of 32 octets")
        hashers = tuple(hashlib.blake2b(key=k, digest_size=KEY_OCTETS) for k in self.keys)
        object.__setattr__(self, "hashers", hashers)
        object.__setattr__(self, "_who", self.derive(b"who"))

    def __repr__(self) -> str:
        return f"SiteKey({len(self.keys)} keys)"

    def address_key(self, form: str) -> bytes:
        """16 octets: the key under which `form` is written."""
        return self._digest(self.hashers[0], form)

    def address_keys(self, form: str) -> list[bytes]:
        """The keys under which `form` may have been written, newest site key first."""
        return [self._digest(h, form) for h in self.hashers]

    @staticmethod
    def _digest(hasher: hashlib.blake2b, form: str) -> bytes:
        copy = hasher.copy()  # 0.3 us cheaper than keying a new one for every recipient
        copy.update(form.encode("utf-8", "surrogateescape"))
        return copy.digest()

    def derive(self, purpose: bytes, *, number: int = 1) -> bytes:
        """A 32-octet key for another purpose. number 1, the oldest key, does not change when a key is added."""
        return hashlib.blake2b(purpose, key=self.keys[-number], digest_size=32).digest()

    def marks(self) -> list[bytes]:
        """16 octets a key, oldest first: each says of its key and all older ones that they are there, and tells nothing of them."""
        found = [self.derive(b"newest")[:16]]
        for number in range(2, len(self.keys) + 1):
            key = self.derive(b"newest", number=number)
            found.append(hashlib.blake2b(found[-1], key=key, digest_size=16).digest())
        return found

    def who(self, address: Address | str) -> Who:
        """What a log may say of an address: the same person has the same 12 hex digits, and nobody can undo them."""
        form = address if isinstance(address, str) else person(address, ("tag", "alias"))
        return Who(self._who_digest(self._digest(self.hashers[-1], form)), str(address))

    def who_has(self, key: bytes) -> Who:
        """The same of somebody of whom only the address key is known: a token named it."""
        return Who(self._who_digest(key), "")

    def _who_digest(self, key: bytes) -> str:
        return hashlib.blake2b(key, key=self._who, digest_size=6).hexdigest()


@dataclass(frozen=True, slots=True)
class Who:
    """A person in a log line: 12 hex digits. `plain` is only shown when `log.addresses = "plain"`."""

    digest: str
    plain: str = field(repr=False)


def keys_of(site_key: SiteKey, address: Address, hashes: Sequence[HashKind] = ()) -> Sequence[tuple[bytes, FormKind]]:
    """Every key that may suppress this address, narrow to wide: what a lookup asks for.

    `hashes`: the kinds of foreign hashes there are rows of (storage.hashes says which); their keys come last.
    """
    if hashes:
        return [*keys_of(site_key, address), *((key, "hash") for key in hash_keys(address, hashes))]
    local, domain = address.local, address.domain
    if "+" in local or domain in _ALIASES or not local or not local.isascii():
        return _keyed(site_key, forms(address))
    octets = f"{local.lower()}@{domain}".encode()
    found: list[tuple[bytes, FormKind]] = []
    for hasher in site_key.hashers:  # written out: this is asked for every recipient
        keyed = hasher.copy()
        keyed.update(octets)
        found.append((keyed.digest(), "exact"))
    found += _domain_keys(site_key, domain)
    return found


@lru_cache(maxsize=16384)
def _domain_keys(site_key: SiteKey, domain: str) -> Sequence[tuple[bytes, FormKind]]:
    """A campaign goes to few domains. The keys are remembered, never an answer."""
    return _keyed(site_key, _domains(domain))


def _keyed(site_key: SiteKey, named: Iterable[tuple[FormKind, str]]) -> list[tuple[bytes, FormKind]]:
    return [(site_key._digest(hasher, form), kind) for kind, form in named for hasher in site_key.hashers]


# ------------------------------------------------------------------ hashes that others made


def hash_key(digest: bytes) -> bytes:
    """The key under which somebody stands of whom a list has only this digest: its first 16 octets."""
    return digest[:KEY_OCTETS]


def as_written(address: Address) -> list[str]:
    """How a list may have this very address, in small letters.

    A name in another script has two spellings on the way: mail has the A-labels, the list was made of either.
    """
    spelt = [str(address).lower()]
    if "xn--" in address.domain:
        with suppress(idna.IDNAError, UnicodeError):  # A-labels that stand for nothing have the one spelling
            spelt.append(f"{spelt[0].rpartition('@')[0]}@{idna.decode(address.domain)}".lower())
    return spelt


def hash_keys(address: Address, kinds: Sequence[HashKind]) -> list[bytes]:
    """The keys of this address in lists of such hashes: of the address as written, in small letters."""
    if address.is_domain:
        return []
    octets = [text.encode("utf-8", "surrogateescape") for text in as_written(address)]
    return [hash_key(hashlib.new(kind, o, usedforsecurity=False).digest()) for kind in kinds for o in octets]
