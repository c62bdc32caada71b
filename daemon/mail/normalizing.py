"""Unicode normal forms (UAX 15) of what strangers write, in a time that grows as its length does.

To sort the marks on one letter takes the square of their number, in one call during which no other thread gets its turn: a
mail with a few hundred thousand of them would stop the whole daemon for minutes. No script has more than a few on a letter.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final, Literal

_MOST: Final = 30  # marks on one letter that are kept, as in the Stream-Safe Text Format (UAX 15, 13)
_MADE_OF_MARKS: Final = "\u0f73\u0f75\u0f81\uff9e\uff9f"  # of class 0, but taken apart they are nothing but marks
# Whatever is a mark is neither word nor space to `re`; what else is in such a row stays.
_ROW: Final = re.compile(rf"(?:[^\w\s\x00-\x7f]|[{_MADE_OF_MARKS}]){{{_MOST + 1},}}")


def composed(text: str, form: Literal["NFC", "NFKD"] = "NFC") -> str:
    """The normal form of a text; of more than 30 marks on one letter the others are left out."""
    return unicodedata.normalize(form, _ROW.sub(_thinned, text))


def _thinned(row: re.Match[str]) -> str:
    kept, marks = [], 0
    for char in row[0]:
        marks = marks + 1 if unicodedata.combining(char) or char in _MADE_OF_MARKS else 0
        if marks <= _MOST:
            kept.append(char)
    return "".join(kept)
