"""How a token server is asked for an access token, and what it answers: RFC 6749, and RFC 7523 for service accounts.

The client's secret goes in the body (client_secret_post): Google and Microsoft both want it there. Nothing that is sent
is ever shown; of what comes back only `error` and `error_description` are, less what looks like a secret.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlencode

from daemon.mailbox import advising
from daemon.mailbox.command import usable
from daemon.mailbox.failing import Failed
from daemon.posting import Line, NoAnswer, Response
from daemon.values import https_url

SECONDS: Final = 15.0  # for the whole of it
GOOGLE: Final = "https://oauth2.googleapis.com/token"
_GOOGLE_SCOPE: Final = "https://mail.google.com/"
_ASSERTION_SECONDS: Final = 600
_SKEW: Final = 60.0  # s: a clock that is more wrong than that may be the cause
_NO_SIGNER: Final = (
    "a service account's requests are signed, which needs the package cryptography: pip install 'optoutd[google]'"
)


@dataclass(frozen=True, slots=True)
class Granted:
    """`seconds`: how long the token is good for, as the server says; None if it does not say."""

    token: str
    seconds: float | None
    refresh_token: str = ""  # a new one, in place of the one that was used


@dataclass(frozen=True, slots=True)
class Account:
    """A Google service account, from its JSON key."""

    email: str
    key: str
    key_id: str
    token_url: str


def account(text: str) -> Account:
    """The content of a service_account_file. Raises Failed("token")."""
    try:
        found = json.loads(text)
        fields = [found[n] for n in ("client_email", "private_key", "private_key_id")]
        url = https_url(found.get("token_uri") or GOOGLE)
        if not all(isinstance(f, str) and f for f in fields):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        advice = "service_account_file must be the JSON key that Google Cloud made for the service account"
        raise Failed("token", "service_account_file is not a service account's key", advice=advice) from None
    return Account(fields[0], fields[1], fields[2], url)


def assertion(of: Account, login: str, scope: str, url: str, now: float) -> dict[str, str]:
    """The form that asks for a token to `login`'s mailbox, signed with RS256. Raises Failed("token")."""
    header = {"alg": "RS256", "typ": "JWT", "kid": of.key_id}
    claims = {
        "iss": of.email,
        "sub": login,
        "scope": scope or _GOOGLE_SCOPE,
        "aud": url,
        "iat": int(now),
        "exp": int(now) + _ASSERTION_SECONDS,
    }
    content = b".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
    signed = content + b"." + _base64url(_rs256(of.key, content))
    return {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": signed.decode("ascii")}


def _base64url(octets: bytes) -> bytes:
    return base64.urlsafe_b64encode(octets).rstrip(b"=")


def _rs256(key: str, content: bytes) -> bytes:
    try:
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import padding, rsa
    except ImportError:
        raise Failed("token", _NO_SIGNER, advice=_NO_SIGNER) from None
    try:
        private = serialization.load_pem_private_key(key.encode(), password=None)
    except (ValueError, TypeError):
        private = None
    if not isinstance(private, rsa.RSAPrivateKey):
        raise Failed("token", "private_key in service_account_file is not an RSA key")
    return private.sign(content, padding.PKCS1v15(), hashes.SHA256())


def ask(line: Line, form: Mapping[str, str], *, asserted: bool = False) -> Granted:
    """One request of the token server. Raises Failed("token")."""
    fields = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    body = urlencode({name: value for name, value in form.items() if value}).encode()
    try:
        response = line.send(body, fields, SECONDS, SECONDS)
    except NoAnswer as why:
        raise Failed("token", f"token server: {why}", advice=_unreached(str(why))) from None
    finally:
        line.close()  # the next request is in an hour
    if 300 <= response.status < 400:
        raise Failed(
            "token", f"HTTP {response.status}: the token server redirects", advice="token_url must name the last place"
        )
    said = _object(response)
    if response.status != 200 or "access_token" not in said:
        raise _refused(response, said, form, asserted)
    return _granted(said)


def _unreached(why: str) -> str:
    if "certificate" in why:
        return "the token server's certificate does not verify: name it as its certificate does, or give oauth2.ca_file"
    return advising.of(why) or "look at token_url, and at firewalls on the way"


def _object(response: Response) -> dict[str, Any]:
    """The JSON object of a response; one that has none is as good as empty."""
    try:
        found = json.loads(response.body) if response.whole else None
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}


def _granted(said: dict[str, Any]) -> Granted:
    token, kind, new = said["access_token"], said.get("token_type", "Bearer"), said.get("refresh_token") or ""
    if not isinstance(token, str) or not usable(token) or not isinstance(kind, str) or kind.lower() != "bearer":
        raise Failed("token", "the token server gives something that is no bearer token")
    return Granted(token, _seconds(said.get("expires_in")), new if isinstance(new, str) else "")


def _seconds(given: object) -> float | None:
    """Microsoft's older servers send a number in quotes."""
    text = str(given)
    return float(text) if re.fullmatch(r"\d{1,9}", text) else None


def _refused(response: Response, said: dict[str, Any], form: Mapping[str, str], asserted: bool) -> Failed:
    error, description = said.get("error"), said.get("error_description")
    error = error if isinstance(error, str) and re.fullmatch(r"[\w.-]{1,64}", error) else ""
    description = description if isinstance(description, str) else ""
    for secret in filter(None, map(form.get, ("client_secret", "refresh_token", "assertion"))):
        description = description.replace(secret, "<...>")
    if not error:
        advice = (
            "is token_url the address that gives tokens?"
            if 400 <= response.status < 500 or response.status == 200
            else ""
        )
        return Failed("token", f"HTTP {response.status}: the token server gives no token", advice=advice)
    advice = advising.of_token(error, description, asserted=asserted)
    if asserted and error == "invalid_grant" and (wrong := _clock_wrong(response.date)):
        advice = f"this machine's clock is {wrong}: set it right (timedatectl set-ntp true)"
    return Failed("token", f"{error}: {shown(description)}" if description else error, refused=True, advice=advice)


def _clock_wrong(date: str) -> str:
    """How far our clock is off that of the server, in words; "" if it is not, or the server does not tell."""
    try:
        theirs = parsedate_to_datetime(date)
    except ValueError:
        return ""
    ahead = time.time() - (theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC)).timestamp()
    return f"{abs(ahead):.0f} seconds {'ahead' if ahead > 0 else 'behind'}" if abs(ahead) > _SKEW else ""


def shown(text: str) -> str:
    """A server's words for the log: without what may be a secret, and without Microsoft's numbers of the request."""
    words = re.split(r"\s(?:Trace|Correlation) ID:", text[:2000])[0]
    return " ".join(re.sub(r"[\w+=.~-]{40,}", "<...>", words).split())[:250]
