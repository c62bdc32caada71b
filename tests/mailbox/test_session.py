"""IDLE as servers really do it, played by a scripted server: a line in two segments, an EOF, news with or before `+`."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from daemon.config import Mailbox
from daemon.mailbox import bounded
from daemon.mailbox.session import Failed, Session, connect

Script = Callable[[socket.socket], object]  # bytes returned: the answer to IDLE instead of waiting for DONE


def _serve(listening: socket.socket, on_idle: Script, capabilities: bytes) -> None:
    with suppress(OSError):
        conn, _ = listening.accept()
        with conn, conn.makefile("rb") as lines:
            conn.sendall(b"* OK [CAPABILITY " + capabilities + b"] hello\r\n")
            for line in lines:
                tag, _, command = line.strip().partition(b" ")
                _answer(conn, lines, tag, command.upper(), on_idle, capabilities)


def _answer(
    conn: socket.socket, lines: object, tag: bytes, command: bytes, on_idle: Script, capabilities: bytes
) -> None:
    match command.split(b" ")[0]:
        case b"CAPABILITY":
            conn.sendall(b"* CAPABILITY " + capabilities + b"\r\n" + tag + b" OK x\r\n")
        case b"SELECT" | b"EXAMINE":
            access = b"[READ-ONLY]" if b"X-READ-ONLY" in capabilities else b"[READ-WRITE]"
            conn.sendall(b"* 5 EXISTS\r\n* OK [UIDVALIDITY 1] x\r\n* OK [UIDNEXT 6] x\r\n")
            conn.sendall(tag + b" OK " + access + b" s\r\n")
        case b"IDLE":
            refusal = on_idle(conn)
            if isinstance(refusal, bytes):
                conn.sendall(tag + refusal)
                return
            done = lines.readline()  # type: ignore[attr-defined]  # a BufferedReader
            if done.strip() == b"DONE":
                conn.sendall(tag + b" OK idle done\r\n")
        case b"UID":
            conn.sendall(b"* SEARCH 7\r\n" + tag + b" OK x\r\n")
        case _:
            conn.sendall(tag + b" OK done\r\n")


@contextmanager
def session(on_idle: Script, capabilities: bytes = b"IMAP4rev1 IDLE MOVE") -> Iterator[Session]:
    """A Session on a server that plays `on_idle` when asked to IDLE."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_serve, args=(listening, on_idle, capabilities), daemon=True)
        thread.start()
        port = listening.getsockname()[1]
        told = {"name": "x", "host": "127.0.0.1", "port": port, "tls": "none", "username": "u", "password_file": "p"}
        found = connect(Mailbox.model_validate(told), "secret", None)
        found.enter("INBOX")
        with suppress(Failed):
            found.wait(0)  # the EXISTS of SELECT counts as news once
        try:
            yield found
        finally:
            found.close()
            thread.join(5)


def _plus(conn: socket.socket) -> None:
    conn.sendall(b"+ idling\r\n")


def _later(*pieces: bytes) -> Script:
    """After the `+`: these pieces, a moment apart."""

    def play(conn: socket.socket) -> None:
        conn.sendall(b"+ idling\r\n")
        for piece in pieces:
            time.sleep(0.2)
            conn.sendall(piece)

    return play


def _together(conn: socket.socket) -> None:
    conn.sendall(b"+ idling\r\n* 6 EXISTS\r\n")


def _before(conn: socket.socket) -> None:
    conn.sendall(b"* 6 EXISTS\r\n+ idling\r\n")


@pytest.mark.parametrize(
    "script",
    [_later(b"* 6 EXISTS\r\n"), _later(b"* 5 FETCH (FLAGS (\\Rec", b"ent))\r\n* 6 EXISTS\r\n"), _together, _before],
    ids=["later", "in two segments", "with the plus", "before the plus"],
)
def test_news_end_the_wait(script: Script) -> None:
    with session(script) as found:
        began = time.monotonic()
        found.wait(10)
        assert time.monotonic() - began < 2
        assert found.uids_from(6) == [7]


def test_without_news_the_wait_ends_in_time() -> None:
    with session(_plus) as found:
        began = time.monotonic()
        found.wait(0.5)
        assert 0.4 < time.monotonic() - began < 2


def test_another_thread_ends_the_wait() -> None:
    with session(_plus) as found:
        threading.Timer(0.3, found.wake).start()
        began = time.monotonic()
        found.wait(10)
        assert time.monotonic() - began < 2


def test_a_server_that_goes_away_is_noticed() -> None:
    def leave(conn: socket.socket) -> None:
        conn.sendall(b"+ idling\r\n")
        time.sleep(0.2)
        conn.shutdown(socket.SHUT_RDWR)

    count = 0

    def first_stays(conn: socket.socket) -> None:
        nonlocal count
        count += 1
        (_plus if count == 1 else leave)(conn)

    with session(first_stays) as found:
        began = time.monotonic()
        with pytest.raises(Failed) as failed:
            found.wait(10)
        assert failed.value.step == "idle"
        assert time.monotonic() - began < 2


def test_a_server_without_idle_is_polled() -> None:
    with session(_plus, b"IMAP4rev1") as found:
        assert not found.idles
        began = time.monotonic()
        found.wait(0.3)
        assert 0.2 < time.monotonic() - began < 2
        assert not found.file_away(7, "Opt-outs")  # neither MOVE nor UIDPLUS: it stays
        assert found.uids_from(8) == []  # `8:*` also returns the last message, which is 7


def test_uidplus_without_move(monkeypatch: pytest.MonkeyPatch) -> None:
    with session(_plus, b"IMAP4rev1 IDLE UIDPLUS") as found:
        said: list[str] = []
        client = found._client
        monkeypatch.setattr(client, "fetch", lambda *a: {7: {b"FLAGS": ()}})
        for verb in ("copy", "add_flags", "uid_expunge", "expunge", "move"):
            monkeypatch.setattr(client, verb, lambda *a, verb=verb, **k: said.append(verb))
        assert found.file_away(7, "Opt-outs")
        assert said == ["copy", "add_flags", "uid_expunge"]


def test_a_server_that_refuses_idle_is_polled() -> None:
    count = 0

    def first_takes_it(conn: socket.socket) -> bytes | None:
        nonlocal count
        count += 1
        if count == 1:
            _plus(conn)
        return b" BAD no such thing\r\n" if count > 1 else None

    with session(first_takes_it) as found:
        began = time.monotonic()
        found.wait(0.3)
        assert 0.2 < time.monotonic() - began < 2
        assert not found.idles
        assert found.uids_from(6) == [7]


def test_a_server_that_says_it_is_still_there_is_idled_on_again() -> None:
    with session(_later(b"* OK Still here\r\n")) as found:
        for _ in range(3):
            found.wait(2)
            assert found.uids_from(6) == [7]


def test_a_folder_that_may_only_be_read_is_read() -> None:
    with session(_plus, b"IMAP4rev1 IDLE X-READ-ONLY") as found:
        assert found.enter("Other").uidvalidity == 1


def test_no_body_is_not_an_empty_message(monkeypatch: pytest.MonkeyPatch) -> None:
    with session(_plus) as found:
        nothing = {7: {b"RFC822.SIZE": 500, b"BODY[]<0>": None, b"SEQ": 1}}
        monkeypatch.setattr(found._client, "fetch", lambda *a: nothing)
        with pytest.raises(Failed, match="no body"):
            found.fetch(7)


# ------------------------------------------------------------------ servers that mean ill


def _says(*pieces: bytes, apart: float = 0.0, times: int = 1) -> Callable[[], object]:
    """A server that greets and lets in, and answers SELECT with this: `<<tag>>` is the command's."""

    def serve(listening: socket.socket) -> None:
        with suppress(OSError):
            conn, _ = listening.accept()
            with conn, conn.makefile("rb") as lines:
                conn.sendall(b"* OK [CAPABILITY IMAP4rev1] hello\r\n")
                for line in lines:
                    tag, _, command = line.strip().partition(b" ")
                    if command.startswith(b"CAPABILITY"):
                        conn.sendall(b"* CAPABILITY IMAP4rev1\r\n")
                    if command.startswith(b"SELECT"):
                        for piece in pieces * times:
                            conn.sendall(piece.replace(b"<<tag>>", tag))
                            time.sleep(apart)
                    conn.sendall(tag + b" OK done\r\n")

    def enter() -> object:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            thread = threading.Thread(target=serve, args=(listening,), daemon=True)
            thread.start()
            port = listening.getsockname()[1]
            told = {
                "name": "x",
                "host": "127.0.0.1",
                "port": port,
                "tls": "none",
                "username": "u",
                "password_file": "p",
            }
            found = connect(Mailbox.model_validate(told), "secret", None)
            try:
                return found.enter("INBOX")
            finally:
                found._client.shutdown()
                found.close()
                thread.join(5)

    return enter


@pytest.mark.parametrize(
    "says",
    [
        b"* OK [UIDNEXT 8] x\r\n",
        b"* OK [UIDVALIDITY 0] x\r\n",
        b"* OK [UIDVALIDITY 4294967296] x\r\n",
        b"* OK [UIDVALIDITY x] x\r\n",
        b"* OK [UIDVALIDITY 1] x\r\n* OK [UIDNEXT 99999999999999999999] x\r\n",
    ],
)
def test_a_folder_whose_numbers_are_none_is_not_entered(says: bytes) -> None:
    with pytest.raises(Failed) as failed:
        _says(says)()
    assert failed.value.step == "select"


def test_an_answer_without_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "OCTETS", 100_000)
    for endless in (
        _says(b"* OK " + b"x" * 1_000 + b"\r\n", times=200),
        _says(b"* 1 FETCH (X {900000}\r\n", b"x" * 900_000),
    ):
        with pytest.raises(Failed, match="more than 100,000 octets"):
            endless()


def test_a_server_that_says_an_octet_now_and_then_does_not_hold_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "SECONDS", 0.5)
    began = time.monotonic()
    with pytest.raises(Failed, match="no whole answer"):
        _says(b"x", apart=0.05, times=400)()
    assert time.monotonic() - began < 15


def test_a_message_that_has_lost_its_number_is_not_asked_for() -> None:
    """It stands under one that no message has, which servers take for nonsense; some hang up after some of that."""
    with session(_plus) as found:
        assert found.present(7)
        found._client.shutdown()  # nobody could answer
        assert not found.present(-7)
