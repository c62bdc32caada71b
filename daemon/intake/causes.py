"""Of which cause is a bounce or a complaint? A name for each that the brake can be pulled on (pure).

A wrong refusal is somebody's: of one mail service, with one status. So bounces go by the organisation whose server said no
(Remote-MTA, else Reporting-MTA: who made it up himself), not by the recipient's domain: a large service takes the mail of
thousands of domains, and refuses us for all of them at once. A report that names no server is of the recipient's domain.
Complaints go by who reports them.
"""

from __future__ import annotations

import re
from typing import Final

from daemon.mail.reading import Failed
from storage import brake
from storage.address import NotAnAddress, parse

_HOST = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62})(?:\.[a-z0-9][a-z0-9-]{0,62}){1,8}", re.ASCII)
# Below a country: registries that give out names one level further down, as in example.co.uk.
_SECOND: Final = frozenset(("ac", "co", "com", "edu", "go", "gob", "gouv", "gov", "ne", "net", "nom", "or", "org"))
_NOBODY: Final = "unknown"


def of_bounce(failed: Failed) -> brake.What:
    """`bounces:outlook.com/5.1.1`; `none` for a report without a status."""
    name = f"bounces:{_organisation(failed.host) or _domain_of(failed.recipient)}/{failed.status or 'none'}"
    return name if brake.is_name(name) else name.partition("/")[0]


def of_complaint(reporter: str) -> brake.What:
    """`complaints:reporter.example`. `reporter`: who the report is from, an address or ""."""
    return f"complaints:{_domain_of(reporter)}"


def together(causes: set[brake.What]) -> brake.What:
    """What several causes of one kind have in common: the widest that is narrow enough for all, at last the kind."""
    first, *others = sorted(causes)
    return next(wide for wide in brake.wider(first) if all(wide in brake.wider(other) for other in others))


def _domain_of(address: str) -> str:
    try:
        return _organisation(parse(address).domain) or _NOBODY
    except NotAnAddress:
        return _NOBODY


def _organisation(host: str) -> str:
    """`outlook.com` of `company-com.mail.protection.outlook.com`; "" for what is no name of a host, such as an IP address.

    By a short rule instead of the public suffix list: two that are taken for one wait together, which costs a decision.
    """
    found = _HOST.fullmatch(host.lower().rstrip(".")[:260])
    if found is None:
        return ""
    labels = found[0].split(".")
    if labels[-1].isdigit():
        return ""
    deep = len(labels[-1]) == 2 and labels[-2] in _SECOND
    return ".".join(labels[-3 if deep else -2 :])[-90:].lstrip(".-")
