"""How the ledger stands, in numbers; and that we are there."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

import daemon
from daemon import telling
from daemon.web.api import models
from daemon.web.api.answering import answer, looked_up, told
from daemon.web.api.guarding import Guarded, takes
from daemon.web.api.problems import may_come
from storage import refusals

ROUTER: Final = APIRouter(route_class=Guarded)
OPEN: Final = APIRouter()  # for whoever can reach the door
FRESH_SECONDS: Final = 30.0  # counting ten million rows takes some


@dataclass
class Counted:
    """The numbers as they were counted last. One who asks counts, and the others wait for that."""

    octets: bytes = b""
    until: float = 0.0
    counting: asyncio.Lock = field(default_factory=asyncio.Lock)


@ROUTER.get(
    "/stats",
    operation_id="stats",
    summary="The ledger in numbers",
    response_model=models.Stats,
    responses=may_come(401, 403, 429, 503),
    openapi_extra=takes("check"),
)
async def stats(request: Request) -> Response:
    """How many are on the list, what came in, and what the relay did."""
    counted: Counted = request.app.state.counted
    async with counted.counting:
        if time.monotonic() >= counted.until:
            response = await looked_up(
                request,
                lambda db, numbers: telling.overview(
                    refusals.overview(db), next(refusals.report(db, None, None)).counts, numbers
                ),
            )
            counted.octets, counted.until = bytes(response.body), time.monotonic() + FRESH_SECONDS
        return answer(counted.octets)


@OPEN.get("/health", operation_id="health", summary="Are you there?", response_model=models.Health)
async def health() -> Response:
    """No token is asked for."""
    return told({"status": "ok", "version": daemon.__version__})
