"""The parts of the daemon, made from the config: each gets its own section plus house and lists, and no more."""

from __future__ import annotations

from functools import partial

from daemon import notices, webhooks
from daemon.config import Config, ConfigError, House, Loaded, Mailbox, Problem
from daemon.intake import Intake
from daemon.mail.links import undo_link
from daemon.mail.reading import Reading
from daemon.mail.triage import read
from daemon.mailbox.session import Session, connect
from daemon.mailbox.watcher import Means, Watcher
from daemon.opening import now
from daemon.upstream import Pool
from storage.engine import Ledger


def watcher(loaded: Loaded, settings: Mailbox, ledger: Ledger, numbers: dict[str, int]) -> Watcher:
    """The watcher of one mailbox, not started."""
    config = loaded.config
    intake = intake_of(config, ledger, numbers)
    return Watcher(
        settings, Means(partial(_log_in, loaded, settings), partial(_read, config.house, ledger), intake, now)
    )


def intake_of(config: Config, ledger: Ledger, numbers: dict[str, int]) -> Intake:
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


def _log_in(loaded: Loaded, settings: Mailbox) -> Session:
    """The password is read at each log-in, so that a new one counts from the next on."""
    ca_file = loaded.file(settings.ca_file) if settings.ca_file else None
    return connect(settings, loaded.secret(settings.password_file), ca_file)


def _read(house: House, ledger: Ledger, raw: bytes) -> Reading:
    return read(raw, house, ledger.site_key)
