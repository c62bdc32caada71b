"""Fixtures for the real servers, what to do where one of them cannot run, and how several workers share the tests.

A test that needs a server says so by a marker. Where the server is not installed the test is skipped, and the end of
the run names what was missing and how many tests were left out for it: a green run must not look fuller than it was.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import structlog

from daemon import events
from tests import servers

ROOT = Path(__file__).parents[1]
CORPUS = Path(os.environ.get("OPTOUTD_CORPUS") or ROOT.parent / "shared" / "corpus")

_left_out = pytest.StashKey[dict[tuple[str, str], int]]()


# ------------------------------------------------------------------ what is missing here?


def _package(files: dict[str, str]) -> str:
    """The Debian packages of those files that are not there."""
    missing = sorted(package for package, file in files.items() if not (servers.program(file) or Path(file).exists()))
    return f"Debian package {' '.join(missing)}" if missing else ""


def _no_dovecot() -> str:
    missing = _package(
        {
            "dovecot-core": "dovecot",
            "dovecot-imapd": "/usr/lib/dovecot/imap",
            "dovecot-lmtpd": "/usr/lib/dovecot/lmtp",
        }
    )
    if missing:
        return missing
    found = subprocess.run([servers.program("dovecot") or "", "--version"], capture_output=True, text=True).stdout
    return "" if found.startswith("2.3.") else f"Dovecot 2.3 (2.4 reads another configuration; found {found.strip()})"


def _no_postfix() -> str:
    return _package({"postfix": "postfix"}) or ("" if os.geteuid() == 0 else "root")


def _no_postgres() -> str:
    return "" if servers.postgres_programs() else "Debian package postgresql"


def _no_systemd() -> str:
    missing = _package({"systemd": "systemctl", "systemd-container": "systemd-nspawn"})
    if missing or os.geteuid():
        return missing or "root"
    # A container is often root without the right to mount: nothing can be booted inside it.
    status = Path("/proc/self/status").read_text()
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    return "" if effective >> 21 & 1 else "root with CAP_SYS_ADMIN"


def _no_corpus() -> str:
    return "" if (CORPUS / "third-party").is_dir() else f"the directory {CORPUS}/third-party ($OPTOUTD_CORPUS)"


def _no_browser() -> str:
    return _package({"chromium": "chromium"})


def _no_promtool() -> str:
    return _package({"prometheus": "promtool"})


NEEDS: dict[str, Callable[[], str]] = {
    "dovecot": cache(_no_dovecot),
    "postfix": cache(_no_postfix),
    "postgres": cache(_no_postgres),
    "systemd": cache(_no_systemd),
    "browser": cache(_no_browser),
    "corpus": cache(_no_corpus),
    "promtool": cache(_no_promtool),
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what cannot run here, and count it."""
    left_out = config.stash[_left_out] = Counter[tuple[str, str]]()
    items.sort(key=_is_alone)  # these last, so that the workers wait for each other once only
    for item in items:
        for marker, missing in NEEDS.items():
            if item.get_closest_marker(marker) and missing():
                item.add_marker(pytest.mark.skip(reason=f"{marker}: {missing()} is missing"))
                left_out[marker, missing()] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One line: what was missing, and what it cost."""
    left_out = config.stash.get(_left_out, {})
    said = [f"{count} {marker} tests ({missing} is missing)" for (marker, missing), count in sorted(left_out.items())]
    terminalreporter.write_line(f"left out: {'; '.join(said) or 'nothing, every server the tests need is here'}")


# ------------------------------------------------------------------ several workers (pytest-xdist: `pytest -n auto`)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Two for each processor, as many tests wait for a server or a clock; more than eight would be many servers."""
    return None if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else min(2 * len(os.sched_getaffinity(0)), 8)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker tells what it has left out: it has looked at every test there is, as the others have."""
    if hasattr(session.config, "workeroutput"):
        left_out = session.config.stash.get(_left_out, {})
        session.config.workeroutput["left_out"] = dict(left_out)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hear it. A worker that crashed says nothing."""
    if told := getattr(node, "workeroutput", {}).get("left_out"):
        node.config.stash[_left_out] = told


def _is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


@pytest.hookimpl(wrapper=True, tryfirst=True)  # before pytest-timeout looks at its clock
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[Any]:
    """While a test marked `alone` runs, no other worker runs any.

    Two locks between processes: of the first file for those who are about to begin, of the second for those who run.
    Who waits for the machine holds the first, so that nobody else can begin and it is its turn in the end.
    """
    if not hasattr(item.config, "workerinput"):
        return (yield)
    with Path(__file__).open() as beginning, Path(__file__).with_name("__init__.py").open() as running:
        fcntl.flock(beginning, fcntl.LOCK_EX)
        fcntl.flock(running, fcntl.LOCK_EX if _is_alone(item) else fcntl.LOCK_SH)
        fcntl.flock(beginning, fcntl.LOCK_UN)
        return (yield)


# ------------------------------------------------------------------ the servers


@pytest.fixture(scope="session")
def _dovecot_server() -> Iterator[servers.Dovecot]:
    with servers.dovecot() as server:
        yield server


@pytest.fixture
def dovecot(_dovecot_server: servers.Dovecot) -> servers.Dovecot:
    """The session's Dovecot, running, every mailbox empty."""
    _dovecot_server.start()
    _dovecot_server.clear()
    return _dovecot_server


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """The lines that were logged since it was asked last."""
    events.configure("json", "info")
    yield lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def _sink_server() -> Iterator[servers.Sink]:
    with servers.sink() as server:
        yield server


@pytest.fixture
def sink(_sink_server: servers.Sink) -> servers.Sink:
    """The session's SMTP sink, running, nothing recorded, nothing scripted."""
    _sink_server.reset()
    return _sink_server


@pytest.fixture(scope="session")
def _postfix_server(_sink_server: servers.Sink) -> Iterator[servers.Postfix]:
    with servers.postfix(_sink_server.port) as server:
        yield server


@pytest.fixture
def postfix(_postfix_server: servers.Postfix, sink: servers.Sink) -> servers.Postfix:
    """The session's Postfix, running, nothing queued; what it takes goes to `sink`."""
    _postfix_server.start()
    _postfix_server.clear()
    return _postfix_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[servers.Postgres]:
    """The session's PostgreSQL; tests make databases of their own in it."""
    with servers.postgres() as server:
        yield server


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The collections that stand beside the checkout; for tests with the marker of that name."""
    return CORPUS
