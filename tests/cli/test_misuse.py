"""Mistakes on purpose: wrong words, wrong files, wrong moments. One sentence, the right number, never a traceback."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from daemon import __version__
from tests.cli.desk import CONFIG, ROOT, Desk

COMMANDS = (
    "demo run digest doctor brake check-config check suppress lift show erase list token read replay review stats import export scrub audit migrate"
    " backup restore password review_list review_show"
    " review_accept review_reject audit_verify audit_export hooks hooks_list hooks_again hooks_drop"
).split()
EVERY_FACT = (
    ["check", "ann@example.com"],
    ["show", "ann@example.com"],
    ["show", "ann@example.com", "--for-subject"],
    ["erase", "ann@example.com"],
    ["list"],
    ["review", "list"],
    ["stats"],
    ["stats", "--by", "list"],
    ["digest"],
    ["audit", "verify"],
    ["audit", "export"],
    ["export"],
    ["restore", "--status"],
)


# ------------------------------------------------------------------ words


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_of_80_columns(desk: Desk, command: str) -> None:
    desk.monkeypatch.setenv("COLUMNS", "80")
    said = desk(*command.split("_"), "--help")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"Usage: optoutd {command.replace('_', ' ')}")
    assert max(map(len, said.out.splitlines())) <= 80


def test_the_help_lists_all_commands_uncut(desk: Desk) -> None:
    desk.monkeypatch.setenv("COLUMNS", "80")
    out = desk("--help").out
    listed = re.findall(r"^  ([a-z-]+)  ", out.partition("Commands:")[2], re.MULTILINE)
    assert sorted(listed) == sorted(c for c in COMMANDS if "_" not in c)
    assert "..." not in out.partition("Commands:")[2]
    assert max(map(len, out.splitlines())) <= 80


def test_version(desk: Desk) -> None:
    assert desk("--version").out == f"optoutd {__version__}\n"


def test_nothing_at_all_is_64_and_the_help(desk: Desk) -> None:
    for words in ([], ["review"], ["audit"]):
        said = desk(*words)
        assert (said.code, said.out) == (64, "")
        assert said.err.startswith("Usage: optoutd")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["chek"], "no such command 'chek'. Did you mean 'check'? (see `optoutd --help`)"),
        (["check"], "missing argument 'ADDR' (see `optoutd check --help`)"),
        (["check", "--lst", "x"], "no such option: --lst"),
        (["review", "shw"], "no such command 'shw'. Did you mean 'show'? (see `optoutd review --help`)"),
        (["lift", "a@b.example", "c@d.example", "--because", "x"], "got unexpected extra argument"),
        (["-c", "", "list"], "-c is empty: name a config file, or leave -c out"),
        (["-c"], "option '-c' requires an argument"),
    ],
)
def test_slips_are_64_and_one_sentence(desk: Desk, words: list[str], sentence: str) -> None:
    said = desk(*words)
    assert said.code == 64
    assert said.sentence.startswith(sentence)


def test_octets_that_are_no_utf_8(desk: Desk) -> None:
    desk.books()
    for words in ([b"check", b"\xff@example.com"], [b"suppress", b"\xff@example.com"], [b"show", b"\xff"]):
        assert desk.process(*words).code == 65
        assert desk.process(*words, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0").code == 65
    assert desk.process("check", b"\xff@example.com", "--json").fact["address"] == "\udcff@example.com"
    assert desk.process(b"\xff").code == 64
    assert desk.process("-c", b"\xff.toml", "list").code == 78
    assert desk.process("list", "--list", b"\xff").code == 64


# ------------------------------------------------------------------ the config


def test_where_the_config_comes_from(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    named = {name: desk.directory / f"{name}.toml" for name in ("given", "environment", "default")}
    for name, path in named.items():
        path.write_text(CONFIG + f'[storage]\nurl = "sqlite:///{name}.db"\n')
        path.chmod(0o600)
    monkeypatch.setattr("daemon.config.DEFAULT_PATHS", (Path("optoutd.toml"), named["default"]))

    def database(*words: str) -> str:
        found = re.search(r"(\w+)\.db", desk(*words, "list").sentence)
        return found[1] if found else ""

    assert database() == "optoutd"
    monkeypatch.setenv("OPTOUTD_CONFIG", str(named["environment"]))
    assert database() == "environment"
    assert database("--config", str(named["given"])) == "given"
    monkeypatch.delenv("OPTOUTD_CONFIG")
    Path("optoutd.toml").unlink()
    assert database() == "default"
    named["default"].unlink()
    said = desk("list")
    assert (said.code, "optoutd demo" in said.err) == (78, True)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"[house\n", "not valid TOML: Expected ']' at the end of a table declaration (at line 1, column 7)"),
        (b'[house]\nname = "\xff"\n', "not UTF-8"),
        (b"", "house: must be given"),
        (b'[house]\nname = "x"\n[webb]\n', "webb: unknown key, did you mean `web`?"),
    ],
)
def test_a_bad_config_is_78(desk: Desk, content: bytes, sentence: str) -> None:
    Path("optoutd.toml").write_bytes(content)
    for words in (["check-config"], ["list"], ["check", "a@b.example"], ["suppress", "a@b.example"], ["migrate"]):
        said = desk(*words)
        assert (said.code, said.out) == (78, "")
        assert sentence in said.err
    assert len(desk("check-config").err.splitlines()) == 1


def test_a_config_whose_certificate_or_password_is_none_is_not_ok(desk: Desk) -> None:
    """What the daemon would stop at, check-config finds: all of it, at once."""
    here = desk.directory
    for name, text in (("cert.pem", "no certificate"), ("key.pem", "no key"), ("crm", ""), ("ca.pem", "no CA")):
        (here / name).write_text(text)
        (here / name).chmod(0o600)
    desk.configure(
        CONFIG
        + '[relay]\ntls = "starttls"\ncert_file = "cert.pem"\nkey_file = "key.pem"\n'
        + '[[relay.credential]]\nusername = "crm"\npassword_file = "crm"\n'
        + '[upstream]\ntls = "implicit"\nca_file = "ca.pem"\n'
    )
    said = desk("check-config")
    assert (said.code, said.out) == (78, "")
    assert "relay.credential[0].password_file: the password is empty" in said.err
    assert "upstream: " in said.err
    (here / "crm").write_text("secret")
    assert "cert.pem: has no certificate" in desk("check-config").err


def test_a_webhook_whose_secret_the_daemon_would_stop_at_is_not_ok(desk: Desk) -> None:
    (desk.directory / "hook").write_text("short")
    (desk.directory / "crm").write_text("")
    desk.configure(
        CONFIG
        + '[relay]\n[[relay.credential]]\nusername = "crm"\npassword_file = "crm"\n[upstream]\n'
        + '[[webhook]]\nname = "crm"\nurl = "https://crm.example/"\nsecret_file = "hook"\n'
    )
    said = desk("check-config")
    assert (said.code, said.out) == (78, "")
    assert "webhook[0].secret_file: must be 24 characters or more" in said.err
    assert "relay.credential[0].password_file: the password is empty" in said.err  # all at once


def test_a_list_of_words_in_which_none_is_right_says_so_in_our_words(desk: Desk) -> None:
    desk.configure(
        CONFIG + '[[webhook]]\nname = "crm"\nurl = "https://crm.example/"\nsecret_file = "hook"\nevents = ["optout"]\n'
    )
    (desk.directory / "hook").write_text("s" * 24)
    said = desk("check-config").err.splitlines()
    assert said[0] == "webhook[0].events: needs at least one valid entry"
    assert said[1].startswith("webhook[0].events[0]: must be ")


def test_check_config(desk: Desk) -> None:
    assert desk("check-config").out == "ok\n"
    desk.configure(CONFIG + '[relay]\nmode = "eat"\n[[mailbox]]\nname = "x"\n')
    said = desk("check-config")
    assert (said.code, said.out) == (78, "")
    paths = [line.partition(": ")[0] for line in said.err.splitlines()]
    assert paths == ["mailbox[0].host", "mailbox[0].password_file", "mailbox[0].username", "relay.mode"]
    assert desk("list").err.splitlines() == ["optoutd: optoutd.toml cannot be used:", *said.err.splitlines()]


def test_a_config_that_is_no_file_or_not_ours(desk: Desk) -> None:
    assert "Is a directory" in desk("-c", "/", "list").err
    assert "No such file" in desk("-c", "nowhere.toml", "list").err
    config = Path("optoutd.toml")
    config.chmod(0o620)
    said = desk("list")
    assert (said.code, said.err.count("chmod go-w optoutd.toml")) == (78, 1)
    config.chmod(0o644)
    assert desk("list").code == 75
    if os.geteuid() == 0:
        os.chown(config, 65534, 65534)
        said = desk("list")
        assert (said.code, said.err) == (
            78,
            "optoutd: config optoutd.toml: belongs to another user; it must be yours or root's\n",
        )


# ------------------------------------------------------------------ the ledger


@pytest.mark.parametrize("words", EVERY_FACT)
def test_no_ledger_yet_is_75(desk: Desk, words: list[str]) -> None:
    assert desk(*words).code == 75


@pytest.mark.parametrize("words", [*EVERY_FACT, ["suppress", "a@b.example"], ["lift", "a@b.example", "--because", "x"]])
@pytest.mark.parametrize(
    ("missing", "advice"), [("optoutd.db", "restore the database"), ("site.key", "put the key file back")]
)
def test_one_without_the_other_is_78(desk: Desk, words: list[str], missing: str, advice: str) -> None:
    desk.books().ledger.close()
    Path(missing).unlink()
    said = desk(*words)
    assert said.code == 78
    assert advice in said.sentence


@pytest.mark.parametrize("words", EVERY_FACT)
def test_a_key_that_is_wrong_open_or_garbled_is_78(desk: Desk, words: list[str]) -> None:
    desk.books()
    key = Path("site.key")
    key.write_text("00" * 32)
    assert "not the one this database was made with" in desk(*words).sentence
    key.write_text("not hex")
    assert "64 hex digits" in desk(*words).sentence
    key.chmod(0o640)
    assert "chmod 600" in desk(*words).sentence
    assert desk(*words).code == 78


@pytest.mark.parametrize("words", EVERY_FACT)
def test_a_garbled_database_is_75(desk: Desk, words: list[str]) -> None:
    books = desk.books()
    books.ledger.close()
    for content in (b"", b"garbage" * 1000):
        books.ledger.path.write_bytes(content)
        assert desk(*words).code == 75


# ------------------------------------------------------------------ the shell


def test_a_reader_who_goes_away(desk: Desk) -> None:
    desk("suppress", "-", stdin=b"".join(b"%d@example.com\n" % n for n in range(2000)))
    for command, code in (("list", 0), ("audit export", 0), ("check -", 75)):
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", f"{sys.executable} -m daemon {command} | head -1"],
            input=b"x@example.com\n" * 5000,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            timeout=60,
        )
        assert (done.returncode, done.stderr, done.stdout.count(b"\n")) == (code, b"", 1)


def test_a_full_disk_and_closed_streams(desk: Desk) -> None:
    desk("suppress", "ann@example.com")

    def shell(line: str) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", "-c", f"{sys.executable} -m daemon {line}"],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            timeout=60,
        )
        return done.returncode, done.stderr

    assert shell("list > /dev/full") == (75, "optoutd: stdout: No space left on device\n")
    assert shell("list >&-") == (0, "")
    assert shell("check ann@example.com >&- 2>&-")[0] == 1
    assert shell("check - <&-") == (66, "optoutd: - is stdin, but stdin is closed\n")


def test_ctrl_c_is_130(desk: Desk) -> None:
    desk.books()
    with subprocess.Popen(
        [sys.executable, "-m", "daemon", "check", "ann@example.com", "-", "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()  # now it waits for stdin
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, b"")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(desk: Desk, shell: str) -> None:
    said = desk.process("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert said.code == 0
    assert "_OPTOUTD_COMPLETE" in said.out


def test_completion_knows_the_commands(desk: Desk) -> None:
    said = desk.process(_OPTOUTD_COMPLETE="complete_bash", COMP_WORDS="optoutd che", COMP_CWORD="1")
    assert said.out.split() == ["check-config", "check"]
