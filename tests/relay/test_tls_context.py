"""The relay's certificate and key: a context that is safe, or one sentence that says what is wrong with which file."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daemon.relay import tls
from daemon.relay.tls import TlsError, days_left, server_context
from tests import servers
from tests.certificates import certify
from tests.loopback import HOST

pytestmark = pytest.mark.skipif(servers.program("openssl") is None, reason="Debian package openssl is missing")

Pair = tuple[Path, Path]


def openssl(*arguments: str | Path) -> str:
    """What the command printed."""
    return subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    directory = tmp_path_factory.mktemp("tls")
    certify(directory / "key.pem", directory / "cert.pem")
    return directory / "cert.pem", directory / "key.pem"


@pytest.fixture
def pair(_made: Pair, tmp_path: Path) -> Pair:
    """(certificate, key) of this test's own, to be spoiled."""
    for file in _made:
        shutil.copy2(file, tmp_path)
    return tmp_path / "cert.pem", tmp_path / "key.pem"


# ------------------------------------------------------------------ a good pair


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """Both ends in memory; gives the client's. Raises what either end raises."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up, server_hostname="localhost"), server.wrap_bio(up, down, server_side=True)]
    done = set[int]()
    while len(done) < 2:
        for n in {0, 1} - done:
            try:
                ends[n].do_handshake()
                done.add(n)
            except ssl.SSLWantReadError:
                pass
    return ends[0]


def test_a_client_that_verifies_is_content(pair: Pair) -> None:
    client = ssl.create_default_context(cafile=str(pair[0]))
    client.set_alpn_protocols(["h2", "smtp"])
    line = handshake(server_context(*pair), client)
    assert line.version() == "TLSv1.3"
    assert line.compression() is None
    assert line.selected_alpn_protocol() is None


def test_tls_1_2_is_taken_with_forward_secrecy_only(pair: Pair) -> None:
    client = ssl.create_default_context(cafile=str(pair[0]))
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    line = handshake(server_context(*pair), client)
    cipher = line.cipher()
    assert line.version() == "TLSv1.2"
    assert cipher is not None
    assert cipher[0].startswith("ECDHE-")


def test_tls_1_1_is_not_taken(pair: Pair) -> None:
    client = ssl.create_default_context(cafile=str(pair[0]))
    client.set_ciphers("ALL:@SECLEVEL=0")  # or the client itself would not try
    with pytest.deprecated_call():
        client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
        handshake(server_context(*pair), client)


def test_a_key_and_certificate_may_stand_in_one_file(pair: Pair, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.touch(0o600)
    both.write_bytes(pair[1].read_bytes() + pair[0].read_bytes())
    handshake(server_context(both, both), ssl.create_default_context(cafile=str(pair[0])))


@pytest.fixture
def listening(pair: Pair) -> Iterator[int]:
    """The port of a server that takes one client, and reads until it is gone or misbehaves."""
    context = server_context(*pair)

    def serve() -> None:
        line, _ = listener.accept()
        try:
            with context.wrap_socket(line, server_side=True) as secured:
                while secured.recv(100):
                    pass
        except OSError:  # an ssl.SSLError is one too
            line.close()

    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(20)
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def test_a_client_cannot_renegotiate(listening: int) -> None:
    """Each costs us many times what it costs the client (CVE-2011-1473)."""
    command = ["openssl", "s_client", "-connect", f"{HOST}:{listening}", "-tls1_2"]
    said = subprocess.run(command, input="R\n", capture_output=True, text=True, timeout=20)
    assert "RENEGOTIATING" in said.stdout + said.stderr
    assert "no renegotiation" in said.stderr


# ------------------------------------------------------------------ what can be wrong


def problem(pair: Pair) -> str:
    """The sentence, which must be about one of these files."""
    with pytest.raises(TlsError) as raised:
        server_context(*pair)
    assert raised.value.__cause__ is None
    sentence = str(raised.value)
    assert "\n" not in sentence
    return sentence.replace(str(pair[0]), "CERT").replace(str(pair[1]), "KEY")


@pytest.mark.parametrize(("n", "named"), [(0, "cert_file CERT"), (1, "key_file KEY")])
def test_a_file_that_cannot_be_read(pair: Pair, n: int, named: str) -> None:
    pair[n].unlink()
    assert problem(pair) == f"{named}: No such file or directory"
    pair[n].mkdir()
    assert problem(pair) == f"{named}: Is a directory"


def test_files_given_the_wrong_way_round(pair: Pair) -> None:
    pair[0].chmod(0o600)
    certificate, key = pair
    assert problem((key, certificate)) == "cert_file CERT: has no certificate in PEM form"


@pytest.mark.parametrize("octets", [b"", b"\x30\x82\x01\x00", b"-----BEGIN CERTIFICATE-----\n"])
def test_a_file_that_is_not_pem(pair: Pair, octets: bytes) -> None:
    certificate = pair[0].read_bytes()
    pair[0].write_bytes(octets)
    assert problem(pair) == "cert_file CERT: has no certificate in PEM form"
    pair[0].write_bytes(certificate)
    pair[1].write_bytes(octets)
    assert problem(pair) == "key_file KEY: has no private key in PEM form"


def test_a_damaged_certificate(pair: Pair) -> None:
    lines = pair[0].read_text().splitlines()
    pair[0].write_text("\n".join([*lines[:2], *lines[3:]]))
    assert problem(pair) == "cert_file CERT: a certificate in it is damaged"


def test_a_damaged_intermediate_certificate(pair: Pair) -> None:
    whole = pair[0].read_text()
    lines = whole.splitlines()
    pair[0].write_text("\n".join([whole, *lines[:2], *lines[3:]]))
    assert problem(pair) == "cert_file CERT: a certificate in it is damaged"


def test_a_damaged_key(pair: Pair) -> None:
    lines = pair[1].read_text().splitlines()
    pair[1].write_text("\n".join([lines[0], lines[1][:40], lines[-1]]))
    assert problem(pair).startswith("key_file KEY: the private key in it is damaged or of an unknown kind (")


@pytest.mark.parametrize("kind", [["EC", "-pkeyopt", "ec_paramgen_curve:P-256"], ["RSA"]])
def test_a_key_of_another_certificate(pair: Pair, kind: list[str]) -> None:
    openssl("genpkey", "-quiet", "-algorithm", *kind, "-out", pair[1])
    assert problem(pair) == "key_file KEY: is not the key of the first certificate in CERT"


@pytest.mark.parametrize("traditional", [[], ["-traditional"]])
def test_a_key_with_a_passphrase_is_an_error_and_asks_nobody(pair: Pair, traditional: list[str]) -> None:
    plain = pair[1].rename(pair[1].with_name("plain.pem"))
    openssl("pkey", "-in", plain, "-aes128", "-passout", "pass:hunter2", *traditional, "-out", pair[1])
    assert problem(pair) == "key_file KEY: has a passphrase, which nobody is there to type"


def test_a_key_that_is_too_small(pair: Pair) -> None:
    openssl(
        *("req", "-x509", "-newkey", "rsa:1024", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
        *("-keyout", pair[1], "-out", pair[0]),
    )
    assert problem(pair) == "cert_file CERT: a key or signature in it is too weak (EE_KEY_TOO_SMALL)"


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o601])
def test_a_key_that_everybody_may_touch(pair: Pair, mode: int) -> None:
    pair[1].chmod(mode)
    assert problem(pair) == "key_file KEY: everybody on this machine can get at it; run: chmod o= KEY"


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o440, 0o640])
def test_a_key_that_a_group_may_read(pair: Pair, mode: int) -> None:
    """Debian's group ssl-cert; and systemd shows credentials as 0440."""
    pair[1].chmod(mode)
    assert server_context(*pair)


def test_files_that_a_renewal_takes_away_in_the_middle(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    check = tls._check_certificates

    def renewal(cert_file: Path) -> None:
        check(cert_file)
        cert_file.unlink()

    monkeypatch.setattr(tls, "_check_certificates", renewal)
    assert problem(pair) == "cert_file CERT, key_file KEY: No such file or directory"


# ------------------------------------------------------------------ when it ends


@pytest.mark.parametrize("days", [1, 90, 30_000])  # in 30,000 days it is after 2049, when years get four digits
def test_the_days_left_are_those_that_openssl_sees(pair: Pair, tmp_path: Path, days: int) -> None:
    openssl("req", "-x509", "-key", pair[1], "-days", str(days), "-subj", "/CN=localhost", "-out", pair[0])
    end = openssl("x509", "-in", pair[0], "-noout", "-enddate", "-dateopt", "iso_8601").strip()
    moment = datetime.strptime(end, "notAfter=%Y-%m-%d %H:%M:%SZ").replace(tzinfo=UTC)
    assert days_left(pair[0], moment - timedelta(days=days)) == days
    assert days_left(pair[0], moment - timedelta(seconds=1)) == 0
    assert days_left(pair[0], moment + timedelta(seconds=1)) == -1


def test_of_a_chain_the_first_certificate_counts(pair: Pair, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    openssl("req", "-x509", "-key", pair[1], "-days", "700", "-subj", "/CN=ca", "-out", other)
    now = datetime.now(UTC)
    both = pair[0].read_text(), other.read_text()
    other.write_text("".join(both))
    assert days_left(other, now) in (1, 2)
    other.write_text("".join(reversed(both)))
    assert days_left(other, now) in (699, 700)


def test_no_certificate_has_no_days(pair: Pair, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    assert days_left(pair[1], now) is None
    assert days_left(tmp_path / "missing.pem", now) is None


def test_octets_that_are_no_certificate_have_no_days(pair: Pair, tmp_path: Path) -> None:
    whole = ssl.PEM_cert_to_DER_cert(pair[0].read_text())
    file = tmp_path / "octets.pem"

    @example(b"")
    @example(whole[:100])
    @example(b"\x30\xff")
    @example(b"\x30\x80\x30\x80")
    @example(whole.replace(b"\x17\x0d", b"\x18\x0d"))  # a time of the other kind
    @example(whole.replace(b"\x17\x0d", b"\x04\x0d"))  # no time
    @given(st.binary(max_size=60) | st.integers(0, 99).map(lambda n: whole[:n]))
    def check(octets: bytes) -> None:
        file.write_text(ssl.DER_cert_to_PEM_cert(octets))
        assert days_left(file, datetime.now(UTC)) is None

    check()
