"""A request that is sent again, because its answer got lost, is not carried out twice.

`Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): what came of it is noted in the transaction of what it did,
so the two are there together or not at all. The same request again is answered from that note; another one with the same
key is refused; so is the same while the first is under way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Final

from fastapi import Header
from pydantic import BaseModel, Field
from starlette.requests import Request

from daemon.web.api.callers import actor_of, program_of
from daemon.web.api.problems import Wrong
from daemon.web.context import context_of, workers_of
from storage import answers
from storage.answers import AnotherRequest, Answer, Once
from storage.write import Write, write

Key = Annotated[
    Annotated[str, Field(pattern=r"^[!-~]([ -~]{0,253}[!-~])?$")] | None,
    Header(
        alias="Idempotency-Key",
        description="Yours for this request: sent again with the same key it is not carried out twice, for a day.",
        examples=["8e03978e-40d5-43e8-bc93-6894a57f9324"],
    ),
]
_TWICE: Final = "This Idempotency-Key was given before, with another request."
_UNDER_WAY: Final = "The request with this Idempotency-Key is still under way: ask again later."


async def committed(request: Request, key: str | None, body: BaseModel, act: Callable[[Write], Answer]) -> Answer:
    """What comes, or came, of a request that changes something. Raises Wrong, and as `Workers.write`, and what `act` does."""
    context, actor = context_of(request), actor_of(request)
    once = _once(request, key, body) if key is not None else None

    def work() -> Answer:
        with write(context.ledger, context.now(), actor) as w:
            return act(w) if once is None else _carried_out(w, once, act)

    with _alone(request, once):
        try:
            return await workers_of(request).write(work)
        except AnotherRequest:
            raise Wrong(_TWICE) from None


def _once(request: Request, key: str, body: BaseModel) -> Once:
    asked = (request.method, request.scope["path"], body.model_dump_json())
    return answers.once(context_of(request).ledger.site_key, (program_of(request).name, key), asked)


def _carried_out(w: Write, once: Once, act: Callable[[Write], Answer]) -> Answer:
    earlier = answers.given(w.db, once)
    if earlier is not None:
        return earlier
    answer = act(w)
    answers.keep(w, once, answer)
    return answer


@contextmanager
def _alone(request: Request, once: Once | None) -> Iterator[None]:
    """On another node the same request waits for the database, and then finds the note."""
    if once is None:
        yield
        return
    under_way: set[bytes] = request.app.state.under_way
    if once.key in under_way:
        raise Wrong(_UNDER_WAY, status=409)
    under_way.add(once.key)
    try:
        yield
    finally:
        under_way.discard(once.key)
