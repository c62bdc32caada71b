"""What `show --certificate` says: who asked, when and how, what was refused since, and how anybody can check it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Final

from daemon import __version__
from daemon.texts import lasted, one_line
from storage.terms import reason_word, scope_word, when

if TYPE_CHECKING:
    from storage.address import Address
    from storage.engine import Ledger
    from storage.refusals import Refusal
    from storage.subject import Entry, Held, Message

_WIDTH: Final = 78
_ASKED: Final = ("suppressed", "lifted")
_STOPPED: Final = ("refused", "stripped", "withdrawn")  # the rest of what is on record reached the person


# ------------------------------------------------------------------ facts


def made(ledger: Ledger, person: Address, by: str, now: datetime) -> dict[str, Any] | None:
    """The facts as the ledger has them; None: nothing is on record about this person. `by`: who certifies.

    Verifies the whole record first, and what it finds is in `chain`. Raises Unavailable.
    """
    from storage.audit import ChainBroken, verify
    from storage.subject import held
    from storage.suppressions import list_numbers

    head = broken = None
    with ledger.reading() as db:
        rows = int(db.exec_driver_sql("SELECT count(*) FROM audit").scalar() or 0)
        try:
            head = str(verify(db, ledger.site_key))
        except ChainBroken as why:
            broken = str(why)
        of, numbers = held(db, ledger.site_key, person), list_numbers(db)
    if not of.traces.known and broken is None:
        return None
    return facts(of, by, numbers, now, head=head, broken=broken, rows=rows)


def facts(
    of: Held, by: str, numbers: dict[str, int], now: datetime, *, head: str | None, broken: str | None, rows: int
) -> dict[str, Any]:
    """Everything as one JSON object. `head`: SEQ:HASH of the chain as verified now; `broken`: why it is not whole."""
    entries = [e for e in of.entries if e.fact.event in _ASKED]
    return {
        "address": str(of.address),
        "made": when(now),
        "by": by,
        "version": __version__,
        "chain": {"ok": broken is None, "rows": rows, "head": head, "error": broken},
        "suppressed": any(reason_word(r[2]) != "wanted" for r in of.suppressions),
        "forgotten": of.forgotten,
        "standing": [
            {
                "scope": scope_word(r[1], numbers),
                "reason": reason_word(r[2]),
                "since": when(r[3]),
                "asked_again": when(max((at for s, n, at in of.asked_again if (s, n) == (r[1], r[2])), default=None)),
                "ref": r[4],
            }
            for r in of.suppressions
        ],
        "requests": [_request(of, e, numbers) for e in entries],
        "stopped": _by_month(of.refusals, numbers),
        "answers": [{"at": when(n.at), "kind": n.kind, "state": n.state} for n in of.notices],
        "audit": [_audit(e, numbers) for e in of.entries],
    }


def _request(of: Held, entry: Entry, numbers: dict[str, int]) -> dict[str, Any]:
    fact, detail = entry.fact, entry.fact.detail or {}
    asked = _asked(of, entry)
    return {
        "event": fact.event,
        "scope": None if fact.scope is None else scope_word(fact.scope, numbers),
        "reason": reason_word(fact.reason),
        "asked": when(asked),
        "recorded": when(fact.at),
        "seconds": None if asked is None else max(0, int((fact.at - asked).total_seconds())),
        "by": fact.actor,
        "source": fact.source,
        **{name: detail.get(name) or None for name in ("mailbox", "uid", "message_id", "words", "rules", "proof")},
        "because": detail.get("because") or detail.get("note") or None,
        "ref": fact.evidence,
        "seq": fact.seq,
    }


def _asked(of: Held, entry: Entry) -> datetime | None:
    """When it was asked: as the standing row has it, else when the first message of this evidence came; None: not known."""
    from storage.terms import utc

    fact = entry.fact
    if fact.event == "lifted":
        asked = (fact.detail or {}).get("asked")
        return utc(asked) if asked is not None else None
    row = next(
        (r for r in of.suppressions if (r[0], r[1], r[2], r[4]) == (fact.key, fact.scope, fact.reason, fact.evidence)),
        None,
    )
    if row is not None:
        return utc(row[3])
    return min((m.received for m in _messages(of, fact.evidence) if m.received), default=None)


def _messages(of: Held, evidence: int | None) -> list[Message]:
    return [m for m in of.messages if evidence is not None and m.evidence == evidence]


def _by_month(refusals: Sequence[Refusal], numbers: dict[str, int]) -> list[dict[str, Any]]:
    """How often which outcome, by month and list: oldest first."""
    groups: dict[tuple[str, int, str], list[datetime]] = defaultdict(list)
    for refusal in refusals:
        groups[refusal.at.strftime("%Y-%m"), refusal.list_number, refusal.outcome].append(refusal.at)
    return [
        {
            "month": month,
            "list": scope_word(number, numbers).removeprefix("list:") if number else None,
            "outcome": outcome,
            "count": len(at),
            "first": when(min(at)),
            "last": when(max(at)),
        }
        for (month, number, outcome), at in sorted(groups.items())
    ]


def _audit(entry: Entry, numbers: dict[str, int]) -> dict[str, Any]:
    fact = entry.fact
    return {
        "seq": fact.seq,
        "at": when(fact.at),
        "event": fact.event,
        "scope": None if fact.scope is None else scope_word(fact.scope, numbers),
        "reason": reason_word(fact.reason),
        "actor": fact.actor,
        "ref": fact.evidence,
        "mac": entry.mac.hex(),
    }


# ------------------------------------------------------------------ text


def text(fact: Mapping[str, Any]) -> str:
    """The facts on paper."""
    chain = fact["chain"]
    parts = [
        *(
            []
            if chain["ok"]
            else [_heading("THE RECORD IS BROKEN: THIS PROVES NOTHING", "!"), "", chain["error"], "", ""]
        ),
        _heading(f"Certificate: may {fact['address']} be mailed?", "="),
        "",
        f"made       {fact['made']} (all times are UTC)",
        f"by         {fact['by']}, optoutd {fact['version']}",
        f"answer     {_answer(fact)}",
        *_standing(fact),
        *_section("Who asked, when and how", fact["requests"], _of_request),
        *_section("What was stopped since", _table(fact["stopped"]), lambda line: [line]),
        *_last_stopped(fact["stopped"]),
        *_section("What was answered", fact["answers"], lambda a: [f"{a['at']}  {a['kind']}: {a['state']}"]),
        *_section("Rows of the audit log", fact["audit"], _of_audit),
        *_section("The chain", _of_chain(chain), lambda line: [line]),
    ]
    return "\n".join(parts) + "\n"


def _answer(fact: Mapping[str, Any]) -> str:
    if fact["suppressed"]:
        return "no: the rows below stand" + (" (their particulars were erased)" if fact["forgotten"] else "")
    return "yes: nothing stands against it now"


def _standing(fact: Mapping[str, Any]) -> list[str]:
    rows = [
        f"{r['scope']}, {r['reason']}, since {r['since']} (ref {r['ref']})"
        + f", asked again {r['asked_again']}" * bool(r["asked_again"])
        for r in fact["standing"]
    ]
    return [f"{'stands' if n == 0 else '':<11}{row}" for n, row in enumerate(rows)]


def _heading(title: str, line: str = "-") -> str:
    return f"{title}\n{line * min(len(title), _WIDTH)}"


def _section(title: str, items: Sequence[Any], shown: Any) -> list[str]:
    lines = ["", "", _heading(title), ""]
    lines += [line for item in items for line in shown(item)]
    return lines if items else [*lines, "Nothing is on record."]


def _of_request(r: Mapping[str, Any]) -> list[str]:
    quick = (
        ""
        if r["seconds"] is None or r["asked"] == r["recorded"]
        else f", {lasted(timedelta(seconds=r['seconds']))} after it was asked"
    )
    scope = f" ({r['scope']}, {r['reason']})" if r["scope"] else ""
    message = f"in mailbox {r['mailbox']}, UID {r['uid']}" if r["mailbox"] else None
    named = (
        ("asked", r["asked"]),
        ("recorded", f"{r['recorded']} by {r['by']}{quick}"),
        ("by", r["source"]),
        ("message", " ".join(filter(None, (r["message_id"], message))) or None),
        ("words", r["words"]),
        ("rules", ", ".join(r["rules"] or []) or None),
        ("proof", r["proof"]),
        ("because", r["because"]),
        ("ref", f"{r['ref']}, audit row {r['seq']}"),
    )
    lines = [f"{r['event']}{scope}"]
    for name, value in named:
        if value:
            head, rest = f"  {name:<9}", " " * 11
            lines += wrap(
                one_line(str(value)), _WIDTH, initial_indent=head, subsequent_indent=rest, break_on_hyphens=False
            )
    return [*lines, ""]


def _table(stopped: Sequence[Mapping[str, Any]]) -> list[str]:
    if not stopped:
        return []
    rows = [("month", "list", "what", "times", "last")]
    rows += [(s["month"], s["list"] or "-", s["outcome"], str(s["count"]), s["last"]) for s in stopped]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return ["  ".join([*(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=False)), row[4]]) for row in rows]


def _last_stopped(stopped: Sequence[Mapping[str, Any]]) -> list[str]:
    held = [s for s in stopped if s["outcome"] in _STOPPED]
    if not held:
        return []
    total = sum(s["count"] for s in held)
    lines = [
        "",
        f"{total:,} in all, the last on {max(s['last'] for s in held)}. Each was answered `550 5.7.1 ... (ref N)`, or left out.",
    ]
    if len(held) < len(stopped):
        lines.append("What was only observed (would-refuse) or was no marketing (service) reached the person.")
    return lines


def _of_audit(row: Mapping[str, Any]) -> list[str]:
    about = " ".join(filter(None, (row["event"], row["scope"], row["reason"])))
    ref = f", ref {row['ref']}" if row["ref"] else ""
    return [
        f"{row['seq']:>8}  {row['at']}  {about} by {row['actor']}{ref}",
        f"{'':>8}  mac {row['mac']}",
    ]


def _of_chain(chain: Mapping[str, Any]) -> list[str]:
    if not chain["ok"]:
        return [f"BROKEN, as verified just now: {chain['error']}"]
    return [
        f"whole, as verified just now: {chain['rows']:,} rows, head {chain['head']}",
        "",
        "Each row is chained to all before it by a keyed digest (mac). Whoever noted a",
        "head elsewhere before (the system log, a digest mail, an earlier certificate)",
        "can have it checked: `optoutd audit verify --head SEQ:HASH` says whether that",
        "row is still part of this log. Note the head above for the next time.",
    ]
