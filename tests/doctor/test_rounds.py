"""All at once, each in its time, in one order; a bug in one probe hides no other."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

from daemon.config import load
from daemon.doctor import Finding, examine, has_failed
from daemon.doctor.findings import Look, Probe, count, size
from daemon.doctor.rounds import probes_of
from tests.doctor.patient import HOUSE, Patient


def look_around(patient: Patient, probes: Sequence[tuple[str, Probe]], seconds: float = 20) -> list[Finding]:
    loaded = load(patient.file("optoutd.toml", HOUSE))
    return list(examine(loaded, probes=probes, seconds=seconds))


def test_slow_ones_run_beside_each_other_and_are_told_in_order(patient: Patient) -> None:
    together = threading.Barrier(4)

    def slow(look: Look) -> Iterator[Finding]:
        together.wait(20)  # nobody gets past it unless all four are there
        yield look.ok("done")

    found = look_around(patient, [(name, slow) for name in "dbca"])
    assert [(f.part, f.text) for f in found] == [(name, "done") for name in "dbca"]


def test_who_is_late_is_told_with_what_it_had_found(patient: Patient) -> None:
    ended = threading.Event()

    def hangs(look: Look) -> Iterator[Finding]:
        yield look.ok("so far")
        look.of("other part").step("wait for ann@customer.example")
        ended.wait(30)

    began = time.monotonic()
    found = look_around(patient, [("a", hangs), ("b", lambda look: iter([look.ok("fine")]))], seconds=1)
    assert time.monotonic() - began < 10
    ended.set()
    assert [(f.state, f.part, f.text) for f in found] == [
        ("ok", "a", "so far"),
        ("FAIL", "other part", "wait for <address>: no answer within 1 s"),
        ("ok", "b", "fine"),
    ]
    assert has_failed(found)
    assert not has_failed(found[:1])


def test_a_bug_in_one_hides_no_other(patient: Patient) -> None:
    def broken(look: Look) -> Iterator[Finding]:
        yield look.ok("so far")
        raise ZeroDivisionError("with ann@customer.example in it")

    found = look_around(patient, [("a", broken), ("b", lambda look: iter([look.ok("fine")]))])
    assert [(f.state, f.part) for f in found] == [("ok", "a"), ("FAIL", "a"), ("ok", "b")]
    assert "test_rounds.py" in found[1].text
    assert "customer" not in found[1].text


def test_what_is_tried_is_told(patient: Patient) -> None:
    seen, go_on = list[Sequence[str]](), threading.Event()

    def steps(look: Look) -> Iterator[Finding]:
        look.step("the first thing")
        go_on.wait(20)
        yield look.ok("done")

    def trying(doing: Sequence[str]) -> None:
        seen.append(doing)
        if doing == ["part: the first thing"]:
            go_on.set()

    loaded = load(patient.file("optoutd.toml", HOUSE))
    list(examine(loaded, probes=[("part", steps)], trying=trying))
    assert seen[-1] == ["part: the first thing"]
    assert go_on.is_set()


def test_only_addresses_of_the_config_are_told(patient: Patient) -> None:
    def talks(look: Look) -> Iterator[Finding]:
        yield look.fail(
            "support@quillpdf.example Support@QuillPDF.example ann@customer.example", "ask bob@customer.example"
        )

    (found,) = look_around(patient, [("a", talks)])
    assert found.text == "support@quillpdf.example Support@QuillPDF.example <address>"
    assert found.advice == "ask <address>"


def test_each_part_of_a_full_config_is_tried(patient: Patient) -> None:
    for name in ("p", "q", "r"):
        patient.file(name, "a secret of more than 24 characters")
    boxes = "".join(
        f'[[mailbox]]\nname = "{n}"\nhost = "127.0.0.1"\nport = 1\nusername = "u"\npassword_file = "p"\n' for n in "ab"
    )
    hooks = '[[webhook]]\nname = "crm"\nurl = "http://127.0.0.1:1/"\nsecret_file = "q"\n'
    loaded = load(patient.file("optoutd.toml", HOUSE + boxes + hooks))
    assert [part for part, _ in probes_of(loaded)] == (
        "config,daemon,secrets,site key,backups,clock,imap a,imap b,upstream,relay,web,web,postfix,webhook crm,notices,lists,"
        "dns,systemd"
    ).split(",")
    found = look_around(patient, probes_of(loaded))
    assert {f.part for f in found if f.state == "FAIL"} == {"imap a", "imap b", "webhook crm"}


def test_numbers_in_words() -> None:
    assert [count(n, "message") for n in (0, 1, 1204)] == ["0 messages", "1 message", "1,204 messages"]
    assert [size(n) for n in (12, 740_000, 81e9, 5e12)] == ["12 octets", "740 KB", "81 GB", "5,000 GB"]
