"""Each step on the way into a mailbox: where it fails the line says at which, and what to do."""

from __future__ import annotations

import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from daemon.config import load
from daemon.doctor import examine
from daemon.doctor.rounds import probes_of
from tests.doctor.imap import imap, port_of
from tests.doctor.patient import Patient, failures
from tests.doctor.silence import silence
from tests.loopback import free_port
from tests.mailbox.support import mail
from tests.servers import Dovecot
from tests.upstream.certificates import Authority
from tests.webhooks.receiver import raw

HOST = "127.0.0.1"


def box(port: int, more: str = "", *, tls: str = "none", host: str = HOST) -> str:
    """A [[mailbox]] section."""
    return f"""
[[mailbox]]
name = "support"
host = "{host}"
port = {port}
tls = "{tls}"
username = "support"
password_file = "imap-password"
{more}
"""


@pytest.fixture
def at(patient: Patient) -> Patient:
    """With the right password."""
    patient.file("imap-password", "secret-support\n")
    return patient


def secured(dovecot: Dovecot, more: str = "") -> str:
    return box(dovecot.imaps_port, f'ca_file = "{dovecot.ca_file}"\n{more}', tls="implicit")


# ------------------------------------------------------------------ all well


@pytest.mark.dovecot
def test_a_mailbox_that_works(at: Patient, dovecot: Dovecot) -> None:
    dovecot.append("support", mail("ann@example.com", "hello"))
    lines = at.told("imap", secured(dovecot))
    assert failures(lines) == []
    assert lines[0] == (
        f"ok imap support: 127.0.0.1:{dovecot.imaps_port}: logged in as support (password), TLS (certificate for 1 more days),"
        " offers IDLE, MOVE, UIDPLUS"
    )
    assert "warn imap support: the certificate of" in lines[1]
    assert "ends in 1 day" in lines[1]
    assert "ok imap support: watches INBOX (1 message)" in lines
    assert "ok imap support: files into Opt-outs, which is made when it is needed (or by --probe)" in lines


@pytest.mark.dovecot
def test_nothing_is_marked_moved_or_made(at: Patient, dovecot: Dovecot) -> None:
    dovecot.append("support", mail("ann@example.com", "hello"))
    at.told("imap", secured(dovecot))
    with dovecot.connect("support") as client:
        assert not client.folder_exists("Opt-outs")
        client.select_folder("INBOX", readonly=True)
        assert client.search("UNSEEN") == [1]
        assert b"\\Recent" in client.fetch([1], ["FLAGS"])[1][b"FLAGS"]


@pytest.mark.dovecot
def test_with_probe_the_folder_is_made(at: Patient, dovecot: Dovecot) -> None:
    lines = at.told("imap", secured(dovecot), traces=True)
    assert "ok imap support: files into Opt-outs, which was made now" in lines
    with dovecot.connect("support") as client:
        assert client.folder_exists("Opt-outs")
    assert "ok imap support: files into Opt-outs, which is there" in at.told("imap", secured(dovecot))


# ------------------------------------------------------------------ each step


def only(lines: list[str]) -> str:
    """The one line, a failure."""
    (line,) = lines
    assert line.startswith("FAIL imap support: ")
    return line


def test_a_name_that_leads_nowhere(at: Patient) -> None:
    line = only(at.told("imap", box(143, host="imap.invalid", tls="implicit")))
    assert "imap.invalid:143: resolve: " in line
    assert line.endswith("try: getent hosts imap.invalid")


def test_a_port_at_which_nobody_is(at: Patient) -> None:
    port = free_port()
    line = only(at.told("imap", box(port)))
    assert f"127.0.0.1:{port}: connect: Connection refused -> nothing listens there" in line
    assert line.endswith(f"try: nc -vz 127.0.0.1 {port}")


@pytest.mark.parametrize(
    ("name", "days", "said", "advice"),
    [
        ("DNS:localhost", 2, "tls: IP address mismatch", "the host name that stands in the certificate"),
        ("IP:127.0.0.1", -1, "tls: certificate has expired", "renew the certificate of 127.0.0.1"),
    ],
)
def test_a_certificate_that_is_not_good(
    at: Patient, ca: Authority, name: str, days: int, said: str, advice: str
) -> None:
    context = ca.issue(name, days=days)

    def talk(connection: socket.socket) -> None:
        context.wrap_socket(connection, server_side=True).close()

    with raw(talk) as url:
        line = only(at.told("imap", box(port_of(url), f'ca_file = "{ca.ca_file}"', tls="implicit")))
    assert said in line
    assert advice in line


@pytest.mark.dovecot
def test_a_certificate_from_an_authority_nobody_knows(at: Patient, dovecot: Dovecot) -> None:
    line = only(at.told("imap", box(dovecot.imaps_port, tls="implicit")))
    assert "tls: self-signed certificate" in line
    assert "name its certificate in ca_file of [[mailbox]] support" in line


@pytest.mark.dovecot
def test_a_port_that_speaks_no_tls_at_first(at: Patient, dovecot: Dovecot) -> None:
    line = only(at.told("imap", box(dovecot.imap_port, tls="implicit")))
    assert ": tls: " in line
    assert 'tls = "starttls"' in line


@pytest.mark.dovecot
def test_a_wrong_password(at: Patient, dovecot: Dovecot) -> None:
    at.file("imap-password", "wrong-secret\n")
    line = only(at.told("imap", secured(dovecot)))
    assert ": login: [AUTHENTICATIONFAILED] Authentication failed. -> " in line
    assert "look at username, and at the secret in password_file" in line
    assert "wrong-secret" not in line


@pytest.mark.dovecot
def test_a_folder_that_is_not_there(at: Patient, dovecot: Dovecot) -> None:
    dovecot.append("support", mail("ann@example.com", "hello"), folder="Requests")
    lines = at.told("imap", secured(dovecot, 'folders = ["INBOX", "Request"]'))
    (failure,) = failures(lines)
    assert failure.startswith("FAIL imap support: select: folder 'Request': ")
    assert "name one that is there (it has Requests)" in failure
    assert "ok imap support: watches INBOX (0 messages)" in lines


def test_a_server_that_accepts_and_says_nothing(at: Patient) -> None:
    with silence() as port:
        began = time.monotonic()
        line = only(at.told("imap", box(port), seconds=1.5))
        assert time.monotonic() - began < 10
    assert f"login at 127.0.0.1:{port}: no answer within 2 s" in line
    assert "neither answers nor refuses" in line


def test_a_server_that_hangs_up(at: Patient) -> None:
    with raw(lambda connection: None) as url:
        line = only(at.told("imap", box(port_of(url))))
    assert ": connect: " in line


def test_what_the_server_says_of_people_is_masked(at: Patient) -> None:
    with raw(imap("IDLE", {"LOGIN": ["NO [AUTHENTICATIONFAILED] not for cem@customer.example"]})) as url:
        line = only(at.told("imap", box(port_of(url))))
    assert "not for <address>" in line


# ------------------------------------------------------------------ what a server lacks


def test_without_move_and_uidplus_nothing_can_be_filed(at: Patient) -> None:
    with raw(imap("IDLE")) as url:
        lines = at.told("imap", box(port_of(url)))
    assert failures(lines) == []
    assert lines[0].endswith("in clear, lacks MOVE, UIDPLUS")
    assert any("requests are honoured and stay" in x and 'processed_folder = ""' in x for x in lines)
    assert not [x for x in lines if "files into" in x]


def test_without_idle_it_is_asked_now_and_then(at: Patient) -> None:
    with raw(imap("MOVE")) as url:
        slow, quick = (at.told("imap", box(port_of(url), f"poll_seconds = {n}")) for n in (300, 60))
    assert any("a request is found up to 300 s late" in x for x in slow)
    assert not [x for x in quick if "late" in x]


def test_a_watched_folder_that_holds_everything(at: Patient) -> None:
    with raw(imap("MOVE IDLE", {"LIST": ['LIST (\\All) "/" INBOX']})) as url:
        lines = at.told("imap", box(port_of(url)))
    assert [x for x in lines if "folders: INBOX holds every message of the account" in x]


def test_a_folder_that_cannot_be_made(at: Patient) -> None:
    with raw(imap("MOVE IDLE", {"LIST": [], "CREATE": ["NO no permission"]})) as url:
        (failure,) = failures(at.told("imap", box(port_of(url)), traces=True))
    assert "'Opt-outs' cannot be made: " in failure
    assert "no permission" in failure


# ------------------------------------------------------------------ who is proven

OURS = '[house]\nauthserv_id = "mx1.quillpdf.example"'


@pytest.mark.dovecot
@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        ("mx1.quillpdf.example", "mx1.quillpdf.example", "ok imap support: 2 of the newest 2 messages bear results of mx1"),
        ("mx1.quillpdf.example", "mx.other.example", "warn imap support: none of the newest 2 messages bears Authentication"),
        ("mx1.quillpdf.example", "", "does your mail server check DMARC"),
        ("", "mx.other.example", "house.authserv_id is not set"),
        ("", "", ""),
    ],
)  # fmt: skip
def test_whose_results_the_newest_mail_bears(at: Patient, dovecot: Dovecot, ours: str, theirs: str, said: str) -> None:
    at.house = at.house.replace('name = "Quill PDF"', f'name = "Quill PDF"\nauthserv_id = "{ours}"')
    results = f"Authentication-Results: {theirs}; dmarc=pass\r\n".encode() if theirs else b""
    forged = b"Authentication-Results: forged.example; dmarc=pass\r\n" if theirs else b""
    for sender in ("ann@example.com", "bob@example.com"):
        dovecot.append("support", results + forged + mail(sender, "hello"))
    lines = at.told("imap", secured(dovecot))
    about = [x for x in lines if "results of" in x.lower() or "results" in x]
    assert len(about) == bool(said)
    assert not said or said in about[0]
    assert "forged" not in "".join(about)


def test_mail_that_is_yet_to_come_tells_of_a_wrong_clock(at: Patient) -> None:
    later = (datetime.now(UTC) + timedelta(hours=3)).strftime("%d-%b-%Y %H:%M:%S +0000")
    fetched = f'3 FETCH (UID 3 INTERNALDATE "{later}" BODY[HEADER.FIELDS (AUTHENTICATION-RESULTS)]<0> "")'
    with raw(imap("IDLE MOVE", {"UID SEARCH": ["SEARCH 3"], "UID FETCH": [fetched]})) as url:
        (warning,) = [x for x in at.told("imap", box(port_of(url))) if " clock: " in x]
    assert "mailbox support has mail that arrived at" in warning
    assert "which is yet to come" in warning


def test_a_secret_that_went_away_meanwhile(at: Patient, tmp_path: Path) -> None:
    with raw(imap("MOVE")) as url:
        config = at.house + box(port_of(url))
        loaded = load(at.file("optoutd.toml", config))
        (tmp_path / "imap-password").unlink()
        probes = [p for p in probes_of(loaded) if p[0].startswith("imap")]
        (found,) = examine(loaded, probes=probes)
    assert (found.state, found.part) == ("FAIL", "imap support")
    assert "imap-password: No such file or directory" in found.text
