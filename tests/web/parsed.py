"""A page as a browser takes it apart: which elements there are, and what text it shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

from tests.web.hostile import CANARY, UNSEEN

_KNOWN_HANDLERS = "on"


@dataclass
class _Taken(HTMLParser):
    tags: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)


@dataclass(frozen=True)
class Parsed:
    """`tags`: elements in order. `attributes`: (element, name, value). `text`: all of it, in one."""

    tags: tuple[str, ...]
    attributes: tuple[tuple[str, str, str], ...]
    text: str
    comments: tuple[str, ...]


def parsed(page: str) -> Parsed:
    """Take a page apart."""
    taken = _Taken()
    taken.feed(page)
    taken.close()
    return Parsed(tuple(taken.tags), tuple(taken.attributes), "".join(taken.text), tuple(taken.comments))


def holds(page: str, *, usual: tuple[str, ...] | None = None) -> Parsed:
    """The page, on which nothing of a stranger's is anything but text. `usual`: the elements of the page without it."""
    it = parsed(page)
    if usual is not None:
        assert it.tags == usual
    assert not it.comments
    assert not [a for a in it.attributes if a[1].startswith(_KNOWN_HANDLERS) or a[1] == "style"]
    for tag, name, value in it.attributes:
        plain = name in ("value", "title", "aria-label", "placeholder", "download")
        assert plain or CANARY not in value or value.startswith("/console/"), (tag, name, value)
        if name in ("href", "src", "action", "formaction"):
            assert value.startswith(("/", "#")), (tag, name, value)
            assert not value.startswith("//"), (tag, name, value)
    assert not [c for c in UNSEEN if c in page.replace("\n", "")]
    return it
