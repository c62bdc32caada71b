"""A change is POSTed, and whether the receiver has it now: what its answer means, in words for the operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from daemon import posting
from daemon.posting import NoAnswer

__all__ = ["Answer", "Line", "NoAnswer"]

SECONDS: Final = 10.0  # for connecting, sending, and the response up to the end of its header
_REST_SECONDS: Final = 1.0  # for the rest of it: it is not listened to, but its connection can be used again
_WORDS: Final = {
    HTTPStatus.GONE: "the receiver says that it is gone for good: take the hook out of the config, or mend its url",
    HTTPStatus.UNAUTHORIZED: "the receiver did not accept the signature, or wants a log-in",
    HTTPStatus.FORBIDDEN: "the receiver did not accept the signature, or wants a log-in",
    HTTPStatus.NOT_FOUND: "the receiver knows nothing at this url",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """`trouble`: "" if the receiver has it, else why not."""

    status: int
    trouble: str


class Line(posting.Line):
    """To one receiver."""

    def post(self, body: bytes, fields: Mapping[str, str]) -> Answer:
        """Send this. Raises NoAnswer."""
        status = self.send(body, {"Content-Type": "application/json", **fields}, SECONDS, _REST_SECONDS).status
        return Answer(status, "" if 200 <= status < 300 else _trouble(status))


def _trouble(status: int) -> str:
    if 300 <= status < 400:
        return f"HTTP {status}: the receiver redirects, which is not followed: name the new place in the config"
    known = _WORDS.get(HTTPStatus(status)) if status in HTTPStatus._value2member_map_ else None
    return f"HTTP {status}: {known}" if known else f"HTTP {status}"
