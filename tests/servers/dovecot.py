"""A private Dovecot."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import shutil
import smtplib
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from imapclient import IMAPClient

from tests.certificates import certify
from tests.loopback import HOST, ServerError, free_port
from tests.servers.base import Server, directory_of_its_own, program

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
auth_mechanisms = {mechanisms}
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
{more}
"""
# Access tokens are checked by asking the server that gives them (RFC 7662).
_OAUTH2: Final = """\
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {dir}/oauth2.conf
}}
"""
_OAUTH2_CONF: Final = """\
introspection_mode = post
introspection_url = {url}
username_attribute = username
active_attribute = active
active_value = true
"""


class Dovecot(Server):
    """IMAP, IMAPS and LMTP over Maildirs; MOVE, UIDPLUS and IDLE are on, as Dovecot has them by default.

    `more`: further lines of its configuration; `introspection`: the URL that knows access tokens, if it takes them.
    """

    def __init__(self, directory: Path, more: str = "", introspection: str = ""):
        super().__init__(directory)
        self._more, self._introspection = more, introspection
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
        client = IMAPClient(HOST, self.imap_port, ssl=False, timeout=30)
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
        (self.directory / "oauth2.conf").write_text(_OAUTH2_CONF.format(url=self._introspection))
        certify(self.directory / "key.pem", self.ca_file)

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
            mechanisms="plain login xoauth2 oauthbearer" if self._introspection else "plain login",
            more=self._more + (_OAUTH2.format(dir=self.directory) if self._introspection else ""),
        )


@contextlib.contextmanager
def dovecot(more: str = "", introspection: str = "") -> Iterator[Dovecot]:
    """A running Dovecot (Debian: dovecot-imapd dovecot-lmtpd), as root or as a plain user."""
    with directory_of_its_own() as directory:
        server = Dovecot(directory, more, introspection)
        server.start()
        try:
            yield server
        finally:
            server.kill()
