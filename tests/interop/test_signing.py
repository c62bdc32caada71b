"""A real OpenDKIM at Postfix's door behind optoutd, set up as docs/deploy.md prints it."""

from __future__ import annotations

import contextlib
import re
import smtplib
import socket
import subprocess
import time
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

import pytest

from tests.interop.documents import filled
from tests.interop.house import ANN, CARLA, MESSAGE, below_our_received, house
from tests.interop.mta import mta
from tests.loopback import HOST, free_port
from tests.servers import Sink, program

pytestmark = [
    pytest.mark.postfix,
    pytest.mark.skipif(not program("opendkim"), reason="Debian package opendkim is missing"),
]
LINKS = b"List-Unsubscribe: <https://quillpdf.example/u/x>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"


@contextlib.contextmanager
def signer(home: Path, port: int) -> Iterator[None]:
    """An opendkim in the foreground with the printed configuration, and a key made for it."""
    key, config = home / "q1.private", home / "opendkim.conf"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    printed = filled("behind/opendkim.conf", p8891=port).replace("/etc/dkimkeys/q1.private", str(key))
    config.write_text(f"{printed}RequireSafeKeys no\n")  # it finds no key safe that lies below /tmp
    command = [program("opendkim") or "", "-f", "-x", str(config)]
    log_file = home / "opendkim.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        until_it_listens(port, process, log_file)
        yield
    finally:
        process.kill()
        process.wait()


def until_it_listens(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as line:
            if line.connect_ex((HOST, port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"opendkim does not listen: {log.read_text()}")


def test_it_signs_what_optoutd_has_passed_with_the_list_fields(home: Path, sink: Sink) -> None:
    door, milter = free_port(), free_port()
    master = filled("behind/master.cf", p10025=door, p8891=milter)
    with signer(home, milter), mta(sink.port, filled("behind/main.cf"), master), house(home, door).running() as daemon:
        for to, message in ((ANN, LINKS + MESSAGE), (CARLA, MESSAGE)):
            with smtplib.SMTP(HOST, daemon.relay_port) as client:
                client.sendmail("bounces@news.quillpdf.example", [to], message)
        sink.wait_for(lambda: len(sink.messages) == 2)
    for found in sink.messages:
        signature = "".join(str(message_from_bytes(found.data)["DKIM-Signature"]).split())
        assert "d=news.quillpdf.example;s=q1;" in signature
        covered = re.search(r"(?<=;h=)[^;]*", signature)
        assert covered
        names = covered[0].lower().split(":")
        assert {"from", "subject", "date"} <= set(names)
        assert {"list-unsubscribe", "list-unsubscribe-post"} <= set(names) or f"<{CARLA}>" in found.rcpt_to[0]
        assert found.data.index(b"DKIM-Signature:") < found.data.index(b"(optoutd)")
        assert below_our_received(found.data).endswith(MESSAGE)
