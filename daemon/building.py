"""The parts of the daemon, made from the config: each gets its own section plus house and lists, and no more."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Final, get_args

from daemon import events, notices, webhooks
from daemon.config import Config, ConfigError, House, Loaded, Mailbox, Problem
from daemon.duty.alarm import Limits
from daemon.duty.letters import Envelope
from daemon.duty.rounds import Rounds
from daemon.duty.watching import Surroundings, Watch
from daemon.gate import Answer, Gate, Unknown
from daemon.intake import Intake
from daemon.mail.links import undo_link
from daemon.mail.reading import Reading
from daemon.mail.triage import read
from daemon.mailbox.means import Means
from daemon.mailbox.watcher import Watcher
from daemon.mailboxes import log_in, tokens_of
from daemon.nodes import Duties
from daemon.opening import now
from daemon.options import Duty
from daemon.relay import tls
from daemon.upstream import Pool
from storage.address import Address
from storage.engine import Ledger

DAYS: Final = get_args(Duty.model_fields["digest"].annotation)[:7]
_GATE_SECONDS: Final = 10.0  # for an answer of our own gate


def watcher(
    loaded: Loaded, settings: Mailbox, ledger: Ledger, numbers: dict[str, int], ask: Callable[[Address], Answer]
) -> Watcher:
    """The watcher of one mailbox, not started. `ask`: the gate, from the thread of the watcher."""
    config = loaded.config
    intake = intake_of(config, ledger, numbers)
    tokens = tokens_of(loaded, settings)
    means = Means(
        connect=partial(log_in, loaded, settings, tokens),
        read=partial(_read, config.house, ledger),
        intake=intake,
        now=now,
        ask=ask,
        interrupt=tokens.cut if tokens else lambda: None,
    )
    return Watcher(settings, means)


def asking(loop: asyncio.AbstractEventLoop, gate: Callable[[], Gate]) -> Callable[[Address], Answer]:
    """The gate that every door of this loop has at that moment, for another thread to ask."""

    def ask(address: Address) -> Answer:
        asked = asyncio.run_coroutine_threadsafe(gate().ask([address]), loop)
        try:
            return asked.result(_GATE_SECONDS)[0]
        except TimeoutError:
            asked.cancel()
            return Unknown(f"no answer within {_GATE_SECONDS} s")

    return ask


def intake_of(config: Config, ledger: Ledger, numbers: Mapping[str, int]) -> Intake:
    """The desk that acts on readings, and on what people decide."""
    limits = config.bounce, config.intake
    return Intake(ledger, config.house, numbers, *limits, notices=writes_to_people(config), brakes=config.brake)


def writes_to_people(config: Config) -> bool:
    """Are notices wanted, and is there something to send them with and from?"""
    sender = notices.sender_of(config.notices.sender, config.house)
    return config.notices.confirm and config.upstream is not None and bool(sender)


def post(config: Config, ledger: Ledger, pool: Pool) -> notices.Post:
    """What sends our own mail."""
    sender = notices.sender_of(config.notices.sender, config.house)
    link = partial(undo_link, config.web.public_url, next(iter(config.house.addresses), sender))
    return notices.Post(ledger, config.house, sender, pool, link, now)


def limits(config: Config) -> Limits:
    """From when on something is an alarm."""
    duty = config.duty
    return Limits(
        timedelta(hours=duty.due_hours),
        timedelta(minutes=duty.silent_minutes),
        timedelta(hours=duty.review_hours),
        duty.disk_free_mb * 1024 * 1024,
    )


def envelope(config: Config) -> Envelope | None:
    """Who writes to the operators; None: nobody does."""
    house = config.house
    if not house.operators_mail or config.upstream is None:
        return None
    sender = notices.sender_of(config.notices.sender, house) or house.operators_mail
    return Envelope(house.name, sender, house.operators_mail)


def watch(loaded: Loaded, ledger: Ledger, duties: Duties, around: Surroundings) -> Watch:
    """The clock of duty, not running."""
    alone = duties.alone
    rounds = Rounds(ledger, now, "" if alone else duties.holder, "" if alone else socket.gethostname())
    made = Watch(rounds, around)
    take_over(made, loaded)
    if loaded.config.house.operators_mail and loaded.config.upstream is None:
        events.operators_not_mailed("there is no [upstream] to mail house.operators_mail through")
    return made


def take_over(watching: Watch, loaded: Loaded) -> None:
    """Let the clock of duty go by this config."""
    watching.take_over(limits(loaded.config), envelope(loaded.config), weekday(loaded.config))


def weekday(config: Config) -> int | None:
    """On which the digest goes out; Monday is 0."""
    return DAYS.index(config.duty.digest) if config.duty.digest else None


def certificates(loaded: Loaded) -> dict[str, int]:
    """File -> whole days, of our own certificates that can be read."""
    files = {x.cert_file for x in loaded.config.relay.listeners() if x.cert_file and x.tls != "none"}
    left = {name: tls.days_left(loaded.file(name), now()) for name in sorted(files)}
    return {name: days for name, days in left.items() if days is not None}


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


def _read(house: House, ledger: Ledger, raw: bytes) -> Reading:
    return read(raw, house, ledger.site_key)
