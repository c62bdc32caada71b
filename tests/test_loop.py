"""The daemon's event loop: names are asked for once, and in threads that nobody else needs."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.connection import Lost
from daemon.dialling import Endpoint, dial
from daemon.loop import Loop

NAME = "mx.quillpdf.example"


class Resolver:
    """Stands for the name servers: silent until `answer` is set, then the name does not exist."""

    def __init__(self) -> None:
        self.answer = threading.Event()
        self.asked: list[str] = []

    def __call__(self, host: str, *_: Any, **__: Any) -> Any:
        self.asked.append(host)
        self.answer.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    it = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", it)
    yield it
    it.answer.set()


def run(test: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(test)


def test_a_name_server_that_is_silent_holds_up_nothing_else(resolver: Resolver) -> None:
    """However many messages want that name: the threads in which the rest is done are free, and the end waits for nobody."""

    async def test() -> None:
        asking = [asyncio.create_task(dial(Endpoint(NAME, 25), "relay.example", 5)) for _ in range(100)]
        async with asyncio.timeout(5):
            while not resolver.asked:
                await asyncio.sleep(0.01)
            for _ in range(50):
                await asyncio.to_thread(lambda: None)
        for task in asking:
            task.cancel()
        assert {type(x) for x in await asyncio.gather(*asking, return_exceptions=True)} == {asyncio.CancelledError}

    began = time.monotonic()
    run(test())
    assert time.monotonic() - began < 20  # it answers after 60
    assert resolver.asked == [NAME]


def test_whoever_asked_gives_up_by_his_own_clock(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.dialling.CONNECT_SECONDS", 0.2)

    async def test() -> None:
        with pytest.raises(Lost, match="connect: timed out"):
            await dial(Endpoint(NAME, 25), "relay.example", 5)

    run(test())


def test_an_answer_that_comes_late_is_no_fault_and_the_next_question_is_a_new_one(
    resolver: Resolver, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await asyncio.get_running_loop().getaddrinfo(NAME, 25)
        resolver.answer.set()
        async with asyncio.timeout(10):
            while any(thread.name == f"name {NAME}" for thread in threading.enumerate()):
                await asyncio.sleep(0.01)
        for _ in range(2):
            with pytest.raises(socket.gaierror, match="Temporary failure"):
                await asyncio.get_running_loop().getaddrinfo(NAME, 25)

    run(test())
    assert len(resolver.asked) == 3
    assert not caplog.records


def test_names_lead_somewhere_and_numbers_need_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo("localhost", 25, type=socket.SOCK_STREAM)
        assert {info[4][0] for info in found} <= {"127.0.0.1", "::1"}
        with pytest.raises(Lost, match="connect: this is no host name"):
            await dial(Endpoint("a" * 64 + ".example", 25), "relay.example", 5)
        monkeypatch.setattr(threading, "Thread", None)
        with socket.create_server(("127.0.0.1", 0)) as server:
            transport, _ = await loop.create_connection(asyncio.Protocol, *server.getsockname())
            transport.abort()
            await asyncio.sleep(0)

    run(test())


def test_no_descriptor_is_left_open() -> None:
    before = sorted(Path("/proc/self/fd").iterdir())
    run(asyncio.sleep(0))
    assert sorted(Path("/proc/self/fd").iterdir()) == before
