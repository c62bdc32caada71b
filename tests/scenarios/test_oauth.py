"""A mailbox that is opened with access tokens, over the years in a minute: new refresh tokens, a crash, a token server
that is away, a password that was changed; beside another mailbox, which all that does not touch."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mailbox.support import PLEASE, mail
from tests.scenarios.process import Daemon, config
from tests.servers import Dovecot, Sink, dovecot
from tests.tokenserver import CLIENT, CLIENT_SECRET, REFRESH, TokenServer, tokenserver

pytestmark = pytest.mark.dovecot


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TokenServer]:
    with tokenserver(tmp_path) as it:
        it.rotates = True
        yield it


@pytest.fixture
def imap(server: TokenServer) -> Iterator[Dovecot]:
    with dovecot(introspection=server.introspection_url) as it:
        yield it


@pytest.fixture
def home(tmp_path: Path) -> Path:
    directory = tmp_path / "home"
    directory.mkdir()
    (directory / "alices-password").write_text("secret-alice\n")
    (directory / "imap-client-secret").write_text(CLIENT_SECRET + "\n")
    (directory / "imap-refresh-token").write_text(REFRESH + "\n")
    return directory


def desk(home: Path, server: TokenServer, imap: Dovecot, sink: Sink) -> Daemon:
    oauth2 = f"""
[mailbox.oauth2]
token_url = "{server.url}"
client_id = "{CLIENT}"
client_secret_file = "imap-client-secret"
refresh_token_file = "imap-refresh-token"
ca_file = "{server.ca_file}"

[[mailbox]]
name = "alice"
host = "127.0.0.1"
port = {imap.imaps_port}
ca_file = "{imap.ca_file}"
username = "alice"
password_file = "alices-password"
poll_seconds = 2
"""
    text = config(sink.port, imap, mailbox=oauth2).replace('password_file = "imap-password"\n', "")
    return Daemon(home, text)


def asks(daemon: Daemon, imap: Dovecot, user: str, sender: str) -> None:
    """Somebody writes in, and is on the list soon."""
    imap.append(user, mail(sender, PLEASE))
    daemon.until(lambda: daemon.rcpt(sender).startswith("550"))


def lost(daemon: Daemon, step: str) -> list[dict[str, str]]:
    return [line for line in daemon.events("mailbox_lost") if line["step"] == step]


def test_tokens_over_the_years(home: Path, server: TokenServer, imap: Dovecot, sink: Sink) -> None:
    daemon = desk(home, server, imap, sink)
    seen: set[str] = set()
    with daemon.running():
        asks(daemon, imap, "support", "ann@customer.example")

        # A crash: the newest refresh token is the only one that is good for anything.
        seen |= server.refresh_tokens | set(server.good)
        daemon.kill()
        daemon.start()
        asks(daemon, imap, "support", "bob@customer.example")

        # The token server is away, and the mail server forgets whom it knew.
        server.refuse = 503, {"error": "temporarily_unavailable"}
        server.revoke()
        imap.kill()
        imap.start()
        daemon.until(lambda: lost(daemon, "token"))
        asks(daemon, imap, "alice", "cat@customer.example")
        imap.append("support", mail("dan@customer.example", PLEASE))
        server.refuse = None
        daemon.until(lambda: daemon.rcpt("dan@customer.example").startswith("550"))

        # The password was changed: every refresh token is worth nothing.
        seen |= server.refresh_tokens | set(server.good)
        server.refresh_tokens.clear()
        server.revoke()
        imap.kill()
        imap.start()
        daemon.until(lambda: any("log in again" in line.get("advice", "") for line in lost(daemon, "token")))
        asks(daemon, imap, "alice", "eve@customer.example")

        # The operator gives a new one.
        imap.append("support", mail("fay@customer.example", PLEASE))
        server.refresh_tokens = {"another-refresh-token-of-the-operator"}
        (home / "imap-refresh-token").write_text("another-refresh-token-of-the-operator\n")
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGHUP)
        daemon.until(lambda: daemon.rcpt("fay@customer.example").startswith("550"))

        assert "dan@customer.example" in daemon.cli("replay", "support", "--json").stdout
        seen |= server.refresh_tokens | set(server.good) | {REFRESH, CLIENT_SECRET}
        assert not [s for s in seen if s in daemon.log_file.read_text()]
        arguments = (
            Path(f"/proc/{daemon.process.pid}/cmdline").read_bytes()
            + Path(f"/proc/{daemon.process.pid}/environ").read_bytes()
        )
        assert not [s for s in seen if s.encode() in arguments]
    assert not daemon.events("failed")
