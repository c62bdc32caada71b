"""A certificate and its key, judged as a client would: by a handshake in memory."""

from __future__ import annotations

import ssl
from pathlib import Path

from daemon.relay.tls import TlsError, server_context


def any_server() -> ssl.SSLContext:
    """For asking which certificate a door of ours shows: nothing is told to it, so nobody need be proven."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def trouble(cert_file: Path, key_file: Path, hostname: str) -> str:
    """Why a client that trusts its issuer, and calls the server by this name, would not take it; "" if it would."""
    try:
        server = server_context(cert_file, key_file)
    except TlsError as why:
        return str(why)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # our own certificate is trust enough: the issuer is not asked
    client.load_verify_locations(cert_file)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = client.wrap_bio(down, up, server_hostname=hostname), server.wrap_bio(up, down, server_side=True)
    for _ in range(4):  # each has its say twice, and it is over
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as why:
                return why.verify_message
            except ssl.SSLError as why:
                return str(why.reason or "no handshake").replace("_", " ").lower()
    return ""
