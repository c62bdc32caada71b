"""What the MAIL and RCPT commands say (RFC 5321 4.1.1.2-3, 1870, 6152, 6531, 3461), read without changing an octet.

aiosmtpd rewrites addresses, upper-cases parameters and knows no DSN; this is what replaces its parsers. Everything is
pure and linear in the length of the line. A problem is a Syntax exception that carries the whole reply.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from storage.address import Address, NotAnAddress, parse

# The path between the brackets, quoted strings taken whole; or, as many clients write it, without brackets.
_PATH: Final = re.compile(r'\s*(?:<((?:"(?:[^"\\]|\\.)*"|[^<>"\s])*)>|([^<>"\s]+))(?:\s+(.*))?\Z', re.DOTALL)
# What nearly every RCPT is: nothing quoted, no route, no parameters, ASCII. Half the time of the general way.
_USUAL: Final = re.compile(
    r'(?i:TO):<(([^\x00-\x20\x7f-\U0010ffff"<>()\[\]\\,;:@]{1,64})@([A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63}){1,8}))>\Z'
)
_USUAL_MAIL: Final = re.compile(
    r'(?i:FROM):<([^\x00-\x20\x7f-\U0010ffff"<>()\[\]\\,;:@]{1,64}@[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63}){1,8})>(?: SIZE=([0-9]{1,20}))?\Z'
)
_ROUTE: Final = re.compile(r"@[^:\s]*:")
_XTEXT: Final = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*\Z")
_NOTIFY: Final = re.compile(r"(?ai:NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY)){0,2})\Z")


class Syntax(Exception):
    """The command cannot be taken; str() is the whole SMTP reply."""


@dataclass(frozen=True, slots=True)
class Mail:
    """A MAIL command. `path` as written ("" for the null sender), `parameters` octet for octet, `size` 0 if not given."""

    path: str
    parameters: tuple[str, ...]
    size: int
    smtputf8: bool
    needs: frozenset[str]  # extensions the upstream must have

    def command(self, grown: int, offered: dict[str, str]) -> bytes:
        """The command for the upstream; `grown`: by how many octets we make the message longer."""
        parts = [f"MAIL FROM:<{self.path}>", *self.parameters]
        if self.size and "SIZE" in offered:
            parts.append(f"SIZE={self.size + grown}")
        return _octets(parts)


class Rcpt(NamedTuple):
    """A RCPT command. `path` as written, `address` parsed."""

    path: str
    address: Address
    parameters: tuple[str, ...]

    @property
    def command(self) -> bytes:
        """The command for the upstream."""
        return _octets([f"RCPT TO:<{self.path}>", *self.parameters])


def _octets(parts: list[str]) -> bytes:
    return " ".join(parts).encode("utf-8", "surrogateescape") + b"\r\n"


def mail(argument: str, offered: dict[str, str], max_size: int) -> Mail:
    """Read the argument of MAIL. `offered`: our EHLO keywords. Raises Syntax."""
    usual = _USUAL_MAIL.match(argument)
    if usual and len(usual[1]) <= 254:
        return _sized(Mail(usual[1], (), int(usual[2] or 0), False, frozenset()), max_size)
    path, words = _split("FROM:", argument)
    size, smtputf8, passed, needs = 0, False, [], set[str]()
    for word in words:
        keyword, _, value = word.partition("=")
        match keyword.upper() if word.isascii() else "":  # "\u017f".upper() is an S, and it would go out as it came
            case "SIZE" if value.isascii() and value.isdigit() and len(value) <= 20:
                size = int(value)
            case "BODY" if "8BITMIME" in offered and value.upper() in ("7BIT", "8BITMIME"):
                passed.append(word)
                needs.add("8BITMIME")
            case "SMTPUTF8" if not value:
                smtputf8 = True
            case "RET" if "DSN" in offered and value.upper() in ("FULL", "HDRS"):
                passed.append(word)
                needs.add("DSN")
            case "ENVID" if "DSN" in offered and value and len(value) <= 100 and _XTEXT.match(value):
                passed.append(word)
                needs.add("DSN")
            case "AUTH" if value == "<>" or (value and _XTEXT.match(value)):
                pass  # RFC 4954 5: we vouch for nobody, so it is not passed on; Postfix says `AUTH=<>` wherever AUTH is offered
            case "SIZE" | "BODY" | "SMTPUTF8" | "RET" | "ENVID" | "AUTH":
                raise Syntax(f"501 5.5.4 bad or unsupported parameter {_shown(keyword)}")
            case _:
                raise Syntax(f"555 5.5.4 parameter not supported: {_shown(keyword)}")
    if smtputf8 or not path.isascii():
        _check_utf8(path, smtputf8, offered)
        passed.append("SMTPUTF8")
        needs.add("SMTPUTF8")
    if path and _address(path, "501 5.1.7").is_domain:
        raise Syntax("501 5.1.7 a sender needs a part before the @")
    return _sized(Mail(path, tuple(passed), size, smtputf8, frozenset(needs)), max_size)


def _sized(read: Mail, max_size: int) -> Mail:
    if read.size > max_size:
        raise Syntax("552 5.3.4 message is larger than this server takes")
    return read


def rcpt(argument: str, offered: dict[str, str], smtputf8: bool) -> Rcpt:
    """Read the argument of RCPT. Raises Syntax."""
    usual = _USUAL.match(argument)
    if usual and len(usual[3]) <= 253:
        return Rcpt(usual[1], Address(usual[2], usual[3].lower()), ())
    path, words = _split("TO:", argument)
    for word in words:
        keyword, _, value = word.partition("=")
        good = (keyword.upper() == "NOTIFY" and _NOTIFY.match(value)) or (
            keyword.upper() == "ORCPT" and ";" in value and len(value) <= 500 and value.isprintable()
        )
        good = good and (value.isascii() or smtputf8)  # RFC 6533 3: an original recipient may be UTF-8
        if not keyword.isascii() or keyword.upper() not in ("NOTIFY", "ORCPT") or "DSN" not in offered:
            raise Syntax(f"555 5.5.4 parameter not supported: {_shown(keyword)}")
        if not good:
            raise Syntax(f"501 5.5.4 bad parameter {_shown(keyword)}")
    if not path.isascii():
        _check_utf8(path, smtputf8, offered)
    address = _address(path, "501 5.1.3")
    if address.is_domain:
        raise Syntax("501 5.1.3 a recipient needs a part before the @")
    return Rcpt(path, address, tuple(words))


def _split(keyword: str, argument: str) -> tuple[str, list[str]]:
    """`FROM:<a@b> X=y` -> (`a@b`, [`X=y`]). Source routes (RFC 5321 F.2) are left out, as that section asks."""
    found = _PATH.match(argument, len(keyword)) if argument[: len(keyword)].upper() == keyword else None
    if not found:
        raise Syntax(f"501 5.5.4 syntax: {'MAIL' if keyword == 'FROM:' else 'RCPT'} {keyword}<address>")
    path = found[1] if found[1] is not None else found[2]
    route = _ROUTE.match(path)
    if route and route.end() == len(path):
        raise Syntax("501 5.5.4 a route without an address")  # or a sender would become the null sender
    return path[route.end() :] if route else path, (found[3] or "").split()


def _address(path: str, code: str) -> Address:
    try:
        return parse(path)
    except NotAnAddress as problem:
        raise Syntax(f"{code} bad address: {problem}") from None


def _check_utf8(path: str, announced: bool, offered: dict[str, str]) -> None:
    """RFC 6531 3.4: an address that is not ASCII needs SMTPUTF8 on MAIL, and somebody upstream who takes it."""
    if any("\udc80" <= c <= "\udcff" for c in path):
        raise Syntax("501 5.1.3 the address is not valid UTF-8")
    if "SMTPUTF8" not in offered:
        raise Syntax("553 5.6.7 the next mail server does not take SMTPUTF8")
    if not announced:
        raise Syntax("553 5.6.7 an address that is not ASCII needs SMTPUTF8 on MAIL")


def _shown(keyword: str) -> str:
    return keyword[:30] if keyword.isascii() and keyword.isprintable() else "(not ASCII)"
