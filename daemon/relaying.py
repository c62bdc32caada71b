"""The relay of a config, put together: its context, its listeners with their certificates and credentials, its stamps."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Sequence
from typing import Any, Final

from daemon import building, metrics, options, postfix, relay_events
from daemon.config import Config, ConfigError, Listener, Loaded, Problem, host_port, is_loopback
from daemon.dialling import Endpoint, client_context
from daemon.gate import Gate
from daemon.mail.headers import list_id_value
from daemon.mail.links import links_of
from daemon.opening import now
from daemon.options import Credential
from daemon.relay.access import Credentials, Policy
from daemon.relay.context import Context, NoRecord, Record
from daemon.relay.protocol import Door
from daemon.relay.server import Listening
from daemon.relay.stamping import Stamping
from daemon.relay.tls import TlsError, server_context, valid_until
from daemon.upstream import Lost, Pool
from daemon.witness import Witness
from storage.engine import Ledger, Unusable
from storage.refusals import Outcome

_ASK_AGAIN_SECONDS: Final = (1.0, 60.0)  # doubling from the first to the last


def context(
    loaded: Loaded, ledger: Ledger, gate: Gate, record: Record | None = None, witness: Witness | None = None
) -> Context | None:
    """What the relay of a config works with; None without an [upstream]. Raises ConfigError."""
    config = loaded.config
    if config.upstream is None:
        return None
    numbers = gate.numbers
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
        witness.saw if witness else None,
    )


def check(loaded: Loaded) -> None:
    """What only the files can tell: certificates, keys, passwords, secrets of webhooks. Raises ConfigError with all that is wrong."""
    problems: list[Problem] = []
    relay = (listening, pool) if loaded.config.upstream is not None else ()
    from daemon import hosting  # not at the top: a daemon without [web] goes without

    for build in (building.hooks, hosting.holders, *relay):
        try:
            build(loaded)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)


def pool(loaded: Loaded) -> Pool:
    """The connections to the upstream of a config, none of them open."""
    config = loaded.config
    upstream = config.upstream
    assert upstream is not None
    return Pool(
        [endpoint for _, endpoint in endpoints(loaded)],
        hostname=config.relay.hostname,
        timeout=upstream.timeout,
        connections=upstream.connections,
    )


def endpoints(loaded: Loaded) -> list[tuple[str, Endpoint]]:
    """(path of the section, server) of the upstream and those that stand in for it. Raises ConfigError."""
    upstream = loaded.config.upstream
    assert upstream is not None
    servers = [("upstream", upstream), *((f"upstream.fallback[{n}]", x) for n, x in enumerate(upstream.fallback))]
    return [(at, _endpoint(loaded, at, server)) for at, server in servers]


def _endpoint(loaded: Loaded, at: str, server: options.Endpoint) -> Endpoint:
    password = loaded.secret(server.password_file) if server.password_file else ""
    try:
        tls = None
        if server.tls != "none":
            tls = client_context(loaded.file(server.ca_file) if server.ca_file else None)
        return Endpoint(server.host, server.port, server.tls, tls, server.username, password)
    except ValueError as why:
        raise ConfigError([Problem(at, str(why))]) from None


async def ask_upstream(pool: Pool) -> None:
    """Ask the upstream until it answers once, so that EHLO offers what it has."""
    delay, last = _ASK_AGAIN_SECONDS
    while True:
        try:
            await pool.probe()
        except Lost as lost:
            relay_events.upstream_lost(lost.step, lost)
        else:
            return
        await asyncio.sleep(delay)
        delay = min(2 * delay, last)


def policy_context(config: Config, ledger: Ledger, gate: Gate, record: Record) -> postfix.Context:
    """What the policy service for Postfix works with."""

    def note(outcome: Outcome, list_id: str | None, credential: str, reason: int, n: int) -> None:
        metrics.policy_recipients.of(metrics.COUNTED_AS[outcome]).inc(n)
        record.note(outcome, gate.numbers.get(list_id or "", 0), credential, reason, n)

    relay = config.relay
    return postfix.Context(
        gate=gate,
        site_key=ledger.site_key,
        users={c.username: (c.list, c.purpose or relay.purpose) for c in relay.credential},
        lists=frozenset(x.id for x in config.list),
        observe=relay.mode == "observe",
        note=note,
        default_list=config.postfix.list or None,
    )


def stamping(config: Config, ledger: Ledger, numbers: dict[str, int]) -> Stamping | None:
    """What is written on messages; None if nothing is."""
    relay = config.relay
    if not relay.stamp:
        return None
    list_ids = {x.id: list_id_value(x.title, x.list_id) for x in config.list if x.list_id}
    cfbl = f"{relay.cfbl_address}; report=arf".encode("ascii") if relay.cfbl_address else b""
    links = links_of(config.house, config.mailbox, config.web.public_url)
    return Stamping(links, ledger.site_key, numbers, list_ids, relay.feedback_id, cfbl, relay.existing == "replace")


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
        until = valid_until(loaded.file(listener.cert_file or "")) if tls else None
        found.append(Listening(listener.address, door, tls if listener.tls == "implicit" else None, until))
    return found


def renewed(loaded: Loaded, old: Sequence[Listening]) -> list[Listening]:
    """As `listening`, in the place of those. A certificate that has expired does not take the place of one that has not.
    Raises ConfigError."""
    found, moment = listening(loaded), now()
    for listener, before, after in zip(loaded.config.relay.listeners(), old, found, strict=True):
        if before.until and after.until and after.until < moment < before.until:
            expired = f"cert_file {loaded.file(listener.cert_file or '')}: has expired on {after.until:%Y-%m-%d}"
            raise ConfigError([Problem("relay", f"{expired}; the one in use has not")])
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


def refuse_ourselves(config: Config, bound: list[str]) -> None:
    """An upstream that is one of our own listeners would be a loop. Raises Unusable."""
    assert config.upstream is not None
    for address in bound:
        host, port = host_port(address)
        for server in (config.upstream, *config.upstream.fallback):
            if port == server.port and (server.host == host or is_loopback(server.host)):
                where = f"{server.host}:{port}"
                raise Unusable(f"upstream: {where} is the relay's own listener; name the mail server behind it")
