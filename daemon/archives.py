"""Messages as files: one .eml, a directory of them, a Maildir, an mbox, or what comes on stdin."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

_FROM_LINE: Final = re.compile(rb"From \S+ .*\d\d:\d\d.*\d{4}")
# How a message begins (RFC 5322 2.2): fields, one of which every message has that went through a mail system.
_FIRST_FIELD: Final = re.compile(rb"(?:From |[!-9;-~]+[ \t]*:)")
_MAIL_FIELD: Final = re.compile(rb"^(?:from|received|message-id|return-path)[ \t]*:", re.IGNORECASE | re.MULTILINE)
_HEAD: Final = 16_384  # octets of a file by which we tell whether it is mail


class CannotOpen(Exception):
    """A PATH cannot be opened."""


def messages(path: str, note: Callable[[str], object], *, deep: bool = False) -> Iterator[tuple[str, bytes]]:
    """(name, octets) of every message at `path` ("-": stdin). Raises CannotOpen where it cannot be opened itself.

    `note`: told of a file inside a directory that cannot be read; it counts as an empty message. `deep`: directories
    inside a directory too, Maildirs and mboxes among them; files there that are no mail are left out, and `note` is
    told how many.
    """
    try:
        if path == "-":
            if sys.stdin is None:
                raise CannotOpen("stdin is closed")
            yield from _split(sys.stdin.buffer, path)
        elif not path:  # Path("") would be the current directory
            raise CannotOpen("No such file or directory")
        elif Path(path).is_dir():
            yield from _tree(Path(path), note) if deep else _directory(Path(path), note)
        else:
            with Path(path).open("rb") as file:
                yield from _split(file, path)
    except OSError as why:
        raise CannotOpen(why.strerror or str(why)) from None
    except ValueError as why:  # a NUL in the name
        raise CannotOpen(str(why)) from None


def count(path: str) -> int:
    """How many messages `messages(path, deep=True)` will give; 0 if that cannot be told beforehand."""
    try:
        if path == "-":
            return 0
        if not Path(path).is_dir():
            return _count(Path(path))
        return sum(_count(file) for file in _files(Path(path)) if _is_mail(file))
    except (OSError, ValueError):
        return 0


def _count(file: Path) -> int:
    with file.open("rb") as lines:
        if lines.read(5) != b"From ":
            return 1
        return 1 + sum(line.startswith(b"From ") for line in lines)


def _tree(here: Path, note: Callable[[str], object]) -> Iterator[tuple[str, bytes]]:
    others = 0
    for file in sorted(_files(here)):
        try:
            if not _is_mail(file):
                others += 1
                continue
            with file.open("rb") as opened:
                yield from _split(opened, str(file))
        except OSError as why:
            note(f"optoutd: {file}: {why.strerror}")
    if others:
        note(f"optoutd: {here}: {others} file(s) left out that are no mail")


def _files(here: Path) -> list[Path]:
    """All files below, but not what a Maildir is still being given."""
    return [f for f in here.rglob("*") if f.is_file() and f.parent.name != "tmp"]


def _is_mail(file: Path) -> bool:
    """A tree also holds indexes, notes, databases: words in those are nobody's request."""
    if file.suffix.lower() == ".eml" or file.parent.name in ("cur", "new"):
        return True
    with file.open("rb") as opened:
        head = opened.read(_HEAD)
    if b"\0" in head or not _FIRST_FIELD.match(head):
        return False
    fields = re.split(rb"\r?\n\r?\n", head, maxsplit=1)[0]
    return head.startswith(b"From ") or _MAIL_FIELD.search(fields) is not None


def _directory(here: Path, note: Callable[[str], object]) -> Iterator[tuple[str, bytes]]:
    """A Maildir if it has `cur` or `new`; else all files in it."""
    maildir = [here / sub for sub in ("cur", "new") if (here / sub).is_dir()]
    for file in sorted(f for d in maildir or [here] for f in d.iterdir() if f.is_file() or f.is_symlink()):
        yield str(file), _octets(file, note)


def _split(file: BinaryIO, name: str) -> Iterator[tuple[str, bytes]]:
    """An open file, which may be a pipe: one message, or the messages of an mbox."""
    start = file.read(5)
    if start != b"From ":
        yield name, start + file.read()
        return
    number, lines, after_blank = 1, list[bytes](), False
    file.readline()
    for line in file:
        if line.startswith(b"From ") and (after_blank or _FROM_LINE.match(line)):
            yield f"{name}#{number}", b"".join(lines)
            number += 1
            lines.clear()
        else:
            lines.append(line)
        after_blank = line in (b"\n", b"\r\n")
    yield f"{name}#{number}", b"".join(lines)


def _octets(file: Path, note: Callable[[str], object]) -> bytes:
    """A file in a directory that cannot be read is a message without content: it has its line all the same."""
    try:
        return file.read_bytes()
    except OSError as why:
        note(f"optoutd: {file}: {why.strerror}")
        return b""
