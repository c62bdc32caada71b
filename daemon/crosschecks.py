"""What is wrong between the options of a config, and with the files it names.

Pydantic would say so only once every option by itself is right; so this looks at the tables as they were read, and
takes nothing for granted. Each problem is the path of an option and a sentence.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from daemon.values import CLEAR_TEXT, FILED_IN_CIRCLES, ONE_WAY_IN, as_tuple, at_odds, host_port, is_loopback

Found = Iterator[tuple[str, str]]
Table = dict[str, Any]
_UNGUARDED: Final = 'beyond loopback a listener needs tls = "starttls" or "implicit", and auth'
_FILES: Final = (
    "password_file admin_password_file token_file secret_file ca_file cert_file key_file"
    " client_secret_file refresh_token_file service_account_file"
).split()
_SAME_AS: Final = "is one of our own listeners: name the mail server behind the relay"


def problems(data: Table, file: Callable[[str], Path]) -> Found:
    """All of them. `data`: the file as read, arrays as tuples; `file`: where a `..._file` option points."""
    yield from _given_twice(data)
    yield from _mailboxes(data)
    yield from _relay(data)
    yield from _upstreams(data)
    yield from _web(data)
    yield from _unknown_lists(data)
    yield from _missing_files(data, file)
    if isinstance(data.get("house"), dict) and "lists" in data["house"]:
        yield "house.lists", "unknown key"


def _table(data: Table, name: str) -> Table:
    """A table of the file, empty if it is none."""
    found = data.get(name)
    return found if isinstance(found, dict) else {}


def _tables(data: Table, name: str, at: str = "") -> Iterator[tuple[str, Table]]:
    """(path, table) of an array of tables, as far as it is one."""
    found = data.get(name)
    for n, table in enumerate(found if isinstance(found, tuple) else ()):
        if isinstance(table, dict):
            yield f"{at}{name}[{n}]", table


def _given_twice(data: Table) -> Found:
    for within, at, name, key in (
        (data, "", "list", "id"),
        (data, "", "mailbox", "name"),
        (_table(data, "relay"), "relay.", "credential", "username"),
        (_table(data, "web"), "web.", "operator", "name"),
        (_table(data, "web"), "web.", "token", "name"),
        (data, "", "webhook", "name"),
    ):
        given: list[object] = []
        for here, table in _tables(within, name, at):
            if table.get(key) in given:
                yield f"{here}.{key}", f"{table[key]!r} is given twice"
            given += [table[key]] if key in table else []


def _mailboxes(data: Table) -> Found:
    for at, box in _tables(data, "mailbox"):
        if box.get("tls") == "none" and isinstance(box.get("host"), str) and not is_loopback(box["host"]):
            yield f"{at}.tls", CLEAR_TEXT
        watched = as_tuple(box.get("folders", box.get("folder", "INBOX")))
        filed = box.get("processed_folder", "Opt-outs"), box.get("machine_folder", "")
        if isinstance(watched, tuple) and any(f in watched for f in filed):
            yield at, FILED_IN_CIRCLES
        if bool(box.get("password_file")) == ("oauth2" in box):
            yield f"{at}.password_file", ONE_WAY_IN
    for at, oauth2 in _tokens(data):
        for option, sentence in at_odds(oauth2):
            yield f"{at}.{option}", sentence


def _tokens(data: Table) -> Iterator[tuple[str, Table]]:
    for at, box in _tables(data, "mailbox"):
        if isinstance(box.get("oauth2"), dict):
            yield f"{at}.oauth2", box["oauth2"]


def _listeners(relay: Table) -> Iterator[tuple[str, str, Table]]:
    """(path of the address, address, options that apply) of each listener whose address can be read."""
    listen = as_tuple(relay.get("listen", () if relay.get("listener") else ("127.0.0.1:2525",)))
    short = isinstance(relay.get("listen"), str)
    found = [
        (f"relay.listen{'' if short else f'[{n}]'}", a, relay)
        for n, a in enumerate(listen if isinstance(listen, tuple) else ())
    ]
    found += [
        (f"{at}.address", table.get("address"), {**relay, **table})
        for at, table in _tables(relay, "listener", "relay.")
    ]
    for at, address, options in found:
        try:
            host_port(address)
        except (TypeError, ValueError):
            continue  # told where the address is read
        yield at, address, options


def _relay(data: Table) -> Found:
    """Never an open relay: what anybody can reach asks for a log-in, and asks for it under TLS."""
    relay = _table(data, "relay")
    credentials = bool(relay.get("credential"))
    for at, address, options in _listeners(relay):
        away = not is_loopback(host_port(address)[0])
        tls, auth = options.get("tls", "none"), options.get("auth", away or credentials)
        where = at.removesuffix(".address")
        if away and (tls == "none" or auth is False):
            yield at, _UNGUARDED
        elif auth is True and not credentials:
            yield at, "asks for a log-in, but there is no [[relay.credential]]"
        for option in ("cert_file", "key_file") if tls in ("starttls", "implicit") else ():
            if not options.get(option):
                yield (f"{where}.{option}" if where.startswith("relay.listener") else f"relay.{option}"), "TLS needs it"


def _upstreams(data: Table) -> Found:
    upstream = _table(data, "upstream")
    ours = [host_port(address) for _, address, _ in _listeners(_table(data, "relay"))]
    endpoints = [("upstream", upstream), *_tables(upstream, "fallback", "upstream.")] if "upstream" in data else []
    for at, endpoint in endpoints:
        host, port = endpoint.get("host", "127.0.0.1"), endpoint.get("port", 25)
        if isinstance(host, str) and endpoint.get("tls", "none") == "none" and not is_loopback(host):
            yield f"{at}.tls", CLEAR_TEXT
        if bool(endpoint.get("username")) != bool(endpoint.get("password_file")):
            yield f"{at}.username", "username and password_file belong together"
        if isinstance(host, str) and any(port == p and (host == h or is_loopback(host)) for h, p in ours):
            yield f"{at}.port", _SAME_AS


def _web(data: Table) -> Found:
    """Who may come in, and how they show who they are."""
    web = _table(data, "web")
    proxied = bool(web.get("user_header"))
    if proxied and not web.get("trusted_proxies"):
        yield "web.user_header", "needs trusted_proxies: anybody could send it otherwise"
    for at, operator in _tables(web, "operator", "web."):
        if not operator.get("password_file") and not proxied:
            yield f"{at}.password_file", "without it, and without web.user_header, nobody can log in by this name"
        if operator.get("name") == "admin" and web.get("admin_password_file"):
            yield f"{at}.name", "admin is the operator of web.admin_password_file"


def _unknown_lists(data: Table) -> Found:
    known = {table.get("id") for _, table in _tables(data, "list")}
    relay = _table(data, "relay")
    named = [*_tables(relay, "listener", "relay."), *_tables(relay, "credential", "relay.")]
    for at, table in [*named, ("postfix", _table(data, "postfix"))]:
        list_id = table.get("list")
        if isinstance(list_id, str) and list_id and list_id not in known:
            yield f"{at}.list", f"there is no [[list]] with the id {list_id!r}"


def _missing_files(data: Table, file: Callable[[str], Path]) -> Found:
    """Secret and CA files that cannot be read: better told now than at the first connection."""
    relay, upstream, web = _table(data, "relay"), _table(data, "upstream"), _table(data, "web")
    for at, table in (
        *_tables(data, "mailbox"),
        *_tokens(data),
        ("relay", relay),
        *_tables(relay, "listener", "relay."),
        *_tables(relay, "credential", "relay."),
        ("upstream", upstream),
        *_tables(upstream, "fallback", "upstream."),
        ("web", web),
        *_tables(web, "operator", "web."),
        *_tables(web, "token", "web."),
        *_tables(data, "webhook"),
    ):
        for option in _FILES:
            name = table.get(option)
            if isinstance(name, str) and name and not os.access(file(name), os.R_OK):
                why = "we have no right to" if file(name).exists() else "there is no such file"
                yield f"{at}.{option}", f"cannot read {file(name)}: {why}"
