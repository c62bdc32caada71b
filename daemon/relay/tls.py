"""The relay's own certificate: an SSL context for its listeners, and how long the certificate lasts."""

from __future__ import annotations

import os
import re
import ssl
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

_MAX_FILE: Final = 1_048_576  # octets; a chain has some thousand
_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")
_KEY: Final = re.compile(rb"-----BEGIN (?:[A-Z]{1,10} ){0,2}PRIVATE KEY-----")
_VERSION: Final = 0xA0  # the DER tag of a field that an old certificate does not have


class TlsError(Exception):
    """Certificate and key cannot be used. The message is one sentence for the operator: which file, and what is wrong."""


class _Encrypted(Exception):
    """The key asks for a passphrase."""


def server_context(cert_file: Path, key_file: Path) -> ssl.SSLContext:
    """A context with this chain (PEM, ours first) and key (PEM). Raises TlsError.

    TLS 1.2 and later. The ciphers are the interpreter's own: forward secrecy and AEAD first, nothing with SHA-1, kept
    up to date with it; a list of ours would only grow old. No ALPN: SMTP has no protocol name that clients offer.
    """
    certificate, _ = _read("cert_file", cert_file)
    key, mode = _read("key_file", key_file)
    if mode & stat.S_IRWXO:  # a group may read it: Debian has ssl-cert for that, and systemd shows credentials as 0440
        raise TlsError(f"key_file {key_file}: everybody on this machine can get at it; run: chmod o= {key_file}")
    if not _CERTIFICATE.search(certificate):
        raise TlsError(f"cert_file {cert_file}: has no certificate in PEM form")
    if not _KEY.search(key):
        raise TlsError(f"key_file {key_file}: has no private key in PEM form")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION  # OpenSSL 1.1.1 would let a client renegotiate
    _load(context, cert_file, key_file)
    return context


def days_left(cert_file: Path, now: datetime) -> int | None:
    """Whole days until the first certificate of the file ends; below 0: it has. None: there is none to be read."""
    until = valid_until(cert_file)
    return None if until is None else (until - now).days


def valid_until(cert_file: Path) -> datetime | None:
    """When the first certificate of the file ends. None: there is none to be read."""
    certificate = first(cert_file)
    try:
        return _not_after(certificate) if certificate else None
    except (ValueError, IndexError, StopIteration):
        return None


def first(cert_file: Path) -> bytes | None:
    """The first certificate of a PEM file, in DER. None: there is none to be read."""
    try:
        found = _CERTIFICATE.search(_read("cert_file", cert_file)[0])
        return ssl.PEM_cert_to_DER_cert(found[0].decode()) if found else None
    except (TlsError, ValueError):
        return None


def _read(option: str, path: Path) -> tuple[bytes, int]:
    """The octets of a file, and its mode."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE), os.fstat(file.fileno()).st_mode
    except OSError as why:
        raise TlsError(f"{option} {path}: {why.strerror}") from None


def _load(context: ssl.SSLContext, cert_file: Path, key_file: Path) -> None:
    """load_cert_chain, with its errors in words: its own name no file, and a key with a passphrase asks the terminal."""

    def ask() -> NoReturn:
        raise _Encrypted

    try:
        _check_certificates(cert_file)
        context.load_cert_chain(cert_file, key_file, ask)
    except _Encrypted:
        raise TlsError(f"key_file {key_file}: has a passphrase, which nobody is there to type") from None
    except ssl.SSLError as why:
        raise TlsError(_in_words(why.reason, cert_file, key_file)) from None
    except OSError as why:  # OpenSSL opens them again, and a renewal may just be putting others in their place
        raise TlsError(f"cert_file {cert_file}, key_file {key_file}: {why.strerror}") from None


def _check_certificates(cert_file: Path) -> None:
    """By a context that is thrown away: load_cert_chain gives the same error for a damaged certificate and a damaged key."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cert_file)
    except ssl.SSLError:
        raise TlsError(f"cert_file {cert_file}: a certificate in it is damaged") from None


def _in_words(reason: str | None, cert_file: Path, key_file: Path) -> str:
    match reason:
        case "KEY_VALUES_MISMATCH" | "KEY_TYPE_MISMATCH" | "NO_CERTIFICATE_ASSIGNED":  # the last: RSA with an EC key
            return f"key_file {key_file}: is not the key of the first certificate in {cert_file}"
        case "EE_KEY_TOO_SMALL" | "CA_KEY_TOO_SMALL" | "CA_MD_TOO_WEAK":
            return f"cert_file {cert_file}: a key or signature in it is too weak ({reason})"
        case _:
            return f"key_file {key_file}: the private key in it is damaged or of an unknown kind ({reason})"


# ------------------------------------------------------------------ the date in a certificate


def _not_after(der: bytes) -> datetime:
    """RFC 5280 4.1: the fourth field of a TBSCertificate is its validity; the standard library reads none but a peer's.

    Raises ValueError, IndexError or StopIteration for what is no certificate.
    """
    _, certificate = next(_elements(der))
    _, signed = next(_elements(certificate))
    fields = [content for tag, content in _elements(signed) if tag != _VERSION]
    tag, octets = list(_elements(fields[3]))[1]
    text = octets.decode("ascii")
    match tag, len(text):  # strptime would find a date in 13 characters where 15 must be
        case (0x17, 13):  # UTCTime, two digits of a year: 4.1.2.5.1
            text = ("20" if text < "50" else "19") + text
        case (0x18, 15):  # GeneralizedTime
            pass
        case _:
            raise ValueError("no time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, content) of each DER element. Raises IndexError where one is cut."""
    at = 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length & 0x80:  # the long form: how many octets the length has
            size = length & 0x7F
            length, at = int.from_bytes(der[at : at + size], "big"), at + size
        yield tag, der[at : at + length]
        at += length
