"""What an operator does in the console, form by form, without a script; and each page behind a form looked at."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Page

from storage import incoming
from storage.write import write
from tests.browser.surfing import Surfer, Theme
from tests.web.hostile import CANARY, PAYLOADS
from tests.web.visitor import LOOKER

pytestmark = pytest.mark.browser
SETTLED_MS = 10_000


@pytest.fixture
def operator(surfer: Surfer) -> Surfer:
    """Somebody who has logged in."""
    surfer.log_in()
    return surfer


def until(page: Page, words: str) -> None:
    """A page that is under way loads itself anew."""
    page.wait_for_selector(f"main >> text={words}", timeout=SETTLED_MS)


@pytest.mark.parametrize(("theme", "width"), [("light", "desktop"), ("dark", "phone")])
def test_a_list_from_elsewhere(operator: Surfer, tmp_path: Path, theme: Theme, width: str) -> None:
    """Looked at, counted, imported; then all of it undone again."""
    file = tmp_path / f"old-{theme}.csv"
    file.write_text(f"email,name\n{theme}1@import.example,Ann\nnonsense,Bob\n{theme}2@import.example,=1+1\n")
    with operator.page(theme=theme, width=width) as page:
        page.goto(f"{operator.base}/console/imports")
        page.set_input_files("#file", file)
        page.get_by_role("button", name="Look at it").click()
        until(page, "It would change this")
        operator.look(page, f"import-counted-{theme}")
        assert operator.web.standing(f"{theme}1@import.example") == []
        page.get_by_role("button", name="Import 2 new").click()
        until(page, "2 added.")
        operator.look(page, f"import-done-{theme}")
        assert len(operator.web.standing(f"{theme}1@import.example")) == 1
        page.goto(f"{operator.base}/console/undo")
        page.fill("#u-import", file.name)
        page.get_by_role("button", name="Count, change nothing yet").click()
        page.wait_for_selector("#u-because", timeout=SETTLED_MS)
        operator.look(page, f"undo-counted-{theme}")
        page.fill("#u-because", "the wrong file")
        page.get_by_role("button", name="End 2 suppressions").click()
        until(page, "the wrong file")
        operator.look(page, f"undone-{theme}")
        assert operator.web.standing(f"{theme}2@import.example") == []


@pytest.mark.parametrize(("theme", "width"), [("dark", "desktop"), ("light", "phone")])
def test_a_person(operator: Surfer, theme: Theme, width: str) -> None:
    """Put on the list, looked at on paper, taken off, and forgotten."""
    address = f"{theme}.{width}@phone.example"
    with operator.page(theme=theme, width=width, script=False) as page:
        page.goto(f"{operator.base}/console/suppressions?q={address}")
        page.locator("form[action='/console/suppress'] button").click()
        assert len(operator.web.standing(address)) == 1
        page.get_by_role("button", name="What we hold on them").click()
        until(page, address)  # it is read beside, and the page looks again by itself
        page.goto(f"{operator.base}/console/suppressions?q={address}")
        page.fill("#lift-because", "she called again")
        page.get_by_role("button", name="Let them be mailed again").click()
        assert operator.web.standing(address) == []
        page.get_by_role("link", name="Forget this person").click()
        page.get_by_label("Yes, forget").check()
        page.get_by_role("button", name="Forget this person").click()
        until(page, f"{address} is forgotten.")
    with operator.page(theme=theme, width=width) as page:
        page.goto(f"{operator.base}/console/suppressions?q={address}")
        operator.look(page, f"forgotten-{theme}")
        assert "she called again" not in page.content()


def test_the_pages_that_nobody_wants_to_see(operator: Surfer) -> None:
    """Each says what is the matter, and has a way on."""
    with operator.page(width="phone") as page:
        for path, status in (("/console/nothing", 404), ("/console/review/999", 404), ("/console/begun/x", 404)):
            answer = page.goto(operator.base + path)
            assert answer is not None
            assert answer.status == status
            operator.look(page)
    operator.log_in(*LOOKER)
    with operator.page(theme="dark") as page:
        answer = page.goto(f"{operator.base}/console/review")
        assert answer is not None
        assert answer.status == 403
        operator.look(page)
    operator.said.clear()  # the browser tells of each such status


def test_nothing_that_strangers_write_runs(operator: Surfer) -> None:
    ledger, now = operator.web.books.ledger, datetime.now(UTC)
    with write(ledger, now, "test") as w:
        for payload in PAYLOADS.values():
            text = payload.replace("\0", "")  # as PostgreSQL has it
            text = text.encode("utf-8", "replace").decode()
            incoming.open_review(
                w, None, received=now, sender=text, addresses=[text], scope="all",
                rules=[text[:40]], words=text, wish="opt-out", excerpt=f"Hello,\n{text}\n",
            )  # fmt: skip
    with operator.page() as page:
        page.on("dialog", lambda dialog: operator.said.append(f"dialog {dialog.message}"))
        page.goto(f"{operator.base}/console/review")
        links = page.eval_on_selector_all("main table a[href*='/review/']", "all => all.map(a => a.href)")
        assert len(links) > 20
        for link in [*links[::9], f"{operator.base}/console/"]:
            page.goto(link)
            assert page.evaluate("window.name") == ""
            assert page.locator(f"[id*={CANARY}], [title*={CANARY}], [onerror], [onload]").count() == 0
