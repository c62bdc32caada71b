"""migrate --new-key, --re-key: several site keys."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from daemon.cli import common
from daemon.cli.bars import bar
from daemon.cli.common import NO, TEMPFAIL, Stop, note, tell

if TYPE_CHECKING:
    from daemon.config import Loaded
    from storage.engine import Ledger


def add(config: Loaded, as_json: bool) -> None:
    """A new key in front. No daemon may run: what a command writes under a new key, it would not find.

    The file comes first, then the mark that demands it: a kill between the two leaves a file that has a key too many.
    """
    from daemon.opening import Busy, sole_daemon
    from storage.rekeying import add_key
    from storage.write import write

    ledger = common.ledger(config)  # is it the key of this database at all?
    _refuse_if_nodes_run(ledger)
    try:
        with sole_daemon(config), write(ledger, common.now(), common.actor()) as w:
            site_key = add_key(config.key_file, common.now())
            w.mark_newest(site_key)
    except Busy as why:
        raise Stop(f"{why}: stop it first, for it does not know the new key", TEMPFAIL) from None
    fact = {"key_file": str(config.key_file), "keys": len(site_key.keys)}
    tell(fact, as_json, f"{config.key_file}: {len(site_key.keys)} keys now, the new one first")
    note("copy that file to where you keep its copy; then start the daemon again, on every node")
    note("the old keys must stay in it: rows and the links in mail already sent hang on them")


def _refuse_if_nodes_run(ledger: Ledger) -> None:
    """In PostgreSQL no lock says so, but a node that runs has leases."""
    from storage import leases

    if running := leases.holders(ledger):
        raise Stop(f"a node is running ({running[0].partition(':')[0]}): stop all of them first", TEMPFAIL)


def move(config: Loaded, as_json: bool) -> None:
    """Rows whose address is known go to the newest key."""
    from daemon.opening import Busy, knows_newest, sole_daemon
    from storage import rekeying

    ledger = common.ledger(config)
    if len(ledger.site_key.keys) == 1:
        raise Stop(f"there is one site key only in {config.key_file}: `optoutd migrate --new-key` adds one", NO)
    with ledger.connect() as db:
        total = rekeying.people(db)
    with ExitStack() as stack:
        try:
            stack.enter_context(sole_daemon(config))
        except Busy as why:
            if not knows_newest(config.database, ledger.site_key):
                raise Stop(f"{why}, and it does not know the newest site key: restart it first", TEMPFAIL) from None
        progress = stack.enter_context(bar("people", total))
        moved = rekeying.rekey(ledger, common.now, common.actor(), progress)
    fact = {"moved": moved.moved, "people": moved.people, "already": moved.already, "stay": moved.unknown}
    tell(fact, as_json, f"{moved.moved} moved, {moved.already} there already, {moved.unknown} stay")
    if moved.unknown:
        note(
            f"the address of {moved.unknown} is not known: they stay under the key that they have, and are found there"
        )
    note("the old keys must stay in the key file: links in mail already sent were made with them")
