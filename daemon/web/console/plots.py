"""Plots, drawn here: bars on a time axis, as SVG that needs no script. Pure.

Who cannot see the bars hears title and description, and finds the numbers in a table beside them. Colours are classes of
console.css; a bar tells its numbers when one points at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from math import ceil
from typing import Final

from markupsafe import Markup

COLOURS: Final = ("one", "two", "three", "four")  # classes of console.css
_WIDTH, _HEIGHT = 640, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 8, 14, 26  # what is beside the bars: the labels of the axes
_TICKS: Final = 5  # at most, on the axis of numbers
_LETTER: Final = 7.2  # how wide one is, below the axis of time
_APART: Final = 1.6  # times as far from each other as they are wide are the dates there
_GAP: Final = 0.18  # of the room of a bar
_LEAST: Final = 1.5  # how high a bar is that would be too low to be seen
_RECT: Final = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>')

_DATE: Final = Markup('<text class="{}" x="{:.1f}" y="{}" text-anchor="{}">{}</text>')
_LINE: Final = Markup('<line class="{}" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>')
_NUMBER: Final = Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>')
_BAR: Final = Markup("<g><title>{}: {}</title>{}</g>")
_HEAD: Final = Markup(
    '<svg class="plot" viewBox="0 0 {} {}" role="img" aria-labelledby="{n}-title {n}-about">'
    '<title id="{n}-title">{}</title><desc id="{n}-about">{}</desc>'
)


@dataclass(frozen=True, slots=True)
class Series:
    """What is counted together: what it is called, and how many at each place of the axis."""

    name: str
    numbers: Sequence[int]


@dataclass(frozen=True, slots=True)
class Plot:
    """`name`: unique on its page. `title`, `about`: what it shows, as a heading and as a sentence. `places`: along the axis,
    each with what stands below it; `series`: from the bottom up, as many numbers each as there are places; `beside`: what
    stands in the table only."""

    name: str
    title: str
    about: str
    places: Sequence[str]
    series: Sequence[Series]
    beside: Sequence[Series] = ()

    def __post_init__(self) -> None:
        assert len(self.series) <= len(COLOURS)
        assert all(len(s.numbers) == len(self.places) for s in (*self.series, *self.beside))

    @property
    def totals(self) -> list[int]:
        """Of all series, at each place."""
        return [sum(column) for column in zip(*(s.numbers for s in self.series), strict=True)]

    @property
    def legend(self) -> list[tuple[str, str]]:
        """(class, name) of each series."""
        return [(colour, s.name) for colour, s in zip(COLOURS, self.series, strict=False)]

    @property
    def columns(self) -> list[str]:
        """The names of the table's columns."""
        return [s.name for s in (*self.series, *self.beside)]

    @property
    def rows(self) -> list[tuple[str, list[int]]]:
        """The table: a place and its numbers, the last place first; places where nothing was are left out."""
        columns = [[s.numbers[i] for s in (*self.series, *self.beside)] for i in range(len(self.places))]
        return [(place, column) for place, column in zip(self.places, columns, strict=True) if any(column)][::-1]

    def svg(self) -> Markup:
        """The picture."""
        ticks = ticks_to(max(self.totals, default=0))
        parts = [
            _HEAD.format(_WIDTH, _HEIGHT, self.title, self.about, n=self.name),
            *(_tick(tick, ticks[-1]) for tick in ticks),
            *(self._bar(place, ticks[-1]) for place in range(len(self.places))),
            *self._dates(),
            Markup("</svg>"),
        ]
        return Markup("\n").join(parts)

    def _bar(self, place: int, top: int) -> Markup:
        numbers = [s.numbers[place] for s in self.series]
        if not any(numbers):
            return Markup("")
        room = _room(len(self.places))
        x, width = _LEFT + room * (place + _GAP / 2), room * (1 - _GAP)
        y, pieces = _y(0, top), []
        for colour, number in zip(COLOURS, numbers, strict=False):
            if number:
                height = max(_LEAST, _y(0, top) - _y(number, top))
                y -= height
                pieces.append(_RECT.format(colour, x, y, width, height))
        said = ", ".join(f"{number:,} {s.name}" for s, number in zip(self.series, numbers, strict=True) if number)
        return _BAR.format(self.places[place], said, Markup("").join(pieces))

    def _dates(self) -> list[Markup]:
        """What stands below the axis: not more than fits, and the last place always."""
        room = _room(len(self.places))
        every = ceil(max(map(len, self.places), default=0) * _LETTER * _APART / room)
        found = []
        for nth, place in enumerate(range(len(self.places) - 1, -1, -max(1, every))):
            last = nth == 0 and every > 1  # of the last bar; its label would stand out of the picture
            x = _LEFT + room * (place + (1 if last else 0.5))
            also = "also" if nth % 2 else ""  # left out where letters are large beside the picture
            found.append(_DATE.format(also, x, _HEIGHT - 7, "end" if last else "middle", self.places[place]))
        return found


def ticks_to(most: int) -> list[int]:
    """Round numbers from 0 up to `most` or just above, for an axis: at most five steps of 1, 2 or 5 times a power of ten."""
    most = max(most, 1)
    step = next(times * 10**power for power in count() for times in (1, 2, 5) if times * 10**power * _TICKS >= most)
    return [step * n for n in range(-(-most // step) + 1)]


def short(number: int) -> str:
    """A number as it fits beside an axis: 1,500 as 1.5k."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.2f}".rstrip("0").rstrip(".") + letter
    return str(number)


def _tick(tick: int, top: int) -> Markup:
    y = _y(tick, top)
    return _LINE.format("" if tick else "axis", _LEFT, _WIDTH - _RIGHT, y=y) + _NUMBER.format(
        _LEFT - 8, y + 4.5, short(tick)
    )


def _y(number: int, top: int) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * number / top


def _room(places: int) -> float:
    return (_WIDTH - _LEFT - _RIGHT) / max(1, places)
