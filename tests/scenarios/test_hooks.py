"""A daemon that tells a program of changes: killed in the worst moment, reloaded, and of two nodes only one."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.process import Daemon
from tests.servers import Postgres
from tests.webhooks.receiver import SECRET, Receiver, receiver

pytestmark = pytest.mark.timeout(180)
ANN, BOB, CARLA = "ann@customer.example", "bob@customer.example", "carla@customer.example"


def config(*of: Receiver, storage: str = "") -> str:
    """A house that tells these programs."""
    tables = [
        f'[[webhook]]\nname = "crm{n or ""}"\nurl = "{it.url}"\nsecret_file = "secret"' for n, it in enumerate(of)
    ]
    house = '[house]\nname = "Quill PDF"\naddresses = ["support@quillpdf.example"]\n'
    return "\n".join([house, storage, '[log]\nformat = "json"\nlevel = "debug"', *tables])


def home(directory: Path, text: str) -> Daemon:
    directory.mkdir()
    (directory / "secret").write_text(SECRET + "\n")
    return Daemon(directory, text)


@pytest.fixture
def nodes() -> Iterator[list[Daemon]]:
    """Those that a test has started: none outlives it."""
    found: list[Daemon] = []
    yield found
    for daemon in found:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.kill()


def begun(daemon: Daemon, name: str = "crm") -> bool:
    facts = daemon.cli("hooks", "--json").stdout
    return f'"name": "{name}"' in facts and '"state": "new"' not in facts


def test_killed_before_it_has_heard_the_answer_it_tells_the_same_once_more(tmp_path: Path, nodes: list[Daemon]) -> None:
    with receiver() as crm:
        daemon = home(tmp_path / "a", config(crm))
        nodes.append(daemon)
        daemon.start()
        daemon.until(lambda: begun(daemon))
        crm.answer = _kills(daemon, BOB)
        for address in (ANN, BOB, CARLA):
            daemon.cli("suppress", address)
        crm.until(lambda: BOB in crm.addresses())
        assert daemon.process is not None
        daemon.process.wait(20)
        crm.answer = lambda change: 204
        daemon.start()
        crm.until(lambda: CARLA in crm.addresses())
        daemon.until(lambda: '"waiting": 0' in daemon.cli("hooks", "--json").stdout)
        assert daemon.stop() == 0
    assert [a for n, a in enumerate(crm.addresses()) if a not in crm.addresses()[:n]] == [ANN, BOB, CARLA]
    assert [i for i, a in zip(crm.ids, crm.addresses(), strict=True) if a == BOB] == ["crm-2", "crm-2"]
    assert crm.wrong == []
    assert "customer.example" not in daemon.log_file.read_text()


def _kills(daemon: Daemon, address: str) -> Any:
    def answer(change: dict[str, Any]) -> int:
        if change["address"] == address:
            assert daemon.process is not None
            daemon.process.kill()
        return 204

    return answer


def test_a_change_is_told_within_two_seconds_and_a_reload_brings_another_hook(tmp_path: Path) -> None:
    with receiver() as crm, receiver() as shop:
        daemon = home(tmp_path / "a", config(crm))
        with daemon.running():
            daemon.until(lambda: begun(daemon))
            daemon.cli("suppress", ANN)
            committed = time.monotonic()
            crm.until(lambda: crm.heard)
            assert crm.at[0] - committed < 2
            daemon.file.write_text(config(crm, shop))
            assert daemon.process is not None
            daemon.process.send_signal(1)
            daemon.until(lambda: daemon.events("reloaded"))
            daemon.until(lambda: begun(daemon, "crm1"))
            daemon.cli("suppress", BOB)
            shop.until(lambda: shop.addresses() == [BOB])
            crm.until(lambda: crm.addresses() == [ANN, BOB])
            (daemon.directory / "secret").write_text("short\n")
            daemon.process.send_signal(1)
            daemon.until(lambda: daemon.events("reload_refused"))
            assert "webhook[0].secret_file: must be 24 characters" in str(daemon.events("reload_refused"))
            daemon.cli("suppress", CARLA)
            shop.until(lambda: shop.addresses() == [BOB, CARLA])


def test_a_secret_that_is_too_short_keeps_the_daemon_from_starting(tmp_path: Path) -> None:
    with receiver() as crm:
        daemon = home(tmp_path / "a", config(crm))
        (daemon.directory / "secret").write_text("short\n")
        daemon.file.write_text(daemon.config)
        daemon.file.chmod(0o600)
        assert "webhook[0].secret_file: must be 24" in daemon.cli("run", expect=78).stderr


@pytest.mark.postgres
def test_of_two_nodes_one_tells_and_the_other_goes_on_when_it_dies(
    tmp_path: Path, postgres: Postgres, nodes: list[Daemon]
) -> None:
    database = postgres.new_database()
    with receiver() as crm:
        text = config(crm, storage=f'[storage]\nurl = "{postgres.url(database)}"')
        first, second = home(tmp_path / "a", text), home(tmp_path / "b", text)
        first.file.write_text(text)
        first.file.chmod(0o600)
        first.cli("migrate")
        shutil.copy(first.directory / "site.key", second.directory / "site.key")
        nodes.append(first)
        first.start()
        first.until(lambda: begun(first))
        nodes.append(second)
        second.start()
        for number in range(10):
            second.cli("suppress", f"{number}@customer.example")
        crm.until(lambda: len(crm.heard) == 10)
        first.until(lambda: '"waiting": 0' in first.cli("hooks", "--json").stdout)
        assert [len(node.events("hook_told")) for node in (first, second)] == [10, 0]
        crm.answer = _kills(first, ANN)
        second.cli("suppress", ANN)
        crm.until(lambda: ANN in crm.addresses())
        second.cli("suppress", BOB)
        crm.answer = lambda change: 204
        postgres.run("UPDATE lease SET until = 0", database)  # the clock goes on
        crm.until(lambda: BOB in crm.addresses())
        second.until(lambda: '"waiting": 0' in second.cli("hooks", "--json").stdout)
        assert second.stop() == 0
        assert crm.ids == [f"crm-{seq}" for seq in range(1, 11)] + ["crm-11", "crm-11", "crm-12"]
