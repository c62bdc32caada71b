"""Our own bounded reader of addresses: From and To fields (RFC 5322 section 3.4), and addresses in running text.

`email.policy.default` took 2.1 s on a 300 KB To field and recursed on nested comments; this goes over the value once.
"""

from __future__ import annotations

from typing import Final

from daemon.mail.patterns import pattern
from storage.address import NotAnAddress, parse

FIELD_LIMIT: Final = 65_536
MOST: Final = 200

_IN_TEXT = pattern(
    r"(?<![\w.+@-])(?:\"[^\"\s@]{1,60}\"|[^\s<>()\[\]\\,;:\"'`|"
    r"=@*]{1,64})@[a-z0-9\u0080-\uffff](?:[a-z0-9._\u0080-\uffff-]{0,251}[a-z0-9\u0080-\uffff])?"
)
_AT = r"(?:[\[({<]\s?(?:at|@|a t|ät|arroba|arobase|klammeraffe)\s?[\])}>]|\s(?:at|\[at\]|arroba|arobase)\s)"
_DOT = r"(?:[\[({<]\s?(?:dot|punkt|point|punto|\.)\s?[\])}>]|\s(?:dot|punkt|point|punto)\s|\.)"
_HIDDEN = pattern(
    rf"(?<![\w.+-])([a-z0-9_+-]{{1,40}}(?:(?:{_DOT}|\.)[a-z0-9_+-]{{1,40}}){{0,4}})\s?{_AT}\s?"
    rf"([a-z0-9-]{{1,60}}(?:\s?{_DOT}\s?[a-z0-9-]{{1,60}}){{1,4}})"
)
# "everyone at acme.example" is no address, though "jo at acme.example" is one.
_NO_NAMES: Final = frozenset(
    "address addresses me us you mail mails email emails mailbox mailboxes inbox everyone everybody anyone anybody all people"
    " colleagues users employees staff team office work here there account accounts look site page website shop server"
    " domain him her them person persons someone contact contacts list lists is are was were in on subscribed registered"
    " now only currently listed recipients folks coworkers sales anything everything it mine ours reached arrives".split()
)
_DOTS = pattern(rf"\s?{_DOT}\s?")


def spec(text: str) -> str | None:
    """The addr-spec `text` as written, its domain in lower case; None if it is none."""
    text = text.strip().strip("<>").strip()
    local, at, domain = text.rpartition("@")
    if not at or not local or len(text) > 320:
        return None
    try:
        parse(text)
    except NotAnAddress:
        return None
    if "." not in domain and not domain.startswith("["):
        return None
    return f"{local}@{domain.lower().removesuffix('.')}"


def read(value: str) -> list[tuple[str, str]]:
    """A From or To value -> [(display name as written, addr-spec or "")], at most MOST."""
    out = []
    for piece in _pieces(value[:FIELD_LIMIT]):
        bare, angle, comment = _one(piece)
        if angle is not None:
            out.append((bare.strip().strip('"').strip(), spec(angle) or ""))
        elif bare.strip():
            found = spec(bare.replace(" ", "") if bare.count("@") == 1 and '"' not in bare else bare)
            out.append((comment.strip(), found or ""))
        if len(out) >= MOST:
            break
    return out


def specs(value: str) -> list[str]:
    """The addr-specs of a From or To value."""
    return [address for _, address in read(value) if address]


def _pieces(value: str) -> list[str]:
    """Split at the commas (and semicolons, which Outlook writes) outside quotes, comments and angle brackets."""
    out, start, quoted, comment, angle = [], 0, False, 0, False
    skip = False
    for n, char in enumerate(value):
        if skip:
            skip = False
        elif char == "\\" and (quoted or comment):
            skip = True
        elif char == '"' and not comment:
            quoted = not quoted
        elif quoted:
            continue
        elif char == "(":
            comment += 1
        elif char == ")" and comment:
            comment -= 1
        elif comment:
            continue
        elif char in "<>":
            angle = char == "<"
        elif char in ",;" and not angle:
            out.append(value[start:n])
            start = n + 1
        elif char == ":" and not angle:
            start = n + 1  # the name of a group (RFC 5322 section 3.4)
    out.append(value[start:])
    return out


def _one(piece: str) -> tuple[str, str | None, str]:
    """One mailbox -> (text outside comments and angle, what stood in <>, or None, the comments)."""
    bare: list[str] = []
    angle: list[str] | None = None
    comments: list[str] = []
    quoted, depth, inside = False, 0, False
    for char in piece:
        if char == '"' and not depth:
            quoted = not quoted
        if depth:
            depth += {"(": 1, ")": -1}.get(char, 0)
            comments.append(char if depth else " ")
        elif char == "(" and not quoted:
            depth = 1
        elif char == "<" and not quoted and angle is None:
            angle, inside = [], True
        elif char == ">" and not quoted and inside:
            inside = False
        elif inside and angle is not None:
            angle.append(char)
        else:
            bare.append(char)
    return "".join(bare), None if angle is None else "".join(angle), "".join(comments)


def _after_signs(written: str) -> str:
    """Chinese and Japanese leave no space before an address: what stands before its Latin letters is not part of it."""
    local, at, domain = written.rpartition("@")
    signs = [n for n, char in enumerate(local) if "\u3000" <= char <= "\u9fff" or "\uff00" <= char <= "\uffef"]
    latin = local[signs[-1] + 1 :] if signs else local
    return f"{latin or local}{at}{domain}"


def in_text(text: str) -> list[tuple[int, int, str]]:
    """Addresses in running text, plain or disguised ("x (at) y (dot) z") -> [(start, end, addr-spec)], at most MOST."""
    out: list[tuple[int, int, str]] = []
    for found in _IN_TEXT.finditer(text):
        address = spec(_after_signs(found[0].removeprefix("mailto:").strip("'.*")))
        if address:
            out.append((found.start(), found.end(), address))
        if len(out) >= MOST:
            return out
    for found in _HIDDEN.finditer(text):
        if found[1].lower() in _NO_NAMES:
            continue
        address = spec(f"{_DOTS.sub('.', found[1])}@{_DOTS.sub('.', found[2])}")
        if address and not any(start < found.end() and found.start() < end for start, end, _ in out):
            out.append((found.start(), found.end(), address))
        if len(out) >= MOST:
            break
    return sorted(out)
