"""What the lists of others look like and mean: one function for each, from a row's cells to what it says of a person.

A dialect knows neither files nor CSV or JSON: it is given a row as {normalised name: cell} and says for what reason, since
when and for which lists, or why the row suppresses nobody. Each docstring names where its columns come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from typing import Final, NamedTuple

from daemon.exchange import words
from daemon.exchange.rows import NotUnderstood
from daemon.exchange.words import SUBSCRIBED, Record, Strange, say
from storage.terms import REASONS, SOURCES


class Said(NamedTuple):
    """What a row says of the person on it; as the fields of rows.Entry, but `since` is as written."""

    reason: str = ""
    since: str = ""
    scopes: tuple[str, ...] = ()
    source: str = ""
    note: str = ""


Read = Callable[[Record], Said | str]  # str: why the row suppresses nobody. Raises Strange, NotUnderstood


@dataclass(frozen=True, slots=True)
class Dialect:
    """`address`: names of its column of addresses; `bare`: the columns of
    its CSV where that has no header."""

    format: str
    title: str
    address: tuple[str, ...]
    fits: Callable[[Set[str]], bool]
    read: Read
    bare: tuple[str, ...] = ()


# ------------------------------------------------------------------ generic

_FLAGS: Final = (
    "opt_out optout opted_out optedout email_opt_out hasoptedoutofemail has_opted_out_of_email email_optout do_not_email"
    " donotemail do_not_mail do_not_contact donotcontact dnc unsubscribed unsubscribe unsubscribed_from_all_email blacklisted"
    " blocklisted suppressed"
).split()
_COUNTER_FLAGS: Final = (
    "subscribed is_subscribed opt_in optin opted_in active enabled consent accepts_marketing accepts_email_marketing"
).split()
_STATUS: Final = "reason status state subscription_status email_status suppression_reason".split()
_SINCE: Final = (
    "since unsubscribed_at opted_out_at unsub_time suppressed_at bounced_at date timestamp time updated_at created created_at"
    " createdat"  # what says when it was asked goes before what says when a contact was made
).split()


def generic(row: Record) -> Said | str:
    """Anybody's table: `list` or `scope`, `reason` or a status, a yes/no column, a date and a source, where there are such."""
    return generic_for(row.keys())(row)


def generic_for(names: Iterable[str]) -> Read:
    """The same for rows that all have these columns: which of them say something is found out once."""
    there = set(names)
    status = next((n for n in _STATUS if n in there), "")
    flags = [(n, True) for n in _FLAGS if n in there] + [(n, False) for n in _COUNTER_FLAGS if n in there]
    since = [n for n in _SINCE if n in there]
    notes = [n for n in ("note", "notes", "comment") if n in there]
    scope = next((n for n in ("scope", "list") if n in there), "")

    def read(row: Record) -> Said | str:
        value = say(row, status) if status else ""
        reason = words.status(status, value) if value else ""
        if reason in ("", SUBSCRIBED) and any(yes and words.flag(c, say(row, c)) for c, yes in flags):
            reason = "opt-out"  # `unsubscribed: 1` is said of the person; `valid` beside it may be of the address
        if value and reason == SUBSCRIBED:
            return f"{status}: {value[:40]}"
        if not reason and flags:
            said = _flagged(row, flags)
            if said != "opt-out":
                return said
            reason = said
        scopes = words.scopes(scope, say(row, scope)) if scope else ()
        return Said(reason, say(row, *since), scopes, _source(row), say(row, *notes)[:500])

    return read if status or flags or since or scope or notes or "source" in there else anyone


def _flagged(row: Record, flags: list[tuple[str, bool]]) -> str:
    """`opt-out` if every yes/no column says so, else which one does not."""
    for column, yes in flags:
        if words.flag(column, say(row, column)) != yes:
            return f"{column}: {'no' if yes else 'yes'}"
    return "opt-out"


def _scopes(row: Record) -> tuple[str, ...]:
    column = words.first_of(row, ("scope", "list"))
    return words.scopes(column, say(row, column)) if column else ()


def _source(row: Record) -> str:
    """Only our own words: what others call a source (`website`) is where an address came from."""
    found = say(row, "source").lower()
    return found if found in SOURCES else ""


def own(row: Record) -> Said | str:
    """What `optoutd export` writes: email,scope,reason,since,source."""
    reason = say(row, "reason")
    if reason and reason not in REASONS:
        raise Strange("reason", reason)
    return Said(reason, say(row, "since"), _scopes(row), _source(row))


def anyone(row: Record) -> Said | str:
    """A list of nothing but addresses."""
    return Said()


# ------------------------------------------------------------------ services

_SES: Final = {"bounce": "hard-bounce", "complaint": "complaint"}


def ses(row: Record) -> Said | str:
    """Amazon SES, account-level suppression list: `aws sesv2 list-suppressed-destinations`, and its bulk CSV and NDJSON."""
    return Said(words.one_of("Reason", say(row, "reason"), _SES), say(row, "lastupdatetime"))


def sendgrid(row: Record) -> Said | str:
    """SendGrid, suppressions by API (JSON) or dashboard (CSV): each kind of list has columns of its own.

    Bounces and blocks: status, reason, email, created. Invalid addresses: reason, email, created. Spam reports: ip, email,
    created. Global unsubscribes: email, created. Group unsubscribes: email, group_id, group_name, created_at.
    """
    since = say(row, "created", "created_at")
    if "ip" in row:
        return Said("complaint", since)
    if "group_id" in row or "group_name" in row:
        group = " ".join(filter(None, (say(row, "group_id"), say(row, "group_name"))))
        return Said("opt-out", since, note=f"group {group}"[:500])
    if "reason" in row or "status" in row:
        return _bounced(say(row, "status"), say(row, "reason"), since)
    return Said("opt-out", since)


def mailgun(row: Record) -> Said | str:
    """Mailgun, suppressions by API (JSON `items`) or dashboard (CSV), a list each.

    Bounces: address, code, error, created_at. Unsubscribes: address, tags (`*` is everything), created_at. Complaints:
    address, created_at.
    """
    since = say(row, "created_at", "createdat")
    if "code" in row or "error" in row:
        code = say(row, "code")
        return _bounced("", f"{code} {say(row, 'error')}".strip(), since)
    if tag := words.first_of(row, ("tags", "tag")):
        tags = say(row, tag).strip("[]").replace('"', "")
        return Said(
            "opt-out", since, ("all",) if "*" in tags else (), note=f"tags {tags}"[:500] if tags.strip("*") else ""
        )
    return Said("complaint", since)


def _bounced(status: str, text: str, since: str) -> Said | str:
    """Services also list whom they could not reach for our own sake: blocks and policy suppress nobody."""
    from daemon.mail.diagnosis import diagnose

    found = diagnose("", status, text)
    if found.cause == "policy":
        return f"blocked by policy, which says nothing of the address: {f'{status} {text}'.strip()[:80]}"
    if found.status.startswith("4") or text.startswith("4"):
        return f"a passing failure: {f'{status} {text}'.strip()[:80]}"
    return Said("hard-bounce", since, note=f"{status} {text}".strip()[:500])


_POSTMARK: Final = {"hardbounce": "hard-bounce", "spamcomplaint": "complaint", "manualsuppression": "opt-out"}


def postmark(row: Record) -> Said | str:
    """Postmark, suppression dump of a message stream: EmailAddress, SuppressionReason, Origin, CreatedAt.

    ManualSuppression by the Recipient is an opt-out, by Customer or Admin the operator's word.
    """
    column = words.first_of(row, ("suppressionreason", "suppression_reason"))
    reason = words.one_of(column, say(row, column).replace(" ", ""), _POSTMARK)
    if reason == "opt-out" and say(row, "origin").lower() in ("customer", "admin"):
        reason = "operator"
    return Said(reason, say(row, "createdat", "created_at"))


_MAILCHIMP: Final = {
    "unsubscribed": "opt-out",
    "cleaned": "hard-bounce",
    **dict.fromkeys(("subscribed", "pending", "transactional", "archived"), SUBSCRIBED),
}


def mailchimp(row: Record) -> Said | str:
    """Mailchimp, audience export: unsubscribed (UNSUB_TIME, UNSUB_REASON) and cleaned (CLEAN_TIME); API `members` (status).

    An audience is one list of many: for which of ours it counts the list does not say.
    """
    if "clean_time" in row:
        return Said("hard-bounce", say(row, "clean_time"), note=say(row, "clean_campaign_title")[:500])
    if "unsub_time" in row:
        why = say(row, "unsub_reason", "unsub_reason_other")
        return Said("complaint" if "abuse" in why.lower() else "opt-out", say(row, "unsub_time"), note=why[:500])
    if "status" not in row:
        raise NotUnderstood(
            "this is Mailchimp's export of subscribed contacts, none of whom opted out: take its unsubscribed_ and cleaned_"
            " files (if all of these are to be suppressed, say so with --format csv)"
        )
    reason = words.one_of("status", say(row, "status"), _MAILCHIMP)
    if reason == SUBSCRIBED:
        return f"status: {say(row, 'status')}"
    return Said(reason, say(row, "last_changed", "timestamp_opt"))


_SPARKPOST: Final = {
    "spam complaint": "complaint",
    "list unsubscribe": "opt-out",
    "unsubscribe link": "opt-out",
    "bounce rule": "hard-bounce",
    "manually added": "operator",
    "compliance": "operator",
}
_SPARKPOST_TYPES: Final = {"transactional": "opt-out", "non_transactional": "opt-out"}


def sparkpost(row: Record) -> Said | str:
    """SparkPost, suppression list: recipient, type, source, description, created, updated; as CSV and as JSON `results`.

    Without a source (its upload CSV has none) a description that is one of our reasons is taken as that: export writes it.
    """
    source, description = say(row, "source"), say(row, "description")
    reason = words.one_of("type", say(row, "type").replace("-", "_"), _SPARKPOST_TYPES)
    if source:
        reason = words.one_of("source", source, _SPARKPOST)
    elif description in REASONS:
        reason = description
    return Said(reason, say(row, "created", "updated"), note=description[:500])


_LISTMONK: Final = {
    "blocklisted": "opt-out",
    "unsubscribed": "opt-out",
    "disabled": "operator",
    **dict.fromkeys(("enabled", "confirmed", "unconfirmed"), SUBSCRIBED),
}


def listmonk(row: Record) -> Said | str:
    """listmonk, subscriber export: uuid, email, name, attributes, status, created_at, updated_at; API `results`.

    `blocklisted` gets no mail at all, `disabled` was switched off by the operator. In the API a subscriber has `lists`,
    each with a subscription_status.
    """
    reason = words.one_of("status", say(row, "status"), _LISTMONK)
    since = say(row, "updated_at", "created_at")
    if reason != SUBSCRIBED:
        return Said(reason, since)
    lists = row.get("lists")
    states = [x.get("subscription_status") for x in lists if isinstance(x, dict)] if isinstance(lists, list) else []
    if "unsubscribed" not in states:
        return f"status: {say(row, 'status')}"
    if set(states) == {"unsubscribed"}:
        return Said("opt-out", since)
    return "left some lists only: export those who left a list by itself, and import that with --list"


_MAUTIC: Final = "donotcontact do_not_contact dnc donotemail do_not_email dnc_email dnc_reason reason".split()
_MAUTIC_REASONS: Final = {
    **dict.fromkeys(("1", "unsubscribed", "true", "yes"), "opt-out"),
    **dict.fromkeys(("2", "bounced", "bounce"), "hard-bounce"),
    **dict.fromkeys(("3", "manual"), "operator"),
    **dict.fromkeys(("0", "", "false", "no", "contactable"), SUBSCRIBED),
}


def mautic(row: Record) -> Said | str:
    """Mautic, contacts with a Do Not Contact column, or a report on do-not-contact entries with `channel` and `reason`.

    The numbers are those of its DoNotContact entity: 0 contactable, 1 unsubscribed, 2 bounced, 3 manual.
    """
    channel = say(row, "channel").lower()
    if channel not in ("", "email"):
        return f"channel: {channel[:40]}"
    column = words.first_of(row, _MAUTIC)
    reason = words.one_of(column, say(row, column), _MAUTIC_REASONS)
    if reason == SUBSCRIBED:
        return "may be contacted"
    return Said(reason, say(row, "date_added", "dateadded", "dnc_date"), note=say(row, "comments")[:500])


# ------------------------------------------------------------------ Postfix

_REFUSING: Final = frozenset("REJECT DISCARD".split())
_OTHERWISE: Final = frozenset(
    (
        "OK PERMIT DUNNO RELAY DEFER DEFER_IF_PERMIT DEFER_IF_REJECT HOLD WARN FILTER REDIRECT BCC INFO PREPEND"
        " PERMIT_MYNETWORKS PERMIT_SASL_AUTHENTICATED"
    ).split()
)


def postfix(row: Record) -> Said | str:
    """A Postfix access map (access(5)): a pattern and an action. Refused are REJECT, DISCARD and 5xx."""
    action, _, text = say(row, "action").partition(" ")
    verb = action.upper()
    if verb in _OTHERWISE or (verb.isdigit() and not verb.startswith("5")):
        return f"action: {verb}"
    if verb not in _REFUSING and not (len(verb) == 3 and verb.isdigit()):
        raise Strange("action", action)
    last = text.rpartition(": ")[2].strip()  # as export writes it
    return Said(last if last in REASONS else "operator", note=text.strip()[:500])


# ------------------------------------------------------------------ the table of them


def _has(*names: str) -> Callable[[Set[str]], bool]:
    wanted = frozenset(names)
    return lambda found: wanted <= found


def _within(needed: tuple[str, ...], allowed: str) -> Callable[[Set[str]], bool]:
    every = {*needed, *allowed.split()}
    return lambda found: found >= frozenset(needed) and found <= every


def _is_own(found: Set[str]) -> bool:
    return bool(found & {"email", "address"}) and {"scope", "reason", "since"} <= found


def _is_sendgrid(found: Set[str]) -> bool:
    groups = {"email", "group_id"} <= found
    return groups or _within(("email", "created"), "status reason ip")(found)


def _is_mailchimp(found: Set[str]) -> bool:
    marks = {"unsub_time", "clean_time", "leid", "euid", "member_rating", "optin_time", "unique_email_id"}
    return "email_address" in found and bool(found & marks)


def _is_postmark(found: Set[str]) -> bool:
    return bool(found & {"emailaddress", "email_address"}) and bool(found & {"suppressionreason", "suppression_reason"})


def _is_mautic(found: Set[str]) -> bool:
    report = {"channel", "reason"} <= found and bool(found & {"lead_id", "contact_id", "date_added"})
    return "email" in found and (
        report or bool(found & {"donotcontact", "donotemail", "dnc", "dnc_email", "dnc_reason"})
    )


DIALECTS: Final = (
    Dialect("optoutd", "optoutd", ("email", "address"), _is_own, own),
    Dialect(
        "ses",
        "Amazon SES",
        ("emailaddress",),
        _within(("emailaddress", "reason"), "lastupdatetime attributes"),
        ses,
        ("emailaddress", "reason", "lastupdatetime"),
    ),
    Dialect("sendgrid", "SendGrid", ("email",), _is_sendgrid, sendgrid),
    Dialect(
        "mailgun",
        "Mailgun",
        ("address",),
        _within(("address", "created_at"), "code error tags tag count id message_hash"),
        mailgun,
    ),
    Dialect("postmark", "Postmark", ("emailaddress", "email_address"), _is_postmark, postmark),
    Dialect("mailchimp", "Mailchimp", ("email_address",), _is_mailchimp, mailchimp),
    Dialect("sparkpost", "SparkPost", ("recipient",), _has("recipient", "type"), sparkpost),
    Dialect("listmonk", "listmonk", ("email",), _has("uuid", "email", "status"), listmonk),
    Dialect("mautic", "Mautic", ("email",), _is_mautic, mautic),
)
BY_NAME: Final = {d.format: d for d in DIALECTS}
