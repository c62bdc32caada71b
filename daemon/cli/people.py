"""check, suppress, lift, show, list: one person at a time, or all of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from daemon.cli import common
from daemon.cli.common import DATAERR, NO, TEMPFAIL, USAGE, AsJson, ListOption, Stop, tell, when
from daemon.gate import Gate, Refused
from daemon.service import number_lists
from storage import suppressions
from storage.address import PUBLIC_PROVIDERS, NotAnAddress, parse
from storage.engine import Unavailable, Unusable
from storage.lookup import Lookup
from storage.models import ALL, REASONS, SOURCES, Reason
from storage.suppressions import Fact
from storage.write import write

Addresses = Annotated[list[str], typer.Argument(metavar="ADDR...", help="E-mail addresses; - reads them from stdin.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(check)
    app.command()(suppress)
    app.command()(lift)
    app.command()(show)
    app.command("list")(list_)


# ------------------------------------------------------------------ check


def check(addresses: Addresses, list_id: ListOption = None, as_json: AsJson = False) -> None:
    """May these be mailed? 0 all clear, 1 somebody is suppressed, 75 cannot tell."""
    config = common.loaded()
    gate, why_not = _gate(config, list_id)
    codes = set()
    for text in common.arguments(addresses):
        code, found = _check(gate, why_not, text, list_id)
        codes.add(code)
        fact = {
            k: found.get(k) for k in ("address", "suppressed", "scope", "reason", "since", "matched", "lists", "error")
        }
        tell(fact, as_json, _checked(fact))
    raise typer.Exit(next((c for c in (TEMPFAIL, DATAERR, NO) if c in codes), 0))


def _gate(config: Any, list_id: str | None) -> tuple[Gate | None, str]:
    """The gate, or why there is none. Wrong keys and unknown lists are the operator's to mend: they are raised."""
    try:
        ledger = common.ledger(config)
        numbers = common.list_numbers(ledger)
    except Unavailable as why:
        return None, str(why)
    if list_id is not None and list_id not in {x.id for x in config.config.list}:
        common.scope_of(list_id, config, numbers)
    return Gate(Lookup(ledger.path, ledger.site_key), numbers), ""


def _check(gate: Gate | None, why_not: str, text: str, list_id: str | None) -> tuple[int, dict[str, Any]]:
    """The exit code that one address stands for, and what is known of it."""
    fact: dict[str, Any] = {"address": text, "lists": []}
    try:
        address = parse(text)
    except NotAnAddress as problem:
        return DATAERR, fact | {"error": str(problem)}
    if gate is None:
        return TEMPFAIL, fact | {"error": why_not}
    try:
        rows = gate.rows(address)
    except (Unavailable, Unusable) as problem:
        return TEMPFAIL, fact | {"error": str(problem)}
    fact["lists"] = gate.list_ids(sorted({r.scope for r in rows if r.reason != Reason.WANTED}))
    answer = gate.judge(rows, list_id)
    if not isinstance(answer, Refused):
        return 0, fact | {"suppressed": False}
    v = answer.verdict
    scope = "all" if v.scope == ALL else f"list:{answer.of}"
    told = {"scope": scope, "reason": v.reason.word, "since": when(v.since), "matched": v.matched}
    return NO, fact | told | {"suppressed": True}


def _checked(fact: dict[str, Any]) -> str:
    if fact["error"]:
        return f"{fact['address']}: cannot tell: {fact['error']}"
    narrower = f" (but opted out of {', '.join(fact['lists'])})" if fact["lists"] else ""
    if not fact["suppressed"]:
        return f"{fact['address']}: clear{narrower}"
    how = "" if fact["matched"] == "exact" else f", found by {fact['matched']}"
    return f"{fact['address']}: suppressed: {fact['reason']} ({fact['scope']}) since {fact['since']}{how}"


# ------------------------------------------------------------------ suppress, lift


def suppress(
    addresses: Addresses,
    list_id: ListOption = None,
    reason: Annotated[str, typer.Option(help=f"One of: {', '.join(REASONS)}.")] = "operator",
    source: Annotated[str, typer.Option(help=f"How it came to us. One of: {', '.join(SOURCES)}.")] = "operator",
    note: Annotated[str, typer.Option(help="Kept with it.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Even a whole public mail provider.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put addresses (or whole domains: @example.com) on the list, at once for a running daemon."""
    if reason not in REASONS or source not in SOURCES:
        raise Stop(f"--reason is one of {', '.join(REASONS)}; --source one of {', '.join(SOURCES)}", USAGE)
    if REASONS[reason] == Reason.WANTED and list_id is None:
        raise Stop("`wanted` exempts one list: name it with --list", USAGE)
    config = common.loaded()
    people, bad = _parsed(addresses)
    for person in people:
        if person.is_domain and person.domain in PUBLIC_PROVIDERS and not force:
            raise Stop(
                f"{person} is a public mail provider: all its users would be suppressed; --force if you mean it", USAGE
            )
    ledger = common.ledger(config, writes=True)
    numbers = number_lists(ledger, config.config)
    scope = common.scope_of(list_id, config, numbers)
    with write(ledger, common.now(), common.actor()) as w:
        done = [(p, suppressions.add(w, p, scope, REASONS[reason], source, {"note": note})) for p in people]
    for person, added in done:
        word = common.scope_word(scope, numbers)
        fact = {
            "address": str(person),
            "outcome": added.outcome,
            "scope": word,
            "reason": reason,
            "ref": added.evidence,
        }
        state = {"new": "suppressed", "repeated": "was suppressed already", "outdated": "was lifted later"}[
            added.outcome
        ]
        tell(fact, as_json, f"{person}: {state} ({word}, ref {added.evidence})")
    raise typer.Exit(DATAERR if bad else 0)


def _parsed(given: list[str]) -> tuple[list[Any], int]:
    """The good addresses, and how many were none (each told on stderr)."""
    people, bad = [], 0
    for text in common.arguments(given):
        try:
            people.append(parse(text))
        except NotAnAddress as problem:
            common.note(f"optoutd: {text!r} is not an address: {problem}")
            bad += 1
    return people, bad


def lift(
    address: Annotated[str, typer.Argument(metavar="ADDR")],
    because: Annotated[str, typer.Option(help="Why; kept in the audit log.")],
    list_id: ListOption = None,
    as_json: AsJson = False,
) -> None:
    """End the suppression of a person within a scope (all, unless --list), saying why."""
    config = common.loaded()
    person = common.address(address)
    if not because.strip():
        raise Stop("--because must say why", USAGE)
    ledger = common.ledger(config)
    numbers = common.list_numbers(ledger)
    scope = common.scope_of(list_id, config, numbers)
    with write(ledger, common.now(), common.actor()) as w:
        gone = suppressions.lift(w, person, scope, because)
    if not gone:
        with ledger.connect() as db:
            left = suppressions.standing(db, ledger.site_key, person)
        others = ", ".join(sorted({common.scope_word(r[1], numbers) for r in left}))
        hint = f"; what stands: {others} (see `optoutd show {address}`)" if left else ""
        raise Stop(f"no such suppression: {address} ({common.scope_word(scope, numbers)}){hint}", NO)
    reasons = sorted({Reason(r[2]).word for r in gone})
    fact = {"address": str(person), "scope": common.scope_word(scope, numbers), "lifted": reasons}
    tell(fact, as_json, f"{person}: lifted ({', '.join(reasons)})")


# ------------------------------------------------------------------ show, list


def show(
    address: Annotated[str | None, typer.Argument(metavar="ADDR")] = None,
    ref: Annotated[int | None, typer.Option(metavar="N", help="The (ref N) of a refusal.")] = None,
    as_json: AsJson = False,
) -> None:
    """Why is this person (not) mailed? All that stands and all that was done, with the evidence."""
    if (address is None) == (ref is None):
        raise Stop("give either ADDR or --ref N", USAGE)
    config = common.loaded()
    ledger = common.ledger(config)
    numbers = common.list_numbers(ledger)
    with ledger.reading() as db:
        if ref is not None:
            facts = suppressions.by_evidence(db, ref)
            rows = suppressions.standing_by_evidence(db, ref)
            if not facts:
                raise Stop(f"no such ref: {ref}", NO)
        else:
            person = common.address(address or "")
            facts = suppressions.history(db, ledger.site_key, person)
            rows = suppressions.standing(db, ledger.site_key, person)
        details = suppressions.details(db, [r[4] for r in rows])
    shown = address or next((str(f.detail["address"]) for f in facts if f.detail and "address" in f.detail), None)
    fact = {
        "address": shown,
        "suppressions": [_standing(r, details.get(r[4]), numbers) for r in rows],
        "history": [_happened(f) for f in facts],
    }
    tell(fact, as_json, _shown(fact))


def _standing(row: suppressions.RawRow, detail: dict[str, Any] | None, numbers: dict[str, int]) -> dict[str, Any]:
    of_it = detail or {}
    return {
        "scope": common.scope_word(row[1], numbers),
        "reason": Reason(row[2]).word,
        "since": when(row[3]),
        "source": of_it.get("source"),
        "note": of_it.get("note") or None,
        "ref": row[4],
    }


def _happened(fact: Fact) -> dict[str, Any]:
    of_it = fact.detail or {}
    told = {k: of_it.get(k) or None for k in ("mailbox", "uid", "message_id", "words", "rules")}
    return {
        "at": when(fact.at),
        "event": fact.event,
        "source": fact.source,
        **told,
        "actor": fact.actor,
        "because": of_it.get("because") or of_it.get("note") or None,
        "ref": fact.evidence,
    }


def _shown(fact: dict[str, Any]) -> str:
    lines = [f"{fact['address'] or '(address not kept)'}"]
    if not fact["suppressions"]:
        lines.append("  not suppressed")
    lines += [
        f"  suppressed: {row['reason']} ({row['scope']}) since {row['since']}, ref {row['ref']}"
        for row in fact["suppressions"]
    ]
    for past in fact["history"]:
        lines.append(
            f"  {past['at']}  {past['event']} by {past['actor']}"
            + (f", source {past['source']}" if past["source"] else "")
        )
        if past["message_id"]:
            lines.append(f"      message {past['message_id']} in mailbox {past['mailbox']}")
        if past["words"]:
            lines.append(f"      words: {past['words']!r}")
        if past["rules"]:
            lines.append(f"      rules: {', '.join(past['rules'])}")
        if past["because"]:
            lines.append(f"      because: {past['because']}")
    return "\n".join(lines)


def list_(
    list_id: ListOption = None,
    reason: Annotated[str | None, typer.Option(help=f"One of: {', '.join(REASONS)}.")] = None,
    source: Annotated[str | None, typer.Option(help=f"One of: {', '.join(SOURCES)}.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="DATE", help="YYYY-MM-DD, or RFC 3339; UTC unless it says so.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """All that is on the list, or part of it."""
    if (reason and reason not in REASONS) or (source and source not in SOURCES):
        raise Stop(f"--reason is one of {', '.join(REASONS)}; --source one of {', '.join(SOURCES)}", USAGE)
    config = common.loaded()
    ledger = common.ledger(config)
    numbers = common.list_numbers(ledger)
    scope = None if list_id is None else common.scope_of(list_id, config, numbers)
    moment = None if since is None else _moment(since)
    with ledger.reading() as db:
        found = suppressions.listing(
            db, scope=scope, reason=REASONS[reason] if reason else None, source=source, since=moment
        )
        for key, address, of_scope, of_reason, at, _, of_source in found:
            fact = {
                "address": address,
                "key": key.hex(),
                "scope": common.scope_word(of_scope, numbers),
                "reason": Reason(of_reason).word,
                "source": of_source,
                "since": when(at),
            }
            shown = address or f"(key {key.hex()})"
            tell(fact, as_json, f"{shown}  {fact['scope']}  {fact['reason']}  {of_source or '-'}  {fact['since']}")


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Stop(f"--since: {text!r} is no date; write 2026-01-31 or 2026-01-31T12:00:00Z", USAGE) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
