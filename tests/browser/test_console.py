"""The console: every page, in both themes and widths, with and without a script, by keyboard."""

from __future__ import annotations

import pytest

from tests.browser.stage import GRETA, HOSTILE
from tests.browser.surfing import Surfer, Theme
from tests.web.support import Door

pytestmark = pytest.mark.browser

# Path -> the name of its picture.
PAGES = {
    "/console/": "overview",
    "/console/suppressions": "suppressions",
    f"/console/suppressions?q={GRETA}": "person",
    f"/console/erase?address={GRETA}": "erase",
    "/console/review": "review",
    "/console/review/2": "review-item",
    "/console/imports": "imports",
    "/console/lists": "lists",
    "/console/undo": "undo",
    "/console/audit": "audit",
    "/console/hooks": "hooks",
    "/console/settings": "settings",
}


@pytest.fixture
def operator(surfer: Surfer) -> Surfer:
    """Somebody who has logged in."""
    surfer.log_in()
    return surfer


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", ["phone", "desktop"])
def test_every_page(operator: Surfer, theme: Theme, width: str) -> None:
    before = operator.web.audit_rows()
    with operator.page(theme=theme, width=width) as page:
        for path, name in PAGES.items():
            answer = page.goto(operator.base + path)
            assert answer is not None
            assert answer.status == 200, path
            operator.look(page, f"{name}-{width}-{theme}")
    assert operator.web.audit_rows() == before


def test_the_entrance(surfer: Surfer) -> None:
    for theme in ("light", "dark"):
        with surfer.page(theme=theme, width="phone") as page:
            page.goto(f"{surfer.base}/console/")
            surfer.look(page, f"login-{theme}")


def test_every_page_without_a_script_has_the_same_words(operator: Surfer) -> None:
    with operator.page() as page, operator.page(script=False) as plain:
        for path in PAGES:
            words = []
            for window in (page, plain):
                window.goto(operator.base + path)
                words.append(window.locator("main h1, main h2, main button").all_inner_texts())
            assert words[0] == words[1], path


def test_every_link_of_every_page_leads_somewhere(operator: Surfer) -> None:
    with operator.page() as page:
        seen: set[str] = set()
        for path in PAGES:
            page.goto(operator.base + path)
            seen.update(page.eval_on_selector_all("a[href]", "links => links.map(a => a.href.split('#')[0])"))
        assert len(seen) > 30
        for link in sorted(seen):
            answer = page.request.get(link)
            assert answer.status == 200, link


def test_what_strangers_write_is_only_shown(operator: Surfer) -> None:
    """Had any of it run, the browser would have told of an alert, or of what the policy blocked."""
    with operator.page() as page:
        page.on("dialog", lambda dialog: operator.said.append(f"dialog {dialog.message}"))
        page.goto(f"{operator.base}/console/review/2")
        assert HOSTILE.replace("\u202e", "\ufffd") in page.locator("main").inner_text()
        assert page.locator("main script:not([src]), main img").count() == 0


def test_nobody_can_frame_it(operator: Surfer) -> None:
    with operator.page() as page:
        page.goto(f"{operator.base}/healthz")
        page.evaluate(
            "url => { const f = document.createElement('iframe'); f.src = url; document.body.append(f) }",
            f"{operator.base}/console/",
        )
        page.wait_for_timeout(300)
        assert all("Is the promise kept" not in frame.content() for frame in page.frames)
    operator.said.clear()  # that it was blocked


# ------------------------------------------------------------------ deciding, by keyboard


def open_reviews(web: Door) -> int:
    with web.books.ledger.connect() as db:
        return int(db.exec_driver_sql("SELECT count(*) FROM review WHERE state = 'open'").scalar_one())


def test_deciding_by_keyboard(operator: Surfer) -> None:
    assert open_reviews(operator.web) == 3
    with operator.page() as page:
        page.goto(f"{operator.base}/console/review/1")
        page.wait_for_timeout(700)  # a key that is still being pressed must not decide on what nobody has seen
        page.keyboard.press("j")
        page.wait_for_url("**/console/review/2")
        page.wait_for_timeout(700)
        with page.expect_navigation():
            page.keyboard.press("r")
        assert open_reviews(operator.web) == 2
        page.get_by_label("Note").first.fill("ra")  # keys in a field are text
        assert open_reviews(operator.web) == 2
