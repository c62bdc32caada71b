"""The relay of a config, put together: its context, its listeners with their certificates and credentials, its stamps."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any

from daemon.config import Config, ConfigError, Listener, Loaded, Problem, host_port, is_loopback
from daemon.gate import Gate
from daemon.mail.headers import list_id_value
from daemon.mail.links import Links
from daemon.opening import now
from daemon.options import Credential
from daemon.relay.access import Credentials, Policy
from daemon.relay.context import Context, NoRecord, Record
from daemon.relay.protocol import Door
from daemon.relay.server import Listening
from daemon.relay.stamping import Stamping
from daemon.relay.tls import TlsError, server_context
from daemon.upstream import Pool
from storage.engine import Ledger
from storage.lookup import Lookup


def context(loaded: Loaded, ledger: Ledger, numbers: dict[str, int], record: Record | None = None) -> Context | None:
    """What the relay of a config works with; None without an [upstream]. Raises ConfigError."""
    config = loaded.config
    if config.upstream is None:
        return None
    gate = Gate(Lookup(ledger.path, ledger.site_key), numbers)
    lists = {x.list_id.lower(): x.id for x in config.list if x.list_id}
    return Context(
        config.relay,
        gate,
        pool(loaded),
        ledger.site_key,
        lists,
        numbers,
        now,
        ledger.same_person,
        stamping(config, ledger, numbers),
        record or NoRecord(),
    )


def pool(loaded: Loaded) -> Pool:
    """The connections to the upstream of a config, none of them open."""
    config = loaded.config
    upstream = config.upstream
    assert upstream is not None
    return Pool(
        upstream.host,
        upstream.port,
        hostname=config.relay.hostname,
        timeout=upstream.timeout,
        connections=upstream.connections,
    )


def links(config: Config) -> Links:
    """How this house's unsubscribe links look."""
    address = next(iter(config.house.addresses), "")
    return Links(address, any(box.subaddress == "+" for box in config.mailbox), config.web.public_url)


def stamping(config: Config, ledger: Ledger, numbers: dict[str, int]) -> Stamping | None:
    """What is written on messages; None if nothing is."""
    relay = config.relay
    if not relay.stamp:
        return None
    list_ids = {x.id: list_id_value(x.title, x.list_id) for x in config.list if x.list_id}
    cfbl = f"{relay.cfbl_address}; report=arf".encode("ascii") if relay.cfbl_address else b""
    return Stamping(
        links(config), ledger.site_key, numbers, list_ids, relay.feedback_id, cfbl, relay.existing == "replace"
    )


def listening(loaded: Loaded) -> list[Listening]:
    """The listeners of a config: certificates and passwords are read now. Raises ConfigError."""
    relay = loaded.config.relay
    passwords = {c.username: _password(loaded, n, c) for n, c in enumerate(relay.credential)}
    certificates: dict[tuple[str, str], ssl.SSLContext] = {}
    found = []
    for listener in relay.listeners():
        tls = None
        if listener.tls != "none":
            names = (listener.cert_file or "", listener.key_file or "")
            tls = certificates.get(names) or _certificate(loaded, *names)
            certificates[names] = tls
        door = Door(
            policy=_policy(listener, None),
            tls=tls if listener.tls == "starttls" else None,
            required=bool(listener.auth),
            credentials=_credentials(listener, relay.credential, passwords),
            loopback=is_loopback(host_port(listener.address)[0]),
        )
        found.append(Listening(listener.address, door, tls if listener.tls == "implicit" else None))
    return found


def _password(loaded: Loaded, number: int, credential: Credential) -> str:
    password = loaded.secret(credential.password_file)
    if not password:
        raise ConfigError([Problem(f"relay.credential[{number}].password_file", "the password is empty")])
    return password


def _certificate(loaded: Loaded, cert_file: str, key_file: str) -> ssl.SSLContext:
    try:
        return server_context(loaded.file(cert_file), loaded.file(key_file))
    except TlsError as why:
        raise ConfigError([Problem("relay", str(why))]) from None


def _credentials(listener: Listener, known: Iterable[Credential], passwords: dict[str, str]) -> Credentials:
    try:
        return Credentials({c.username: (passwords[c.username], _policy(listener, c)) for c in known})
    except ValueError as why:
        raise ConfigError([Problem("relay.credential", str(why))]) from None


def _policy(listener: Listener, credential: Credential | None) -> Policy:
    """The listener's rules, narrowed by the credential's own."""
    given: dict[str, Any] = {name: getattr(listener, name) for name in ("mode", "list", "purpose", "senders")}
    if credential is not None:
        given |= {name: own for name in given if (own := getattr(credential, name)) is not None}
    username = credential.username if credential else ""
    return Policy(given["mode"], given["list"], given["purpose"], given["senders"], username)
