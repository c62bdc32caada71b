"""Private real servers for the tests: a Dovecot, a Postfix, and an SMTP sink that records what arrives.

Each listens on free loopback ports, lives in a short directory of its own under /tmp, and is gone when its context
manager ends. A server that does not come up raises ServerError with its own log.

    with dovecot() as imap, sink() as upstream, postfix(upstream.port) as mta: ...
"""

from __future__ import annotations

from tests.loopback import HOST, ServerError, free_port
from tests.servers.base import START_SECONDS, Server, directory_of_its_own, program
from tests.servers.dovecot import Dovecot, dovecot
from tests.servers.postfix import Postfix, postfix
from tests.sink import Sink, Transaction, sink

__all__ = [
    "HOST",
    "START_SECONDS",
    "Dovecot",
    "Postfix",
    "Server",
    "ServerError",
    "Sink",
    "Transaction",
    "directory_of_its_own",
    "dovecot",
    "free_port",
    "postfix",
    "program",
    "sink",
]
