"""A program that calls the API with a token of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, get_args
from urllib.parse import quote

from daemon.values import Right
from daemon.web.context import Holder
from tests.ledgers import Books
from tests.web.support import Door, door, whole

TOKEN: Final = "all-rights-all-rights"
MAY_ALL: Final = Holder("crm", TOKEN, frozenset(get_args(Right)))
API: Final = "/api/v1"
PROBLEM: Final = "application/problem+json"


@dataclass(frozen=True)
class Told:
    """An answer: its status, its header fields (names in small letters), and its JSON."""

    status: int
    headers: dict[str, str]
    fact: Any

    @property
    def is_problem(self) -> bool:
        """RFC 9457, and about what its status says?"""
        return self.headers["content-type"] == PROBLEM and bool(self.fact["status"] == self.status)

    @property
    def wrong(self) -> list[str]:
        """Which parts of the request it says were wrong."""
        return [e.get("pointer", e.get("parameter", "")) for e in self.fact.get("errors", ())]


@dataclass(frozen=True)
class Program:
    """The client. `token`: "" for none."""

    web: Door
    token: str = TOKEN

    def ask(self, method: str, path: str, *headers: str, body: bytes = b"") -> Told:
        """One request below /api/v1."""
        known = [f"Authorization: Bearer {self.token}"] if self.token else []
        answer = self.web.ask(method, API + path, *known, *headers, body=body)
        return Told(answer.status, answer.headers, json.loads(answer.body) if answer.body else None)

    def get(self, path: str) -> Told:
        """Ask."""
        return self.ask("GET", path)

    def post(self, path: str, fact: Any, *headers: str) -> Told:
        """Send JSON."""
        return self.ask("POST", path, "Content-Type: application/json", *headers, body=json.dumps(fact).encode())

    def check(self, *addresses: str, list_id: str | None = None) -> list[Any]:
        """What /check says of each."""
        told = self.post("/check", {"addresses": addresses, "list": list_id})
        assert told.status == 200, told
        results: list[Any] = told.fact["results"]
        return results

    def show(self, address: str) -> Told:
        """A person's story."""
        return self.get(f"/suppressions/{quote(address, safe='@+')}")


@contextmanager
def called(books: Books, *holders: Holder, **other: Any) -> Iterator[Program]:
    """A door with the API, and a program that may do all."""
    with door(books, whole(books, programs=(*holders, MAY_ALL), **other)) as web:
        yield Program(web)
