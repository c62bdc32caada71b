"""The few mails that we write ourselves, out of the outbox: "you are off the list", and "do you want to come back?".

Fixed text in the writer's language, nothing of his quoted; null sender and `Auto-Submitted: auto-replied` (RFC 3834),
so that no answering machine answers. What the outbox holds was committed with the fact it tells of; here it is only
sent, over the upstream and past the relay, for a day at most. Its Message-ID is that of its row, so that one sent
twice, by a crash between the upstream's 250 and our note of it, can be known as one.
"""

from __future__ import annotations

import asyncio
import functools
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.headerregistry import Address as Mailbox
from pathlib import Path
from typing import Final

from daemon import events, own_mail, relay_events
from daemon.config import House
from daemon.mail import tokens
from daemon.own_mail import deliver, to_the_end
from daemon.upstream import Lost, Pool
from storage import outbox, suppressions
from storage.address import SiteKey, parse
from storage.engine import Ledger, Unavailable, Unusable
from storage.outbox import Notice
from storage.terms import ALL, Reason, seconds
from storage.write import write

POLL_SECONDS: Final = 5.0
_RETRY: Final = (timedelta(minutes=1), timedelta(hours=1))  # doubling from the first to the last
# Who is not written to, whatever is owed: nobody is there, or they said that our mail is spam.
_UNWANTED: Final = (Reason.COMPLAINT, Reason.HARD_BOUNCE)


@functools.cache
def texts() -> Mapping[str, Mapping[str, str]]:
    """Language -> name of a text -> the text (daemon/notices.toml)."""
    return tomllib.loads(Path(__file__).with_name("notices.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Post:
    """What notices are made of and sent with. `undo_link`: an undo token as a link."""

    ledger: Ledger
    house: House
    sender: str
    pool: Pool
    undo_link: Callable[[str], str]
    now: Callable[[], datetime]

    async def run(self) -> None:
        """Send what is due, for ever. Whatever fails is tried again; nothing here stops intake or relay."""
        while True:
            try:
                for notice in await asyncio.to_thread(self._due):
                    await to_the_end(self._attempt(notice))
            except (Unavailable, Unusable) as why:
                events.database_unavailable(why)
            await asyncio.sleep(POLL_SECONDS)

    def _due(self) -> list[Notice]:
        with self.ledger.connect() as db:
            return outbox.due(db, self.now())

    async def _attempt(self, notice: Notice) -> None:
        try:
            await self._deal_with(notice)
        except (Unavailable, Unusable):
            raise
        except Exception as error:  # noqa: BLE001 - told in our log; this notice waits, the others behind it go out
            events.failed("notices", error)
            await asyncio.to_thread(self._postpone, notice)

    async def _deal_with(self, notice: Notice) -> None:
        who = self.ledger.site_key.who(parse(notice.address))
        if self.now() - notice.at > outbox.LIFE:
            await asyncio.to_thread(self._settle, notice, "dropped")
            events.notice_dropped(who, notice.kind, "not sent within a day")
            return
        if await asyncio.to_thread(self._is_unwanted, notice):
            await asyncio.to_thread(self._settle, notice, "dropped")
            events.notice_dropped(who, notice.kind, "this address bounced or complained")
            return
        try:
            reply = await self._send(notice)
        except Lost as lost:
            relay_events.upstream_lost(lost.step, lost)
            await asyncio.to_thread(self._postpone, notice)
            return
        if reply.startswith("2"):
            await asyncio.to_thread(self._settle, notice, "sent")
            events.notice_sent(who, notice.kind)
        elif reply.startswith("5"):
            await asyncio.to_thread(self._settle, notice, "dropped")
            events.notice_dropped(who, notice.kind, reply)
        else:
            await asyncio.to_thread(self._postpone, notice)

    async def _send(self, notice: Notice) -> str:
        """Hand it to the upstream; its last reply. Raises Lost."""
        return await deliver(self.pool, notice.address, await asyncio.to_thread(self._octets, notice))

    def _octets(self, notice: Notice) -> bytes:
        with self.ledger.connect() as db:
            ids = {number: list_id for list_id, number in suppressions.list_numbers(db).items()}
        return compose(notice, self.house, self.sender, ids, self.ledger.site_key, self.undo_link, self.now())

    def _is_unwanted(self, notice: Notice) -> bool:
        with self.ledger.connect() as db:
            rows = suppressions.standing(db, self.ledger.site_key, parse(notice.address))
        return any(row[2] in _UNWANTED for row in rows)

    def _settle(self, notice: Notice, state: outbox.Settled) -> None:
        with write(self.ledger, self.now(), "notices") as w:
            outbox.settle(w, notice, state)

    def _postpone(self, notice: Notice) -> None:
        first, last = _RETRY
        with write(self.ledger, self.now(), "notices") as w:
            outbox.postpone(w, notice, self.now() + min(first * 2 ** min(notice.attempts, 10), last))


def compose(
    notice: Notice,
    house: House,
    sender: str,
    ids: Mapping[int, str],
    site_key: SiteKey,
    undo_link: Callable[[str], str],
    now: datetime,
) -> bytes:
    """The whole message, with CRLF line ends. `ids`: list number -> id."""
    name = "".join(c for c in house.name if c.isprintable())
    text = texts().get(notice.language) or texts().get(house.language) or texts()["en"]
    of_list = {x.id: x.title or x.id for x in house.lists}
    titles = [ids.get(scope, "") if scope != ALL else "*" for scope in notice.scopes]
    titles = [of_list.get(title, title) for title in titles]
    named = [title for title in titles if title != "*"]
    links = _links(notice, titles, site_key, undo_link)
    if notice.kind == "comeback":
        paragraphs = [text["comeback_text"]]
    else:
        kind = "confirm_lists" if named else "confirm_all"
        paragraphs = [text[kind].format(lists=", ".join(named), name=name), text["again"]]
    subject = text[notice.kind].format(name=name)
    body = "\n\n".join([*paragraphs, *links, name]) + "\n"
    number = f"{seconds(notice.at)}.{notice.id}"
    message = own_mail.compose(
        Mailbox(name, addr_spec=sender), notice.address, subject, body, now, number, replied=True
    )
    message["Content-Language"] = notice.language
    return message.as_bytes()


def _links(notice: Notice, titles: Sequence[str], site_key: SiteKey, undo_link: Callable[[str], str]) -> list[str]:
    """An undo link for each thing it is about, with its title where there are several."""
    day = seconds(notice.at) // 86_400
    made = [
        undo_link(tokens.make(site_key, "undo", notice.key, 0 if scope == ALL else scope, day=day))
        for scope in notice.scopes
    ]
    return made if len(made) < 2 else [f"{title}: {link}" for title, link in zip(titles, made, strict=True)]


def sender_of(configured: str, house: House) -> str:
    """Whom a notice is from; "" if the house has no address to write from."""
    return configured or next(iter(house.addresses), "")
