"""What follows from a reading: the one match on it, one transaction, and word of what is to be done with the message.

Used by the watcher, and by whoever else brings a message (the demo, later replay). Commit first: whatever `act` says
has been recorded is on disk when it returns; what is then owed to the message (filing) was committed with it.

Trust (DESIGN 7.5, this version): a request acts at once for the writer's own address, when dmarc=pass, when a token of
ours proves it, or when no `authserv_id` is configured and nobody can be proven. Anything else waits for a person.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, Literal

from daemon import events
from daemon.config import Bounce as BounceLimits
from daemon.config import House
from daemon.mail.reading import (
    AutoReply,
    Bounce,
    Complaint,
    OptOut,
    Ordinary,
    Reading,
    Resubscribe,
    Review,
    addresses,
    label,
)
from storage import incoming, suppressions
from storage.address import Address, NotAnAddress, Who, parse
from storage.engine import Ledger
from storage.incoming import Item, Place
from storage.terms import ALL, REASONS, Reason, seconds
from storage.write import Write, write

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
    """The desk. `numbers`: list id -> list number, of every list of the house."""

    ledger: Ledger
    house: House
    numbers: Mapping[str, int]
    limits: BounceLimits = field(default_factory=BounceLimits)

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
            case Resubscribe() | Review():
                done = self._doubt(reading, addresses(reading))
            case AutoReply() | Ordinary():
                done = self._record(label(reading))
        return done

    # ---- requests

    def _opt_out(self, reading: OptOut) -> Done:
        """At once for the writer's own address if that is proven or nobody can be; the rest waits for a person."""
        own = [a for a in reading.addresses if a == reading.writer and reading.proof != "none"]
        if reading.proof == "token":
            own = list(reading.addresses)
        at_once = self._intake.people(own)
        later = [a for a in reading.addresses if a not in own]
        if not at_once:
            return self._doubt(reading, later or reading.addresses, unproven=True)
        for scope in self._scopes(reading.scope):
            for person in at_once:
                self._suppress(person, scope, Reason.OPT_OUT, "mail", lambda: self._evidence(reading))
        if later:
            return self._doubt(reading, later, unproven=True, target="processed")
        return self._record("opt-out", target="" if reading.stays else "processed")

    def by_hand(self, reading: Reading) -> Done:
        """As accepted by a person: whom the reading names, else its writer."""
        item = self._open_twin()
        if item is not None and _concerned(item, self._intake):  # it waited for exactly this
            _close(self._w, item, self._intake, accepted=True, note="filed by hand")
            return self._record(label(reading))
        people = self._intake.people(addresses(reading) or [self._envelope.sender])
        if not people:
            return self._record(label(reading))
        scope = reading.scope if isinstance(reading, OptOut | Review) else ("all",)
        number = self._w.evidence(**self._about(reading), decision="filed by hand")
        self._w.audit("review-accepted", source="mail", evidence=number)
        for s in self._scopes(scope or ("all",)):
            for person in people:
                self._suppress(person, s, Reason.OPT_OUT, "mail", lambda: number)
        return self._record("opt-out")

    # ---- machines

    def _bounce(self, reading: Bounce) -> Done:
        """Hard and about the address: suppressed, if it is provably of our mail. A full mailbox is counted.

        A policy or spam block says nothing about the address, and an unproven soft bounce would change nothing:
        neither is worth a person's time.
        """
        hard = reading.hard and reading.cause == "address"
        if reading.proof != "token" and hard:
            return self._doubt(reading, reading.recipients, unproven=True)
        for person in self._intake.people(reading.recipients):
            suppressed = False
            if hard:
                suppressed = self._suppress(person, ALL, Reason.HARD_BOUNCE, "dsn", lambda: self._evidence(reading))
            elif reading.cause == "mailbox" and reading.proof == "token":
                suppressed = self._soft(person, reading)
            self._say(partial(events.bounce_recorded, hard=hard, cause=reading.cause, suppressed=suppressed), person)
        return self._record("bounce", target="machine")

    def _soft(self, person: Address, reading: Bounce) -> bool:
        ledger, limits = self._intake.ledger, self._intake.limits
        key = ledger.site_key.address_key(suppressions.form_of(self._w, person))
        days = incoming.count_soft_bounce(self._w, key, self._envelope.internaldate, limits.soft_window_days)
        if days < limits.soft_limit:
            return False
        return self._suppress(person, ALL, Reason.SOFT_BOUNCE, "dsn", lambda: self._evidence(reading))

    def _complaint(self, reading: Complaint) -> Done:
        people = self._intake.people(reading.recipients)
        if reading.proof != "token" or not people:
            return self._doubt(reading, reading.recipients, unproven=True)
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
        scope = ";".join(getattr(reading, "scope", ()) or ("all",))
        number = incoming.open_review(
            self._w,
            done.incoming,
            received=self._asked(),
            sender=self._envelope.sender,
            addresses=people,
            scope=scope,
            rules=rules,
            words=reading.words,
            wish=_wish(reading),
            language=getattr(reading, "language", ""),
            excerpt=self._envelope.excerpt,
        )
        self._w.after_commit(lambda: events.review_opened(number, self._envelope.place.mailbox, rules))
        return replace(done, review=number)

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
        }

    def _evidence(self, reading: Reading) -> tuple[int, bytes]:
        """One for all that one message asks; a message seen before in another mailbox has one already."""
        if self._number is None:
            self._number = self._w.evidence(**self._about(reading))
        return self._number

    def _suppress(
        self, person: Address, scope: int, reason: Reason, source: str, evidence: Callable[[], tuple[int, bytes]]
    ) -> bool:
        """True: a new row stands."""
        w = self._w
        added = suppressions.add(w, person, scope, reason, source, {}, since=self._asked(), evidence=evidence)
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

    def _say(self, event: Callable[[Who], object], person: Address) -> None:
        """Log it once it is true."""
        who = self._intake.ledger.site_key.who(person)
        self._w.after_commit(lambda: event(who))

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


def _wish(reading: Reading) -> str:
    """What accepting it would do."""
    return ("hard-bounce" if reading.hard else "soft-bounce") if isinstance(reading, Bounce) else label(reading)


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
        for _, scope, reason, since, evidence in suppressions.standing(w.db, w.ledger.site_key, person):
            asked = incoming.last_asked(w.db, evidence) or item.at
            if reason == Reason.OPT_OUT and scope in scopes and max(since, seconds(asked)) > seconds(item.at):
                raise Outdated
        for scope in scopes:
            suppressions.lift(w, person, scope, because, only=Reason.OPT_OUT)
