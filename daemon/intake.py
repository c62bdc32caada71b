"""What follows from a reading: the one match on it, one transaction, and word of what is to be done with the message.

Used by the watcher, and by whoever else brings a message (the demo, later replay). Commit first: whatever `act` says
has been recorded is on disk when it returns; what is then owed to the message (filing) was committed with it.

Trust (DESIGN 7.5): a request acts at once for the writer's own address when dmarc=pass or when no `authserv_id` is
configured and nobody can be proven, and for whomever a token of ours names. Anything else acts too, but only up to an
hourly allowance (a `trusted_only` mailbox has none); what exceeds it waits for a person.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Literal

from daemon import events
from daemon.config import Bounce as BounceLimits
from daemon.config import House
from daemon.config import Intake as Allowance
from daemon.mail.reading import (
    AutoReply,
    Bounce,
    Complaint,
    Failed,
    OptOut,
    Ordinary,
    Proof,
    Reading,
    Resubscribe,
    Review,
    addresses,
    label,
)
from daemon.mail.tokens import UNDO_DAYS, Token
from storage import incoming, outbox, suppressions
from storage.address import Address, NotAnAddress, Who, parse
from storage.engine import Ledger
from storage.incoming import Item, Place
from storage.suppressions import Whom
from storage.terms import ALL, REASONS, Reason, seconds
from storage.write import Write, write

ONE_WRITER: Final = (3, 20)  # of 20 unproven requests an hour, at most 3 may come from one writer
NOTICE_WITHIN: Final = timedelta(days=2)  # nobody is told of a request that is older
Shelf = Literal["processed", "machine"]  # what filed messages are filed as


@dataclass(frozen=True, slots=True)
class Envelope:
    """The message around a reading. `sender`: the From address as read; `targets`: where filed messages go ("" = stay)."""

    place: Place
    digest: bytes
    size: int
    message_id: str
    internaldate: datetime
    sender: str = ""
    excerpt: str = ""
    targets: Mapping[Shelf, str] = field(default_factory=dict)
    trusted_only: bool = False  # of the mailbox: what nobody proved waits for a person at once


@dataclass(frozen=True, slots=True)
class Done:
    """What came of it: the new suppressions' evidence, the open review, and the folder the message is owed to."""

    label: str
    incoming: int
    refs: tuple[int, ...] = ()
    review: int | None = None
    target: str = ""


@dataclass(frozen=True)
class Intake:
    """The desk. `numbers`: list id -> list number, of every list of the house. `notices`: can we write to people?"""

    ledger: Ledger
    house: House
    numbers: Mapping[str, int]
    limits: BounceLimits = field(default_factory=BounceLimits)
    allowance: Allowance = field(default_factory=Allowance)
    notices: bool = False

    def act(self, reading: Reading, envelope: Envelope, now: datetime) -> Done:
        """Honour a reading. Raises storage.engine.Unavailable: nothing has happened then."""
        with write(self.ledger, now, f"mailbox {envelope.place.mailbox}") as w:
            return _Act(self, w, envelope).do(reading)

    def unread(self, envelope: Envelope, now: datetime) -> Done:
        """A message whose reading did not end twice: a person looks at it, we do not try again."""
        return self.act(Review((), ("all",), None, "", ("attempts-did-not-end",), ""), envelope, now)

    def found_back(self, envelope: Envelope, now: datetime) -> Done:
        """An honoured message that a person moved back to the inbox: what people do wins (DESIGN 7.7)."""
        return self.act(Review((), ("all",), None, "", ("moved-back-by-a-person",), ""), envelope, now)

    def filed_by_hand(self, reading: Reading, envelope: Envelope, now: datetime) -> Done:
        """A person dragged a message into the folder of honoured requests: that is a decision."""
        with write(self.ledger, now, f"staff of {envelope.place.mailbox}") as w:
            return _Act(self, w, envelope).by_hand(reading)

    def honour(self, reading: OptOut | Review, envelope: Envelope, now: datetime, actor: str) -> None:
        """An old request that an operator has found and decided on: recorded with the date at which it was asked."""
        with write(self.ledger, now, actor) as w:
            _Act(self, w, envelope).old(reading)

    def scopes(self, reading: OptOut) -> list[int]:
        """The list numbers that a request is about."""
        if reading.token is not None:
            return [reading.token.list_number or ALL]
        return scope_numbers(reading.scope, self.numbers)

    def decide(self, item: Item, accepted: bool, note: str, now: datetime, actor: str) -> list[suppressions.Added]:
        """Carry out a decision on a doubtful message. Raises NobodyNamed, Outdated, AlreadyDecided."""
        with write(self.ledger, now, actor) as w:
            current = incoming.review(w.db, item.id)
            if current is None or current.state != "open":
                raise AlreadyDecided
            added = _close(w, current, self, accepted=accepted, note=note)
        events.review_decided(item.id, accepted)
        return added

    def people(self, written: Sequence[str]) -> list[Address]:
        """Those that are addresses of persons, and not our own."""
        people = []
        for text in written:
            try:
                address = parse(text)
            except NotAnAddress:
                continue
            if not self.is_ours(text) and not address.is_domain:
                people.append(address)
        return people

    def is_ours(self, address: str) -> bool:
        """Our own addresses are never suppressed."""
        return self.house.is_ours(address) or any(address.lower() == x.sender.lower() for x in self.house.lists)


class NobodyNamed(Exception):
    """Accepting this item would suppress nobody."""


class AlreadyDecided(Exception):
    """Somebody else was quicker."""


class Outdated(Exception):
    """The person has opted out again after this wish to come back: the later word counts (DESIGN 7.7)."""


class _Act:
    """One reading within one transaction."""

    def __init__(self, intake: Intake, w: Write, envelope: Envelope):
        self._intake, self._w, self._envelope = intake, w, envelope
        self._refs: list[int] = []
        self._review: int | None = None
        self._number: tuple[int, bytes] | None = None

    def do(self, reading: Reading) -> Done:
        match reading:
            case OptOut():
                done = self._opt_out(reading)
            case Bounce():
                done = self._bounce(reading)
            case Complaint():
                done = self._complaint(reading)
            case Resubscribe():
                done = self._come_back(reading)
            case Review():
                done = self._doubt(reading, addresses(reading))
            case AutoReply() | Ordinary():
                done = self._record(label(reading))
        return done

    # ---- requests

    def _opt_out(self, reading: OptOut) -> Done:
        """At once for whom it is proven, and for the writer himself if nobody can be; the rest as far as allowed."""
        if reading.token is not None:
            return self._by_token(reading, reading.token)
        scopes = self._scopes(reading.scope)
        own = [a for a in reading.addresses if a == reading.writer and self._is_believed(reading.proof)]
        later = [a for a in reading.addresses if a not in own]
        at_once = self._intake.people(own)
        if later and self._is_allowed(self._not_yet(later, scopes, Reason.OPT_OUT), reading.writer or ""):
            at_once, later = self._intake.people(reading.addresses), []
        if not at_once:
            return self._doubt(reading, later or reading.addresses, unproven=bool(later))
        told = [p for p in at_once if self._suppress_all(p, scopes, reading) and str(p) == reading.writer]
        self._confirm(reading, told, scopes)
        if later:
            return self._doubt(reading, later, unproven=True, target="processed")
        return self._record("opt-out", target="" if reading.stays else "processed")

    def _suppress_all(self, whom: Whom, scopes: Sequence[int], reading: OptOut) -> bool:
        """True: something is new."""
        new = [self._suppress(whom, s, Reason.OPT_OUT, "mail", lambda: self._evidence(reading)) for s in scopes]
        return any(new)

    def _by_token(self, reading: OptOut, token: Token) -> Done:
        """Whom the token names, under its very key; the plain address is known only if he writes from it."""
        people = self._intake.people(reading.addresses)
        scope = token.list_number or ALL
        plain = people[0] if people else None
        if self._suppress(
            token.address_key, scope, Reason.OPT_OUT, "mail", lambda: self._evidence(reading), plain=plain
        ):
            self._confirm(reading, people, [scope])
        return self._record("opt-out", target="processed")

    def _is_believed(self, proof: Proof) -> bool:
        """May the writer's own address act at once? Where nobody can be proven it may, unless the mailbox says no."""
        return proof in ("dmarc", "token") or (proof == "unchecked" and not self._envelope.trusted_only)

    def _not_yet(self, written: Sequence[str], scopes: Sequence[int], reason: Reason) -> int:
        """How many of these people are not suppressed yet: a copy of a message takes nothing from the allowance."""
        w = self._w
        standing = [
            {(r[1], r[2]) for r in suppressions.standing(w.db, w.ledger.site_key, person)}
            for person in self._intake.people(written)
        ]
        return sum(any((scope, reason) not in rows for scope in scopes) for rows in standing)

    def _is_allowed(self, people: int, writer: str, *, machine: bool = False) -> bool:
        """May so many people more be suppressed though nobody proved it? (DESIGN 7.5)"""
        limit = self._intake.allowance.unproven_per_hour
        if self._envelope.trusted_only or not limit:
            return False
        few, of = ONE_WRITER
        one_writer = limit if machine else -(-limit * few // of)  # a provider's bounces all come from one address
        key = self._w.ledger.site_key.address_key(writer.lower())
        return not people or incoming.allow_unproven(self._w, key, self._asked(), people, limit, one_writer)

    # ---- what we write ourselves

    def _confirm(self, reading: OptOut, people: Sequence[Address], scopes: Sequence[int]) -> None:
        """Tell the writer that it is done. Not whom nobody proved too often, and never about an old request."""
        if self._intake.notices and people and self._is_fresh():
            proven = reading.proof in ("dmarc", "token")
            outbox.owe(self._w, "confirm", people[0], self._language(reading), scopes, proven=proven)

    def _is_fresh(self) -> bool:
        return self._w.now - self._asked() <= NOTICE_WITHIN

    def _language(self, reading: OptOut | Resubscribe) -> str:
        return reading.language or self._intake.house.language

    # ---- coming back

    def _come_back(self, reading: Resubscribe) -> Done:
        """His own wish, proven, with an opt-out of his that stands: he is asked to confirm it. Else a person decides."""
        if reading.token is not None:
            return self._undo(reading, reading.token)
        people = self._intake.people(reading.addresses)
        own = len(people) == 1 and reading.addresses == (reading.writer,) and reading.proof == "dmarc"
        if not (own and self._intake.notices and self._is_fresh()):
            return self._doubt(reading, reading.addresses)
        scopes = self._opted_out(people[0], self._scopes(reading.scope))
        asked = bool(scopes) and outbox.owe(
            self._w, "comeback", people[0], self._language(reading), scopes, proven=True
        )
        seen = incoming.twins(self._w.db, self._envelope.message_id, self._envelope.digest)
        if not asked and not any(t.label == "resubscribe" for t in seen):  # a copy of the same wish is no second one
            return self._doubt(reading, reading.addresses)
        return self._record("resubscribe")

    def _opted_out(self, whom: Whom, wanted: Sequence[int]) -> list[int]:
        """For what the standing opt-outs of this person would have to be undone."""
        rows = suppressions.standing(self._w.db, self._w.ledger.site_key, whom)
        if any(row[2] in (Reason.COMPLAINT, Reason.HARD_BOUNCE) for row in rows):
            return []  # such people are not written to (notices.py), and no link of ours would undo that
        out_of = {row[1] for row in rows if row[2] == Reason.OPT_OUT}
        if ALL in wanted:
            return sorted(out_of)
        return sorted(scope for scope in wanted if scope in out_of or ALL in out_of)

    def _undo(self, reading: Resubscribe, token: Token) -> Done:
        """The link of a notice came back: what it names is undone, within its time, unless it was asked for again."""
        scope = token.list_number or ALL
        asked, made = seconds(self._asked()), token.day * 86_400
        in_time = made - 86_400 <= asked <= made + (UNDO_DAYS + 1) * 86_400
        if in_time and undo(self._w, token.address_key, scope, self._asked(), _BY_LINK, made=made + 86_400):
            who = self._who(token.address_key)
            name = suppressions.scope_word(self._w.db, scope)
            self._w.after_commit(lambda: events.suppression_lifted(who, name, 1))
        return self._record("resubscribe", target="processed")

    def by_hand(self, reading: Reading) -> Done:
        """As accepted by a person: whom the reading names, else its writer."""
        item = self._open_twin()
        if item is not None and _concerned(item, self._intake):  # it waited for exactly this
            _close(self._w, item, self._intake, accepted=True, note="filed by hand")
            return self._record(label(reading))
        people = self._intake.people(addresses(reading) or [self._envelope.sender])
        if not people or isinstance(reading, Resubscribe):  # a wish to come back, put away: it is no opt-out
            return self._record(label(reading))
        scope = reading.scope if isinstance(reading, OptOut | Review) else ("all",)
        number = self._w.evidence(**self._about(reading), decision="filed by hand")
        self._w.audit("review-accepted", source="mail", evidence=number)
        for s in self._scopes(scope or ("all",)):
            for person in people:
                self._suppress(person, s, Reason.OPT_OUT, "mail", lambda: number)
        return self._record("opt-out")

    def old(self, reading: OptOut | Review) -> None:
        """Found in an archive: the message is not ours to file, and nobody is written to."""
        if isinstance(reading, Review):
            if not incoming.was_queued(self._w.db, self._asked(), self._envelope.sender, reading.words):
                self._queue(None, reading, reading.addresses, reading.rules)
            return
        people: list[Whom] = [*self._intake.people(reading.addresses)]
        for whom in people or ([reading.token.address_key] if reading.token else []):
            self._suppress_all(whom, self._intake.scopes(reading), reading)

    # ---- machines

    def _bounce(self, reading: Bounce) -> Done:
        """Hard and about the address: suppressed, if it is provably of our mail. A full mailbox is counted.

        A policy or spam block says nothing about the address, and an unproven soft bounce would change nothing:
        neither is worth a person's time.
        """
        gone = [f.recipient for f in reading.failed if f.hard and f.cause == "address"]
        news = self._not_yet(gone, [ALL], Reason.HARD_BOUNCE)
        if reading.proof != "token" and gone and not self._is_allowed(news, self._envelope.sender, machine=True):
            return self._doubt(reading, gone, unproven=True)
        for failed in reading.failed:
            for person in self._intake.people([failed.recipient]):
                self._failed(person, failed, reading)
        return self._record("bounce", target="machine")

    def _failed(self, person: Address, failed: Failed, reading: Bounce) -> None:
        suppressed = False
        if failed.hard and failed.cause == "address":
            suppressed = self._suppress(person, ALL, Reason.HARD_BOUNCE, "dsn", lambda: self._evidence(reading))
        elif failed.cause == "mailbox" and reading.proof == "token":
            suppressed = self._soft(person, reading)
        told = partial(events.bounce_recorded, hard=failed.hard, cause=failed.cause, suppressed=suppressed)
        self._say(told, person)

    def _soft(self, person: Address, reading: Bounce) -> bool:
        ledger, limits = self._intake.ledger, self._intake.limits
        key = ledger.site_key.address_key(suppressions.form_of(self._w, person))
        days = incoming.count_soft_bounce(self._w, key, self._envelope.internaldate, limits.soft_window_days)
        if days < limits.soft_limit:
            return False
        return self._suppress(person, ALL, Reason.SOFT_BOUNCE, "dsn", lambda: self._evidence(reading))

    def _complaint(self, reading: Complaint) -> Done:
        people: list[Whom] = [*self._intake.people(reading.recipients)]
        if reading.token is not None and not people:
            people = [reading.token.address_key]
        elif reading.proof != "token":
            news = self._not_yet(reading.recipients, [ALL], Reason.COMPLAINT)
            if not people or not self._is_allowed(news, self._envelope.sender, machine=True):
                return self._doubt(reading, reading.recipients, unproven=bool(people))
        elif not people:
            return self._doubt(reading, reading.recipients)
        for person in people:
            self._suppress(person, ALL, Reason.COMPLAINT, "arf", lambda: self._evidence(reading))
            self._say(partial(events.complaint_recorded, ref=self._refs[-1]), person)
        return self._record("complaint", target="machine")

    # ---- doubt

    def _doubt(
        self, reading: Reading, people: Sequence[str], *, unproven: bool = False, target: Shelf = "processed"
    ) -> Done:
        """Into the queue. `unproven`: the reading is clear, but who wrote it is not."""
        rules = (*reading.rules, "7.5-unproven") if unproven else reading.rules
        machine = isinstance(reading, Bounce | Complaint)
        stays = isinstance(reading, OptOut) and reading.stays
        done = self._record(label(reading), state="done", target="machine" if machine else "" if stays else target)
        twin = self._open_twin()
        if twin is not None and twin.addresses == tuple(people):  # some mailers give many messages one Message-ID
            return replace(done, review=twin.id)
        return replace(done, review=self._queue(done.incoming, reading, people, rules))

    def _queue(self, of: int | None, reading: Reading, people: Sequence[str], rules: Sequence[str]) -> int:
        number = incoming.open_review(
            self._w,
            of,
            received=self._asked(),
            sender=self._envelope.sender,
            addresses=people,
            scope=";".join(getattr(reading, "scope", ()) or ("all",)),
            rules=rules,
            words=reading.words,
            wish=_wish(reading),
            language=getattr(reading, "language", ""),
            excerpt=self._envelope.excerpt,
        )
        self._w.after_commit(lambda: events.review_opened(number, self._envelope.place.mailbox, rules))
        return number

    def _open_twin(self) -> Item | None:
        """The open item about the same message (Message-ID and sender), seen in another mailbox or folder before."""
        twins = incoming.twins(self._w.db, self._envelope.message_id, self._envelope.digest)
        items = filter(None, (incoming.review_of(self._w.db, t.id) for t in twins))
        return next((i for i in items if i.sender == self._envelope.sender), None)

    # ---- writing down

    def _scopes(self, words: Sequence[str]) -> list[int]:
        return scope_numbers(words, self._intake.numbers)

    def _about(self, reading: Reading) -> dict[str, Any]:
        place = self._envelope.place
        return {
            "address": ";".join(addresses(reading)),
            "source": {"bounce": "dsn", "complaint": "arf"}.get(label(reading), "mail"),
            "mailbox": place.mailbox,
            "folder": place.folder,
            "uid": place.uid,
            "message_id": self._envelope.message_id,
            "words": reading.words or getattr(reading, "diagnostic_code", ""),
            "rules": list(reading.rules),
            "proof": getattr(reading, "proof", ""),
            **({"weighed": list(weighed)} if (weighed := getattr(reading, "weighed", ())) else {}),
        }

    def _evidence(self, reading: Reading) -> tuple[int, bytes]:
        """One for all that one message asks; a message seen before in another mailbox has one already."""
        if self._number is None:
            self._number = self._w.evidence(**self._about(reading))
        return self._number

    def _suppress(
        self,
        person: Whom,
        scope: int,
        reason: Reason,
        source: str,
        evidence: Callable[[], tuple[int, bytes]],
        *,
        plain: Address | None = None,
    ) -> bool:
        """True: a new row stands."""
        w, at = self._w, self._asked()
        added = suppressions.add(w, person, scope, reason, source, {}, since=at, evidence=evidence, plain=plain)
        if added.evidence:
            self._refs.append(added.evidence)
        if reason == Reason.OPT_OUT:
            name = suppressions.scope_word(w.db, scope)
            match added.outcome:
                case "new":
                    say = partial(events.opt_out_recorded, scope=name, ref=added.evidence, source=source)
                case "repeated":
                    say = partial(events.opt_out_repeated, scope=name, ref=added.evidence, source=source)
                case "outdated":
                    say = partial(events.opt_out_outdated, scope=name)
            self._say(say, person)
        return added.outcome == "new"

    def _asked(self) -> datetime:
        """When the message came. A server that gives no date (1970), or one to come, does not make a request outdated."""
        came, now = self._envelope.internaldate, self._w.now
        return now if came.year <= 1970 else min(came, now)

    def _say(self, event: Callable[[Who], object], person: Whom) -> None:
        """Log it once it is true."""
        who = self._who(person)
        self._w.after_commit(lambda: event(who))

    def _who(self, person: Whom) -> Who:
        site_key = self._intake.ledger.site_key
        return site_key.who_has(person) if isinstance(person, bytes) else site_key.who(person)

    def _record(self, word: str, *, state: incoming.State | None = None, target: Shelf | Literal[""] = "") -> Done:
        """The sighting, and what is owed to the message."""
        e = self._envelope
        folder = e.targets.get(target, "") if target else ""
        number = incoming.record(
            self._w,
            e.place,
            digest=e.digest,
            size=e.size,
            message_id=e.message_id,
            internaldate=e.internaldate,
            label=word,
            state=state or ("owed" if folder else "done"),
            target=folder,
            evidence=self._refs[0] if self._refs else None,
        )
        return Done(word, number, tuple(self._refs), self._review, folder if state is None else "")


_BY_LINK: Final = "the person confirmed by the link of our notice"


def undo(w: Write, whom: Whom, scope: int, asked: datetime, because: str, *, made: int | None = None) -> bool:
    """Undo an opt-out by the person's own wish: its row goes; of one list alone, `wanted` exempts it.

    Complaint, bounce and operator rows stay (DESIGN 4.6). `made`: when the link was made that confirms it (seconds since
    1970): it is not good for a later opt-out. False: nothing stood, or the person has opted out since.
    """
    rows = suppressions.standing(w.db, w.ledger.site_key, whom)
    mine = [r for r in rows if r[2] == Reason.OPT_OUT and r[1] in (scope, ALL)]
    if not mine or any(_asked_again(w, r, asked) or (made is not None and r[3] > made) for r in mine):
        return False
    gone = suppressions.lift(w, whom, scope, because, "mail", only=Reason.OPT_OUT, asked=asked)
    if scope != ALL and any(r[1] == ALL for r in mine):
        suppressions.add(w, whom, scope, Reason.WANTED, "mail", {"because": because}, since=asked)
        return True
    return bool(gone)


def _asked_again(w: Write, row: suppressions.RawRow, wish: datetime) -> bool:
    """Was this opt-out asked for (again) after the wish to come back?"""
    asked = incoming.last_asked(w.db, row[4])
    return max(suppressions.last_asked(w.db, row), seconds(asked) if asked else 0) > seconds(wish)


def _wish(reading: Reading) -> str:
    """What accepting it would do."""
    if not isinstance(reading, Bounce):
        return label(reading)
    return "hard-bounce" if any(f.hard for f in reading.failed) else "soft-bounce"


def scope_numbers(words: Sequence[str], numbers: Mapping[str, int]) -> list[int]:
    """("list:offers", "list:webinars") -> their numbers; ("all",) -> [ALL]. A list we do not have is everything."""
    found = [ALL if word == "all" else numbers.get(word.removeprefix("list:"), ALL) for word in words]
    return [ALL] if ALL in found or not found else found


def _close(w: Write, item: Item, intake: Intake, *, accepted: bool, note: str) -> list[suppressions.Added]:
    """Carry out a decision, write it down, and close the item."""
    added = _carry_out(w, item, intake, note) if accepted else []
    number = w.evidence(review=item.id, note=note, wish=item.wish, words=item.words, rules=list(item.rules))
    w.audit("review-accepted" if accepted else "review-rejected", source="mail", evidence=number)
    incoming.decide(w, item, accepted, note)
    return added


def _concerned(item: Item, intake: Intake) -> list[Address]:
    """Whom accepting an item concerns: whom it names, else its sender."""
    return intake.people(item.addresses or [item.sender])


def _carry_out(w: Write, item: Item, intake: Intake, note: str) -> list[suppressions.Added]:
    """Do what an accepted item asks."""
    people = _concerned(item, intake)
    if not people:
        raise NobodyNamed
    scopes = scope_numbers(item.scope.split(";"), intake.numbers)
    if item.wish == "resubscribe":
        _take_back(w, item, people, scopes, note)
        return []
    reason = REASONS.get(item.wish, Reason.OPT_OUT)
    source = {"hard-bounce": "dsn", "soft-bounce": "dsn", "complaint": "arf"}.get(item.wish, "mail")
    detail: dict[str, Any] = {"review": item.id, "words": item.words, "rules": list(item.rules), "note": note}
    if item.place:
        detail |= {"mailbox": item.place.mailbox, "uid": item.place.uid}
    return [suppressions.add(w, p, s, reason, source, detail, since=item.at) for p in people for s in scopes]


def _take_back(w: Write, item: Item, people: Sequence[Address], scopes: Sequence[int], note: str) -> None:
    """Lift the opt-outs that this wish takes back. Raises Outdated where the person has asked again since."""
    because = note or f"asked for it by mail (review {item.id})"
    for person in people:
        for row in suppressions.standing(w.db, w.ledger.site_key, person):
            if row[2] == Reason.OPT_OUT and row[1] in (*scopes, ALL) and _asked_again(w, row, item.at):
                raise Outdated
        for scope in scopes:
            undo(w, person, scope, item.at, because)
