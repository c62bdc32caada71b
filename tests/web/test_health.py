"""/healthz and /readyz: is the daemon alive, and can it answer for a recipient?"""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from daemon.vitals import MailboxVitals, Vitals
from storage import deferral
from storage.lookup import Lookup
from storage.write import write
from tests.ledgers import Books
from tests.web.support import Door, door, whole

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
LISTENING = {"relay": ("127.0.0.1:2525",), "policy": ("127.0.0.1:10031",)}


def vitals(**other: Any) -> Vitals:
    """Of a daemon that is well."""
    well = MailboxVitals("support", True, True, NOW)
    facts: dict[str, Any] = {"bound": LISTENING, "mailboxes": (well,), "upstream": "", **other}
    return Vitals(NOW, **facts)


def ready(web: Door) -> tuple[int, dict[str, str]]:
    """Status and parts."""
    answer = web.ask("GET", "/readyz")
    said = json.loads(answer.body)
    assert said.keys() == {"ready", "parts"}
    assert said["ready"] is (answer.status == 200)
    return answer.status, said["parts"]


def test_a_daemon_that_is_well_is_ready(ledger: Books) -> None:
    with door(ledger, whole(ledger, vitals=vitals)) as web:
        assert web.ask("GET", "/healthz").status == 200
        parts = {"database": "ok", "relay": "ok", "policy": "ok", "mailbox:support": "ok", "upstream": "ok"}
        assert ready(web) == (200, parts)


def test_what_is_not_configured_is_no_part(ledger: Books) -> None:
    with door(ledger, whole(ledger)) as web:
        assert ready(web) == (200, {"database": "ok"})


def test_servers_of_others_that_are_away_are_told_and_no_more(ledger: Books) -> None:
    """Not ready means: send nobody here. That would help neither the mailbox nor the upstream."""
    boxes = (
        MailboxVitals("support", True, False, None, "login: no such user <address>"),
        MailboxVitals("bounces", True, False),
        MailboxVitals("other", False, False),
    )
    now = vitals(mailboxes=boxes, upstream="greeting: 421 " + "x" * 500)
    with door(ledger, whole(ledger, vitals=lambda: now)) as web:
        status, parts = ready(web)
    assert status == 200
    assert parts["mailbox:support"] == "login: no such user <address>"
    assert parts["mailbox:bounces"] == "not connected yet"
    assert parts["mailbox:other"] == "not watched by this node"
    assert parts["upstream"].startswith("greeting: 421 x")
    assert max(map(len, parts.values())) <= 120


def test_a_relay_that_does_not_listen_is_not_ready(ledger: Books) -> None:
    with door(ledger, whole(ledger, vitals=lambda: vitals(bound={}))) as web:
        status, parts = ready(web)
    assert (status, parts["relay"]) == (503, "not listening")


def test_a_database_that_is_gone_is_not_ready_and_ready_when_it_is_back(ledger: Books) -> None:
    path = ledger.ledger.path
    with door(ledger, whole(ledger)) as web:
        assert ready(web)[0] == 200
        path.rename(path.with_name("away"))
        status, parts = ready(web)
        assert status == 503
        assert parts["database"].startswith("lookup in ")
        assert web.ask("GET", "/healthz").status == 200
        path.with_name("away").rename(path)
        assert ready(web)[0] == 200


def test_a_garbled_database_is_not_ready(ledger: Books) -> None:
    with door(ledger, whole(ledger)) as web:
        ledger.ledger.path.write_bytes(b"this is no database" * 500)
        assert ready(web)[0] == 503


def test_a_list_restored_with_a_gap_is_not_ready(ledger: Books) -> None:
    """Every recipient is answered 451."""
    with write(ledger.ledger, NOW, "test") as w:
        deferral.begin(w, int(NOW.timestamp()))
    with door(ledger, whole(ledger)) as web:
        status, parts = ready(web)
    assert status == 503
    assert parts["database"] != "ok"


def test_a_database_that_hangs_is_told_within_a_second_and_holds_one_thread(
    ledger: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, asked = threading.Event(), []

    def hangs(*_: Any) -> list[Any]:
        asked.append(threading.current_thread().name)
        goes_on.wait(20)
        return []

    monkeypatch.setattr(Lookup, "rows", hangs)
    with door(ledger, whole(ledger)) as web:
        for _ in range(3):
            began = time.monotonic()
            assert ready(web) == (503, {"database": "no answer within 0.8 s"})
            assert time.monotonic() - began < 1
        assert len(asked) == 1
        goes_on.set()
        time.sleep(0.1)
        assert ready(web)[0] == 200


def test_the_world_is_told_that_we_live_and_nothing_else(ledger: Books) -> None:
    with door(ledger) as web:
        assert web.ask("GET", "/healthz").body == "ok\n"
        assert {web.ask("GET", path).status for path in ("/readyz", "/metrics", "/ReadyZ/")} == {404}


def test_looking_changes_nothing(ledger: Books) -> None:
    with door(ledger, whole(ledger)) as web:
        before = web.audit_rows()
        assert web.ask("HEAD", "/readyz").body == ""
        assert {web.ask("POST", path, body=b"x").status for path in ("/readyz", "/healthz", "/metrics")} == {405}
        assert web.audit_rows() == before
