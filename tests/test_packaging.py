"""The Debian package, built as `make deb` builds it, and installed over a throw-away copy of this machine's root."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

import pytest

from daemon import __version__
from tests.once import once
from tests.scenarios.test_systemd_boot import over_this_root

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[1]
CONFIG = '[house]\nname = "Quill PDF"\n'

# What an administrator does with it, and what is there after each step. Everything is told on one line: a name, and what.
DRIVE = r"""
set -eu
export DEBIAN_FRONTEND=noninteractive
told() { printf '%s=%s\n' "$1" "$(printf %s "$2" | tr '\n' ' ')" >>/run/notes/told; }
dpkg -i /run/deb/*.deb >/run/notes/dpkg.log 2>&1
told version "$(optoutd --version)"
told user "$(id -un optoutd) $(stat -c '%U:%G %a' /etc/optoutd /var/lib/optoutd | tr '\n' ' ')"
told unit "$(systemd-analyze verify optoutd.service 2>&1)"
told manual "$(ls /usr/share/man/man1/optoutd.1.gz /usr/share/man/man5/optoutd.toml.5.gz)"
install -o root -g optoutd -m 640 /run/deb/config.toml /etc/optoutd/config.toml
as_daemon() { setpriv --reuid=optoutd --regid=optoutd --clear-groups env HOME=/ "$@"; }
told config "$(as_daemon optoutd check-config 2>&1)"
as_daemon optoutd suppress ann@customer.example >/dev/null
told kept "$(stat -c '%U %a %n' /var/lib/optoutd/optoutd.db /var/lib/optoutd/site.key | tr '\n' ' ')"
told driver "$(/opt/optoutd/bin/python3 -c 'import psycopg; print(psycopg.__name__)')"
told owners "$(find /opt/optoutd /usr/bin/optoutd ! -user root -o -perm /022 ! -type l | head -n 3)"
mkdir -p /run/systemd/system /usr/local/bin # as if systemd ran; what it is asked is written down
printf '#!/bin/sh\necho "$*" >>/run/asked; [ -e /run/fails ] && [ "$1" = is-active ] && exit 3; exit 0\n' >/usr/local/bin/systemctl
chmod 755 /usr/local/bin/systemctl
dpkg -i /run/deb/*.deb >>/run/notes/dpkg.log 2>&1
told upgraded "$(cat /run/asked)"
touch /run/fails
rm /run/asked
dpkg -i /run/deb/*.deb >>/run/notes/dpkg.log 2>&1
told stopped "$(cat /run/asked)"
rm -r /run/systemd/system /usr/local/bin/systemctl
as_daemon optoutd check ann@customer.example >/dev/null && told again clear || told again "refused, $?"
dpkg --purge optoutd >>/run/notes/dpkg.log 2>&1
told left "$(ls -d /opt/optoutd /usr/bin/optoutd /usr/lib/systemd/system/optoutd.service 2>/dev/null || :)"
told stays "$(ls /var/lib/optoutd/site.key)"
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the steps told."""
    with once("package", tmp_path_factory) as (notes, ours):
        if ours:
            _installed(notes)
    lines = (notes / "told").read_text().splitlines()
    return {name: what.strip() for name, _, what in (line.partition("=") for line in lines)}


def _installed(notes: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="oo", dir="/tmp") as name, over_this_root() as root:
        built = Path(name, "deb")
        quickly = {**os.environ, "COMPRESSION": "-Zgzip -z1"}
        built_by = [ROOT / "scripts/build-deb", built]
        done = subprocess.run(built_by, env=quickly, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stdout + done.stderr
        (built / "config.toml").write_text(CONFIG)
        (built / "drive.sh").write_text(DRIVE)
        done = subprocess.run(
            [
                *("systemd-nspawn", "--quiet", f"--directory={root}", "--volatile=overlay", "--private-network"),
                *(
                    "--register=no",
                    "--keep-unit",
                    "--as-pid2",
                    f"--bind-ro={built}:/run/deb",
                    f"--bind={notes}:/run/notes",
                ),
                *("/bin/sh", "/run/deb/drive.sh"),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=200,
        )
        log = (notes / "dpkg.log").read_text() if (notes / "dpkg.log").exists() else ""
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{log}"


def test_the_package_installs_and_the_command_is_in_the_path(told: dict[str, str]) -> None:
    assert told["version"] == f"optoutd {__version__}"
    assert "optoutd.1.gz" in told["manual"]
    assert "optoutd.toml.5.gz" in told["manual"]


def test_the_daemon_has_a_user_and_directories_of_its_own(told: dict[str, str]) -> None:
    assert told["user"] == "optoutd root:optoutd 750 optoutd:optoutd 700"
    assert told["kept"] == "optoutd 600 /var/lib/optoutd/optoutd.db optoutd 600 /var/lib/optoutd/site.key"


def test_systemd_has_nothing_to_say_about_the_unit(told: dict[str, str]) -> None:
    assert told["unit"] == ""


def test_the_config_is_found_and_right(told: dict[str, str]) -> None:
    assert told["config"] == "ok"


def test_it_brings_the_driver_for_postgresql(told: dict[str, str]) -> None:
    assert told["driver"] == "psycopg"


def test_what_it_installs_is_roots_alone(told: dict[str, str]) -> None:
    assert told["owners"] == ""


def test_an_upgrade_keeps_the_list(told: dict[str, str]) -> None:
    assert told["again"] == "refused, 1"


def test_a_daemon_that_runs_is_stopped_while_its_program_is_replaced(told: dict[str, str]) -> None:
    asked = ["is-active --quiet optoutd", "stop optoutd", "daemon-reload", "start optoutd"]
    assert [call for call in asked if call in told["upgraded"]] == asked
    assert told["upgraded"].index("stop optoutd") < told["upgraded"].index("start optoutd")


def test_one_that_does_not_run_is_not_started(told: dict[str, str]) -> None:
    assert "is-active" in told["stopped"]
    assert not re.search(r"\b(start|restart|stop) optoutd", told["stopped"])


def test_a_purge_takes_the_program_and_leaves_the_list_and_its_key(told: dict[str, str]) -> None:
    assert told["left"] == ""
    assert told["stays"] == "/var/lib/optoutd/site.key"
