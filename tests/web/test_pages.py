"""The pages that people see: in their language, without a script, with nothing in them that a stranger could use."""

from __future__ import annotations

import re
import string
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.web.pages import language, texts
from tests.ledgers import Books
from tests.web.support import ANN, Door, context, door

VOID = {"meta", "link", "input"}


class Outline(HTMLParser):
    """The elements of a page, in order; raises where one is not closed."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note it."""
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """It must be the one that was opened last."""
        assert self._open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of each element of this name."""
        return [attributes for name, attributes in self.found if name == tag]


def pages(web: Door) -> list[str]:
    """One of each kind."""
    token = web.token("offers")
    return [
        web.ask("GET", f"/u/{token}").body,
        web.ask("GET", f"/u/{web.token()}").body,
        web.ask("GET", "/u/bad").body,
        web.ask("GET", "/nothing").body,
        web.post(token, b"other").body,
        web.post(token).body,
        web.post(web.token()).body,
    ]


def test_every_page_is_whole_and_in_line_with_the_policy(web: Door) -> None:
    for page in pages(web):
        outline = Outline(page)
        assert [tag for tag, _ in outline.found if tag in ("script", "style", "img", "iframe")] == []
        assert not [a for _, attributes in outline.found for a in attributes if a.startswith("on") or a == "style"]
        assert all((a["href"] or "").startswith(("/", "mailto:")) for a in outline.all("a") + outline.all("link"))
        assert all("action" not in a for a in outline.all("form"))  # the token stays in the address bar
        assert len(outline.all("h1")) == len(outline.all("main")) == 1
        assert outline.all("html")[0]["lang"] == "en"
        assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in outline.all("meta")


def test_every_page_has_the_headers(web: Door) -> None:
    token = web.token()
    for method, path in [
        ("GET", f"/u/{token}"),
        ("HEAD", f"/u/{token}"),
        ("GET", "/u/x"),
        ("PUT", "/u/x"),
        ("GET", "/x"),
    ]:
        headers = web.ask(method, path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers
    assert int(web.ask("HEAD", f"/u/{token}").headers["content-length"]) > 500


def test_no_page_names_the_reader_or_shows_the_token(web: Door) -> None:
    for page in pages(web):
        assert ANN not in page
        assert "ann" not in page.replace("cannot", "").lower().split()
        assert web.token("offers") not in page
        assert web.token() not in page
        assert "Quill &amp; &lt;PDF&gt;" in page  # the house is named, and escaped


def forms(page: str) -> list[dict[str, str | None]]:
    """What each button of a page sends."""
    found = []
    for form in re.findall(r"<form.*?</form>", page, re.DOTALL):
        outline = Outline(form)
        assert outline.all("form")[0]["method"] == "post"
        assert len(outline.all("button")) == 1
        found.append({str(i["name"]): i["value"] for i in outline.all("input")})
    return found


def test_the_buttons_do_what_a_mail_program_does(web: Door) -> None:
    one, every = {"List-Unsubscribe": "One-Click"}, {"List-Unsubscribe": "One-Click", "all": "1"}
    assert forms(web.ask("GET", f"/u/{web.token('offers')}").body) == [one, every]
    assert forms(web.ask("GET", f"/u/{web.token()}").body) == [every]
    assert forms(web.post(web.token("offers")).body) == [every]  # who left a list may want more than that
    assert forms(web.post(web.token()).body) == []
    assert forms(web.ask("GET", "/u/bad").body) == []


def test_a_list_without_a_title_is_called_by_its_id_and_a_house_without_a_mailbox_names_none(ledger: Books) -> None:
    made = context(ledger, addresses=())
    lists = tuple(x.model_copy(update={"title": ""}) for x in made.house.lists)
    house = made.house.model_copy(update={"lists": lists})
    with door(ledger, context(ledger).__class__(ledger.ledger, house, ledger.numbers, "", made.now)) as web:
        assert "“offers”" in web.ask("GET", f"/u/{web.token('offers')}").body
        assert "mailto:" not in web.ask("GET", "/u/bad").body


# ------------------------------------------------------------------ languages


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        ("", "fr"),
        ("de", "de"),
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("ja,es;q=0.5", "es"),
        ("en;q=0.2, de;q=0.7", "de"),
        ("EN-gb", "en"),
        ("de;q=0,en;q=0.1", "en"),
        ("ja, ko", "fr"),
        ("*", "fr"),
        ("de;q=x", "fr"),
        ("x," * 30 + "de", "fr"),
        ("de;q=1.000", "de"),
        ("zh-Hant-TW;q=0.9, fr-CH", "fr"),
    ],
)
def test_the_most_wanted_language_that_there_is(accepted: str, chosen: str) -> None:
    assert language(accepted, "fr") == chosen


@given(st.text(max_size=200))
def test_any_accept_language_has_an_answer(accepted: str) -> None:
    assert language(accepted, "ja") in texts()


def test_pages_speak_the_readers_language(web: Door) -> None:
    answer = web.ask("GET", f"/u/{web.token('offers')}", "Accept-Language: de-CH, en;q=0.5")
    assert '<html lang="de">' in answer.body
    assert "„The offers“ nicht mehr" in answer.body
    assert answer.headers["content-language"] == "de"


@pytest.mark.parametrize("lang", texts())
def test_every_language_says_everything_with_the_same_blanks(lang: str) -> None:
    def blanks(text: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    english, other = texts()["en"], texts()[lang]
    assert other.keys() == english.keys()
    assert {k: blanks(v) for k, v in other.items()} == {k: blanks(v) for k, v in english.items()}
