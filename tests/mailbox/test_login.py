"""What servers say at a log-in, and what they want to hear: played by a server that writes down each command."""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from daemon.config import Mailbox, OAuth2
from daemon.mailbox import advising
from daemon.mailbox.failing import Failed
from daemon.mailbox.login import _mechanism, _told
from daemon.mailbox.means import Means as WatcherMeans
from daemon.mailbox.session import Session, connect
from daemon.mailbox.tokens import Means, Tokens
from daemon.mailbox.watcher import Watcher

TOKEN = "ya29.a-token-of-some-length"


@dataclass
class Server:
    """`before` and `after` the log-in it offers these; `challenge`: the reasons for which it takes no token."""

    before: str = "IMAP4rev1"
    after: str = "IMAP4rev1"
    challenge: bytes | None = None
    refusal: str = ""
    insists: bool = False
    hangs_up: bool = False
    identified: str = "OK"
    said: list[str] = field(default_factory=list)
    decoded: list[bytes] = field(default_factory=list)
    port: int = 1

    def serve(self, listening: socket.socket) -> None:
        """One connection."""
        with suppress(OSError):
            conn, _ = listening.accept()
            with conn, conn.makefile("rb") as lines:
                conn.sendall(f"* OK [CAPABILITY {self.before}] hello\r\n".encode())
                for line in lines:
                    tag, _, command = line.decode().strip().partition(" ")
                    self.said.append(command)
                    self._answer(conn, lines, tag, command)

    def _answer(self, conn: socket.socket, lines: Any, tag: str, command: str) -> None:
        def say(text: str) -> None:
            conn.sendall(text.encode() + b"\r\n")

        match command.split(" ")[0].upper():
            case "AUTHENTICATE" | "LOGIN" if self.hangs_up:
                conn.shutdown(socket.SHUT_RDWR)
            case "CAPABILITY":
                now = self.after if any(c.startswith(("LOGIN", "AUTH")) for c in self.said) else self.before
                say(f"* CAPABILITY {now}")
                say(f"{tag} OK x")
            case "AUTHENTICATE":
                say("+ ")
                self.decoded.append(base64.b64decode(lines.readline()))
                if self.challenge is not None:
                    say("+ " + base64.b64encode(self.challenge).decode())
                    self.decoded.append(base64.b64decode(lines.readline()))
                while self.insists:
                    say("+ " + base64.b64encode(b"{}").decode())
                    if not (more := lines.readline()):
                        return
                    self.decoded.append(more)
                line = base64.b64encode(self.decoded[0]).decode()
                say(f"{tag} {self.refusal.replace('{line}', line) or 'OK'} in")
            case "LOGIN":
                say(f"{tag} {self.refusal or 'OK'} in")
            case "ID":
                say(f"{tag} {self.identified} ID done")
            case "SELECT" if self.identified == "OK" and "ID" in self.after and not self._introduced:
                say(f"{tag} NO SELECT Unsafe Login. Please contact us")
            case "SELECT":
                say("* 0 EXISTS\r\n* OK [UIDVALIDITY 1] x\r\n* OK [UIDNEXT 6] x")
                say(f"{tag} OK [READ-WRITE] x")
            case _:
                say(f"{tag} OK done")

    @property
    def _introduced(self) -> bool:
        return any(c.startswith("ID ") for c in self.said)


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server.port = listening.getsockname()[1]
        thread = threading.Thread(target=server.serve, args=(listening,), daemon=True)
        thread.start()
        yield server
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def settings(server: Server, **more: Any) -> Mailbox:
    told: dict[str, Any] = {
        "name": "x",
        "host": "127.0.0.1",
        "port": server.port,
        "tls": "none",
        "username": "u@x.example",
    }
    return Mailbox.model_validate(told | ({} if "oauth2" in more else {"password_file": "p"}) | more)


def into(server: Server, secret: str | None = None, **more: Any) -> Session:
    """Log in; without a password with a token that a program prints."""
    if secret is not None:
        return connect(settings(server, **more), secret, None)
    box = settings(server, oauth2={"token_command": ("/bin/echo", TOKEN)} | more)
    assert box.oauth2 is not None
    means = Means(lambda name: name, None, Path("/nonexistent"))
    return connect(box, Tokens(box.oauth2, "x", box.oauth2.login or box.username, means), None)


# ------------------------------------------------------------------ tokens


def test_xoauth2_says_user_and_token() -> None:
    with serving(Server("IMAP4rev1 AUTH=XOAUTH2")) as server:
        into(server).close()
    assert server.decoded == [b"user=u@x.example\1auth=Bearer " + TOKEN.encode() + b"\1\1"]


def test_oauthbearer_says_it_as_its_rfc_does_and_is_liked_better() -> None:
    with serving(Server("IMAP4rev1 AUTH=XOAUTH2 AUTH=OAUTHBEARER")) as server:
        into(server, login="a=b,c@x.example").close()
    name, port = b"a=3Db=2Cc@x.example", str(server.port).encode()
    told = b"n,a=" + name + b",\1host=127.0.0.1\1port=" + port + b"\1auth=Bearer " + TOKEN.encode() + b"\1\1"
    assert server.decoded == [told]


@pytest.mark.parametrize(("mechanism", "last"), [("XOAUTH2", b""), ("OAUTHBEARER", b"\1")])
def test_the_reasons_of_a_refusal_are_told_and_the_server_gets_the_answer_it_waits_for(
    mechanism: str, last: bytes
) -> None:
    reasons = json.dumps({"status": "400", "schemes": "Bearer", "scope": "https://mail.google.com/"}).encode()
    with (
        serving(Server(f"IMAP4rev1 AUTH={mechanism}", challenge=reasons, refusal="NO no")) as server,
        pytest.raises(Failed) as failed,
    ):
        into(server)
    assert server.decoded[1] == last
    assert str(failed.value.why) == "no in (status 400, schemes Bearer, scope https://mail.google.com/)"
    assert failed.value.step == "login"
    assert failed.value.refused


def test_a_server_that_repeats_the_token_does_not_make_us_tell_it() -> None:
    with (
        serving(Server("IMAP4rev1 AUTH=XOAUTH2", refusal=f"NO I do not know {TOKEN}")) as server,
        pytest.raises(Failed) as failed,
    ):
        into(server)
    assert str(failed.value.why) == "I do not know <...> in"


@pytest.mark.parametrize("secret", [None, "hunter2"])
def test_a_server_that_repeats_the_whole_line_does_not_make_us_tell_the_secret_in_it(secret: str | None) -> None:
    """In base64 the secret stands behind a name, so that it does not look like the secret's own base64."""
    server = Server("IMAP4rev1 AUTH=XOAUTH2 AUTH=PLAIN LOGINDISABLED", refusal="BAD what is {line}?")
    with serving(server), pytest.raises(Failed) as failed:
        into(server, secret)
    (sent,) = server.decoded
    assert (secret or TOKEN).encode() in sent
    assert base64.b64encode(sent).decode()[:-4] not in str(failed.value.why)
    assert "what is <...>?" in str(failed.value.why)


@pytest.mark.parametrize(("mechanism", "secret"), [("XOAUTH2", None), ("OAUTHBEARER", None), ("PLAIN", "hunter2")])
def test_a_server_that_asks_for_ever_is_not_answered_for_ever(mechanism: str, secret: str | None) -> None:
    """Each answer of ours begins a new time for its next, so that no time-out would end it."""
    with (
        serving(Server(f"IMAP4rev1 LOGINDISABLED AUTH={mechanism}", insists=True)) as server,
        pytest.raises(Failed) as failed,
    ):
        into(server, secret)
    assert failed.value.step == "login"
    assert len(server.decoded) < 10


@pytest.mark.parametrize("reasons", [b"", b"{", b"[1]", b"\xff", b'{"status": 4}', b"[" * 50_000])
def test_reasons_that_are_none_are_left_out(reasons: bytes) -> None:
    assert _told(reasons) == ""


@pytest.mark.parametrize(
    "host", ["outlook.office365.com", "imap.gmail.com", "imap-mail.outlook.com", "IMAP.GMAIL.COM."]
)
def test_google_and_microsoft_get_the_mechanism_of_their_own(host: str) -> None:
    box = settings(Server(), host=host, tls="implicit", oauth2={"token_command": ("x",)})
    assert _mechanism(box, {"AUTH=XOAUTH2", "AUTH=OAUTHBEARER"}) == "XOAUTH2"


# ------------------------------------------------------------------ passwords


def test_a_server_that_wants_no_login_command_gets_the_password_by_plain() -> None:
    with serving(Server("IMAP4rev1 LOGINDISABLED AUTH=PLAIN")) as server:
        into(server, "pass").close()
    assert server.decoded == [b"\0u@x.example\0pass"]


def test_a_password_that_is_not_ascii_goes_by_plain() -> None:
    with serving(Server("IMAP4rev1 AUTH=PLAIN")) as server:
        into(server, "pässwört").close()
    assert server.decoded == ["\0u@x.example\0pässwört".encode()]


def test_a_server_that_takes_no_passwords_is_not_sent_one() -> None:
    with serving(Server("IMAP4rev1 LOGINDISABLED")) as server, pytest.raises(Failed, match="LOGINDISABLED") as failed:
        into(server, "pass")
    assert failed.value.advice.startswith("the server wants encryption first")
    assert "pass" not in " ".join(server.said)


def test_a_refused_password_is_told_without_it() -> None:
    with serving(Server(refusal="NO [AUTHENTICATIONFAILED] not hunter2")) as server, pytest.raises(Failed) as failed:
        into(server, "hunter2")
    assert str(failed.value.why) == "[AUTHENTICATIONFAILED] not <...> in"
    assert "username" in failed.value.advice


@pytest.mark.parametrize("secret", [None, "hunter2"])
def test_a_server_that_hangs_up_has_refused_nobody(secret: str | None) -> None:
    """Else each lost connection would cost another token, and tell people to look at their password."""
    with serving(Server("IMAP4rev1 AUTH=XOAUTH2", hangs_up=True)) as server, pytest.raises(Failed) as failed:
        into(server, secret)
    assert failed.value.step == "login"
    assert not failed.value.refused
    assert not failed.value.advice


# ------------------------------------------------------------------ what is known before and after


def test_what_a_server_offers_after_the_log_in_is_what_counts() -> None:
    """Exchange offers MOVE only then."""
    with serving(Server("IMAP4rev1 AUTH=XOAUTH2", "IMAP4rev1 IDLE MOVE")) as server:
        session = into(server)
        assert session._moves
        assert session.idles
        session.close()


def test_a_server_that_wants_to_know_who_we_are_is_told_before_a_folder_is_opened() -> None:
    with serving(Server(after="IMAP4rev1 ID")) as server:
        session = into(server, "pass")
        session.enter("INBOX")
        session.close()
    (told,) = [c for c in server.said if c.startswith("ID ")]
    assert told.startswith('ID ("name" "optoutd" "version" "')
    assert "@" not in told


@pytest.mark.parametrize("answer", ["NO", "BAD"])
def test_a_server_that_takes_offence_at_that_is_read_all_the_same(answer: str) -> None:
    with serving(Server(after="IMAP4rev1 ID", identified=answer)) as server:
        session = into(server, "pass")
        assert session.enter("INBOX").uidvalidity == 1
        session.close()


# ------------------------------------------------------------------ advice


@pytest.mark.parametrize(
    ("host", "why", "words"),
    [
        ("outlook.office365.com", "LOGIN failed.", "takes no passwords"),
        ("imap-mail.outlook.com", "LOGIN failed.", "takes no passwords"),
        ("imap.gmail.com", "[ALERT] Application-specific password required", "app password"),
        ("imap.gmail.com", "[AUTHENTICATIONFAILED] Invalid credentials (Failure)", "app password"),
        ("imap.gmail.com", "[ALERT] Your account is not enabled for IMAP use.", "switched off"),
        ("imap.mail.me.com", "no", "app password"),
        ("imap.163.com", "no", "authorisation code"),
        ("imap.notgmail.com", "no", "username"),
        ("mail.quill.example", "[UNAVAILABLE] Temporary authentication failure.", "asked again"),
        ("mail.quill.example", "[EXPIRED] change it", "has expired"),
    ],
)
def test_a_refused_password_has_advice(host: str, why: str, words: str) -> None:
    assert words in advising.of_password(host, why)


@pytest.mark.parametrize(
    ("host", "words"),
    [("outlook.office365.com", "Add-MailboxPermission"), ("imap.gmail.com", "IMAP"), ("mail.quill.example", "login")],
)
def test_a_refused_token_has_advice(host: str, words: str) -> None:
    assert words in advising.of_refused_token(host, "AUTHENTICATE failed.")


@pytest.mark.parametrize(
    ("why", "words"),
    [
        ("SELECT command error: BAD [b'User is authenticated but not connected.']", "New-ServicePrincipal"),
        ("command: IDLE => Session invalidated - AccessTokenExpired", "logs in again"),
        ("Request is throttled. Suggested Backoff Time: 283141 milliseconds", "slows this account down"),
        ("Account exceeded command or bandwidth limits. (Failure)", "slows this account down"),
        ("SELECT Unsafe Login. Please contact kefu@188.com for help", "has blocked"),
        ("[Errno 111] Connection refused", "nothing listens"),
        ("anything else", ""),
    ],
)
def test_words_that_are_known_have_advice_at_whatever_step(why: str, words: str) -> None:
    advice = Failed("select", why).advice
    assert (words in advice) if words else advice == ""


def test_advice_names_only_options_that_there_are() -> None:
    texts = [v for v in vars(advising).values() if isinstance(v, str)]
    named = {w for t in texts for w in re.findall(r"\b[a-z]+_(?:file|url|id|seconds|command)\b", t)}
    assert named
    assert named <= {*Mailbox.model_fields, *OAuth2.model_fields}


def test_advice_stands_with_the_trouble_of_the_mailbox(logged: Callable[[], list[dict[str, Any]]]) -> None:
    """For the console and /readyz's readers; in the log it is a field of its own."""

    def fails() -> Session:
        raise Failed("token", "invalid_grant", advice="log in again")

    unused: Any = (None,) * 4  # it comes no further than connecting
    watcher = Watcher(settings(Server()), WatcherMeans(fails, *unused))
    watcher.start()
    end = time.monotonic() + 20
    while not watcher.trouble and time.monotonic() < end:
        time.sleep(0.01)
    watcher.stop()
    assert watcher.trouble == "token: invalid_grant (log in again)"
    (line,) = [line for line in logged() if line["event"] == "mailbox_lost"][:1]
    assert (line["step"], line["reason"], line["advice"]) == ("token", "invalid_grant", "log in again")
