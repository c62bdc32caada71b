"""Something comes between: a crash, a stop, a lost connection. Nothing of a canary is left behind."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import pytest
from imapclient import IMAPClient

from daemon.intake import Intake
from daemon.mailbox.session import Session
from tests.mailbox.canaries import (
    NOW,
    Logged,
    failed,
    make_due,
    nothing_is_left,
    passed,
    rows,
    state,
)
from tests.mailbox.support import Support

pytestmark = [pytest.mark.dovecot, pytest.mark.usefixtures("at_once")]


class _Dead(BaseException):
    """The process dies here."""


def dying_at(step: str, patch: pytest.MonkeyPatch) -> None:
    """kill -9, as far as a thread can: nothing more is done, not even closing."""

    def after(owner: type, name: str) -> None:
        real = getattr(owner, name)

        def dies(*given: Any, **named: Any) -> None:
            if name != "act" or given[2].canary:
                real(*given, **named)
                raise _Dead

        patch.setattr(owner, name, dies)

    def before(owner: type, name: str) -> None:
        def dies(*given: Any, **named: Any) -> None:
            raise _Dead

        patch.setattr(owner, name, dies)

    {
        "written down": lambda: before(Session, "append"),
        "appended": lambda: after(Session, "append"),
        "committed": lambda: after(Intake, "act"),
        "marked": lambda: before(IMAPClient, "uid_expunge"),
        "removed": lambda: after(Session, "expunge"),
    }[step]()


@pytest.mark.parametrize("step", ["written down", "appended", "committed", "marked", "removed"])
def test_after_a_crash_at_any_step_the_next_start_clears_and_sends_a_new_one(
    support: Support, step: str, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    monkeypatch.setattr("threading.excepthook", lambda _: None)
    with monkeypatch.context() as patch:
        dying_at(step, patch)
        with support.watching() as watcher:
            support.until(lambda: not watcher._thread.is_alive())
    found = state(support)
    assert found is not None
    assert found.open
    assert found.left
    assert len(support.subjects()) == (step in ("appended", "committed", "marked"))
    support.rhythm = dataclasses.replace(NOW, soon=3600)
    with support.watching():
        support.until(lambda: (now := state(support)) and not now.open)
        support.until(lambda: [line for line in logged() if line["event"] == "canary_broken_off"])
    nothing_is_left(support)
    assert not passed(support)
    make_due(support)
    with support.watching():
        support.until(lambda: passed(support))
    nothing_is_left(support)


def test_one_that_is_on_its_way_when_we_are_told_to_stop_is_not_left_behind(
    support: Support, monkeypatch: pytest.MonkeyPatch
) -> None:
    appended = threading.Event()
    real = Session.append

    def append(self: Session, *given: Any) -> None:
        real(self, *given)
        appended.set()
        assert support.watcher is not None
        support.watcher.ask_to_stop()

    monkeypatch.setattr(Session, "append", append)
    with support.watching():
        assert appended.wait(20)
    nothing_is_left(support)
    found = state(support)
    assert found is not None
    assert not found.open
    assert not found.left


def test_one_that_appears_too_late_goes_without_more_ado(support: Support, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bytes] = []
    support.rhythm = dataclasses.replace(NOW, patience=0.3)
    monkeypatch.setattr(Session, "append", lambda self, folder, raw, when: kept.append(raw))
    with support.watching():
        support.until(lambda: failed(support))
        support.dovecot.append("support", kept[0])
        support.until(lambda: not support.subjects())
        support.until(lambda: rows(support, "SELECT count(*) FROM incoming") == 0)
    nothing_is_left(support)
    assert rows(support, "SELECT count(*) FROM audit") == 0


def test_a_lost_connection_in_between(support: Support, monkeypatch: pytest.MonkeyPatch) -> None:
    real, lost = Session.expunge, threading.Event()

    def hangs_up(self: Session, uid: int) -> None:
        if not lost.is_set():
            lost.set()
            self._client.shutdown()
        real(self, uid)

    monkeypatch.setattr(Session, "expunge", hangs_up)
    with support.watching():
        support.until(lambda: passed(support))
    assert lost.is_set()
    nothing_is_left(support)
