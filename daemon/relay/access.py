"""Who may send through us, as whom, and how often they may ask: what the relay decides before the first recipient."""

from __future__ import annotations

import ipaddress
import secrets
import unicodedata
from array import array
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from hmac import compare_digest
from typing import Final, Literal

from storage.address import NotAnAddress, a_label, parse

MAX_NETWORKS: Final = 10_000  # whose failures are remembered
MAX_FAILURES: Final = 50  # of one network in WINDOW: then it is blocked
WINDOW: Final = 600.0  # seconds for which a failure counts

BLOCKED: Final = "421 4.7.0 too many wrong log-ins from your network, come back later"

_MOST: Final = 30.0  # seconds that a wrong answer waits, at most
_MOST_RIGHT: Final = 4.0  # seconds that any AUTH waits before it is looked at
_MOST_RIGHT_HERE: Final = 1.0  # the same, for this machine's own clients
_HERE: Final = b""  # the network of the clients on this machine


@dataclass(frozen=True, slots=True)
class Policy:
    """What applies to a client: its listener's settings, narrowed by the credential it has logged in with.

    `senders`: the domains that may stand in MAIL FROM, each with its subdomains; () = any. `credential`: the user name,
    "" for nobody's. Raises NotAnAddress for a sender that is no domain.
    """

    mode: Literal["refuse", "strip", "observe"]
    list_id: str | None
    purpose: Literal["marketing", "service"]
    senders: tuple[str, ...]
    credential: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "senders", tuple(map(a_label, self.senders)))  # once, not with every MAIL

    def may_send_as(self, mail_from: str) -> bool:
        """May this stand in MAIL FROM? Without its brackets.

        The null sender ("") may always: it is what notices and receipts have (RFC 3834 3.3, RFC 5321 4.5.5), and
        nobody is spoken for.
        """
        if not mail_from or not self.senders:
            return True
        try:
            address = parse(mail_from)
        except NotAnAddress:
            return False
        domain = "." + address.domain  # a whole label must match: notexample.com is not of example.com
        return not address.is_domain and any(domain.endswith("." + sender) for sender in self.senders)


class Credentials:
    """User names and passwords of those who may log in. Of a password only a digest is kept, keyed for this process.

    The digests are fast ones on purpose: the passwords stand in files beside the config, so a slow digest in memory
    protects nobody, and would stop the event loop at every log-in. Guessing is for Brake to stop.

    Names and passwords are compared in NFC (RFC 8265 3.4.2, 4.2.2): a Mac sends another e-acute than a file has.
    Case counts.
    """

    def __init__(self, known: Mapping[str, tuple[str, Policy]]):
        """User name -> (password, policy). Raises ValueError for an empty or repeated name, or an empty password."""
        self._key = secrets.token_bytes(32)
        self._nobody: tuple[bytes, Policy | None] = (secrets.token_bytes(32), None)
        self._known: dict[bytes, tuple[bytes, Policy | None]] = {}
        for username, (password, policy) in known.items():
            if not username or not password:
                raise ValueError("a credential needs a user name and a password")
            name = self._digest(b"", username)
            if name in self._known:
                raise ValueError("two credentials have the same user name")
            self._known[name] = (self._digest(name, password), policy)

    def check(self, username: str, password: str) -> Policy | None:
        """The policy of whoever this is; None: nobody we know.

        Takes as long for an unknown name as for a wrong password: two digests and one comparison, and the name is
        looked up by a digest that no client can foresee.
        """
        name = self._digest(b"", username)
        right, policy = self._known.get(name, self._nobody)
        return policy if compare_digest(right, self._digest(name, password)) else None

    def _digest(self, of: bytes, text: str) -> bytes:
        octets = unicodedata.normalize("NFC", text).encode("utf-8", "surrogatepass")
        return blake2b(of + octets, key=self._key, digest_size=32, person=b"password" if of else b"name").digest()

    def __bool__(self) -> bool:
        return bool(self._known)

    def __repr__(self) -> str:
        return f"Credentials({len(self._known)})"


class Brake:
    """Slows those who guess passwords, and limits connections; by network: one IPv4 address, or one IPv6 /64.

    - A failure counts for 10 minutes, and a success takes none back: whoever owns one account could else guess at
      the others for ever. An honest client gets over it by the passing of time, and waits 4 s at most until then.
    - What stops an attacker is the count, which grows when the answer is found, not when it is sent: hanging up early,
      or guessing on many connections at a time, gains nothing.
    - This machine's own clients are never blocked nor limited in number: one cron job with an old password would
      lock out every tool on 127.0.0.1. They are only slowed: wrong answers as anybody's, right ones by 1 s at most.

    Memory is bounded: failures by MAX_NETWORKS (the one whose last failure is longest ago is forgotten first), counts
    of connections by the connections there are. Not for several threads. Times are monotonic seconds.
    """

    def __init__(self, per_client: int):
        """`per_client`: most connections of one network at a time; 0 = no limit. May be set anew at any time."""
        self.per_client = per_client
        self._open: dict[bytes, int] = {}
        self._failures: OrderedDict[bytes, array[float]] = OrderedDict()  # the last MAX_FAILURES of each, oldest first

    def connected(self, peer: str) -> bool:
        """A client has come from this IP address. False: too many from there, and this one is not counted."""
        network = _network(peer)
        if network == _HERE:
            return True
        count = self._open.get(network, 0)
        if self.per_client and count >= self.per_client:
            return False
        self._open[network] = count + 1
        return True

    def disconnected(self, peer: str) -> None:
        """A client that was counted has gone."""
        network = _network(peer)
        left = self._open.pop(network, 0) - 1
        if left > 0:
            self._open[network] = left

    def delay(self, peer: str, now: float) -> float:
        """Seconds to wait before looking at what an AUTH says, right or wrong: 0.0 where nothing failed lately."""
        network = _network(peer)
        return min(self._growing(network, now), _MOST_RIGHT_HERE if network == _HERE else _MOST_RIGHT)

    def failed(self, peer: str, now: float) -> float:
        """An AUTH was wrong. Seconds to wait before saying so: 1, 2, 4 ... 30, with each failure of the network.

        To be called before any waiting, at once when the answer is known.
        """
        network = _network(peer)
        times = self._failures.setdefault(network, array("d"))
        times.append(now)
        del times[:-MAX_FAILURES]
        self._failures.move_to_end(network)
        self._forget(now)
        return self._growing(network, now)

    def blocked(self, peer: str, now: float) -> bool:
        """Has this network failed 50 times in the last 10 minutes? Then it is told 421 4.7.0.

        To be asked at the greeting, and again at every AUTH: connections may have been opened beforehand.
        """
        network = _network(peer)
        return network != _HERE and self._count(network, now) >= MAX_FAILURES

    def _count(self, network: bytes, now: float) -> int:
        return sum(now - time < WINDOW for time in self._failures.get(network, ()))

    def _growing(self, network: bytes, now: float) -> float:
        count = self._count(network, now)
        return min(2.0 ** (count - 1), _MOST) if count else 0.0

    def _forget(self, now: float) -> None:
        """Those with nothing left to count, and one too many. Both are in front: the order is that of last failures."""
        while True:
            oldest = next(iter(self._failures.values()))
            if now - oldest[-1] < WINDOW and len(self._failures) <= MAX_NETWORKS:
                return
            self._failures.popitem(last=False)


def _network(peer: str) -> bytes:
    """What counts as one client. A peer without an IP address came by a local socket, or is gone already."""
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return _HERE
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped  # a socket for both families shows 192.0.2.1 as ::ffff:192.0.2.1
    if address.is_loopback:
        return _HERE
    return address.packed if isinstance(address, ipaddress.IPv4Address) else address.packed[:8]
