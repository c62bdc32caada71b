"""Private real servers for the tests: a Dovecot, a Postfix, a PostgreSQL, and an SMTP sink that records what arrives.

Each listens on free loopback ports, lives in a short directory of its own under /tmp, and is gone when its context
manager ends. A server that does not come up raises ServerError with its own log.

    with dovecot() as imap, sink() as upstream, postfix(upstream.port) as mta: ...
"""

from __future__ import annotations

from tests.loopback import HOST, ServerError, free_port
from tests.servers.base import START_SECONDS, Server, directory_of_its_own, program
from tests.servers.dovecot import Dovecot, dovecot
from tests.servers.postfix import Postfix, postfix
from tests.servers.postgres import Postgres, postgres
from tests.servers.postgres import binaries as postgres_programs
from tests.sink import Sink, Transaction, sink

__all__ = [
    "HOST",
    "START_SECONDS",
    "Dovecot",
    "Postfix",
    "Postgres",
    "Server",
    "ServerError",
    "Sink",
    "Transaction",
    "directory_of_its_own",
    "dovecot",
    "free_port",
    "postfix",
    "postgres",
    "postgres_programs",
    "program",
    "sink",
]
