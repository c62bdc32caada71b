"""The pages that people see: in their language, without a script, with nothing in them that a stranger could use."""

from __future__ import annotations

import re
import string
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape

from daemon.mail import phrases
from daemon.web.pages import RIGHT_TO_LEFT, language, texts
from tests.ledgers import Books
from tests.web.support import ANN, FORM, Door, context, door

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
        (left := web.post(token)).body,
        web.post(web.token()).body,
        web.ask("GET", f"/p/{token}").body,
        web.ask("POST", f"/p/{token}", f"Content-Type: {FORM}", body=b"action=save&keep=offers").body,
        web.ask("POST", f"/p/{token}", f"Content-Type: {FORM}", body=b"action=leave-all").body,
        web.ask("POST", f"/p/{token}", f"Content-Type: {FORM}", body=b"action=save&keep=offers&keep=newsletter").body,
        web.ask("GET", web.notice()).body,
        web.ask("GET", web.notice(day=-40)).body,
        web.undo(left.body).body,
        web.ask("POST", web.notice(), f"Content-Type: {FORM}", body=b"undo=1").body,
    ]


def test_every_page_is_whole_and_in_line_with_the_policy(web: Door) -> None:
    for page in pages(web):
        outline = Outline(page)
        assert [tag for tag, _ in outline.found if tag in ("script", "style", "img", "iframe")] == []
        assert not [a for _, attributes in outline.found for a in attributes if a.startswith("on") or a == "style"]
        assert all((a["href"] or "").startswith(("/", "mailto:")) for a in outline.all("a") + outline.all("link"))
        assert all((a.get("action") or "/undo/").startswith("/undo/") for a in outline.all("form"))
        assert all(a["type"] == "hidden" or a["checked"] is None for a in outline.all("input"))
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
        assert web.token("offers") not in page.replace(f'<a href="/p/{web.token("offers")}">', "")
        assert web.token() not in page.replace(f'<a href="/p/{web.token()}">', "")
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
    undo = {"undo": "1"}
    assert forms(web.post(web.token("offers")).body) == [every, undo]  # who left a list may want more than that
    assert forms(web.post(web.token()).body) == [undo]
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
        ("hu,es;q=0.5", "es"),
        ("ja,es;q=0.5", "ja"),
        ("en;q=0.2, de;q=0.7", "de"),
        ("EN-gb", "en"),
        ("de;q=0,en;q=0.1", "en"),
        ("hu, el", "fr"),
        ("*", "fr"),
        ("de;q=x", "fr"),
        ("x," * 30 + "de", "fr"),
        ("de;q=1.000", "de"),
        ("zh-Hant-TW;q=0.9, fr-CH", "fr"),
        ("zh-Hant-TW", "zh"),
        ("nb-NO, nn;q=0.9", "no"),
        ("iw", "he"),
    ],
)
def test_the_most_wanted_language_that_there_is(accepted: str, chosen: str) -> None:
    assert language(accepted, "fr") == chosen


@given(st.text(max_size=200))
def test_any_accept_language_has_an_answer(accepted: str) -> None:
    assert language(accepted, "ja") in texts()


def test_pages_speak_the_readers_language(web: Door) -> None:
    answer = web.ask("GET", f"/u/{web.token('offers')}", "Accept-Language: de-CH, en;q=0.5")
    assert '<html lang="de" dir="ltr">' in answer.body
    assert "„The offers“ nicht mehr" in answer.body
    assert answer.headers["content-language"] == "de"


@pytest.mark.parametrize(("lang", "way"), [("ar", "rtl"), ("he", "rtl"), ("en", "ltr")])
def test_a_language_has_its_direction_and_a_name_in_it_its_own(web: Door, lang: str, way: str) -> None:
    page = web.ask("GET", f"/u/{web.token('offers')}", f"Accept-Language: {lang}").body
    assert f'<html lang="{lang}" dir="{way}">' in page
    assert ("\u2068The offers\u2069" in page) == (way == "rtl")
    assert (
        web.ask("GET", "/u/bad", f"Accept-Language: {lang}").body.count('dir="ltr">support@quillpdf.example</a>') == 1
    )


def test_the_pages_speak_every_language_in_which_mail_is_read() -> None:
    read = {p.stem for p in Path(phrases.__file__).with_name("phrases").glob("*.toml")}
    assert texts().keys() == read
    assert set(RIGHT_TO_LEFT) <= read


def test_there_is_a_page_behind_every_text(web: Door) -> None:
    """What no page says need not be translated."""
    said = "".join(pages(web)) + web.ask("GET", f"/u/{web.token()}").body
    left_out = {"later", "later_text"}  # the ledger is away: test_oneclick
    for name, text in texts()["en"].items():
        plain = re.split(r"\{\w+\}", text)[0]
        assert name in left_out or str(escape(plain)) in said, name


@pytest.mark.parametrize("lang", texts())
def test_every_language_says_everything_with_the_same_blanks(lang: str) -> None:
    def blanks(text: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    english, other = texts()["en"], texts()[lang]
    assert other.keys() == english.keys()
    assert {k: blanks(v) for k, v in other.items()} == {k: blanks(v) for k, v in english.items()}


@pytest.mark.parametrize(
    "header", ["en" + " " * 60_000 + "x", "en;" + " " * 60_000 + "x", "en-" + "a" * 60_000, "," * 60_000]
)
def test_a_long_wish_for_a_language_keeps_nobody_waiting(header: str) -> None:
    began = time.monotonic()
    assert language(header, "de") == "de"
    assert time.monotonic() - began < 0.2


@pytest.mark.parametrize("header", ["fr ; q=0.5", " fr\t;\tq=1.000 , en;q=0.9", "fr-CA"])
def test_space_in_a_wish_for_a_language_means_nothing(header: str) -> None:
    assert language(header, "de") == "fr"
