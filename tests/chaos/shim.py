"""The daemon's clock and its disk's syncs, moved from outside by a small preloaded library (shim.c)."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from pathlib import Path


class Shim:
    """The library, built in `directory`, and its three numbers. Without a C compiler it is not there: `works` is false."""

    def __init__(self, directory: Path):
        self.library, self._file = directory / "shim.so", directory / "shim"
        compiler = shutil.which("cc") or shutil.which("gcc")
        source = str(Path(__file__).with_name("shim.c"))
        command = [compiler or "", "-O1", "-shared", "-fPIC", "-o", str(self.library), source]
        self.works = compiler is not None and subprocess.run(command, capture_output=True).returncode == 0
        self._file.write_bytes(bytes(24))
        with self._file.open("r+b") as file:
            self._told = mmap.mmap(file.fileno(), 24)

    @property
    def environment(self) -> dict[str, str]:
        """What a process is started with, so that it is moved."""
        return {"LD_PRELOAD": str(self.library), "CHAOS_SHIM": str(self._file)} if self.works else {}

    def ahead(self, seconds: float) -> None:
        """The calendar clock differs from the true one by so much."""
        self._put(0, int(seconds * 1000))

    def syncs(self, seconds: float, error: int = 0) -> None:
        """Every fsync and fdatasync takes so long, and fails with this errno if there is one."""
        self._put(1, int(seconds * 1000))
        self._put(2, error)

    def _put(self, place: int, number: int) -> None:
        self._told[8 * place : 8 * place + 8] = struct.pack("=q", number)

    def close(self) -> None:
        """Nobody is told any more; what was told stays."""
        self._told.close()
        self._file.unlink()
