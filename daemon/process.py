"""This process as others see it: its memory holds the site key, passwords and people's addresses, and is nobody's business.

What it may show, when it is ended in the middle of something, is where it stood.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import resource
from typing import Final

_PR_SET_DUMPABLE: Final = 4  # <linux/prctl.h>
FILES: Final = 16_384  # as the unit has it: 1000 clients with their upstreams, the web, the mailboxes, the database


def close_memory() -> None:
    """Leave no core dump, and let no other process of our user look in: /proc/PID/mem, environ, fd and ptrace are root's then.

    A fork (of an import) is closed as well; a program that is executed (a token_command) is not, and has nothing of ours.
    What the kernel does not do (another system, a filter) is left: it is a second wall, not the first.
    """
    with contextlib.suppress(OSError, ValueError):  # the unit's own LimitCORE=0 says the same
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def open_files() -> None:
    """Started by hand we may open 1,024 files, less than the clients that the relay lets in: take what we are allowed to take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def tell_where() -> None:
    """At SIGABRT (systemd's watchdog) and at a crash write to stderr in which line each thread was; no values are in it."""
    if not faulthandler.is_enabled():
        with contextlib.suppress(OSError, ValueError, AttributeError, RuntimeError):  # nobody reads stderr
            faulthandler.enable()
