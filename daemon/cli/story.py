"""show: the story of a person, or of what stands behind a reference."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from daemon.cli import common, subjects
from daemon.cli.common import NO, USAGE, AsJson, Stop, tell


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
    from daemon import telling

    config = common.loaded()
    person = common.address(address) if address is not None else None
    ledger = common.ledger(config)
    numbers = common.list_numbers(ledger)
    with ledger.reading() as db:
        if person is not None:
            fact = telling.story(db, ledger.site_key, person, numbers)
        else:
            known = ref is not None and common.is_number(ref)
            found = telling.behind(db, ledger.site_key, ref or 0, numbers) if known else None
            if found is None:
                raise Stop(f"no such ref: {ref}", NO)
            fact = found
    tell(fact, as_json, _shown(fact))


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
