"""An operator's browser, as far as a test needs one: it keeps cookies, and sends a form with the token of its page."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlencode

from tests.web.support import ADMIN, FORM, Answer, Door

LOOKER: Final = ("kim", "only looking")  # may only look (support.inside)


class Visitor:
    """Somebody who has logged in to the console; with `name=""` somebody who has not."""

    def __init__(self, web: Door, name: str = ADMIN.name, password: str = ADMIN.secret):
        self.web = web
        self.cookies: dict[str, str] = {}
        self.csrf_token = ""
        if name:
            self.get("/console/login")
            answer = self.post("/console/login", username=name, password=password)
            assert answer.status == 303, answer.status
            self.follow(answer)

    def get(self, path: str, *headers: str) -> Answer:
        """Look at a page."""
        return self._heard(self.web.ask("GET", path, *self._cookie(), *headers))

    def post(self, path: str, *headers: str, **fields: str) -> Answer:
        """Send a form of the page that was last looked at."""
        body = urlencode({"csrf_token": self.csrf_token, **fields}).encode()
        kind = f"Content-Type: {FORM}"
        return self._heard(self.web.ask("POST", path, kind, *self._cookie(), *headers, body=body))

    def follow(self, answer: Answer) -> Answer:
        """Go where an answer sends one."""
        assert answer.status == 303, (answer.status, answer.body)
        return self.get(answer.headers["location"])

    def _cookie(self) -> list[str]:
        pairs = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return [f"Cookie: {pairs}"] if pairs else []

    def _heard(self, answer: Answer) -> Answer:
        if set_cookie := answer.headers.get("set-cookie"):
            name, _, value = set_cookie.partition(";")[0].partition("=")
            self.cookies[name] = value.strip('"')
            if not self.cookies[name]:
                del self.cookies[name]
        if found := re.search(r'name="csrf_token" value="([^"]+)"', answer.body):
            self.csrf_token = found[1]
        return answer
