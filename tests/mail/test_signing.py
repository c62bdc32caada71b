"""What signs behind us signs what we wrote: real milters in a real Postfix (docs/signing.md has these settings).

Each message goes through `stamp`, over SMTP into a Postfix with a signing milter, and into a sink. OpenDKIM's own
verifier then judges what arrived, with the public key from a file instead of the DNS.
"""

from __future__ import annotations

import base64
import contextlib
import email
import re
import shutil
import smtplib
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from daemon.mail.headers import Stamps, list_id_value, stamp, unsubscribe_value
from tests import servers
from tests.loopback import HOST, ServerError, free_port

DOMAIN: Final = "quillpdf.example"
TOKEN: Final = "c2jdvq3m5t7ydn6kpx4rbhgw2olsazfeiu3t5v7c2jdvq3m5"
STAMPS: Final = Stamps(
    unsubscribe_value(f"https://m.{DOMAIN}/u/{TOKEN}", f"mailto:support@{DOMAIN}?subject=unsubscribe%20{TOKEN}"),
    one_click=True,
    list_id=list_id_value("Die Quill-Post für alle", f"newsletter.{DOMAIN}"),
    feedback_id=b"november:newsletter:quill",
    cfbl_address=f"fbl@{DOMAIN}; report=arf".encode(),
)
MESSAGE: Final = (
    b"From: The Quill Letter <letter@quillpdf.example>\r\nTo: ann@example.com\r\nSubject: November\r\n"
    b"Date: Fri, 27 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@quillpdf.example>\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=us-ascii\r\n\r\nWhat is new at Quill.\r\n"
)
UNSUBSCRIBE: Final = ("list-unsubscribe", "list-unsubscribe-post")
PAGE: Final = Path(__file__).parents[2] / "docs" / "signing.md"
RSPAMD: Final = pytest.mark.skipif(servers.program("rspamd") is None, reason="rspamd: Debian package rspamd is missing")
pytestmark = [
    pytest.mark.postfix,
    pytest.mark.skipif(servers.program("opendkim") is None, reason="opendkim: Debian package opendkim is missing"),
]


def stamped(message: bytes = MESSAGE, *, replace: bool = False) -> bytes:
    """The message as it leaves us."""
    return stamp(message.partition(b"\r\n\r\n")[0], STAMPS, replace=replace).applied_to(message)


# ------------------------------------------------------------------ the signers


@dataclass(frozen=True)
class Home:
    """A directory with a key pair: private as PEM, public as OpenDKIM's TestPublicKeys wants it."""

    directory: Path

    @property
    def private(self) -> Path:
        return self.directory / "private.pem"

    @property
    def public(self) -> Path:
        return self.directory / "public"

    def make(self) -> None:
        """Make the keys."""
        subprocess.run(["openssl", "genrsa", "-out", str(self.private), "2048"], check=True, capture_output=True)
        der = ["openssl", "rsa", "-in", str(self.private), "-pubout", "-outform", "DER"]
        key = base64.b64encode(subprocess.run(der, check=True, capture_output=True).stdout).decode()
        self.public.write_text(f"s._domainkey.{DOMAIN} v=DKIM1; k=rsa; p={key}\n")
        for path in (self.private, self.public):
            path.chmod(0o644)  # rspamd's worker is a user of its own

    def verdict(self, message: bytes) -> str:
        """What OpenDKIM says of a message: "good", "bad", "unsigned", or all it said if it is none of these."""
        conf, file = self.directory / "verify.conf", self.directory / "message"
        conf.write_text(f"Mode v\nSyslog no\nTestPublicKeys {self.public}\n")
        file.write_bytes(message.replace(b"\r\n", b"\n"))  # it reads files as a Unix keeps them
        command = [servers.program("opendkim") or "opendkim", "-x", str(conf), "-t", str(file), "-v"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=30)
        said = run.stdout + run.stderr
        known = {"succeeded": "good", "failed: signature verification failed": "bad", "message not signed": "unsigned"}
        return next((verdict for words, verdict in known.items() if words in said), said)


Command = Callable[[Home, int], list[str]]


def opendkim(settings: str, canonicalization: str = "relaxed/relaxed") -> Command:
    """OpenDKIM as a milter with these lines of opendkim.conf."""

    def command(home: Home, port: int) -> list[str]:
        conf = home.directory / "sign.conf"
        conf.write_text(
            f"Mode s\nSyslog no\nSocket inet:{port}@{HOST}\nDomain {DOMAIN}\nSelector s\nKeyFile {home.private}\n"
            f"RequireSafeKeys no\nCanonicalization {canonicalization}\n{settings}"
        )
        return [servers.program("opendkim") or "opendkim", "-f", "-x", str(conf)]

    return command


_RSPAMD_CONF: Final = """\
options {{
  pidfile = "{dir}/rspamd/pid";
  tempdir = "/tmp";
  url_tld = "{dir}/suffixes";
  control_socket = "{dir}/rspamd/control mode=0600";
  filters = "dkim";
  local_addrs = ["127.0.0.0/8"];
  dns {{ nameserver = ["127.0.0.1"]; }}
}}
logging {{ type = "console"; }}
worker "rspamd_proxy" {{
  bind_socket = "127.0.0.1:{port}";
  milter = yes;
  count = 1;
  upstream "local" {{ default = yes; self_scan = yes; }}
}}
# As in every real installation: `sign_headers` gets from dkim_signing to where it is read only if these are there.
dkim {{ time_jitter = 6h; }}
actions {{ reject = 1000; }}
group "one" {{ }}
group "two" {{ }}
dkim_signing {{
  path = "{key}";
  selector = "s";
  use_esld = false;
  {settings}
}}
modules {{ path = "/usr/share/rspamd/plugins/dkim_signing.lua"; }}
lua = "/usr/share/rspamd/rules/rspamd.lua";
"""


def rspamd(settings: str) -> Command:
    """rspamd as a milter that does nothing but sign, with these lines of dkim_signing.conf."""

    def command(home: Home, port: int) -> list[str]:
        state, conf = home.directory / "rspamd", home.directory / "rspamd.conf"
        state.mkdir()
        shutil.chown(state, "nobody")
        (home.directory / "suffixes").write_text("example\n")  # the whole list takes it seconds to compile
        conf.write_text(_RSPAMD_CONF.format(dir=home.directory, port=port, key=home.private, settings=settings))
        return [servers.program("rspamd") or "rspamd", "-f", "-c", str(conf), "-u", "nobody", "-g", "nogroup"]

    return command


def documented(signer: str) -> str:
    """The settings that docs/signing.md gives for a signer."""
    found = re.search(rf"^```{signer}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


class Mta(servers.Postfix):
    """A Postfix that has its mail signed on the way in."""

    def __init__(self, directory: Path, relayhost_port: int, milter: int):
        super().__init__(directory, relayhost_port)
        with (self.etc / "main.cf").open("a") as main:
            main.write(f"smtpd_milters = inet:{HOST}:{milter}\nmilter_default_action = tempfail\n")


@contextlib.contextmanager
def behind_us(command: Command) -> Iterator[Behind]:
    """A signer in a Postfix of its own, and what came out of it."""
    with tempfile.TemporaryDirectory(prefix="oo", dir="/tmp") as name, servers.sink() as sink:
        home, port = Home(Path(name)), free_port()
        home.directory.chmod(0o755)  # servers that drop root may enter
        home.make()
        log = home.directory / "signer.log"
        with log.open("wb") as out:
            signer = subprocess.Popen(command(home, port), stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        mta = Mta(home.directory, sink.port, port)
        try:
            wait_until_it_accepts(port, log)
            mta.start()
            yield Behind(home, mta, sink)
        finally:
            mta.kill()
            signer.terminate()
            signer.wait(20)


@dataclass(frozen=True)
class Behind:
    """What stands behind us."""

    home: Home
    mta: servers.Postfix
    sink: servers.Sink

    def send(self, message: bytes) -> bytes:
        """Send a message; what arrives."""
        self.sink.reset()
        with smtplib.SMTP(HOST, self.mta.port) as client:
            client.sendmail(f"bounce@{DOMAIN}", ["ann@example.com"], message)
        self.sink.wait_for(lambda: len(self.sink.messages) == 1)
        return self.sink.messages[0].data

    def verdict(self, message: bytes) -> str:
        """As Home.verdict."""
        return self.home.verdict(message)


def wait_until_it_accepts(port: int, log: Path) -> None:
    deadline = time.monotonic() + servers.START_SECONDS
    while True:
        with socket.socket() as line:
            if line.connect_ex((HOST, port)) == 0:
                return
        if time.monotonic() > deadline:
            raise ServerError(f"the signer does not come up: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)


def covered(message: bytes) -> Counter[str]:
    """How often the signature names each field (RFC 6376 3.5, tag h=)."""
    (signature,) = email.message_from_bytes(message).get_all("DKIM-Signature", [])
    tags = dict(tag.strip().split("=", 1) for tag in "".join(signature.split()).split(";") if tag)
    return Counter(tags["h"].lower().split(":"))


# ------------------------------------------------------------------ with the settings of docs/signing.md

SIGNERS: Final = {
    "opendkim simple": lambda: opendkim(documented("opendkim"), "simple/simple"),
    "opendkim relaxed": lambda: opendkim(documented("opendkim"), "relaxed/relaxed"),
    "rspamd": lambda: rspamd(documented("rspamd")),
}


@pytest.fixture(scope="module", params=[pytest.param(name, marks=[RSPAMD] * (name == "rspamd")) for name in SIGNERS])
def behind(request: pytest.FixtureRequest) -> Iterator[Behind]:
    """Each signer in turn."""
    with behind_us(SIGNERS[request.param]()) as found:
        yield found


@pytest.fixture(scope="module")
def signed(behind: Behind) -> bytes:
    """The stamped message as it arrives."""
    return behind.send(stamped())


def test_what_we_wrote_is_signed_and_the_signature_good(behind: Behind, signed: bytes) -> None:
    assert signed.endswith(stamped())
    assert behind.verdict(signed) == "good"
    names = covered(signed)
    assert {name: names[name] for name in UNSUBSCRIBE} == dict.fromkeys(UNSUBSCRIBE, 2)
    assert min(names[name] for name in ("list-id", "feedback-id", "cfbl-address")) >= 1


CHANGES: Final = {
    "another token": (b"/u/c2jd", b"/u/d2jd"),
    "another mailbox": (b"mailto:support", b"mailto:nobody"),
    "another post": (b"=One-Click", b"=Two-Clicks"),
    "no link": (b"List-Unsubscribe: ", b"X-Was: "),
    "no post": (b"List-Unsubscribe-Post: ", b"X-Was: "),
    "a second link on top": (b"DKIM-Signature:", b"List-Unsubscribe: <https://x.example>\r\nDKIM-Signature:"),
    "a second post on top": (b"DKIM-Signature:", b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nDKIM-Signature:"),
    "another list": (b"<newsletter.", b"<offers."),
    "another feedback id": (b"november:", b"december:"),
    "another mailbox for complaints": (b"CFBL-Address: fbl@", b"CFBL-Address: x@"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_whoever_changes_it_breaks_the_signature(behind: Behind, signed: bytes, change: str) -> None:
    before, after = CHANGES[change]
    assert signed.count(before) == 1
    assert behind.verdict(signed.replace(before, after)) == "bad"


def test_a_field_put_in_place_of_another_is_signed_as_ours(behind: Behind) -> None:
    theirs = b"List-Unsubscribe: <https://crm.example/1>,\r\n <mailto:x@crm.example>\r\n" + MESSAGE
    arrived = behind.send(stamped(theirs, replace=True))
    assert arrived.endswith(stamped())
    assert behind.verdict(arrived) == "good"
    assert covered(arrived)["list-unsubscribe"] == 2


@pytest.mark.parametrize("replace", [False, True])
def test_mail_that_is_signed_passes_us_with_its_signature_good(behind: Behind, signed: bytes, *, replace: bool) -> None:
    assert stamped(signed, replace=replace) == signed
    unstamped = behind.send(MESSAGE)  # by a signer in front of us: without a link of anybody
    assert stamped(unstamped, replace=replace) == unstamped
    assert behind.verdict(unstamped) == "good"


# ------------------------------------------------------------------ and without them

SECOND_ON_TOP: Final = b"List-Unsubscribe: <https://x.example>\r\n"


def test_opendkim_without_these_settings() -> None:
    with behind_us(opendkim("OversignHeaders From\n")) as behind:
        signed = behind.send(stamped())
        assert behind.verdict(signed) == "good"
        names = covered(signed)
        assert (names["list-unsubscribe"], names["list-id"]) == (1, 1)
        assert not {"list-unsubscribe-post", "feedback-id", "cfbl-address"} & set(names)
        assert behind.verdict(signed.replace(b"=One-Click", b"=Two-Clicks")) == "good"
        assert behind.verdict(SECOND_ON_TOP + signed) == "good"
        assert behind.verdict(MESSAGE) == "unsigned"


def test_a_fold_behind_the_colon_is_signed_wrong_in_simple() -> None:
    """Why we never fold there, and why docs/signing.md advises `relaxed` for what others fold."""
    folded = stamped().replace(b"List-Unsubscribe: <", b"List-Unsubscribe:\r\n <")
    with behind_us(opendkim(documented("opendkim"), "simple/simple")) as behind:
        assert behind.verdict(behind.send(folded)) == "bad"


@RSPAMD
def test_rspamd_without_these_settings() -> None:
    with behind_us(rspamd("")) as behind:
        signed = behind.send(stamped())
        assert behind.verdict(signed) == "good"
        names = covered(signed)
        assert (names["list-unsubscribe"], names["list-unsubscribe-post"], names["list-id"]) == (1, 1, 1)
        assert not {"feedback-id", "cfbl-address"} & set(names)
        assert behind.verdict(SECOND_ON_TOP + signed) == "good"
