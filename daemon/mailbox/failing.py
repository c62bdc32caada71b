"""What goes wrong between us and a mailbox: the step, the reason, and what a person can do about it."""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import Iterator
from typing import Final

from imapclient.exceptions import IMAPClientAbortError, IMAPClientError

from daemon.mailbox import advising

# What IMAPClient and imaplib raise over what is no IMAP: they trip, each time over something else.
_NO_IMAP: Final = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class Failed(Exception):
    """The mailbox could not be used at `step`: token, connect, tls, login, select, search, idle, fetch, move.

    `refused`: the server said NO or BAD; the connection is as good as before. `advice`: what to do about it, as far as
    the reason tells, or "". Neither has a secret in it.
    """

    def __init__(self, step: str, why: object, *, refused: bool = False, advice: str = ""):
        super().__init__(f"{step}: {why}")
        self.step, self.why, self.refused = step, why, refused
        self.advice = advice or advising.of(str(why))


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Name the step of whatever goes wrong inside. A certificate that fails is `tls`, whenever it does."""
    try:
        yield
    except ssl.SSLCertVerificationError as why:
        raise Failed("tls", why.verify_message, advice=advising.CERTIFICATE) from why
    except ssl.SSLError as why:
        raise Failed("tls", why.reason or type(why).__name__, advice=advising.WRONG_TLS) from why
    except (IMAPClientError, OSError, *_NO_IMAP) as why:
        # IMAPClient makes a LoginError of a line that was lost in a log-in, too
        lost = isinstance(why, IMAPClientAbortError) or isinstance(why.__context__, IMAPClientAbortError)
        refused = isinstance(why, IMAPClientError) and not lost
        raise Failed(name, _words(why), refused=refused) from why


def _words(why: BaseException) -> str:
    """What imaplib has made of a server's words: sometimes octets in Python's own spelling."""
    text = str(why) or type(why).__name__
    spelled = re.fullmatch(r"b(['\"])(.*)\1", text, re.DOTALL)
    return spelled[2] if spelled else text


@contextlib.contextmanager
def refusals_aside() -> Iterator[None]:
    """For what is good to have and not needed: a server that does not like to do it is used all the same."""
    try:
        yield
    except IMAPClientAbortError:  # it is gone
        raise
    except (IMAPClientError, ValueError, TypeError):
        return
