"""The writer's own words: what is new in a message, without quotations, signatures and disclaimers. Linear time.

Goes over the lines once, with a few lines of look-ahead. Answers between or below quoted lines are own words; each
knows the quoted lines it follows, so that "yes, do that" can be understood.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Literal

from daemon.mail import marks
from daemon.mail.header_names import LABEL_OF
from daemon.mail.normalizing import composed

TEXT_LIMIT: Final = 400_000  # characters of readable text that are looked at
WORDS_LIMIT: Final = 65_536  # characters of own words
_LABEL_LIMIT: Final = max(map(len, LABEL_OF)) + 1
_SHORT: Final = 150  # characters of an attribution without an address
_INLINE_LIMIT: Final = 900  # characters of a line with several fields on it
LINE_LIMIT: Final = 4_000  # characters of one line that patterns see

_INVISIBLE: Final = dict.fromkeys(
    (173, 847, 1564, 6158, *range(8203, 8208), *range(8234, 8239), *range(8288, 8293), *range(8294, 8304), 65279)
) | {0x00A0: " ", 0x202F: " ", 0x3000: " ", 0x2028: "\n", 0x2029: "\n", 0x85: "\n", 0x0B: "\n", 0x0C: "\n"}


@dataclass(slots=True)
class Copy:
    """What a quoted or forwarded copy says of itself in its header block or attribution line (raw values)."""

    author: str = ""
    to: str = ""
    subject: str = ""
    forwarded: bool = False


@dataclass(slots=True)
class OwnWords:
    """The result: `text` (paragraphs and lines as written), the quoted text, answers and copies found in it."""

    text: str = ""
    quoted: str = ""
    answers: list[tuple[str, str]] = field(default_factory=list)  # (the quoted lines just before, the own line)
    copies: list[Copy] = field(default_factory=list)


def clean(text: str) -> str:
    """Without invisible characters, full-width letters folded, line ends and spaces made plain."""
    text = text.translate(_INVISIBLE)
    if not text.isascii():
        text = composed(text)
        text = text.translate(_FULL_WIDTH)
    return text.replace("\r\n", "\n").replace("\r", "\n")


_FULL_WIDTH: Final = {c: c - 0xFEE0 for c in range(0xFF01, 0xFF5F)}


def own_words(text: str, author: str = "") -> OwnWords:
    """Sort the lines of a readable text. `author`: display name of From, which may stand alone above a signature."""
    return _Sorter(clean(text[:TEXT_LIMIT]).split("\n"), author).sorted()


class _Sorter:
    """Goes over the lines once. `state`: what an unmarked line here belongs to."""

    def __init__(self, lines: list[str], author: str) -> None:
        self.lines = lines
        self.author = author
        self.out = OwnWords()
        self.kept: list[str] = []
        self.quoted: list[str] = []
        self.before: list[str] = []  # quoted lines since the last own line
        self.state: Literal["own", "signature", "disclaimer"] = "own"
        self.size = 0

    def sorted(self) -> OwnWords:
        n = 0
        while n < len(self.lines) and self.size < WORDS_LIMIT:
            if _rest_is_quoted(self.lines, n, self.out):
                self.quoted += self.lines[n:]
                break
            line = self.lines[n]
            n += self._special(n, line) or self._unmarked(n, line[:LINE_LIMIT])
        self.out.text = "\n".join(self.kept).strip("\n")[:WORDS_LIMIT]
        self.out.quoted = "\n".join(self.quoted)[:WORDS_LIMIT]
        _read_copies(self.quoted, self.out)
        return self.out

    def _special(self, n: int, line: str) -> int:
        """How many lines a quotation, attribution or PGP armour takes here; 0 if none of these begins."""
        if marks.QUOTED.match(line[:LINE_LIMIT]) and not _is_arrow(line):
            self.quoted.append(line[:LINE_LIMIT])
            self.before.append(line[:LINE_LIMIT])
            self.state = "own"
            return 1
        if taken := _attribution(self.lines, n) or int(_is_bare_attribution(self.lines, n)):
            self.out.copies.append(Copy(author=" ".join(self.lines[n : n + taken])[:500]))
            self.state = "own"
            return taken
        match _pgp(line):
            case "end":
                return _pgp_end(self.lines, n) - n + 1
            case "head":
                return 2 if n + 1 < len(self.lines) and self.lines[n + 1].startswith("Hash:") else 1
            case _:
                return 0

    def _unmarked(self, n: int, line: str) -> int:
        """Own words, signature or disclaimer."""
        if marks.PS.match(line) and self.state != "disclaimer":
            self.state = "own"
            self.kept.append(line)
        elif marks.SIGNATURE_MARK.match(line) or _is_mobile(line):
            if self.state == "own" and marks.SIGNATURE_MARK.match(line) and (self.kept or line.rstrip() == "--"):
                self.state = "signature"
        elif _is_list_footer(self.lines, n) and any(x.strip() for x in self.kept):
            self.state = "signature" if self.state == "own" else self.state
        elif marks.DISCLAIMER.match(line) and any(x.strip() for x in self.kept):
            self.state = "disclaimer"
        elif _is_closing(self.lines, n, self.kept, self.author):
            self.kept.append(line if marks.CLOSING.match(line) else "")
            self.state = "signature" if self.state == "own" else self.state
        elif self.state == "own":
            self._own(line)
        return 1

    def _own(self, line: str) -> None:
        self.kept.append(line)
        self.size += len(line) + 1
        if line.strip():
            if self.before:
                self.out.answers.append(("\n".join(self.before[-6:]), line))
                if any(x.strip(" >|") for x in self.before[-3:]):
                    self.kept.insert(len(self.kept) - 1, "")
            self.before = []


def _is_mobile(line: str) -> bool:
    """ "Sent from my phone" and its like: names a device or program, or is short and begins like a sentence."""
    if not marks.MOBILE.match(line):
        return False
    bare = line.strip()
    return bool(marks.DEVICE.search(bare[:300])) or (len(bare.split()) <= 8 and not bare[0].islower())


def _is_list_footer(lines: list[str], n: int) -> bool:
    """A line drawn above what list software adds at the end: a few lines that name the mailing list."""
    if not marks.UNDERSCORES.match(lines[n][:LINE_LIMIT]):
        return False
    rest = [line[:300] for line in lines[n + 1 : n + 12] if line.strip()]
    return len(lines) - n <= 12 and any(marks.LIST_WORDS.search(line) for line in rest)


def _is_arrow(line: str) -> bool:
    bare = line.lstrip()
    return bare[:1] not in (">", "|", "»") and (len(bare) < 3 or bare.split(">")[0] != bare.split(">")[0].upper())


def _rest_is_quoted(lines: list[str], n: int, out: OwnWords) -> bool:
    """Does an unmarked copy begin here, that goes on to the end?"""
    line = lines[n][:LINE_LIMIT]
    if not line.strip() or line.lstrip().startswith(">"):
        return False
    block = _separated(lines, n) or _headed(lines, n)
    if block is None:
        return False
    out.copies.append(block)
    return True


def _separated(lines: list[str], n: int) -> Copy | None:
    """The copy below "-----Original Message-----" and its like; the words may be in a language not known here."""
    line = lines[n][:LINE_LIMIT]
    known, dashed = marks.SEPARATOR.match(line), marks.DASHED.match(line)
    if not known and not dashed:
        return None
    inline = _split_fields(dashed[2]) if dashed and dashed[2] else []
    block = _header_block(inline or lines[n + 1 : n + 16])
    block.forwarded = bool(marks.FORWARDED.search(line))
    if known and (block.forwarded or not _next_is_quoted(lines, n + 1)):
        return block
    has_fields = block.author and (block.to or block.subject)
    return block if has_fields and (inline or not dashed or not dashed[2]) else None


def _headed(lines: list[str], n: int) -> Copy | None:
    """The copy below a block of fields, perhaps with a line of underscores above it."""
    line = lines[n][:LINE_LIMIT]
    if marks.UNDERSCORES.match(line):
        block = _header_block(lines[n + 1 : n + 14])
    elif (label := marks.LABEL.match(line)) and LABEL_OF.get(label[1].strip().lower()) in (
        "from",
        "subject",
        "date",
        "to",
    ):
        block = _header_block(lines[n : n + 12])
        if not block.author and len(line) < _INLINE_LIMIT:
            block = _header_block(_split_fields(line.strip()))
    else:
        return None
    return block if block.author and (block.to or block.subject) else None


def _split_fields(line: str) -> list[str]:
    """Yahoo puts all fields on one line: "From: Ann <a@b.example>To: Bob ... GMT+1Subject: News"."""
    line = line[:_INLINE_LIMIT]
    cuts = [start for colon, char in enumerate(line) if char in ":：" and (start := _label_start(line, colon)) >= 0]
    return [line[start:end] for start, end in pairwise([*cuts, len(line)])] if cuts and not cuts[0] else []


def _label_start(line: str, colon: int) -> int:
    """Where the longest field name that ends at this colon begins; -1 if none does."""
    for start in range(max(0, colon - _LABEL_LIMIT), colon):
        glued = start > 0 and line[start - 1].isalpha() and not (line[start - 1].isupper() and line[start].isupper())
        if not glued and not line[start].isspace() and line[start:colon].rstrip().lower() in LABEL_OF:
            return start
    return -1


def _next_is_quoted(lines: list[str], n: int) -> bool:
    """Is the next line that says something, among the next four, marked as quoted?"""
    following = next((line for line in lines[n : n + 4] if line.strip()), "")
    return bool(marks.QUOTED.match(following[:LINE_LIMIT]))


def _header_block(lines: list[str]) -> Copy:
    """Read `From: ... Sent: ... To: ... Subject: ...` in any of the languages; lines may be folded."""
    copy, last = Copy(), ""
    kinds: set[str] = set()
    for line in lines:
        if not line.strip(" >\t*"):
            if len(kinds) >= 2:
                break
            continue
        found = marks.LABEL.match(line[:LINE_LIMIT])
        kind = LABEL_OF.get(found[1].strip(" *").lower(), "") if found else ""
        if found and kind and kind not in kinds:
            kinds.add(kind)
            last = kind
            _put(copy, kind, found[2].strip(" *"))
        elif last in ("to", "subject") and not found:
            _put(copy, last, line.strip())
        elif not kinds:
            break
    return copy if len(kinds) >= 2 else Copy()


def _put(copy: Copy, kind: str, value: str) -> None:
    match kind:
        case "from":
            copy.author = value[:500]
        case "to":
            copy.to = f"{copy.to} {value}".strip()[:2000]
        case "subject":
            copy.subject = f"{copy.subject} {value}".strip()[:500]
        case _:
            pass


def _read_copies(quoted: list[str], out: OwnWords) -> None:
    """Header blocks inside the quotation (Gmail puts "> " in front of what it forwards)."""
    if any(copy.to for copy in out.copies):
        return
    bare = [line.lstrip(" >|") for line in quoted[:60]]
    for n, line in enumerate(bare):
        found = marks.LABEL.match(line[:LINE_LIMIT])
        if found and LABEL_OF.get(found[1].strip().lower()) == "from":
            block = _header_block(bare[n : n + 10])
            if block.author and (block.to or block.subject):
                out.copies.append(block)
                return


def _attribution(lines: list[str], n: int) -> int:
    """How many lines an attribution ("On ... wrote:") takes that begins at n; 0 if none does.

    An attribution above unmarked text is taken as one as well, and the text then counts as quoted (`_mark_rest`).
    """
    line = lines[n][:LINE_LIMIT]
    if not line.strip() or len(line) > 400:
        return 0
    if not marks.ATTRIBUTION_START.match(line) and not ("<" in line and "@" in line):
        return 0
    joined = ""
    for m in range(n, min(n + 8, len(lines))):
        piece = lines[m][:LINE_LIMIT].strip()
        is_open = joined.count("<") > joined.count(">")
        if m > n and not piece and not is_open and not _next_bracket(lines, m):
            return 0
        if m > n and not is_open and (marks.QUOTED.match(lines[m]) or m - n > 3):
            return 0
        joined = f"{joined} {piece}".strip()[:600]
        if piece and _is_attribution(joined, _next_is_quoted(lines, m + 1)):
            _mark_rest(lines, m + 1)
            return m + 1 - n
    return 0


def _next_bracket(lines: list[str], n: int) -> bool:
    """Is an address in "<...>" torn off by a blank line?"""
    return n + 1 < len(lines) and lines[n + 1].strip()[:1] == "<"


def _is_attribution(joined: str, above_quote: bool) -> bool:
    end = joined[-250:]
    if not end.endswith((":", "：", ">", ")", "]")) and not marks.WROTE.search(end[-90:]):
        return False
    if not above_quote and marks.I_WROTE.search(joined):
        return False  # what he wrote himself is likely to follow
    bracketed = bool(marks.BRACKETED.search(joined))
    verb_within = bool(marks.WROTE_WITHIN.search(joined))
    has_colon = joined.endswith((":", "："))
    return bool(
        (marks.WROTE.search(end[-90:]) and marks.HAS_DATE_OR_ADDRESS.search(joined))
        or (marks.TIME.search(joined) and marks.ADDRESS_AND_COLON.search(end))
        or (bracketed and has_colon and marks.HAS_DATE.search(joined) and (above_quote or verb_within))
        or (has_colon and verb_within and len(joined) <= _SHORT and (marks.TIME.search(joined) or _is_dated(joined)))
        or (above_quote and marks.STARTS_WITH_DATE.match(joined) and marks.ADDRESS_AT_END.search(end))
    )


def _is_dated(joined: str) -> bool:
    """Does it begin as an attribution with a date does ("Am 3. März 2025 schrieb Ann:")?"""
    found = marks.ATTRIBUTION_START.match(joined)
    return bool(found and not marks.WROTE_WITHIN.search(found[0]) and marks.HAS_DATE.search(joined))


def _is_bare_attribution(lines: list[str], n: int) -> bool:
    """Is it "-----Original Message-----", or "Ann Example wrote:" without date and address, above marked lines?"""
    line = lines[n][:LINE_LIMIT].strip()
    if len(line) > _SHORT or not _next_is_quoted(lines, n + 1):
        return False
    if marks.SEPARATOR.match(line):
        return True
    return (
        len(line.split()) <= 5
        and line.endswith((":", "："))
        and bool(marks.WROTE.search(line))
        and not marks.I_WROTE.search(line)
    )


def _mark_rest(lines: list[str], start: int) -> None:
    """Below an attribution stands a quotation: if it bears no marks, all that follows gets one."""
    for n in range(start, min(len(lines), start + 4)):
        if lines[n].strip():
            if not marks.QUOTED.match(lines[n]):
                lines[n:] = ["> " + line for line in lines[n:]]
            return


def _pgp(line: str) -> str:
    if not line.startswith("-----BEGIN PGP "):
        return ""
    return "head" if "SIGNED MESSAGE" in line else "end"


def _pgp_end(lines: list[str], n: int) -> int:
    while n < len(lines) and not lines[n].startswith("-----END PGP "):
        n += 1
    return n


def _is_closing(lines: list[str], n: int, kept: list[str], author: str) -> bool:
    """Does the signature begin here: a closing formula with a name below it, or the author's own name alone?"""
    line = lines[n].strip()
    if not line or len(line) > 80 or not any(x.strip() for x in kept):
        return False
    following = [x.strip() for x in lines[n + 1 : n + 4] if x.strip()]
    if marks.CLOSING.match(line):
        return bool(following) and _is_name(following[0])
    return _is_own_name(line, author)


def _is_name(line: str) -> bool:
    words = line.strip(" ,.!").split()
    if len(words) == 1 and len(words[0]) == 1:
        return words[0].isalpha()  # an initial
    return (
        0 < len(words) <= 4
        and not line.endswith(("!", "?", ":"))
        and all(not w[0].islower() or w in ("von", "van", "de", "der", "la", "di", "da") for w in words)
    )


def _is_own_name(line: str, author: str) -> bool:
    if not author or len(line) < 2:
        return False
    name = {w for w in author.lower().replace(",", " ").replace('"', " ").split() if len(w) > 1}
    words = line.lower().strip(" ,.-–!").replace(",", " ").split()
    return (
        0 < len(words) <= 5
        and bool(name)
        and all(w in name or (len(w) <= 2 and w.endswith(".")) or w == "&" for w in words)
    )
