"""The private names of aiosmtpd and asyncio that wire.py and steps.py rely on are there and do what they believe.

When one of these fails after an update, read wire.py beside the new source before anything else.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import inspect

import pytest
from aiosmtpd.smtp import SMTP

from daemon.relay.protocol import Protocol
from daemon.relay.wire import Wire, template

OVERRIDDEN = ["connection_made", "connection_lost", "eof_received", "data_received", "push", "_timeout_cb"]


def test_the_version_is_the_one_that_was_read() -> None:
    assert importlib.metadata.version("aiosmtpd") == "1.4.6"


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_what_we_override_is_there_to_be_overridden(name: str) -> None:
    assert name in vars(Wire)
    ours, theirs = getattr(Wire, name), getattr(SMTP, name)
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
    assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(theirs)


def test_their_handler_is_replaced_by_ours() -> None:
    assert "_handle_client" in vars(Protocol)
    assert inspect.iscoroutinefunction(SMTP._handle_client)


async def test_no_name_of_ours_hides_one_of_theirs() -> None:
    """`Wire` and `Protocol` add attributes to a class with many of its own."""
    theirs = set(template(asyncio.get_running_loop(), "x", 1000, 300)) | set(dir(SMTP))
    source = inspect.getsource(Wire.__init__) + inspect.getsource(Protocol.__init__)
    ours = {text.partition(" ")[0].partition(":")[0] for text in source.split("self.")[1:]}
    assert ours & theirs <= {"__dict__", "loop\n", "loop"}


async def test_the_template_is_all_that_their_init_does() -> None:
    """It holds nothing that two clients must not share: only settings, tables and Nones."""
    made = template(asyncio.get_running_loop(), "x", 1000, 300)
    assert made["hostname"] == "x"
    assert made["_timeout_duration"] == 300
    for name in ("session", "envelope", "transport", "_timeout_handle", "_handler_coroutine"):
        assert made[name] is None


async def test_their_session_has_what_we_keep_in_it() -> None:
    session = SMTP(None, hostname="x", loop=asyncio.get_running_loop())._create_session()
    assert session.peer is None
    assert session.ssl is None


async def test_a_future_tells_that_it_is_awaited_as_steps_expects() -> None:
    """asyncio's agreement between futures and tasks: a future yields itself, with this flag set."""
    future = asyncio.get_running_loop().create_future()
    waiting = future.__await__()
    assert next(waiting) is future
    assert future._asyncio_future_blocking is True
    future.set_result(7)
    with pytest.raises(StopIteration) as ended:
        waiting.send(None)
    assert ended.value.value == 7


async def test_sleep_nothing_is_a_bare_yield() -> None:
    assert asyncio.sleep(0).send(None) is None
