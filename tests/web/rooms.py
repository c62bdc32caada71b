"""A door with the operators' rooms, and what is to be read in them."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from daemon import events
from storage.audit import verify
from tests.ledgers import Books
from tests.web.support import Answer, Door, door, whole
from tests.web.visitor import Visitor


@contextmanager
def rooms(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """Nothing may reach the outermost loop, and the record is whole afterwards."""
    failed: list[BaseException] = []
    monkeypatch.setattr(events, "failed", lambda _, error: failed.append(error))
    with door(ledger, whole(ledger)) as opened:
        yield opened
    assert failed == []
    with ledger.ledger.reading() as db:
        verify(db, ledger.ledger.site_key)


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
