"""Whatever colour a house has, what is written in it or on it can be read."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daemon.web.colours import (
    BLACK,
    DARK,
    LIGHT,
    READABLE,
    WHITE,
    Rgb,
    contrast,
    parse,
    readable,
    rules,
    text_on,
    written,
)
from daemon.web.files import stylesheet
from tests.ledgers import Books
from tests.web.support import context, door

colours = st.tuples(*[st.integers(0, 255)] * 3)


def test_contrast_as_wcag_has_it() -> None:
    assert contrast(WHITE, BLACK) == pytest.approx(21)
    assert contrast((0x77,) * 3, WHITE) == pytest.approx(4.48, abs=0.01)  # the well-known grey that just fails
    assert contrast((0x76,) * 3, WHITE) == pytest.approx(4.54, abs=0.01)


@given(colours)
@example((0xFF, 0xFF, 0))
@example((0, 0, 0xFF))
@example(DARK)
@example(LIGHT)
@example((0x75,) * 3)
def test_every_colour_can_be_read_in_both_themes(colour: Rgb) -> None:
    found = re.findall(r"--fill: (\S+); --on-fill: (\S+); --strong: (\S+);", rules(written(colour)))
    assert len(found) == 2
    for (fill, on_fill, strong), ground in zip(found, (LIGHT, DARK), strict=True):
        assert contrast(parse(fill), parse(on_fill)) >= READABLE
        assert parse(on_fill) in (BLACK, WHITE)
        assert contrast(parse(strong), ground) >= READABLE
    assert found[0][0] == written(colour)  # by day a button has the very colour


@given(colours, st.sampled_from([LIGHT, DARK]))
def test_a_colour_that_can_be_read_stays(colour: Rgb, ground: Rgb) -> None:
    assert (readable(colour, ground) == colour) == (contrast(colour, ground) >= READABLE)


@given(colours)
def test_what_is_written_is_read(colour: Rgb) -> None:
    assert parse(written(colour)) == parse(written(colour).upper()) == colour
    assert text_on(colour) in (BLACK, WHITE)


def test_our_own_colours_can_be_read_and_the_grounds_are_those_of_the_stylesheet() -> None:
    themes = re.findall(r":root \{(.*?)\}", stylesheet().decode(), re.DOTALL)
    for theme, ground in zip(themes, (LIGHT, DARK), strict=True):
        said = {name: parse(value) for name, value in re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", theme)}
        assert said["ground"] == ground
        assert contrast(said["fill"], said["on-fill"]) >= READABLE
        assert all(contrast(said[name], ground) >= READABLE for name in ("ink", "quiet", "strong"))
        assert contrast(said["line"], ground) >= 3  # WCAG 1.4.11


def test_the_stylesheet_has_the_colour_of_the_house(ledger: Books) -> None:
    with door(ledger, context(ledger, colour="#FFD000")) as web:
        style = web.ask("GET", "/static/style.css")
        assert style.headers["content-type"].partition(";")[0] == "text/css"
        assert "--fill: #ffd000; --on-fill: #000000;" in style.body
        assert style.body.count("{") == style.body.count("}")
