"""Messages as files: one .eml, a directory of them, a Maildir, an mbox, or what comes on stdin."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

_FROM_LINE: Final = re.compile(rb"From \S+ .*\d\d:\d\d.*\d{4}")


class CannotOpen(Exception):
    """A PATH cannot be opened."""


def messages(path: str, note: Callable[[str], object], *, deep: bool = False) -> Iterator[tuple[str, bytes]]:
    """(name, octets) of every message at `path` ("-": stdin). Raises CannotOpen where it cannot be opened itself.

    `note`: told of a file inside a directory that cannot be read; it counts as an empty message. `deep`: directories
    inside a directory too, Maildirs and mboxes among them.
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
        files = [f for f in Path(path).rglob("*") if f.is_file()] if Path(path).is_dir() else [Path(path)]
        return sum(_count(file) for file in files)
    except (OSError, ValueError):
        return 0


def _count(file: Path) -> int:
    with file.open("rb") as lines:
        if lines.read(5) != b"From ":
            return 1
        return 1 + sum(line.startswith(b"From ") for line in lines)


def _tree(here: Path, note: Callable[[str], object]) -> Iterator[tuple[str, bytes]]:
    for file in sorted(f for f in here.rglob("*") if f.is_file() and f.parent.name != "tmp"):
        try:
            with file.open("rb") as opened:
                yield from _split(opened, str(file))
        except OSError as why:
            note(f"optoutd: {file}: {why.strerror}")


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
