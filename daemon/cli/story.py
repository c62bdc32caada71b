"""show: the story of a person, or of what stands behind a reference."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli import common, subjects
from daemon.cli.common import NO, USAGE, AsJson, Stop, tell, when

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from storage.refusals import Refusal
    from storage.suppressions import Fact, RawRow


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(show)


def show(
    address: Annotated[str | None, typer.Argument(metavar="ADDR", help="Whose story.")] = None,
    ref: Annotated[int | None, typer.Option(metavar="N", help="The (ref N) of a refusal.")] = None,
    for_subject: Annotated[
        bool, typer.Option("--for-subject", help="All we hold on them, to be handed over (GDPR Art. 15).")
    ] = False,
    certificate: Annotated[
        bool, typer.Option("--certificate", help="Who asked, when, how, what was refused since; the log verified.")
    ] = False,
    output: Annotated[
        str | None, typer.Option("-o", metavar="FILE", help="Of those two: into a file that only you can read.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Why is somebody (not) mailed? What stands, and its history.

    Give an address, or with --ref the number that a refusal names: `550 ... has opted out (ref 7)`.
    Exit code of --certificate: 1 if the record is broken, or if there is nothing on record to certify.
    """
    if (address is None) == (ref is None):
        raise Stop("give either ADDR or --ref N", USAGE)
    if for_subject or certificate:
        if for_subject and certificate:
            raise Stop("--for-subject and --certificate are two papers: give one of them", USAGE)
        if address is None:
            raise Stop("--for-subject and --certificate are about a person: give ADDR", USAGE)
        (subjects.for_subject if for_subject else subjects.certify)(address, output, as_json)
        return
    if output is not None:
        raise Stop("-o goes with --for-subject or --certificate", USAGE)
    from storage import imports, refusals, suppressions
    from storage.address import keys_of
    from storage.terms import Reason

    config = common.loaded()
    person = common.address(address) if address is not None else None
    ledger = common.ledger(config)
    numbers = common.list_numbers(ledger)
    with ledger.reading() as db:
        if person is not None:
            rows = suppressions.standing(db, ledger.site_key, person)
            facts = suppressions.history(db, ledger.site_key, person) + _imports(db, rows)
            refused = refusals.of_key(db, [key for key, _ in keys_of(ledger.site_key, person)])
        else:
            known = ref is not None and common.is_number(ref)
            facts = suppressions.by_evidence(db, ref or 0) if known else []
            rows = suppressions.standing_by_evidence(db, ref or 0, ledger.site_key) if known else []
            if not facts:
                raise Stop(f"no such ref: {ref}", NO)
            refused = [r for r in refusals.of_key(db, [f.key for f in facts if f.key]) if r.evidence == ref]
        details = suppressions.details(db, [r[4] for r in rows])
        brought = imports.brought(db, ref or 0) if person is None and _is_import(facts) else None
    fact = {
        "address": str(person) if person else _named(facts),
        "suppressed": bool(brought and brought.standing) or any(r[2] != Reason.WANTED for r in rows),
        "suppressions": [_standing(r, details.get(r[4]), numbers, facts) for r in rows],
        "history": sorted([*map(_happened, facts), *(_refusal(r, numbers) for r in refused)], key=lambda h: h["at"]),
        "import": None if brought is None else asdict(brought),
    }
    tell(fact, as_json, _shown(fact))


def _imports(db: Connection, rows: list[RawRow]) -> list[Fact]:
    """What brought these rows, of those that came with many others: the record does not name each."""
    from storage import suppressions

    of_rows = [fact for ref in dict.fromkeys(r[4] for r in rows) for fact in suppressions.by_evidence(db, ref)]
    return [fact for fact in of_rows if fact.event == "imported"]


def _is_import(facts: list[Fact]) -> bool:
    return any(fact.event == "imported" for fact in facts)


def _named(facts: list[Fact]) -> str | None:
    """Whom the evidence is about, if that is kept."""
    return next((str(f.detail["address"]) for f in facts if f.detail and f.detail.get("address")), None)


def _standing(row: RawRow, detail: dict[str, Any] | None, numbers: dict[str, int], facts: list[Fact]) -> dict[str, Any]:
    """A row that stands. Of somebody who was forgotten the audit row still says where it came from."""
    of_it = detail or {"source": next((f.source for f in facts if f.evidence == row[4]), None)}
    return {
        "scope": common.scope_word(row[1], numbers),
        "reason": common.reason_word(row[2]),
        "since": when(row[3]),
        "source": of_it.get("source"),
        "note": of_it.get("note") or None,
        "ref": row[4],
    }


_HISTORY = ("at", "event", "source", "mailbox", "uid", "message_id", "words", "rules", "actor", "because", "ref")


def _happened(fact: Fact) -> dict[str, Any]:
    of_it = fact.detail or {}
    told = {k: of_it.get(k) or None for k in ("mailbox", "uid", "message_id", "words", "rules")}
    return {
        "at": when(fact.at),
        "event": fact.event,
        "source": fact.source,
        **told,
        "actor": fact.actor,
        "because": of_it.get("because") or of_it.get("note") or _list_of(of_it) or None,
        "ref": fact.evidence,
    }


def _list_of(detail: dict[str, Any]) -> str:
    """Of an import: which list, and where in it."""
    if not detail.get("file"):
        return ""
    lines = f", lines {detail['first']} to {detail['last']}" if detail.get("first") else ""
    return f"in the list {detail['file']} ({detail.get('format') or 'unknown format'}{lines})"


def _refusal(of: Refusal, numbers: dict[str, int]) -> dict[str, Any]:
    """What the relay did, as a part of the history. `because`: why, and in mail of which list."""
    to = f", mail to {common.scope_word(of.list_number, numbers)}" if of.list_number else ""
    return {
        **dict.fromkeys(_HISTORY),
        "at": when(of.at),
        "event": of.outcome,
        "message_id": of.message_id or None,
        "actor": f"relay {of.credential}".rstrip(),
        "because": f"{common.reason_word(of.reason or None) or ''}{to}".removeprefix(", ") or None,
        "ref": of.evidence or None,
    }


def _shown(fact: dict[str, Any]) -> str:
    if fact["import"]:
        return "\n".join([*_brought(fact["import"]), "", "  history:", *(x for h in fact["history"] for x in _past(h))])
    lines = [common.one_line(fact["address"] or "(address not kept)")]
    lines += [_stands(row) for row in fact["suppressions"]]
    if not fact["suppressed"]:
        lines.insert(1, "  not suppressed")
    lines += ["", "  history:"] if fact["history"] else ["  nothing was ever recorded"]
    for past in fact["history"]:
        lines += _past(past)
    return "\n".join(lines)


def _brought(it: dict[str, Any]) -> list[str]:
    return [
        f"import of {common.one_line(it['file'] or '(a list without a name)')}",
        f"  this part of it brought {it['rows']}, of which {it['standing']} stand now",
        f"  all of it brought {it['total']}, of which {it['total_standing']} stand now",
    ]


def _stands(row: dict[str, Any]) -> str:
    verb = "wanted all the same" if row["reason"] == "wanted" else f"suppressed: {row['reason']}"
    return f"  {verb} ({row['scope']}) since {row['since']}, ref {row['ref']}"


def _past(past: dict[str, Any]) -> list[str]:
    source = f", source {past['source']}" if past["source"] else ""
    ref = f", ref {past['ref']}" if past["ref"] else ""
    lines = [f"  {past['at']}  {past['event']} by {past['actor']}{source}{ref}"]
    if past["message_id"] or past["uid"]:
        message = common.one_line(past["message_id"] or f"UID {past['uid']}")
        lines.append(f"      message: {message}" + (f" in mailbox {past['mailbox']}" if past["mailbox"] else ""))
    if past["words"]:
        lines.append(f"      words:   {past['words']!r}")
    if past["rules"]:
        lines.append(f"      rules:   {', '.join(past['rules'])}")
    if past["because"]:
        lines.append(f"      because: {common.one_line(past['because'])}")
    return lines
