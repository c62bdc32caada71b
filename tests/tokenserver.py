"""A token server: gives access tokens over TLS (RFC 6749), and tells a mail server which are good (RFC 7662).

It knows nothing of ours: what a grant must look like is written down here a second time, from the RFCs.
"""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.certificates import certify
from tests.httpd import Quiet, listening
from tests.loopback import HOST

CLIENT, CLIENT_SECRET = "optoutd-at-the-desk", "Secret~of_the.client-0123456789abcdefghi"
REFRESH = "0.refresh-token-that-the-operator-gave-0123456789"
Form = dict[str, str]
Reply = tuple[int, dict[str, Any]]


@dataclass
class TokenServer:
    """`user`: whose mailbox its tokens open. `refuse`: what is answered instead of a token, if it is not None."""

    ca_file: Path
    user: str = "support"
    seconds: int | None = 3600
    rotates: bool = False
    refuse: Reply | None = None
    date: float | None = None  # what its clock shows, if not the time
    asked: list[Form] = field(default_factory=list)
    looked_up: int = 0
    good: dict[str, str] = field(default_factory=dict)  # access token -> user
    refresh_tokens: set[str] = field(default_factory=lambda: {REFRESH})
    account_key: rsa.RSAPrivateKey | None = None
    port: int = 0
    introspection_port: int = 0

    @property
    def url(self) -> str:
        """Where tokens are asked for."""
        return f"https://{HOST}:{self.port}/token"

    @property
    def introspection_url(self) -> str:
        """Where a mail server asks about them."""
        return f"http://{HOST}:{self.introspection_port}/introspect"

    def revoke(self) -> None:
        """No access token is good any more."""
        self.good.clear()

    def account_file(self, **other: object) -> str:
        """The JSON key of a service account that it knows."""
        self.account_key = self.account_key or rsa.generate_private_key(65537, 2048)
        pem = self.account_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        key = {
            "type": "service_account",
            "client_email": "reader@project.example",
            "private_key": pem.decode(),
            "private_key_id": "k1",
            "token_uri": self.url,
        }
        return json.dumps(key | other)

    # ---- answering

    def give(self, form: Form) -> Reply:
        """One request for a token."""
        self.asked.append(form)
        if self.refuse is not None:
            return self.refuse
        grant = form.get("grant_type", "")
        if grant == "urn:ietf:params:oauth:grant-type:jwt-bearer":
            return self._by_assertion(form)
        if form.get("client_id") != CLIENT or form.get("client_secret", CLIENT_SECRET) != CLIENT_SECRET:
            return 401, {
                "error": "invalid_client",
                "error_description": "AADSTS7000215: Invalid client secret provided.",
            }
        if grant == "client_credentials":
            return self._granted() if "client_secret" in form else (401, {"error": "invalid_client"})
        return self._by_refresh_token(form["refresh_token"])

    def _granted(self, **more: object) -> Reply:
        token = secrets.token_urlsafe(600)
        self.good[token] = self.user
        lasting = {} if self.seconds is None else {"expires_in": self.seconds}
        return 200, {"access_token": token, "token_type": "Bearer"} | lasting | more

    def _by_refresh_token(self, given: str) -> Reply:
        if given not in self.refresh_tokens:
            return 400, {"error": "invalid_grant", "error_description": "AADSTS700082: The refresh token has expired."}
        if not self.rotates:
            return self._granted()
        new = secrets.token_urlsafe(60)
        self.refresh_tokens = {new}  # the old one is worth nothing from now on
        return self._granted(refresh_token=new)

    def _by_assertion(self, form: Form) -> Reply:
        header, claims, signature = (_base64url(part) for part in form["assertion"].split("."))
        told = json.loads(claims)
        assert self.account_key is not None
        content = form["assertion"].rpartition(".")[0].encode()
        try:
            self.account_key.public_key().verify(signature, content, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return 400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
        right = json.loads(header) == {"alg": "RS256", "typ": "JWT", "kid": "k1"} and told["aud"] == self.url
        right = right and told["iss"] == "reader@project.example" and told["scope"] == "https://mail.google.com/"
        now = time.time() if self.date is None else self.date
        if not right or not told["iat"] - 60 <= now < told["exp"] <= told["iat"] + 3600:
            return 400, {"error": "invalid_grant", "error_description": "Invalid JWT: Check your iat and exp values."}
        if told["sub"] != self.user:
            return 401, {"error": "unauthorized_client", "error_description": "Client is unauthorized."}
        return self._granted()

    def look_up(self, token: str) -> Reply:
        """One question of a mail server."""
        self.looked_up += 1
        user = self.good.get(token)
        return 200, {"active": user is not None} | ({"username": user} if user else {})


def _base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _handler(of: TokenServer, answer: Callable[[Form], Reply]) -> type[BaseHTTPRequestHandler]:
    class Handler(Quiet, BaseHTTPRequestHandler):
        timeout = 20

        def do_POST(self) -> None:
            octets = self.rfile.read(int(self.headers["content-length"]))
            status, told = answer(dict(parse_qsl(octets.decode(), strict_parsing=True)))
            body = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string(of.date if timestamp is None else timestamp)

    return Handler


@contextmanager
def tokenserver(directory: Path) -> Iterator[TokenServer]:
    """One that listens, with a certificate of its own."""
    key, certificate = directory / "token.key", directory / "token.pem"
    certify(key, certificate)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    it = TokenServer(certificate)
    with (
        listening(_handler(it, it.give), tls=tls) as it.port,
        listening(_handler(it, lambda form: it.look_up(form["token"]))) as it.introspection_port,
    ):
        yield it
