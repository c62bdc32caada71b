"""Secrets and addresses: a daemon that uses every kind of them shows none, in its log, its arguments or its environment."""

from __future__ import annotations

import base64
import contextlib
import re
import signal
import smtplib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import pytest

from daemon import options
from daemon.config import Config
from tests.loopback import HOST, free_port
from tests.mailbox.support import mail
from tests.scenarios.process import PATIENCE, ROOT, Daemon, config
from tests.servers import Dovecot, Sink
from tests.webhooks.receiver import receiver

pytestmark = [pytest.mark.dovecot, pytest.mark.timeout(240)]

# Each in the file of its name; by the option that names the file.
SECRETS: Final = {
    "mailbox.password_file": "secret-support",
    "relay.credential.password_file": "crm-hunter2-relay",
    "upstream.password_file": "upstream-hunter2-smart",
    "upstream.fallback.password_file": "fallback-hunter2-smart",
    "web.admin_password_file": "admin-hunter2-console",
    "web.operator.password_file": "kim-hunter2-console",
    "web.token.token_file": "shop-hunter2-bearer-token",
    "webhook.secret_file": "hook-hunter2-of-more-than-24-characters",
}
# Of a database elsewhere: storage.postgres keeps it in a field that no repr shows, and its own tests look at its messages.
ELSEWHERE: Final = {"storage.password_file"}
MISTYPED: Final = ("mistyped-hunter2-relay", "mistyped-hunter2-console", "mistyped-hunter2-bearer")
ANN, BOB, CEM = "ann@customer.example", "bob@customer.example", "cem@customer.example"


def named(option: str) -> str:
    """The file of a secret."""
    return option.replace(".", "-")


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="oo") as name:
        for option, secret in SECRETS.items():
            (Path(name) / named(option)).write_text(secret + "\n")
            (Path(name) / named(option)).chmod(0o600)
        yield Path(name)


def everything(sink: Sink, dovecot: Dovecot, web: int, hook: str) -> str:
    """A config that names every kind of secret."""
    relay = '[[relay.credential]]\nusername = "crm"\npassword_file = "relay-credential-password_file"\n'
    more = f"""
level = "debug"

[web]
listen = "{HOST}:{web}"
public_url = "https://mail.quillpdf.example"
admin_password_file = "web-admin_password_file"

[[web.operator]]
name = "kim"
password_file = "web-operator-password_file"
rights = ["check"]

[[web.token]]
name = "shop"
token_file = "web-token-token_file"
rights = ["check", "suppress", "export"]

[[webhook]]
name = "crm"
url = "{hook}"
secret_file = "webhook-secret_file"
"""
    text = config(sink.port, dovecot, relay=relay, more=more).replace('"imap-password"', '"mailbox-password_file"')
    upstream = f"port = {sink.port}\n"
    fallback = f'[[upstream.fallback]]\nport = {free_port()}\nusername = "us"\n'
    fallback += 'password_file = "upstream-fallback-password_file"\n'
    return text.replace(upstream, f'{upstream}username = "us"\npassword_file = "upstream-password_file"\n{fallback}')


def secret_options(model: object = Config, at: str = "") -> set[str]:
    """The options that name a file with a secret, of the whole config."""
    found = set()
    for name, field in getattr(model, "model_fields", {}).items():
        path = f"{at}.{name}".lstrip(".")
        if re.search(r"(password|token|secret)_file$", name):
            found.add(path)
        for inner in re.findall(r"daemon\.options\.(\w+)", str(field.annotation)):
            found |= secret_options(getattr(options, inner), path)
    return found


def test_no_kind_of_secret_is_left_out() -> None:
    """One that a mailbox logs in with in another way is looked for where that way is tested."""
    other_ways = {o for o in secret_options() if o.startswith("mailbox.oauth2.")}
    assert secret_options() - other_ways == set(SECRETS) | ELSEWHERE


def test_a_daemon_shows_nothing_that_it_was_told(home: Path, dovecot: Dovecot, sink: Sink) -> None:
    sink.keywords += ("AUTH PLAIN",)
    sink.replies["AUTH"] = "235 2.7.0 welcome"
    web = free_port()
    with receiver() as crm:
        crm.secret = SECRETS["webhook.secret_file"].encode()
        daemon = Daemon(home, everything(sink, dovecot, web, crm.url))
        with daemon.running():
            seen = set(shown_by(daemon))
            daemon.until(lambda: '"state": "new"' not in daemon.cli("hooks", "--json").stdout)
            campaign(daemon)
            daemon.until(lambda: any(line.startswith("AUTH") for line in sink.commands))
            dovecot.lmtp("support", mail(ANN, "Please stop sending me e-mails."))
            daemon.until(lambda: daemon.events("opt_out_recorded"))
            statuses = console(web), api(web)
            link = linked(web, sink)
            daemon.until(lambda: daemon.events("one_click_recorded"))
            crm.until(lambda: CEM in crm.addresses())
            wrong_imap_password(daemon)
            seen |= set(shown_by(daemon))
            assert daemon.process is not None
            seen |= set(shown_by(daemon))
        assert daemon.events("stopped")
    assert statuses == ((303, 403, 403), (200, 401, 201))
    assert daemon.events("login_refused")
    assert daemon.events("console_login_refused")
    log = daemon.log_file.read_text()
    keys = (home / "site.key").read_text().split()[-1]
    told = [
        *SECRETS.values(),
        *MISTYPED,
        keys,
        base64.b64encode(bytes.fromhex(keys)).decode(),
        link,
        "customer.example",
    ]
    told += [base64.b64encode(f"\0us\0{SECRETS['upstream.password_file']}".encode()).decode()]
    assert [what for what in told if what in log] == []
    assert seen, "nothing was looked at"
    assert [what for what in told if any(what in text for text in seen)] == []


def shown_by(daemon: Daemon) -> Iterator[str]:
    """Arguments and environment of the daemon and all that it has started, as root reads them."""
    assert daemon.process is not None
    todo = [daemon.process.pid]
    while todo:
        pid = todo.pop()
        with contextlib.suppress(OSError):
            yield Path(f"/proc/{pid}/cmdline").read_text()
            yield Path(f"/proc/{pid}/environ").read_text()
            for task in Path(f"/proc/{pid}/task").iterdir():
                todo += map(int, (task / "children").read_text().split())


def campaign(daemon: Daemon) -> None:
    """A log-in with a wrong password, one with the right one, and a mail to somebody."""
    for password in (MISTYPED[0], SECRETS["relay.credential.password_file"]):
        with smtplib.SMTP(HOST, daemon.relay_port, timeout=PATIENCE) as client:
            try:
                client.login("crm", password)
            except smtplib.SMTPAuthenticationError:
                continue
            client.sendmail("news@quillpdf.example", [BOB], b"Subject: offer\r\n\r\nhello\r\n")


def asked(web: int, method: str, path: str, body: str = "", **headers: str) -> tuple[int, str, str]:
    """(status, body, cookie) of an answer."""
    line = HTTPConnection(HOST, web, timeout=PATIENCE)
    line.request(method, path, body or None, {k.replace("_", "-"): v for k, v in headers.items()})
    answer = line.getresponse()
    text, cookie = answer.read().decode(), (answer.getheader("Set-Cookie") or "").partition(";")[0]
    line.close()
    return answer.status, text, cookie


def console(web: int) -> tuple[int, ...]:
    """Log-ins of an operator: right, wrong, and one with a form that is not ours."""
    found = []
    for password in (SECRETS["web.admin_password_file"], MISTYPED[1]):
        _, page, cookie = asked(web, "GET", "/console/login")
        token = re.search(r'name="csrf_token" value="([^"]+)"', page)
        assert token
        form = urlencode({"username": "admin", "password": password, "csrf_token": token[1]})
        kind = "application/x-www-form-urlencoded"
        found.append(asked(web, "POST", "/console/login", form, Content_Type=kind, Cookie=cookie)[0])
    form = urlencode({"username": "kim", "password": SECRETS["web.operator.password_file"], "csrf_token": "forged"})
    found.append(asked(web, "POST", "/console/login", form, Content_Type="application/x-www-form-urlencoded")[0])
    return tuple(found)


def api(web: int) -> tuple[int, ...]:
    """A program that asks, with a right and a wrong token, and one that suppresses."""
    right, json_ = f"Bearer {SECRETS['web.token.token_file']}", "application/json"
    check, suppress = f'{{"addresses": ["{ANN}"]}}', f'{{"address": "{CEM}"}}'
    return (
        asked(web, "POST", "/api/v1/check", check, Authorization=right, Content_Type=json_)[0],
        asked(web, "POST", "/api/v1/check", check, Authorization=f"Bearer {MISTYPED[2]}", Content_Type=json_)[0],
        asked(web, "POST", "/api/v1/suppressions", suppress, Authorization=right, Content_Type=json_)[0],
    )


def linked(web: int, sink: Sink) -> str:
    """A click on the stamped link; returns its token."""
    link = re.search(
        rb"https://mail\.quillpdf\.example/u/([^>]+)>", next(m.data for m in sink.messages if b"offer" in m.data)
    )
    assert link
    token = link[1].decode()
    kind = "application/x-www-form-urlencoded"
    assert asked(web, "POST", f"/u/{token}", "List-Unsubscribe=One-Click", Content_Type=kind)[0] == 200
    return token


def wrong_imap_password(daemon: Daemon) -> None:
    """What the server says of it is in the log; the password is not."""
    (daemon.directory / "mailbox-password_file").write_text("mistyped-hunter2-imap\n")
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until(lambda: daemon.events("mailbox_lost"))
    assert "mistyped-hunter2-imap" not in daemon.log_file.read_text()


def test_its_memory_is_closed_and_leaves_no_core() -> None:
    """What of this shows to others is tried under systemd, as a user of its own."""
    script = """
import ctypes, multiprocessing, resource
from daemon.process import close_memory
dumpable = lambda: ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)  # PR_GET_DUMPABLE
before = dumpable()
close_memory()
print(before, dumpable(), *resource.getrlimit(resource.RLIMIT_CORE), flush=True)
fork = multiprocessing.get_context("fork")
child = fork.Process(target=lambda: print(dumpable(), flush=True))
child.start(); child.join()
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "0", "0", "0", "0"]


def test_ended_by_the_watchdog_it_says_where_it_stood_and_nothing_else(home: Path, sink: Sink) -> None:
    """systemd sends SIGABRT."""
    with Daemon(home, config(sink.port)).running() as daemon:
        assert daemon.rcpt(ANN).startswith("250")
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGABRT)
        assert daemon.process.wait(PATIENCE) == -signal.SIGABRT
    log = daemon.log_file.read_text()
    assert "Fatal Python error: Aborted" in log
    assert "daemon/service.py" in log
    assert "customer.example" not in log
    assert not list(home.glob("core*"))
