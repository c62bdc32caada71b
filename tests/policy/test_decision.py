"""What is answered, and what is told of it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon import events, log
from daemon.postfix import Context
from storage.terms import Reason
from tests.policy.desk import ANN, GOOD, OPTED_OUT, Desk, action, rcpt, serving, written

# ------------------------------------------------------------------ the decision


def test_an_opt_out_counts_at_once_and_so_does_its_end(desk: Desk) -> None:
    context = desk.context()
    assert action(context, rcpt()) == "DUNNO"
    desk.books.suppress(ANN)
    assert action(context, rcpt()).startswith(OPTED_OUT)
    desk.books.lift(ANN)
    assert action(context, rcpt()) == "DUNNO"
    assert [facts[0] for facts in desk.counted] == ["passed", "refused", "passed"]


@pytest.mark.parametrize("state", ["CONNECT", "EHLO", "HELO", "MAIL", "VRFY", "ETRN", "XYZ", ""])
def test_where_no_recipient_is_taken_nothing_is_said(desk: Desk, state: str) -> None:
    desk.books.suppress(ANN)
    assert action(desk.context(), rcpt(state=state)) == "DUNNO"
    assert desk.counted == []


@pytest.mark.parametrize("state", ["DATA", "END-OF-MESSAGE"])
def test_the_only_recipient_is_asked_about_again(desk: Desk, state: str) -> None:
    context = desk.context()
    assert action(context, rcpt(state=state)) == "DUNNO"
    assert desk.counted == []  # RCPT has counted it
    desk.books.suppress(ANN)
    assert action(context, rcpt(state=state)).startswith(OPTED_OUT)
    assert action(context, rcpt("", state=state)) == "DUNNO"  # there are several
    assert [facts[0] for facts in desk.counted] == ["refused"]


@pytest.mark.parametrize(
    ("policy_context", "user", "default", "refused"),
    [
        ("", "", None, False),
        ("list=newsletter", "", None, True),
        ("list=offers", "", None, False),
        ("purpose=marketing;list=newsletter", "", None, True),
        ("list=newsletter, purpose=service", "", None, False),
        ("", "", "newsletter", True),
        ("", "crm", "newsletter", False),  # she stays with offers
        ("list=newsletter", "crm", None, True),  # main.cf is the whole answer
        ("list=newsletter", "app", None, True),
        ("purpose=marketing", "", "newsletter", True),
        ("purpose=marketing", "crm", None, False),
        ("", "app", "newsletter", False),
        ("", "somebody", "newsletter", True),
    ],
)
def test_list_and_purpose(desk: Desk, policy_context: str, user: str, default: str | None, refused: bool) -> None:
    ref = desk.books.suppress(ANN, "newsletter").evidence
    answer = action(desk.context(default_list=default), rcpt(ANN, policy_context, user))
    assert answer == (f"550 5.7.1 <{ANN}> has opted out of newsletter (ref {ref})" if refused else "DUNNO")
    assert [facts[2] for facts in desk.counted] == [user if user in ("crm", "app") else ""]  # names of ours only


def test_service_mail_is_stopped_by_hard_bounces_only(desk: Desk) -> None:
    desk.books.suppress(ANN)
    assert action(desk.context(), rcpt(sasl_username="app")) == "DUNNO"
    assert action(desk.context(), rcpt("bob@customer.example", sasl_username="app")) == "DUNNO"
    ref = desk.books.suppress(ANN, reason=Reason.HARD_BOUNCE).evidence
    bounced = f"550 5.7.1 <{ANN}> is suppressed: hard-bounce (ref {ref})"
    assert action(desk.context(), rcpt(sasl_username="app")) == bounced
    assert action(desk.context(), rcpt(policy_context="purpose=service")) == bounced
    assert desk.counted == [
        ("service", None, "app", Reason.OPT_OUT, 1),
        ("passed", None, "app", 0, 1),
        ("refused", None, "app", Reason.HARD_BOUNCE, 1),
        ("refused", None, "", Reason.HARD_BOUNCE, 1),
    ]


@pytest.mark.parametrize(
    "policy_context",
    ["list=newsletters", "list=", "newsletter", "lst=newsletter", "list=newsletter list=offers", "purpose=receipts",
     "list=newsletter,submission", "LIST=newsletter", "purpose=", " ; ,=", "list=newsletter\udcff"],
)  # fmt: skip
def test_a_mistake_in_main_cf_lets_nothing_pass(desk: Desk, policy_context: str, said: list[Any]) -> None:
    assert action(desk.context(), rcpt("bob@customer.example", policy_context)).startswith("451 4.3.5 ")
    assert [event for event, _ in said] == ["policy_misconfigured"]
    assert desk.counted == [("deferred", None, "", 0, 1)]
    assert action(desk.context(observe=True), rcpt("bob@customer.example", policy_context)) == "DUNNO"


def test_a_user_with_a_list_that_is_gone_lets_nothing_pass(desk: Desk, said: list[Any]) -> None:
    context = desk.context(lists=frozenset({"newsletter"}))
    assert action(context, rcpt("bob@customer.example", sasl_username="crm")).startswith("451 4.3.5 ")
    assert said == [("policy_misconfigured", {"what": "list=offers: no such list", "observed": False})]


def test_observed_all_passes_and_the_log_says_what_would_not(desk: Desk, said: list[Any]) -> None:
    ref = desk.books.suppress(ANN).evidence
    context = desk.context(observe=True)
    assert [action(context, rcpt(r)) for r in (ANN, "bob@customer.example", "ann")] == ["DUNNO"] * 3
    desk.books.ledger.path.unlink()
    assert action(context, rcpt()) == "DUNNO"
    assert [event for event, _ in said] == ["policy_would_refuse", "policy_unreadable", "policy_deferred"]
    assert said[0][1]["ref"] == ref
    assert all(facts["observed"] for _, facts in said[1:])
    assert [facts[0] for facts in desk.counted] == ["would-refuse", "passed", "would-refuse", "passed"]


async def test_a_ledger_that_cannot_be_asked_defers_and_is_asked_again(desk: Desk, said: list[Any]) -> None:
    path = desk.books.ledger.path
    began = time.monotonic()
    async with serving(desk.context()) as service:
        assert await service.ask(GOOD) == b"action=DUNNO\n\n"
        path.rename(path.with_suffix(".away"))
        assert (await service.ask(GOOD)).startswith(b"action=451 4.3.0 ")
        path.write_bytes(b"not a database" * 1000)
        assert (await service.ask(GOOD)).startswith(b"action=451 4.3.0 ")
        path.with_suffix(".away").rename(path)
        assert await service.ask(GOOD) == b"action=DUNNO\n\n"
    assert time.monotonic() - began < 5
    assert [event for event, _ in said] == ["policy_deferred"] * 2
    assert [facts[0] for facts in desk.counted] == ["passed", "deferred", "deferred", "passed"]


async def test_a_bug_costs_one_recipient_and_is_told(desk: Desk, said: list[Any]) -> None:
    def note(outcome: str, *_: object) -> None:
        if outcome == "refused":
            raise KeyError(ANN)

    desk.books.suppress(ANN)
    async with serving(desk.context(note=note)) as service:
        answers = await service.ask(written(rcpt()) + GOOD)
    assert answers == b"action=451 4.3.0 local error, try again later\n\naction=DUNNO\n\n"
    assert [event for event, _ in said] == ["policy_refused", "failed"]


def test_no_address_reaches_the_log(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.books.suppress(ANN)
    events.configure(format="json")
    for asked in (
        rcpt(),
        rcpt("ann%customer.example"),
        rcpt(f"{ANN}@"),
        rcpt("ann\udcff@customer.example"),
        rcpt(policy_context=f"for {ANN}"),
    ):
        action(desk.context(), asked)
        action(desk.context(observe=True), asked)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert len(lines) == 10
    assert "customer" not in json.dumps(lines)
    assert len({line["rcpt"] for line in lines if line["event"] in ("policy_refused", "policy_would_refuse")}) == 1


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30), st.sampled_from(["RCPT", "DATA", "MAIL"]))
def test_every_answer_is_one_line_of_ascii(
    shared: Callable[[], Context], recipient: str, context: str, user: str, state: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "bound", type("Quiet", (), {"__getattr__": lambda *_: lambda *_, **__: None})())
        for asked in (recipient, f"{recipient}@suppressed.example"):
            answer = action(shared(), rcpt(asked, context, user, state))
            assert answer == "DUNNO" or re.fullmatch(r"(550 5|451 4)\.\d\.\d [ -~]+", answer)
