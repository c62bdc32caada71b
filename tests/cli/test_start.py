"""A quick start: what the command line imports before it knows what is wanted."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.cli.desk import ROOT, Desk

HEAVY = "sqlalchemy sqlmodel pydantic structlog rich aiosmtpd imapclient apscheduler alembic asyncio daemon.mail daemon.service"
DAEMON = "sqlmodel.ext aiosmtpd imapclient apscheduler alembic structlog rich daemon.mail daemon.service daemon.relay"


def _imported(code: str, names: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return set(names.split()) & set(done.stdout.splitlines())


def test_the_command_line_alone_imports_nothing_heavy() -> None:
    assert _imported("import daemon.cli", HEAVY) == set()


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_version_and_help_import_nothing_heavy(option: str) -> None:
    assert _imported(f"import daemon.cli; daemon.cli.invoke([{option!r}])", HEAVY) == set()


def test_a_check_does_not_import_the_daemon(desk: Desk) -> None:
    desk.books()
    assert _imported("import daemon.cli; assert daemon.cli.invoke(['check', 'a@b.example']) == 0", DAEMON) == set()
