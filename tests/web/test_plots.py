"""Plots: well-formed, true, and told in words and numbers too."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.web.console.plots import COLOURS, Plot, Series, short, ticks_to

SVG = "{http://www.w3.org/2000/svg}"
_NUMBERS = st.integers(0, 10**12)


@st.composite
def plots(draw: st.DrawFn) -> Plot:
    """Any plot, with any text in it that XML can hold."""
    places = draw(st.integers(0, 60))
    text = st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn")), max_size=20)
    row = st.lists(_NUMBERS, min_size=places, max_size=places)
    series = [Series(draw(text), draw(row)) for _ in range(draw(st.integers(0, len(COLOURS))))]
    labels = draw(st.lists(text, min_size=places, max_size=places))
    return Plot("x", draw(text), draw(text), labels, series, beside=[Series("beside", draw(row))])


def drawn(plot: Plot) -> ET.Element:
    """The picture, as a browser reads it."""
    return ET.fromstring(str(plot.svg()).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


@given(plots())
def test_a_picture_is_well_formed_and_says_what_it_is(plot: Plot) -> None:
    svg = drawn(plot)
    assert svg.get("role") == "img"
    assert svg.get("aria-labelledby") == "x-title x-about"
    named = {element.get("id"): element.text or "" for element in svg}
    assert (named["x-title"], named["x-about"]) == (plot.title, plot.about)
    assert "style" not in {name for element in svg.iter() for name in element.attrib}


@given(plots())
def test_bars_are_as_high_as_their_numbers_and_stay_in_the_picture(plot: Plot) -> None:
    svg = drawn(plot)
    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    bars = list(svg.iter(f"{SVG}rect"))
    assert len(bars) == sum(number > 0 for s in plot.series for number in s.numbers)
    heights: dict[int, float] = {}
    for bar in bars:
        x, y, w, h = (float(bar.attrib[name]) for name in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height
        assert h >= 1.4
        assert bar.get("class") in COLOURS
    groups = list(svg.iter(f"{SVG}g"))
    totals = [total for total in plot.totals if total]
    for nth, group in enumerate(groups):
        heights[nth] = sum(float(bar.attrib["height"]) for bar in group.iter(f"{SVG}rect"))
    unit = max(ticks_to(max(plot.totals, default=0)))
    for nth, total in enumerate(totals):
        assert heights[nth] == pytest.approx(180 * total / unit, abs=len(plot.series) * 1.6)


@given(plots())
def test_the_table_has_every_number(plot: Plot) -> None:
    everything = [s.numbers for s in (*plot.series, *plot.beside)]
    assert len(plot.columns) == len(everything)
    assert sum(sum(numbers) for _, numbers in plot.rows) == sum(map(sum, everything))
    assert len(plot.rows) == sum(any(column) for column in zip(*everything, strict=True))


@given(_NUMBERS)
def test_ticks_are_round_few_and_reach_the_top(most: int) -> None:
    ticks = ticks_to(most)
    step = ticks[1] - ticks[0]
    assert ticks == list(range(0, step * len(ticks), step))
    assert 2 <= len(ticks) <= 6
    assert ticks[-1] >= most > ticks[-2] or most <= 1
    assert str(step).rstrip("0") in ("1", "2", "5")


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0"), (999, "999"), (1000, "1k"), (1500, "1.5k"), (20_000, "20k"), (2_500_000, "2.5M"), (10**10, "10G")],
)
def test_numbers_beside_an_axis_are_short(number: int, said: str) -> None:
    assert short(number) == said


def test_dates_do_not_run_into_each_other() -> None:
    plot = Plot("x", "t", "a", [f"11-{d:02} {h:02}:00" for d in (1, 2) for h in range(24)], [Series("s", [1] * 48)])
    dates = [t for t in drawn(plot).iter(f"{SVG}text") if ":" in (t.text or "")]
    spans = []
    for date in dates:
        x, width = float(date.attrib["x"]), 7.2 * len(date.text or "")
        left = x - (width if date.get("text-anchor") == "end" else width / 2)
        spans.append((left, left + width))
    spans.sort()
    assert len(spans) >= 4
    assert all(end < start for (_, end), (start, _) in pairwise(spans))
    assert dates[0].text == "11-02 23:00"
