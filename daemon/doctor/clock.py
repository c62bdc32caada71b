"""Is it the time that we think it is? Due times, undo links and the record depend on it."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from daemon.doctor.findings import Finding, Look

_YEARS: Final = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
_TIMESYNC: Final = Path("/run/systemd/timesync/synchronized")
_NOT_SYNCHRONISED: Final = 0x40  # STA_UNSYNC of adjtimex(2)
_STATUS_AT: Final = "@Illlli"  # struct timex up to `status`


def probe(look: Look) -> Iterator[Finding]:
    """The year, and what the kernel knows of NTP."""
    look.step("ask the kernel")
    now = look.house.now
    first, last = _YEARS
    if not first < now < last:
        yield look.fail(
            f"it says {now:%Y-%m-%d %H:%M} UTC",
            "set it (timedatectl set-time, or NTP) before the daemon writes anything",
        )
        return
    kept = is_kept()
    by = {True: ", kept by NTP", False: "", None: "; whether NTP keeps it cannot be told here"}[kept]
    yield look.ok(f"{now:%Y-%m-%d %H:%M:%S} UTC{by}")
    if kept is False:
        yield look.warn(
            "nothing keeps it: the kernel knows of no NTP",
            "install chrony or systemd-timesyncd (timedatectl set-ntp true); in a container it is the host's to do",
        )


def is_kept() -> bool | None:
    """Does something keep the kernel's clock right? None: it does not say."""
    if _TIMESYNC.exists():
        return True
    try:
        asked = ctypes.create_string_buffer(512)  # struct timex has some 200; all 0: it is only asked
        if ctypes.CDLL(None, use_errno=True).adjtimex(asked) < 0:
            return None
        status = struct.unpack_from(_STATUS_AT, asked.raw)[-1]
    except (OSError, AttributeError):
        return None
    return not status & _NOT_SYNCHRONISED
