"""The items of the one array in a JSON document that may be larger than memory; and JSON Lines."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Final, NamedTuple

from daemon.exchange import words
from daemon.exchange.reading import LONGEST, batches

_DEPTH: Final = 20
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_TOKEN: Final = re.compile(r'["\[\]{},]')
_IN_STRING: Final = re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
# What the array of rows is called, normalised: SES, Mailgun, Postmark, Mailchimp, SparkPost and listmonk, others.
ARRAYS: Final = frozenset(
    "suppresseddestinationsummaries items suppressions members results recipients subscribers".split()
)
_NESTS: Final = ("data",)  # where some services wrap what they answer


class Item(NamedTuple):
    """`number`: of the item, from 1 (JSON Lines: of the line). `raw`: its beginning (JSON Lines: all of it, with its end).
    `value`: dict, str...; None where it cannot be read, and `why` says why."""

    number: int
    raw: str
    value: object
    why: str = ""


class NoArray(ValueError):
    """The document has no array that we know of."""


def _decoder() -> json.JSONDecoder:
    """Numbers stay text: what is one is for the dialect to say, and a million digits are no reason to stop."""
    return json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)


_decode: Final = _decoder().raw_decode


def lines(pieces: Iterable[str], start: int = 0) -> Iterator[Item]:
    """JSON Lines: every line, blank ones (value None, why "") included."""
    number = start
    for batch in batches(pieces):
        for raw in batch.lines:
            number += 1
            if not batch.fits:
                yield Item(number, raw, None, "the line is too long")
                continue
            text = raw.strip()
            if not text:
                yield Item(number, raw, None)
                continue
            try:
                value, end = _decode(text)
            except (ValueError, RecursionError) as why:
                yield Item(number, raw, None, _sentence(why))
                continue
            yield Item(number, raw, value, "" if end == len(text) else "there is something behind the JSON value")


def _sentence(why: Exception) -> str:
    return f"not JSON: {why.msg}" if isinstance(why, json.JSONDecodeError) else "not JSON: nested too deeply"


def items(pieces: Iterable[str], arrays: Collection[str]) -> Iterator[Item]:
    """The items of the array under one of these (normalised) names, or of the document if that is one.

    Several documents after each other (pages of an API) are read as one. An item of over 1 MiB is a bad one. Raises
    NoArray if the first document has none.
    """
    walk = _Walk(pieces)
    number, documents = 0, 0
    while walk.next():
        if not walk.enter(arrays):
            if not documents:
                raise NoArray
            yield Item(number + 1, walk.text[walk.at : walk.at + 500], None, "something else follows the list")
            return
        for item in walk.array(number):
            number = item.number
            yield item
        if not walk.leave():
            yield Item(number + 1, walk.text[walk.at : walk.at + 500], None, "the file ends or goes wrong here")
            return
        documents += 1


def is_lines(head: str) -> bool:
    """Is a text that begins so JSON Lines: an object in the first line, with no array of rows in it?"""
    start = head.lstrip()
    if not start.startswith("{"):
        return False
    first = next(lines([start]))
    if not isinstance(first.value, dict) or first.why:
        return False
    try:
        next(items([start], ARRAYS), None)
    except (NoArray, ValueError):
        return True
    return False


class _Walk:
    """A place in the text: `text[at:]` is what was read and not yet dealt with."""

    def __init__(self, pieces: Iterable[str]):
        self._pieces = iter(pieces)
        self.text, self.at = "", 0
        self._open: list[str] = []

    def more(self) -> bool:
        """Read on; False at the end of the file."""
        piece = next(self._pieces, "")
        self.text, self.at = self.text[self.at :] + piece, 0
        return bool(piece)

    def next(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            match = _SPACE.match(self.text, self.at)
            assert match is not None
            self.at = match.end()
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def value(self) -> tuple[object, str]:
        """Read one value: (value, raw). Raises ValueError if it is none or too large, and stays before it."""
        while True:
            try:
                found, end = _decode(self.text, self.at)
            except RecursionError:
                raise ValueError("nested too deeply") from None
            except json.JSONDecodeError as why:
                if not self._goes_on(why):
                    raise ValueError(_sentence(why)) from None
                continue
            if end == len(self.text) and not isinstance(found, dict | list) and self.more():
                continue  # a number may go on in the next piece
            raw, self.at = self.text[self.at : end], end
            return found, raw

    def _goes_on(self, why: json.JSONDecodeError) -> bool:
        """Was the value only cut off? Then more of it was read: twice as much each time, or it would be tried too often."""
        size = len(self.text) - self.at
        if why.pos < len(self.text) - 16 and not why.msg.startswith("Unterminated string"):
            return False
        if size > LONGEST:
            raise ValueError("too large for one item")
        if not self.more():
            return False
        while len(self.text) < min(2 * size, LONGEST) and self.more():
            pass
        return True

    def enter(self, arrays: Collection[str]) -> bool:
        """Go into the array; False if there is none."""
        if self.next() == "[":
            self.at += 1
            self._open.append("[")
            return True
        if self.next() != "{":
            return False
        self.at += 1
        self._open.append("{")
        while self.next() == '"':
            key, _ = self.value()
            if self.next() != ":":
                return False
            self.at += 1
            one = words.name(str(key))
            if (one in arrays and self.next() == "[") or (one in _NESTS and self.next() in ("{", "[")):
                return len(self._open) < _DEPTH and self.enter(arrays)
            self.value()
            if self.next() == ",":
                self.at += 1
        return False

    def array(self, number: int) -> Iterator[Item]:
        """The items up to the closing bracket, or as far as it can be read."""
        while (char := self.next()) not in ("]", ""):
            if char == ",":
                self.at += 1
                continue
            number += 1
            try:
                value, raw = self.value()
            except ValueError as why:
                text, begin = self.text, self.at
                self._skip()
                end = self.at if self.text is text else len(text)
                yield Item(number, text[begin : min(end, begin + 500)], None, str(why))
            else:
                yield Item(number, raw[:500], value)

    def _skip(self) -> None:
        """To the comma or bracket behind an item that cannot be read, brackets and strings within it counted."""
        depth = 0
        while True:
            match = _TOKEN.search(self.text, self.at)
            if match is None:
                self.at = len(self.text)
                if not self.more():
                    return
                continue
            char = match[0]
            if depth == 0 and char in ",]":
                self.at = match.start()
                return
            self.at = match.end()
            if char == '"':
                self._skip_string()
            elif char in "[{":
                depth += 1
            elif char != ",":
                depth = max(depth - 1, 0)

    def _skip_string(self) -> None:
        """Behind the quotation mark that ends the string we are in."""
        while True:
            match = _IN_STRING.match(self.text, self.at)
            assert match is not None
            self.at = match.end()
            if self.text[self.at : self.at + 1] == '"':
                self.at += 1
                return
            if not self.more():  # what is left is nothing, or half of an escape
                self.at = len(self.text)
                return

    def leave(self) -> bool:
        """Out of the array and of what it is in; False if the text ends or goes wrong before that."""
        while self._open:
            closing = {"[": "]", "{": "}"}[self._open[-1]]
            char = self.next()
            if char == closing:
                self.at += 1
                self._open.pop()
            elif char == "," and closing == "}":
                self.at += 1
                try:
                    self.next()
                    self.value()
                    if self.next() != ":":
                        return False
                    self.at += 1
                    self.next()
                    self.value()
                except ValueError:
                    return False
            else:
                return False
        return True
