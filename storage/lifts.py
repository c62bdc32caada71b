"""Who was taken off the list, as an import must know it: an older wish brings nobody back.

A row of a list comes under the widest form of its address, or as a hash. Whoever was taken off may have stood under
another key: a narrower form (when `storage.same_person` allowed less, or by a link), or a foreign hash; and who stood under
an address may come again as a hash. To ask for all these keys would cost every row of every list; so the record is gone
through once, and only keys found there are asked for.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Final, get_args

from sqlalchemy import Connection

from storage import hashes
from storage.address import Address, HashKind, NotAnAddress, SiteKey, forms, hash_keys, parse
from storage.engine import Ledger
from storage.pieces import in_pieces
from storage.terms import Reason

WISHES: Final = (int(Reason.COMPLAINT), int(Reason.OPT_OUT), int(Reason.OPERATOR))
COUNTED: Final = ", ".join(map(str, (*WISHES, int(Reason.HARD_BOUNCE))))  # lifts that may keep somebody off
_KINDS: Final[tuple[HashKind, ...]] = get_args(HashKind)


class Lifted:
    """The keys under which somebody was ever taken off the list.

    For a long import, which would look up millions in the record to find a few. The record is gone through once, and from
    then on only for what is new in it.
    """

    def __init__(self) -> None:
        self._seq, self.keys = 0, set[bytes]()

    def look(self, db: Connection) -> None:
        """Take note of what the record has now."""
        for (key,) in db.exec_driver_sql(
            f"SELECT key FROM audit WHERE seq > ? AND event = 'lifted' AND reason IN ({COUNTED})", (self._seq,)
        ):
            self.keys.add(bytes(key))
        self._seq = int(db.exec_driver_sql("SELECT coalesce(max(seq), 0) FROM audit").scalar_one())

    def among(self, db: Connection, keys: Sequence[bytes]) -> Sequence[bytes]:
        """Those of these keys. Call it within the transaction that acts on it."""
        self.look(db)
        return [key for key in keys if key in self.keys] if self.keys else ()


class Elsewhere:
    """By which keys, other than that of a row itself, the person of a row was taken off. Asks nothing of the database."""

    def __init__(
        self,
        site_key: SiteKey,
        same_person: Collection[str],
        lifted: Collection[bytes],
        kinds: Sequence[HashKind],
        people: Sequence[tuple[bytes, str]],
    ):
        """`lifted`: the keys; `kinds`: of hashes that there may be rows of; `people`: (key, address) of lifts that say it."""
        self._site_key, self._personal = site_key, {"exact", *same_person}
        self._lifted, self._kinds, self._people = lifted, kinds, people
        self._hashed: dict[bytes, list[bytes]] | None = None
        self.of_plain_too = bool(kinds)  # else an address with one form has but the key that its row has

    def of_address(self, address: Address) -> list[bytes]:
        """Of a row with this address: as `suppressions.lift` looks for it."""
        if address.is_domain:
            return []
        mine = [form for kind, form in forms(address) if kind in self._personal]
        keys = [key for form in mine for key in self._site_key.address_keys(form)]
        return [key for key in (*keys, *hash_keys(address, self._kinds)) if key in self._lifted]

    def of_plain(self, text: str) -> list[bytes]:
        """The same of an address that has one form only: a quarter of the time."""
        return [key for key in hash_keys(parse(text), self._kinds) if key in self._lifted]

    def of_hash(self, key: bytes) -> list[bytes]:
        """Of a row that is the hash of an address."""
        if self._hashed is None:
            self._hashed = self._by_hash()
        return self._hashed.get(key, [])

    def _by_hash(self) -> dict[bytes, list[bytes]]:
        found: dict[bytes, list[bytes]] = {}
        for key, text in self._people:
            with suppress(NotAnAddress):
                for one in self._under(key, parse(text)):
                    for hashed in hash_keys(one, _KINDS):
                        found.setdefault(hashed, []).append(key)
        return found

    def _under(self, key: bytes, address: Address) -> list[Address]:
        """The address, and its wider forms up to the one that stood under this key."""
        wider: list[Address] = []
        for kind, form in forms(address):
            if kind != "domain":
                wider.append(parse(form))
                if key in self._site_key.address_keys(form):
                    return [address, *wider]
        return [address]


def elsewhere(db: Connection, ledger: Ledger, lifted: Lifted) -> Elsewhere | None:
    """For an import that begins now; None if nobody was ever taken off. `db`: in a reading transaction."""
    lifted.look(db)
    if not lifted.keys:
        return None
    query = (
        "SELECT a.key, e.detail FROM audit a JOIN evidence e ON e.id = a.evidence"
        f" WHERE a.event = 'lifted' AND a.reason IN ({COUNTED}) AND e.detail IS NOT NULL"
    )
    people = []
    for key, text in in_pieces(db, query):
        detail = json.loads(text)
        if "cause" not in detail and isinstance(address := detail.get("address"), str):
            people.append((bytes(key), address))
    return Elsewhere(ledger.site_key, ledger.same_person, frozenset(lifted.keys), hashes.kinds(db), people)
