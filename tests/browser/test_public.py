"""What the people see who want to leave."""

from __future__ import annotations

import pytest

from tests.browser.surfing import Surfer, Theme
from tests.web.support import ANN

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", ["phone", "desktop"])
def test_the_page_behind_a_link(surfer: Surfer, theme: Theme, width: str) -> None:
    with surfer.page(theme=theme, width=width) as page:
        page.goto(f"{surfer.base}/u/{surfer.web.token('offers')}")
        surfer.look(page, f"leave-{width}-{theme}")


def test_looking_changes_nothing_whatever_runs(surfer: Surfer) -> None:
    """Scanners open every link, some in a whole browser; whole companies were opted out elsewhere."""
    link = f"{surfer.base}/u/{surfer.web.token('offers', 'scanned@customer.example')}"
    before = surfer.web.audit_rows()
    for script in (True, False):
        with surfer.page(script=script) as page:
            page.goto(link)
            page.wait_for_load_state("networkidle")
    with surfer.page() as page:
        page.goto(f"{surfer.base}/healthz")
        page.evaluate("url => fetch(url, {method: 'HEAD'}).then(() => fetch(url))", link)
    assert surfer.web.audit_rows() == before
    assert surfer.web.standing("scanned@customer.example") == []


@pytest.mark.parametrize("script", [True, False])
def test_leaving_takes_one_click(surfer: Surfer, script: bool) -> None:
    address = f"{'with' if script else 'without'}.script.{ANN}"
    with surfer.page(script=script) as page:
        page.goto(f"{surfer.base}/u/{surfer.web.token('offers', address)}")
        page.get_by_role("button", name="No more “The offers”").click()
        assert page.get_by_role("heading", level=1).inner_text() == "It is done"
    assert len(surfer.web.standing(address)) == 1


def test_leaving_by_keyboard(surfer: Surfer) -> None:
    with surfer.page() as page:
        page.goto(f"{surfer.base}/u/{surfer.web.token('offers', 'keys@customer.example')}")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.tagName") == "BUTTON"
        page.keyboard.press("Enter")
        page.wait_for_selector("text=It is done")
    assert len(surfer.web.standing("keys@customer.example")) == 1
