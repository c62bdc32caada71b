"""Who a client says it is: the AUTH exchange (RFC 4954) with PLAIN (RFC 4616) and LOGIN, without I/O.

LOGIN has no RFC, only an expired draft; it is here because many marketing tools know nothing else. Nothing is checked
here but the form: what comes out is a claim, and access.Credentials says whether it is true.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

MAX_LINE: Final = 12_288  # octets of a client's line without its end: what RFC 4954 4 finds sufficient
MECHANISMS: Final = "PLAIN LOGIN"  # the value of the EHLO keyword AUTH
INVALID: Final = "535 5.7.8 authentication credentials invalid"  # one text for all reasons: none of them is told

# Clients compare these two, whatever the draft says of "User Name".
_USERNAME: Final = "VXNlcm5hbWU6"  # Username:
_SECOND_PROMPT: Final = "UGFzc3dvcmQ6"  # "Password:" in base64


@dataclass(frozen=True, slots=True)
class Challenge:
    """Go on with `334 text`; the text is base64 already, or empty."""

    text: str


@dataclass(frozen=True, slots=True)
class Proof:
    """What the client claims: checked by nobody yet. repr() shows neither; a user name is often an address."""

    username: str = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Failed:
    """The exchange is over without a claim. `reply` is the whole SMTP reply."""

    reply: str


Step = Challenge | Proof | Failed

_CANCELLED: Final = Failed("501 5.5.2 authentication cancelled")
_NOT_BASE64: Final = Failed("501 5.5.2 cannot decode the base64 of the response")
_MALFORMED: Final = Failed("501 5.5.2 malformed response for this mechanism")
_SYNTAX: Final = Failed("501 5.5.4 syntax: AUTH mechanism [initial-response]")
_UNKNOWN: Final = Failed("504 5.5.4 unknown authentication mechanism")
_TOO_LONG: Final = Failed("500 5.5.6 authentication exchange line is too long")


class Exchange:
    """One AUTH command and the lines that follow it. `begin` once, then `more` as long as a Challenge comes back."""

    def __init__(self) -> None:
        self._next: Callable[[str], Step] | None = None  # takes the next response, decoded
        self._username = ""

    def begin(self, argument: str) -> Step:
        """The argument of AUTH: a mechanism, and maybe an initial response, of which `=` is an empty one."""
        mechanism, _, response = argument.strip(" ").partition(" ")
        if len(argument) > MAX_LINE:
            return _TOO_LONG
        match mechanism.upper() if mechanism.isascii() else "?":  # "LOG\u0131N".upper() would be LOGIN
            case "PLAIN":
                self._next, challenge = self._plain, ""
            case "LOGIN":
                self._next, challenge = self._login_username, _USERNAME
            case "":
                return _SYNTAX
            case _:
                return _UNKNOWN
        if not response:
            return Challenge(challenge)
        response = response.lstrip(" ")
        return self._take("" if response == "=" else response)

    def more(self, line: bytes) -> Step:
        """The client's next line, with or without its line end; `*` cancels."""
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        if len(line) > MAX_LINE:
            return self._over(_TOO_LONG)
        return self._over(_CANCELLED) if line == b"*" else self._take(line)

    def _take(self, response: str | bytes) -> Step:
        assert self._next is not None, "no exchange is under way"
        try:
            octets = b64decode(response, validate=True)
        except ValueError:  # binascii.Error, or a str that is not ASCII
            return self._over(_NOT_BASE64)
        try:
            step = self._next(octets.decode())
        except UnicodeDecodeError:
            return self._over(_MALFORMED)
        return step if isinstance(step, Challenge) else self._over(step)

    def _over(self, step: Step) -> Step:
        self._next, self._username = None, ""
        return step

    def _plain(self, message: str) -> Step:
        """RFC 4616 2: authzid NUL authcid NUL password.

        Nobody may act for somebody else here, so an authzid must be empty or the authcid itself. Another one is answered
        like a wrong password and before the password is looked at: it must not tell whether that was right.
        """
        authzid, *rest = message.split("\0")
        if len(rest) != 2 or not rest[0]:
            return _MALFORMED
        if authzid not in ("", rest[0]):
            return Failed(INVALID)
        return Proof(*rest)

    def _login_username(self, username: str) -> Step:
        if not username or "\0" in username:
            return _MALFORMED
        self._username, self._next = username, self._login_password
        return Challenge(_SECOND_PROMPT)

    def _login_password(self, password: str) -> Step:
        """An empty password is no broken line but a wrong password; so it is in PLAIN, though RFC 4616 wants one."""
        return _MALFORMED if "\0" in password else Proof(self._username, password)
