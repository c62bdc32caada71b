"""Where a list is kept that is on its way in: on disk, in a file that has no name."""

from __future__ import annotations

import asyncio
import tempfile
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO, Final

_BUFFER: Final = 1 << 18  # octets that are written at once


class Refused(Exception):
    """It is not done; the message is a sentence for whoever asked. `status`: of the answer."""

    def __init__(self, status: HTTPStatus, sentence: str):
        super().__init__(sentence)
        self.status = status


class Spool:
    """Where a list is kept that is on its way: a file without a name (0600) in `directory`, of at most `most` octets."""

    def __init__(self, directory: Path, most: int):
        self.file: BinaryIO = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115 - outlives this; whoever imports it closes it
        self.size = 0
        self._most = most
        self._held = bytearray()

    async def put(self, octets: bytes) -> None:
        """Some more. Raises Refused (413, and 507 where the disk is full)."""
        self.size += len(octets)
        if self.size > self._most:
            raise too_large(self._most)
        self._held += octets
        if len(self._held) >= _BUFFER:
            await self._write()

    async def end(self) -> BinaryIO:
        """That was all of it."""
        await self._write()
        return self.file

    async def _write(self) -> None:
        held, self._held = self._held, bytearray()
        try:
            await asyncio.to_thread(_write_all, self.file, held)
        except OSError as why:
            raise no_room(why) from None


def _write_all(file: BinaryIO, octets: bytearray) -> None:
    left = memoryview(octets)
    while left:
        left = left[file.write(left) :]


def too_large(most: int) -> Refused:
    """A list that is longer than web.max_upload."""
    sentence = f"The list is larger than {most:,} octets (web.max_upload). Split it, or use `optoutd import`."
    return Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence)


def no_room(why: OSError) -> Refused:
    """The disk does not take it."""
    return Refused(
        HTTPStatus.INSUFFICIENT_STORAGE, f"The list could not be kept: {why.strerror}. Nothing was imported."
    )
