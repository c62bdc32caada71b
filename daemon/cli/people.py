"""check, suppress, list: one person at a time, or all of them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli import common
from daemon.cli.common import (
    DATAERR,
    NO,
    REASONS,
    SOURCES,
    TEMPFAIL,
    USAGE,
    AsJson,
    ListOption,
    ReaderGone,
    Stop,
    note,
    tell,
)

if TYPE_CHECKING:
    from daemon.config import Loaded
    from daemon.gate import Gate
    from storage.address import Address

Addresses = Annotated[list[str], typer.Argument(metavar="ADDR", help="E-mail addresses; - reads them from stdin.")]
_ONE_OF_REASONS = f"One of: {', '.join(REASONS)}."
_ONE_OF_SOURCES = f"One of: {', '.join(SOURCES)}."


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(check)
    app.command()(suppress)
    app.command("list")(list_)


# ------------------------------------------------------------------ check


def check(addresses: Addresses, list_id: ListOption = None, as_json: AsJson = False) -> None:
    """May these people be mailed?

    Exit code 0: all clear. 1: somebody is suppressed. 65: not an address. 75: cannot tell, so do not mail.
    Without --list only what counts for everything makes it a 1; lists that somebody has left are named.
    """
    config = common.loaded()
    gate, why_not = _gate(config, list_id)
    codes = set()
    try:
        for text in common.arguments(addresses):
            code, fact = _check(gate, why_not, text, list_id)
            codes.add(code)
            tell(fact, as_json, _checked(fact))
    except ReaderGone:  # the rest was not asked for, and that must not look like "all clear"
        raise typer.Exit(TEMPFAIL) from None
    raise typer.Exit(next((c for c in (TEMPFAIL, DATAERR, NO) if c in codes), 0))


def _gate(config: Loaded, list_id: str | None) -> tuple[Gate | None, str]:
    """The gate, or why there is none. Wrong keys and unknown lists are the operator's to mend: they are raised."""
    from daemon.gate import Gate
    from daemon.opening import lookup_of
    from storage.engine import Unavailable

    try:
        ledger = common.ledger(config)
        numbers = common.list_numbers(ledger)
    except Unavailable as why:
        return None, str(why)
    common.scope_of(list_id, config, numbers)
    lookup = lookup_of(ledger)
    common.at_end.callback(lookup.close)
    return Gate(lookup, numbers), ""


def _check(gate: Gate | None, why_not: str, text: str, list_id: str | None) -> tuple[int, dict[str, Any]]:
    """The exit code that one address stands for, and what is known of it."""
    from daemon import telling
    from storage.address import NotAnAddress, parse

    if gate is not None:
        state, fact = telling.checked(gate, text, list_id)
        return {"clear": 0, "suppressed": NO, "unknown": TEMPFAIL, "malformed": DATAERR}[state], fact
    try:
        parse(text)
    except NotAnAddress as problem:
        return DATAERR, telling.unchecked(text, str(problem))
    return TEMPFAIL, telling.unchecked(text, why_not)


def _checked(fact: dict[str, Any]) -> str:
    shown = common.one_line(fact["address"])
    if fact["error"]:
        return f"{shown}: cannot tell: {fact['error']}"
    if not fact["suppressed"]:
        narrower = f" (but suppressed for {', '.join(fact['lists'])})" if fact["lists"] else ""
        return f"{shown}: clear{narrower}"
    how = "" if fact["matched"] == "exact" else f", found by {fact['matched']}"
    return f"{shown}: suppressed: {fact['reason']} ({fact['scope']}) since {fact['since']}{how}"


# ------------------------------------------------------------------ suppress


def suppress(
    addresses: Addresses,
    list_id: ListOption = None,
    reason: Annotated[str, typer.Option(metavar="R", help=_ONE_OF_REASONS)] = "operator",
    source: Annotated[str, typer.Option(metavar="S", help=f"How it came to us. {_ONE_OF_SOURCES}")] = "operator",
    note: Annotated[str, typer.Option(metavar="TEXT", help="Kept with it, and shown by `optoutd show`.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Even a whole public mail provider.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put people on the list, at once for a running daemon.

    @example.com stands for a whole domain with its subdomains. Who is on the list already stays on it.
    """
    from daemon.hand import Hand, Refused, Wish

    one_of("--reason", reason, REASONS)
    one_of("--source", source, SOURCES)
    config = common.loaded()
    people, bad = _people(addresses)
    try:
        wish = Wish(list_id, reason, source, note)
        ledger = common.ledger(config, writes=True)
        done = Hand(ledger, config.config.house, common.now(), common.actor(), force).suppress(people, wish)
    except Refused as why:
        raise Stop(f"{why}{'; --force if you mean it' if why.why == 'provider' else ''}", USAGE) from None
    word = "all" if list_id is None else f"list:{list_id}"
    done_now = "wants it all the same from now on" if reason == "wanted" else "suppressed"
    states = {
        "new": done_now,
        "repeated": "was so already" if reason == "wanted" else "was suppressed already",
        "outdated": "nothing done: it was lifted later",
    }
    for person, added in zip(people, done, strict=True):
        fact = {
            "address": str(person),
            "outcome": added.outcome,
            "scope": word,
            "reason": reason,
            "ref": added.evidence,
        }
        tell(fact, as_json, f"{person}: {states[added.outcome]} ({word}, ref {added.evidence})")
    raise typer.Exit(DATAERR if bad else 0)


def one_of(option: str, word: str | None, words: tuple[str, ...]) -> None:
    """Raises Stop(64) for a word that is not one of these."""
    if word is not None and word not in words:
        raise Stop(f"{option} {word!r}: must be one of {', '.join(words)}", USAGE)


def _people(given: list[str]) -> tuple[list[Address], int]:
    """The good addresses, and how many were none (each told on stderr)."""
    from daemon import hand
    from storage.address import NotAnAddress

    people, bad = [], 0
    for text in common.arguments(given):
        try:
            people.append(hand.person(text))
        except NotAnAddress as problem:
            note(f"optoutd: {common.not_an_address(text, problem)}")
            bad += 1
    return people, bad


# ------------------------------------------------------------------ list


def list_(
    list_id: ListOption = None,
    reason: Annotated[str | None, typer.Option(metavar="R", help=_ONE_OF_REASONS)] = None,
    source: Annotated[str | None, typer.Option(metavar="S", help=_ONE_OF_SOURCES)] = None,
    since: Annotated[
        str | None, typer.Option(metavar="DATE", help="YYYY-MM-DD, or RFC 3339; UTC unless it says so.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """All who are on the list, or some of them.

    A line each: address, scope, reason, source, since.
    """
    from daemon import telling
    from storage import suppressions
    from storage.terms import REASONS as BY_WORD

    one_of("--reason", reason, REASONS)
    one_of("--source", source, SOURCES)
    start = None if since is None else moment(since)
    config = common.loaded()
    ledger = common.ledger(config)
    numbers = common.list_numbers(ledger)
    scope = None if list_id is None else common.scope_of(list_id, config, numbers)
    empty = True
    with ledger.reading() as db:
        found = suppressions.listing(
            db, scope=scope, reason=BY_WORD[reason] if reason else None, source=source, since=start
        )
        for row in found:
            empty = False
            fact = telling.listed(row, numbers)
            shown = fact["address"] or f"(key {fact['key']})"
            facts = (fact["scope"], fact["reason"], fact["source"] or "-", fact["since"])
            tell(fact, as_json, "  ".join([shown, *facts]))
    if empty and not as_json:
        note("nobody is on the list" if (list_id, reason, source, since) == (None,) * 4 else "nobody fits")


def moment(text: str, option: str = "--since") -> datetime:
    """A date or a time given to an option, UTC unless it says so. Raises Stop(64)."""
    from storage import terms

    try:
        return terms.moment(text)
    except ValueError as why:
        raise Stop(f"{option}: {text!r} is {why}", USAGE) from None
