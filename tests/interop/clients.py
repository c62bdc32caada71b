"""Clients that people really send campaigns with, each driven as its manual says.

A client is a function `(line, job) -> Said`. `missing(name)` tells what a client lacks on this machine.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import shutil
import smtplib
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final, Literal

from tests.loopback import HOST
from tests.servers import program

# The newest at the time of writing, so that what docs/deploy.md says of it is said of one version.
NODEMAILER: Final = "10.6.1"
_NODE_NEEDED: Final = 20  # what that version asks for
SECONDS: Final = 60
_SCRIPT: Final = Path(__file__).with_name("nodemailer_send.cjs")


@dataclass(frozen=True)
class Line:
    """Where the relay listens, and how one gets in."""

    port: int
    tls: Literal["none", "starttls", "implicit"] = "none"
    ca_file: Path | None = None
    username: str = ""
    password: str = ""


@dataclass(frozen=True)
class Job:
    """A message and its envelope. The message has CR LF line ends and no dot-stuffing."""

    recipients: tuple[str, ...]
    message: bytes
    sender: str = "news@quillpdf.example"


@dataclass(frozen=True)
class Said:
    """How the client ended: its exit code, and all that it said on stdout and stderr."""

    code: int
    text: str = field(repr=False)

    def __str__(self) -> str:
        return f"exit {self.code}:\n{self.text}"


def swaks(line: Line, job: Job) -> Said:
    """Debian's swaks, the command line SMTP tester. It adds the line end before the final dot itself."""
    with _file(job.message.removesuffix(b"\r\n")) as message:
        command = ["swaks", "--server", f"{HOST}:{line.port}", "--helo", "tool.example", "--from", job.sender]
        command += ["--to", ",".join(job.recipients), "--data", f"@{message}"]
        if line.tls != "none":
            command += ["--tls" if line.tls == "starttls" else "--tls-on-connect", "--tls-verify"]
            command += ["--tls-ca-path", str(line.ca_file)]
        if line.username:
            command += ["--auth", "PLAIN", "--auth-user", line.username, "--auth-password", line.password]
        return _run(command)


def curl(line: Line, job: Job, *more: str) -> Said:
    """curl's SMTP; `more` options go to the command line."""
    with _file(job.message) as message:
        scheme = "smtps" if line.tls == "implicit" else "smtp"
        command = ["curl", "--silent", "--show-error", "--verbose", "--max-time", str(SECONDS)]
        command += [f"{scheme}://{HOST}:{line.port}/tool.example", "--mail-from", job.sender]
        command += [word for rcpt in job.recipients for word in ("--mail-rcpt", rcpt)]
        command += ["--upload-file", str(message), *more]
        if line.tls != "none":
            command += ["--ssl-reqd", "--cacert", str(line.ca_file)]
        if line.username:
            command += ["--user", f"{line.username}:{line.password}", "--login-options", "AUTH=PLAIN"]
        return _run(command)


def curl_allowfails(line: Line, job: Job) -> Said:
    """curl, told to go on when some recipients are refused."""
    return curl(line, job, "--mail-rcpt-allowfails")


def msmtp(line: Line, job: Job) -> Said:
    """msmtp: what stands behind sendmail(1) on many small machines."""
    command = ["msmtp", f"--host={HOST}", f"--port={line.port}", f"--from={job.sender}", "--domain=tool.example"]
    if line.tls != "none":
        command += ["--tls=on", f"--tls-trust-file={line.ca_file}"]
        command += [f"--tls-starttls={'on' if line.tls == 'starttls' else 'off'}"]
    with _file(line.password.encode()) as password:
        if line.username:
            command += ["--auth=plain", f"--user={line.username}", f"--passwordeval=cat {password}"]
        return _run([*command, "--", *job.recipients], job.message)


def python(line: Line, job: Job) -> Said:
    """smtplib of this Python: SMTP.sendmail, on which Django and many others build."""
    trust = ssl.create_default_context(cafile=str(line.ca_file)) if line.ca_file else None
    try:
        connected = (
            smtplib.SMTP_SSL(HOST, line.port, timeout=SECONDS, context=trust)
            if line.tls == "implicit"
            else smtplib.SMTP(HOST, line.port, timeout=SECONDS)
        )
        with connected as client:
            if line.tls == "starttls":
                client.starttls(context=trust)
            if line.username:
                client.login(line.username, line.password)
            refused = client.sendmail(job.sender, job.recipients, job.message)
    except OSError as failed:  # SMTPException and SSLError are of that kind
        return Said(1, f"{type(failed).__name__} {failed}")
    return Said(0, f"returned {refused}")


def nodemailer(line: Line, job: Job) -> Said:
    """Node's nodemailer, `sendMail` on a transport of its own."""
    order = {
        "port": line.port,
        "tls": line.tls,
        "ca": line.ca_file.read_text() if line.ca_file else None,
        "username": line.username,
        "password": line.password,
        "from": job.sender,
        "to": job.recipients,
        "raw": job.message.decode("latin-1"),
    }
    return _run(["node", str(_SCRIPT), str(_nodemailer()[0])], json.dumps(order).encode())


CLIENTS: Final[dict[str, Callable[[Line, Job], Said]]] = {
    "swaks": swaks,
    "curl": curl,
    "curl --mail-rcpt-allowfails": curl_allowfails,
    "msmtp": msmtp,
    "smtplib": python,
    "nodemailer": nodemailer,
}
_PACKAGES: Final = {"swaks": "swaks", "curl": "curl", "msmtp": "msmtp"}


@cache
def missing(name: str) -> str:
    """What this client lacks here: a reason to skip; "" if it can run."""
    name = name.partition(" ")[0]
    if name in _PACKAGES:
        return "" if program(name) else f"Debian package {_PACKAGES[name]} is missing"
    return _nodemailer()[1] if name == "nodemailer" else ""


# ------------------------------------------------------------------ nodemailer comes from npm


@cache
def _nodemailer() -> tuple[Path, str]:
    """The directory it is installed in, for this run of the tests, and why it cannot be had, if so."""
    where = Path(tempfile.mkdtemp(prefix="oo-npm"))
    atexit.register(shutil.rmtree, where, ignore_errors=True)
    if not (program("node") and program("npm")):
        return where, "nodemailer: Debian packages nodejs and npm are missing"
    version = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout.strip()
    if int(version.removeprefix("v").partition(".")[0] or 0) < _NODE_NEEDED:
        return where, f"nodemailer {NODEMAILER} needs Node.js {_NODE_NEEDED}, this is {version}"
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", f"nodemailer@{NODEMAILER}"]
    try:
        done = subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return where, "nodemailer: npm does not come to an end"
    said = (done.stderr.strip() or done.stdout).splitlines()
    return (
        where,
        f"nodemailer: npm could not install it ({said[-1] if said else done.returncode})" if done.returncode else "",
    )


# ------------------------------------------------------------------ running


@contextlib.contextmanager
def _file(octets: bytes) -> Iterator[Path]:
    """A file with these octets, for as long as the block lasts."""
    with tempfile.NamedTemporaryFile() as made:
        made.write(octets)
        made.flush()
        yield Path(made.name)


def _run(command: list[str], stdin: bytes | None = None) -> Said:
    done = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=2 * SECONDS)
    return Said(done.returncode, done.stdout.decode(errors="replace"))
