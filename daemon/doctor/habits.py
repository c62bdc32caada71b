"""What works, and is yet not as it should be set up: lists without a name, mail of ours from nobody."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from daemon import building
from daemon import notices as own_mail
from daemon.config import MailingList
from daemon.doctor.findings import Finding, Look, count


def notices(look: Look) -> Iterator[Finding]:
    """The mail that we write ourselves: to people, and to the operators."""
    config = look.config
    sender = own_mail.sender_of(config.notices.sender, config.house)
    if building.writes_to_people(config):
        yield look.ok(f"people are told, from {sender}")
    elif not config.notices.confirm:
        yield look.ok("people are told nothing (notices.confirm = false)")
    elif config.upstream is None:
        yield look.ok("people are told nothing: there is no [upstream] to send it by")
    else:
        yield look.warn(
            "people are told nothing: there is no address to write from", "set notices.sender or house.addresses"
        )
    if not config.house.operators_mail:
        yield look.warn("nobody is told by mail when something is wrong", "set house.operators_mail")


def lists(look: Look) -> Iterator[Finding]:
    """Each mailing list: can its mail be recognised?"""
    known = look.config.list
    if not known:
        yield look.ok("no [[list]]: all opt-outs are of everything")
        return
    yield look.ok(f"{count(len(known), 'list')}: {', '.join(x.id for x in known)}")
    named = _named_lists(look)
    for one in known:
        if not one.list_id and one.id not in named:
            yield look.warn(
                f"{one.id} has no list_id, and no listener or credential names it: its mail is never known as its",
                f'set list_id of [[list]] "{one.id}" to what stands in List-Id of its mailings',
            )
    if nameless := [x.id for x in known if not x.sender]:
        yield look.warn(
            f"no sender: {', '.join(nameless)}. Their own mailings, when a copy comes in, are not known as ours",
            "set sender of each [[list]] to the From address of its mailings",
        )
    yield from _doubles(look, known)


def _named_lists(look: Look) -> set[str]:
    relay = look.config.relay
    by_door = [x.list for x in relay.listener] + [x.list for x in relay.credential]
    return {x for x in (*by_door, look.config.postfix.list) if x}


def _doubles(look: Look, known: tuple[MailingList, ...]) -> Iterator[Finding]:
    for list_id, n in Counter(x.list_id.lower() for x in known if x.list_id).items():
        if n > 1:
            ids = ", ".join(x.id for x in known if x.list_id.lower() == list_id)
            yield look.fail(
                f"list_id {list_id} is that of {ids}: only the last of them is ever meant by it",
                "give each list its own list_id, or make one list of them",
            )
