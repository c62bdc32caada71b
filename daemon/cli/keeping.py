"""audit, migrate: keeping the record."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli import common
from daemon.cli.common import NO, TEMPFAIL, USAGE, AsJson, Stop, note, tell, when

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from daemon.config import Loaded

_CHANGED = "somebody changed the record from outside: keep a copy of this database, and compare it with your backups"
group = typer.Typer(no_args_is_help=True, help="The record of every change: is it whole?")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group.command()(verify)
    group.command()(export)
    app.add_typer(group, name="audit")
    app.command()(migrate)


def verify(
    head: Annotated[
        str | None, typer.Option(metavar="SEQ:HASH", help="A head noted earlier; the log must still hold it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Was the record, or the list, changed behind our back?

    Exit code 0: no. 1: yes, and the first bad row is named. Note the head that it prints somewhere else now and then:
    given back with --head it also proves that nobody has replaced the whole log.
    """
    from storage.audit import ChainBroken
    from storage.audit import verify as verify_audit

    noted = _head(head)
    ledger = common.ledger(common.loaded())
    with ledger.reading() as db:
        total = db.exec_driver_sql("SELECT count(*) FROM audit").scalar() or 0
        try:
            with common.progress("audit rows", total) as progress:
                found = verify_audit(db, ledger.site_key, noted, progress)
        except ChainBroken as broken:
            fact = {"ok": False, "rows": total, "head": None, "error": str(broken), "row": broken.seq or None}
            tell(fact, as_json, str(broken))
            note(f"optoutd: {_CHANGED}" + ("; or --head is not of this database" if noted else ""))
            raise typer.Exit(NO) from None
    fact = {"ok": True, "rows": found.seq, "head": str(found), "error": None, "row": None}
    tell(fact, as_json, f"ok, {found.seq} rows, head {found}")


def _head(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    seq, _, mac = text.strip().partition(":")
    if not (seq.isascii() and seq.isdigit() and len(seq) < 20 and mac):
        raise Stop("--head is SEQ:HASH, as `optoutd audit verify` prints it", USAGE)
    return int(seq), mac.lower()


def export(as_json: AsJson = False) -> None:
    """The whole record as JSON Lines; no personal data in it.

    With or without --json.
    """
    from storage import suppressions

    ledger = common.ledger(common.loaded())
    numbers = common.list_numbers(ledger)
    with ledger.reading() as db:
        for fact, mac in suppressions.facts(db):
            row: dict[str, Any] = {
                "seq": fact.seq,
                "at": when(fact.at),
                "actor": fact.actor,
                "event": fact.event,
                "key": fact.key.hex() if fact.key else None,
                "scope": None if fact.scope is None else common.scope_word(fact.scope, numbers),
                "reason": common.reason_word(fact.reason),
                "source": fact.source,
                "evidence": fact.evidence,
                "mac": mac.hex(),
            }
            tell(row, True, "")


def migrate(
    new_key: Annotated[
        bool, typer.Option("--new-key", help="Put a new site key in front of those in the key file.")
    ] = False,
    re_key: Annotated[
        bool, typer.Option("--re-key", help="Move the rows of people whose address is known to the newest site key.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the database up to date with this version.

    Or its rows to a new site key. Without an option: the schema. A copy is kept beside it, and the daemon must not run
    meanwhile (`optoutd run` does the same when it starts). With --new-key the daemon must not run either. --re-key goes on
    beside a daemon that was started with the new key.
    """
    if new_key and re_key:
        raise Stop("first --new-key, then start the daemon again, then --re-key", USAGE)
    config = common.loaded()
    if not config.database.exists():
        raise Stop(f"no database at {config.database} yet: `optoutd run` creates it", TEMPFAIL)
    if new_key:
        _add_key(config, as_json)
    elif re_key:
        _re_key(config, as_json)
    else:
        _migrate(config, as_json)


def _alone(config: Loaded) -> AbstractContextManager[None]:
    from daemon.opening import sole_owner

    return sole_owner(config.database)


def _migrate(config: Loaded, as_json: bool) -> None:
    from daemon.opening import Busy
    from storage import engine

    try:
        with _alone(config):
            before, after = engine.migrate(config.database)
    except Busy as why:
        raise Stop(f"{why}: stop it first", TEMPFAIL) from None
    if as_json:
        tell({"before": before, "after": after}, True, "")
    note(f"schema {after}: nothing to do" if before == after else f"schema {before} -> {after}")


def _add_key(config: Loaded, as_json: bool) -> None:
    """The daemon must not run: what another command writes under a new key, it would not find."""
    from daemon.opening import Busy
    from storage.rekeying import add_key

    common.ledger(config)  # is it the key of this database at all?
    try:
        with _alone(config):
            site_key = add_key(config.key_file, common.now())
    except Busy as why:
        raise Stop(f"{why}: stop it first, for it does not know the new key", TEMPFAIL) from None
    fact = {"key_file": str(config.key_file), "keys": len(site_key.keys)}
    tell(fact, as_json, f"{config.key_file}: {len(site_key.keys)} keys now, the new one first")
    note("copy that file to where you keep its copy; then start the daemon again, on every node")
    note("the old keys must stay in it: rows and the links in mail already sent hang on them")


def _re_key(config: Loaded, as_json: bool) -> None:
    from daemon.opening import Busy, knows_newest
    from storage import rekeying

    ledger = common.ledger(config)
    if len(ledger.site_key.keys) == 1:
        raise Stop(f"there is one site key only in {config.key_file}: `optoutd migrate --new-key` adds one", NO)
    with ledger.connect() as db:
        total = rekeying.people(db)
    with ExitStack() as stack:
        try:
            stack.enter_context(_alone(config))
        except Busy as why:
            if not knows_newest(config.database, ledger.site_key):
                raise Stop(f"{why}, and it does not know the newest site key: restart it first", TEMPFAIL) from None
        progress = stack.enter_context(common.progress("people", total))
        moved = rekeying.rekey(ledger, common.now, common.actor(), progress)
    fact = {"moved": moved.moved, "people": moved.people, "already": moved.already, "stay": moved.unknown}
    tell(fact, as_json, f"{moved.moved} moved, {moved.already} there already, {moved.unknown} stay")
    if moved.unknown:
        note(
            f"the address of {moved.unknown} is not known: they stay under the key that they have, and are found there"
        )
    note("the old keys must stay in the key file: links in mail already sent were made with them")
