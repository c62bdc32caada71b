"""The HTTP door of a config, put together: its context, its operators and programs.

A module of its own because of what it imports: web server, templates and API are a third of a second, which only a daemon
that has such a door spends at its start.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, get_args

from daemon import building, events
from daemon.config import ConfigError, Loaded, Problem
from daemon.gate import Gate
from daemon.opening import Unnumbered, lookup_of, now
from daemon.values import Right
from daemon.vitals import Vitals
from daemon.web.console.access import why_unusable
from daemon.web.context import Context, Holder, Inside
from daemon.web.server import Server
from storage.engine import Ledger


def server(loaded: Loaded, listen: str, context: Context) -> Server:
    """The door on one address, not started. If the config has operators whom it keeps out, that is told."""
    web = loaded.config.web
    wanted = web.admin_password_file or web.operator or web.token
    if listen == web.listen and wanted and context.inside is None:
        events.operators_shut_out(listen)
    return Server(listen, context)


def context(loaded: Loaded, ledger: Ledger, numbers: Mapping[str, int], vitals: Callable[[], Vitals] | None) -> Context:
    """What the HTTP door answers with. `vitals`: of a door with the operators' rooms; None: the world can reach it."""
    config = loaded.config
    if not all(x.id in numbers for x in config.list):
        numbers = Unnumbered()
    inside = None if vitals is None else _inside(loaded, ledger, numbers, vitals)
    web = config.web
    return Context(ledger, config.house, numbers, web.public_url, now, web.colour, web.trusted_proxies, inside=inside)


def _inside(loaded: Loaded, ledger: Ledger, numbers: Mapping[str, int], vitals: Callable[[], Vitals]) -> Inside:
    config, web = loaded.config, loaded.config.web
    operators, programs = holders(loaded)
    return Inside(
        open_gate=lambda: Gate(lookup_of(ledger), numbers),
        intake=building.intake_of(config, ledger, numbers),
        vitals=vitals,
        operators=operators,
        programs=programs,
        settings=tuple(_settings(config.model_dump(exclude_unset=True))),
        uploads=loaded.scratch,
        max_upload=web.max_upload,
        user_header=web.user_header,
        console_host=web.console_host,
        hooks=config.webhook,
        kept_days=config.retention.model_dump(),
        limits=building.limits(config),
    )


def holders(loaded: Loaded) -> tuple[dict[str, Holder], tuple[Holder, ...]]:
    """Who may come in: operators by name, and programs. Raises ConfigError for secrets that would let nobody in."""
    web, problems = loaded.config.web, list[Problem]()

    def holder(path: str, name: str, file: str, rights: Iterable[Right]) -> Holder:
        secret = loaded.secret(file) if file else ""
        if file and (why := why_unusable(secret)):
            problems.append(Problem(path, f"{loaded.file(file)}: {why}"))
        return Holder(name, secret, frozenset(rights))

    operators = [
        holder(f"web.operator[{n}].password_file", o.name, o.password_file, o.rights)
        for n, o in enumerate(web.operator)
    ]
    if web.admin_password_file:
        operators.append(holder("web.admin_password_file", "admin", web.admin_password_file, get_args(Right)))
    programs = [holder(f"web.token[{n}].token_file", t.name, t.token_file, t.rights) for n, t in enumerate(web.token)]
    if problems:
        raise ConfigError(problems)
    return {o.name: o for o in operators}, tuple(programs)


def _settings(tables: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, str]]:
    """(path, value) of each option that is given. No option has a secret in it: secrets are in files."""
    for name, value in tables.items():
        path = f"{at}.{name}".lstrip(".")
        if isinstance(value, Mapping):
            yield from _settings(value, path)
        elif isinstance(value, tuple | list) and any(isinstance(v, Mapping) for v in value):
            for number, table in enumerate(value):
                yield from _settings(table, f"{path}[{number}]")
        else:
            yield path, json.dumps(value, ensure_ascii=False)
