"""Somebody who looks at pages with a browser: what they see, and what must be so on every page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page

from tests.web.support import ADMIN, Door

Theme = Literal["light", "dark"]
WIDTHS: Final = {"phone": (320, 640), "desktop": (1280, 900)}
_SERIOUS: Final = ("serious", "critical")


@dataclass
class Surfer:
    """`pictures`: the directory for screenshots. `elsewhere`: what a page wanted from another host, or by no http."""

    browser: Browser
    web: Door
    pictures: Path
    elsewhere: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)  # by the browser's console: errors, and what the policy blocked
    _open: list[BrowserContext] = field(default_factory=list)
    _session: list[Any] = field(default_factory=list)

    @property
    def base(self) -> str:
        """Where the door is."""
        return f"http://127.0.0.1:{self.web.port}"

    @contextmanager
    def page(
        self, *, theme: Theme = "light", width: str = "desktop", script: bool = True, **other: Any
    ) -> Iterator[Page]:
        """A window."""
        wide, high = WIDTHS[width]
        context = self.browser.new_context(
            color_scheme=theme, viewport={"width": wide, "height": high}, java_script_enabled=script, **other
        )
        self._open.append(context)
        context.add_cookies(self._session)
        page = context.new_page()
        page.on("request", lambda request: self._requested(request.url))
        page.on("console", lambda message: self.said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.set_default_timeout(15_000)
        yield page
        self._open.remove(context)
        context.close()

    def _requested(self, url: str) -> None:
        if not url.startswith(self.base + "/"):
            self.elsewhere.append(url)

    def log_in(self, name: str = ADMIN.name, password: str = ADMIN.secret) -> None:
        """At the console, once for all windows."""
        self._session = []
        with self.page() as page:
            page.goto(f"{self.base}/console/")
            page.fill("#username", name)
            page.fill("#password", password)
            page.click("button[type=submit]")
            page.wait_for_url("**/console/")
            self._session = list(page.context.cookies())

    def look(self, page: Page, picture: str = "") -> None:
        """What must be so on every page: no fault that axe calls serious, nothing wider than the window."""
        found = Axe().run(page).response["violations"]
        told = [(v["id"], v["impact"], [n["html"][:120] for n in v["nodes"]][:3]) for v in found]
        assert [t for t in told if t[1] in _SERIOUS] == [], page.url
        self.fits(page)
        if picture:
            self.shoot(page, picture)

    @staticmethod
    def fits(page: Page) -> None:
        """No page scrolls sideways; what is wide scrolls within."""
        too_wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert too_wide <= 0, page.url

    def shoot(self, page: Page, picture: str, *, high: int = 0) -> None:
        """A picture of all of it, or of the upper part, so many pixels high."""
        self.pictures.mkdir(parents=True, exist_ok=True)
        wide = WIDTHS["desktop"][0]
        part: Any = {"clip": {"x": 0, "y": 0, "width": wide, "height": high}} if high else {"full_page": True}
        page.screenshot(path=self.pictures / f"{picture}.png", **part)

    def leave(self) -> None:
        """Nothing was asked of another host, and the browser had nothing to complain of."""
        for context in self._open:
            context.close()
        assert self.elsewhere == []
        assert self.said == []
