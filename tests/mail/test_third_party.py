"""Openly licensed collections that stand beside the checkout: floors, so that a change shows."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import pytest

from daemon.config import House
from daemon.mail import quoting, triage
from daemon.mail.reading import Bounce, Complaint, OptOut

pytestmark = pytest.mark.corpus
# every domain that occurs in them is "ours", so that nothing counts as backscatter
TOP = "com jp org net example de edu local info us uk fr it io co ru nl se br invalid localhost to tv cn at ca eu be pl cz".split()


@pytest.mark.parametrize(
    ("name", "bounces", "recipients", "severity"), [("sisimai", 0.99, 0.99, 0.97), ("flufl.bounce", 0.99, 0.97, 0.99)]
)
def test_bounces(third_party: Path, name: str, bounces: float, recipients: float, severity: float) -> None:
    everybody = House.model_construct(
        name="x", domains=tuple(TOP), addresses=(), form_addresses=(), authserv_id="", lists=()
    )
    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    with (third_party / name / "truth.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            rows[row["file"]].append(row)
    count = found = right = hard = 0
    for message, told in rows.items():
        if told[0]["label"] != "bounce":
            continue
        count += 1
        reading = triage.read((third_party / name / "mail" / message).read_bytes(), everybody)
        if isinstance(reading, Bounce):
            found += 1
            right += {a.lower() for a in reading.recipients} == {r["recipient"].lower() for r in told}
            hard += {r.get("hardsoft") or r.get("temporary_or_permanent") for r in told} == {
                "hard" if reading.hard else "soft"
            }
    assert (found / count, right / count, hard / count) >= (bounces, 0, 0)
    assert right / count >= recipients
    assert hard / count >= severity


def test_complaints(third_party: Path) -> None:
    """Standard reports, and Microsoft's without a report part."""
    everybody = House.model_construct(
        name="x", domains=tuple(TOP), addresses=(), form_addresses=(), authserv_id="", lists=()
    )
    with (third_party / "sisimai" / "truth.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] == "complaint"]
    assert len(rows) >= 10
    for row in rows:
        reading = triage.read((third_party / "sisimai" / "mail" / row["file"]).read_bytes(), everybody)
        assert isinstance(reading, Complaint), row["file"]


def test_own_words_of_replies(third_party: Path) -> None:
    same = total = 0
    for file in sorted((third_party / "email_reply_trimmer" / "emails").glob("*.txt")):
        expected = (third_party / "email_reply_trimmer" / "trimmed" / file.name).read_text(
            encoding="utf-8", errors="replace"
        )
        own = quoting.own_words(file.read_text(encoding="utf-8", errors="replace"))
        total += 1
        same += own.text.split() == expected.split()
    assert same / total >= 0.4


def test_forwarded_copies_are_nobodys_own_words(third_party: Path, house: House) -> None:
    left = total = 0
    for file in sorted((third_party / "email-forward-parser" / "fixtures").glob("*_body*.txt")):
        text = file.read_text(encoding="utf-8", errors="replace")
        total += 1
        left += len(quoting.own_words(text).text.split()) > 25
        raw = b"From: a@b.example\nSubject: x\nContent-Type: text/plain; charset=utf-8\n\n" + text.encode()
        assert not isinstance(triage.read(raw, house), OptOut)
    assert left / total <= 0.25
