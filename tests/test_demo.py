"""`optoutd demo` as a newcomer runs it: as a process, to its end and to a Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@contextmanager
def demo(temporary: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The demo as a process, its temporary files where we can count them."""
    process = subprocess.Popen(
        [sys.executable, "-m", "daemon", "demo", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        cwd=temporary.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "TMPDIR": str(temporary)},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """An empty $TMPDIR."""
    path = tmp_path / "tmp"
    path.mkdir()
    return path


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """What it says up to and with the line that has these words."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    assert process.stderr is not None
    raise AssertionError(said + process.stderr.read())


@pytest.mark.timeout(90)
def test_once(temporary: Path) -> None:
    with demo(temporary, "--once") as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert list(temporary.iterdir()) == []
    lines = [line.split() for line in out.splitlines()]
    told = [(words[0], words[1]) for words in lines if words[:1] in (["delivered"], ["refused"])]
    assert told == [
        ("delivered", "ann@example.com"),
        ("delivered", "bob@example.org"),
        ("delivered", "carla@example.net"),
        ("refused", "ann@example.com"),
        ("delivered", "bob@example.org"),
        ("delivered", "carla@example.net"),
    ]
    assert "opted out ann@example.com" in out
    assert "550 5.7.1 <ann@example.com> has opted out (ref 1)" in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.timeout(90)
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_stays_up_until_told(temporary: Path, end: signal.Signals) -> None:
    with demo(temporary) as process:
        said = read_until(process, "shows up below")
        assert re.search(r"smtp://127\.0\.0\.1:\d+", said)
        assert re.search(r"imap://127\.0\.0\.1:\d+", said)
        (home,) = temporary.iterdir()
        assert f"cd {home}" in said
        process.send_signal(end)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "\nEnded. Nothing is left behind.\n", "")
    assert list(temporary.iterdir()) == []


@pytest.mark.timeout(90)
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_an_end_before_the_end_of_the_story_is_130(temporary: Path, end: signal.Signals) -> None:
    with demo(temporary, "--once") as process:
        read_until(process, "1.")
        process.send_signal(end)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")
    assert list(temporary.iterdir()) == []


@pytest.mark.timeout(90)
def test_other_commands_can_be_tried_on_it(temporary: Path) -> None:
    with demo(temporary) as process:
        said = read_until(process, "shows up below")
        (home,) = temporary.iterdir()

        def optoutd(*words: str) -> int:
            command = [sys.executable, "-m", "daemon", *words]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            return subprocess.run(command, capture_output=True, cwd=home, env=environment, timeout=30).returncode

        assert optoutd("check", "ann@example.com") == 1
        assert optoutd("suppress", "carla@example.net", "--note", "by phone") == 0
        assert "suppressed carla@example.net" in read_until(process, "by phone")
        port = re.findall(r"imap://127\.0\.0\.1:(\d+)", said)[0]
        _write_to_support(int(port), (home / "bob.eml").read_text())
        assert "suppressed bob@example.org by mailbox support" in read_until(process, "bob@")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def _write_to_support(port: int, message: str) -> None:
    from imapclient import IMAPClient

    with IMAPClient("127.0.0.1", port, ssl=False, timeout=20) as client:
        client.login("support", "demo")
        client.append("INBOX", message.encode())


def test_without_its_packages_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from daemon.cli import invoke

    monkeypatch.setitem(sys.modules, "pymap", None)
    monkeypatch.setitem(sys.modules, "pymap.backend", None)
    monkeypatch.setitem(sys.modules, "pymap.backend.dict", None)
    assert invoke(["demo", "--once"]) == 78
    said = capsys.readouterr()
    assert (said.out, said.err.count("pip install 'optoutd[demo]'")) == ("", 1)
