"""Why may somebody (not) be mailed? Everything a person page says, in words for people who do not know how it works."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, get_args

from sqlalchemy import Connection

from daemon import telling
from daemon.gate import Gate, Refused
from daemon.mail.rules import RULES
from daemon.web.console.searching import Someone
from daemon.web.context import Context
from storage import forgotten, hashes, incoming, suppressions
from storage.address import Address, FormKind, NotAnAddress, SiteKey, forms, hash_keys, keys_of, parse, person
from storage.engine import Unavailable, Unusable
from storage.lookup import Row
from storage.refusals import Kept
from storage.routes import is_routed, meant
from storage.suppressions import RawRow
from storage.terms import ALL, REASONS, Reason, scope_word

BECAUSE: Final = {
    "opt-out": "the person asked to be left alone",
    "complaint": "the person, or their mail provider for them, reported our mail as spam",
    "hard-bounce": "mail to it came back as undeliverable for good",
    "soft-bounce": "mail to it came back again and again; this ends by itself",
    "operator": "one of us entered it",
    "wanted": "the person asked to get this list all the same",
}
SOURCES: Final = {
    "mail": "a mail to us",
    "one-click": "the unsubscribe link or button of a mail",
    "page": "our preferences page",
    "api": "another program of ours",
    "phone": "a phone call",
    "letter": "a letter",
    "operator": "one of us",
    "import": "an imported list",
    "dsn": "a mail server's report that mail could not be delivered",
    "arf": "a provider's report of spam",
}
EVENTS: Final = {
    "suppressed": "Suppressed",
    "lifted": "Taken off the list again",
    "erased": "The person was forgotten",
    "bounce": "A bounce came in",
    "complaint": "A complaint came in",
    "review-accepted": "A doubtful mail was accepted",
    "review-rejected": "A doubtful mail was rejected",
    "imported": "Brought by an import",
    "exported": "Exported",
    "restored": "A backup was restored",
    "brake": "The brake was pulled or released",
    "re-keyed": "Written anew under another site key",
    "refused": "The relay refused a mail to them",
    "stripped": "The relay left them out of a mail",
    "withdrawn": "The relay stopped a mail to them at the last moment",
    "would-refuse": "The relay would have refused a mail to them, but only observes",
    "service": "The relay let a service mail pass that an opt-out does not stop",
}
_STEPS: Final[dict[FormKind, str]] = {
    "exact": "the address itself, in small letters",
    "tag": "without what follows the +, because mail to both arrives in one mailbox",
    "alias": "as this provider has it: other spellings that it delivers to the same mailbox",
    "domain": "everybody at this domain, and at domains below it",
    "hash": "a digest of the address, as lists without addresses have it (MD5, SHA-256)",
}
_OF_RELAY: Final = get_args(Kept)
_MOST_WAITING: Final = 1_000  # open items of the queue that are looked through


class Step(NamedTuple):
    """A form that is asked for: what it is, whether something stands under it, and whether a new row would be written there."""

    kind: FormKind
    form: str
    explained: str
    hits: tuple[str, ...]
    is_own: bool


def page(db: Connection, gate: Gate, of: Context, who: Someone) -> dict[str, Any]:
    """All facts of a person page. Give a connection with a consistent snapshot, and the gate of this thread."""
    site_key, numbers = of.ledger.site_key, suppressions.list_numbers(db)
    standing = suppressions.standing(db, site_key, who.whom)
    story = telling.story(db, site_key, who.whom, numbers)
    steps = list(_ladder(db, of, who, standing))
    rows, doubt = _asked(gate, who, standing)
    kinds = _kinds(db, site_key, who)
    return {
        "who": who,
        "name": str(who.address) if who.address else None,
        "is_domain": bool(who.address and who.address.is_domain),
        "key": who.whom.hex() if isinstance(who.whom, bytes) else None,
        "doubt": doubt,
        "verdict": None if doubt else _answer(gate, rows, None),
        "lists": [] if doubt else [_of_list(gate, of, rows, i, numbers) for i in _lists(of, numbers, standing)],
        "steps": steps,
        "rows": [
            {**told, "kind": kinds.get(row[0], "exact"), "scope_number": row[1], "rank": row[2]}
            for told, row in zip(story["suppressions"], standing, strict=True)
        ],
        "history": list(_pasts(reversed(story["history"]))),
        "refusals": sum(p["event"] in _OF_RELAY for p in story["history"]),
        "forgotten": forgotten.is_marked(db, site_key, who.whom),
        "waiting": _waiting(db, site_key, who),
        "routes": _routes(who.address),
        "reply": _reply(gate, rows, who),
    }


def _asked(gate: Gate, who: Someone, standing: Sequence[RawRow]) -> tuple[list[Row], str | None]:
    """The rows as the gate finds them, or why it cannot tell."""
    if isinstance(who.whom, bytes):
        return [Row("exact", *row[1:]) for row in standing], None
    try:
        return gate.rows(who.whom), None
    except (Unavailable, Unusable) as why:
        return [], str(why)


def _kinds(db: Connection, site_key: SiteKey, who: Someone) -> dict[bytes, FormKind]:
    if isinstance(who.whom, bytes):
        return {who.whom: "exact"}
    return dict(reversed(keys_of(site_key, who.whom, hashes.kinds(db))))


# ------------------------------------------------------------------ the verdict


def _answer(gate: Gate, rows: Sequence[Row], list_id: str | None) -> dict[str, Any]:
    """May mail of this list go there (None: of no list in particular)? Why not, and since when."""
    answer = gate.judge(rows, list_id)
    if not isinstance(answer, Refused):
        return {"may": True}
    found = answer.verdict
    return {
        "may": False,
        "reason": found.reason.word,
        "because": BECAUSE[found.reason.word],
        "since": found.since,
        "matched": found.matched,
        "all": found.scope == ALL,
        "ref": found.evidence,
    }


def _reply(gate: Gate, rows: Sequence[Row], who: Someone) -> str | None:
    """What the relay answers to mail of no list in particular."""
    answer = gate.judge(rows, None)
    return answer.reply(str(who.address)) if isinstance(answer, Refused) and who.address else None


def _lists(of: Context, numbers: dict[str, int], standing: Sequence[RawRow]) -> list[str]:
    """The lists of the house, and those that are gone from the config but still count here."""
    ours = [x.id for x in of.house.lists]
    scopes = {row[1] for row in standing}
    return ours + sorted(i for i, number in numbers.items() if number in scopes and i not in ours)


def _of_list(gate: Gate, of: Context, rows: Sequence[Row], list_id: str, numbers: dict[str, int]) -> dict[str, Any]:
    number = numbers.get(list_id)
    wishes = [r.since for r in rows if r.reason == Reason.WANTED and r.scope == number]
    title = next((x.title or x.id for x in of.house.lists if x.id == list_id), None)
    known = gate if number is None or list_id in gate.numbers else gate.renumbered(numbers)
    answer = _answer(known, rows, list_id)
    return {"id": list_id, "title": title, "wanted": max(wishes, default=None), **answer}


# ------------------------------------------------------------------ the ladder of forms


def _ladder(db: Connection, of: Context, who: Someone, standing: Sequence[RawRow]) -> Iterator[Step]:
    """The forms in which an address is looked for, narrow to wide."""
    if who.address is None or isinstance(who.whom, bytes):
        return
    site_key, numbers = of.ledger.site_key, suppressions.list_numbers(db)
    own = person(who.address, of.ledger.same_person)
    for kind, form in forms(who.address):
        keys = set(site_key.address_keys(form))
        yield Step(kind, form, _STEPS[kind], _hits(standing, keys, numbers), form == own)
    asked = hashes.kinds(db)
    if asked and not who.address.is_domain:
        keys = set(hash_keys(who.address, asked))
        yield Step("hash", ", ".join(asked), _STEPS["hash"], _hits(standing, keys, numbers), is_own=False)


def _hits(standing: Sequence[RawRow], keys: set[bytes], numbers: dict[str, int]) -> tuple[str, ...]:
    return tuple(f"{Reason(r[2]).word} ({scope_word(r[1], numbers)})" for r in standing if r[0] in keys)


def _routes(address: Address | None) -> list[str]:
    """Whom a mail server may mean by it, where it reads a route into the address."""
    if address is None or address.is_domain or not is_routed(address):
        return []
    try:
        return [str(a) for a in meant(f"{address.local}@{address.domain}") if a != address]
    except NotAnAddress:
        return []


# ------------------------------------------------------------------ what happened, and what waits


def _pasts(history: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What happened, in words; what a reference leads to has its `anchor`."""
    anchors: set[str] = set()
    for past in history:
        anchor = f"ref-{past['ref']}" if past["ref"] and past["event"] not in _OF_RELAY else None
        rules = [(rule, RULES.get(rule)) for rule in past["rules"] or ()]
        title = EVENTS.get(past["event"], past["event"])
        yield {**past, "title": title, "rules": rules, "anchor": None if anchor in anchors else anchor}
        anchors |= {anchor} if anchor else set()


def _waiting(db: Connection, site_key: SiteKey, who: Someone) -> list[int]:
    """The open items of the review queue that are about this person: why a request has not been honoured yet."""
    if who.address is None or who.address.is_domain:
        return []
    own = {key for key, kind in keys_of(site_key, who.address) if kind != "domain"}
    found = []
    for number, people in incoming.waiting(db, _MOST_WAITING):
        for text in people:
            try:
                address = parse(text)
            except NotAnAddress:
                continue
            if own & {key for key, kind in keys_of(site_key, address) if kind != "domain"}:
                found.append(number)
                break
    return found


def reasons() -> tuple[str, ...]:
    """Those that an operator may give; `wanted` exempts one list from an opt-out of everything."""
    return ("operator", "opt-out", *(r for r in REASONS if r not in ("operator", "opt-out")))
