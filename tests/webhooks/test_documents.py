"""The receivers in docs/webhooks.md do what they say: each is run, and told."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from daemon.webhooks import keys_in, told
from daemon.webhooks.told import Hook
from daemon.webhooks.wire import Line, NoAnswer
from tests.loopback import free_port
from tests.webhooks.receiver import SECRET, until

TEXT = (Path(__file__).parents[2] / "docs/webhooks.md").read_text()
BODY = b'{"address":"ann@customer.example","key":"00","scope":"all","suppressed":true}'
_NOW = str(int(datetime.now(UTC).timestamp()))
_STRANGERS: tuple[dict[str, str], ...] = (
    {},
    {"webhook-timestamp": "soon", "webhook-signature": "v1,x"},
    {"webhook-timestamp": _NOW},
    {"webhook-id": "crm-1", "webhook-timestamp": _NOW, "webhook-signature": "v1,x v1,"},
)


@pytest.mark.parametrize(("language", "command"), [("python", sys.executable), ("js", "node")])
def test_the_receiver_takes_what_is_ours_and_nothing_else(tmp_path: Path, language: str, command: str) -> None:
    if shutil.which(command) is None:
        pytest.skip(f"{command} is not installed")
    (code,) = re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    port = free_port()
    (tmp_path / "receiver").write_text(code.replace("8080", str(port)))
    (tmp_path / "crm-hook-secret").write_text(SECRET + "\n")
    receiver = subprocess.Popen([command, "receiver"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        line = Line(f"http://127.0.0.1:{port}/")
        until(lambda: _listens(line))
        assert _status(line, SECRET) == 204
        assert _status(line, f"{SECRET}\nanother one, which is as long as that") == 204
        assert _status(line, "another one, which is as long as that") == 401
        assert _status(line, SECRET, minutes=-6) == 401
        for stranger in _STRANGERS:  # whatever they send, the receiver lives on
            assert line.post(BODY, stranger).status == 401
        line.close()
        assert receiver.stdout is not None
        assert receiver.stdout.readline().split() in (
            [b"ann@customer.example", b"all", b"True"],
            [b"ann@customer.example", b"all", b"true"],
        )
    finally:
        receiver.kill()
        receiver.communicate()


def _status(line: Line, secret: str, minutes: float = 0) -> int:
    hook = Hook("crm", "", keys_in(secret), frozenset())
    at = datetime.fromtimestamp(datetime.now(UTC).timestamp() + 60 * minutes, UTC)
    return line.post(BODY, told.signed(hook, "crm-1", BODY, at)).status


def _listens(line: Line) -> bool:
    try:
        return _status(line, "nobody's secret, but long enough") == 401
    except NoAnswer:
        return False
