"""A server that does as it is told, real ones, and a pool of connections to it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from daemon import relay_events
from daemon.dialling import Endpoint, client_context
from daemon.upstream import Pool
from tests import servers
from tests.sink import Sink, sink
from tests.upstream.certificates import Authority, authority
from tests.upstream.several import Clock

MakePool = Callable[..., Pool]


@pytest.fixture
def server() -> Iterator[Sink]:
    with sink() as it:
        yield it


@pytest.fixture
async def pool(server: Sink) -> AsyncIterator[Pool]:
    it = Pool([Endpoint("127.0.0.1", server.port)], hostname="relay.example", timeout=2)
    yield it
    it.close()
    await asyncio.sleep(0)


@pytest.fixture
async def pool_of() -> AsyncIterator[MakePool]:
    """Makes pools over these endpoints, and closes them when the test is over."""
    pools = []

    def make(*endpoints: Endpoint, timeout: float = 5, connections: int = 20) -> Pool:
        pools.append(Pool(endpoints, hostname="relay.example", timeout=timeout, connections=connections))
        return pools[-1]

    yield make
    for each in pools:
        each.close()
    await settled()


async def settled() -> None:
    """Goodbyes under TLS take some turns of the loop; a transport still open when it ends would be a warning."""
    sockets = asyncio.get_running_loop()._selector.get_map()  # type: ignore[attr-defined]
    async with asyncio.timeout(5):
        while len(sockets) > 1:  # one is the loop's own
            await asyncio.sleep(0.005)


@pytest.fixture
def changes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """The fail-overs that were logged: to which port, and why."""
    told: list[tuple[int, str]] = []
    monkeypatch.setattr(relay_events, "upstream_changed", lambda _host, port, reason: told.append((port, str(reason))))
    return told


# ------------------------------------------------------------------ TLS


@pytest.fixture(scope="session")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA for the servers of the tests."""
    return authority(tmp_path_factory.mktemp("certificates") / "ca")


@pytest.fixture
def trust(ca: Authority) -> ssl.SSLContext:
    """What a client has that trusts it."""
    return client_context(ca.ca_file)


@pytest.fixture(scope="session")
def submission(_dovecot_server: servers.Dovecot, _sink_server: Sink) -> Iterator[servers.Postfix]:
    """A Postfix that asks Dovecot who may send; what it takes goes to `sink`."""
    with servers.postfix(_sink_server.port, _dovecot_server.sasl) as server:
        yield server


# ------------------------------------------------------------------ several servers


@pytest.fixture
def first() -> Iterator[Sink]:
    with sink() as it:
        yield it


@pytest.fixture
def second() -> Iterator[Sink]:
    with sink() as it:
        yield it


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(asyncio.get_running_loop(), monkeypatch)
