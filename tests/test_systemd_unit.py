"""The unit as systemd's own tools judge it; tests/scenarios/test_systemd_boot.py runs it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).parents[1] / "systemd"
UNIT = SYSTEMD / "optoutd.service"
HARDENING = UNIT.read_text().partition("# --- Hardening")[2].partition("[Install]")[0].partition("\n")[2]

BOTH_EMPTY = ("CapabilityBoundingSet=", "AmbientCapabilities=")

needs_analyze = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="Debian package systemd is missing")


def options() -> list[tuple[str, str]]:
    """(key, value) of every line, in order."""
    return [(m[1], m[2]) for m in re.finditer(r"^([A-Za-z]+)=(.*)$", UNIT.read_text(), re.MULTILINE)]


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """systemd-analyze, without the pager and the colours."""
    environment = {"PATH": "/usr/bin:/bin", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"}
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, env=environment)


@needs_analyze
def test_verify_is_silent(tmp_path: Path) -> None:
    # A program that is not installed here is not the unit's fault.
    unit = tmp_path / UNIT.name
    unit.write_text(re.sub(r"(?m)^(ExecStart=)\S+", r"\1/bin/true", UNIT.read_text()))
    done = analyze("verify", unit)
    # Its exit status is 0 even for an unknown key: what it says is what counts.
    assert (done.stdout + done.stderr, done.returncode) == ("", 0)


@needs_analyze
def test_verify_would_have_told_an_unknown_key(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("ProtectHome=", "ProtectHouse="))
    assert "ProtectHouse" in analyze("verify", unit).stderr


@needs_analyze
def test_exposure_is_at_most_one_and_a_half() -> None:
    done = analyze("security", "--offline=true", "--threshold=15", UNIT)
    assert done.returncode == 0, done.stdout


def test_it_is_the_unit_that_was_promised() -> None:
    found = dict(options())
    assert found["ExecStart"] == "/opt/optoutd/bin/optoutd run"
    assert found["Type"] == "notify"
    assert found["StateDirectory"] == "optoutd"
    assert found["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert int(found["WatchdogSec"]) > 0


def test_every_hardening_line_has_its_reason() -> None:
    before = "#"
    for line in HARDENING.splitlines():
        key = line.partition("=")[0]
        if line and not line.startswith("#"):
            # two lines about the same thing share it
            assert before.startswith(("#", f"{key}=")) or (before, line) == BOTH_EMPTY, line
        before = line


def test_a_secret_that_is_missing_cannot_stop_the_unit() -> None:
    """systemd 252 skips a missing credential only if its source is a bare name, looked for in /etc/credstore."""
    sources = [value.partition(":") for key, value in options() if key == "LoadCredential"]
    assert sources
    for name, _, source in sources:
        assert source == f"optoutd.{name}"


def test_it_hands_over_every_secret_that_the_example_names() -> None:
    example = (SYSTEMD.parent / "config.example.toml").read_text()
    named = set(re.findall(r'^(?:# )?(?:password|token|secret)_file = "([^"]+)"', example, re.MULTILINE))
    assert {"imap-password", "shop-token", "crm-hook-secret"} <= named
    assert named <= {value.partition(":")[0] for key, value in options() if key == "LoadCredential"}


def test_the_user_and_the_directories_are_made() -> None:
    found = dict(options())
    assert re.search(rf"^u {found['User']} ", (SYSTEMD / "optoutd.sysusers.conf").read_text(), re.MULTILINE)
    directories = re.findall(r"^d (\S+)", (SYSTEMD / "optoutd.tmpfiles.conf").read_text(), re.MULTILINE)
    assert {"/etc/optoutd", f"/var/lib/{found['StateDirectory']}", "/etc/credstore"} <= set(directories)
