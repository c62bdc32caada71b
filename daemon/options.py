"""Every option: its type, default and limit.

A section is a frozen pydantic model; its fields are the options of the TOML file, in the order of config.example.toml
(tests/test_config.py holds the two together). What reads the file is daemon/config.py.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from daemon.values import (
    CLEAR_TEXT,
    FILED_IN_CIRCLES,
    ONE_WAY_IN,
    Colour,
    Database,
    Domain,
    EMail,
    HeaderName,
    HookEvent,
    HookUrl,
    HostName,
    Language,
    Listen,
    ListenHere,
    ListenOrNot,
    ListId,
    Mode,
    Name,
    Network,
    PlainEMail,
    Port,
    PublicUrl,
    Purpose,
    Right,
    SenderId,
    Text,
    Tls,
    TokenUrl,
    as_tuple,
    at_odds,
    host_port,
    is_loopback,
)


class Section(BaseModel):
    """A table of the file. Frozen, no unknown keys, no silent conversions ("30" is not 30)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


# ------------------------------------------------------------------ the sections


class MailingList(Section):
    """A named kind of marketing mail. Its id is for ever; a list gone from here keeps its rows."""

    id: ListId
    list_id: str = ""  # RFC 2919 value, as in the List-Id of its mailings
    title: str = ""
    names: tuple[str, ...] = ()  # what people call it
    sender: EMail = ""


class House(Section):
    """Who we are: what reading a message needs to know."""

    name: Annotated[str, Field(min_length=1)]
    domains: tuple[Domain, ...] = ()  # ours, with subdomains
    addresses: tuple[EMail, ...] = ()  # mailboxes people write to
    form_addresses: tuple[EMail, ...] = ()  # senders of our own web forms
    authserv_id: str = ""  # whose Authentication-Results we trust; "" = nobody's
    operators_mail: EMail = ""  # who is told of alarms, and gets the digest; "" = nobody. Never suppressed
    language: Language = "en"  # of what we write to people whose own language we cannot tell
    lists: tuple[MailingList, ...] = Field((), exclude=True)  # filled in by load(); not an option

    def owns(self, domain: str) -> bool:
        """Is this domain one of ours, or below one of ours?"""
        domain = domain.lower().removesuffix(".")
        return any(domain == d or domain.endswith("." + d) for d in self.domains)

    def is_ours(self, address: str) -> bool:
        """Is this one of the addresses people write to (plus tags aside), or of our own web forms?"""
        local, _, domain = address.lower().rpartition("@")
        bare = f"{local.partition('+')[0]}@{domain}"
        return any(a.lower() in (bare, address.lower()) for a in (*self.addresses, *self.form_addresses))

    def never_suppresses(self, address: str) -> bool:
        """Is this ours, the operators', or one that our own mailings come from?"""
        others = filter(None, (self.operators_mail, *(x.sender for x in self.lists)))
        return self.is_ours(address) or any(address.lower() == other.lower() for other in others)


class Storage(Section):
    """Where the ledger and its key are."""

    url: Database = "sqlite:///optoutd.db"
    password_file: str = ""  # of a PostgreSQL user who needs one
    key_file: str = "site.key"
    create: bool = True  # may `run` create database and key when both are missing?
    keep_addresses: bool = True
    same_person: tuple[Literal["tag", "alias"], ...] = ("tag", "alias")
    backup_dir: str = ""  # hourly backups, 48 kept, and the journal of keys; "" = none


class OAuth2(Section):
    """Where access tokens come from that log in to a mailbox, instead of a password: a program, or a token server.

    What of the server's kinds of grant it is, follows from what is given: `service_account_file` (Google), else
    `refresh_token_file`, else the client's own credentials.
    """

    token_command: tuple[Text, ...] = ()  # prints a token; no shell
    token_url: TokenUrl = ""
    client_id: str = ""
    client_secret_file: str = ""
    refresh_token_file: str = ""
    service_account_file: str = ""  # the JSON key of a Google service account
    scope: str = ""
    login: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$")] = ""  # whose mailbox; default: mailbox.username
    mechanism: Literal["auto", "xoauth2", "oauthbearer"] = "auto"
    ca_file: str = ""  # of the token server

    @model_validator(mode="after")
    def _one_source(self) -> OAuth2:
        wrong = next(at_odds(self.model_dump()), None)
        if wrong:
            raise ValueError(": ".join(wrong))
        return self


class Mailbox(Section):
    """An IMAP account that people write to (role support), or that our bounces return to (role bounces)."""

    name: Name
    host: Annotated[str, Field(min_length=1)]
    port: Port = 993
    tls: Literal["implicit", "starttls", "none"] = "implicit"
    ca_file: str = ""
    username: Annotated[str, Field(min_length=1)]
    password_file: str = ""  # or oauth2
    folders: Annotated[tuple[str, ...], BeforeValidator(as_tuple), Field(min_length=1)] = ("INBOX",)
    role: Literal["support", "bounces"] = "support"
    processed_folder: str = "Opt-outs"  # "" leaves honoured requests in place
    machine_folder: str = ""  # "" leaves recorded bounces and complaints
    first_days: Annotated[int, Field(ge=0, le=3650)] = 30
    poll_seconds: Annotated[int, Field(ge=1, le=540)] = 60  # Office 365 forgets an IDLE after about ten minutes
    subaddress: Literal["", "+"] = ""  # "+" once support+x@ is known to arrive
    trusted_only: bool = False  # what nobody proved waits for a person at once
    observe: bool = False  # read and report, act on nothing
    canary: bool = True  # a message of ours every day, to see that a request is honoured
    oauth2: OAuth2 | None = None

    @model_validator(mode="before")
    @classmethod
    def _folder_is_folders(cls, data: object) -> object:
        if isinstance(data, dict) and "folder" in data:
            if "folders" in data:
                raise ValueError("folder: give either folder or folders")
            data = {**{k: v for k, v in data.items() if k != "folder"}, "folders": data["folder"]}
        return data

    @model_validator(mode="after")
    def _no_clear_text(self) -> Mailbox:
        if self.tls == "none" and not is_loopback(self.host):
            raise ValueError(f"tls: {CLEAR_TEXT}")
        if {self.processed_folder, self.machine_folder} & set(self.folders):
            raise ValueError(FILED_IN_CIRCLES)
        if bool(self.password_file) == (self.oauth2 is not None):
            raise ValueError(f"password_file: {ONE_WAY_IN}")
        return self


class Intake(Section):
    """What is done with requests, bounces and complaints that nobody proved."""

    unproven_per_hour: Annotated[int, Field(ge=0)] = 20  # acted on at once; one writer at most 3 of 20; 0: none


class Brake(Section):
    """When the brake is pulled by itself: so many people suppressed in an hour by bounces, or complaints, of one cause.

    With much mail more is usual: so many per cent of those whom the relay passed in 24 hours, where that is more.
    """

    bounces_per_hour: Annotated[int, Field(ge=0)] = 200  # 0: never by itself
    bounces_percent: Annotated[int, Field(ge=0, le=100)] = 5
    complaints_per_hour: Annotated[int, Field(ge=0)] = 100
    complaints_percent: Annotated[int, Field(ge=0, le=100)] = 1


class Bounce(Section):
    """When temporary failures become a suppression, and for how long."""

    soft_limit: Annotated[int, Field(ge=1)] = 5  # on different days
    soft_window_days: Annotated[int, Field(ge=1)] = 30
    soft_days: Annotated[int, Field(ge=1)] = 30


class Listener(Section):
    """An address to listen on with rules of its own; what is not given is as in [relay]."""

    address: Listen
    tls: Tls | None = None
    cert_file: str | None = None
    key_file: str | None = None
    auth: bool | None = None
    list: ListId | None = None  # of all mail that comes in here
    mode: Mode | None = None
    purpose: Purpose | None = None
    senders: tuple[Domain, ...] | None = None


class Credential(Section):
    """A user name and password for SMTP AUTH, and what applies to mail that is sent with them."""

    username: Annotated[str, Field(min_length=1)]
    password_file: Annotated[str, Field(min_length=1)]
    list: ListId | None = None
    mode: Mode | None = None
    purpose: Purpose | None = None
    senders: tuple[Domain, ...] | None = None


class Relay(Section):
    """The SMTP door. Beyond loopback it takes mail only from who has logged in, under TLS: never an open relay."""

    listen: Annotated[tuple[Listen, ...], BeforeValidator(as_tuple)] = ("127.0.0.1:2525",)
    hostname: Domain = "localhost"
    mode: Mode = "refuse"
    purpose: Purpose = "marketing"  # service: receipts, password resets; only hard bounces stop them
    tls: Tls = "none"
    cert_file: str = ""
    key_file: str = ""
    auth: bool | None = None  # default: true off loopback, or as soon as a credential exists
    senders: tuple[Domain, ...] = ()  # allowed MAIL FROM domains; () = any, for those who may send at all
    stamp: bool = True  # add List-Unsubscribe fields
    existing: Literal["keep", "replace"] = "keep"  # those that came with the message
    feedback_id: SenderId = ""  # the sender part of Gmail's Feedback-ID; "" = no such field
    cfbl_address: PlainEMail = ""  # where complaints are reported to (RFC 9477); "" = no such field
    max_size: Annotated[int, Field(ge=1024)] = 36_700_160  # octets
    max_recipients: Annotated[int, Field(ge=1)] = 1000
    max_messages: Annotated[int, Field(ge=0)] = 0  # on one connection; 0 = any number
    max_connections: Annotated[int, Field(ge=1)] = 1000
    max_per_client: Annotated[int, Field(ge=0)] = 200  # connections of one network; 0 = any number; loopback always
    idle_timeout: Annotated[int, Field(ge=1)] = 300  # seconds; RFC 5321 4.5.3.2.7 asks for 300
    bare_newline: Literal["refuse", "normalise"] = "refuse"
    listener: tuple[Listener, ...] = ()
    credential: tuple[Credential, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _long_form_instead(cls, data: object) -> object:
        return {"listen": (), **data} if isinstance(data, dict) and data.get("listener") else data

    def listeners(self) -> tuple[Listener, ...]:
        """Every listener with all its rules: the short form's, and the long form's with what it does not say."""
        inherited = ("tls", "cert_file", "key_file", "auth", "mode", "purpose", "senders")
        short = [Listener(address=address) for address in self.listen]
        found = []
        for listener in (*short, *self.listener):
            given = {name: getattr(listener, name) for name in inherited}
            filled = {name: getattr(self, name) if value is None else value for name, value in given.items()}
            if filled["auth"] is None:
                filled["auth"] = bool(self.credential) or not is_loopback(host_port(listener.address)[0])
            found.append(listener.model_copy(update=filled))
        return tuple(found)


class Endpoint(Section):
    """A mail server to pass mail on to."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Port = 25
    tls: Tls = "none"  # always verified
    ca_file: str = ""
    username: str = ""
    password_file: str = ""


class Upstream(Endpoint):
    """The MTA that takes the mail from us, and those that stand in for it, in order."""

    timeout: Annotated[int, Field(ge=1)] = 60  # seconds for one reply; the reply to the dot: 570
    connections: Annotated[int, Field(ge=1)] = 20
    fallback: tuple[Endpoint, ...] = ()


class Notices(Section):
    """The mail that we write to people ourselves, through the upstream."""

    confirm: bool = True  # tell people that they are off the list, with a way back; ask who wants to come back
    sender: EMail = ""  # default: the first of house.addresses


class Operator(Section):
    """Somebody who may log in to the console, and what they may do there."""

    name: Name
    password_file: str = ""  # the password, or its argon2 hash; "" = only a trusted proxy lets them in
    rights: tuple[Right, ...] = get_args(Right)


class ApiToken(Section):
    """A program that may use the API, and what for."""

    name: Name
    token_file: Annotated[str, Field(min_length=1)]
    rights: Annotated[tuple[Right, ...], Field(min_length=1)]


class Web(Section):
    """The HTTP door. Without a [web] section it does not start."""

    listen: ListenOrNot = "127.0.0.1:8025"  # off loopback it serves the public paths only; "" = not there
    public_listen: ListenOrNot = ""  # only /u /p /undo /static /healthz: where a reverse proxy points
    public_url: PublicUrl = ""  # https base of one-click links; "" = no one-click stamped
    colour: Colour = ""  # of buttons and links on the pages that people see; "" = ours
    trusted_proxies: tuple[Network, ...] = ()  # whose X-Forwarded-For and X-Forwarded-Proto are believed
    user_header: HeaderName = ""  # where such a proxy names the operator it has let in; "" = they log in here
    console_host: HostName = (
        ""  # by which browsers know the console behind such a proxy; "" = any, if there is no user_header
    )
    admin_password_file: str = ""  # one operator "admin" with all rights
    max_upload: Annotated[int, Field(ge=1024)] = 2_147_483_648  # octets of a list that is imported here
    operator: tuple[Operator, ...] = ()
    token: tuple[ApiToken, ...] = ()

    @model_validator(mode="after")
    def _two_addresses(self) -> Web:
        if self.listen and self.listen == self.public_listen and host_port(self.listen)[1]:
            raise ValueError("public_listen: the same as listen, which serves the public paths too")
        return self


class Webhook(Section):
    """Where changes of the list are told to another program, each signed."""

    name: Name
    url: HookUrl
    secret_file: Annotated[str, Field(min_length=1)]  # of the signature: at least 24 characters
    events: Annotated[tuple[HookEvent, ...], Field(min_length=1)] = get_args(HookEvent)
    ca_file: str = ""


class Postfix(Section):
    """The policy service: guards mail that does not pass the relay."""

    policy: ListenHere = ""  # "127.0.0.1:10031"
    list: ListId | Literal[""] = ""  # of all that is asked there, if the question names none


class Retention(Section):
    """For how many days records are kept; 0 = for ever."""

    evidence: Annotated[int, Field(ge=0)] = 2190
    refusals: Annotated[int, Field(ge=0)] = 400
    ordinary: Annotated[int, Field(ge=0)] = 400
    review_excerpt: Annotated[int, Field(ge=0)] = 90


class Duty(Section):
    """From when on something is an alarm for house.operators_mail, and when it gets the digest."""

    due_hours: Annotated[int, Field(ge=1)] = 48  # a request must have been dealt with
    review_hours: Annotated[int, Field(ge=1)] = 24  # a doubtful mail waits for a person
    silent_minutes: Annotated[int, Field(ge=1)] = 15  # a mailbox does not answer
    disk_free_mb: Annotated[int, Field(ge=0)] = 1024  # are left where database, backups or log lie
    digest: Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday", ""] = "monday"


class Log(Section):
    """What is logged, and how."""

    format: Literal["auto", "json", "text"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"
    addresses: Literal["digest", "plain"] = "digest"


class Config(Section):
    """The whole file. Only what composes and `cli` see it; a door gets its own section plus house and lists."""

    house: House
    list: tuple[MailingList, ...] = ()
    storage: Storage = Storage()
    mailbox: tuple[Mailbox, ...] = ()
    intake: Intake = Intake()
    brake: Brake = Brake()
    bounce: Bounce = Bounce()
    relay: Relay = Relay()
    upstream: Upstream | None = None
    notices: Notices = Notices()
    web: Web = Web(listen="")
    webhook: tuple[Webhook, ...] = ()
    postfix: Postfix = Postfix()
    retention: Retention = Retention()
    duty: Duty = Duty()
    log: Log = Log()
