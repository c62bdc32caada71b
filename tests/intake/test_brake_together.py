"""Two processes count one cause together, and one that is killed has counted what it committed. On both databases."""

from __future__ import annotations

import time

from storage import audit, brake
from storage.terms import Reason
from tests.ledgers import Books
from tests.storage.another import another, hear, tell

LIMIT = 40
BOUNCES = """
from dataclasses import replace
from daemon import events
from daemon.config import Brake
from daemon.intake import Intake
from daemon.mail.reading import Bounce
from tests.intake.support import HOUSE, NOW, envelope
it = open_again()
desk = Intake(it.ledger, HOUSE, it.numbers, brakes=Brake(bounces_per_hour=LIMIT))
events.configure("json", "error")
say("ready")
name = sys.stdin.readline().strip()
for n in range(LIMIT):
    report = Bounce((f"{name}{n}@example.com",), True, "address", "5.1.1", "", "token", ("0.1-x",), host="mx.outlook.com")
    desk.act(report, replace(envelope(n + 1, sender="", mailbox=name), message_id=f"<{name}{n}@x.example>"), NOW)
say("done")
sys.stdin.readline()
"""


def suppressed(books: Books) -> int:
    with books.ledger.reading() as db:
        query = "SELECT count(*) FROM suppression WHERE reason = ?"
        return int(db.exec_driver_sql(query, (int(Reason.HARD_BOUNCE),)).scalar_one())


def counted(books: Books) -> list[int]:
    """Of the cause, and of all bounces."""
    with books.ledger.reading() as db:
        return [int(row[0]) for row in db.exec_driver_sql("SELECT count FROM unproven ORDER BY count")]


def test_what_two_processes_suppress_is_one_count(anywhere: Books) -> None:
    script = f"LIMIT = {LIMIT}\n{BOUNCES}"
    with another(anywhere, script) as one, another(anywhere, script) as other:
        for process in (one, other):
            hear(process, "ready")
        tell(one, "a")
        tell(other, "b")
        for process in (one, other):
            hear(process, "done")
    with anywhere.ledger.reading() as db:
        assert list(brake.pulled(db)) == ["bounces:outlook.com/5.1.1"]
        waiting = db.exec_driver_sql("SELECT count(*) FROM review WHERE state = 'open'").scalar_one()
        pulls = db.exec_driver_sql("SELECT count(*) FROM audit WHERE event = 'brake'").scalar_one()
    assert (suppressed(anywhere), waiting, pulls) == (LIMIT, LIMIT, 1)


def test_whoever_is_killed_has_counted_what_it_committed(anywhere: Books) -> None:
    for name in ("a", "b", "c"):
        before = suppressed(anywhere)
        with another(anywhere, f"LIMIT = 100_000\n{BOUNCES}") as process:
            hear(process, "ready")
            tell(process, name)
            end = time.monotonic() + 60
            while suppressed(anywhere) < before + 7:
                assert time.monotonic() < end
                time.sleep(0.002)
            process.kill()
            process.wait()
        now = suppressed(anywhere)
        assert counted(anywhere) == [now, now]
        with anywhere.ledger.reading() as db:
            audit.verify(db, anywhere.ledger.site_key)
            assert not brake.pulled(db)
