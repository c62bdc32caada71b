"""optoutd doctor, as an operator meets it: lines, advice, exit codes, a terminal, JSON; its document has every line."""

from __future__ import annotations

import ast
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from daemon.cli import doctor as of_cli
from tests.cli.desk import CONFIG, ROOT, Desk
from tests.loopback import free_port
from tests.scenarios.process import Daemon, config
from tests.servers import Dovecot, Sink

LINE = re.compile(r"(ok|warn|FAIL) {2,4}(\S+(?: \S+)*?) {2,}(\S.*)")


def states(out: str) -> dict[str, set[str]]:
    """Part -> its states."""
    found: dict[str, set[str]] = {}
    for text in out.splitlines():
        match = LINE.fullmatch(text)
        assert match, text
        found.setdefault(match[2], set()).add(match[1])
    return found


# ------------------------------------------------------------------ a house that is well, and one that is not


@pytest.mark.dovecot
@pytest.mark.timeout(180)
def test_a_house_that_is_well_while_the_daemon_runs(tmp_path: Path, dovecot: Dovecot, sink: Sink) -> None:
    (tmp_path / "imap-password").write_text("secret-support\n")
    (tmp_path / "imap-password").chmod(0o600)
    web = f'[web]\nlisten = "127.0.0.1:{free_port()}"\n'
    with Daemon(tmp_path, config(sink.port, dovecot, more=web)).running() as daemon:
        daemon.until(lambda: daemon.events("mailbox_connected"))
        said = daemon.cli("doctor", "--probe")
        assert daemon.rcpt("ann@example.com").startswith("250")
    found = states(said.stdout)
    assert not [part for part, of in found.items() if "FAIL" in of], said.stdout
    for part in (
        "config",
        "daemon",
        "site key",
        "database",
        "audit chain",
        "clock",
        "imap support",
        "upstream",
        "relay",
        "web",
    ):
        assert "ok" in found[part], part
    assert said.stderr.startswith("0 failed; ")
    assert sink.messages


def test_before_the_first_start_nothing_is_made(desk: Desk) -> None:
    said = desk.process("doctor")
    assert said.code == 0, said.out
    assert states(said.out)["daemon"] == {"warn"}
    assert sorted(p.name for p in desk.directory.iterdir()) == ["optoutd.toml"]


def test_a_failure_is_1_and_has_advice_on_its_line(desk: Desk) -> None:
    desk.configure(f"{CONFIG}\n[upstream]\nport = {free_port()}\n")
    said = desk("doctor")
    assert said.code == 1
    (line,) = [x for x in said.out.splitlines() if x.startswith("FAIL")]
    assert re.match(r"FAIL  upstream +127\.0\.0\.1:\d+: connect: Connection refused -> nothing listens there", line)
    assert re.fullmatch(
        r"1 failed: upstream; \d+ to look at some day \(docs/doctor.md explains each line\)\n", said.err
    )


def test_json_has_the_same(desk: Desk) -> None:
    desk.configure(f"{CONFIG}\n[upstream]\nport = {free_port()}\n")
    said = desk("doctor", "--json")
    assert said.code == 1
    assert {tuple(fact) for fact in said.facts} == {("part", "state", "text", "advice")}
    assert {fact["state"] for fact in said.facts} == {"ok", "warn", "FAIL"}
    assert all(bool(fact["advice"]) == (fact["state"] != "ok") for fact in said.facts)


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("[house]\n", ["house.name"]),
        ('[house]\nname = "x"\n[webb]\n[upstream]\nport = 0\n', ["upstream.port", "webb"]),
        ("[house", ["config"]),
        ('[house]\nname = "x"\n[web]\nadmin_password_file = "short"\n', ["web.admin_password_file"]),
    ],
)
def test_a_config_that_cannot_be_used_is_78_with_all_its_problems(desk: Desk, text: str, paths: list[str]) -> None:
    (desk.directory / "short").write_text("")
    desk.configure(text)
    said = desk("doctor", "--json")
    assert said.code == 78
    assert [fact["part"] for fact in said.facts] == ["config"] * len(paths)
    assert all(fact["state"] == "FAIL" and fact["advice"] for fact in said.facts)
    assert sorted(re.split(r"[: ]", fact["text"])[0] for fact in said.facts) == paths


def test_no_config_at_all(desk: Desk) -> None:
    (desk.directory / "optoutd.toml").unlink()
    said = desk("doctor")
    assert (said.code, said.sentence[:36]) == (78, "no config: give one with -c FILE, or")


def test_who_cannot_see_the_secrets_of_the_unit_is_told_who_can(desk: Desk) -> None:
    from daemon.doctor import files

    desk.configure('[house]\nname = "x"\n[web]\nadmin_password_file = "not-here"\n')
    assert "only root" not in desk("doctor").out  # its config is not the unit's
    desk.monkeypatch.setattr(files, "DEFAULT_PATHS", (desk.directory / "config.toml",))
    somebody = os.geteuid() or 1000
    desk.monkeypatch.setattr(os, "geteuid", lambda: somebody)
    assert "/etc/credstore/optoutd.NAME, only root and the unit can see it: run this as root" in desk("doctor").out


def test_misuse_is_64(desk: Desk) -> None:
    assert desk("doctor", "--prob").code == 64
    assert desk("doctor", "me").code == 64


def test_a_reader_who_has_had_enough(desk: Desk) -> None:
    command = f"{sys.executable} -m daemon doctor | head -1"
    done = subprocess.run(
        command,
        shell=True,
        capture_output=True,
        text=True,
        cwd=desk.directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.startswith("ok    config")
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr


# ------------------------------------------------------------------ a terminal


def on_a_terminal(desk: Desk) -> str:
    """All that is shown on a terminal of 100 columns."""
    ours, theirs = pty.openpty()
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        [sys.executable, "-m", "daemon", "doctor"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=desk.directory,
        env=settings,
    )
    os.close(theirs)
    shown, end = b"", time.monotonic() + 60
    while time.monotonic() < end:
        if not select.select([ours], [], [], 1)[0]:
            continue
        try:
            some = os.read(ours, 4096)
        except OSError:
            break
        if not some:
            break
        shown += some
    process.wait(30)
    os.close(ours)
    return shown.decode()


def test_on_a_terminal_there_is_colour_and_room_and_what_is_tried(desk: Desk, sink: Sink) -> None:
    sink.replies["GREETING"], sink.delays["GREETING"] = "554 5.3.2 go away", 2
    desk.configure(f"{CONFIG}\n[upstream]\nport = {sink.port}\n")
    shown = on_a_terminal(desk)
    assert "\x1b[31m" in shown
    assert "\n                      -> does the server's own log say more?" in shown
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;]*[mK]", "", shown))
    assert max(len(x) for x in lines if "/" not in x) <= 100  # a path is not broken
    assert f"... upstream: greeting, EHLO with 127.0.0.1:{sink.port}" in lines


def test_colour_is_left_out_where_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_cli, "_is_terminal", lambda stream: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert of_cli._painted("FAIL  x") == "\x1b[31m\x1b[1mFAIL\x1b[0m  x"
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        with monkeypatch.context() as quiet:
            quiet.setenv(name, value)
            assert of_cli._painted("FAIL  x") == "FAIL  x"


def test_into_a_file_go_no_escapes(desk: Desk) -> None:
    assert "\x1b" not in desk.process("doctor").out


# ------------------------------------------------------------------ the document

DOCUMENT = (ROOT / "docs/doctor.md").read_text()


TREES = [ast.parse(path.read_text()) for path in sorted((ROOT / "daemon/doctor").glob("*.py"))]
STATES = {"ok": "ok", "warn": "warn", "fail": "FAIL"}  # of Look -> as told
ROWS = set(re.findall(r"^\| (ok|warn|FAIL) \| `([^`]+)` \|", DOCUMENT, re.MULTILINE))


def _parts_of_the_code() -> set[str]:
    """With a name in the place of a mailbox's or webhook's."""
    sources = "".join(path.read_text() for path in sorted((ROOT / "daemon/doctor").glob("*.py")))
    named = set(re.findall(r'\("([a-z ]+)", \w+\.\w+\)', sources)) | set(
        re.findall(r'look\.of\("([a-z ]+)"\)', sources)
    )
    return named | {"imap NAME", "webhook NAME"}


def _template(text: ast.expr) -> str:
    """A text with `…` for each value in it."""
    match text:
        case ast.Constant(value=str() as words):
            return words
        case ast.JoinedStr(values=pieces):
            return "".join(map(_template, pieces))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _template(left) + _template(right)
        case _:
            return "…"


def _plain(template: str) -> str:
    return re.sub(r"…(?:[,;]? ?…)*", "…", " ".join(template.replace("`", "'").split()))


def _lines_of_the_code() -> set[tuple[str, str]]:
    """(state, text) of every call that makes a finding, but for those of which the text is made elsewhere."""
    calls = [
        n for tree in TREES for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)
    ]
    made = [c for c in calls if isinstance(c.func, ast.Attribute) and c.func.attr in STATES and c.args]
    lines = {(STATES[c.func.attr], _plain(_template(c.args[0]))) for c in made if isinstance(c.func, ast.Attribute)}
    return {(state, text) for state, text in lines if re.search(r"[a-z]", text)}


def test_the_document_has_a_section_for_each_part() -> None:
    headings = re.findall(r"^## `([^`]+)`", DOCUMENT, re.MULTILINE)
    assert set(headings) - {"optoutd doctor"} == _parts_of_the_code()
    assert len(headings) > 15


def test_the_document_has_every_line_of_the_code() -> None:
    lines = _lines_of_the_code()
    assert len(lines) > 90
    assert sorted(lines - ROWS) == []


def test_the_document_has_no_line_that_the_code_does_not_have() -> None:
    known = "\n".join(_plain(_template(n)) for tree in TREES for n in ast.walk(tree) if isinstance(n, ast.expr))
    others = (ROOT / "storage/engine.py").read_text() + (ROOT / "daemon/config.py").read_text()
    steps = "resolve connect tls login select greeting ehlo auth mail"
    gone = [t for _, t in ROWS for piece in t.split("…") if piece.strip(" :,;") not in known + others + steps]
    assert gone == []


def test_every_failure_and_warning_in_the_document_says_what_to_do() -> None:
    rows = re.findall(r"^\| (?:warn|FAIL) \| `[^`]+` \| (.*) \|$", DOCUMENT, re.MULTILINE)
    assert len(rows) > 70
    assert all(len(row.strip()) > 10 for row in rows)
