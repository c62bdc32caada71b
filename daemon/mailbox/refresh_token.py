"""A refresh token that the token server gave in place of ours (RFC 6749 6): kept in a file of our own.

The file that the operator gave may be a systemd credential, which nobody can write. Ours has beside the newest token a
digest of the one that it began with: once the operator gives another, that one counts, and ours is forgotten. It is on
disk before the access token that came with it is used, so that a crash loses neither.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

from daemon.mailbox.failing import Failed
from storage.disk import sync_directory


class Kept:
    """The file at `path`. `given`: the refresh token of the config."""

    def __init__(self, path: Path, given: str):
        self._path, self._given = path, given
        self._origin = hashlib.sha256(given.encode()).hexdigest()

    def newest(self) -> str:
        """The refresh token to use."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            found = json.loads(self._path.read_text())
            if found["origin"] == self._origin and isinstance(found["refresh_token"], str) and found["refresh_token"]:
                return str(found["refresh_token"])
        return self._given

    def prepare(self) -> None:
        """Can a new one be kept? Better asked before the server takes the old one back. Raises Failed("token")."""
        if not os.access(self._path.parent, os.W_OK | os.X_OK):
            raise self._failed("no right to write there")

    def keep(self, refresh_token: str) -> None:
        """Write it down: whole or not at all, and only for our eyes. Raises Failed("token")."""
        text = json.dumps({"origin": self._origin, "refresh_token": refresh_token})
        new = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            new.unlink(missing_ok=True)
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
                file.flush()
                _hand_over(file.fileno(), self._path.parent)
                os.fsync(file.fileno())
            new.replace(self._path)
            sync_directory(self._path.parent)
        except OSError as why:
            with contextlib.suppress(OSError):
                new.unlink()
            raise self._failed(why.strerror or type(why).__name__) from None

    def _failed(self, why: str) -> Failed:
        advice = "a refresh token that the server renews is kept there: give the daemon's user the right to, and room"
        return Failed("token", f"{self._path.parent}: {why}", advice=advice)


def _hand_over(descriptor: int, directory: Path) -> None:
    """What root writes (`optoutd doctor`) must be the daemon's to read: it belongs to whom the directory belongs."""
    owner = directory.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
