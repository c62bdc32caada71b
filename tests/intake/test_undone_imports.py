"""Mail from people whom an import had put on the list: their word outlives the undoing of the import."""

from __future__ import annotations

from datetime import timedelta

import pytest

from daemon.intake import Intake
from daemon.mail.reading import Proof
from storage import undo
from storage.terms import ALL, Reason
from storage.write import write
from tests.intake.support import ANN, BOB, NOW, envelope, opt_out, queue, rows
from tests.ledgers import Books, bring

IMPORT = undo.Cause(imported="list.csv")


@pytest.fixture
def imported(ledger: Books) -> Books:
    """Ann and Bob."""
    keys = sorted(ledger.ledger.site_key.address_key(address) for address in (ANN, BOB))
    with write(ledger.ledger, NOW, "import") as w:
        listed = [(key, ALL, int(Reason.OPT_OUT), 1_700_000_000) for key in keys]
        bring(w, listed, "import", {"file": "list.csv", "import": 1})
    return ledger


def undone(it: Books) -> int:
    done = undo.undo(it.ledger, IMPORT, "wrong file", lambda: NOW + timedelta(hours=2), "test")
    return done.lifted.total()


@pytest.mark.parametrize("proof", ["dmarc", "unchecked"])
def test_who_wrote_meanwhile_stays(desk: Intake, imported: Books, proof: Proof) -> None:
    desk.act(opt_out(proof=proof), envelope(), NOW)
    assert undone(imported) == 1
    assert (rows(desk, ANN), rows(desk, BOB)) == ([(ALL, Reason.OPT_OUT)], [])


def test_a_wish_that_waits_for_a_person_counts_afterwards(desk: Intake, imported: Books) -> None:
    desk.act(opt_out(proof="none"), envelope(), NOW)
    (item,) = queue(desk)
    assert undone(imported) == 2
    desk.decide(item, True, "", NOW + timedelta(hours=3), "cli")
    assert rows(desk, ANN) == [(ALL, Reason.OPT_OUT)]


def test_a_mail_that_was_under_way_counts_afterwards(desk: Intake, imported: Books) -> None:
    assert undone(imported) == 2
    desk.act(opt_out(), envelope(date=NOW + timedelta(hours=1)), NOW + timedelta(hours=3))
    assert rows(desk, ANN) == [(ALL, Reason.OPT_OUT)]
