"""The house's colour on our pages, so that everybody can read what is written in it or on it (WCAG 2, 1.4.3). Pure."""

from __future__ import annotations

from typing import Final

WHITE: Final = (255, 255, 255)
BLACK: Final = (0, 0, 0)
LIGHT: Final = WHITE  # the grounds of the two themes in static/style.css
DARK: Final = (0x17, 0x18, 0x1A)
READABLE: Final = 4.5  # to one
Rgb = tuple[int, int, int]


def parse(colour: str) -> Rgb:
    """`#rrggbb` as three numbers of 0..255."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


def written(colour: Rgb) -> str:
    """As CSS has it."""
    return "#" + bytes(colour).hex()


def contrast(one: Rgb, other: Rgb) -> float:
    """From 1 (the same) to 21 (black and white)."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: Rgb) -> float:
    shares = [c / 255 for c in colour]
    red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def text_on(ground: Rgb) -> Rgb:
    """Black or white, whichever is easier to read there: at least 4.58 to one on any colour."""
    return max(WHITE, BLACK, key=lambda text: contrast(text, ground))


def readable(colour: Rgb, ground: Rgb) -> Rgb:
    """The colour, as much darker or lighter as it takes to be read on this ground."""
    end = text_on(ground)
    for step in range(256):
        mixed = _mix(colour, end, step / 255)
        if contrast(mixed, ground) >= READABLE:
            return mixed
    return end


def _mix(one: Rgb, other: Rgb, share: float) -> Rgb:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def rules(colour: str) -> str:
    """What is set behind the stylesheet for a house with this colour ("#rrggbb").

    On a light ground buttons have the colour itself, with a border and links as dark as they must be; on a dark one all
    of it is as light as it must be.
    """
    own = parse(colour)
    light = _rule(own, readable(own, LIGHT))
    lightened = readable(own, DARK)
    return f"\n{light}\n\n@media (prefers-color-scheme: dark) {{\n{_rule(lightened, lightened)}\n}}\n"


def _rule(fill: Rgb, strong: Rgb) -> str:
    return f":root {{ --fill: {written(fill)}; --on-fill: {written(text_on(fill))}; --strong: {written(strong)}; }}"
