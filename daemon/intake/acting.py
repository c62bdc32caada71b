"""One reading carried out within one transaction: the one match on it, and what follows from each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Literal

from daemon import events
from daemon.intake import causes
from daemon.intake.allowing import BRAKE, UNPROVEN, Allowing
from daemon.intake.deciding import close, concerned
from daemon.intake.desk import Desk, Done, Envelope, Shelf, scope_numbers
from daemon.intake.undoing import by_link
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
from daemon.mail.tokens import Token
from storage import incoming, outbox, suppressions
from storage.address import Address, Who
from storage.held import words_of
from storage.incoming import Item
from storage.suppressions import Whom
from storage.terms import ALL, Reason
from storage.write import Write

_PROVEN: Final = ("dmarc", "token")
NOTICE_WITHIN: Final = timedelta(days=2)  # nobody is told of a request that is older


class Act:
    """One reading within one transaction."""

    def __init__(self, desk: Desk, w: Write, envelope: Envelope):
        self._desk, self._w, self._envelope = desk, w, envelope
        self._refs: list[int] = []
        self._held: list[Failed] = []  # of a report: who would be suppressed, were it not for the brake
        self._review: int | None = None
        self._numbers: dict[str, tuple[int, bytes]] = {}
        self._may = Allowing(desk, w, self._asked(), envelope.trusted_only)

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
        proven = reading.proof in _PROVEN or self._envelope.canary
        unproven = [a for a in reading.addresses if a != reading.writer or not proven]
        held = self._may.is_held("unproven", unproven, scopes, Reason.OPT_OUT)
        believed = not held and self._is_believed(reading.proof)
        own = [a for a in reading.addresses if a not in unproven or (believed and a == reading.writer)]
        later, why = [a for a in reading.addresses if a not in own], BRAKE if held else UNPROVEN
        at_once = self._desk.people(own)
        news = self._may.not_yet(later, scopes, Reason.OPT_OUT)
        if later and not held and self._may.is_within(news, reading.writer or ""):
            at_once, later = self._desk.people(reading.addresses), []
        if not at_once:
            return self._doubt(reading, later or reading.addresses, why if later else None)
        told = [p for p in at_once if self._suppress_all(p, scopes, reading) and str(p) == reading.writer]
        self._confirm(reading, told, scopes)
        if later:
            return self._doubt(reading, later, why)
        return self._record("opt-out", target="" if reading.stays else "processed")

    def _suppress_all(self, whom: Whom, scopes: Sequence[int], reading: OptOut) -> bool:
        """True: something is new."""
        new = [self._suppress(whom, s, Reason.OPT_OUT, "mail", lambda: self._evidence(reading)) for s in scopes]
        return any(new)

    def _by_token(self, reading: OptOut, token: Token) -> Done:
        """Whom the token names, under its very key; the plain address is known only if he writes from it."""
        people = self._desk.people(reading.addresses)
        scope = token.list_number or ALL
        plain = people[0] if people else None
        if self._suppress(
            token.address_key, scope, Reason.OPT_OUT, "mail", lambda: self._evidence(reading), plain=plain
        ):
            self._confirm(reading, people, [scope])
        return self._record("opt-out", target="processed")

    def _is_believed(self, proof: Proof) -> bool:
        """May the writer's own address act at once? Where nobody can be proven it may, unless the mailbox says no."""
        return proof in _PROVEN or (proof == "unchecked" and not self._envelope.trusted_only)

    # ---- what we write ourselves

    def _confirm(self, reading: OptOut, people: Sequence[Address], scopes: Sequence[int]) -> None:
        """Tell the writer that it is done. Not whom nobody proved too often, and never about an old request."""
        if self._desk.notices and people and self._is_fresh() and not self._envelope.canary:
            proven = reading.proof in _PROVEN
            outbox.owe(self._w, "confirm", people[0], self._language(reading), scopes, proven=proven)

    def _is_fresh(self) -> bool:
        return self._w.now - self._asked() <= NOTICE_WITHIN

    def _language(self, reading: OptOut | Resubscribe) -> str:
        return reading.language or self._desk.house.language

    # ---- coming back

    def _come_back(self, reading: Resubscribe) -> Done:
        """His own wish, proven, with an opt-out of his that stands: he is asked to confirm it. Else a person decides."""
        if reading.token is not None:
            return self._undo(reading, reading.token)
        people = self._desk.people(reading.addresses)
        own = len(people) == 1 and reading.addresses == (reading.writer,) and reading.proof == "dmarc"
        if not (own and self._desk.notices and self._is_fresh()):
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
        """The link of a notice came back: what it names is undone, unless it was asked for again. Too late: a person decides."""
        if not by_link(self._w, token, self._asked(), "mail"):
            late = replace(reading, scope=(suppressions.scope_word(self._w.db, token.list_number or ALL),))
            return self._doubt(late, late.addresses)
        return self._record("resubscribe", target="processed")

    def by_hand(self, reading: Reading) -> Done:
        """As accepted by a person: whom the reading names, else its writer."""
        item = self._open_twin()
        if item is not None and concerned(item, self._desk):  # it waited for exactly this
            close(self._w, item, self._desk, accepted=True, note="filed by hand")
            return self._record(label(reading))
        people = self._desk.people(addresses(reading) or [self._envelope.sender])
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
            dated = self._envelope.internaldate.year > 1970
            asked = self._asked() if dated else None
            if not incoming.was_queued(self._w.db, asked, self._envelope.sender, reading.words):
                self._queue(None, reading, reading.addresses, reading.rules)
            return
        people: list[Whom] = [*self._desk.people(reading.addresses)]
        for whom in people or ([reading.token.address_key] if reading.token else []):
            self._suppress_all(whom, self._desk.scopes(reading), reading)

    # ---- machines

    def _bounce(self, reading: Bounce) -> Done:
        """Hard and about the address: suppressed, if it is provably of our mail. A full mailbox is counted.

        A policy or spam block says nothing about the address, and an unproven soft bounce would change nothing:
        neither is worth a person's time.
        """
        gone = [f for f in reading.failed if f.is_gone]
        self._held = [f for f in gone if self._waits(f, Reason.HARD_BOUNCE)]
        at_once = [f.recipient for f in gone if f not in self._held]
        news = self._may.not_yet(at_once, [ALL], Reason.HARD_BOUNCE)
        if reading.proof != "token" and at_once and not self._may.is_within(news, self._envelope.sender, machine=True):
            return self._doubt(reading, [f.recipient for f in gone], UNPROVEN)
        for failed in reading.failed:
            for person in self._desk.people([failed.recipient] if failed not in self._held else []):
                self._failed(person, failed, reading)
        return self._held_up(reading) if self._held else self._record("bounce", target="machine")

    def _waits(self, failed: Failed, reason: Reason) -> bool:
        return self._may.is_held(causes.of_bounce(failed), [failed.recipient], [ALL], reason)

    def _held_up(self, reading: Bounce) -> Done:
        """Those who are gone wait. Full mailboxes, if there is nothing else: they come again, and are decided otherwise."""
        held = [f for f in self._held if f.is_gone] or self._held
        cause = causes.together({causes.of_bounce(f) for f in held})
        words = words_of(cause, reading.diagnostic_code)
        return self._doubt(replace(reading, each=tuple(held), words=words), [f.recipient for f in held], BRAKE)

    def _failed(self, person: Address, failed: Failed, reading: Bounce) -> None:
        suppressed = False
        if failed.is_gone:
            suppressed = self._bounced(person, failed, reading, Reason.HARD_BOUNCE)
        elif failed.cause == "mailbox" and reading.proof == "token":
            suppressed = self._soft(person, failed, reading)
        told = partial(events.bounce_recorded, hard=failed.hard, cause=failed.cause, suppressed=suppressed)
        self._say(told, person)

    def _bounced(self, person: Address, failed: Failed, reading: Bounce, reason: Reason) -> bool:
        """Suppressed, if this cause has not done so too often already. True: a new row stands."""
        cause = causes.of_bounce(failed)
        if self._may.is_too_many(cause, [str(person)], reason):
            self._held.append(failed)
            return False
        return self._suppress(person, ALL, reason, "dsn", lambda: self._evidence(reading, cause))

    def _soft(self, person: Address, failed: Failed, reading: Bounce) -> bool:
        """Counted in any case; the brake holds up only what the count comes to."""
        ledger, limits = self._desk.ledger, self._desk.limits
        key = ledger.site_key.address_key(suppressions.form_of(self._w, person))
        days = incoming.count_soft_bounce(self._w, key, self._asked(), limits.soft_window_days)
        if days < limits.soft_limit:
            return False
        if self._waits(failed, Reason.SOFT_BOUNCE):
            self._held.append(failed)
            return False
        return self._bounced(person, failed, reading, Reason.SOFT_BOUNCE)

    def _complaint(self, reading: Complaint) -> Done:
        """The brake cannot hold up one that a token alone says of whom it is: the queue has room for addresses only."""
        people: list[Whom] = [*self._desk.people(reading.recipients)]
        cause = causes.of_complaint(self._envelope.sender)
        held = replace(reading, words=words_of(cause, reading.feedback_type))
        if reading.token is not None and not people:
            people = [reading.token.address_key]
        elif self._may.is_held(cause, reading.recipients, [ALL], Reason.COMPLAINT):
            return self._doubt(held, reading.recipients, BRAKE)
        elif reading.proof != "token":
            news = self._may.not_yet(reading.recipients, [ALL], Reason.COMPLAINT)
            if not people or not self._may.is_within(news, self._envelope.sender, machine=True):
                return self._doubt(reading, reading.recipients, UNPROVEN if people else None)
        elif not people:
            return self._doubt(reading, reading.recipients)
        if self._may.is_too_many(cause, [str(p) for p in people if isinstance(p, Address)], Reason.COMPLAINT):
            return self._doubt(held, reading.recipients, BRAKE)
        for person in people:
            self._suppress(person, ALL, Reason.COMPLAINT, "arf", lambda: self._evidence(reading, cause))
            self._say(partial(events.complaint_recorded, ref=self._refs[-1]), person)
        return self._record("complaint", target="machine")

    # ---- doubt

    def _doubt(self, reading: Reading, people: Sequence[str], why: str | None = None) -> Done:
        """Into the queue. `why`: the rule that sends a reading there that is clear in itself."""
        rules = (*reading.rules, why) if why else reading.rules
        machine = isinstance(reading, Bounce | Complaint)
        stays = isinstance(reading, OptOut) and reading.stays
        done = self._record(label(reading), state="done", target="machine" if machine else "" if stays else "processed")
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
        return scope_numbers(words, self._desk.numbers)

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

    def _evidence(self, reading: Reading, cause: str = "") -> tuple[int, bytes]:
        """One for all that one message asks, or says by one cause, so that what came of that can be undone by itself."""
        if cause not in self._numbers:
            self._numbers[cause] = self._w.evidence(**self._about(reading), **({"cause": cause} if cause else {}))
        return self._numbers[cause]

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
        """Log it once it is true. The canary is nobody: whoever counts log lines is not to count it."""
        if self._envelope.canary:
            return
        who = self._who(person)
        self._w.after_commit(lambda: event(who))

    def _who(self, person: Whom) -> Who:
        site_key = self._desk.ledger.site_key
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
            sender=e.sender,
        )
        return Done(word, number, tuple(self._refs), self._review, folder if state is None else "")


def _wish(reading: Reading) -> str:
    """What accepting it would do."""
    if not isinstance(reading, Bounce):
        return label(reading)
    return "hard-bounce" if any(f.hard for f in reading.failed) else "soft-bounce"
