"""Who does what, on either database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from storage import leases
from storage.engine import Unavailable
from tests.ledgers import IN_A_FILE, Books

ROLES = ["jobs", "mailbox support"]


def run_out(ledger: Books, *roles: str, ago: int = 1) -> None:
    """As if their holder had been gone for a while: `ago` seconds since they ran out."""
    with ledger.ledger.connect() as db:
        for role in roles:
            db.exec_driver_sql(f"UPDATE lease SET until = until - {leases.SECONDS + ago} WHERE role = ?", (role,))


def roles_of_all(ledger: Books) -> list[str]:
    with ledger.ledger.connect() as db:
        return list(db.exec_driver_sql("SELECT role FROM lease ORDER BY role").scalars())


def test_who_comes_first_has_it_and_renews_it(ledger: Books) -> None:
    assert leases.take(ledger.ledger, "a", ROLES) == set(ROLES)
    assert leases.take(ledger.ledger, "b", [*ROLES, "notices"]) == {"notices"}
    assert leases.take(ledger.ledger, "a", [*ROLES, "notices"]) == set(ROLES)


def test_what_ran_out_is_taken_over_and_does_not_come_back(ledger: Books) -> None:
    leases.take(ledger.ledger, "a", ROLES)
    run_out(ledger, "jobs")
    assert leases.take(ledger.ledger, "b", ROLES) == {"jobs"}
    assert leases.take(ledger.ledger, "a", ROLES) == {"mailbox support"}


def test_a_holder_who_comes_late_but_first_keeps_it(ledger: Books) -> None:
    leases.take(ledger.ledger, "a", ROLES)
    run_out(ledger, *ROLES)
    assert leases.take(ledger.ledger, "a", ROLES) == set(ROLES)
    assert leases.take(ledger.ledger, "b", ROLES) == set()


def test_what_is_given_up_is_free_at_once(ledger: Books) -> None:
    leases.take(ledger.ledger, "a", ROLES)
    leases.release(ledger.ledger, "b")
    assert leases.take(ledger.ledger, "b", ROLES) == set()
    leases.release(ledger.ledger, "a")
    assert leases.take(ledger.ledger, "b", ROLES) == set(ROLES)


def test_what_a_killed_node_left_is_removed_a_day_later(ledger: Books) -> None:
    for node, ago in (("a", 86_500), ("b", 86_300)):
        leases.take(ledger.ledger, node, [f"node {node}", *ROLES])
        run_out(ledger, f"node {node}", *ROLES, ago=ago)
    leases.take(ledger.ledger, "c", ["node c"])
    assert roles_of_all(ledger) == [*ROLES, "node b", "node c"]
    assert leases.holders(ledger.ledger) == ["c"]
    run_out(ledger, "jobs", ago=200)
    assert leases.take(ledger.ledger, "c", ["node c", *ROLES]) == {"node c", *ROLES}


def test_of_many_who_come_at_once_one_has_it(ledger: Books) -> None:
    with ThreadPoolExecutor(8) as nodes:
        for _ in range(10):
            held = list(nodes.map(lambda name: leases.take(ledger.ledger, name, ["jobs"]), "abcdefgh"))
            assert sorted(map(len, held)) == [0] * 7 + [1]
            for name in "abcdefgh":
                leases.release(ledger.ledger, name)


@IN_A_FILE
def test_a_database_that_is_gone_is_doubt(ledger: Books) -> None:
    ledger.ledger.path.unlink()
    with pytest.raises(Unavailable):
        leases.take(ledger.ledger, "a", ROLES)
