"""The judge of the fault campaign finds what it is there for: a history in which all is well, and one change that is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.chaos.checker import Case, judge
from tests.chaos.evidence import Evidence, Lying
from tests.chaos.history import Acknowledged, Arrival, Asked, Attempt, Fault, Given, Lift, Note, Posted, Record

ANN, BOB, CEM, DEE = "ann@example.com", "bob@example.com", "cem@example.com", "dee@example.com"
KEYS = {person: f"{n:032x}" for n, person in enumerate((ANN, BOB, CEM, DEE), 1)}
REFUSED = "550 5.7.1 has opted out (ref 1)"


@dataclass
class Story:
    """Ann opts out by mail at 10 and is heard at 12, Cem by a click at 20 and is taken off the list again at 40. Bob stays; Dee
    leaves the newsletter at 20. Each is mailed before and after."""

    records: list[Record] = field(default_factory=list)
    arrived: list[Arrival] = field(default_factory=list)
    rows: set[tuple[str, str, int]] = field(default_factory=set)
    mails: list[Lying] = field(default_factory=list)
    read: list[tuple[str, int, str, str]] = field(default_factory=list)
    rest: dict[str, Any] = field(default_factory=dict)

    def sent(
        self, name: str, dot: float, *people: str, list_id: str = "", reply: str = "250 ok", number: int = 1
    ) -> None:
        """An attempt that was taken at RCPT, and arrived."""
        answers = tuple((p, dot - 1, "250 ok") for p in people)
        self.records.append(Attempt(name, number, "refuse", list_id, False, answers, dot, reply, dot + 1))
        self.arrived.append(Arrival(f"{name}.{number}", "news@quillpdf.example", people, dot + 0.5, ""))
        if reply.startswith("250"):
            self.records += [Given(name, p, "sent") for p in people]

    def refused(self, name: str, at: float, person: str) -> None:
        """An attempt that was refused at RCPT."""
        self.records.append(Attempt(name, 1, "refuse", "", False, ((person, at, REFUSED),), 0.0, "", at + 1))
        self.records.append(Given(name, person, "refused"))

    def posted(self, name: str, what: str, person: str, folder: str, uid: int) -> None:
        """A mail that was dealt with."""
        self.records.append(Posted(name, what, person, "append", ("\\Seen",), name, 100, True, 10.5))
        self.mails.append(Lying(folder, uid, name, ("\\Seen",), name, True))
        self.read.append(("INBOX", uid, "done", what))

    def case(self) -> Case:
        """For the judge."""
        facts: dict[str, Any] = {
            "unexplained": 0,
            "events": tuple(("suppressed", key, 1) for key in KEYS.values()),
            "verified": (0, "ok, 3 rows, head 3:ab\n"),
            "up": True,
        }
        told = Evidence(
            keys=KEYS, rows=tuple(self.rows), read=tuple(self.read), mails=tuple(self.mails), **(facts | self.rest)
        )
        return Case(self.records, self.arrived, told)


@pytest.fixture
def story() -> Story:
    it = Story()
    it.sent("m1", 5, ANN, BOB, CEM, DEE)
    it.records.append(Asked(ANN, "mail", "all", "opt-out", 10))
    it.posted("opt-out-1", "opt-out", ANN, "Opt-outs", 1)
    it.records.append(Acknowledged(ANN, "filed", 12))
    it.refused("m2", 13, ANN)
    it.records += [Asked(CEM, "click", "all", "opt-out", 19), Acknowledged(CEM, "answer", 20)]
    it.records += [Asked(DEE, "click", "newsletter", "opt-out", 19), Acknowledged(DEE, "answer", 20)]
    it.sent("m3", 25, BOB, DEE)
    it.posted("ordinary-1", "ordinary", "", "INBOX", 2)
    it.records += [Lift(CEM, "api", 39, 0.0), Lift(CEM, "api", 39, 40)]
    it.sent("m4", 45, BOB, CEM)
    it.sent("m5", 50, BOB, reply="")
    it.sent("m5", 55, BOB, number=2)  # nobody knew what had become of the first
    it.rows |= {(KEYS[ANN], "all", 2), (KEYS[DEE], "newsletter", 2)}
    return it


def test_a_history_in_which_all_is_well(story: Story) -> None:
    assert judge(story.case()) == []


def test_what_is_sent_before_the_acknowledgement_or_while_it_is_lifted_is_no_breach(story: Story) -> None:
    story.sent("a", 11.9, ANN)
    story.sent("b", 40.1, CEM)
    assert judge(story.case()) == []


def _row_seen_then_lost(story: Story) -> None:
    story.records[:] = [r for r in story.records if not isinstance(r, Acknowledged) or r.person != ANN]
    story.records += [Acknowledged(ANN, "row", 11), Note("damaged", "", 11.5), Acknowledged(ANN, "filed", 12)]
    story.sent("a", 11.8, ANN)


def test_a_row_that_was_seen_is_no_promise_if_the_database_was_damaged_then(story: Story) -> None:
    _row_seen_then_lost(story)
    assert judge(story.case()) == []
    story.records[:] = [r for r in story.records if not isinstance(r, Note)]
    assert "mailed" in {v.rule for v in judge(story.case())}


def test_a_mail_server_that_is_killed_may_have_moved_a_mail_twice(story: Story) -> None:
    story.mails.append(replace(story.mails[0], uid=9))
    assert {v.rule for v in judge(story.case())} == {"twice"}
    story.records.append(Fault("Dovecot killed", "", 10, 11))
    assert judge(story.case()) == []
    story.mails.append(replace(story.mails[0], folder="INBOX"))
    assert "twice" in {v.rule for v in judge(story.case())}


def _evidence(**facts: Any) -> Callable[[Story], None]:
    return lambda story: story.rest.update(facts)


def _gave(name: str, person: str) -> Callable[[Story], None]:
    return lambda story: story.records.append(Given(name, person, "sent"))


def _sent(*args: Any, **kwargs: Any) -> Callable[[Story], None]:
    return lambda story: story.sent(*args, **kwargs)


def _no_row(person: str) -> Callable[[Story], None]:
    return lambda story: story.rows.difference_update([r for r in story.rows if r[0] == KEYS[person]])


def _row(*row: Any) -> Callable[[Story], None]:
    return lambda story: story.rows.add(row)


def _mail(number: int, **changes: Any) -> Callable[[Story], None]:
    def change(story: Story) -> None:
        story.mails[number] = replace(story.mails[number], **changes)

    return change


def _nothing_came(story: Story) -> None:
    story.arrived = [a for a in story.arrived if a.attempt != "m3.1"]


def _came_twice(story: Story) -> None:
    story.arrived.append(story.arrived[0])


def _came_without_a_dot(story: Story) -> None:
    story.sent("a", 30, BOB, reply="")
    attempt = story.records.pop()
    assert isinstance(attempt, Attempt)
    story.records.append(replace(attempt, dot=0.0))


def _came_though_refused(story: Story) -> None:
    story.arrived.append(Arrival("m2.1", "news@quillpdf.example", (ANN,), 14, ""))


def _vanished(story: Story) -> None:
    del story.mails[1]


def _filed_twice(story: Story) -> None:
    story.mails.append(replace(story.mails[0], uid=9))


def _unread(story: Story) -> None:
    story.read[1] = ("INBOX", 2, "reading", "")


VIOLATIONS: dict[str, tuple[str, Callable[[Story], None]]] = {
    "mail after a filed request": ("mailed", _sent("a", 12.001, ANN)),
    "mail after a click": ("mailed", _sent("a", 20.001, CEM)),
    "mail of the list that was left": ("mailed", _sent("a", 30, DEE, list_id="newsletter")),
    "mail to one of several": ("mailed", _sent("a", 30, BOB, ANN)),
    "a recipient who was to be refused": ("accepted", _sent("a", 30, ANN, reply="451 4.7.1")),
    "a wish that is gone": ("lost", _no_row(ANN)),
    "a wish for a list that is gone": ("lost", _no_row(DEE)),
    "a lift that came to nothing": ("lost", _row(KEYS[CEM], "all", 2)),
    "somebody who never asked": ("unasked", _row(KEYS[BOB], "all", 2)),
    "nobody we know": ("unasked", _row("ff" * 16, "all", 2)),
    "more than was asked": ("unasked", _row(KEYS[DEE], "all", 2)),
    "refused without having asked": ("unasked", lambda story: story.refused("a", 30, BOB)),
    "refused after the lift": ("unasked", lambda story: story.refused("a", 60, CEM)),
    "a mail that was not read": ("unread", _unread),
    "a request that came to nothing": ("unread", _no_row(ANN)),
    "a mail that is gone": ("touched", _vanished),
    "a mail that was moved": ("touched", _mail(1, folder="Opt-outs")),
    "a flag that was set": ("touched", _mail(1, flags=("\\Seen", "\\Flagged"))),
    "a flag that was taken": ("touched", _mail(1, flags=())),
    "octets that were changed": ("touched", _mail(1, tail="other")),
    "octets that were added": ("touched", _mail(1, whole=False)),
    "a 250 that was not true": ("false 250", _nothing_came),
    "a 451 that was not true": ("unreported", _sent("a", 30, BOB, reply="451 4.7.1 just opted out")),
    "a mail without its dot": ("unreported", _came_without_a_dot),
    "a mail in spite of the refusal": ("unreported", _came_though_refused),
    "a mail of no client": ("unreported", lambda story: story.arrived.append(Arrival("zz.1", "", (BOB,), 1, ""))),
    "a mail that came twice": ("twice", _came_twice),
    "a mail again without need": ("twice", _sent("m4", 60, BOB, number=2)),
    "two ends of one message": ("twice", _gave("m1", BOB)),
    "a request filed twice": ("twice", _filed_twice),
    "a record made twice": ("twice", _evidence(events=(("suppressed", KEYS[ANN], 2),))),
    "a broken chain": ("record", _evidence(verified=(1, "row 3 was changed"))),
    "a row without evidence": ("record", _evidence(unexplained=1)),
    "a daemon that is not there": ("stuck", _evidence(up=False)),
    "a client that waits": ("stuck", lambda story: story.records.append(Note("stuck", "a sender has mail left", 99))),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_it_finds(story: Story, name: str) -> None:
    rule, change = VIOLATIONS[name]
    change(story)
    assert rule in {violation.rule for violation in judge(story.case())}
