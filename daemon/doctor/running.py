"""The daemon itself: does it run, as which version, what does it say of its parts, and does systemd look after it?"""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from daemon import __version__, opening
from daemon.config import ConfigError, host_port, is_loopback
from daemon.doctor.asking import Line
from daemon.doctor.findings import Finding, Look
from storage import leases
from storage.engine import Unavailable, Unusable

_VERSION: Final = re.compile(rb'^optoutd_build_info\{[^}]*version="([^"]{1,40})"', re.MULTILINE)
_START: Final = "start it (systemctl start optoutd), or look why it ended (journalctl -u optoutd -n 50)"
_SYSTEMD: Final = Path("/run/systemd")
_UNIT: Final = "optoutd.service"
_UNIT_FILES: Final = (
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)


def probe(look: Look) -> Iterator[Finding]:
    """By the lock beside the database; of several nodes by what the database knows."""
    look.step("who has the lock")
    if look.house.running is False:
        yield look.warn("it does not run", _START)
        return
    who = "runs" if look.house.running else _nodes(look)
    answers = _asked(look)
    version = answers.get("version") or __version__
    yield look.ok(f"{who}, version {version}" if "version" in answers else who)
    if version != __version__:
        yield look.warn(f"it is version {version}, this command {__version__}", "restart it: systemctl restart optoutd")
    for part, how in answers.get("parts", {}).items():
        if how != "ok" and how != "not watched by this node":
            yield look.warn(
                f"it says of its {look.said(part)}: {look.said(how)}", "see the line of that part, and its log"
            )


def _nodes(look: Look) -> str:
    """Who holds a lease in PostgreSQL."""
    try:
        ledger = opening.open_for(look.loaded)
        try:
            holders = leases.holders(ledger)
        finally:
            ledger.close()
    except (Unavailable, Unusable, ConfigError, OSError):
        return "whether it runs is known to the database only, which cannot be asked"
    return f"nodes that run: {', '.join(holders)}" if holders else "no node runs"


def _asked(look: Look) -> Mapping[str, Any]:
    """`version`, and `parts` as /readyz has them, where the daemon can be asked: over web.listen on this machine."""
    listen = look.config.web.listen
    host, port = host_port(listen) if listen else ("", 0)
    if not port or not is_loopback(host):
        return {}
    look.step(f"ask {listen}")
    try:
        with Line(host, port) as line:
            told, counted = line.ask("/readyz"), line.ask("/metrics")
        if not told.is_ours:
            return {}
        found = _VERSION.search(counted.body)
        parts = json.loads(told.body)["parts"]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, RecursionError):
        return {}  # the doors are told of as `web`
    version = {"version": found[1].decode("ascii", "replace")} if found else {}
    return {**version, "parts": parts if isinstance(parts, dict) else {}}


# ------------------------------------------------------------------ systemd


def systemd(look: Look) -> Iterator[Finding]:
    """Will it be there after the next boot, and who starts it again if it falls?"""
    if not (_SYSTEMD / "system").is_dir():
        yield look.ok("this machine was not started by systemd: something else must start the daemon again")
        return
    unit = next((Path(d, _UNIT) for d in _UNIT_FILES if Path(d, _UNIT).exists()), None)
    if unit is None:
        yield look.ok(f"no {_UNIT} is installed: something else must start the daemon again")
        return
    active = (_SYSTEMD / f"units/invocation:{_UNIT}").is_symlink()
    enabled = any(Path(d, "multi-user.target.wants", _UNIT).is_symlink() for d in _UNIT_FILES)
    yield look.ok(
        f"{unit}: {'runs' if active else 'does not run'}, {'starts' if enabled else 'does not start'} at boot"
    )
    if not enabled:
        yield look.warn("the daemon does not start at boot", "run: systemctl enable optoutd")
    if look.house.running and not active:
        yield look.warn("the daemon that runs is not the unit's", "end it, then: systemctl start optoutd")
