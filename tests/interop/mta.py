"""A Postfix with more lines in its configuration: those that docs/deploy.md prints."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.servers import Postfix

# Printed settings are for years of service; a test cannot wait for them.
_HASTE: Final = "queue_run_delay = 1s\nminimal_backoff_time = 1s\nmaximal_backoff_time = 1s\n"


class Mta(Postfix):
    """A Postfix whose log and queue a test looks at."""

    @property
    def log(self) -> str:
        """All it has logged."""
        return self.log_file.read_text(errors="replace")

    @property
    def queue(self) -> int:
        """How many messages it holds. One that it moves at this moment may be missed."""
        found = (p for name in ("incoming", "active", "deferred") for p in self._in(name))
        return len({p.name for p in found if p.is_file()})

    def _in(self, name: str) -> Iterator[Path]:
        return (self.directory / "spool" / name).rglob("*")


def _overridden(main_cf: str, more: str) -> str:
    """Both, without the lines of the first that the second sets anew: Postfix would warn of each."""
    names = re.findall(r"^(\w+) *=", more, re.MULTILINE)
    kept = [line for line in main_cf.splitlines() if line.partition("=")[0].strip() not in names]
    return "\n".join([*kept, more])


@contextlib.contextmanager
def mta(relayhost_port: int, main_cf: str = "", master_cf: str = "") -> Iterator[Mta]:
    """A running Postfix (root; Debian: postfix). `main_cf` overrides what tests/servers says, `master_cf` adds to it."""
    with tempfile.TemporaryDirectory(prefix="oo", dir="/tmp", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)  # it drops root
        server = Mta(Path(name), relayhost_port)
        main, master = server.etc / "main.cf", server.etc / "master.cf"
        main.write_text(_overridden(_overridden(main.read_text(), main_cf), _HASTE))
        master.write_text(master.read_text() + master_cf)
        server.start()
        try:
            yield server
        except BaseException:
            print(server.log)  # shown with the failed test
            raise
        finally:
            server.kill()
