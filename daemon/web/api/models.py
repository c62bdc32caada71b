"""What goes in and comes out, for the description (OpenAPI) and for the check of what comes in: nothing unknown is let
pass, for a slip in a name would turn a wish for one list into one for everything.

What goes out is worded by daemon.telling; the tests hold these models to it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from storage.terms import moment

MOST_ADDRESSES: Final = 10_000
MOST_ROWS: Final = 1_000
_LONGEST_NUMBER: Final = 2**63 - 1  # what a database takes


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _like(**example: Any) -> ConfigDict:
    """Described by an example."""
    return ConfigDict(json_schema_extra={"examples": [example]})


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)  # not strict: all of a query is text


class _Out(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("has a NUL in it, which PostgreSQL takes in no text")
    return text


def _said(text: str) -> str:
    if not text.strip():
        raise ValueError("must say something")
    return _storable(text)


def _moment(value: object) -> object:
    return moment(value) if isinstance(value, str) else value


Reason = Literal["complaint", "opt-out", "operator", "hard-bounce", "soft-bounce", "wanted"]
Source = Literal["mail", "one-click", "page", "api", "phone", "letter", "operator", "import", "dsn", "arf"]
Matched = Literal["exact", "hash", "tag", "alias", "domain"]
State = Literal["open", "accepted", "rejected"]
ListId = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$", examples=["newsletter"])]
InList = Annotated[ListId | None, Field(alias="list")]
AnAddress = Annotated[str, Field(min_length=3, max_length=1_000, examples=["ann@customer.example"])]
Text = Annotated[str, Field(max_length=2_000), AfterValidator(_storable)]
Because = Annotated[str, Field(min_length=1, max_length=2_000), AfterValidator(_said)]
Number = Annotated[int, Field(ge=0, le=_LONGEST_NUMBER)]
Since = Annotated[
    datetime,
    BeforeValidator(_moment),
    WithJsonSchema({"type": "string", "examples": ["2026-01-31", "2026-01-31T12:00:00Z"]}),
]
Cursor = Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z0-9_-]+$")]
Limit = Annotated[int, Field(ge=1, le=MOST_ROWS)]
When = Annotated[str, Field(json_schema_extra={"format": "date-time"}, examples=["2026-05-04T12:00:00Z"])]
Scope = Annotated[str, Field(description="`all`, or `list:ID`", examples=["all", "list:newsletter"])]
Ref = Annotated[int, Field(description="what explains it: `(ref N)` in a refusal of the relay", examples=[7])]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$", examples=["9d3f0c62a0b1a8f1c1de7a5f3b2c4d5e"])]

# ------------------------------------------------------------------ in


class Check(_In):
    """Whom, and for mail of which list (null: of none)."""

    model_config = _like(addresses=["ann@customer.example"], list="offers")

    addresses: Annotated[list[str], Field(max_length=MOST_ADDRESSES)]
    list_id: InList = None


class Wish(_In):
    """Who wishes to be left alone, and by which list (null: by all)."""

    model_config = _like(address="ann@customer.example", reason="opt-out", source="phone", note="called us")

    address: AnAddress
    list_id: InList = None
    reason: Reason = "operator"
    source: Source = "api"
    note: Text = ""


class Lift(_In):
    """Whose suppression ends: that for everything, or that for a list."""

    model_config = _like(address="ann@customer.example", list="offers", because="asked for it by phone")

    address: AnAddress
    because: Because
    list_id: InList = None


class Decision(_In):
    """What the person who decides says to it."""

    model_config = _like(note="clear enough")

    note: Text = ""


class Asked(_Query):
    """Which suppressions."""

    list_id: Annotated[ListId | None, Field(alias="list", description="only those for this list")] = None
    reason: Reason | None = None
    source: Source | None = None
    since: Annotated[Since | None, Field(description="only those that stand since then; UTC unless it says so")] = None
    cursor: Annotated[Cursor | None, Field(description="`next` of the page before")] = None
    limit: Annotated[Limit, Field(description="rows, at most")] = 500


class After(_Query):
    """From where on."""

    after: Annotated[Number, Field(description="`next` of the answer before; 0: from the beginning")] = 0
    limit: Annotated[Limit, Field(description="rows, at most")] = 500


class RefusedSince(_Query):
    """From when on."""

    since: Annotated[Since | None, Field(description="not those from before; UTC unless it says so")] = None
    cursor: Annotated[Number | None, Field(description="`next` of the answer before")] = None
    limit: Annotated[Limit, Field(description="rows, at most")] = 500


class InState(_Query):
    """Which of the queue."""

    state: Annotated[State | Literal["all"], Field(description="which")] = "open"
    after: Annotated[Number, Field(description="`next` of the page before")] = 0
    limit: Annotated[Limit, Field(description="items, at most")] = 100


# ------------------------------------------------------------------ out


class Problem(_Out):
    """RFC 9457."""

    model_config = ConfigDict(extra="allow")
    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] = Field(default=[], description="`pointer` (RFC 6901) or `parameter`, and `detail`")


class Checked(_Out):
    """May this one be mailed? `suppressed` is null where it cannot be told: `error` says why, and nobody is to be mailed."""

    address: str
    suppressed: bool | None
    scope: Scope | None
    reason: Reason | None
    since: When | None
    matched: Annotated[Matched | None, Field(description="the narrowest form of the address that hit")]
    lists: Annotated[list[str], Field(description="lists that this one has left, whatever was asked")]
    error: str | None


class Results(_Out):
    """In the order of the question."""

    results: list[Checked]


class Suppressed(_Out):
    """What stands now. `outcome` `repeated`: it stood already."""

    address: str
    outcome: Literal["new", "repeated"]
    scope: Scope
    reason: Reason
    ref: Ref


class Lifted(_Out):
    """What ended: for which reasons it had stood."""

    address: str
    scope: Scope
    lifted: list[Reason]
    still_suppressed: Annotated[list[str], Field(description="what still stands against this address")]


class Standing(_Out):
    """A suppression that stands."""

    scope: Scope
    reason: Reason
    since: When
    source: str | None
    note: str | None
    ref: Ref


class Past(_Out):
    """Something that happened."""

    at: When
    event: str
    source: str | None
    mailbox: str | None
    uid: int | None
    message_id: str | None
    words: str | None
    rules: list[str] | None
    actor: str
    because: str | None
    ref: int | None


class Story(_Out):
    """A person: what stands, and all that ever happened."""

    address: str | None
    suppressed: bool
    suppressions: list[Standing]
    history: list[Past]
    # of the fact of `optoutd show`; always null here
    import_: Annotated[dict[str, Any] | None, Field(alias="import")]


class Listed(_Out):
    """A suppression. `address` is null where it is not known, or not kept."""

    address: str | None
    key: Hex
    scope: Scope
    reason: Reason
    source: str | None
    since: When


class Page(_Out):
    """Some of them, in order of key. A page may have few, and more behind it: `next` says so."""

    suppressions: list[Listed]
    next: Annotated[str | None, Field(description="`cursor` of the next page; null: this was the last")]


class Change(_Out):
    """A row of the audit log."""

    seq: int
    at: When
    actor: str
    event: str
    key: str | None
    address: Annotated[str | None, Field(description="of the person, if it is known")]
    scope: Scope | None
    reason: Reason | None
    source: str | None
    evidence: int | None
    mac: Hex


class Changes(_Out):
    """What has happened since."""

    changes: list[Change]
    next: Annotated[int, Field(description="`after` of the next question")]
    more: Annotated[bool, Field(description="is there more already?")]
    epoch: Annotated[int, Field(description="rises when the ledger is restored from a backup: begin again then")]


class Refused(_Out):
    """A recipient whom the relay refused, or left out, or would have."""

    id: int
    at: When
    outcome: Literal["refused", "stripped", "withdrawn", "would-refuse", "service"]
    address: str | None
    key: str
    list_id: Annotated[str | None, Field(alias="list")]
    reason: Reason | None
    credential: str | None
    message_id: str | None
    ref: int | None
    others: Annotated[int, Field(description="recipients of the same transaction who got the message")]


class Refusals(_Out):
    """In the order in which they were written down, which is about that of time."""

    refusals: list[Refused]
    next: Annotated[int, Field(description="`cursor` of the next question")]
    more: bool


class Waiting(_Out):
    """A mail that a person must judge."""

    id: int
    mailbox: str | None
    uid: int | None
    received: When
    from_: Annotated[str | None, Field(alias="from")]
    addresses: list[str]
    scope: str
    rules: list[str]
    state: State


class Importing(_Query):
    """How the list is to be taken. What is not said is found in the list itself."""

    name: Annotated[
        str, Field(max_length=200, description="of the file, for the record"), AfterValidator(_storable)
    ] = ""
    format: Annotated[str, Field(max_length=20, pattern=r"^[a-z]*$", examples=["auto", "csv", "ses"])] = ""
    column: Annotated[str, Field(max_length=200, description="of the addresses"), AfterValidator(_storable)] = ""
    in_list: InList = None
    reason: Annotated[str, Field(max_length=20, description="of rows that do not say theirs; `opt-out`")] = ""
    as_of: Annotated[str, Field(max_length=40, description="when those asked whose row has no date")] = ""
    dry_run: bool = False


class Counts(_Out):
    """What became of the rows."""

    rows: int
    added: int
    already: int
    skipped: int
    bad: int


class Import(_Out):
    """A list that was brought. `import`: by which number it can be undone; `again`: it had been imported before."""

    id: str
    state: str
    file: str
    began: When
    size: Annotated[int, Field(description="octets")]
    read: Annotated[int, Field(description="octets that are dealt with")]
    format: str
    encoding: str
    delimiter: str | None
    column: str | None
    description: str
    counts: Counts | None
    run: Annotated[int | None, Field(alias="import")]
    again: bool
    error: str | None


class Queue(_Out):
    """Oldest first."""

    reviews: list[Waiting]
    next: Annotated[int | None, Field(description="`after` of the next page; null: this was the last")]


class Item(Waiting):
    """The same in full."""

    words: str | None
    excerpt: str | None
    note: str | None
    accepting: Annotated[str, Field(description="what accepting would do, or would have done")]


class Decided(_Out):
    """What was decided, and which suppressions came of it."""

    id: int
    state: Literal["accepted", "rejected"]
    refs: list[int]


class Stats(_Out):
    """The ledger in numbers. They are up to half a minute old."""

    suppressions: int
    by_reason: dict[str, int]
    by_scope: dict[str, int]
    intake: dict[str, int]
    review_open: int
    audit_rows: int
    relay: dict[str, int]


class Health(_Out):
    """That we can answer is the answer."""

    status: Literal["ok"]
    version: str
