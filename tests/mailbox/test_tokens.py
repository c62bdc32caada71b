"""Where access tokens come from: what a token server or a program may answer, do or leave undone."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.config import OAuth2
from daemon.mailbox import command, grants
from daemon.mailbox.command import Command
from daemon.mailbox.failing import Failed
from daemon.mailbox.tokens import Means, Tokens
from daemon.posting import Line, Response
from tests.tokenserver import CLIENT, CLIENT_SECRET, REFRESH, TokenServer, tokenserver
from tests.webhooks.receiver import raw

SHORT = "GOCSPX-short"
SECRETS = {"client": CLIENT_SECRET, "short": SHORT, "refresh": REFRESH}


def source(url: str, directory: Path, ca_file: Path | None = None, **options: Any) -> Tokens:
    told = {"token_url": url, "client_id": CLIENT, "client_secret_file": "client", "refresh_token_file": "refresh"}
    means = Means(SECRETS.__getitem__, ca_file, directory / "oauth2-support.json")
    return Tokens(OAuth2.model_validate(told | options), "support", "support", means)


def failure(of: Tokens | Command) -> Failed:
    with pytest.raises(Failed) as failed:
        of.get() if isinstance(of, Tokens) else of.token()
    assert failed.value.step == "token"
    assert not any(secret in f"{failed.value} {failed.value.advice}" for secret in SECRETS.values())
    return failed.value


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TokenServer]:
    with tokenserver(tmp_path) as it:
        yield it


# ------------------------------------------------------------------ a token server


@pytest.mark.parametrize(
    ("status", "told", "why", "advice"),
    [
        (400, {"error": "invalid_grant"}, "invalid_grant", "seven days"),
        (400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."}, "revoked", "log in again"),
        (400, {"error": "invalid_grant", "error_description": "AADSTS50173: The provided grant"}, "50173", "password was changed"),
        (401, {"error": "invalid_client", "error_description": "AADSTS7000222: keys are expired"}, "7000222", "24 months"),
        (400, {"error": "unauthorized_client", "error_description": "AADSTS700016: not found"}, "700016", "client_id"),
        (400, {"error": "invalid_grant", "error_description": "AADSTS65001: no consent"}, "65001", "IMAP.AccessAsApp"),
        (400, {"error": "interaction_required", "error_description": "AADSTS50076: MFA"}, "50076", "second factor"),
        (400, {"error": "invalid_scope", "error_description": "AADSTS1002012: /.default"}, "1002012", "/.default"),
        (400, {"error": "invalid_request", "error_description": "AADSTS90002: Tenant"}, "90002", "tenant"),
        (400, {"error": "something_new", "error_description": "who knows"}, "something_new: who knows", ""),
        (503, {}, "HTTP 503", ""),
        (404, {}, "HTTP 404", "token_url"),
        (200, {"hello": "world"}, "HTTP 200", "token_url"),
        (200, {"access_token": "a b"}, "no bearer token", ""),
        (200, {"access_token": "a\r\nA1 LOGOUT"}, "no bearer token", ""),
        (200, {"access_token": "x" * 20_000}, "no bearer token", ""),
        (200, {"access_token": 7}, "no bearer token", ""),
        (200, {"access_token": "abc", "token_type": "mac"}, "no bearer token", ""),
        (302, {}, "HTTP 302: the token server redirects", "token_url"),
        (400, {"error": 7, "error_description": ["x"]}, "HTTP 400", "token_url"),
    ],
)  # fmt: skip
def test_what_a_token_server_says_is_told_with_its_cause(
    server: TokenServer, tmp_path: Path, status: int, told: dict[str, Any], why: str, advice: str
) -> None:
    server.refuse = status, told
    failed = failure(source(server.url, tmp_path, server.ca_file))
    assert why in str(failed.why)
    assert (advice in failed.advice) if advice else failed.advice == ""


def test_secrets_that_a_server_repeats_are_not_told(server: TokenServer, tmp_path: Path) -> None:
    description = f"unknown {REFRESH} and {CLIENT_SECRET}, sent with {SHORT}"
    server.refuse = 400, {"error": "invalid_grant", "error_description": description}
    failed = failure(source(server.url, tmp_path, server.ca_file, client_secret_file="short"))
    assert failed.why == "invalid_grant: unknown <...> and <...>, sent with <...>"


def test_the_numbers_of_the_request_are_left_out(server: TokenServer, tmp_path: Path) -> None:
    description = "AADSTS7000215: Invalid client secret.\r\nTrace ID: 1-2-3\r\nCorrelation ID: 4\r\nTimestamp: now"
    server.refuse = 401, {"error": "invalid_client", "error_description": description}
    failed = failure(source(server.url, tmp_path, server.ca_file))
    assert failed.why == "invalid_client: AADSTS7000215: Invalid client secret."


def drip(connection: socket.socket) -> None:
    connection.recv(65536)
    for octet in b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n" + b"{" * 900:
        connection.sendall(bytes([octet]))
        time.sleep(0.05)


def flood(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n")
    while True:
        connection.sendall(b"[" * 65536)


def nest(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"[" * 60_000)
    connection.recv(1)


@pytest.mark.parametrize("talk", [drip, flood, nest, lambda connection: connection.recv(1)])
def test_a_token_server_may_not_keep_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, talk: Any) -> None:
    monkeypatch.setattr(grants, "SECONDS", 1.0)
    began = time.monotonic()
    with raw(talk) as url:
        failure(source(url, tmp_path))
    assert time.monotonic() - began < 10


def test_told_to_stop_we_wait_for_no_token_server(tmp_path: Path) -> None:
    asked = threading.Event()

    def silent(connection: socket.socket) -> None:
        asked.set()
        while connection.recv(65536):
            pass

    with raw(silent) as url:
        it = source(url, tmp_path)

        def stop() -> None:
            asked.wait(20)
            it.cut()

        threading.Thread(target=stop).start()
        began = time.monotonic()
        failure(it)
        assert time.monotonic() - began < 10
    assert failure(it).why == "told to stop"


class Answering(Line):
    """One that is connected to nobody, and brings this."""

    def __init__(self, status: int, body: bytes):
        super().__init__("https://tokens.example/", None)
        self._brings = Response(status, body, True, "")

    def send(self, *_: object) -> Response:
        return self._brings


@given(st.binary(max_size=300), st.integers(100, 599))
def test_whatever_comes_back_is_a_token_or_a_failure(body: bytes, status: int) -> None:
    with pytest.raises(Failed):
        grants.ask(Answering(status, body), {"a": "b"})


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["access_token", "token_type", "expires_in", "refresh_token", "error", "error_description"])


@given(st.dictionaries(NAMES, JSON | st.just("good")), st.sampled_from([200, 400, 401, 500]))
def test_a_grant_is_what_it_should_be_whatever_the_object(told: dict[str, Any], status: int) -> None:
    try:
        granted = grants.ask(Answering(status, json.dumps(told).encode()), {"a": "b"}, asserted=True)
    except Failed:
        return
    assert re.fullmatch(r"[!-~]+", granted.token)
    assert granted.seconds is None or granted.seconds >= 0
    assert isinstance(granted.refresh_token, str)


# ------------------------------------------------------------------ a service account's key


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "null", "[" * 60_000,
        '{"client_email": 1, "private_key": "x", "private_key_id": "y"}',
        '{"client_email": "a", "private_key": "x", "private_key_id": "y", "token_uri": "http://login.example/token"}',
        '{"client_email": "a", "private_key": "x", "private_key_id": "y", "token_uri": "https://[::1"}',
        '{"client_email": "a", "private_key": "x", "private_key_id": "y", "token_uri": 7}',
    ],
)  # fmt: skip
def test_a_key_file_that_is_none_says_so(text: str) -> None:
    with pytest.raises(Failed, match="is not a service account's key"):
        grants.account(text)


@pytest.mark.parametrize("key", ["no key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_private_key_that_is_none_says_so(key: str) -> None:
    with pytest.raises(Failed, match="not an RSA key"):
        grants.assertion(grants.Account("a", key, "k", "https://x.example"), "ann", "", "https://x.example", 0)


def test_without_the_package_that_signs_one_is_told_which_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(Failed, match=r"pip install 'optoutd\[google\]'"):
        grants.assertion(grants.Account("a", "b", "c", "https://x.example"), "ann", "", "https://x.example", 0)


# ------------------------------------------------------------------ a program


def shell(script: str) -> Command:
    return Command(("/bin/sh", "-c", script))


@pytest.mark.parametrize("script", ["echo abc.DEF-123", "printf 'abc.DEF-123'", "printf 'abc.DEF-123\\r\\n\\n'"])
def test_a_program_prints_a_token(script: str) -> None:
    assert shell(script).token() == "abc.DEF-123"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("exit 0", "sh printed no token (0 octets)"),
        ("echo two words", "sh printed no token"),
        ("echo one; echo two", "sh printed no token"),
        ("printf 'caf\\303\\251'", "sh printed no token"),
        ("head -c 20000 /dev/zero | tr '\\0' x", "sh prints more than"),
        ("cat /dev/zero", "sh prints more than"),
        ("echo secret-token-on-stdout; exit 3", "sh ended with 3: it says nothing"),
        (f"echo 'cannot renew {REFRESH}' >&2; exit 1", "sh ended with 1: cannot renew <...>"),
        ("cat /dev/zero >&2 & sleep 0.2; kill $!; exit 1", "sh ended with 1"),
        ("kill -9 $$", "sh ended with -9"),
    ],
)
def test_a_program_that_prints_none_is_told(script: str, why: str) -> None:
    assert why in str(failure(shell(script)).why)


def test_a_program_that_is_not_there_is_told() -> None:
    failed = failure(Command(("/nonexistent/token", "x")))
    assert failed.why == "token: No such file or directory"
    assert "whole path" in failed.advice


def alive(pid: int) -> bool:
    """Is it there, and no zombie that nobody has reaped?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def gone(pid: int) -> bool:
    end = time.monotonic() + 20
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


@pytest.mark.parametrize("last", ["wait", "exec 1>&- 2>&-; wait"])
def test_a_program_that_hangs_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    monkeypatch.setattr(command, "SECONDS", 1.0)
    failed = failure(shell(f"sleep 600 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/self; {last}"))
    assert failed.why == "sh did not end within 1 seconds"
    assert all(gone(int((tmp_path / name).read_text())) for name in ("child", "self"))


def test_a_child_that_is_left_behind_keeps_nobody(tmp_path: Path) -> None:
    began = time.monotonic()
    assert shell(f"sleep 600 & echo $! > {tmp_path}/child; echo token").token() == "token"
    assert time.monotonic() - began < 10
    assert gone(int((tmp_path / "child").read_text()))


def test_told_to_stop_we_wait_for_no_program(tmp_path: Path) -> None:
    it = shell(f"touch {tmp_path}/begun; sleep 600")

    def stop() -> None:
        while not (tmp_path / "begun").exists():
            time.sleep(0.01)
        it.cut()

    threading.Thread(target=stop).start()
    began = time.monotonic()
    failure(it)
    assert time.monotonic() - began < 15
    assert "sh" in str(failure(it).why)


def test_a_program_is_not_taken_for_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not tell systemd that we are ready."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials")
    assert shell("echo ${NOTIFY_SOCKET:-none}$CREDENTIALS_DIRECTORY").token() == "none/run/credentials"


def test_no_file_is_left_open(tmp_path: Path) -> None:
    before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    for _ in range(5):
        shell("echo token").token()
        failure(shell("exit 1"))
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == before
