"""password: the hash of a password, for the file of an operator."""

from __future__ import annotations

import getpass
import sys

import typer

from daemon.cli.common import DATAERR, Stop, note

_SHORTEST = 8  # characters (NIST SP 800-63B 3.1.1.2)
_LONGEST = 1024


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(password)


def password() -> None:
    """Make the hash of an operator's password.

    Asks twice on a terminal; elsewhere the password is the one line of stdin. Its argon2id hash goes to stdout, and is
    all that the operator's password_file needs to have:

    (umask 077; optoutd password > admin-password)

    Nothing else is read or written. The daemon takes the new password up when it is reloaded, and who came in by the
    old one has to log in again.
    """
    given = _asked() if sys.stdin.isatty() else _piped(sys.stdin.buffer.read(4 * _LONGEST + 2))
    if len(given) < _SHORTEST:
        raise Stop(
            f"a password must have at least {_SHORTEST} characters; a few words in a row are a good one", DATAERR
        )
    if len(given) > _LONGEST:
        raise Stop(f"a password can have at most {_LONGEST} characters", DATAERR)
    from unicodedata import normalize

    from argon2 import PasswordHasher

    typer.echo(PasswordHasher().hash(normalize("NFC", given)))
    if sys.stdout.isatty():
        note("put this line into the password_file of the operator, and reload the daemon")


def _asked() -> str:
    """Typed twice, unseen. Raises Stop."""
    try:
        given = getpass.getpass("Password: ")
        if getpass.getpass("The same again: ") != given:
            raise Stop("the two are not the same; nothing was made", DATAERR)
    except EOFError:
        raise Stop("no password was typed; nothing was made", DATAERR) from None
    return given


def _piped(octets: bytes) -> str:
    """The one line of stdin. Raises Stop."""
    try:
        line = octets.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise Stop("the password on stdin is not UTF-8", DATAERR) from None
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in line):
        raise Stop("the password on stdin must be one line of plain text", DATAERR)
    return line
