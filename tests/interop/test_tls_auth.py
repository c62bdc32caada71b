"""The same clients over STARTTLS and implicit TLS, with a log-in: the whole daemon, set up as docs/deploy.md prints it."""

from __future__ import annotations

import contextlib
import smtplib
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import pytest

from tests.certificates import certify
from tests.interop.clients import CLIENTS, Job, Line, missing
from tests.interop.documents import filled
from tests.interop.house import ANN, BOB, CARLA, HOUSE, MESSAGE, below_our_received, recipients
from tests.interop.mta import mta
from tests.loopback import HOST, free_port
from tests.scenarios.process import PATIENCE, Daemon
from tests.servers import Sink

pytestmark = pytest.mark.timeout(180)
PASSWORD: Final = 'a pass%word, "quoted"'  # what a careless client would cut or change
NAMES: Final = ["swaks", "curl", "msmtp", "smtplib", "nodemailer"]
Tls = Literal["starttls", "implicit"]


@pytest.fixture(params=["starttls", "implicit"], scope="module")
def tls(request: pytest.FixtureRequest) -> Tls:
    """How the connection is encrypted."""
    found: Tls = request.param
    return found


@contextlib.contextmanager
def running(home: Path, upstream_port: int, tls: Tls) -> Iterator[tuple[Daemon, Line]]:
    """The daemon of `elsewhere/config.toml`, on loopback, and how its one user reaches it."""
    certificate = home / "relay.pem"
    certify(home / "relay.key", certificate)
    (home / "crm-password").write_text(PASSWORD + "\n")
    (home / "crm-password").chmod(0o600)
    port = free_port()
    config = filled("elsewhere/config.toml", p587=port).replace("0.0.0.0", HOST)
    config = config.replace("[relay]\n", "[relay]\nstamp = false\n").replace('tls = "starttls"', f'tls = "{tls}"')
    daemon = Daemon(home, f'{HOUSE}{config}\n[upstream]\nport = {upstream_port}\n[log]\nformat = "json"\n')
    with daemon.running():
        daemon.cli("suppress", BOB, "--reason", "opt-out")
        yield daemon, Line(port, tls, certificate, "crm", PASSWORD)


@pytest.fixture(scope="module")
def _guarded(_sink_server: Sink, tls: Tls) -> Iterator[tuple[Daemon, Line]]:
    with tempfile.TemporaryDirectory(prefix="oo") as name, running(Path(name), _sink_server.port, tls) as found:
        yield found


@pytest.fixture
def guarded(_guarded: tuple[Daemon, Line], sink: Sink) -> tuple[Daemon, Line]:
    """A daemon that has TLS and a user, and how that user reaches it; what passes goes to `sink`, which is empty."""
    return _guarded


@pytest.fixture(params=NAMES)
def client(request: pytest.FixtureRequest) -> str:
    """One after the other; skipped where it is not installed."""
    name: str = request.param
    if reason := missing(name):
        pytest.skip(reason)
    if name == "swaks" and subprocess.run(["perl", "-MNet::SSLeay", "-e1"], capture_output=True).returncode:
        pytest.skip("Debian package libnet-ssleay-perl is missing")
    return name


def test_who_logs_in_may_send(client: str, guarded: tuple[Daemon, Line], sink: Sink) -> None:
    daemon, line = guarded
    said = CLIENTS[client](line, Job((ANN,), MESSAGE))
    assert said.code == 0, said
    assert [recipients(m) for m in sink.messages] == [{ANN}]
    assert below_our_received(sink.messages[0].data) == MESSAGE
    refused = CLIENTS[client](line, Job((BOB,), MESSAGE))
    assert refused.code != 0
    assert "has opted out" in refused.text
    assert len(sink.messages) == 1
    log = daemon.log_file.read_text()
    assert PASSWORD not in log
    assert ANN not in log


def test_who_gives_a_wrong_password_may_not(client: str, home: Path, sink: Sink) -> None:
    """On a daemon of its own: who guesses is slowed down, and the other tests have nothing to do with it."""
    with running(home, sink.port, "starttls") as (daemon, line):
        said = CLIENTS[client](replace(line, password="mistyped-secret"), Job((ANN,), MESSAGE))
        assert said.code != 0
        assert "535" in said.text, said
        assert sink.transactions == []
        assert "mistyped-secret" not in daemon.log_file.read_text()


def test_who_does_not_log_in_may_not(client: str, guarded: tuple[Daemon, Line], sink: Sink) -> None:
    _, line = guarded
    said = CLIENTS[client](replace(line, username=""), Job((ANN,), MESSAGE))
    assert said.code != 0
    assert "530" in said.text, said
    assert sink.transactions == []


@pytest.mark.parametrize("tls", ["starttls"], indirect=True)  # clear text to a TLS port waits until one gives up
def test_who_does_not_encrypt_may_not(client: str, guarded: tuple[Daemon, Line], sink: Sink) -> None:
    _, line = guarded
    said = CLIENTS[client](replace(line, tls="none", username=""), Job((ANN,), MESSAGE))
    assert said.code != 0
    assert "530" in said.text, said
    assert sink.transactions == []


def test_a_certificate_of_nobody_is_not_trusted(
    client: str, guarded: tuple[Daemon, Line], tmp_path: Path, sink: Sink
) -> None:
    _, line = guarded
    certify(tmp_path / "other.key", tmp_path / "other.pem")
    said = CLIENTS[client](replace(line, ca_file=tmp_path / "other.pem"), Job((ANN,), MESSAGE))
    assert said.code != 0
    assert sink.transactions == []
    assert CLIENTS[client](line, Job((CARLA,), MESSAGE)).code == 0  # and the relay goes on as if nothing had been


@pytest.mark.postfix
@pytest.mark.skipif(
    not list(Path("/usr/lib").glob("*/sasl2/libplain.so")), reason="Debian package libsasl2-modules is missing"
)
def test_postfix_logs_in(guarded: tuple[Daemon, Line], sink: Sink) -> None:
    _, line = guarded
    main = filled("elsewhere/main.cf", p587=line.port).replace("relay.quillpdf.example", HOST)
    main = main.replace("/etc/ssl/certs/ca-certificates.crt", str(line.ca_file)).replace("its-password", PASSWORD)
    main += "smtp_tls_secure_cert_match = relay.quillpdf.example\n"  # it was told an address, not that name
    main += "smtp_tls_wrappermode = yes\n" if line.tls == "implicit" else ""
    with mta(line.port, main, "tlsmgr unix - - n 1000? 1 tlsmgr\n") as server:
        with smtplib.SMTP(HOST, server.port, timeout=PATIENCE) as tool:
            tool.sendmail("bounces@news.quillpdf.example", [ANN, BOB], MESSAGE)
        sink.wait_for(lambda: len(sink.messages) >= 1)
        assert recipients(sink.messages[0]) == {ANN}
        assert sink.messages[0].data.endswith(MESSAGE)
