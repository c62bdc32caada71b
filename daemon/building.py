"""The parts of the daemon, made from the config: each gets its own section plus house and lists, and no more."""

from __future__ import annotations

from functools import partial

from daemon import notices
from daemon.config import Config, House, Loaded, Mailbox
from daemon.intake import Intake
from daemon.mail.links import undo_link
from daemon.mail.reading import Reading
from daemon.mail.triage import read
from daemon.mailbox.session import Session, connect
from daemon.mailbox.watcher import Means, Watcher
from daemon.opening import now
from daemon.upstream import Pool
from daemon.web.context import Context as WebContext
from storage.engine import Ledger


def watcher(loaded: Loaded, settings: Mailbox, ledger: Ledger, numbers: dict[str, int]) -> Watcher:
    """The watcher of one mailbox, not started."""
    config = loaded.config
    intake = Intake(ledger, config.house, numbers, config.bounce, config.intake, notices=writes_to_people(config))
    return Watcher(
        settings, Means(partial(_log_in, loaded, settings), partial(_read, config.house, ledger), intake, now)
    )


def writes_to_people(config: Config) -> bool:
    """Are notices wanted, and is there something to send them with and from?"""
    sender = notices.sender_of(config.notices.sender, config.house)
    return config.notices.confirm and config.upstream is not None and bool(sender)


def post(config: Config, ledger: Ledger, pool: Pool) -> notices.Post:
    """What sends our own mail."""
    sender = notices.sender_of(config.notices.sender, config.house)
    link = partial(undo_link, config.web.public_url, next(iter(config.house.addresses), sender))
    return notices.Post(ledger, config.house, sender, pool, link, now)


def web_context(config: Config, ledger: Ledger, numbers: dict[str, int]) -> WebContext:
    """What the HTTP door answers with."""
    web = config.web
    return WebContext(ledger, config.house, numbers, web.public_url, now, web.colour, web.trusted_proxies)


def _log_in(loaded: Loaded, settings: Mailbox) -> Session:
    """The password is read at each log-in, so that a new one counts from the next on."""
    ca_file = loaded.file(settings.ca_file) if settings.ca_file else None
    return connect(settings, loaded.secret(settings.password_file), ca_file)


def _read(house: House, ledger: Ledger, raw: bytes) -> Reading:
    return read(raw, house, ledger.site_key)
