"""The parts of the daemon, made from the config: each gets its own section plus house and lists, and no more."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, get_args

from daemon import notices, webhooks
from daemon.config import Config, ConfigError, House, Loaded, Mailbox, Problem
from daemon.gate import Gate
from daemon.intake import Intake
from daemon.mail.links import undo_link
from daemon.mail.reading import Reading
from daemon.mail.triage import read
from daemon.mailbox.session import Session, connect
from daemon.mailbox.watcher import Means, Watcher
from daemon.opening import Unnumbered, lookup_of, now
from daemon.upstream import Pool
from daemon.values import Right
from daemon.vitals import Vitals
from daemon.web.console.access import why_unusable
from daemon.web.context import Context as WebContext
from daemon.web.context import Holder, Inside
from storage.engine import Ledger


def watcher(loaded: Loaded, settings: Mailbox, ledger: Ledger, numbers: dict[str, int]) -> Watcher:
    """The watcher of one mailbox, not started."""
    config = loaded.config
    intake = intake_of(config, ledger, numbers)
    return Watcher(
        settings, Means(partial(_log_in, loaded, settings), partial(_read, config.house, ledger), intake, now)
    )


def intake_of(config: Config, ledger: Ledger, numbers: Mapping[str, int]) -> Intake:
    """The desk that acts on readings, and on what people decide."""
    return Intake(ledger, config.house, numbers, config.bounce, config.intake, notices=writes_to_people(config))


def writes_to_people(config: Config) -> bool:
    """Are notices wanted, and is there something to send them with and from?"""
    sender = notices.sender_of(config.notices.sender, config.house)
    return config.notices.confirm and config.upstream is not None and bool(sender)


def post(config: Config, ledger: Ledger, pool: Pool) -> notices.Post:
    """What sends our own mail."""
    sender = notices.sender_of(config.notices.sender, config.house)
    link = partial(undo_link, config.web.public_url, next(iter(config.house.addresses), sender))
    return notices.Post(ledger, config.house, sender, pool, link, now)


def hooks(loaded: Loaded) -> tuple[webhooks.Hook, ...]:
    """The programs that are told of changes. Raises ConfigError for a secret that cannot be used."""
    found, problems = [], []
    for n, section in enumerate(loaded.config.webhook):
        try:
            keys = webhooks.keys_in(loaded.secret(section.secret_file))
        except webhooks.WrongSecret as why:
            problems.append(Problem(f"webhook[{n}].secret_file", str(why)))
            continue
        ca_file = loaded.file(section.ca_file) if section.ca_file else None
        found.append(webhooks.Hook(section.name, section.url, keys, frozenset(section.events), ca_file))
    if problems:
        raise ConfigError(problems)
    return tuple(found)


def web_context(
    loaded: Loaded, ledger: Ledger, numbers: Mapping[str, int], vitals: Callable[[], Vitals] | None
) -> WebContext:
    """What the HTTP door answers with. `vitals`: of a door with the operators' rooms; None: the world can reach it."""
    config = loaded.config
    if not all(x.id in numbers for x in config.list):
        numbers = Unnumbered()
    inside = None if vitals is None else _inside(loaded, ledger, numbers, vitals)
    web = config.web
    return WebContext(
        ledger, config.house, numbers, web.public_url, now, web.colour, web.trusted_proxies, inside=inside
    )


def _inside(loaded: Loaded, ledger: Ledger, numbers: Mapping[str, int], vitals: Callable[[], Vitals]) -> Inside:
    config, web = loaded.config, loaded.config.web
    operators, programs = holders(loaded)
    return Inside(
        open_gate=lambda: Gate(lookup_of(ledger), numbers),
        intake=intake_of(config, ledger, numbers),
        vitals=vitals,
        operators=operators,
        programs=programs,
        settings=tuple(_settings(config.model_dump(exclude_unset=True))),
        uploads=loaded.scratch,
        max_upload=web.max_upload,
        user_header=web.user_header,
        hooks=config.webhook,
        kept_days=config.retention.model_dump(),
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


def _log_in(loaded: Loaded, settings: Mailbox) -> Session:
    """The password is read at each log-in, so that a new one counts from the next on."""
    ca_file = loaded.file(settings.ca_file) if settings.ca_file else None
    return connect(settings, loaded.secret(settings.password_file), ca_file)


def _read(house: House, ledger: Ledger, raw: bytes) -> Reading:
    return read(raw, house, ledger.site_key)
