"""Several upstreams of which none is well, and what all of them offer."""

from __future__ import annotations

import ssl

import pytest

from daemon.upstream import Lost, told
from tests.sink import KEYWORDS, Sink, sink
from tests.upstream.certificates import Authority
from tests.upstream.conftest import MakePool
from tests.upstream.guarded import guarded
from tests.upstream.several import Changes, at, places
from tests.upstream.support import deliver, lost

# ------------------------------------------------------------------ none is well


async def test_when_all_are_down_each_has_its_say(
    ca: Authority, trust: ssl.SSLContext, first: Sink, pool_of: MakePool
) -> None:
    first.stop()
    async with guarded(ca.issue("IP:127.0.0.1"), AUTH=b"535 5.7.8 no\r\n") as server:
        pool = pool_of(at(first), server.endpoint(trust, username="crm", password="secret"))
        for _ in range(2):
            with pytest.raises(Lost) as found:
                await pool.take()
            assert found.value.step == "auth"  # it came further, and is what somebody has to mend
            assert f"127.0.0.1:{first.port} connect: " in str(found.value)
            assert f"127.0.0.1:{server.port} auth: 535 5.7.8" in str(found.value)
            assert told(found.value).startswith("451 4.4.1")
    assert places(pool) == [20, 20]


async def test_when_none_is_well_those_that_rest_are_asked_all_the_same(
    first: Sink, second: Sink, pool_of: MakePool
) -> None:
    """A wait is better than a refusal: a server that is back after a second must not be away for five."""
    first.stop()
    second.stop()
    pool = pool_of(at(first), at(second))
    assert await lost(pool.take) == "connect"
    second.start()
    assert (await deliver(pool)).good
    first.start()
    second.stop()
    assert (await deliver(pool)).good
    assert len(first.messages) == 1


# ------------------------------------------------------------------ what may be offered


async def test_only_what_all_can_do_is_offered(pool_of: MakePool) -> None:
    with (
        sink(("PIPELINING", "SIZE 0", "DSN", "8BITMIME")) as one,
        sink(("SIZE 2000", "8BITMIME")) as two,
        sink(("SIZE 1000", "8BITMIME", "SMTPUTF8")) as three,
    ):
        pool = pool_of(at(one), at(two), at(three))
        await deliver(pool)
        assert pool.features == {"PIPELINING": "", "SIZE": "0", "DSN": "", "8BITMIME": ""}  # the only one that spoke
        await pool.probe()
        assert pool.features == {"SIZE": "1000", "8BITMIME": ""}


@pytest.mark.parametrize(
    ("sizes", "least"),
    [(("SIZE", "SIZE 7"), "7"), (("SIZE", "SIZE 0"), ""), (("SIZE x", "SIZE 9 8"), ""), (("SIZE 7", ""), None)],
)
async def test_the_least_size_counts(pool_of: MakePool, sizes: tuple[str, str], least: str | None) -> None:
    with sink((sizes[0],)) as one, sink((sizes[1] or "DSN",)) as two:
        pool = pool_of(at(one), at(two))
        await pool.probe()
        assert pool.features.get("SIZE") == least


async def test_a_probe_of_all_is_no_change(first: Sink, second: Sink, pool_of: MakePool, changes: Changes) -> None:
    pool = pool_of(at(first), at(second))
    await pool.probe()
    await deliver(pool)
    assert (first.connections, second.connections, len(first.messages)) == (1, 1, 1)
    assert changes == []


async def test_a_probe_is_content_with_one_answer(first: Sink, second: Sink, pool_of: MakePool) -> None:
    second.stop()
    pool = pool_of(at(first), at(second))
    await pool.probe()
    assert set(pool.features) == {keyword.split()[0] for keyword in KEYWORDS}
    first.stop()
    pool = pool_of(at(first), at(second))
    assert await lost(pool.probe) == "connect"
