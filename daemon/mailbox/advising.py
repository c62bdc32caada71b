"""What to do about a log-in that fails, as far as the server's words tell the cause (pure).

Words and numbers of servers change; where they are not known there is no advice, and the words themselves are shown.
"""

from __future__ import annotations

import re
from typing import Final

CERTIFICATE: Final = (
    "the server's certificate does not fit its name, has expired, or is of a CA of your own:"
    " name the server as its certificate does, or give ca_file"
)
WRONG_TLS: Final = 'is it the right port for tls = "implicit" (993) or "starttls" (143)?'
_ANEW: Final = "log in again as its user, and put the new refresh token into refresh_token_file"
_NEW_CREDENTIAL: Final = (
    "the client secret is wrong or expired (Microsoft's last at most 24 months): make a new one,"
    " and put its value, not its id, into client_secret_file"
)
_APP: Final = (
    "client_id names no application that this token server knows: look at client_id, and at the tenant in token_url"
)
_CONSENT: Final = (
    "the application lacks a permission: for Microsoft 365 add the application permission IMAP.AccessAsApp"
    " and have an administrator consent to it; for a user's own mailbox log in again and consent"
)
_BLOCKED: Final = (
    "a rule of the organisation (second factor, Conditional Access) wants a person: log in again as its user, or use"
    " client credentials, or ask an administrator to let this application through"
)
_SCOPE: Final = (
    'scope is not one that the server knows: "https://outlook.office365.com/.default" for client credentials,'
    ' "https://outlook.office.com/IMAP.AccessAsUser.All offline_access" for a refresh token of Microsoft,'
    ' "https://mail.google.com/" for Google'
)
_TENANT: Final = "token_url must name your tenant: https://login.microsoftonline.com/TENANT/oauth2/v2.0/token"
_EXPIRED: Final = f"the refresh token has expired or was revoked: {_ANEW}"

# By the number in AADSTS..., of Microsoft's token server.
_MICROSOFT: Final[dict[str, str]] = {
    **dict.fromkeys(("7000215", "7000222", "70002"), _NEW_CREDENTIAL),
    **dict.fromkeys(("700016", "700011", "70001"), _APP),
    "7000112": "the application is disabled: an administrator can enable it among the enterprise applications",
    **dict.fromkeys(("90002", "9001023", "50194", "90124", "90130"), _TENANT),
    **dict.fromkeys(("65001", "65005", "650056", "90094", "500011"), _CONSENT),
    **dict.fromkeys(("70000", "70008", "700082", "70043", "50089"), _EXPIRED),
    **dict.fromkeys(("50173", "50132", "50133"), f"the password was changed, or all log-ins were revoked: {_ANEW}"),
    "700084": "the refresh token is of a single-page app and lives a day: register the application as mobile and desktop",
    **dict.fromkeys(("50072", "50074", "50076", "50078", "50079", "50158", "53000", "53003", "530032"), _BLOCKED),
    "50057": "the user's account is disabled: an administrator can enable it",
    **dict.fromkeys(
        ("50034", "51004", "50020"), "this tenant has no such user: look at token_url and at whose token it is"
    ),
    **dict.fromkeys(("70011", "28002", "700022", "700023", "1002012"), _SCOPE),
    "7000218": "the application has a client secret: give client_secret_file",
    "700025": "the application is a public one, without a secret: take client_secret_file out",
    "50196": "it was asked too often: it answers again after some minutes",
}

# By what a token server says in `error`, RFC 6749 5.2.
_ERRORS: Final[dict[str, str]] = {
    "invalid_grant": (
        "the refresh token has expired or was revoked (its user changed the password or took the consent back, it lay"
        f" unused for months, or, at Google, the consent screen is still in testing: seven days): {_ANEW}"
    ),
    "invalid_client": _NEW_CREDENTIAL,
    "unauthorized_client": _CONSENT,
    "invalid_scope": _SCOPE,
    "invalid_request": "look at token_url, client_id and scope",
    "unsupported_grant_type": "look at token_url: is it the address that gives tokens (.../token)?",
}

# The same, of a service account.
_ASSERTED: Final[dict[str, str]] = {
    "unauthorized_client": (
        "domain-wide delegation is missing: in the Google Admin console (Security, API controls, Domain-wide delegation)"
        " allow the service account's numeric client ID the scope https://mail.google.com/"
    ),
    "invalid_grant": (
        "is the key still one of the service account's, is `login` a user of the domain, and does this machine's clock"
        " show the right time?"
    ),
    "invalid_scope": "scope is not one that Google knows: leave it out, or give https://mail.google.com/",
}

_OTHER_WAY_IN: Final = "the account's own password is not taken here: make an app password, or use [mailbox.oauth2]"
_OUTLOOK: Final = "Microsoft takes no passwords for IMAP any more: use [mailbox.oauth2], docs/mailboxes.md says how"
# By host: what to do when a password is refused.
_PASSWORDS: Final = (
    (r"(?:^|\.)(?:office365|outlook|hotmail|live)\.com$", _OUTLOOK),
    (r"(?:^|\.)(?:gmail|googlemail|google)\.com$", _OTHER_WAY_IN),
    (
        r"(?:^|\.)(?:yahoo\.(?:com|co\.\w\w)|aol\.com|mail\.me\.com|fastmail\.com|yandex\.(?:com|ru)|zoho\.\w{2,3})$",
        _OTHER_WAY_IN,
    ),
    (
        r"(?:^|\.)(?:163|126|yeah|qq)\.(?:com|net)$",
        "this provider wants an authorisation code of its web mail instead of the password",
    ),
)
_EXCHANGE: Final = (
    "the token is good, the mailbox is not open to it. Client credentials: New-ServicePrincipal (with the object ID of"
    " the enterprise application, not of the app registration), then Add-MailboxPermission; both may take an hour."
    " A refresh token: its user needs full access to the mailbox that `login` names. IMAP may be off for it:"
    " Set-CASMailbox -ImapEnabled $true"
)
_GMAIL: Final = (
    "the token is good, the mailbox is not open to it: is the scope https://mail.google.com/, is `login` the user whose"
    " token it is, and does the administrator allow IMAP (Apps, Gmail, End User Access)?"
)
# By host: what to do when a token is refused that the token server gave.
_TOKENS: Final = (
    (r"(?:^|\.)(?:office365|outlook)\.com$", _EXCHANGE),
    (r"(?:^|\.)(?:gmail|googlemail|google)\.com$", _GMAIL),
)  # fmt: skip

_SLOW: Final = (
    "the provider slows this account down: use poll_seconds of 60 or more, and look for other programs that read the"
    " same mailbox"
)
_OFF: Final = "IMAP is switched off for this mailbox: switch it on in its settings, or ask its administrator"
_OVER: Final = "a token's time is over, and the server ends the session: optoutd logs in again with a new one"
_UNSAFE: Final = "this provider has blocked the log-in until mail programs are allowed in the settings of its web mail"
_SILENT: Final = "nothing answers there: look at host and port, and at firewalls on the way"
_STALE: Final = "the password has expired: set a new one, and put it into password_file"
_LATER: Final = "the server cannot check log-ins at the moment: it is asked again"

# By what an IMAP server says, or the system, at whatever step.
_SAID: Final = (
    (r"authenticated but not connected", _EXCHANGE),
    (r"AccessTokenExpired|session expired", _OVER),
    (r"not enabled for IMAP|IMAP access is disabled|imap is disabled", _OFF),
    (r"application-specific password|app(?:lication)? password", _OTHER_WAY_IN),
    (r"unsafe login", _UNSAFE),
    (r"throttled|bandwidth limits|too many (?:simultaneous )?connections|\[LIMIT\]", _SLOW),
    (r"OVERQUOTA|over quota|quota exceeded", "the mailbox is full: nothing can be filed in it until there is room"),
    (r"\[UNAVAILABLE\]|temporar(?:y|ily)", _LATER),
    (r"PRIVACYREQUIRED|LOGINDISABLED", 'the server wants encryption first: tls = "implicit" or "starttls"'),
    (r"\[EXPIRED\]|password (?:has )?expired", _STALE),
    (r"Name or service not known|No address associated", "there is no server of this name: look at host"),
    (r"Connection refused", "nothing listens there: look at host and port"),
    (r"timed out", _SILENT),
)


def of(why: str) -> str:
    """What is known of these words of a server, or of the system; "" if nothing is."""
    return next((advice for words, advice in _SAID if re.search(words, why, re.IGNORECASE)), "")


def of_token(error: str, description: str, *, asserted: bool) -> str:
    """A token server's `error` and `error_description`. `asserted`: it was asked for a service account."""
    number = re.search(r"AADSTS(\d{4,8})", description)
    known = _MICROSOFT.get(number[1]) if number else None
    return known or (asserted and _ASSERTED.get(error)) or _ERRORS.get(error, "")


def of_password(host: str, why: str) -> str:
    """A password was refused."""
    return of(why) or _by_host(_PASSWORDS, host) or "look at username, and at the secret in password_file"


def of_refused_token(host: str, why: str) -> str:
    """A token was refused that is fresh from its source."""
    return (
        of(why) or _by_host(_TOKENS, host) or "the token is good, but not for this mailbox: look at login and at scope"
    )


def _by_host(known: tuple[tuple[str, str], ...], host: str) -> str:
    return next((advice for name, advice in known if re.search(name, host.lower().rstrip("."))), "")
