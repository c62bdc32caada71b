"""The rows of a list that could not go in, as a file to be mended and brought again: CSV, for a spreadsheet."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from daemon.exchange.asking import cell
from daemon.exchange.rows import Bad
from daemon.exchange.tables import escaped

MOST: Final = 1_000_000  # rows: a list of two gigabytes may be bad from the first to the last


class Rejects:
    """A file without a name (0600) in `directory`, made when there is something to put into it."""

    def __init__(self, directory: Path, most: int = MOST):
        self._directory, self._most = directory, most
        self._file: BinaryIO | None = None
        self.rows = 0

    @property
    def cut(self) -> bool:
        """Were there more than are in it?"""
        return self.rows > self._most

    def begin(self) -> None:
        """From the beginning of the list, once more."""
        self.close()
        self.rows = 0

    def __call__(self, bad: Bad) -> None:
        """One more. Raises OSError."""
        self.rows += 1
        if self.rows > self._most:
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115 - stays open over many calls; `close` ends it
            self._file.write(escaped(("line", "reason", "row")).encode())
        row = escaped((str(bad.line), cell(bad.why), cell(bad.text)))
        self._file.write(row.encode("utf-8", "surrogateescape"))

    @property
    def octets(self) -> int:
        """How long the file is."""
        if self._file is None:
            return 0
        self._file.flush()
        return os.fstat(self._file.fileno()).st_size

    @contextmanager
    def reading(self) -> Iterator[Callable[[int], bytes]]:
        """What reads it on, so many octets at most; nothing if there is none. It may be closed meanwhile."""
        if self._file is None:
            yield lambda _: b""
            return
        self._file.flush()
        descriptor, place = os.dup(self._file.fileno()), 0

        def read(most: int) -> bytes:
            nonlocal place
            piece = os.pread(descriptor, most, place)
            place += len(piece)
            return piece

        try:
            yield read
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Let go of it."""
        if self._file is not None:
            self._file.close()
            self._file = None
