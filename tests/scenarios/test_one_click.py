"""A reader clicks "unsubscribe" in the mail program: from the stamped link to the refusal, through the whole daemon."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from email import message_from_bytes, policy
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.loopback import HOST, free_port
from tests.scenarios.process import PATIENCE, Daemon, config
from tests.sink import Sink, sink

ANN = "ann@example.com"
OFFER = b"From: news@quillpdf.example\r\nTo: ann@example.com\r\nSubject: offer\r\n\r\nBuy.\r\n"
LETTER = b"List-Id: <newsletter.quillpdf.example>\r\n" + OFFER
PUBLIC = "https://mail.quillpdf.example"


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="oo") as name:
        yield Path(name)


@pytest.fixture
def upstream() -> Iterator[Sink]:
    with sink() as listening:
        yield listening


def with_web(upstream: Sink, *, listen: str = "127.0.0.1:0", public: str = "127.0.0.1:0", name: str = "") -> str:
    """A config with both doors."""
    web = f'[web]\nlisten = "{listen}"\npublic_listen = "{public}"\npublic_url = "{PUBLIC}"\n'
    text = config(upstream.port, more=web)
    return text.replace('name = "Quill PDF"', f'name = "{name}"') if name else text


def stamped(upstream: Sink) -> str:
    """The path of the one-click link in the last message."""
    sent = message_from_bytes(upstream.messages[-1].data, policy=policy.default)
    assert sent["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    link = re.search(r"<(https:[^>]+)>", sent["List-Unsubscribe"])
    assert link is not None
    assert link[1].startswith(PUBLIC + "/u/")
    return urlsplit(link[1]).path


def port_of(daemon: Daemon, door: str) -> int:
    """Where a door listens."""
    return int(daemon.events("ready")[-1][door][0].rpartition(":")[2])


def curl(port: int, path: str, body: str = "List-Unsubscribe=One-Click", *options: str) -> str:
    """What `curl -d BODY https://...` says behind the proxy, or a GET without a body; the whole response."""
    program = shutil.which("curl")
    if program is None:
        pytest.skip("curl is not installed")
    command = [program, "--silent", "--show-error", "--include", "--max-time", str(PATIENCE), *options]
    command += ["--data", body] if body else []
    command += ["--header", "Host: mail.quillpdf.example", f"http://{HOST}:{port}{path}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    "options",
    [
        # as Gmail and Yahoo post it (RFC 8058 3.2), as Apple Mail does, and as a mail gateway may hand it on
        ("--form", "List-Unsubscribe=One-Click", "--user-agent", "Mozilla/5.0 (compatible; Gmail)"),
        ("--data-urlencode", "List-Unsubscribe=One-Click", "--http1.0"),
        ("--data", "List-Unsubscribe=One-Click", "--header", "Expect: 100-continue"),
        ("--data", "List-Unsubscribe=One-Click", "--header", "Transfer-Encoding: chunked"),
    ],
)
def test_what_mail_programs_post_opts_out(upstream: Sink, home: Path, options: tuple[str, ...]) -> None:
    daemon = Daemon(home, with_web(upstream))
    with daemon.running():
        daemon.send([ANN], OFFER)
        said = curl(port_of(daemon, "public"), stamped(upstream), "", *options)
        assert re.search(r"^HTTP/1\.[01] 200", said, re.MULTILINE), said
        assert "\nset-cookie" not in said.lower()
        assert daemon.rcpt(ANN).startswith("550")


def test_one_click_and_no_more_mail(upstream: Sink, home: Path) -> None:
    daemon = Daemon(home, with_web(upstream))
    with daemon.running():
        daemon.send([ANN], OFFER)
        path = stamped(upstream)
        public = port_of(daemon, "public")
        assert curl(public, path, body="").startswith("HTTP/1.1 200")  # a scanner looks at it
        assert daemon.rcpt(ANN).startswith("250")
        assert curl(public, path).startswith("HTTP/1.1 200")
        refusal = daemon.rcpt(ANN)
        assert re.fullmatch(rf"550 5\.7\.1 <{ANN}> has opted out \(ref \d+\)", refusal)
        number = refusal.rpartition(" ")[2].rstrip(")")
        assert '"one-click"' in daemon.cli("show", "--ref", number, "--json").stdout
        daemon.cli("audit", "verify")
    said = daemon.log_file.read_text()
    assert ANN not in said
    assert path.rpartition("/")[2] not in said


def test_a_mistaken_click_is_undone_from_its_page(upstream: Sink, home: Path) -> None:
    daemon = Daemon(home, with_web(upstream))
    with daemon.running():
        daemon.send([ANN], OFFER)
        path, public = stamped(upstream), port_of(daemon, "public")
        page = curl(public, path)
        (undo,) = re.findall(r'action="(/undo/[a-z2-7]{64})"', page)
        assert daemon.rcpt(ANN).startswith("550")
        assert curl(public, undo, body="").startswith("HTTP/1.1 200")  # a scanner looks at it
        assert daemon.rcpt(ANN).startswith("550")
        assert curl(public, undo, body="undo=1").startswith("HTTP/1.1 200")
        assert daemon.rcpt(ANN).startswith("250")
        assert curl(public, path).startswith("HTTP/1.1 200")
        assert curl(public, undo, body="undo=1").startswith("HTTP/1.1 200")  # not good for that later click
        assert daemon.rcpt(ANN).startswith("550")
        daemon.cli("audit", "verify")
    said = daemon.log_file.read_text()
    assert ANN not in said
    assert undo.rpartition("/")[2] not in said


def test_an_undo_link_has_a_page(upstream: Sink, home: Path) -> None:
    daemon = Daemon(home, with_web(upstream).replace("[web]\n", '[web]\ncolour = "#aa0022"\n'))
    with daemon.running():
        daemon.send([ANN], OFFER)
        public = port_of(daemon, "public")
        assert curl(public, stamped(upstream)).startswith("HTTP/1.1 200")
        undo = json.loads(daemon.cli("token", ANN, "--json").stdout)["undo"]
        assert undo.startswith(PUBLIC + "/undo/")
        assert curl(public, urlsplit(undo).path, body="undo=1").startswith("HTTP/1.1 200")
        assert daemon.rcpt(ANN).startswith("250")
        assert "--fill: #aa0022;" in curl(public, "/static/style.css", body="")
        lists = stamped(upstream).replace("/u/", "/p/")
        assert curl(public, lists, body="action=save").startswith("HTTP/1.1 200")
        with pytest.raises(Exception, match="has opted out of newsletter"):
            daemon.send([ANN], LETTER)


def test_a_link_of_a_list_ends_that_list_only(upstream: Sink, home: Path) -> None:
    daemon = Daemon(home, with_web(upstream))
    with daemon.running():
        daemon.send([ANN], LETTER)
        assert curl(port_of(daemon, "web"), stamped(upstream)).startswith("HTTP/1.1 200")
        with pytest.raises(Exception, match="has opted out of newsletter"):
            daemon.send([ANN], LETTER)
        assert daemon.send([ANN], OFFER) == {}


def test_what_was_confirmed_survives_a_crash_that_follows_at_once(upstream: Sink, home: Path) -> None:
    daemon = Daemon(home, with_web(upstream))
    daemon.start()
    daemon.send([ANN], OFFER)
    assert curl(port_of(daemon, "public"), stamped(upstream)).startswith("HTTP/1.1 200")
    daemon.kill()
    with daemon.running():
        assert daemon.rcpt(ANN).startswith("550 5.7.1")


def test_a_database_that_is_away_is_503_and_451_and_back_without_a_restart(upstream: Sink, home: Path) -> None:
    daemon = Daemon(home, with_web(upstream))
    with daemon.running():
        daemon.send([ANN], OFFER)
        path, public = stamped(upstream), port_of(daemon, "public")
        (home / "optoutd.db").rename(home / "away")
        answer = curl(public, path)
        assert answer.startswith("HTTP/1.1 503")
        assert "retry-after:" in answer.lower()
        assert daemon.rcpt(ANN).startswith("451")
        (home / "away").rename(home / "optoutd.db")
        assert daemon.rcpt(ANN).startswith("250")
        assert curl(public, path).startswith("HTTP/1.1 200")
        assert daemon.rcpt(ANN).startswith("550")


def test_a_reload_reaches_the_pages_and_names_an_address_that_must_wait(upstream: Sink, home: Path) -> None:
    daemon = Daemon(home, with_web(upstream))
    with daemon.running():
        daemon.send([ANN], OFFER)
        path, public = stamped(upstream), port_of(daemon, "public")
        daemon.file.write_text(with_web(upstream, listen=f"127.0.0.1:{free_port()}", name="Feather"))
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGHUP)
        daemon.until(lambda: daemon.events("reloaded"))
        (refused,) = daemon.events("reload_refused")
        assert "web.listen: cannot change without a restart; the rest is taken over" in refused["problems"]
        assert "Feather" in curl(public, path, body="")
        assert daemon.stop() == 0


def test_a_taken_port_is_one_sentence_and_75(upstream: Sink, home: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        daemon = Daemon(home, with_web(upstream, public=f"{HOST}:{taken.getsockname()[1]}"))
        daemon.file.write_text(daemon.config)
        daemon.file.chmod(0o600)
        failed = daemon.cli("run", expect=75)
    assert [line for line in failed.stderr.splitlines() if not line.startswith("{")][-1].startswith(
        "optoutd: web.public_listen: "
    )


def test_without_the_section_there_is_no_door(upstream: Sink, home: Path) -> None:
    daemon = Daemon(home, config(upstream.port))
    with daemon.running():
        assert not {"web", "public"} & daemon.events("ready")[0].keys()
