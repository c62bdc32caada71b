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
    our_rule = {  # where the collection expects other words than section 1 of the corpus's README: ours, and why
        "embedded_ception.txt": ("This is the reply. Thanks,", "the name below a closing formula is a signature"),
        "embedded_email_16.txt": (
            "Yep, me too, although I bet due to RubyConf/OOPSLA, it may be a little longer yet...",
            "marked lines above an answer are a quotation, whether or not an attribution stands there",
        ),
        "embedded_email_18.txt": (
            "It should be: 2.0 && 2.0 + 12.0",
            "what follows an attribution is a quotation; only what is new below it is own",
        ),
        "quote_only.txt": ("", "a message of nothing but marked lines has no own words"),
    }
    left = {  # what we do not get right, and why
        "embedded_email_18.txt": "an attribution above unmarked text: nothing tells where the quotation ends, so none is own",
        "signatures.txt": "'Someone from mobile' is a signature only by what surrounds it; 'unsubscribe from mobile' is none",
    }
    wrong: set[str] = set()
    total = 0
    for file in sorted((third_party / "email_reply_trimmer" / "emails").glob("*.txt")):
        trimmed = (third_party / "email_reply_trimmer" / "trimmed" / file.name).read_text(
            encoding="utf-8", errors="replace"
        )
        expected, _ = our_rule.get(file.name, (trimmed, ""))
        own = quoting.own_words(file.read_text(encoding="utf-8", errors="replace"))
        total += 1
        if own.text.split() != expected.split():
            wrong.add(file.name)
    assert 1 - len(wrong) / total >= 0.93, sorted(wrong)
    assert wrong <= left.keys() or total > 32, sorted(wrong)  # the list is of the files we have seen


def test_forwarded_copies_are_nobodys_own_words(third_party: Path, house: House) -> None:
    """Own words are what stands above the copy, exactly: two texts in this collection, in the others nothing."""
    above = (
        "Praesent suscipit egestas hendrerit.\n\nAliquam eget dui dui.",
        "That's true!\n\nRegards,",
    )  # "e." is a name
    wrong: set[str] = set()
    total = 0
    for file in sorted((third_party / "email-forward-parser" / "fixtures").glob("*_body*.txt")):
        text = file.read_text(encoding="utf-8", errors="replace")
        expected = next((words for words in above if text.startswith(words)), "")
        total += 1
        if quoting.own_words(text).text.split() != expected.split():
            wrong.add(file.name)
        raw = b"From: a@b.example\nSubject: x\nContent-Type: text/plain; charset=utf-8\n\n" + text.encode()
        assert not isinstance(triage.read(raw, house), OptOut)
    assert 1 - len(wrong) / total >= 0.99, sorted(wrong)
