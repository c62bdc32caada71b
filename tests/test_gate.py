"""The one decision, and the words of a refusal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.gate import Gate, Pass, Refused, Unknown
from storage.address import parse
from storage.lookup import Verdict
from storage.terms import ALL, Reason
from tests.ledgers import Books, books

ANN = parse("ann@example.com")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Books]:
    it = books(tmp_path / "ledger")
    yield it
    it.ledger.close()


def reply(gate: Gate, address: str, list_id: str | None = None) -> str:
    answer = gate.may(parse(address), list_id)
    assert isinstance(answer, Refused)
    return answer.reply(address)


def test_whoever_is_not_on_the_list_may_be_mailed(ledger: Books) -> None:
    ledger.suppress("bob@example.com")
    assert ledger.gate().may(ANN) == Pass()


def test_an_opt_out_is_told_with_its_reference(ledger: Books) -> None:
    ref = ledger.suppress("ann@example.com").evidence
    assert reply(ledger.gate(), "Ann+x@Example.com") == f"550 5.7.1 <Ann+x@Example.com> has opted out (ref {ref})"


def test_an_opt_out_of_a_list_stops_that_list_and_names_it(ledger: Books) -> None:
    ref = ledger.suppress("ann@example.com", "offers").evidence
    gate = ledger.gate()
    assert (
        reply(gate, "ann@example.com", "offers") == f"550 5.7.1 <ann@example.com> has opted out of offers (ref {ref})"
    )
    for other in (None, "newsletter", "a-list-nobody-knows"):
        assert gate.may(ANN, other) == Pass()


def test_an_opt_out_of_everything_is_no_opt_out_of_the_list_it_was_asked_for(ledger: Books) -> None:
    ref = ledger.suppress("ann@example.com").evidence
    assert reply(ledger.gate(), "ann@example.com", "offers") == f"550 5.7.1 <ann@example.com> has opted out (ref {ref})"
    assert isinstance(ledger.gate().may(ANN, "a-list-nobody-knows"), Refused)


@pytest.mark.parametrize("reason", [Reason.COMPLAINT, Reason.OPERATOR, Reason.HARD_BOUNCE, Reason.SOFT_BOUNCE])
def test_other_reasons_are_named(ledger: Books, reason: Reason) -> None:
    ref = ledger.suppress("ann@example.com", reason=reason).evidence
    assert (
        reply(ledger.gate(), "ann@example.com")
        == f"550 5.7.1 <ann@example.com> is suppressed: {reason.word} (ref {ref})"
    )


def test_a_domain_is_named_as_such(ledger: Books) -> None:
    ref = ledger.suppress("@example.com", reason=Reason.OPERATOR).evidence
    assert reply(ledger.gate(), "ann@mail.example.com") == (
        f"550 5.7.1 <ann@mail.example.com> is suppressed: domain (ref {ref})"
    )


@given(
    st.text(max_size=80),
    st.sampled_from(list(Reason)),
    st.sampled_from(["exact", "domain"]),
    st.none() | st.just("offers"),
)
def test_a_refusal_is_one_line_of_ascii_whatever_the_recipient(
    rcpt_to: str, reason: Reason, matched: str, of: str | None
) -> None:
    said = Refused(Verdict(reason, ALL, matched, 0, 7), of).reply(rcpt_to)  # type: ignore[arg-type]
    assert said.isascii()
    assert said.isprintable()
    assert said.startswith("550 5.7.1 ")
    assert said.endswith(" (ref 7)")


def test_a_recipient_that_is_not_ascii_is_left_out(ledger: Books) -> None:
    ref = ledger.suppress("josé@example.com").evidence
    assert reply(ledger.gate(), "josé@example.com") == f"550 5.7.1 has opted out (ref {ref})"


def test_the_next_question_after_a_commit_knows(ledger: Books) -> None:
    gate = ledger.gate()
    for _ in range(20):
        assert gate.may(ANN) == Pass()
        ledger.suppress("ann@example.com")
        assert isinstance(gate.may(ANN), Refused)
        ledger.lift("ann@example.com")


def test_all_at_once_is_the_same_as_one_by_one(ledger: Books) -> None:
    ledger.suppress("ann@example.com")
    ledger.suppress("bob@example.com", "offers")
    gate = ledger.gate()
    people = [parse(f"{n}@example.com") for n in ("ann", "bob", "cem", "ann")]
    for list_id in (None, "offers"):
        assert gate.may_all(people, list_id) == [gate.may(p, list_id) for p in people]


def test_without_a_database_nobody_knows(ledger: Books) -> None:
    gate = ledger.gate()
    assert gate.may(ANN) == Pass()
    ledger.ledger.path.rename(ledger.ledger.path.with_name("away"))
    answers = [gate.may(ANN), *gate.may_all([ANN, ANN], "offers")]
    assert len(answers) == 3
    for answer in answers:
        assert isinstance(answer, Unknown)
        assert answer.reply == "451 4.3.0 cannot tell whether this recipient has opted out, try again later"
        assert "No such file" in answer.why
    ledger.ledger.path.with_name("away").rename(ledger.ledger.path)
    assert gate.may(ANN) == Pass()


def test_with_another_sites_key_nobody_knows(ledger: Books, tmp_path: Path) -> None:
    gate = ledger.gate()
    assert gate.may(ANN) == Pass()
    other = books(tmp_path / "other")
    other.ledger.close()
    other.ledger.path.rename(ledger.ledger.path)
    [answer] = gate.may_all([ANN])
    assert isinstance(answer, Unknown)
    assert "is still of the old one" in answer.why  # the two read as one would be neither
    ledger.ledger.close()
    ledger.ledger.path.with_name("optoutd.db-wal").unlink()
    answer = gate.may(ANN)
    assert isinstance(answer, Unknown)
    assert "the site key is not the one" in answer.why


def test_what_stands_is_told_by_list(ledger: Books) -> None:
    ledger.suppress("ann@example.com", "offers")
    gate = ledger.gate()
    assert gate.list_ids(r.scope for r in gate.rows(ANN)) == ["offers"]
    assert gate.list_ids([ALL, 99]) == []


@pytest.mark.parametrize("reason", [r for r in Reason if r not in (Reason.HARD_BOUNCE, Reason.WANTED)])
def test_service_mail_passes_and_tells_what_would_have_stopped_marketing(ledger: Books, reason: Reason) -> None:
    ref = ledger.suppress("ann@example.com", reason=reason).evidence
    answer = ledger.gate().may(ANN, purpose="service")
    assert isinstance(answer, Pass)
    assert answer.despite is not None
    assert (answer.despite.verdict.evidence, answer.despite.verdict.reason) == (ref, reason)
    assert ledger.gate().may_all([ANN, parse("bob@example.com")], purpose="service") == [answer, Pass()]


def test_service_mail_is_stopped_by_a_hard_bounce_even_beside_an_opt_out(ledger: Books) -> None:
    ref = ledger.suppress("ann@example.com", reason=Reason.HARD_BOUNCE).evidence
    ledger.suppress("ann@example.com")
    answer = ledger.gate().may(ANN, purpose="service")
    assert isinstance(answer, Refused)
    assert answer.reply("ann@example.com") == f"550 5.7.1 <ann@example.com> is suppressed: hard-bounce (ref {ref})"


@pytest.mark.parametrize(
    "routed",
    [
        "ann%example.com@localhost",
        "example.com!ann@localhost",
        '"ann@example.com"@localhost',
        "a!ann%example.com@x.example",
    ],
)
def test_an_address_that_a_mail_server_may_read_as_another_one_is_asked_about_as_both(
    ledger: Books, routed: str
) -> None:
    assert ledger.gate().may(parse(routed)) == Pass()
    ledger.suppress("ann@example.com")
    gate = ledger.gate()
    assert isinstance(gate.may(parse(routed)), Refused)
    assert [type(a) for a in gate.may_all([parse("bob@example.com"), parse(routed)])] == [Pass, Refused]


def test_of_a_routed_address_a_refusal_counts_before_what_is_only_told(ledger: Books) -> None:
    """Service mail: the address as it stands has opted out, which does not stop it; the mailbox it leads to is dead."""
    ledger.suppress("gone%example.net@example.com")
    ref = ledger.suppress("gone@example.net", reason=Reason.HARD_BOUNCE).evidence
    answer = ledger.gate().may(parse("gone%example.net@example.com"), None, "service")
    assert isinstance(answer, Refused)
    assert answer.verdict.evidence == ref
