"""Many clients, silent ones, ones that do not read; starting and stopping."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import time
from typing import Any

import pytest

from daemon import postfix
from daemon.postfix import Server
from tests.loopback import HOST, free_port
from tests.policy.desk import ANN, GOOD, Desk, rcpt, serving, written

# ------------------------------------------------------------------ connections


async def test_other_settings_count_from_the_next_request_of_an_open_connection(desk: Desk) -> None:
    desk.books.suppress(ANN)
    async with serving(desk.context()) as service:
        reader, writer = await asyncio.open_connection(HOST, service.port)
        writer.write(written(rcpt()))
        assert (await reader.readuntil(b"\n\n")).startswith(b"action=550 ")
        service.server.take_over(desk.context(observe=True))
        writer.write(written(rcpt()))
        assert await reader.readuntil(b"\n\n") == b"action=DUNNO\n\n"
        writer.close()


async def test_one_connection_too_many_is_hung_up_on(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, said: list[Any]
) -> None:
    monkeypatch.setattr(postfix, "MAX_CONNECTIONS", 2)
    async with serving(desk.context()) as service:
        open_ = [await asyncio.open_connection(HOST, service.port) for _ in range(2)]
        for reader, writer in open_:
            writer.write(GOOD)
            assert await reader.readuntil(b"\n\n") == b"action=DUNNO\n\n"
        assert await service.ask(GOOD) == b""
        assert said == [("policy_hung_up", {"reason": "too many connections"})]
        open_[0][1].close()
        await asyncio.sleep(0.05)
        assert await service.ask(GOOD) == b"action=DUNNO\n\n"
        open_[1][1].close()


async def test_a_silent_connection_is_closed_in_the_end(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postfix, "IDLE_SECONDS", 0.3)
    async with serving(desk.context()) as service:
        reader, writer = await asyncio.open_connection(HOST, service.port)
        began = time.monotonic()
        for _ in range(3):
            await asyncio.sleep(0.2)  # each request begins the silence anew
            writer.write(GOOD)
            assert await reader.readuntil(b"\n\n") == b"action=DUNNO\n\n"
        assert await reader.read() == b""
        assert 0.85 < time.monotonic() - began < 5
        writer.close()


async def test_who_does_not_read_is_not_read_from_and_holds_nobody_up(desk: Desk, said: list[Any]) -> None:
    short = b"request=smtpd_access_policy\nprotocol_state=RCPT\nrecipient=\n\n"  # with a longer answer
    async with serving(desk.context()) as service:
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect((HOST, service.port))
            while not service.server._clients:
                await asyncio.sleep(0.01)
            (client,) = service.server._clients
            client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    deaf.setblocking(False)
                    await asyncio.get_running_loop().sock_sendall(deaf, short * 40_000)
            await asyncio.sleep(0.2)
            assert client.transport.get_write_buffer_size() < 100_000  # of 4 MB
            assert await service.ask(GOOD) == b"action=DUNNO\n\n"
            begin = time.monotonic()
            await service.server.stop()
            assert time.monotonic() - begin < 5


async def test_it_stops_with_connections_open_and_starts_again_on_the_same_port(desk: Desk) -> None:
    async with serving(desk.context()) as service:
        reader, writer = await asyncio.open_connection(HOST, service.port)
        writer.write(GOOD)
        assert await reader.readuntil(b"\n\n")
        began = time.monotonic()
        await service.server.stop()
        assert await reader.read() == b""
        assert time.monotonic() - began < 1
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await service.ask(GOOD)
        async with serving(desk.context(), service.port) as again:
            assert await again.ask(GOOD) == b"action=DUNNO\n\n"


async def test_a_taken_port_is_an_error_and_nothing_is_left_listening(desk: Desk) -> None:
    free = free_port()
    async with serving(desk.context()) as service:
        second = Server([f"{HOST}:{free}", f"{HOST}:{service.port}"], desk.context())
        with pytest.raises(OSError, match="in use"):
            await second.start()
    with socket.socket() as probe:
        assert probe.connect_ex((HOST, free))


async def test_it_listens_where_it_is_told(desk: Desk) -> None:
    server = Server([f"{HOST}:0", "[::1]:0"], desk.context())
    four, six = await server.start()
    await server.stop()
    assert re.fullmatch(r"127\.0\.0\.1:\d+", four)
    assert re.fullmatch(r"\[::1\]:\d+", six)
