"""Files that we write: for nobody else's eyes, and there only when they are complete."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from storage.disk import sync_directory


@contextmanager
def appearing(path: Path) -> Iterator[BinaryIO]:
    """A new file (0600) that takes the name `path` when the block ends well, and leaves nothing behind when it does not.

    What is there under that name stays until then. A device or a pipe is written to as it is. Raises OSError, with `path`
    as its file name.
    """
    if _is_special(path):
        with path.open("wb") as special:
            yield special
        return
    if path.is_dir():
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    target = path.resolve()  # through a symbolic link: it goes on pointing there
    beside = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as why:
        raise OSError(why.errno, why.strerror, str(path)) from None
    try:
        with os.fdopen(descriptor, "wb", buffering=1 << 18) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.rename(target)
        sync_directory(target.parent)
    except BaseException:
        with suppress(FileNotFoundError):
            beside.unlink()
        raise


def _is_special(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)
