"""A door with the operators' rooms, and what is to be read in them."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from storage.audit import verify
from tests.ledgers import Books
from tests.web.support import Answer, Door, door, whole
from tests.web.visitor import Visitor


@contextmanager
def rooms(ledger: Books) -> Iterator[Door]:
    """The record is whole afterwards."""
    with door(ledger, whole(ledger)) as opened:
        yield opened
    with ledger.ledger.reading() as db:
        verify(db, ledger.ledger.site_key)


def asked(visitor: Visitor, text: str) -> Answer:
    """What the search says."""
    return visitor.get(f"/console/suppressions?q={quote(text)}")


def text_of(answer: Answer) -> str:
    """What is to be read on a page."""
    main = re.sub(r"<[^>]*>", " ", answer.body.partition('tabindex="-1">')[2].partition("</main>")[0])
    return re.sub(r"(?<=\() | (?=[,.:)])", "", " ".join(html.unescape(main).split()))


def ended(visitor: Visitor, answer: Answer) -> Answer:
    """The page of what was begun, once it is over."""
    assert answer.status == 303, text_of(answer)
    for _ in range(200):
        page = visitor.get(answer.headers["location"])
        if "refresh" not in page.headers:
            return page
        time.sleep(0.05)
    raise AssertionError("it does not end")
