"""The pictures of docs/console.md, and the way that they show. `make pictures` puts them there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.browser.stage import GRETA
from tests.browser.surfing import Surfer

pytestmark = pytest.mark.browser
DOCS = Path(__file__).parents[2] / "docs"


def test_why_is_this_address_refused_takes_two_clicks(surfer: Surfer) -> None:
    """Of somebody who knows the address and nothing else; who has the (ref N) of the refusal may type that."""
    surfer.log_in()
    with surfer.page() as page:
        page.goto(f"{surfer.base}/console/")
        surfer.shoot(page, "console-overview")
        page.get_by_role("link", name="Suppressions").click()
        page.get_by_label("Who?").fill(GRETA)
        surfer.shoot(page, "console-search", high=420)
        page.get_by_role("button", name="Why?").click()
        said = page.locator("main").inner_text()
        assert "Suppressed: no marketing mail goes there." in said
        assert "please take me off your list, I have asked twice" in said
        assert len(re.findall("The relay refused a mail to them", said)) == 3
        surfer.shoot(page, "console-why")


def test_a_doubtful_mail(surfer: Surfer) -> None:
    surfer.log_in()
    with surfer.page() as page:
        page.goto(f"{surfer.base}/console/review/1")
        surfer.shoot(page, "console-review")


def test_the_page_that_people_see(surfer: Surfer) -> None:
    with surfer.page(width="phone") as page:
        page.goto(f"{surfer.base}/u/{surfer.web.token('offers')}")
        surfer.shoot(page, "page-leave")


def test_the_docs_show_these_pictures_and_no_others() -> None:
    text = "".join(path.read_text() for path in DOCS.glob("*.md"))
    shown = set(re.findall(r"\(images/([a-z-]+)\.png\)", text))
    assert shown == {path.stem for path in (DOCS / "images").iterdir()}
    assert shown == set(re.findall(r'surfer\.shoot\(page, "([a-z-]+)"', Path(__file__).read_text()))
