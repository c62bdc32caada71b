"""Private real servers for the tests: a Dovecot, a Postfix, and an SMTP sink that records what arrives.

Each listens on free loopback ports, lives in a short directory of its own under /tmp, and is gone when its context
manager ends. A server that does not come up raises ServerError with its own log.

    with dovecot() as imap, sink() as upstream, postfix(upstream.port) as mta: ...
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import shutil
import signal
import smtplib
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from imapclient import IMAPClient

from tests.loopback import HOST, ServerError, free_port
from tests.sink import Sink, Transaction, sink

__all__ = [
    "HOST",
    "Dovecot",
    "Postfix",
    "ServerError",
    "Sink",
    "Transaction",
    "dovecot",
    "free_port",
    "postfix",
    "program",
    "sink",
]

START_SECONDS: Final = 20.0


def program(name: str) -> str | None:
    """Where a server's binary is; plain users often have no sbin in their PATH."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    """A short one, whatever TMPDIR says: a socket's path has room for 107 octets. Servers that drop root may enter."""
    with tempfile.TemporaryDirectory(prefix="oo", dir="/tmp", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


class Server(ABC):
    """A server process in a session of its own, so that killing its group reaches its children and nobody else."""

    host = HOST

    def __init__(self, directory: Path):
        self.directory = directory
        self.log_file = directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def command(self) -> list[str]:
        """The program and its arguments; it must stay in the foreground."""

    @property
    @abstractmethod
    def ports(self) -> tuple[int, ...]:
        """All of these greet when the server is up."""

    @property
    def running(self) -> bool:
        """Has it been started, and neither stopped nor died?"""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start, or start again on the same ports; returns when every port greets."""
        if self.running:
            return
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self._wait_until(lambda: all(map(_greets, self.ports)), "it does not greet")
        except ServerError:
            self.kill()
            raise

    def stop(self) -> None:
        """Ask it to end, as an operator would; returns when it and its children are gone."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without a goodbye: clients see a reset, files stay as they are."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(how) if how is signal.SIGTERM else os.killpg(process.pid, how)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            self._log_and_raise("it does not stop")
        finally:
            with contextlib.suppress(ProcessLookupError):  # children that outlive their master would hold the ports
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        deadline = time.monotonic() + START_SECONDS  # children die a moment later; in a container nobody may reap them
        while any(map(_accepts, self.ports)) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _wait_until(self, ready: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if not self.running:
                self._log_and_raise("it has ended")
            if time.monotonic() > deadline:
                self._log_and_raise(otherwise)
            time.sleep(0.02)

    def _log_and_raise(self, what: str) -> None:
        log = self.log_file.read_text(errors="replace")[-4000:] if self.log_file.exists() else ""
        raise ServerError(f"{' '.join(self.command)}: {what}. Its log:\n{log or '(empty)'}")


def _greets(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=5) as line:
            return bool(line.recv(1))
    except OSError:
        return False


def _accepts(port: int) -> bool:
    with socket.socket() as line:
        return line.connect_ex((HOST, port)) == 0


# ------------------------------------------------------------------ Dovecot

_DOVECOT_CONF: Final = """\
base_dir = {dir}/run
state_dir = {dir}/state
log_path = {dir}/server.log
auth_verbose = yes
protocols = imap lmtp
listen = 127.0.0.1

ssl = yes
ssl_cert = <{dir}/cert.pem
ssl_key = <{dir}/key.pem
disable_plaintext_auth = no

# Wrong passwords are answered at once: tests try them on purpose.
auth_failure_delay = 0
auth_mechanisms = plain login
# The user is what stands before the @, so LMTP for support@anything arrives.
auth_username_format = %Ln
passdb {{
  driver = passwd-file
  args = scheme=PLAIN {dir}/users
}}
userdb {{
  driver = static
  args = uid={user} gid={group} home={dir}/mail/%u
}}
mail_location = maildir:~
mail_uid = {user}
mail_gid = {group}
first_valid_uid = 1
mail_max_userip_connections = 100
{as_plain_user}
service imap-login {{
  {no_chroot}
  process_min_avail = 1
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
  }}
}}
service lmtp {{
  {no_chroot}
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {lmtp}
  }}
}}
service auth {{
  # for a Postfix that asks who may send
  unix_listener {dir}/sasl {{
    mode = 0666
  }}
}}
service anvil {{
  {no_chroot}
  # mode 0 switches the penalty for repeated failures off
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  {no_chroot}
}}
"""


class Dovecot(Server):
    """IMAP, IMAPS and LMTP over Maildirs; MOVE, UIDPLUS and IDLE are on, as Dovecot has them by default."""

    def __init__(self, directory: Path):
        super().__init__(directory)
        self.users = {user: f"secret-{user}" for user in ("support", "alice", "bob")}
        self.imap_port, self.imaps_port, self.lmtp_port = free_port(), free_port(), free_port()
        self.ca_file = directory / "cert.pem"  # signed by itself
        self.mail = directory / "mail"
        self.sasl = directory / "sasl"  # the socket on which it tells a Postfix whose password is right
        self._owner = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        self._write_files()

    @property
    def command(self) -> list[str]:
        """Dovecot in the foreground."""
        return [program("dovecot") or "dovecot", "-F", "-c", str(self.directory / "dovecot.conf")]

    @property
    def ports(self) -> tuple[int, ...]:
        """IMAP and LMTP; IMAPS belongs to the process of IMAP, and waits for the client to speak first."""
        return self.imap_port, self.lmtp_port

    def start(self) -> None:
        """As Server.start; forgets the pid of a master that was killed, which another process may have by now."""
        if not self.running:
            (self.directory / "run/master.pid").unlink(missing_ok=True)
        super().start()

    def clear(self) -> None:
        """Empty every mailbox. Only while nobody is connected."""
        for user in self.users:
            shutil.rmtree(self.mail / user, ignore_errors=True)

    def lmtp(self, user: str, raw: bytes, sender: str = "customer@example.org") -> None:
        """Deliver a message as an MTA would: new in INBOX, Return-Path and Received on top. `sender` "" is <>."""
        with smtplib.LMTP(HOST, self.lmtp_port) as client:
            client.sendmail(sender, [f"{user}@localhost"], raw)

    def connect(self, user: str) -> IMAPClient:
        """A logged-in client without TLS; use it in `with`, which logs out."""
        client = IMAPClient(HOST, self.imap_port, ssl=False, timeout=10)
        client.normalise_times = False
        client.login(user, self.users[user])
        return client

    def append(
        self, user: str, raw: bytes, folder: str = "INBOX", flags: Sequence[str] = (), when: datetime | None = None
    ) -> int:
        """Put a message into a folder (made if missing) byte for byte, with flags and INTERNALDATE; gives its UID."""
        with self.connect(user) as client:
            if not client.folder_exists(folder):
                client.create_folder(folder)
            reply = client.append(folder, raw, flags, when)
        found = re.search(rb"APPENDUID \d+ (\d+)", reply)
        if not found:
            raise ServerError(f"APPEND answered {reply!r}")
        return int(found[1])

    def _write_files(self) -> None:
        for name in ("run", "state", "mail"):
            (self.directory / name).mkdir()
        os.chown(self.mail, self._owner.pw_uid, self._owner.pw_gid)
        users = "".join(f"{user}:{password}::::::\n" for user, password in self.users.items())
        (self.directory / "users").write_text(users)
        (self.directory / "dovecot.conf").write_text(self._conf())
        _certificate(self.directory / "key.pem", self.ca_file)

    def _conf(self) -> str:
        """Dovecot drops root to users of its own; without root it must be told to stay who it is, and where it is."""
        root = os.geteuid() == 0
        me, group = self._owner.pw_name, grp.getgrgid(os.getgid()).gr_name
        internal = f"default_internal_user = {me}\ndefault_internal_group = {group}\ndefault_login_user = {me}"
        return _DOVECOT_CONF.format(
            dir=self.directory,
            user=self._owner.pw_uid,
            group=self._owner.pw_gid,
            as_plain_user="" if root else internal,
            no_chroot="" if root else "chroot =",
            imap=self.imap_port,
            imaps=self.imaps_port,
            lmtp=self.lmtp_port,
        )


def _certificate(key: Path, certificate: Path) -> None:
    """A key and a certificate for localhost and 127.0.0.1 that is its own CA. The packages of both bring openssl."""
    made = subprocess.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost "
        f"-addext subjectAltName=DNS:localhost,IP:{HOST} -keyout {key} -out {certificate}".split(),
        capture_output=True,
        text=True,
    )
    if made.returncode:
        raise ServerError(f"openssl: {made.stderr}")


@contextlib.contextmanager
def dovecot() -> Iterator[Dovecot]:
    """A running Dovecot (Debian: dovecot-imapd dovecot-lmtpd), as root or as a plain user."""
    with _directory() as directory:
        server = Dovecot(directory)
        server.start()
        try:
            yield server
        finally:
            server.kill()


# ------------------------------------------------------------------ Postfix

_MAIN_CF: Final = """\
compatibility_level = 3.6
queue_directory = {dir}/spool
data_directory = {dir}/data
daemon_directory = {daemons}
maillog_file = {dir}/server.log
maillog_file_prefixes = {dir}
myhostname = mta.example.org
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
inet_protocols = ipv4
inet_interfaces = 127.0.0.1
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_peername_lookup = no
# Loopback clients would get their headers completed and rewritten; the tests compare bytes.
local_header_rewrite_clients =
smtputf8_autodetect_classes = all
smtpd_tls_security_level = none
smtpd_tls_cert_file = {dir}/cert.pem
smtpd_tls_key_file = {dir}/key.pem
smtp_tls_security_level = none
relayhost = [127.0.0.1]:{relay}
smtp_dns_support_level = disabled
smtp_host_lookup = native
# A next hop that was away is tried again while the test still waits.
queue_run_delay = 1s
minimal_backoff_time = 1s
maximal_backoff_time = 2s
"""

_MASTER_CF: Final = """\
127.0.0.1:{port} inet n - n - - smtpd
127.0.0.1:{starttls} inet n - n - - smtpd
  -o smtpd_tls_security_level=encrypt
127.0.0.1:{implicit} inet n - n - - smtpd
  -o smtpd_tls_security_level=encrypt -o smtpd_tls_wrappermode=yes
{submission}\
tlsmgr   unix       - - n 1000? 1 tlsmgr
cleanup  unix       n - n - 0  cleanup
qmgr     unix       n - n 5 1  qmgr
rewrite  unix       - - n - -  trivial-rewrite
bounce   unix       - - n - 0  bounce
defer    unix       - - n - 0  bounce
trace    unix       - - n - 0  bounce
flush    unix       n - n - 0  flush
proxymap unix       - - n - -  proxymap
smtp     unix       - - n - -  smtp
error    unix       - - n - -  error
retry    unix       - - n - -  error
anvil    unix       - - n - 1  anvil
scache   unix       - - n - 1  scache
postlog  unix-dgram n - n - 1  postlogd
"""


# Ports at which nobody may send without a password: one as usual, one that knows no other way to tell it than LOGIN.
_SUBMISSION_CF: Final = """\
127.0.0.1:{auth} inet n - n - - smtpd
  -o smtpd_tls_security_level=encrypt -o smtpd_sasl_auth_enable=yes -o smtpd_sasl_type=dovecot -o smtpd_sasl_path={sasl}
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
127.0.0.1:{login} inet n - n - - smtpd
  -o smtpd_tls_security_level=encrypt -o smtpd_sasl_auth_enable=yes -o smtpd_sasl_type=dovecot -o smtpd_sasl_path={sasl}
  -o smtpd_sasl_mechanism_filter=login
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
"""


class Postfix(Server):
    """A Postfix of its own: own queue, own configuration; in clear, with STARTTLS and with implicit TLS.

    It runs `master` itself rather than `postfix start-fg`, which asks the system's configuration for other
    instances; and it is spoken to by SMTP only, because the set-gid commands (sendmail, postqueue) accept a foreign
    directory only if the system's main.cf lists it. So nothing under /etc/postfix is touched.
    """

    def __init__(self, directory: Path, relayhost_port: int, sasl: Path | None = None):
        super().__init__(directory)
        self.port, self.starttls_port, self.implicit_port = free_port(), free_port(), free_port()
        self.auth_port, self.login_port = free_port(), free_port()  # only if it has somebody to ask: Dovecot.sasl
        self.ca_file = directory / "cert.pem"  # signed by itself
        self._sasl = sasl
        self.etc = directory / "etc"
        self._daemons = _postconf("daemon_directory")
        self._write_files(relayhost_port)

    @property
    def command(self) -> list[str]:
        """The master process in the foreground."""
        return [f"{self._daemons}/master", "-d", "-c", str(self.etc)]

    @property
    def ports(self) -> tuple[int, ...]:
        """SMTP."""
        return (self.port,)

    def clear(self) -> None:
        """Throw away whatever is queued."""
        command = [program("postsuper") or "postsuper", "-c", str(self.etc), "-d", "ALL"]
        subprocess.run(command, check=True, capture_output=True)

    def _write_files(self, relayhost_port: int) -> None:
        self.etc.mkdir()
        main = _MAIN_CF.format(dir=self.directory, daemons=self._daemons, relay=relayhost_port)
        ports = {"auth": self.auth_port, "login": self.login_port}
        submission = _SUBMISSION_CF.format(sasl=self._sasl, **ports) if self._sasl else ""
        master = _MASTER_CF.format(
            port=self.port, starttls=self.starttls_port, implicit=self.implicit_port, submission=submission
        )
        (self.etc / "main.cf").write_text(main)
        (self.etc / "master.cf").write_text(master)
        _certificate(self.directory / "key.pem", self.ca_file)
        postfix, spool, data = pwd.getpwnam("postfix").pw_uid, self.directory / "spool", self.directory / "data"
        for path in (spool, spool / "pid"):
            path.mkdir()
        for name in ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "maildrop"):
            (spool / name).mkdir(mode=0o700)
        for name in ("private", "public", "saved", "trace"):
            (spool / name).mkdir(mode=0o700)
        data.mkdir(mode=0o700)
        for path in (data, *(p for p in spool.iterdir() if p.name != "pid")):
            os.chown(path, postfix, -1)


def _postconf(parameter: str) -> str:
    """A built-in default of this Postfix, whatever the system's configuration says."""
    found = subprocess.run([program("postconf") or "postconf", "-dh", parameter], capture_output=True, text=True)
    if found.returncode:
        raise ServerError(f"postconf: {found.stderr}")
    return found.stdout.strip()


@contextlib.contextmanager
def postfix(relayhost_port: int, sasl: Path | None = None) -> Iterator[Postfix]:
    """A running Postfix (root; Debian: postfix) that hands everything to a loopback port. `sasl`: see Dovecot."""
    with _directory() as directory:
        server = Postfix(directory, relayhost_port, sasl)
        server.start()
        try:
            yield server
        finally:
            server.kill()
