"""What somebody who brings a list asks for: the same for the command line, the console and the API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final

from daemon.exchange.importing import digest
from daemon.exchange.portions import Terms
from storage.terms import ALL, REASONS, moment

_EXPLICIT: Final = frozenset(("csv", "tsv", "text", "json", "ndjson", "optoutd"))  # whose rows may mean a whole domain


@dataclass(frozen=True, slots=True)
class Asked:
    """`format`: one of formats.FORMATS. `column`: name or number of the column of addresses. `list_id`, `reason`, `as_of`: of
    rows that do not say it themselves; `as_of` as it was given, a date or a time."""

    format: str = "auto"
    column: str | None = None
    list_id: str | None = None
    reason: str = "opt-out"
    as_of: str | None = None

    def terms(self, found: str, numbers: Mapping[str, int], soft_days: int) -> Terms:
        """What that is to whom reads the rows. `found`: the format that the list turned out to have.

        Raises ValueError for an `as_of` that is no date.
        """
        scope = ALL if self.list_id is None else numbers[self.list_id]
        day = None if self.as_of is None else moment(self.as_of)
        return Terms(scope, REASONS[self.reason], day, found in _EXPLICIT, soft_days)

    def digest(self, file: BinaryIO) -> bytes:
        """What tells one import from another: the octets of the file, and what was asked for. It stands where it stood."""
        asked = {
            "format": self.format,
            "column": self.column,
            "list": self.list_id,
            "reason": self.reason,
            "as_of": self.as_of,
        }
        stood = file.tell()
        file.seek(0)
        found = digest(file, asked)
        file.seek(stood)
        return found


def cell(text: str) -> str:
    """What somebody else wrote, on one line and without controls. Octets that are no text come back out as they were."""
    return "".join(
        c if c.isprintable() or "\udc80" <= c <= "\udcff" else c.encode("unicode_escape").decode() for c in text
    )
