"""The documents, alerts and dashboard of monitoring/ speak of metrics that there are, and leave none out."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from daemon import events
from daemon.duty.alarm import KINDS
from daemon.vitals import DutyVitals, MailboxVitals, Vitals
from storage import canaries
from storage.canaries import Result, State
from storage.journal import Journal
from storage.write import write
from tests.ledgers import books
from tests.servers import program
from tests.web.scraped import families, scrape
from tests.web.support import door, whole

ROOT = Path(__file__).parents[1]
HOME = ROOT / "monitoring"
DOCS = (ROOT / "docs/monitoring.md").read_text()
ALERTS = (HOME / "alerts.yml").read_text()
TESTS = (HOME / "alerts_test.yml").read_text()
DASHBOARD: dict[str, Any] = json.loads((HOME / "grafana.json").read_text())
METRIC = re.compile(r"\b((?:optoutd|process)_[a-z_]+[a-z])\b")
NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Sample name -> its labels, of a real scrape after everything that makes a sample has happened."""
    ledger = books(tmp_path_factory.mktemp("monitoring") / "ledger")
    ledger.ledger.journal = Journal(ledger.ledger.path.parent / "journal.log", ledger.ledger.site_key)
    with write(ledger.ledger, NOW, "test") as w:
        w.job_ran("back_up")
        passed = Result(1, seconds={"refused": 0.1})
        canaries.put(w, "support", State(first=1, due=2, result=passed, passed=1))
    events.messages_missed("support", "INBOX", 1)
    events.message_read("support", 1, "opt-out", ["7.5"], 0.2)
    events.job_failed("expire", "x")
    duty = DutyVitals(open_since=NOW, waits="a doubtful mail", due=NOW, notices=1, oldest_notice=NOW)
    vitals = Vitals(NOW, mailboxes=(MailboxVitals("support", True, True, NOW),), upstream="", duty=duty)
    with door(ledger, whole(ledger, vitals=lambda: vitals)) as web:
        scrape(web)
        found = families(scrape(web)).values()
    return {sample.name: {*sample.labels} for family in found for sample in family.samples}


def known(there: dict[str, set[str]]) -> set[str]:
    """The names by which people know them: of a histogram its own."""
    return {
        re.sub(r"_(bucket|count|sum)$", "", name) if "le" in there.get(f"{_base(name)}_bucket", ()) else name
        for name in there
    }


def _base(name: str) -> str:
    return re.sub(r"_(bucket|count|sum)$", "", name)


def queries() -> Iterator[str]:
    """Of the dashboard."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


def test_the_docs_name_every_metric_and_no_other(there: dict[str, set[str]]) -> None:
    told = {name for row in re.findall(r"^\| (`optoutd_.*?) \|", DOCS, re.MULTILINE) for name in METRIC.findall(row)}
    told |= {name for name in METRIC.findall(DOCS) if name.startswith("process_")}
    assert told == known(there)


def test_the_docs_name_the_labels(there: dict[str, set[str]]) -> None:
    for name, labels in re.findall(r"`(optoutd_[a-z_]+)(?:\{([a-z_,]+)\})?`", DOCS):
        if name in there:
            assert set(filter(None, labels.split(","))) == there[name], name


def test_the_docs_explain_every_kind_of_alarm_and_no_other() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+) \| (.+) \|$", DOCS.partition("## Alarms of")[2], re.MULTILINE)
    assert [kind for kind, _, _ in rows] == list(KINDS)


def test_every_alarm_has_an_alert() -> None:
    """The general one, or one of its own: only that is left out of the general one."""
    (left_out,) = re.findall(r'optoutd_alarm\{kind!~"([^"]+)"\}', ALERTS)
    assert set(left_out.split("|")) < set(KINDS)


@pytest.mark.parametrize("text", [ALERTS, TESTS, *queries()], ids=lambda _: "")
def test_alerts_and_dashboard_speak_of_what_is_there(there: dict[str, set[str]], text: str) -> None:
    labels = {"instance", "job", *(label for of_one in there.values() for label in of_one)}
    assert set(METRIC.findall(text)) <= there.keys()
    for name, given in re.findall(r"\b((?:optoutd|process)_[a-z_]+)\{([^}]*)\}", text):
        assert set(re.findall(r"(\w+)=", given)) <= {"instance", "job", *there[name]}, name
    for grouped in re.findall(r"\b(?:by|on) \(([^)]*)\)", text):
        assert {word.strip() for word in grouped.split(",")} <= labels


def test_the_dashboard_shows_every_metric_of_ours(there: dict[str, set[str]]) -> None:
    shown = {_base(name) for query in queries() for name in METRIC.findall(query)}
    of_the_variable = {"optoutd_build_info"}
    ours = {_base(name) for name in there if name.startswith("optoutd_")}
    assert ours <= shown | of_the_variable


def test_the_dashboard_can_be_imported_anywhere() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    names = [variable["name"] for variable in DASHBOARD["templating"]["list"]]
    assert names == ["datasource", "instance"]


def test_every_alert_says_what_to_do_and_is_in_the_docs() -> None:
    alerts = re.findall(r"- alert: (\w+)\n(.*?)(?=\n\n|\Z)", ALERTS, re.DOTALL)
    assert len(alerts) > 15
    assert {name for name, _ in alerts} == set(re.findall(r"`(Optoutd\w+)`", DOCS))
    for name, rule in alerts:
        assert re.search(r"severity: (critical|warning)\b", rule), name
        assert "summary: " in rule, name
        assert "description: " in rule, name


def test_every_alert_is_seen_to_fire() -> None:
    fired = set(re.findall(r'alertname="(\w+)"', TESTS))
    assert fired == set(re.findall(r"- alert: (\w+)", ALERTS))


@pytest.mark.promtool
@pytest.mark.parametrize("arguments", [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")])
def test_promtool_finds_the_alerts_right(arguments: tuple[str, ...]) -> None:
    run = subprocess.run([str(program("promtool")), *arguments], cwd=HOME, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.promtool
def test_promtool_can_read_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"query:{number}", "expr": re.sub(r"\$__(rate_interval|range)", "5m", query)}
        for number, query in enumerate(queries())
    ]
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML, too
    run = subprocess.run([str(program("promtool")), "check", "rules", file], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{len(rules)} rules found" in run.stdout
