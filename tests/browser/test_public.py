"""What the people see who want to leave."""

from __future__ import annotations

import pytest

from daemon.web.pages import texts
from tests.browser.surfing import Surfer, Theme
from tests.web.support import ANN

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", ["phone", "desktop"])
def test_the_page_behind_a_link(surfer: Surfer, theme: Theme, width: str) -> None:
    with surfer.page(theme=theme, width=width) as page:
        page.goto(f"{surfer.base}/u/{surfer.web.token('offers')}")
        surfer.look(page, f"leave-{width}-{theme}")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", ["phone", "desktop"])
def test_the_page_with_all_lists(surfer: Surfer, theme: Theme, width: str) -> None:
    with surfer.page(theme=theme, width=width) as page:
        page.goto(f"{surfer.base}/p/{surfer.web.token('offers')}")
        surfer.look(page, f"lists-{width}-{theme}")


@pytest.mark.parametrize("language", texts())
def test_every_language_fits_a_phone(surfer: Surfer, language: str) -> None:
    with surfer.page(width="phone", locale=language) as page:
        for path in (f"/u/{surfer.web.token('offers')}", f"/p/{surfer.web.token('offers')}", "/u/bad"):
            page.goto(surfer.base + path)
            assert page.locator("html").get_attribute("lang") == language
            surfer.fits(page)
        surfer.said.clear()  # that the last of them was a 400
        page.goto(f"{surfer.base}/u/{surfer.web.token('offers')}")
        surfer.shoot(page, f"leave-{language}")


def test_changing_ones_mind(surfer: Surfer) -> None:
    address = "minds@customer.example"
    with surfer.page(script=False) as page:
        page.goto(f"{surfer.base}/u/{surfer.web.token('offers', address)}")
        page.get_by_role("button", name="No more advertising").click()
        assert len(surfer.web.standing(address)) == 1
        page.get_by_role("button", name="undo").click()
        assert surfer.web.standing(address) == []
        assert ANN not in page.content()


def test_leaving_some_lists(surfer: Surfer) -> None:
    address = "some@customer.example"
    with surfer.page() as page:
        page.goto(f"{surfer.base}/u/{surfer.web.token('offers', address)}")
        page.get_by_role("link").first.click()
        page.get_by_label("The newsletter").uncheck()
        page.get_by_role("button").first.click()
        surfer.look(page, "lists-done")
    assert [scope for scope, _ in surfer.web.standing(address)] == [surfer.web.books.numbers["newsletter"]]


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
