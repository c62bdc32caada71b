"""token: the unsubscribe links of an address."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from daemon.cli import common
from daemon.cli.common import DATAERR, TEMPFAIL, AsJson, ListOption, Stop, note, tell


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(token)


def token(
    addresses: Annotated[list[str], typer.Argument(metavar="ADDR", help="E-mail addresses; - reads them from stdin.")],
    list_id: ListOption = None,
    as_json: AsJson = False,
) -> None:
    """The unsubscribe links of an address.

    For mail that does not pass through the relay. They never expire, and can only take away; `undo` gives back, and works for 30 days.
    """
    from daemon.mail import tokens
    from daemon.mail.links import links_of
    from storage.address import NotAnAddress, parse, person
    from storage.terms import ALL, seconds

    loaded = common.loaded()
    ledger = common.ledger(loaded)
    scope = common.scope_of(list_id, loaded, common.list_numbers(ledger))
    if scope == common.NO_SUCH_LIST:
        raise Stop(f"the ledger has not met the list {list_id!r} yet: start `optoutd run` once", TEMPFAIL)
    number = 0 if scope == ALL else scope
    links = links_of(loaded.config.house, loaded.config.mailbox, loaded.config.web.public_url)
    failed = False
    for text in common.arguments(addresses):
        try:
            form = person(parse(text), ledger.same_person)
        except NotAnAddress as problem:
            note(f"optoutd: {common.not_an_address(text, problem)}")
            failed = True
            continue
        key, day = ledger.site_key.address_key(form), seconds(common.now()) // 86_400
        link = tokens.make(ledger.site_key, "link", key, number)
        undo = tokens.make(ledger.site_key, "undo", key, number, day=day)
        fact: dict[str, Any] = {"address": text, "list": list_id, "token": link}
        fact |= {"one_click": links.one_click(link), "mailto": links.mailto(link), "undo": links.undo(undo)}
        lines = [x for x in (fact["one_click"], fact["mailto"], fact["undo"] and f"{fact['undo']} (30 days)") if x]
        tell(fact, as_json, f"{text}  " + f"\n{' ' * len(text)}  ".join(lines or [link]))
    if failed:
        raise typer.Exit(DATAERR)
