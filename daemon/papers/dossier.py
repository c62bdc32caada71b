"""What `show --for-subject` hands over: all we hold on a person, in words they can read (GDPR Art. 15)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Final

from daemon.texts import one_line
from storage.terms import reason_word, scope_word, when

if TYPE_CHECKING:
    from datetime import datetime

    from storage.address import Address
    from storage.engine import Ledger
    from storage.refusals import Refusal
    from storage.subject import Entry, Held, Message, Notice, Review
    from storage.suppressions import RawRow

_WIDTH: Final = 78
_BLANK: Final = "[to be completed]"
_REASONS: Final = {
    "opt-out": "you asked not to get it",
    "complaint": "you, or your mail provider for you, marked our mail as spam",
    "operator": "one of our staff entered it",
    "hard-bounce": "mail to this address was returned as undeliverable for good",
    "soft-bounce": "mail to this address was returned several times; this ends by itself",
    "wanted": "you asked to get this list all the same",
}
_SOURCES: Final = {
    "mail": "a message to us",
    "one-click": "the unsubscribe button or link of a mail",
    "page": "our preferences page",
    "api": "another program of ours",
    "phone": "a phone call",
    "letter": "a letter",
    "operator": "our staff",
    "import": "a list that we took over from another program",
    "dsn": "a report of a mail server that mail could not be delivered",
    "arf": "a spam report of a mail provider",
}
_EVENTS: Final = {
    "suppressed": "put on the list of people who are not mailed",
    "lifted": "taken off that list",
    "erased": "your data were erased, all but what keeps mail from you",
    "bounce": "a mail to you came back",
    "complaint": "a spam report came in",
    "re-keyed": "the entry was written anew under another key",
}
_OUTCOMES: Final = {
    "refused": "not sent to you",
    "stripped": "you were left out of it",
    "withdrawn": "stopped at the last moment",
    "would-refuse": "would have been stopped (we were only observing then)",
    "service": "sent all the same, for it was no marketing (a receipt, a password)",
}
_NOTICES: Final = {
    "confirm": "we told you that you are off the list",
    "comeback": "we asked whether you want our mail again",
}
_NOTICE_STATES: Final = {"owed": "not sent yet", "sent": "sent", "dropped": "not sent"}

_ARTICLE_15: Final = """
Who is responsible (Art. 4 (7)): {controller}; address, contact, data protection officer: {blank}

Why it is processed (a): so that you get no marketing mail that you objected to (Art. 21 (3)) or that cannot reach you, and
so that we can prove that. Nothing else is done with it. Legal basis: {blank}

What kinds of data (b): your address or a keyed digest of it; when, how and in which words you asked; which of our mails
were stopped; reports of mail servers that could not deliver to you.

Who gets it (c): nobody outside, by this program. Who else works on our machines (hosting): {blank}

How long it is kept (d): that you are not to be mailed, for as long as it stands, or it would not work. What explains it,
while it stands; once it has ended, {evidence} from when it was written. Which mail was stopped: {refusals}. That a message
was none of this: {ordinary}. What a doubtful message said, after the decision: {review_excerpt}. Your address for a mail
that this program writes to you, until it is sent, and that it was sent, 30 days. Counters: 30 to 60 days.

Your rights (e): you may have this corrected or erased (Art. 16, 17), have its use restricted (Art. 18), or object
(Art. 21). If it is erased, the keyed digest stays, so that you are not mailed again.

You may complain (f) to a supervisory authority. Ours: {blank}

Where it comes from (g): that is said above, of each entry.

Automated decisions (h): a program reads mail to us by rules and a small statistical model, which look for a request to be
left alone. If it is sure, you get no more marketing mail; if in doubt, a person decides. There is no profiling.

Transfer to a third country (Art. 15 (2)): none by this program. Where our machines stand: {blank}

What this program cannot lead back to you: of every message to our mailbox it notes a number and a digest, so as not to
read it twice. What it cannot see: the messages themselves, the logs of our mail servers, our customer records and mailing
tools, backups. From those: {blank}
"""


# ------------------------------------------------------------------ facts


def made(ledger: Ledger, person: Address, by: str, kept_days: Mapping[str, int], now: datetime) -> dict[str, Any]:
    """The facts as the ledger has them. `by`: who is responsible; `kept_days`: section retention of the config.

    Looks through the whole ledger. Raises Unavailable.
    """
    from storage.subject import held
    from storage.suppressions import list_numbers

    with ledger.reading() as db:
        return facts(held(db, ledger.site_key, person), by, kept_days, list_numbers(db), now)


def facts(of: Held, by: str, kept_days: Mapping[str, int], numbers: dict[str, int], now: datetime) -> dict[str, Any]:
    """Everything as one JSON object; keys always there."""
    return {
        "address": str(of.address),
        "made": when(now),
        "controller": by,
        "forgotten": of.forgotten,
        "addresses": list(of.addresses),
        "suppressions": [_row(of, r, numbers) for r in of.suppressions],
        "history": [_entry(e, numbers) for e in of.entries],
        "named_in": [{"at": when(at), **detail} for at, detail in of.named_in],
        "messages": [_message(m) for m in of.messages],
        "reviews": [_review(r) for r in of.reviews],
        "refusals": [_refusal(r, numbers) for r in of.refusals],
        "notices": [_notice(n) for n in of.notices],
        "soft_bounces": [when(day) for day in of.soft_bounces],
        "unproven": [{"hour": when(hour), "requests": count} for hour, count in of.unproven],
        "kept_days": dict(kept_days),
    }


def _row(of: Held, row: RawRow, numbers: dict[str, int]) -> dict[str, Any]:
    key, scope, reason, since, ref = row
    again = [at for s, r, at in of.asked_again if (s, r) == (scope, reason)]
    own = key in of.traces.keys
    kind = "person" if own else "digest" if row in of.traces.hashed else "domain"
    return {
        "scope": scope_word(scope, numbers),
        "reason": reason_word(reason),
        "since": when(since),
        "asked_again": when(max(again)) if again and own else None,
        "of": kind,
        "source": next((e.fact.source for e in of.entries if e.fact.evidence == ref), None),
        "ref": ref,
    }


_PARTICULARS: Final = "address mailbox folder uid message_id words rules weighed proof note because".split()


def _entry(entry: Entry, numbers: dict[str, int]) -> dict[str, Any]:
    fact, detail = entry.fact, entry.fact.detail or {}
    return {
        "at": when(fact.at),
        "event": fact.event,
        "scope": None if fact.scope is None else scope_word(fact.scope, numbers),
        "reason": reason_word(fact.reason),
        "source": fact.source,
        **{name: detail.get(name) or None for name in _PARTICULARS},
        "kept": fact.detail is not None or fact.evidence is None,
        "ref": fact.evidence,
        "seq": fact.seq,
    }


def _message(m: Message) -> dict[str, Any]:
    return {
        "mailbox": m.mailbox,
        "folder": m.folder,
        "uid": m.uid,
        "message_id": m.message_id or None,
        "received": when(m.received),
        "label": m.label,
    }


def _review(r: Review) -> dict[str, Any]:
    told = {name: value or None for name, value in r._asdict().items() if name in ("words", "excerpt", "note")}
    return {
        "id": r.number,
        "received": when(r.received),
        "from_you": r.is_sender,
        "about_you": r.is_named,
        "scope": r.scope,
        "rules": r.rules,
        **told,
        "state": r.state,
        "decided": when(r.decided),
    }


def _refusal(r: Refusal, numbers: dict[str, int]) -> dict[str, Any]:
    return {
        "at": when(r.at),
        "outcome": r.outcome,
        "list": scope_word(r.list_number, numbers).removeprefix("list:") if r.list_number else None,
        "reason": reason_word(r.reason or None),
        "message_id": r.message_id or None,
    }


def _notice(n: Notice) -> dict[str, Any]:
    return {"at": when(n.at), "kind": n.kind, "state": n.state, "address": n.address or None}


# ------------------------------------------------------------------ text


def text(fact: Mapping[str, Any]) -> str:
    """The facts as a letter to the person."""
    parts = [
        _heading(f"What {fact['controller']} holds about {fact['address']}", "="),
        *_paragraph(
            f"Made on {fact['made']} (all times are UTC) from the records of optoutd, the program that keeps the list of"
            " people to whom we send no marketing mail."
        ),
        *_section("Your address", _of_address(fact)),
        *_section("Why you get no (or less) marketing mail from us", map(_of_row, fact["suppressions"])),
        *_section("What happened, in order", map(_of_entry, fact["history"])),
        *_section("Other records that name you", map(_of_naming, fact["named_in"])),
        *_section("Messages to us that are on record", map(_of_message, fact["messages"])),
        *_section("Messages that one of our staff had to look at", map(_of_review, fact["reviews"])),
        *_section("Our mail to you that was stopped", map(_of_refusal, fact["refusals"])),
        *_section("Mail that this program wrote to you", map(_of_notice, fact["notices"])),
        *_section("Counters", _of_counters(fact)),
        *_section("Your rights, and what the law wants you to know (GDPR Art. 15)", _article_15(fact)),
    ]
    return "\n".join(parts) + "\n"


def blanks(written: str) -> int:
    """How many places the operator has to complete before it is handed over."""
    return " ".join(written.split()).count(_BLANK)


def _heading(title: str, line: str = "-") -> str:
    return f"{title}\n{line * min(len(title), _WIDTH)}"


def _paragraph(words: str, indent: str = "") -> list[str]:
    return ["", *wrap(words, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)]


def _section(title: str, items: Iterable[Sequence[str]]) -> list[str]:
    """Each item: a first line, and what belongs to it."""
    lines = ["", "", _heading(title), ""]
    there = list(items)
    for first, *rest in there:
        lines += wrap(f"- {first}", _WIDTH, subsequent_indent="  ", break_on_hyphens=False)
        for more in rest:
            lines += wrap(more, _WIDTH, initial_indent="    ", subsequent_indent="      ", break_on_hyphens=False)
    return lines if there else [*lines, "Nothing."]


def _lines(*named: tuple[str, Any]) -> list[str]:
    """`name: value` of what there is; what others wrote on one line, and quoted."""
    return [f"{name}: {one_line(str(value))}" for name, value in named if value not in (None, "", [])]


def _of_address(fact: Mapping[str, Any]) -> list[list[str]]:
    items = [
        [f"{address}, kept beside the entries below so that we can answer for them"] for address in fact["addresses"]
    ]
    if fact["forgotten"]:
        items.append(
            [
                "Your address was erased. What is left is a keyed digest of it: it tells nobody who you are, and keeps mail from you."
            ]
        )
    return items


def _of_row(row: Mapping[str, Any]) -> list[str]:
    """A standing suppression."""
    what = (
        "all our marketing mail" if row["scope"] == "all" else f"the mailing list {row['scope'].removeprefix('list:')}"
    )
    whose = "" if row["of"] != "domain" else "; it is about your whole domain, not about you alone"
    return [
        f"Since {row['since']}: {what}, because {_REASONS.get(row['reason'], row['reason'])}{whose}",
        *_lines(
            ("we have it from", _SOURCES.get(row["source"], row["source"])),
            ("asked again", row["asked_again"]),
            ("reference", row["ref"]),
        ),
    ]


def _of_entry(entry: Mapping[str, Any]) -> list[str]:
    scope = f" ({entry['scope']})" if entry["scope"] else ""
    why = f": {_REASONS.get(entry['reason'], entry['reason'])}" if entry["reason"] else ""
    gone = [] if entry["kept"] else ["the particulars are no longer kept"]
    return [f"{entry['at']}: {_EVENTS.get(entry['event'], entry['event'])}{scope}{why}", *_particulars(entry), *gone]


def _particulars(entry: Mapping[str, Any]) -> list[str]:
    place = f"{entry.get('mailbox')}, number {entry.get('uid')}" if entry.get("mailbox") and entry.get("uid") else None
    return _lines(
        ("we have it from", _SOURCES.get(entry.get("source") or "", entry.get("source"))),
        ("address", entry.get("address")),
        ("message", entry.get("message_id")),
        ("in our mailbox", place),
        ("words", entry.get("words")),
        ("rules by which a program read it", ", ".join(entry.get("rules") or [])),
        ("words that weighed most", ", ".join(entry.get("weighed") or [])),
        ("how sure we were who wrote it", entry.get("proof")),
        ("reason given", entry.get("because")),
        ("note of our staff", entry.get("note")),
    )


def _of_naming(detail: Mapping[str, Any]) -> list[str]:
    return [
        f"{detail['at']}: a decision, or a request of somebody else, in which your address occurs",
        *_particulars(detail),
    ]


def _of_message(m: Mapping[str, Any]) -> list[str]:
    place = f"in our mailbox {m['mailbox']}, folder {m['folder']}, number {m['uid']}"
    return [
        f"{m['received'] or 'date unknown'}: read as {m['label'] or 'nothing'}",
        place,
        *_lines(("message", m["message_id"])),
    ]


def _of_review(r: Mapping[str, Any]) -> list[str]:
    how = "from you" if r["from_you"] else "about you" if r["about_you"] else "with your address in it"
    decided = "not decided yet" if r["state"] == "open" else f"{r['state']} on {r['decided']}"
    rules = ", ".join(r["rules"])
    named = ("words", r["words"]), ("rules", rules), ("note of our staff", r["note"]), ("what it said", r["excerpt"])
    return [f"{r['received']}: {how}; {decided}", *_lines(*named)]


def _of_refusal(r: Mapping[str, Any]) -> list[str]:
    of = f" (list {r['list']})" if r["list"] else ""
    return [f"{r['at']}: {_OUTCOMES[r['outcome']]}{of}", *_lines(("message", r["message_id"]))]


def _of_notice(n: Mapping[str, Any]) -> list[str]:
    return [f"{n['at']}: {_NOTICES.get(n['kind'], n['kind'])} ({_NOTICE_STATES.get(n['state'], n['state'])})"]


def _of_counters(fact: Mapping[str, Any]) -> list[list[str]]:
    days = [[f"{day[:10]}: a mail to you came back for the time being"] for day in fact["soft_bounces"]]
    hours = [
        [f"{u['hour']}: {u['requests']} request(s) in this hour that nobody could prove"] for u in fact["unproven"]
    ]
    return days + hours


def _kept(days: int) -> str:
    return f"{days:,} days" if days else "without a limit in time"


def _article_15(fact: Mapping[str, Any]) -> list[list[str]]:
    """Every letter of Art. 15 (1), answered; what only the operator knows is left to be completed."""
    days = {name: _kept(number) for name, number in fact["kept_days"].items()}
    answered = _ARTICLE_15.format(controller=one_line(fact["controller"]), blank=_BLANK, **days)
    return [[" ".join(paragraph.split())] for paragraph in answered.strip().split("\n\n")]
