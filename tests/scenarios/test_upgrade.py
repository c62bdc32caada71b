"""docs/upgrade.md, walked line by line with two versions of the program, and what else an upgrade may meet."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from storage.engine import REVISION
from storage.sqlite import revision
from tests.scenarios.process import ROOT, Daemon, config
from tests.scenarios.versions import LATER, later_version
from tests.servers import Postgres, Sink
from tests.storage.earlier import earlier_revisions, ledger_of
from tests.storage.lives import BOB, ZELDA

PAGE = (ROOT / "docs/upgrade.md").read_text()
BLOCKS = dict(re.findall(r"^```sh (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
ANN, EVE = "ann@example.com", "eve@example.com"
OLDEST = earlier_revisions()[0]
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="oo") as name:
        (Path(name) / "backups").mkdir()
        yield Path(name)


@dataclass
class Machine:
    """One on which an operator types what the page says. `versions`: what OLD and NEW are."""

    daemon: Daemon
    versions: dict[str, Path]
    url: str = ""  # of the database that createdb makes
    done: list[str] = field(default_factory=list)

    def does(self, block: str) -> None:
        """Each line of a block, which has to end as the page says."""
        for line in BLOCKS[block].splitlines():
            command, _, told = line.partition(" #")
            code = re.match(r" (\d+)(?::|$)", told)
            assert self._ends(command.rstrip()) == int(code[1] if code else 0), line
            self.done.append(line)

    def _ends(self, command: str) -> int:
        home = str(self.daemon.directory)
        for printed, real in {
            "/mnt/other-disk/optoutd": f"{home}/backups",
            "/var/lib/optoutd": home,
            "NNNN": LATER,
        }.items():
            command = command.replace(printed, real)
        match shlex.split(command):
            case ["make", "install", prefix]:
                version = self.versions[prefix.removeprefix("PREFIX=/opt/optoutd-")]
                self.daemon.environment["PYTHONPATH"] = str(version)
                return 0
            case ["systemctl", verb, "optoutd"]:
                return self._systemctl(verb)
            case ["optoutd", *words]:
                done = self.daemon.cli(*words, expect=None)
                print(command, done.returncode, done.stdout, done.stderr)
                return done.returncode
            case ["createdb", *_]:
                return 0
            case ["sed", *_]:
                command = re.sub(r'"postgresql://[^"]*"', f'"{self.url}"', command)
        return subprocess.run(command, shell=True, cwd=home).returncode

    def _systemctl(self, verb: str) -> int:
        process = self.daemon.process
        if verb == "is-active":
            return 0 if process is not None and process.poll() is None else 3
        if verb in ("stop", "restart") and process is not None and process.poll() is None:
            assert self.daemon.stop() == 0
        if verb in ("start", "restart"):
            self.daemon.config = self.daemon.file.read_text()
            try:
                self.daemon.start()
            except AssertionError:  # it has ended: systemctl would say so
                assert self.daemon.process is not None
                assert self.daemon.process.wait() == 78, self.daemon.log_file.read_text()
        return 0


@contextmanager
def machine(home: Path, later: Path, text: str) -> Iterator[Machine]:
    """One on which this version runs."""
    daemon = Daemon(home, text)
    with daemon.running():
        yield Machine(daemon, {"OLD": ROOT, "NEW": later})


def kept(text: str) -> str:
    return text + '\n[storage]\nbackup_dir = "backups"\n'


def test_forward_and_by_the_copy_back_on_one_machine(home: Path, tmp_path: Path, sink: Sink) -> None:
    later = later_version(tmp_path / "later", goes_with_ours=False)
    with machine(home, later, kept(config(sink.port))) as it:
        it.daemon.cli("suppress", ANN)
        for block in ("before", "sqlite", "after"):
            it.does(block)
        assert revision(home / "optoutd.db") == LATER
        assert revision(home / f"optoutd.db.before-{LATER}") == REVISION
        it.daemon.cli("suppress", EVE)  # only the newer database and the journal know that
        it.does("back")
        assert "it belongs to a newer version of optoutd" in it.daemon.log_file.read_text()
        it.does("restore")
        assert revision(home / "optoutd.db") == REVISION
        assert it.daemon.rcpt(EVE).startswith("550")
        it.does("sure")


def test_back_without_a_copy_where_the_schema_allows_it(home: Path, tmp_path: Path, sink: Sink) -> None:
    later = later_version(tmp_path / "later", goes_with_ours=True)
    with machine(home, later, config(sink.port)) as it:
        it.daemon.cli("suppress", ANN)
        it.does("sqlite")
        it.daemon.cli("suppress", EVE)
        for line in BLOCKS["back"].splitlines()[:2]:
            assert it._ends(line.partition("  #")[0]) == 0
        assert it._systemctl("is-active") == 0
        assert revision(home / "optoutd.db") == LATER
        it.daemon.cli("suppress", BOB)
        for person in (ANN, EVE, BOB):
            assert it.daemon.rcpt(person).startswith("550")
        assert it.daemon.cli("audit", "verify").stdout.startswith("ok, 3 rows")


@pytest.mark.postgres
def test_one_node_after_the_other_and_back(home: Path, tmp_path: Path, sink: Sink, postgres: Postgres) -> None:
    """Two versions work on one database at the same time; every opt-out counts on both at once."""
    later = later_version(tmp_path / "later", goes_with_ours=True)
    url, before = (postgres.url(postgres.new_database()) for _ in "ab")
    text = config(sink.port).replace("[log]", f'[storage]\nurl = "{url}"\n\n[log]')
    for name in "ab":
        (home / name / "backups").mkdir(parents=True)
    second_config = re.sub(r'listen = "127.0.0.1:\d+"', 'listen = "127.0.0.1:0"', text)
    made = Daemon(home / "a", text)
    made.file.write_text(text)
    made.file.chmod(0o600)
    made.cli("migrate")
    shutil.copy(home / "a/site.key", home / "b/site.key")
    with machine(home / "a", later, text) as first, machine(home / "b", later, second_config) as second:
        pair = (first, second)
        first.daemon.cli("suppress", ANN)
        first.does("before-nodes")
        first.does("first")
        for n, (here, there) in enumerate([pair, pair[::-1]]):
            here.daemon.cli("suppress", f"{n}@example.org")
            assert there.daemon.rcpt(f"{n}@example.org").startswith("550")
            assert there.daemon.rcpt(EVE).startswith("250")
        second.does("others")
        assert second.daemon.rcpt("0@example.org").startswith("550")
        for node in pair:
            node.does("nodes-back")
        assert first.daemon.rcpt("1@example.org").startswith("550")
        assert first.daemon.cli("audit", "verify").stdout.startswith("ok, 3 rows")
        second.daemon.stop()
        first.url = before
        first.does("nodes-restore")
        assert not [e for node in pair for e in node.daemon.events("failed")]


@pytest.mark.postgres
def test_a_node_that_is_too_old_for_the_schema_says_so_and_mails_nobody(
    home: Path, tmp_path: Path, sink: Sink, postgres: Postgres
) -> None:
    later = later_version(tmp_path / "later", goes_with_ours=False)
    url = postgres.url(postgres.new_database())
    daemon = Daemon(home, config(sink.port).replace("[log]", f'[storage]\nurl = "{url}"\n\n[log]'))
    daemon.file.write_text(daemon.config)
    daemon.file.chmod(0o600)
    daemon.cli("migrate")
    with daemon.running():
        assert daemon.rcpt(BOB).startswith("250")
        newer = Daemon(home, daemon.config, {"PYTHONPATH": str(later)})
        newer.cli("run", expect=78)  # a node does not migrate by itself
        assert f"schema {REVISION} -> {LATER}" in newer.cli("migrate").stderr
        daemon.until(lambda: daemon.rcpt(BOB).startswith("451 4.3.0"))
        daemon.stop()
        assert "it belongs to a newer version of optoutd" in daemon.cli("run", expect=78).stderr


def test_a_daemon_starts_on_the_oldest_ledger_there_was(home: Path, sink: Sink) -> None:
    ledger_of(OLDEST, home)
    with Daemon(home, config(sink.port)).running() as daemon:
        assert daemon.rcpt(ZELDA).startswith("550")
        assert daemon.rcpt(BOB).startswith("250")
        assert daemon.cli("audit", "verify").stdout.startswith("ok, ")
    assert revision(home / f"optoutd.db.before-{REVISION}") == OLDEST


def test_killed_while_it_migrates_the_next_start_is_as_if_it_were_the_first(home: Path, sink: Sink) -> None:
    ledger_of(OLDEST, home)
    daemon = Daemon(home, config(sink.port))
    daemon.file.write_text(daemon.config)
    daemon.file.chmod(0o600)
    stopped = subprocess.Popen(
        [sys.executable, "-c", _STANDS_STILL, *daemon.command("run")[3:]],
        cwd=home,
        env=daemon._environment(),
        stdout=subprocess.PIPE,
    )
    assert stopped.stdout is not None
    assert stopped.stdout.readline() == b"in the middle\n"
    assert "another optoutd is running" in daemon.cli("run", expect=75).stderr  # no second one meanwhile
    assert "cannot tell" in daemon.cli("check", ZELDA, expect=75).stdout  # nor an answer
    stopped.send_signal(signal.SIGKILL)
    stopped.wait()
    stopped.stdout.close()
    assert revision(home / "optoutd.db") == OLDEST
    with daemon.running():
        assert daemon.rcpt(ZELDA).startswith("550")


_STANDS_STILL = """
import sys, time
import alembic.op
from daemon.cli import invoke
def stand(*_, **__):
    print("in the middle", flush=True)
    time.sleep(1000)
alembic.op.create_index = stand
sys.exit(invoke(sys.argv[1:]))
"""


def test_every_block_of_the_page_is_walked() -> None:
    text = Path(__file__).read_text()
    assert len(BLOCKS) == len(re.findall(r"^```sh", PAGE, re.MULTILINE)) > 8
    assert [name for name in BLOCKS if f'"{name}"' not in text] == []
