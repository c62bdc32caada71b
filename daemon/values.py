"""What the value of an option may be: addresses, places to listen on, networks, URLs, colours.

A kind is a type with a check; the check's ValueError is what the operator reads, behind the path of the option.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, Field

from storage.address import NotAnAddress, a_label, parse


def _domain(text: str) -> str:
    try:
        return a_label(text.lower())
    except NotAnAddress as problem:
        raise ValueError(f"{text!r}: {problem}") from None


def _address(text: str) -> str:
    try:
        return str(parse(text)) if text else ""
    except NotAnAddress as problem:
        raise ValueError(f"{text!r}: {problem}") from None


def _listen(text: str) -> str:
    host_port(text)
    return text


def _listen_or_not(text: str) -> str:
    return _listen(text) if text else text


def _listen_here(text: str) -> str:
    if text and not is_loopback(host_port(text)[0]):
        raise ValueError("this protocol knows no log-in, so only a loopback address is allowed")
    return text


def _public_url(url: str) -> str:
    """The https base of links: RFC 8058 3.1 wants https, and mail clients follow nothing else."""
    if url and not re.fullmatch(r"https://[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]{0,200})?", url):
        raise ValueError("must be an https URL without query, such as https://mail.example.com")
    return url.rstrip("/")


def _ascii(text: str) -> str:
    if not text.isascii():
        raise ValueError("must be ASCII: it stands in a header field that everybody reads")
    return text


def _sender_id(text: str) -> str:
    if text and not re.fullmatch(r"[A-Za-z0-9_-]{5,15}", text):
        raise ValueError("5 to 15 letters, digits, hyphens or underscores")
    return text


def _database(url: str) -> str:
    if url.startswith("postgresql:"):
        _postgresql(url)
    elif not re.match(r"sqlite:///.", url):
        raise ValueError(
            "must be sqlite:///FILE (three slashes and a relative path, or four and an absolute one) or postgresql://USER@HOST/NAME"
        )
    return url


def _postgresql(url: str) -> None:
    try:
        found = urlsplit(url)
        hosts = [h.rpartition(":")[0] or h for h in found.netloc.rpartition("@")[2].split(",")]
        given = dict(parse_qsl(found.query, strict_parsing=True)) if found.query else {}
    except ValueError:
        raise ValueError("must be postgresql://USER@HOST/NAME") from None
    if found.password is not None or "password" in given:
        raise ValueError(
            "a config is no place for a password: put it into a file, and name that in storage.password_file"
        )
    if len(found.path) < 2:
        raise ValueError("must name the database: postgresql://USER@HOST/NAME")
    here = all(not h or is_loopback(h.strip("[]")) for h in [*hosts, *given.get("host", "").split(",")] if h[:1] != "/")
    if not here and given.get("sslmode") not in ("verify-full", "verify-ca"):
        raise ValueError(
            "beyond loopback add ?sslmode=verify-full (and sslrootcert=FILE): addresses would cross the network in clear"
        )


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError as why:
        raise ValueError(f"{why} (an IP address, or a network such as 10.0.0.0/8)") from None
    return text


def _colour(text: str) -> str:
    if text and not re.fullmatch(r"#[0-9A-Fa-f]{6}", text):
        raise ValueError("must be # and six hex digits, such as #0b57a4")
    return text


def _header(text: str) -> str:
    if text and not re.fullmatch(r"[A-Za-z0-9-]{1,64}", text):
        raise ValueError("must be the name of a header field, such as X-Remote-User")
    return text.lower()


def _host(text: str) -> str:
    if text and not re.fullmatch(r"[A-Za-z0-9.-]{1,253}", text):
        raise ValueError("must be the name of a host, without a port, such as console.example.com")
    return text.lower().removesuffix(".")


def https_url(url: str) -> str:
    """A URL that secrets may be sent to. Raises ValueError."""
    try:
        found = urlsplit(url)
        fits = found.scheme == "https" or (found.scheme == "http" and is_loopback(found.hostname or ""))
        fits = fits and found.port != 0 and " " not in url
    except ValueError:
        fits = False
    if not fits or not found.hostname or found.username is not None or not url.isascii() or not url.isprintable():
        raise ValueError("must be an https URL (http for loopback hosts only) without a user name")
    return url


def _token_url(url: str) -> str:
    return https_url(url) if url else url


def at_odds(oauth2: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(option, sentence) of what is wrong between the options of [mailbox.oauth2]: tokens come from one source."""
    given = {name for name, value in oauth2.items() if value}
    of_server = ("token_url", "client_id", "client_secret_file", "refresh_token_file", "scope", "ca_file")
    if "token_command" in given:
        for name in (n for n in (*of_server, "service_account_file") if n in given):
            yield name, "of no use beside token_command, which gets the token in its own way"
    elif "service_account_file" in given:
        for name in ("client_id", "client_secret_file", "refresh_token_file"):
            if name in given:
                yield name, "of no use beside service_account_file, which has all that is needed"
    else:
        if "token_url" not in given:
            yield "token_url", "must be given, or else token_command or service_account_file"
        if "client_id" not in given:
            yield "client_id", "must be given"
        if not given & {"refresh_token_file", "client_secret_file"}:
            yield "refresh_token_file", "must be given, or else client_secret_file (of an application of its own)"


def as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Domain = Annotated[str, AfterValidator(_domain)]
Database = Annotated[str, AfterValidator(_database)]
EMail = Annotated[str, AfterValidator(_address)]
Listen = Annotated[str, AfterValidator(_listen)]
ListenOrNot = Annotated[str, AfterValidator(_listen_or_not)]
ListenHere = Annotated[str, AfterValidator(_listen_here)]
Text = Annotated[str, Field(min_length=1)]
PlainEMail = Annotated[str, AfterValidator(_address), AfterValidator(_ascii)]
PublicUrl = Annotated[str, AfterValidator(_public_url)]
Network = Annotated[str, AfterValidator(_network)]
Colour = Annotated[str, AfterValidator(_colour)]
HeaderName = Annotated[str, AfterValidator(_header)]
HostName = Annotated[str, AfterValidator(_host)]
HookUrl = Annotated[str, AfterValidator(https_url)]
TokenUrl = Annotated[str, AfterValidator(_token_url)]
SenderId = Annotated[str, AfterValidator(_sender_id)]
Right = Literal["check", "suppress", "lift", "export", "review", "import", "erase"]
HookEvent = Literal["opt-out", "complaint", "bounce", "operator", "lift"]
Mode = Literal["refuse", "strip", "observe"]
Purpose = Literal["marketing", "service"]
Tls = Literal["none", "starttls", "implicit"]
Port = Annotated[int, Field(ge=1, le=65535)]
ListId = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]
Language = Annotated[str, Field(pattern=r"^[a-z]{2}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


def host_port(text: str) -> tuple[str, int]:
    """`127.0.0.1:2525`, `[::1]:2525` or `localhost:0` -> (host, port). Raises ValueError."""
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\s\[\]]+):(\d{1,5})", text)
    if not found or int(found[2]) > 65535:
        raise ValueError(f'{text!r} is not HOST:PORT (for example "127.0.0.1:2525" or "[::1]:2525")')
    return found[1].strip("[]"), int(found[2])


def bound_to(address: Sequence[Any]) -> str:
    """A socket's name as HOST:PORT, which `host_port` reads back."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Can only this machine reach it? Names other than localhost are not resolved and count as reachable."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# Where who listens listens on every address, and where such a listener is reached from here.
EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with what a config says; nothing is bound here
CLEAR_TEXT: Final = '"none" is for loopback hosts only; use "implicit" or "starttls"'
FILED_IN_CIRCLES: Final = "processed_folder and machine_folder must not be among the watched folders"
ONE_WAY_IN: Final = "give either password_file or [mailbox.oauth2]"
