"""The real unit under a real systemd, in a throw-away container booted over this machine's own root.

One boot for all tests: a driver inside the container (DRIVE below) starts, reloads, freezes and stops the service and
writes down what systemd says after each step; the tests read those notes. Nothing on this machine's disk changes: the
container's root is an overlay in memory. It has no network but its own loopback.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import ServerError

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]
PROGRAM = Path(sys.executable).with_name("optoutd")
# What the program needs to see, wherever it lies: the checkout, its virtual environment, the interpreter.
NEEDED = sorted({str(ROOT), sys.prefix, sys.base_prefix} - {"/usr"})
BOOT_SECONDS = 120

# The relay's upstream and the mailbox are away: neither may hold the daemon back.
CONFIG = """\
[house]
name = "Quill PDF"
domains = ["quillpdf.example"]
addresses = ["support@quillpdf.example"]

[relay]
listen = "127.0.0.1:2525"

[upstream]
host = "127.0.0.1"
port = 2526

[[mailbox]]
name = "support"
host = "127.0.0.1"
port = 1143
tls = "none"
username = "support@quillpdf.example"
password_file = "imap-password"
"""

# Only what differs from an installation: where the program is, and a watchdog that one can wait for. A checkout or an
# interpreter in somebody's home, or below /tmp, would be hidden by ProtectHome= and PrivateTmp=.
DROP_IN = f"""\
[Service]
ExecStart=
ExecStart={PROGRAM} run
WatchdogSec=3
TimeoutStartSec=20
ProtectHome=tmpfs
BindReadOnlyPaths={" ".join(NEEDED)}
"""

DRIVER = """\
[Unit]
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
ExecStart=/bin/sh /run/boot/drive.sh
StandardOutput=file:/run/notes/driver.log
StandardError=inherit
TimeoutStartSec=100
"""

DRIVE = """\
note() {  # what systemd says of the service, under the name of a step
    systemctl show optoutd > /run/notes/$1
}
until_is() {  # until_is PROPERTY VALUE: at most 20 s
    for _ in $(seq 200); do
        test "$(systemctl show optoutd -P $1)" = "$2" && return
        sleep 0.1
    done
}
set -x
systemd-sysusers /run/boot/optoutd.sysusers.conf
systemd-tmpfiles --create /run/boot/optoutd.tmpfiles.conf
install -m 640 -g optoutd /run/boot/config.toml /etc/optoutd/config.toml
install -m 600 /run/boot/imap-password /etc/credstore/optoutd.imap-password
systemctl daemon-reload

if ! systemctl start optoutd; then
    journalctl -u optoutd -o cat
    exit 1
fi
note started
pid=$(systemctl show optoutd -P MainPID)
ps -o user= -p $pid > /run/notes/user
ls /run/credentials/optoutd.service > /run/notes/credentials
stat -c '%U %a %n' /var/lib/optoutd /var/lib/optoutd/* > /run/notes/state

sleep 7  # longer than two watchdog periods: a healthy loop is left alone
note kept
systemctl reload optoutd  # ends once the signal is sent: RELOADING=1 and READY=1 follow
until_is ActiveState active
note reloaded

kill -STOP $pid
until_is NRestarts 1
until_is ActiveState active
note frozen

systemctl stop optoutd
note stopped
journalctl -u optoutd -o cat > /run/notes/log
journalctl -u optoutd -o json > /run/notes/journal
"""


@contextlib.contextmanager
def over_this_root() -> Iterator[Path]:
    """This machine's root at another path: nspawn refuses to boot `/` itself."""
    with tempfile.TemporaryDirectory(prefix="oo", dir="/tmp") as root:
        subprocess.run(["mount", "--bind", "/", root], check=True)
        try:
            yield Path(root)
        finally:
            subprocess.run(["umount", "--lazy", root], check=True)


def boot(stage: Path, notes: Path) -> None:
    """Boot the container and wait until the driver has shut it down."""
    with over_this_root() as root:
        done = subprocess.run(
            [
                *("systemd-nspawn", "--quiet", f"--directory={root}", "--volatile=overlay", "--private-network"),
                *("--register=no", "--keep-unit", f"--machine=optoutd-test-{os.getpid()}"),
                *(f"--bind-ro={stage}:/run/boot", f"--bind={notes}:/run/notes"),
                *(
                    f"--bind-ro={stage}/{name}:/etc/systemd/system/{name}"
                    for name in ("optoutd.service", "drive.service")
                ),
                *(f"--bind-ro={path}" for path in NEEDED),
                f"--bind-ro={stage}/drop-in.conf:/etc/systemd/system/optoutd.service.d/test.conf",
                *("--boot", "systemd.unit=drive.service", "systemd.log_target=journal", "systemd.show_status=false"),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BOOT_SECONDS,
        )
    if not (notes / "journal").exists():
        driver = (notes / "driver.log").read_text() if (notes / "driver.log").exists() else ""
        raise ServerError(f"the container did not get through.\n{done.stdout}{done.stderr}\n{driver}")


class Notes:
    """What the driver wrote down."""

    def __init__(self, directory: Path):
        self.directory = directory

    def text(self, name: str) -> str:
        """The output of a command."""
        return (self.directory / name).read_text()

    def properties(self, step: str) -> dict[str, str]:
        """What `systemctl show` said after a step."""
        return dict(line.partition("=")[::2] for line in self.text(step).splitlines())

    def journal(self) -> list[dict[str, Any]]:
        """The service's own lines, parsed; those of systemd are left out."""
        said = [json.loads(line) for line in self.text("journal").splitlines()]
        lines = [str(entry["MESSAGE"]) for entry in said if entry.get("_TRANSPORT") == "stdout"]
        return [json.loads(line) for line in lines if line.startswith("{")]


@pytest.fixture(scope="module")
def notes() -> Iterator[Notes]:
    """Those of one boot."""
    with tempfile.TemporaryDirectory(prefix="oo", dir="/tmp") as name:
        stage, written = Path(name, "stage"), Path(name, "notes")
        stage.mkdir()
        written.mkdir()
        for file in (ROOT / "systemd").iterdir():
            (stage / file.name).write_bytes(file.read_bytes())
        (stage / "config.toml").write_text(CONFIG)
        (stage / "imap-password").write_text("secret-support\n")
        (stage / "drop-in.conf").write_text(DROP_IN)
        (stage / "drive.service").write_text(DRIVER)
        (stage / "drive.sh").write_text(DRIVE)
        boot(stage, written)
        yield Notes(written)


def test_it_is_active_once_it_has_said_so(notes: Notes) -> None:
    found = notes.properties("started")
    assert (found["ActiveState"], found["SubState"]) == ("active", "running"), notes.text("log")
    assert found["Type"] == "notify"
    assert found["StatusText"]


def test_it_runs_as_its_own_user_over_its_own_directory(notes: Notes) -> None:
    assert notes.text("user").strip() == "optoutd"
    directory, *files = notes.text("state").splitlines()
    assert directory == "optoutd 700 /var/lib/optoutd"
    assert {line.rpartition("/")[2] for line in files} >= {"optoutd.db", "site.key"}
    assert {line.split()[1] for line in files} <= {"600", "400"}


def test_it_starts_with_the_one_secret_there_is(notes: Notes) -> None:
    assert notes.text("credentials").split() == ["imap-password"]


def test_the_watchdog_leaves_a_healthy_loop_alone(notes: Notes) -> None:
    before, after = notes.properties("started"), notes.properties("kept")
    assert after["WatchdogUSec"] == "3s"
    assert (after["MainPID"], after["NRestarts"]) == (before["MainPID"], "0")


def test_a_reload_keeps_the_process(notes: Notes) -> None:
    before, after = notes.properties("started"), notes.properties("reloaded")
    assert (after["ActiveState"], after["MainPID"]) == ("active", before["MainPID"])


def test_a_frozen_loop_is_started_again(notes: Notes) -> None:
    before, after = notes.properties("started"), notes.properties("frozen")
    assert (after["ActiveState"], after["NRestarts"]) == ("active", "1")
    assert after["MainPID"] != before["MainPID"]


def test_it_stops_cleanly(notes: Notes) -> None:
    found = notes.properties("stopped")
    assert (found["ActiveState"], found["Result"], found["ExecMainStatus"]) == ("inactive", "success", "0")


def test_the_journal_says_ready_with_the_addresses(notes: Notes) -> None:
    ready = [line for line in notes.journal() if line["event"] == "ready"]
    assert len(ready) == 2, notes.text("log")  # the start, and the start after the freeze
    assert "127.0.0.1:2525" in str(ready[0]["relay"])
    assert "secret-support" not in notes.text("journal")
