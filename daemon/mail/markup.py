"""HTML to the plain text a reader sees, with quoted blocks marked by "> " as in plain mail.

Hidden text, comments, styles and scripts are left out; what a mail program marks as quoted (blockquote, gmail_quote,
...) or as a signature is marked as quoted, so that quoting.py need not know HTML.

Our own scanner, going over the text once: tree builders (lexbor through selectolax) look up the whole stack for every
`<p>` and `<div>`, which took 27 s, with the interpreter lock held, for 650 KB of nested ones. We need no tree.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Final

from daemon.mail.patterns import pattern

_TAG_NAME = pattern(r"[a-z][a-z0-9:]{0,30}")
_ATTRIBUTE = pattern(
    r"(?<![a-z-])(class|id|style|type|hidden)(?:\s{0,5}=\s{0,5}(?:\"([^\"]*)\"|'([^']*)'|"
    r"([^\s\"'>]{1,500})))?(?=[\s/>]|$)"
)
_SPACE = pattern(r"\s+")
_STYLE = pattern(
    r"display:none|visibility:hidden|mso-hide:all|opacity:0(?![.\d])|max-height:0(?![.\d])|text-indent:-\d{3}"
    r"|font-size:[01](?:\.\d{1,4})?(?:px|pt|em|%)?(?![\d.a-z])|(?<![a-z-])color:(?:#fff|#ffffff|white|"
    r"transparent)(?![a-z0-9])"
)

_TAG_LIMIT: Final = 20_000  # characters of one tag; what is longer is text
_STACK_LIMIT: Final = 64  # how far up a closing tag looks for its opener
_UNSEEN: Final = frozenset("style script head title template noscript svg math object iframe select textarea".split())
_RAW: Final = frozenset("style script title textarea".split())  # their content is no markup (HTML 13.2.5.2)
_VOID: Final = frozenset("br hr img input meta link area base col embed source track wbr".split())
_PARAGRAPHS: Final = frozenset("p h1 h2 h3 h4 h5 h6 ul ol table pre".split())
_BLOCKS: Final = _PARAGRAPHS | frozenset(
    "div br tr li hr blockquote section article header footer address center dd dt dl body".split()
)
_QUOTE_CLASSES: Final = (
    "gmail_quote", "gmail_extra", "yahoo_quoted", "protonmail_quote", "moz-cite", "zmail_extra", "tutanota_quote",
    "ms-outlook-mobile-reference", "hs_reply", "wisestamp_quote", "mailru-quote", "gmail_signature", "moz-signature",
    "protonmail_signature", "ydp-signature",
)  # fmt: skip
_REST_IDS: Final = ("divrplyfwdmsg", "appendonsend")  # Outlook: above the copy, which goes on to the end
_QUOTE_IDS: Final = (
    "divrplyfwdmsg",
    "replysplit",
    "isforwardcontent",
    "isreplycontent",
    "mail-editor-reference-message-container",
)


def to_text(markup: str) -> str:
    """Visible text of an HTML part: a line per block, quoted lines with "> " in front."""
    out = _Text()
    for is_tag, piece in _tokens(markup):
        if not is_tag:
            out.add(piece)
        elif piece.startswith("/"):
            out.close(piece[1:].strip().lower())
        elif name := _TAG_NAME.match(piece):
            out.open(name[0].lower(), piece[name.end() :])
    return out.text()


class _Text:
    """The text so far, and the open elements that matter for what follows."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.line: list[str] = []
        self.stack: list[tuple[str, bool, bool]] = []  # name, hidden, quoted
        self.hidden = self.quoted = 0

    def add(self, piece: str) -> None:
        if not self.hidden:
            self.line.append(_SPACE.sub(" ", html.unescape(piece)))

    def end_line(self, *, paragraph: bool = False) -> None:
        line = "".join(self.line).replace("\xa0", " ").strip()
        self.line.clear()
        if line or (not paragraph and self.lines[-2:] != ["", ""]):  # thousands of empty blocks are one gap
            self.lines.append(("> " if self.quoted else "") + line)
        if paragraph and self.lines and self.lines[-1] not in ("", "> "):
            self.lines.append("> " if self.quoted else "")

    def open(self, name: str, attributes: str) -> None:
        if name in ("p", "li", "td", "tr") and self.stack and self.stack[-1][0] == name:
            self.close(name)  # the end tag may be left out (HTML 13.1.2.4)
        if not self.hidden and name in _BLOCKS:
            self.end_line(paragraph=name in _PARAGRAPHS)
        if name in ("td", "th") and not self.hidden:
            self.line.append("\t")  # tells a web form's label from its value (own.py)
        if name in _VOID or (attributes.endswith("/") and name not in _BLOCKS):
            return
        hidden, quoted = _meaning(attributes)
        hidden, quoted = hidden or name in _UNSEEN, quoted or name == "blockquote"
        if quoted and not self.hidden:
            self.end_line(paragraph=True)
        if quoted and not self.hidden and any(mark in attributes[:4000].lower() for mark in _REST_IDS):
            self.quoted += 1  # and stays so: the copy follows in elements of its own
        self.stack.append((name, hidden, quoted))
        self.hidden += hidden
        self.quoted += quoted

    def close(self, name: str) -> None:
        for depth in range(1, min(len(self.stack), _STACK_LIMIT) + 1):
            if self.stack[-depth][0] == name:
                break
        else:
            return
        if name in _BLOCKS and not self.hidden:
            self.end_line(paragraph=name in _PARAGRAPHS)
        for _, hidden, quoted in self.stack[-depth:]:
            if quoted and not self.hidden:
                self.end_line(paragraph=True)
            self.hidden -= hidden
            self.quoted -= quoted
        del self.stack[-depth:]

    def text(self) -> str:
        self.end_line()
        return "\n".join(self.lines)


def _meaning(attributes: str) -> tuple[bool, bool]:
    """Does an element with these attributes (hide, quote)?"""
    hidden = quoted = False
    if "=" not in attributes and "hidden" not in attributes:
        return False, False
    for found in _ATTRIBUTE.finditer(attributes[:4000]):
        name = found[1].lower()
        value = (found[2] or found[3] or found[4] or "").lower()
        if name == "hidden":
            hidden = True
        elif name == "style":
            hidden = hidden or _hides(html.unescape(value).replace(" ", ""))
        elif name == "class":
            quoted = quoted or any(mark in value for mark in _QUOTE_CLASSES)
        elif name == "id":
            quoted = quoted or any(mark in value for mark in _QUOTE_IDS)
        elif name == "type":
            quoted = quoted or value == "cite"
    return hidden, quoted


def _hides(style: str) -> bool:
    found = _STYLE.search(style)
    if not found:
        return False
    return not (found[0].startswith("color") and "background" in style)  # white on a dark ground is a button, no secret


def _tokens(markup: str) -> Iterator[tuple[bool, str]]:
    """(is it a tag?, the text or what stands between < and >), in order; comments and declarations left out."""
    position, size = 0, len(markup)
    while position < size:
        start = markup.find("<", position)
        if start < 0 or start + 1 >= size:
            yield False, markup[position:]
            return
        if start > position:
            yield False, markup[position:start]
        if markup.startswith("<!--", start):
            end = markup.find("-->", start + 2)
            position = size if end < 0 else end + 3
        elif not (markup[start + 1].isalpha() or markup[start + 1] in "/!?"):
            yield False, "<"
            position = start + 1
        else:
            end = _tag_end(markup, start)
            if markup[start + 1] not in "!?":
                yield True, markup[start + 1 : end]
            position = _after_raw(markup, start, end + 1)


def _tag_end(markup: str, start: int) -> int:
    """The > that ends a tag: one inside quotes does not, but a quote left open must not swallow the message."""
    first = markup.find(">", start)
    if first < 0:
        return len(markup)
    end = first
    for _ in range(20):
        if end < 0 or end - start > _TAG_LIMIT:
            return first
        if markup.count('"', start, end) % 2 == 0:
            return end
        end = markup.find(">", end + 1)
    return first


def _after_raw(markup: str, start: int, after: int) -> int:
    """Where to go on after a tag: behind the content of elements that hold no markup."""
    name = _TAG_NAME.match(markup, start + 1)
    if not name or name[0].lower() not in _RAW:
        return after
    tag = "</" + name[0]
    end = markup.find(tag, after)
    if end < 0:
        end = markup.find(tag.upper() if tag.islower() else tag.lower(), after)
    return end if end >= 0 else len(markup)
