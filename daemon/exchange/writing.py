"""Our list, written as the lists of others: one function for each format, from a person to a line. Pure.

What the services take is what daemon/exchange/dialects.py reads. Their lists know neither scopes nor all of our reasons;
ours, `csv` (also called `optoutd`) and `ndjson`, keep every row as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple

from daemon.exchange.tables import escaped


class Leaving(NamedTuple):
    """What leaves of a row. `scope`: `all` or `list:ID`; `reason`, `source`: words of the contract; `since`: seconds UTC.

    `forms`: the spellings under which a list of hashes may know the person, in small letters.
    """

    address: str
    scope: str
    reason: str
    since: int
    source: str
    forms: tuple[str, ...] = ()

    @property
    def at(self) -> str:
        """When, as RFC 3339 in UTC."""
        return datetime.fromtimestamp(self.since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Writer:
    """How a format is written: `head`, a `line` for each, `between` two of them, `tail`.

    `whole`: every row, with its scope; else one line for a person who may not be mailed, whatever the reasons. `domains`:
    can it say that a whole domain is suppressed? A line "" cannot be said in the format.
    """

    line: Callable[[Leaving], str]
    head: str = ""
    between: str = ""
    tail: str = ""
    whole: bool = False
    domains: bool = False


def _csv(*names: str) -> str:
    return escaped(names)


def own(row: Leaving) -> str:
    """email,scope,reason,since,source"""
    return escaped((row.address, row.scope, row.reason, row.at, row.source))


def ndjson(row: Leaving) -> str:
    """An object a line, with the same names."""
    fact = {"email": row.address, "scope": row.scope, "reason": row.reason, "since": row.at, "source": row.source}
    return json.dumps(fact, ensure_ascii=False) + "\n"


def text(row: Leaving) -> str:
    """An address a line."""
    return row.address + "\n"


def ses(row: Leaving) -> str:
    """Amazon SES knows two reasons; who does not want mail is, to it, somebody who complained."""
    reason = "BOUNCE" if row.reason in ("hard-bounce", "soft-bounce") else "COMPLAINT"
    return json.dumps({"EmailAddress": row.address, "Reason": reason, "LastUpdateTime": row.at})


def sendgrid(row: Leaving) -> str:
    """SendGrid, global unsubscribes."""
    return escaped((row.address, str(row.since)))


def mailgun(row: Leaving) -> str:
    """Mailgun, unsubscribes from everything."""
    stamp = datetime.fromtimestamp(row.since, UTC).strftime("%a, %d %b %Y %H:%M:%S UTC")
    return escaped((row.address, "*", stamp))


_POSTMARK: Final = {
    "complaint": ("SpamComplaint", "Recipient"),
    "opt-out": ("ManualSuppression", "Recipient"),
    "operator": ("ManualSuppression", "Customer"),
    "hard-bounce": ("HardBounce", "Recipient"),
    "soft-bounce": ("HardBounce", "Recipient"),
}


def postmark(row: Leaving) -> str:
    """Postmark, as its suppression dump."""
    reason, origin = _POSTMARK[row.reason]
    return json.dumps({"EmailAddress": row.address, "SuppressionReason": reason, "Origin": origin, "CreatedAt": row.at})


def mailchimp(row: Leaving) -> str:
    """Mailchimp, as its export of unsubscribed contacts."""
    return escaped((row.address, row.at.replace("T", " ").rstrip("Z"), row.reason))


def sparkpost(row: Leaving) -> str:
    """SparkPost, as its suppression upload takes it."""
    return escaped((row.address, "non_transactional", row.reason))


def listmonk(row: Leaving) -> str:
    """listmonk, subscribers to be imported in `blocklist` mode."""
    return escaped(("", row.address, "", "{}", "blocklisted", row.at, row.at))


_MAUTIC: Final = {"opt-out": "1", "complaint": "1", "hard-bounce": "2", "soft-bounce": "2", "operator": "3"}


def mautic(row: Leaving) -> str:
    """Mautic, contacts with the number of its Do Not Contact reason."""
    return escaped((row.address, _MAUTIC[row.reason], row.at))


def postfix(row: Leaving) -> str:
    """A Postfix access map (access(5)); a domain stands for its subdomains, too. Keys with a space cannot be written."""
    pattern = row.address.lower().removeprefix("@")
    if any(c.isspace() or c in '"#' for c in pattern):
        return ""
    return f"{pattern}\t550 5.7.1 suppressed: {row.reason}\n"


def hashed(kind: str) -> Writer:
    """Hex digests (`md5`, `sha256`, `sha512`) of the addresses in small letters, one a line."""

    def line(row: Leaving) -> str:
        octets = (form.encode("utf-8", "surrogateescape") for form in row.forms)
        return "".join(f"{hashlib.new(kind, o, usedforsecurity=False).hexdigest()}\n" for o in octets)

    return Writer(line)


_OURS: Final = Writer(own, _csv("email", "scope", "reason", "since", "source"), whole=True, domains=True)
WRITERS: Final = {
    "csv": _OURS,
    "optoutd": _OURS,
    "ndjson": Writer(ndjson, whole=True, domains=True),
    "text": Writer(text),
    "ses": Writer(ses, '{"SuppressedDestinationSummaries": [\n', ",\n", "\n]}\n"),
    "sendgrid": Writer(sendgrid, _csv("email", "created")),
    "mailgun": Writer(mailgun, _csv("address", "tags", "created_at")),
    "postmark": Writer(postmark, '{"Suppressions": [\n', ",\n", "\n]}\n"),
    "mailchimp": Writer(mailchimp, _csv("Email Address", "UNSUB_TIME", "UNSUB_REASON")),
    "sparkpost": Writer(sparkpost, _csv("recipient", "type", "description")),
    "listmonk": Writer(listmonk, _csv("uuid", "email", "name", "attributes", "status", "created_at", "updated_at")),
    "mautic": Writer(mautic, _csv("email", "doNotContact", "date_added")),
    "postfix": Writer(postfix, domains=True),
}
HASHES: Final = ("md5", "sha256", "sha512")
