"""Campaigns through the whole daemon: every reference it prints can be looked up, and every recipient is counted once."""

from __future__ import annotations

import json
import re
import smtplib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.cli import invoke
from tests.scenarios.process import PATIENCE, Daemon, config
from tests.sink import Sink

HERE = "newsletter.quillpdf.example"
CREDENTIALS = """
auth = false

[[relay.credential]]
username = "crm"
password_file = "crm"
list = "newsletter"

[[relay.credential]]
username = "shop"
password_file = "shop"
mode = "strip"

[[relay.credential]]
username = "trial"
password_file = "trial"
mode = "observe"

[[relay.credential]]
username = "receipts"
password_file = "receipts"
purpose = "service"
"""
COUNTS = "passed refused stripped withdrawn would_refuse service deferred rejected".split()


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory with the passwords."""
    with tempfile.TemporaryDirectory(prefix="oo") as name:
        for user in ("crm", "shop", "trial", "receipts"):
            (Path(name) / user).write_text(f"secret-{user}\n")
            (Path(name) / user).chmod(0o600)
        yield Path(name)


def message(number: int, list_id: str | None) -> bytes:
    field = f"List-Id: <{list_id}>\r\n" if list_id else ""
    return f"{field}Subject: spring\r\nMessage-ID: <{number}@crm.example>\r\n\r\nhello\r\n".encode()


class Campaign:
    """A marketing tool that keeps what it was told."""

    def __init__(self, daemon: Daemon):
        self.daemon = daemon
        self.told: list[str] = []
        self.sent = 0

    def send(self, user: str, recipients: list[str], list_id: str | None = None) -> None:
        """One message, as a log-in or as nobody."""
        self.sent += 1
        with smtplib.SMTP("127.0.0.1", self.daemon.relay_port, timeout=PATIENCE) as client:
            client.ehlo()
            if user:
                client.login(user, f"secret-{user}")
            client.mail("news@quillpdf.example")
            self.told += [_line(client.rcpt(r)) for r in recipients]
            try:
                self.told.append(_line(client.data(message(self.sent, list_id))))
            except smtplib.SMTPDataError as refused:
                self.told.append(_line((refused.smtp_code, refused.smtp_error)))

    @property
    def refs(self) -> set[int]:
        """All that stood in a reply."""
        return {int(n) for line in self.told for n in re.findall(r"\(ref (\d+)\)", line)}


def _line(said: tuple[int, bytes | str]) -> str:
    code, text = said
    return f"{code} {text.decode() if isinstance(text, bytes) else text}"


PEOPLE = {  # name -> the arguments of `suppress`
    "out": ("out@example.com", "--reason", "opt-out"),
    "left": ("left@example.com", "--reason", "opt-out", "--list", "newsletter"),
    "gone": ("gone@example.com", "--reason", "hard-bounce"),
    "angry": ("angry@example.com", "--reason", "complaint"),
    "hand": ("hand@example.com",),
    "domain": ("@closed.example",),
}


def test_every_reference_is_explained_and_everybody_is_counted_once(
    home: Path, sink: Sink, capsys: pytest.CaptureFixture[str]
) -> None:
    def cli(*arguments: str) -> list[dict[str, Any]]:
        """In this process, beside the daemon."""
        capsys.readouterr()
        code = invoke(("-c", str(home / "optoutd.toml"), *arguments, "--json"))
        said = capsys.readouterr()
        assert code == 0, (arguments, said)
        return [json.loads(line) for line in said.out.splitlines()]

    with Daemon(home, config(sink.port, relay=CREDENTIALS)).running() as daemon:
        for arguments in PEOPLE.values():
            cli("suppress", *arguments)
        campaign = Campaign(daemon)
        out, left, gone, angry, hand = (f"{n}@example.com" for n in ("out", "left", "gone", "angry", "hand"))
        bad = [out, gone, angry, hand, "someone@closed.example"]
        clear = ["ann@example.com", "bob@example.com"]
        campaign.send("crm", [*clear, *bad, left])
        campaign.send("crm", bad)
        campaign.send("", [*clear, *bad, left])
        campaign.send("", [*clear, left], HERE)
        campaign.send("", [left], HERE)
        campaign.send("shop", [*clear, *bad, left], HERE)
        campaign.send("shop", [out, left], HERE)
        campaign.send("trial", [*clear, out, left], HERE)
        campaign.send("receipts", [*clear, out, gone])
        with sink.recording():
            sink.replies["RCPT <bob@example.com>"] = "550 5.1.1 no such user"
        campaign.send("trial", [*clear, out], HERE)
        sink.stop()
        campaign.send("crm", [*clear, out])
        assert daemon.stop() == 0  # the last second is written down

        logged = {e["ref"] for e in daemon.events() if e.get("ref") and "rcpt" in e}
        assert logged == campaign.refs  # of this campaign each is in some reply
        assert len(logged) == len(PEOPLE)
        for ref in logged:
            (fact,) = cli("show", "--ref", str(ref))
            assert fact["suppressed"]
            assert {s["ref"] for s in fact["suppressions"]} == {ref}
            assert fact["history"][0]["event"] == "suppressed"
            assert {h["ref"] for h in fact["history"]} == {ref}
        texts = {re.sub(r"^550 5\.7\.1 <[^>]*> | \(ref \d+\)$", "", line) for line in campaign.told if "ref" in line}
        assert texts == {
            "has opted out",
            "has opted out of newsletter",
            "is suppressed: hard-bounce",
            "is suppressed: complaint",
            "is suppressed: operator",
            "is suppressed: domain",
        }

        nothing = dict.fromkeys(COUNTS, 0)
        expected = {
            "crm": {"passed": 2, "refused": 6 + 5 + 1, "deferred": 2},
            None: {"passed": 3 + 2, "refused": 5 + 1, "stripped": 1},
            "shop": {"passed": 2, "stripped": 6 + 2},
            "trial": {"passed": 2 + 1, "would_refuse": 2 + 1, "rejected": 1},
            "receipts": {"passed": 2, "service": 1, "refused": 1},
        }
        found = {f["credential"]: {c: f[c] for c in COUNTS} for f in cli("stats", "--by", "credential")}
        assert found == {user: {**nothing, **counts} for user, counts in expected.items()}
        by_list = {f["list"]: {c: f[c] for c in COUNTS} for f in cli("stats", "--by", "list")}
        assert by_list == {
            "newsletter": {
                **nothing,
                "passed": 2 + 2 + 2 + 2 + 1,
                "refused": 6 + 5 + 1 + 1,
                "stripped": 1 + 6 + 2,
                "would_refuse": 3,
                "deferred": 2,
                "rejected": 1,
            },
            None: {**nothing, "passed": 3 + 2, "refused": 5 + 1, "service": 1},
        }
        by_message = {f["message_id"]: f for f in cli("stats", "--by", "message-id")}
        assert {m: (f["passed"], f["refused"], f["stripped"], f["would_refuse"]) for m, f in by_message.items()} == {
            "<1@crm.example>": (2, 6, 0, 0),
            None: (0, 5 + 1, 0, 0),  # of these no message was read
            "<3@crm.example>": (3, 5, 0, 0),
            "<4@crm.example>": (2, 0, 1, 0),
            "<5@crm.example>": (0, 1, 0, 0),
            "<6@crm.example>": (2, 0, 6, 0),
            "<7@crm.example>": (0, 0, 2, 0),
            "<8@crm.example>": (2, 0, 0, 2),
            "<9@crm.example>": (2, 1, 0, 0),
            "<10@crm.example>": (1, 0, 0, 1),
        }
        (story,) = cli("show", left)
        events = "suppressed refused stripped refused stripped stripped would-refuse"
        assert [h["event"] for h in story["history"]] == events.split()
