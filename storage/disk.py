"""What a power cut leaves of a directory, and how much may still be written."""

import os
from pathlib import Path


def sync_directory(path: Path) -> None:
    """So that a name that was given, changed or removed in it survives a power cut. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free(place: Path | int) -> int | None:
    """Octets that we may still write where this directory or open file lies; None: there is nothing yet."""
    try:
        found = os.statvfs(place)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize
