"""The way in, for every operation: first who calls, then what came with it, in bounds and as JSON (RFC 8259)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from daemon.values import Right
from daemon.web.api import callers

MAX_BODY: Final = 1 << 20  # octets; 10,000 addresses are 300,000
BODY_SECONDS: Final = 20.0
_TOKEN: Final = "token"  # noqa: S105 - the name of the security scheme in the description

SCHEMES: Final = {
    _TOKEN: {
        "type": "http",
        "scheme": "bearer",
        "description": "A token of the config ([[web.token]]). Its rights are named with each operation.",
    }
}


def takes(right: Right) -> dict[str, Any]:
    """For the description of an operation, from which `Guarded` reads it: what right the token must have."""
    return {"security": [{_TOKEN: [right]}]}


class Guarded(APIRoute):
    """An operation that is for programs with the right that `takes` names."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers: nothing of the body is read before it is known who sends it."""
        answer = super().get_route_handler()
        (right,) = (self.openapi_extra or {})["security"][0][_TOKEN]

        async def guarded(request: Request) -> Response:
            program = callers.let_in(request, right)
            with callers.a_turn(request, program):
                if self.body_field is not None:
                    _refuse_other_types(request)
                return await answer(_Strict(request.scope, request.receive))

        return guarded


def _refuse_other_types(request: Request) -> None:
    """Raises HTTPException (415)."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, "Send JSON: Content-Type: application/json", {"Accept": "application/json"})


class _Strict(Request):
    """A request whose body is read up to a size and for a while, and is JSON with nothing beside RFC 8259."""

    async def body(self) -> bytes:
        """Its octets. Raises HTTPException: 408, 413."""
        if not hasattr(self, "_body"):
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    self._body = await self._read()
            except TimeoutError:
                raise HTTPException(408) from None
        return self._body

    async def _read(self) -> bytes:
        stated = self.headers.get("content-length", "0")
        if not stated.isdecimal() or len(stated) > 12 or int(stated) > MAX_BODY:
            raise HTTPException(413, f"At most {MAX_BODY:,} octets are read.")
        pieces, length = [], 0
        async for piece in self.stream():
            pieces.append(piece)
            length += len(piece)
            if length > MAX_BODY:
                raise HTTPException(413, f"At most {MAX_BODY:,} octets are read.")
        return b"".join(pieces)

    async def json(self) -> Any:
        """What it says: no NaN, no half surrogates, no endless depth. Raises json.JSONDecodeError, which becomes 422."""
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as why:
            raise json.JSONDecodeError(f"no JSON: {why}", "", 0) from None
