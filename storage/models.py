"""The schema.

Times are whole seconds since 1970 UTC in the database and aware datetimes outside. Outsiders may read
`suppression(key, scope, reason, since, evidence)` and `audit(seq, ...)`.
"""

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import BigInteger, Index, Integer, LargeBinary, MetaData, TypeDecorator, UniqueConstraint
from sqlmodel import Field, SQLModel

from storage.terms import seconds

NAMES: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
SQLModel.metadata = MetaData(naming_convention=NAMES)  # Alembic needs names to alter constraints on both databases


class Utc(TypeDecorator[datetime]):
    """Aware datetimes in Python, whole seconds UTC in the database; a naive one is a bug and is refused."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> int | None:
        """Python to database."""
        return None if value is None else seconds(value)

    def process_result_value(self, value: int | None, dialect: Any) -> datetime | None:
        """Database to Python."""
        return None if value is None else datetime.fromtimestamp(value, UTC)


class Meta(SQLModel, table=True):
    """Facts about the ledger itself: `check` (the site key's check value), `head` (of the audit chain), `needs` (the oldest
    revision whose code can still use this schema), `hashes` (kinds of foreign hash rows there are), `epoch` (which restore
    this is, storage.journal), `taken` (of a backup: when), `deferred` (storage.deferral), `brake` (storage.brake),
    and of a mailbox `canary NAME` (storage.canaries), `gap NAME` (storage.gaps)."""

    name: str = Field(primary_key=True)
    value: bytes


class ListNumber(SQLModel, table=True):
    """A mailing list's number, never reused: tokens and scopes carry it."""

    __tablename__ = "list_number"
    number: int | None = Field(default=None, primary_key=True)
    id: str = Field(unique=True)


class Suppression(SQLModel, table=True):
    """The narrow table that answers every RCPT: a row per reason, any row suppresses (unless `wanted`)."""

    __table_args__ = ({"sqlite_with_rowid": False},)
    key: bytes = Field(sa_type=LargeBinary(16), primary_key=True)
    scope: int = Field(sa_type=Integer, primary_key=True)
    reason: int = Field(sa_type=Integer, primary_key=True)
    since: int = Field(sa_type=BigInteger)
    evidence: int = Field(sa_type=BigInteger)


class Person(SQLModel, table=True):
    """The plain address beside a key, kept only with `storage.keep_addresses`."""

    __table_args__ = ({"sqlite_with_rowid": False},)
    key: bytes = Field(primary_key=True)
    address: str


class Evidence(SQLModel, table=True):
    """What an audit row is about, in full: JSON and its salt, which may both go when a person is forgotten."""

    id: int | None = Field(default=None, primary_key=True)
    at: datetime = Field(sa_type=Utc)
    salt: bytes | None = None
    detail: str | None = None


class Audit(SQLModel, table=True):
    """The chained record of every state change: no personal data, so that it can stay when a person is forgotten."""

    seq: int = Field(primary_key=True)
    at: datetime = Field(sa_type=Utc)
    actor: str
    event: str
    key: bytes | None = Field(default=None, index=True)
    scope: int | None = None
    reason: int | None = None
    source: str | None = None
    evidence: int | None = Field(default=None, index=True)
    digest: bytes | None = None  # SHA-256(salt || detail) of the evidence
    standing: bytes  # keyed digest of the whole set of suppression rows after this transaction
    mac: bytes


class Incoming(SQLModel, table=True):
    """A message we have seen: where it lies, what it was read as, and what is still owed to it."""

    __table_args__ = (
        UniqueConstraint("mailbox", "folder", "uidvalidity", "uid"),
        Index("ix_incoming_mailbox_state", "mailbox", "state"),
    )
    id: int | None = Field(default=None, primary_key=True)
    mailbox: str
    folder: str
    uidvalidity: int = Field(sa_type=BigInteger)
    uid: int = Field(sa_type=BigInteger)
    state: str  # reading | done | owed (is to be filed into `target`) | filed | settled (a person dealt with it)
    attempts: int = 0
    target: str = ""
    digest: bytes | None = None
    size: int | None = None
    message_id: str = Field(default="", index=True)
    internaldate: datetime | None = Field(default=None, sa_type=Utc)
    label: str = ""
    evidence: int | None = Field(default=None)


class WatchedFolder(SQLModel, table=True):
    """Where the reading of a folder began: mail from `uidnext` on is ours, and what is older only back to `since`."""

    __tablename__ = "watched_folder"
    __table_args__ = ({"sqlite_with_rowid": False},)
    mailbox: str = Field(primary_key=True)
    folder: str = Field(primary_key=True)
    uidvalidity: int = Field(sa_type=BigInteger, primary_key=True)
    uidnext: int = Field(sa_type=BigInteger)
    since: datetime = Field(sa_type=Utc)


class ReviewItem(SQLModel, table=True):
    """A doubtful mail that waits for a person, or what the person decided."""

    __tablename__ = "review"
    id: int | None = Field(default=None, primary_key=True)
    incoming: int | None = Field(default=None, index=True)
    at: datetime = Field(sa_type=Utc)
    sender: str = ""
    addresses: str = "[]"  # JSON: whom accepting would suppress
    scope: str = "all"
    rules: str = "[]"
    words: str = ""
    language: str = ""
    excerpt: str = ""
    wish: str = "review"  # the label of the reading: says what accepting does
    state: str = Field(default="open", index=True)  # open | accepted | rejected
    decided: datetime | None = Field(default=None, sa_type=Utc)
    note: str = ""


class SoftBounce(SQLModel, table=True):
    """The days on which an address bounced softly: counted, and forgotten after the window."""

    __tablename__ = "soft_bounce"
    __table_args__ = ({"sqlite_with_rowid": False},)
    key: bytes = Field(primary_key=True)
    day: int = Field(primary_key=True)  # days since 1970


class OutboxNotice(SQLModel, table=True):
    """A mail that we owe a person ourselves. The plain address goes when it is sent; the key keeps a second one away."""

    __tablename__ = "outbox"
    __table_args__ = (Index("ix_outbox_state_due", "state", "due"),)
    id: int | None = Field(default=None, primary_key=True)
    at: datetime = Field(sa_type=Utc)
    kind: str  # confirm | comeback
    key: bytes = Field(index=True)
    address: str
    language: str
    scopes: str  # JSON: the numbers of what it is about
    proven: int
    state: str  # owed | sent | dropped
    attempts: int = 0
    due: datetime = Field(sa_type=Utc)


class AskedAgain(SQLModel, table=True):
    """When what a suppression row stands for was last asked again: the row itself keeps the first time."""

    __tablename__ = "asked_again"
    __table_args__ = ({"sqlite_with_rowid": False},)
    key: bytes = Field(primary_key=True)
    scope: int = Field(primary_key=True)
    reason: int = Field(primary_key=True)
    at: datetime = Field(sa_type=Utc)


class Unproven(SQLModel, table=True):
    """How many requests that nobody proved were acted on: by the hour they came in (since 1970), and by writer.

    In hours far ahead: how many people each cause of bounces and complaints has suppressed (storage.brake)."""

    __table_args__ = ({"sqlite_with_rowid": False},)
    hour: int = Field(primary_key=True)
    writer: bytes = Field(primary_key=True)
    count: int


class RefusedRecipient(SQLModel, table=True):
    """A recipient whom the relay refused, or would have: the words are those of storage.refusals."""

    __tablename__ = "refusal"
    id: int | None = Field(default=None, primary_key=True)
    at: datetime = Field(sa_type=Utc, index=True)
    outcome: str
    key: bytes = Field(index=True)
    list: int  # its number; 0: of no list we know
    reason: int
    credential: str
    message_id: str = Field(index=True)
    evidence: int = Field(sa_type=BigInteger)  # what the reply called `ref`
    others: int  # recipients of the same transaction who got the message: told by one refusal of it, 0 in the rest


class RelayTally(SQLModel, table=True):
    """How many recipients (or messages) had which outcome at the relay, by the hour (since 1970)."""

    __tablename__ = "tally"
    __table_args__ = ({"sqlite_with_rowid": False},)
    hour: int = Field(primary_key=True)
    list: int = Field(primary_key=True)
    credential: str = Field(primary_key=True)
    outcome: str = Field(primary_key=True)
    reason: int = Field(primary_key=True)
    count: int = Field(sa_type=BigInteger)


class Forgotten(SQLModel, table=True):
    """A key whose person was erased: the suppression stays, and nothing ever refills the address beside it."""

    __table_args__ = ({"sqlite_with_rowid": False},)
    key: bytes = Field(primary_key=True)


class ImportRun(SQLModel, table=True):
    """An import, and how far it has come: the same file again goes on there, and changes nothing once it has ended."""

    __tablename__ = "import_run"
    id: int | None = Field(default=None, primary_key=True)
    digest: bytes = Field(unique=True)  # of the file's octets and of what was asked to be done with it
    file: str
    at: datetime = Field(sa_type=Utc)
    position: int = Field(sa_type=BigInteger)  # rows of the file whose fate is committed
    added: int = Field(sa_type=BigInteger)
    already: int = Field(sa_type=BigInteger)
    skipped: int = Field(sa_type=BigInteger)
    bad: int = Field(sa_type=BigInteger)
    finished: int


class Lease(SQLModel, table=True):
    """Which node does what: watches a mailbox, runs the jobs, sends notices. `until`: the database's clock."""

    __table_args__ = ({"sqlite_with_rowid": False},)
    role: str = Field(primary_key=True)
    holder: str
    until: int = Field(sa_type=BigInteger)


class Hook(SQLModel, table=True):
    """A program that is told of changes: how far in the audit log it has come, and when it is tried again."""

    name: str = Field(primary_key=True)
    reached: int = Field(sa_type=BigInteger)  # the sequence number of the last audit row that is dealt with
    failures: int  # in a row
    due: int = Field(sa_type=BigInteger)  # not before then (seconds since 1970)
    trouble: str  # why the last try failed; "" if it did not


class Undelivered(SQLModel, table=True):
    """A change that a program could not be told of in time; somebody may have it sent again."""

    id: int | None = Field(default=None, primary_key=True)
    hook: str = Field(index=True)
    seq: int = Field(sa_type=BigInteger)
    at: datetime = Field(sa_type=Utc)
    trouble: str


class Answered(SQLModel, table=True):
    """What a request to the API with an Idempotency-Key came to, so that the same request again gets the same answer.

    `key`: of the program's name and its Idempotency-Key; `request`: a digest of what was asked. No address in it.
    """

    __table_args__ = ({"sqlite_with_rowid": False},)
    key: bytes = Field(primary_key=True)
    at: datetime = Field(sa_type=Utc, index=True)
    request: bytes
    status: int
    ref: int = Field(sa_type=BigInteger)


class JobRun(SQLModel, table=True):
    """When a job last ended well."""

    __tablename__ = "job_run"
    name: str = Field(primary_key=True)
    at: datetime = Field(sa_type=Utc)


class AlarmRow(SQLModel, table=True):
    """Something that wants a person: standing while `ended` is empty. No address in it."""

    __tablename__ = "alarm"
    id: int | None = Field(default=None, primary_key=True)
    kind: str
    about: str  # which one of several
    node: str  # that found it last; "": there is only one
    detector: str
    since: datetime = Field(sa_type=Utc)
    seen: datetime = Field(sa_type=Utc)  # when it was found last
    text: str
    advice: str
    told: datetime | None = Field(default=None, sa_type=Utc)  # when it was last mailed
    ended: datetime | None = Field(default=None, sa_type=Utc, index=True)
    closed: datetime | None = Field(default=None, sa_type=Utc)  # when its end was mailed, or was not to be
