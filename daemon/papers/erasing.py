"""What was forgotten of a person, and what is kept so that they are never mailed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from daemon.texts import one_line
from storage.terms import reason_word, scope_word

if TYPE_CHECKING:
    from storage.address import Address
    from storage.people import Erased

KINDS: Final = {
    "address": "kept addresses",
    "evidence": "particulars of requests, bounces and decisions (who, words, notes, messages)",
    "message_id": "message ids",
    "review": "items of the review queue (sender, addresses, words, excerpt, note)",
    "notice": "notices to them",
    "soft_bounce": "days on which mail to them bounced",
    "digest": "entries under a digest that anybody could make of the address",
}


def facts(done: Erased, person: Address, numbers: Mapping[str, int], copies: Sequence[str]) -> dict[str, Any]:
    """What came of it as one JSON object. `copies`: files that still hold the address."""
    rows = done.suppressions
    return {
        "address": str(person),
        "known": done.known,
        "removed": {kind: done.removed[kind] for kind in KINDS},
        "shared": list(done.shared),
        "undecided": list(done.undecided),
        "kept": {
            "suppressions": [{"scope": scope_word(r[1], numbers), "reason": reason_word(r[2])} for r in rows],
            "audit_rows": done.audit_rows,
            "refusals": done.refusals,
        },
        "copies": list(copies),
    }


def text(fact: Mapping[str, Any]) -> str:
    """The same in words."""
    shown = one_line(fact["address"])
    if not fact["known"]:
        return f"{shown}: nothing is known of them, and nothing was written down"
    gone = [f"  {number:>6,}  {KINDS[kind]}" for kind, number in fact["removed"].items() if number]
    lines = [
        f"{shown}: forgotten",
        "",
        "removed:",
        *(gone or ["       nothing that named them"]),
        "",
        "kept, under a keyed digest:",
    ]
    rows = [f"{r['reason']} ({r['scope']})" for r in fact["kept"]["suppressions"]]
    lines += [f"  {row}" for row in rows] or ["  no suppression: they may be mailed"]
    lines.append(
        f"  {fact['kept']['audit_rows']:,} audit rows and {fact['kept']['refusals']:,} refusals that name nobody"
    )
    return "\n".join(lines)
