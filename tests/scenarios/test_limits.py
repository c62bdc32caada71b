"""Where the machine has no more to give: descriptors, memory, places for clients."""

from __future__ import annotations

import contextlib
import http.client
import json
import resource
import smtplib
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from daemon import process
from tests.loopback import free_port
from tests.scenarios.process import PATIENCE, ROOT, Daemon, config
from tests.servers import Sink

pytestmark = pytest.mark.timeout(240)
LARGE = b"Subject: offer\r\nList-Id: <newsletter.quillpdf.example>\r\n\r\n" + (b"z" * 70 + b"\r\n") * 40_000


def limited(daemon: Daemon, what: int, to: int) -> None:
    """From now on."""
    assert daemon.process is not None
    resource.prlimit(daemon.process.pid, what, (to, resource.getrlimit(what)[1]))


def seconds_of_work(daemon: Daemon) -> float:
    """CPU time so far."""
    assert daemon.process is not None
    said = Path(f"/proc/{daemon.process.pid}/schedstat").read_text().split()
    return int(said[0]) / 1e9


@contextlib.contextmanager
def clients(daemon: Daemon, count: int) -> Iterator[list[socket.socket]]:
    """So many come at once and say nothing."""
    with contextlib.ExitStack() as stack:
        address = ("127.0.0.1", daemon.relay_port)
        yield [stack.enter_context(socket.create_connection(address, PATIENCE)) for _ in range(count)]


def greeting(client: socket.socket) -> bytes:
    """The first octets that a client hears; b"" if it is hung up on."""
    try:
        return client.recv(3)
    except ConnectionResetError:
        return b""


def test_without_a_free_descriptor_clients_are_hung_up_on_and_the_rest_goes_on(tmp_path: Path, sink: Sink) -> None:
    """No thousand lines a second, no loop that spins; and it is over when there is room."""
    with Daemon(tmp_path, config(sink.port, relay="max_per_client = 500")).running() as daemon:
        with smtplib.SMTP("127.0.0.1", daemon.relay_port, timeout=PATIENCE) as old:
            old.sendmail("news@quillpdf.example", ["ann@example.com"], b"Subject: one\r\n\r\nhello\r\n")
            limited(daemon, resource.RLIMIT_NOFILE, 64)
            with clients(daemon, 150) as crowd:
                heard = Counter(greeting(client) for client in crowd)
                assert set(heard) == {b"220", b""}
                before = seconds_of_work(daemon)
                for _ in range(30):
                    with clients(daemon, 5):
                        time.sleep(0.1)
                assert seconds_of_work(daemon) - before < 1.5  # of three seconds
                old.sendmail("news@quillpdf.example", ["bob@example.com"], b"Subject: two\r\n\r\nhello\r\n")
        assert daemon.cli("suppress", "cem@example.com").returncode == 0
        daemon.until(lambda: served(daemon, "cem@example.com").startswith("550 5.7.1"))
        assert len(daemon.events("descriptors_exhausted")) == 1
        assert not daemon.events("library_said") + daemon.events("failed")
    assert [t.rcpt_to for t in sink.messages] == [("<ann@example.com>",), ("<bob@example.com>",)]


def test_without_a_free_descriptor_a_click_is_answered(tmp_path: Path, sink: Sink) -> None:
    """The first page of all: what it is made of was read when the door opened."""
    web = free_port()
    more = f'[web]\nlisten = "127.0.0.1:{web}"\npublic_url = "https://mail.quillpdf.example"'
    with Daemon(tmp_path, config(sink.port, more=more)).running() as daemon:
        link = json.loads(daemon.cli("token", "ann@example.com", "--json").stdout)["one_click"]
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", web, timeout=PATIENCE)) as client:
            assert answered(client, "GET", "/healthz") == 200
            assert daemon.process is not None
            open_now = len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir()))
            limited(daemon, resource.RLIMIT_NOFILE, open_now - 1)
            said = answered(client, "POST", urlsplit(link).path, "List-Unsubscribe=One-Click")
            assert said in (200, 503)
            limited(daemon, resource.RLIMIT_NOFILE, 1000)
            assert answered(client, "POST", urlsplit(link).path, "List-Unsubscribe=One-Click") == 200
        assert daemon.rcpt("ann@example.com").startswith("550 5.7.1")
        assert not daemon.events("failed")


def answered(client: http.client.HTTPConnection, method: str, path: str, form: str = "") -> int:
    """The status."""
    client.request(method, path, form, {"Content-Type": "application/x-www-form-urlencoded"})
    answer = client.getresponse()
    answer.read()
    return answer.status


def served(daemon: Daemon, address: str) -> str:
    """What a client hears that comes again when it is hung up on."""
    try:
        return daemon.rcpt(address)
    except (smtplib.SMTPServerDisconnected, ConnectionError):
        return ""


def test_started_by_hand_it_takes_the_descriptors_that_it_may_have() -> None:
    """A shell gives 1,024, less than the clients that a relay lets in by default."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    program = (
        "import resource; from daemon import process; r = resource.RLIMIT_NOFILE;"
        f"resource.setrlimit(r, (64, {hard})); process.open_files(); print(*resource.getrlimit(r))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    most = process.FILES if hard == resource.RLIM_INFINITY else min(process.FILES, hard)
    assert done.stdout.split() == [str(most), str(hard)]


def test_without_memory_a_message_is_put_off_and_the_daemon_lives(tmp_path: Path, sink: Sink) -> None:
    """Each client knows what became of its message, and when there is memory all is as before."""
    web = free_port()
    more = f'[web]\nlisten = "127.0.0.1:{web}"'
    with Daemon(tmp_path, config(sink.port, relay="max_per_client = 500", more=more)).running() as daemon:
        assert daemon.rcpt("ann@example.com").startswith("250")
        limited(daemon, resource.RLIMIT_AS, virtual_memory(daemon) + 1_000_000)
        told = Counter(all_at_once(daemon, 40))
        limited(daemon, resource.RLIMIT_AS, resource.RLIM_INFINITY)
        assert set(told) <= {"taken", "later"}
        assert told["later"]
        assert len(sink.messages) == told["taken"]
        assert {message.data.endswith(LARGE.partition(b"\r\n\r\n")[2]) for message in sink.messages} <= {True}
        daemon.cli("suppress", "bob@example.com")
        assert daemon.rcpt("bob@example.com").startswith("550 5.7.1")
        assert daemon.send(["ann@example.com"], LARGE) == {}
        assert urlopen(f"http://127.0.0.1:{web}/readyz", timeout=PATIENCE).status == 200
        assert daemon.stop() == 0


def virtual_memory(daemon: Daemon) -> int:
    """Octets."""
    assert daemon.process is not None
    pages = Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[0]
    return int(pages) * resource.getpagesize()


def is_for_now(why: Exception) -> bool:
    """Is it a 4xx, or was the client hung up on, but not left without an answer?"""
    if isinstance(why, smtplib.SMTPRecipientsRefused):
        return all(400 <= code < 500 for code, _ in why.recipients.values())
    if isinstance(why, smtplib.SMTPResponseException):
        return 400 <= why.smtp_code < 500
    return "timed out" not in str(why)


def all_at_once(daemon: Daemon, count: int) -> list[str]:
    """What so many clients hear of a large message each: `taken`, `later` (4xx, or hung up on), or what they should not."""
    heard = []

    def send(number: int) -> None:
        try:
            daemon.send([f"p{number}@example.com"], LARGE)
            heard.append("taken")
        except (smtplib.SMTPException, ConnectionError) as why:
            heard.append("later" if is_for_now(why) else repr(why))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return heard


def test_of_three_hundred_clients_at_once_as_many_are_let_in_as_there_are_places(tmp_path: Path, sink: Sink) -> None:
    """The others hear that it is for now only, and no place is lost when all have gone."""
    options = "max_connections = 100\nmax_per_client = 500"
    with Daemon(tmp_path, config(sink.port, relay=options)).running() as daemon:
        for _ in range(2):
            with clients(daemon, 300) as crowd:
                heard = Counter(greeting(client) for client in crowd)
            assert set(heard) == {b"220", b"421"}
            assert heard[b"220"] <= 100
            daemon.until(lambda: served(daemon, "ann@example.com").startswith("250"))
        assert daemon.stop() == 0
