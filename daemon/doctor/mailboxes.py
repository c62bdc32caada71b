"""Each mailbox: from its name to the newest mail in it, as the watcher goes, and nothing is marked as read."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from daemon import mailboxes
from daemon.config import ConfigError, Mailbox
from daemon.doctor import reach
from daemon.doctor.findings import Finding, Look, count
from daemon.doctor.reach import Unreached, Where
from daemon.mail import fields, trust
from daemon.mailbox.session import Failed, Session

_NEWEST: Final = 20  # messages, in which results of our own mail server are looked for
_AHEAD: Final = timedelta(minutes=10)
_NAMED: Final = 6  # folders, in an advice


def none(look: Look) -> Iterator[Finding]:
    """No [[mailbox]]."""
    yield look.ok("no [[mailbox]]: no mail is read")


def probe(settings: Mailbox, look: Look) -> Iterator[Finding]:
    """Resolve, connect, TLS, log in; then folders, filing, and whose Authentication-Results the mail bears."""
    where = Where(settings.host, settings.port, f"[[mailbox]] {settings.name}", settings.tls)
    try:
        reach.connect(look, where)
        look.step(f"login at {where}")
        session = mailboxes.log_in(look.loaded, settings)
    except Unreached as why:
        yield look.fail(f"{where}: {look.said(why)}", why.advice)
        return
    except ConfigError as why:
        yield look.fail(look.said(why), "put the secret into that file, readable by the daemon")
        return
    except Failed as failure:
        yield look.fail(f"{where}: {_said(look, failure)}", _advice(failure, where, settings))
        return
    try:
        yield from _logged_in(look, settings, session, where)
    except Failed as failure:
        yield look.fail(f"{where}: {_said(look, failure)}", _advice(failure, where, settings))
    finally:
        session.close()


def _said(look: Look, what: object) -> str:
    """In the server's words: imaplib has them as octets, and shows them so."""
    return look.said(re.sub(r"\bb(['\"])(.{0,1000})\1", r"\2", str(what)))


def _advice(failure: Failed, where: Where, settings: Mailbox) -> str:
    """Its own, if it has one; of the way there we know more than the session."""
    if failure.advice and failure.step not in ("connect", "tls"):
        return failure.advice
    if failure.step == "login" and failure.refused:
        return (
            f"are username and secret of {where.section} right, and is the account allowed IMAP? large providers take no"
            " passwords any more, only OAuth2 or a password made for one app"
        )
    if failure.step == "login":
        return f"it broke off or was silent: try again in a minute; does the log of {where.host} say more?"
    if failure.step in ("search", "fetch"):
        return f"the mailbox is there, but cannot be read: does the log of {where.host} say why?"
    return reach.of_step(failure.step, str(failure.why), where)


def _logged_in(look: Look, settings: Mailbox, session: Session, where: Where) -> Iterator[Finding]:
    offers = session.offers
    lacks = [word for word in ("IDLE", "MOVE", "UIDPLUS") if word not in offers]
    by = "password" if settings.oauth2 is None else "OAuth2"
    line = reach.tls_words(session.certificate, look.house.now)
    offered = "offers IDLE, MOVE, UIDPLUS" if not lacks else f"lacks {', '.join(lacks)}"
    yield look.ok(f"{where}: logged in as {settings.username} ({by}), {line}, {offered}")
    advice = "tell whoever runs that server: after that no mail is read"
    yield from reach.ending(look, str(where), session.certificate, advice)
    yield from _lacking(look, settings, lacks)
    for odd in session.odd_folders():
        yield look.warn(f"folders: {odd}", f"change that in [[mailbox]] {settings.name}")
    look.step("select the folders")
    there = yield from _folders(look, settings, session)
    yield from _filing(look, settings, session, lacks)
    if there:
        yield from _newest(look, settings, session, there[0])


def _lacking(look: Look, settings: Mailbox, lacks: Sequence[str]) -> Iterator[Finding]:
    """What then happens."""
    if "IDLE" in lacks and settings.poll_seconds > 60:
        yield look.warn(
            f"without IDLE a request is found up to {settings.poll_seconds} s late", "set poll_seconds to 60 or less"
        )
    if {"MOVE", "UIDPLUS"} <= set(lacks) and (settings.processed_folder or settings.machine_folder):
        yield look.warn(
            "without MOVE and UIDPLUS nothing can be filed away without risk to other mail: requests are honoured and stay",
            'set processed_folder = "" (and machine_folder = ""), or have the provider renew the server',
        )


def _folders(look: Look, settings: Mailbox, session: Session) -> Generator[Finding, None, list[str]]:
    """The watched ones; returns the names of those that are there."""
    counts: dict[str, int] = {}
    for name in settings.folders:
        try:
            counts[name] = session.count(name)
        except Failed as failure:
            if not failure.refused:
                raise
            yield look.fail(
                f"select: folder {name!r}: {_said(look, failure.why)}", look.said(_other_name(name, session.names()))
            )
    if counts:
        yield look.ok("watches " + ", ".join(f"{name} ({count(n, 'message')})" for name, n in counts.items()))
    return list(counts)


def _other_name(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, _NAMED, 0.5) or sorted(names)[:_NAMED]
    return f"no mail in it is read; name one that is there (it has {', '.join(near) or 'none'}), or make it"


def _filing(look: Look, settings: Mailbox, session: Session, lacks: Sequence[str]) -> Iterator[Finding]:
    """Can what was honoured be filed where the config says?"""
    wanted = [] if settings.observe else [f for f in (settings.processed_folder, settings.machine_folder) if f]
    if not wanted or {"MOVE", "UIDPLUS"} <= set(lacks):
        return
    for name in wanted:
        if session.has(name):
            yield look.ok(f"files into {name}, which is there")
        elif look.house.traces:
            yield from _make(look, session, name)
        else:
            yield look.ok(f"files into {name}, which is made when it is needed (or by --probe)")


def _make(look: Look, session: Session, name: str) -> Iterator[Finding]:
    try:
        session.ensure(name)
    except Failed as failure:
        yield look.fail(
            f"{name!r} cannot be made: {_said(look, failure.why)}", "make it by hand, or name another in the config"
        )
    else:
        yield look.ok(f"files into {name}, which was made now")


# ------------------------------------------------------------------ what the newest mail says


def _newest(look: Look, settings: Mailbox, session: Session, folder: str) -> Iterator[Finding]:
    look.step(f"read the newest headers of {folder}")
    session.enter(folder, writable=False)
    newest = session.newest("AUTHENTICATION-RESULTS", _NEWEST)
    yield from _times(look.of("clock"), settings, [when for when, _ in newest])
    if newest and settings.role == "support":
        yield from _results(look, [_first_id(raw) for _, raw in newest])


def _first_id(raw: bytes) -> str:
    """Whose results stand on top: what stands below may be anybody's."""
    found, _, _ = fields.split(raw)
    results = found.all("authentication-results")
    return trust.authserv_id(results[0]) if results else ""


def _times(look: Look, settings: Mailbox, times: Sequence[datetime]) -> Iterator[Finding]:
    latest = max(times, default=look.house.now)
    if latest - look.house.now > _AHEAD:
        yield look.warn(
            f"mailbox {settings.name} has mail that arrived at {latest:%Y-%m-%d %H:%M} UTC, which is yet to come",
            f"the clock here or that of {settings.host} is wrong: compare both with another",
        )


def _results(look: Look, ids: Sequence[str]) -> Iterator[Finding]:
    ours, seen = look.config.house.authserv_id.lower(), Counter(filter(None, ids))
    named = ", ".join(look.said(name) for name, _ in seen.most_common(3))
    of_all = f"the newest {count(len(ids), 'message')}"
    if ours and seen[ours]:
        yield look.ok(f"{seen[ours]} of {of_all} bear results of {ours} (house.authserv_id)")
    elif ours:
        yield look.warn(
            f"none of {of_all} bears Authentication-Results of {ours}" + (f", but of {named}" if named else ""),
            "nobody is proven to be who he says: set house.authserv_id to the name your own mail server writes there"
            if named
            else "nobody is proven to be who he says: does your mail server check DMARC, and write down what it found?",
        )
    elif named:
        yield look.warn(
            f"{of_all} bear Authentication-Results of {named}, and house.authserv_id is not set",
            "if that is your own mail server (or your provider's), set it: who writes is then proven, or caught",
        )
