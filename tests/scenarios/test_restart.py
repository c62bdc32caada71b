"""A restart: nobody waits for long, and no mail is lost or sent twice."""

from __future__ import annotations

import smtplib
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from bench import common
from tests.loopback import free_port
from tests.scenarios.process import PATIENCE, Daemon, config
from tests.servers import Dovecot, Sink, postfix

RESTARTS = 8
CLIENTS = 3


@pytest.mark.alone
@pytest.mark.dovecot
@pytest.mark.timeout(300)
def test_an_idle_daemon_with_a_million_rows_is_back_within_two_seconds(
    home: Path, dovecot: Dovecot, sink: Sink
) -> None:
    common.seeded(home, 1_000_000)
    web = f'[web]\nlisten = "127.0.0.1:{free_port()}"\npublic_listen = "127.0.0.1:{free_port()}"\n'
    took = []
    with Daemon(home, config(sink.port, dovecot, more=web)).running() as daemon:
        for _ in range(8):
            daemon.until(lambda: len(daemon.events("mailbox_connected")) == len(daemon.events("ready")))
            began = time.monotonic()
            daemon.stop()
            daemon.start()
            took.append(time.monotonic() - began)
            if took[-1] < 2:  # once is proof: what else the machine does can only make it longer
                break
        assert daemon.rcpt(common.suppressed(1)).startswith("550")
    print(f"SIGTERM to READY: {', '.join(f'{t:.2f}' for t in took)} s")
    assert min(took) < 2


def _has_more_than(sink: Sink, messages: int) -> bool:
    return len(sink.messages) > messages


@pytest.mark.postfix
@pytest.mark.timeout(300)
def test_a_queue_in_front_loses_nothing_and_sends_nothing_twice_over_many_restarts(home: Path, sink: Sink) -> None:
    sink.delays["DOT"] = 0.02  # so that messages are past their dot when the signal comes
    daemon = Daemon(home, config(sink.port))
    port = int(daemon.config.partition('listen = "127.0.0.1:')[2].partition('"')[0])
    sent: list[str] = []
    done = threading.Event()
    with daemon.running(), postfix(port) as front:
        threads = [threading.Thread(target=campaign, args=(front.port, n, sent, done)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(RESTARTS):
                daemon.until(partial(_has_more_than, sink, len(sink.messages) + 5))
                assert daemon.stop() == 0
                daemon.start()
        finally:
            done.set()
            for thread in threads:
                thread.join(PATIENCE)
        sink.wait_for(lambda: len({subject(t.data) for t in sink.messages}) == len(sent), 60)
    assert Counter(subject(t.data) for t in sink.messages) == Counter(sent)
    assert len(sent) > 10 * RESTARTS
    assert not daemon.events("possibly_duplicated")
    assert not daemon.events("failed")


def campaign(port: int, number: int, sent: list[str], done: threading.Event) -> None:
    """Messages to the queue, one after the other, until it is enough; those that it took are in `sent`."""
    with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE) as client:
        client.ehlo()
        n = 0
        while not done.is_set():
            name = f"{number}-{n}"
            body = f"Subject: {name}\r\n\r\n{'hello' * 200}\r\n".encode()
            client.sendmail("news@quillpdf.example", [f"user{name}@example.com"], body)
            sent.append(name)
            n += 1
            time.sleep(0.02)


def subject(data: bytes) -> str:
    """What tells a message from all others."""
    return data.partition(b"\r\nSubject: ")[2].partition(b"\r\n")[0].decode()
