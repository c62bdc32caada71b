"""/metrics: what a Prometheus reads there."""

from __future__ import annotations

import subprocess
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import daemon
from daemon import events, metrics, relay_events
from daemon.duty.alarm import KINDS
from daemon.events import failed
from daemon.vitals import AlarmVitals, DutyVitals, MailboxVitals, Vitals
from storage import census
from storage.address import SiteKey
from storage.journal import Journal
from storage.terms import Reason
from storage.write import write
from tests.ledgers import Books, queued
from tests.servers import program
from tests.web.scraped import OPENMETRICS, families, scrape, value
from tests.web.support import ANN, Door, door, whole

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
WHO = SiteKey((bytes(32),)).who("ann@customer.example")


def vitals(**other: Any) -> Vitals:
    """Of a daemon with one mailbox that is well, one that was never reached, and one that another node has."""
    boxes = (
        MailboxVitals("support", True, True, NOW),
        MailboxVitals("bounces", True, False),
        MailboxVitals("other", False, False),
    )
    return Vitals(NOW, mailboxes=boxes, **{"upstream": "", **other})


def everything(ledger: Books) -> None:
    """Let all that can be counted happen once."""
    events.message_read("support", 1, "opt-out", ["7.5"], 0.2)
    events.job_failed("expire", "x")
    with write(ledger.ledger, NOW, "test") as w:
        w.job_ran("back_up")
        w.job_ran("expire")


# ------------------------------------------------------------------ the formats


def test_each_scrape_has_help_and_type_of_every_family(ledger: Books) -> None:
    everything(ledger)
    with door(ledger, whole(ledger, vitals=vitals)) as web:
        scrape(web)  # requests are counted when they are answered, the first one too late for itself
        text, new = scrape(web), scrape(web, OPENMETRICS)
    assert text.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert new.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert new.body.endswith("# EOF\n")
    found = families(text)
    assert found.keys() == families(new).keys()
    ours = {name: family for name, family in found.items() if name.startswith("optoutd_")}
    assert len(ours) > 25
    for family in ours.values():
        assert family.documentation.endswith(".")
        assert family.type in ("counter", "gauge", "histogram")
    assert found["process_open_fds"].samples[0].value > 0


@pytest.mark.parametrize("accept", ["", "text/html", "application/openmetrics-text;version=x\x7f", ";;,,=", "x" * 5000])
def test_an_odd_accept_gets_something_that_can_be_read(ledger: Books, accept: str) -> None:
    with door(ledger, whole(ledger)) as web:
        assert "optoutd_build_info" in families(scrape(web, accept)) or accept.startswith("application")


@pytest.mark.promtool
def test_promtool_has_nothing_to_complain_of(ledger: Books) -> None:
    everything(ledger)
    with door(ledger, whole(ledger, vitals=vitals)) as web:
        body = scrape(web).body
    ours = "".join(line for line in body.splitlines(keepends=True) if "process_" not in line)
    run = subprocess.run([str(program("promtool")), "check", "metrics"], input=ours, capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_nobodys_address_token_or_path_is_a_label(ledger: Books) -> None:
    everything(ledger)
    ledger.suppress(ANN)
    with door(ledger, whole(ledger, vitals=vitals)) as web:
        token = web.token()
        web.post(token)
        web.ask("GET", f"/{ANN}/{token}")
        web.ask("GET", "/console/suppressions?q=" + ANN)
        body = scrape(web).body
    assert "@" not in body
    assert "customer" not in body
    assert token.lower() not in body.lower()
    assert "suppressions?" not in body


def test_labels_are_bounded(ledger: Books) -> None:
    with door(ledger, whole(ledger)) as web:
        for number in range(30):
            web.ask("GET", f"/odd{number}/{number}")
        found = families(scrape(web))["optoutd_http_requests"]
    assert {s.labels["area"] for s in found.samples} <= {
        *("u", "p", "undo", "healthz", "static", "console", "api", "metrics", "readyz", "other")
    }


# ------------------------------------------------------------------ what is counted


def growth(web: Door, name: str, **labels: str) -> Any:
    """How much a sample grows from here to the call."""
    before = value(web, name, **labels) or 0
    return lambda: (value(web, name, **labels) or 0) - before


def test_one_click_posts_are_counted_by_what_came_of_them(ledger: Books) -> None:
    with door(ledger, whole(ledger)) as web:
        grown = {
            outcome: growth(web, "optoutd_oneclick_total", outcome=outcome)
            for outcome in ("recorded", "repeated", "malformed", "unavailable")
        }
        asked = growth(web, "optoutd_http_requests_total", area="u", status="2xx")
        token = web.token("newsletter")
        web.ask("GET", f"/u/{token}")
        web.post(token)
        web.post(token)
        web.post(token, b"x=y")
        assert asked() == 3
        ledger.ledger.path.rename(ledger.ledger.path.with_name("away"))
        assert web.post(token).status == 503
        assert {outcome: grow() for outcome, grow in grown.items()} == {
            "recorded": 1,
            "repeated": 1,
            "malformed": 1,
            "unavailable": 1,
        }


def test_mail_that_was_read_and_how_soon_an_opt_out_was_committed(ledger: Books) -> None:
    with door(ledger, whole(ledger)) as web:
        read = growth(web, "optoutd_intake_messages_total", mailbox="support", label="opt-out")
        other = growth(web, "optoutd_intake_messages_total", mailbox="support", label="ordinary")
        committed = growth(web, "optoutd_enforcement_seconds_count")
        soon = growth(web, "optoutd_enforcement_seconds_bucket", le="0.5")
        events.message_read("support", 1, "opt-out", ["7.5"], 0.3)
        events.message_read("support", 2, "ordinary", ["9"], 0.3)
        events.message_read("support", 3, "opt-out", ["7.5"], 70.0)
        assert (read(), other(), committed(), soon()) == (2, 1, 2, 1)


def test_events_that_an_operator_must_hear_of(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "failed", failed)  # the event itself: nothing has broken
    with door(ledger, whole(ledger)) as web:
        names = ["promise_broken", "late_opt_outs", "upstream_possibly_duplicated", "backup_failures", "failures"]
        grown = {name: growth(web, f"optoutd_{name}_total") for name in names}
        jobs = growth(web, "optoutd_job_failures_total", job_name="expire")
        relay_events.promise_broken(WHO, "opt-out", 7)
        relay_events.late_opt_out(WHO, "has opted out", 7, None)
        relay_events.possibly_duplicated("x")
        events.backup_failed("x", "y")
        events.failed("test", ValueError())
        events.job_failed("expire", "x")
        assert {name: grow() for name, grow in grown.items()} == dict.fromkeys(names, 1)
        assert jobs() == 1


def test_a_broken_record_is_told_until_all_of_it_is_whole(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics.audit_broken, "on", False)  # it is the process', and other tests break records, too
    with door(ledger, whole(ledger)) as web:
        assert value(web, "optoutd_audit_broken") == 0
        events.audit_broken("row 7")
        assert value(web, "optoutd_audit_broken") == 1
        events.job_done("note_head")  # looks at what is new only
        assert value(web, "optoutd_audit_broken") == 1
        events.job_done("verify_audit")
        assert value(web, "optoutd_audit_broken") == 0


# ------------------------------------------------------------------ how things are


def test_parts_of_the_daemon(ledger: Books) -> None:
    with door(ledger, whole(ledger, vitals=vitals)) as web:
        assert value(web, "optoutd_build_info", version=daemon.__version__) == 1
        assert value(web, "optoutd_mailbox_up", mailbox="support") == 1
        assert value(web, "optoutd_mailbox_up", mailbox="bounces") == 0
        assert value(web, "optoutd_mailbox_up", mailbox="other") is None  # the node that watches it tells
        name = "optoutd_mailbox_last_success_timestamp_seconds"
        assert value(web, name, mailbox="support") == NOW.timestamp()
        assert value(web, name, mailbox="bounces") is None
        assert value(web, "optoutd_upstream_up") == 1


@pytest.mark.parametrize(("upstream", "told"), [("greeting: 421", 0), (None, None)])
def test_an_upstream_that_is_away_and_none_at_all(ledger: Books, upstream: str | None, told: float | None) -> None:
    with door(ledger, whole(ledger, vitals=lambda: vitals(upstream=upstream))) as web:
        assert value(web, "optoutd_upstream_up") == told


def test_the_ledger_in_numbers(ledger: Books) -> None:
    ledger.suppress(ANN)
    ledger.suppress(ANN, "newsletter", Reason.COMPLAINT)
    ledger.suppress("bob@customer.example")
    with write(ledger.ledger, NOW, "test") as w:
        for hours in (30, 2):
            queued(w, NOW - timedelta(hours=hours))
        w.job_ran("back_up")
    made = replace(whole(ledger), now=lambda: NOW)
    with door(ledger, made) as web:
        assert value(web, "optoutd_suppressions", reason="opt-out") == 2
        assert value(web, "optoutd_suppressions", reason="complaint") == 1
        assert value(web, "optoutd_suppressions", reason="soft-bounce") == 0
        assert value(web, "optoutd_review_open") == 2
        assert value(web, "optoutd_review_oldest_seconds") == 30 * 3600
        assert value(web, "optoutd_audit_rows") == web.audit_rows()
        assert value(web, "optoutd_backup_last_success_timestamp_seconds") == NOW.timestamp()
        assert value(web, "optoutd_job_last_success_timestamp_seconds", job_name="back_up") == NOW.timestamp()
        assert (value(web, "optoutd_disk_free_bytes", of="database") or 0) > 1e6
        assert value(web, "optoutd_disk_free_bytes", of="backups") is None
        ledger.suppress("eve@customer.example")  # seen at the next scrape: counting took no time
        assert value(web, "optoutd_suppressions", reason="opt-out") == 3


def test_room_for_backups_is_told_where_there_are_some(ledger: Books) -> None:
    ledger.ledger.journal = Journal(ledger.ledger.path.parent / "journal.log", ledger.ledger.site_key)
    with door(ledger, whole(ledger)) as web:
        assert (value(web, "optoutd_disk_free_bytes", of="backups") or 0) > 1e6


def test_a_count_that_took_long_is_not_made_again_soon(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []

    def slow(db: Any) -> dict[Reason, int]:
        counted.append(db)
        time.sleep(0.02)
        return {Reason.OPT_OUT: len(counted)}

    monkeypatch.setattr(census, "suppressions", slow)
    with door(ledger, whole(ledger)) as web:
        for _ in range(3):
            ledger.suppress(f"{time.monotonic()}@customer.example")
            assert value(web, "optoutd_suppressions", reason="opt-out") == 1
    assert len(counted) == 1


def test_nothing_is_counted_again_while_nothing_has_changed(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[Any] = []

    def count(db: Any) -> dict[Reason, int]:
        counted.append(db)
        return {}

    monkeypatch.setattr(census, "suppressions", count)
    with door(ledger, whole(ledger)) as web:
        for _ in range(3):
            scrape(web)
    assert len(counted) == 1


# ------------------------------------------------------------------ a database that is away


def test_a_database_that_is_away_fails_no_scrape(ledger: Books) -> None:
    with door(ledger, whole(ledger, vitals=vitals)) as web:
        assert value(web, "optoutd_database_up") == 1
        ledger.ledger.path.rename(ledger.ledger.path.with_name("away"))
        found = families(scrape(web))
        assert found["optoutd_database_up"].samples[0].value == 0
        assert not {"optoutd_suppressions", "optoutd_review_open", "optoutd_audit_rows"} & found.keys()
        assert {"optoutd_relay_recipients", "optoutd_mailbox_up"} <= found.keys()


def test_a_database_that_hangs_holds_up_no_scrape(ledger: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = threading.Event()
    monkeypatch.setattr(census, "numbers", lambda _: goes_on.wait(20))
    with door(ledger, whole(ledger)) as web:
        for _ in range(2):
            began = time.monotonic()
            assert value(web, "optoutd_database_up") == 0
            assert time.monotonic() - began < 4
        goes_on.set()


def test_every_counter_begins_at_nought_where_its_labels_are_known() -> None:
    """Else the first time would be no increase, and no alert."""
    unlabelled = [counter for counter in metrics.COUNTERS if not counter.labels]
    assert all(counter.samples() for counter in unlabelled)
    outcomes = {values for values, _ in metrics.relay_recipients.samples()}
    assert outcomes == {("passed",), ("refused",), ("stripped",), ("deferred",), ("rejected",)}
    outcomes = {values for values, _ in metrics.relay_messages.samples()}
    assert outcomes == {("sent",), ("deferred",), ("rejected",), ("withheld",)}


def test_what_the_clock_of_duty_saw_last(ledger: Books) -> None:
    """Nothing until it has looked; then every kind of alarm, and only times that there are."""
    with door(ledger, whole(ledger, vitals=vitals)) as web:
        assert "optoutd_alarm" not in scrape(web).body
    now = datetime.now(UTC)
    alarm = AlarmVitals("disk-low", "database", NOW, "Low", "Make room")
    with door(ledger, whole(ledger, vitals=lambda: vitals(duty=DutyVitals((alarm,))))) as web:
        scraped = scrape(web)
        found = {sample.labels["kind"]: sample.value for sample in families(scraped)["optoutd_alarm"].samples}
        assert found == {kind: float(kind == "disk-low") for kind in KINDS}
        assert value(web, "optoutd_notices_owed") == 0
        for name in ("duty_seconds_left", "duty_oldest_open", "notices_oldest"):
            assert f"optoutd_{name}" not in scraped.body
    since = now - timedelta(hours=49)
    late = DutyVitals((), since, "x", now - timedelta(hours=1), 3, NOW)
    with door(ledger, whole(ledger, vitals=lambda: vitals(duty=late))) as web:
        left = value(web, "optoutd_duty_seconds_left")
        assert left is not None
        assert -3900 < left <= -3600
        assert value(web, "optoutd_duty_oldest_open_timestamp_seconds") == since.timestamp()
        assert value(web, "optoutd_notices_owed") == 3
        assert value(web, "optoutd_notices_oldest_timestamp_seconds") == NOW.timestamp()
