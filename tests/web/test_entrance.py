"""The console's entrance: who is let in, and who is not."""

from __future__ import annotations

import re
from urllib.parse import urlencode

from tests.ledgers import Books
from tests.web.support import ADMIN, FORM, Answer, Door, door, whole


def entered(web: Door, name: str = ADMIN.name, password: str = ADMIN.secret) -> Answer:
    """What the entrance says to this name and password."""
    page = web.ask("GET", "/console/login")
    browser = page.headers["set-cookie"].partition(";")[0]
    (token,) = re.findall(r'name="csrf_token" value="([^"]+)"', page.body)
    body = urlencode({"username": name, "password": password, "csrf_token": token}).encode()
    return web.ask("POST", "/console/login", f"Content-Type: {FORM}", f"Cookie: {browser}", body=body)


def test_who_has_no_session_is_sent_to_the_entrance(ledger: Books) -> None:
    with door(ledger, whole(ledger)) as web:
        answer = web.ask("GET", "/console/")
    assert (answer.status, answer.headers["location"]) == (303, "/console/login")


def test_who_knows_the_password_comes_in(ledger: Books) -> None:
    with door(ledger, whole(ledger)) as web:
        answer = entered(web)
        assert (answer.status, answer.headers["location"]) == (303, "/console/")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        home = web.ask("GET", "/console/", f"Cookie: {cookie.partition(';')[0]}")
        assert home.status == 200
        assert "Is the promise kept?" in home.body


def test_who_does_not_know_it_does_not(ledger: Books) -> None:
    with door(ledger, whole(ledger)) as web:
        assert entered(web, password="wrong").status == 403
        assert entered(web, name="nobody").status == 403


def test_a_door_that_the_world_can_reach_has_no_console(ledger: Books) -> None:
    with door(ledger) as web:
        assert {web.ask("GET", p).status for p in ("/console/login", "/console/", "/static/console.css")} == {404}
