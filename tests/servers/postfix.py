"""A private Postfix."""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.certificates import certify
from tests.loopback import ServerError, free_port
from tests.servers.base import Server, directory_of_its_own, program

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
        certify(self.directory / "key.pem", self.ca_file)
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
    with directory_of_its_own() as directory:
        server = Postfix(directory, relayhost_port, sasl)
        server.start()
        try:
            yield server
        finally:
            server.kill()
