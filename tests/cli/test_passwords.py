"""optoutd password: what goes into the file of an operator."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest
from argon2 import PasswordHasher

from daemon.web.console.access import fits_password
from tests.cli.desk import ROOT, Desk

GOOD = "correct horse battery"


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_the_hash_of_a_password_on_stdin_fits_it_and_nothing_else(desk: Desk, ending: str) -> None:
    said = desk("password", stdin=f"{GOOD}{ending}".encode())
    assert (said.code, said.err) == (0, "")
    (kept,) = said.out.splitlines()
    assert kept.startswith("$argon2id$")
    assert not PasswordHasher().check_needs_rehash(kept)
    assert fits_password(kept, GOOD)
    assert not fits_password(kept, GOOD + " ")


def test_accents_fit_however_they_are_typed(desk: Desk) -> None:
    kept = desk("password", stdin="de\u0301ja\u0300 vu encore".encode()).out.strip()
    assert fits_password(kept, "d\u00e9j\u00e0 vu encore")


@pytest.mark.parametrize(
    "stdin", [b"", b"\n", b"short", b"\xff" * 12, b"two lines\nof it all", b"a tab\tin it..", b"x" * 5000]
)
def test_what_is_no_password_is_told_in_one_sentence(desk: Desk, stdin: bytes) -> None:
    said = desk("password", stdin=stdin)
    assert said.code == 65
    assert "password" in said.sentence


@pytest.mark.parametrize(("again", "code"), [(GOOD, 0), ("something else", 65)])
def test_on_a_terminal_it_is_typed_twice_and_never_shown(again: str, code: int) -> None:
    terminal, ours = pty.openpty()
    command = [sys.executable, "-m", "daemon", "password"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=ours, stdout=subprocess.PIPE, stderr=ours, start_new_session=True, env=_environment()
    ) as asked:
        heard = b""
        for prompt, typed in ((b"Password: ", GOOD), (b"again: ", again)):
            while prompt not in heard:
                heard += os.read(terminal, 1000)
            os.write(terminal, f"{typed}\n".encode())
        assert asked.stdout is not None
        out = asked.stdout.read().decode().strip()
        os.close(ours)
    os.close(terminal)
    assert asked.returncode == code
    assert GOOD.encode() not in heard
    assert fits_password(out, GOOD) if code == 0 else out == ""


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}
