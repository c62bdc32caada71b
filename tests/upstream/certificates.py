"""Certificates for servers of the tests: good ones, and each kind of bad one."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"


def _openssl(command: str) -> None:
    subprocess.run(["openssl", *command.split()], check=True, capture_output=True)


@dataclass(frozen=True)
class Authority:
    """A CA in a directory of its own."""

    directory: Path

    @property
    def ca_file(self) -> Path:
        """What those who trust it are given."""
        return self.directory / "ca.pem"

    def issue(self, *names: str, days: int = 2) -> ssl.SSLContext:
        """What a server of these names (`DNS:x`, `IP:x`) needs; `days` -1: its certificate expired yesterday."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.files(*names, days=days))
        return context

    def files(self, *names: str, days: int = 2) -> tuple[Path, Path]:
        """The same as files: (certificate, key)."""
        name = f"{self.directory}/{'+'.join(names).replace(':', '-')}{days}"
        _openssl(f"req {_KEY} -subj /CN=x -addext subjectAltName={','.join(names)} -keyout {name}.key -out {name}.csr")
        _openssl(
            f"x509 -req -in {name}.csr -CA {self.ca_file} -CAkey {self.directory}/ca.key -copy_extensions copy "
            f"-days {days} -out {name}.pem"
        )
        return Path(f"{name}.pem"), Path(f"{name}.key")


def authority(directory: Path) -> Authority:
    """A new one."""
    directory.mkdir()
    _openssl(f"req -x509 {_KEY} -days 2 -subj /CN=ca -keyout {directory}/ca.key -out {directory}/ca.pem")
    return Authority(directory)
