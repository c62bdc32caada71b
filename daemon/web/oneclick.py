"""One-click opt-out (RFC 8058): what stands behind the `https` link that the relay stamps.

    GET, HEAD   a page with buttons; changes nothing, for scanners follow every link in a mail
    POST        `List-Unsubscribe=One-Click`, from a mail program or from a button of the page: opts out
                `all=1` beside it: of everything, whatever list the link names

No cookie, no redirect, no log-in. Commit, then answer: 200 means that it is on disk, and says nothing of whether we know
the person, or knew of the wish before. The token is in the path, so no answer and no log line repeats a path.
"""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from daemon import events, metrics
from daemon.mail import tokens
from daemon.mail.tokens import Token
from daemon.web.context import Context
from daemon.web.pages import SECURITY, Page
from storage import suppressions
from storage.engine import Unavailable, Unusable
from storage.terms import ALL, Reason
from storage.write import write

METHODS: Final = ("GET", "HEAD", "POST", "OPTIONS")
MAX_BODY: Final = 4096  # octets; RFC 8058's are under 200
BODY_SECONDS: Final = 10.0
RETRY_AFTER: Final = {"Retry-After": "60"}  # seconds
_FIELD: Final = ("List-Unsubscribe", "One-Click")
_MAX_FIELDS: Final = 20
_BOUNDARY: Final = re.compile(r'\bboundary=(?:"([^"]{1,70})"|([^\s";,]{1,70}))', re.IGNORECASE)  # RFC 2046 5.1.1
_NAME: Final = re.compile(rb'^content-disposition:[^\n]*?[;\s]name="?([^"\n;]{1,40})', re.IGNORECASE | re.MULTILINE)


async def unsubscribe(request: Request) -> Response:
    """Answer whatever is asked of /u/TOKEN."""
    if request.method == "OPTIONS":
        return Response(status_code=204, headers={**SECURITY, "Allow": ", ".join(METHODS)})
    context: Context = request.app.state.context
    token = tokens.read(context.ledger.site_key, "link", request.path_params.get("token", ""))
    if token is None:
        return Page(request, "bad").paragraph("bad_text").way_out().answer(400)
    title = context.title(token.list_number)
    return await _post(request, token, title) if request.method == "POST" else _choice(request, title)


def _choice(request: Request, title: str | None) -> Response:
    """What may be left. `title`: of the list that the link names, if it names one that there is."""
    if title is None:
        page = Page(request, "title").paragraph("choose_all").button("leave_all", everything=True)
    else:
        page = Page(request, "title", list_title=title).paragraph("choose")
        page.button("leave_list", everything=False).button("leave_all", everything=True, second=True)
    return page.answer(200)


# ------------------------------------------------------------------ the POST


async def _post(request: Request, token: Token, title: str | None) -> Response:
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await _body(request)
    except (TimeoutError, ClientDisconnect):
        return _wrong(request, 408)
    if body is None:
        return _wrong(request, 413)
    given = fields(request.headers.get("content-type", ""), body)
    if given.get(_FIELD[0]) != _FIELD[1]:
        return _wrong(request, 400)
    everything = title is None or given.get("all") == "1"
    try:
        await _commit(request, token, everything)
    except (Unavailable, Unusable, TimeoutError) as why:
        metrics.oneclick.inc("unavailable")
        events.database_unavailable(why if str(why) else "a one-click opt-out could not be written in time")
        return Page(request, "later").paragraph("later_text").way_out().answer(503, RETRY_AFTER)
    return _done(request, None if everything else title)


async def _body(request: Request) -> bytes | None:
    """The octets that came; None: more than we read."""
    stated = request.headers.get("content-length", "0")
    if not stated.isdecimal() or len(stated) > 9 or int(stated) > MAX_BODY:
        return None
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY:
            return None
    return body


def fields(content_type: str, body: bytes) -> dict[str, str]:
    """The fields of a form: the first of each name. No form, or an unreadable one: none.

    RFC 8058 3.2 wants multipart/form-data (RFC 7578) and allows application/x-www-form-urlencoded, which is also what
    a body without a type is taken for: a wish is not lost for a header.
    """
    kind = content_type.partition(";")[0].strip().lower()
    found: list[tuple[str, str]] = []
    if kind in ("application/x-www-form-urlencoded", ""):
        if body.count(b"&") < _MAX_FIELDS:
            found = parse_qsl(body.decode("ascii", "replace"), keep_blank_values=True)
    elif kind == "multipart/form-data" and (boundary := _BOUNDARY.search(content_type)):
        found = _parts(body, f"--{boundary[1] or boundary[2]}".encode("latin-1", "replace"))
    return {name: value.strip() for name, value in reversed(found)}


def _parts(body: bytes, delimiter: bytes) -> list[tuple[str, str]]:
    """(name, value) of the parts of a multipart body, with any line ends."""
    found = []
    for part in body.replace(b"\r\n", b"\n").split(delimiter)[1 : _MAX_FIELDS + 1]:
        head, _, value = part.partition(b"\n\n")
        if name := _NAME.search(head):
            found.append((name[1].decode("ascii", "replace"), value.decode("ascii", "replace")))
    return found


async def _commit(request: Request, token: Token, everything: bool) -> None:
    """Write it down. Raises Unavailable, Unusable, TimeoutError."""
    recording = partial(record, request.app.state.context, token, everything=everything)
    await request.app.state.workers.write(recording)


def record(context: Context, token: Token, *, everything: bool) -> None:
    """Suppress whom the token names, under its very key, within its list or `everything`. Raises Unavailable, Unusable."""
    ledger, scope = context.ledger, ALL if everything else token.list_number
    who = ledger.site_key.who_has(token.address_key)
    detail = {"words": "=".join(_FIELD) + "&all=1" * everything, "list": token.list_number}
    with write(ledger, context.now(), "web") as w:
        added = suppressions.add(w, token.address_key, scope, Reason.OPT_OUT, "one-click", detail)
        if added.outcome == "outdated":  # nobody clicks before now: our clock was set back behind a later lift
            raise Unavailable("the clock is behind what the ledger has of this person")
        said = suppressions.scope_word(w.db, scope)
        repeated = added.outcome == "repeated"
        w.after_commit(lambda: events.one_click_recorded(who, said, added.evidence, repeated))


# ------------------------------------------------------------------ answers


def _done(request: Request, title: str | None) -> Response:
    if title is None:
        return Page(request, "done").paragraph("done_all", "underway").answer(200)
    page = Page(request, "done", list_title=title).paragraph("done_list", "underway")
    return page.button("leave_all", everything=True, second=True).answer(200)


def _wrong(request: Request, status: int) -> Response:
    metrics.oneclick.inc("malformed")
    return Page(request, "wrong").paragraph("wrong_text").way_out().answer(status)
