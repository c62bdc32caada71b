"""What a power cut leaves of a directory."""

import os
from pathlib import Path


def sync_directory(path: Path) -> None:
    """So that a name that was given, changed or removed in it survives a power cut. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
