"""Certificates for servers of the tests, by the openssl command."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.loopback import HOST, ServerError

NAMES = f"DNS:localhost,DNS:relay.quillpdf.example,IP:{HOST}"


def certify(key: Path, certificate: Path) -> None:
    """A key and a certificate for this machine and the relay's printed name, that is its own CA."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost".split()
    _run([*command, "-addext", f"subjectAltName={NAMES}", "-keyout", str(key), "-out", str(certificate)])
    key.chmod(0o600)


def expire(key: Path, certificate: Path) -> None:
    """The same certificate, but it ended yesterday."""
    _run(["openssl", "x509", "-in", str(certificate), "-signkey", str(key), "-days", "-1", "-out", str(certificate)])


def _run(command: list[str]) -> None:
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        raise ServerError(f"openssl: {made.stderr}")
