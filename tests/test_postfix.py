"""The policy service: its protocol, its decisions, and a real Postfix set up as docs/policy-service.md says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import smtplib
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon import events, postfix
from daemon.gate import Purpose
from daemon.postfix import Context, NotARequest, Request, Server, action, read
from storage.address import Address, NotAnAddress, parse
from storage.routes import meant as addresses
from storage.terms import Reason
from tests import servers
from tests.ledgers import LISTS, Books, books
from tests.loopback import HOST, free_port
from tests.servers import Postfix, Sink, program, sink

ROOT = Path(__file__).parents[1]
MAIN_CF = re.findall(r"```main\.cf\n(.*?)```", (ROOT / "docs/policy-service.md").read_text(), re.DOTALL)
ANN = "ann@customer.example"
OPTED_OUT = f"550 5.7.1 <{ANN}> has opted out (ref "
# How a client may write ann@customer.example, and what Postfix 3.7 then asks about.
SPELLINGS = {
    '"ann"@customer.example': ANN,
    "ANN@Customer.EXAMPLE.": "ANN@Customer.EXAMPLE.",
    "ann+offers@customer.example": "ann+offers@customer.example",
    r"a\nn@customer.example": ANN,
    "ann (who else)@customer.example": ANN,
    'ann@"customer.example"': ANN,
    "@elsewhere.example:ann@customer.example": ANN,
    "ann%customer.example": "ann%customer.example",
    "ann%customer.example@mta.example.org": "ann%customer.example@mta.example.org",
    '"ann%customer.example"@mta.example.org': "ann%customer.example@mta.example.org",
    "ann%customer.example%mta.example.org@mta.example.org": "ann%customer.example%mta.example.org@mta.example.org",
    "customer.example!ann": "customer.example!ann",
    "customer.example!ann@mta.example.org": "customer.example!ann@mta.example.org",
    "mta.example.org!customer.example!ann": "mta.example.org!customer.example!ann",
    "mta.example.org!ann%customer.example": "mta.example.org!ann%customer.example",
    '"ann@customer.example"@mta.example.org': "ann@customer.example@mta.example.org",
    "ann@customer.example@mta.example.org": "ann@customer.example@mta.example.org",
}


# ------------------------------------------------------------------ a desk to ask at


@dataclass
class Desk:
    """A context, and what it counted."""

    books: Books
    counted: list[tuple[str, str | None, str, int, int]] = field(default_factory=list)

    def context(self, **other: Any) -> Context:
        """With two users, unless told otherwise."""
        users: dict[str, tuple[str | None, Purpose]] = {
            "crm": ("offers", "marketing"),
            "app": (None, "service"),
        }
        plain = Context(self.books.gate(), self.books.ledger.site_key, users, frozenset(LISTS), note=self._note)
        return replace(plain, **other)

    def _note(self, *facts: Any) -> None:
        self.counted.append(facts)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(books(tmp_path / "ledger"))


def rcpt(recipient: str = ANN, policy_context: str = "", sasl_username: str = "", state: str = "RCPT") -> Request:
    return Request(state, recipient, sasl_username, policy_context)


def written(asked: Request) -> bytes:
    """As Postfix writes it, with some of the other attributes."""
    lines = f"""request=smtpd_access_policy
protocol_state={asked.state}
protocol_name=ESMTP
client_address=127.0.0.1
helo_name=crm.example
sender=news@quillpdf.example
recipient={asked.recipient}
recipient_count=0
ccert_subject=
sasl_username={asked.sasl_username}
policy_context={asked.policy_context}"""
    return lines.encode("utf-8", "surrogateescape") + b"\n\n"


@dataclass
class Service:
    """A running server."""

    server: Server
    port: int

    async def ask(self, *pieces: bytes) -> bytes:
        """Send these one after the other on a connection of its own, then nothing more; all that comes back."""
        reader, writer = await asyncio.open_connection(HOST, self.port)
        try:
            with contextlib.suppress(OSError):  # it may have hung up
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                writer.write_eof()
            async with asyncio.timeout(10):
                return await self._all(reader)
        finally:
            writer.close()

    @staticmethod
    async def _all(reader: asyncio.StreamReader) -> bytes:
        """To its end. A socket closed over octets that nobody read resets the connection: so be it."""
        came = b""
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(65_536):
                came += piece
        return came


@contextlib.asynccontextmanager
async def serving(context: Context, port: int = 0) -> AsyncIterator[Service]:
    server = Server([f"{HOST}:{port}"], context)
    (bound,) = await server.start()
    try:
        yield Service(server, int(bound.rpartition(":")[2]))
    finally:
        await server.stop()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """The events so far, with their facts."""
    seen: list[tuple[str, dict[str, Any]]] = []

    class Log:
        def info(self, event: str, **facts: Any) -> None:
            seen.append((event, facts))

        warning = error = info

    monkeypatch.setattr(events, "_log", Log())
    return seen


# ------------------------------------------------------------------ reading a request

_names = st.text(st.characters(codec="utf-8", exclude_characters="=\n"), min_size=1, max_size=20)
_values = st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=60)


@given(st.dictionaries(_names, _values, max_size=20), _values, _values, _values)
def test_what_postfix_says_is_read_whatever_else_it_says(
    others: dict[str, str], recipient: str, user: str, context: str
) -> None:
    ours = {"protocol_state": "RCPT", "recipient": recipient, "sasl_username": user, "policy_context": context}
    lines = {**others, **ours, "request": "smtpd_access_policy"}
    block = "\n".join(f"{name}={value}" for name, value in sorted(lines.items())).encode()
    assert read(block) == Request("RCPT", recipient, user, context)


@given(st.binary(max_size=200), st.booleans())
def test_any_octets_are_a_request_or_not(octets: bytes, begun: bool) -> None:
    with contextlib.suppress(NotARequest):
        read((b"request=smtpd_access_policy\n" if begun else b"") + octets.replace(b"\n\n", b"\n"))


GOOD = written(rcpt("bob@customer.example"))
BAD = {
    "no attributes": b"\n\n",
    "a line without =": b"request=smtpd_access_policy\nrecipient\n\n",
    "another request": b"request=smtpd_something\n\n",
    "no request": b"protocol_state=RCPT\nrecipient=bob@customer.example\n\n",
    "smtp": b"EHLO x\r\nMAIL FROM:<a@b.example>\r\n\n\n",
    "a long line": GOOD[:-1] + b"x=" + b"y" * 4095 + b"\n\n",
    "many attributes": GOOD[:-1] + b"x=y\n" * 90 + b"\n",
    "a large request": GOOD[:-1] + (b"x=" + b"y" * 4000 + b"\n") * 17 + b"\n",
    "a line without an end": b"x=" + b"y" * 200_000,
    "the largest of all": (b"x=y\n" * 50_000) + b"\n",
}


@pytest.mark.parametrize("octets", BAD.values(), ids=BAD)
async def test_what_does_not_keep_to_the_protocol_is_hung_up_on(desk: Desk, octets: bytes, said: list[Any]) -> None:
    async with serving(desk.context()) as service:
        waiting = asyncio.create_task(service.ask(GOOD, b"request=smtpd_acc"))  # somebody else, half way
        answers = await service.ask(GOOD + octets + GOOD)
        assert answers in (b"action=DUNNO\n\n", b"")  # a reset may take the first one with it
        assert [event for event, _ in said] == ["policy_hung_up"]
        assert await waiting == b"action=DUNNO\n\n"
        assert await service.ask(GOOD) == b"action=DUNNO\n\n"


async def test_the_largest_that_is_allowed_is_answered(desk: Desk) -> None:
    line = b"x=" + b"y" * 4094 + b"\n"
    async with serving(desk.context()) as service:
        assert await service.ask(GOOD[:-1] + line * 15 + b"\n", GOOD[:-1] + b"x=y\n" * 89 + b"\n") == (
            b"action=DUNNO\n\naction=DUNNO\n\n"
        )


@pytest.mark.parametrize("step", [1, 7, 100, 1000, 100_000])
async def test_requests_come_in_any_pieces_and_are_answered_in_turn(desk: Desk, step: int) -> None:
    ref = desk.books.suppress(ANN).evidence
    octets = (written(rcpt()) + GOOD) * 60  # more than are answered in one go
    async with serving(desk.context()) as service:
        octets = octets[: len(octets) // (20 if step == 1 else 1) // 2 * 2]
        answers = await service.ask(*(octets[i : i + step] for i in range(0, len(octets), step)))
    whole = octets.count(b"\n\n")
    expected = [f"action={OPTED_OUT}{ref})\n\n".encode(), b"action=DUNNO\n\n"] * 60
    assert whole >= 5
    assert answers == b"".join(expected[:whole])


# ------------------------------------------------------------------ whom a recipient means

_local = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).map(
    lambda t: parse('"' + re.sub(r'(["\\])', r"\\\1", t) + '"@customer.example').local
)


@given(_local, st.sampled_from(["customer.example", "xn--bcher-kva.example", "[192.0.2.1]"]))
def test_the_unquoted_form_is_read_as_the_address_it_stands_for(local: str, domain: str) -> None:
    assert addresses(f"{local}@{domain}")[0] == Address(local, domain)


@given(st.text(st.sampled_from('ab@%!."\\ \x00\udcff'), max_size=60))
def test_any_text_means_somebody_or_cannot_be_read(text: str) -> None:
    with contextlib.suppress(NotAnAddress):
        assert addresses(text)


@pytest.mark.parametrize("asked", sorted(set(SPELLINGS.values())))
def test_another_spelling_of_hers_is_refused(desk: Desk, asked: str) -> None:
    ref = desk.books.suppress(ANN).evidence
    assert action(desk.context(), rcpt(asked)) == f"550 5.7.1 <{asked}> has opted out (ref {ref})"


@pytest.mark.parametrize("recipient", ["bob!@customer.example", "50%off@customer.example", "a%b!c@customer.example"])
def test_a_sign_in_a_local_part_is_not_always_a_route(desk: Desk, recipient: str) -> None:
    desk.books.suppress(ANN)
    assert action(desk.context(), rcpt(recipient)) == "DUNNO"
    ref = desk.books.suppress(recipient).evidence
    assert action(desk.context(), rcpt(recipient)) == f"550 5.7.1 <{recipient}> has opted out (ref {ref})"


@pytest.mark.parametrize(
    "recipient",
    ["", "ann", "@customer.example", "ann@", "ann@customer..example", "an\x00n@customer.example", "@", "ann%", "!ann",
     "j\udcfcrgen@customer.example", "bob%customer.example@customer..example",
     "x" * 300 + "@customer.example", "%".join("abcdefghijklmnopqrstuvwxyz")],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(desk: Desk, recipient: str, said: list[Any]) -> None:
    assert action(desk.context(), rcpt(recipient)).startswith("550 5.1.3 ")
    assert [event for event, _ in said] == ["policy_unreadable"]
    assert desk.counted == [("refused", None, "", 0, 1)]


@pytest.mark.parametrize("state", ["RCPT", "DATA", "END-OF-MESSAGE"])
def test_the_postmaster_needs_no_domain(desk: Desk, state: str) -> None:
    assert action(desk.context(), rcpt("Postmaster", state=state)) == "DUNNO"


def test_an_address_that_is_not_ascii_is_asked_about_and_not_named(desk: Desk) -> None:
    ref = desk.books.suppress("jürgen@bücher.example").evidence
    for spelling in ("jürgen@bücher.example", "JÜRGEN@xn--bcher-kva.example", "ju\u0308rgen@BÜCHER。example"):
        assert action(desk.context(), rcpt(spelling)) == f"550 5.7.1 has opted out (ref {ref})"


# ------------------------------------------------------------------ the decision


def test_an_opt_out_counts_at_once_and_so_does_its_end(desk: Desk) -> None:
    context = desk.context()
    assert action(context, rcpt()) == "DUNNO"
    desk.books.suppress(ANN)
    assert action(context, rcpt()).startswith(OPTED_OUT)
    desk.books.lift(ANN)
    assert action(context, rcpt()) == "DUNNO"
    assert [facts[0] for facts in desk.counted] == ["passed", "refused", "passed"]


@pytest.mark.parametrize("state", ["CONNECT", "EHLO", "HELO", "MAIL", "VRFY", "ETRN", "XYZ", ""])
def test_where_no_recipient_is_taken_nothing_is_said(desk: Desk, state: str) -> None:
    desk.books.suppress(ANN)
    assert action(desk.context(), rcpt(state=state)) == "DUNNO"
    assert desk.counted == []


@pytest.mark.parametrize("state", ["DATA", "END-OF-MESSAGE"])
def test_the_only_recipient_is_asked_about_again(desk: Desk, state: str) -> None:
    context = desk.context()
    assert action(context, rcpt(state=state)) == "DUNNO"
    assert desk.counted == []  # RCPT has counted it
    desk.books.suppress(ANN)
    assert action(context, rcpt(state=state)).startswith(OPTED_OUT)
    assert action(context, rcpt("", state=state)) == "DUNNO"  # there are several
    assert [facts[0] for facts in desk.counted] == ["refused"]


@pytest.mark.parametrize(
    ("policy_context", "user", "default", "refused"),
    [
        ("", "", None, False),
        ("list=newsletter", "", None, True),
        ("list=offers", "", None, False),
        ("purpose=marketing;list=newsletter", "", None, True),
        ("list=newsletter, purpose=service", "", None, False),
        ("", "", "newsletter", True),
        ("", "crm", "newsletter", False),  # she stays with offers
        ("list=newsletter", "crm", None, True),  # main.cf is the whole answer
        ("list=newsletter", "app", None, True),
        ("purpose=marketing", "", "newsletter", True),
        ("purpose=marketing", "crm", None, False),
        ("", "app", "newsletter", False),
        ("", "somebody", "newsletter", True),
    ],
)
def test_list_and_purpose(desk: Desk, policy_context: str, user: str, default: str | None, refused: bool) -> None:
    ref = desk.books.suppress(ANN, "newsletter").evidence
    answer = action(desk.context(default_list=default), rcpt(ANN, policy_context, user))
    assert answer == (f"550 5.7.1 <{ANN}> has opted out of newsletter (ref {ref})" if refused else "DUNNO")
    assert [facts[2] for facts in desk.counted] == [user if user in ("crm", "app") else ""]  # names of ours only


def test_service_mail_is_stopped_by_hard_bounces_only(desk: Desk) -> None:
    desk.books.suppress(ANN)
    assert action(desk.context(), rcpt(sasl_username="app")) == "DUNNO"
    assert action(desk.context(), rcpt("bob@customer.example", sasl_username="app")) == "DUNNO"
    ref = desk.books.suppress(ANN, reason=Reason.HARD_BOUNCE).evidence
    bounced = f"550 5.7.1 <{ANN}> is suppressed: hard-bounce (ref {ref})"
    assert action(desk.context(), rcpt(sasl_username="app")) == bounced
    assert action(desk.context(), rcpt(policy_context="purpose=service")) == bounced
    assert desk.counted == [
        ("service", None, "app", Reason.OPT_OUT, 1),
        ("passed", None, "app", 0, 1),
        ("refused", None, "app", Reason.HARD_BOUNCE, 1),
        ("refused", None, "", Reason.HARD_BOUNCE, 1),
    ]


@pytest.mark.parametrize(
    "policy_context",
    ["list=newsletters", "list=", "newsletter", "lst=newsletter", "list=newsletter list=offers", "purpose=receipts",
     "list=newsletter,submission", "LIST=newsletter", "purpose=", " ; ,=", "list=newsletter\udcff"],
)  # fmt: skip
def test_a_mistake_in_main_cf_lets_nothing_pass(desk: Desk, policy_context: str, said: list[Any]) -> None:
    assert action(desk.context(), rcpt("bob@customer.example", policy_context)).startswith("451 4.3.5 ")
    assert [event for event, _ in said] == ["policy_misconfigured"]
    assert desk.counted == [("deferred", None, "", 0, 1)]
    assert action(desk.context(observe=True), rcpt("bob@customer.example", policy_context)) == "DUNNO"


def test_a_user_with_a_list_that_is_gone_lets_nothing_pass(desk: Desk, said: list[Any]) -> None:
    context = desk.context(lists=frozenset({"newsletter"}))
    assert action(context, rcpt("bob@customer.example", sasl_username="crm")).startswith("451 4.3.5 ")
    assert said == [("policy_misconfigured", {"what": "list=offers: no such list", "observed": False})]


def test_observed_all_passes_and_the_log_says_what_would_not(desk: Desk, said: list[Any]) -> None:
    ref = desk.books.suppress(ANN).evidence
    context = desk.context(observe=True)
    assert [action(context, rcpt(r)) for r in (ANN, "bob@customer.example", "ann")] == ["DUNNO"] * 3
    desk.books.ledger.path.unlink()
    assert action(context, rcpt()) == "DUNNO"
    assert [event for event, _ in said] == ["policy_would_refuse", "policy_unreadable", "policy_deferred"]
    assert said[0][1]["ref"] == ref
    assert all(facts["observed"] for _, facts in said[1:])
    assert [facts[0] for facts in desk.counted] == ["would-refuse", "passed", "would-refuse", "passed"]


async def test_a_ledger_that_cannot_be_asked_defers_and_is_asked_again(desk: Desk, said: list[Any]) -> None:
    path = desk.books.ledger.path
    began = time.monotonic()
    async with serving(desk.context()) as service:
        assert await service.ask(GOOD) == b"action=DUNNO\n\n"
        path.rename(path.with_suffix(".away"))
        assert (await service.ask(GOOD)).startswith(b"action=451 4.3.0 ")
        path.write_bytes(b"not a database" * 1000)
        assert (await service.ask(GOOD)).startswith(b"action=451 4.3.0 ")
        path.with_suffix(".away").rename(path)
        assert await service.ask(GOOD) == b"action=DUNNO\n\n"
    assert time.monotonic() - began < 5
    assert [event for event, _ in said] == ["policy_deferred"] * 2
    assert [facts[0] for facts in desk.counted] == ["passed", "deferred", "deferred", "passed"]


async def test_a_bug_costs_one_recipient_and_is_told(desk: Desk, said: list[Any]) -> None:
    def note(outcome: str, *_: object) -> None:
        if outcome == "refused":
            raise KeyError(ANN)

    desk.books.suppress(ANN)
    async with serving(desk.context(note=note)) as service:
        answers = await service.ask(written(rcpt()) + GOOD)
    assert answers == b"action=451 4.3.0 local error, try again later\n\naction=DUNNO\n\n"
    assert [event for event, _ in said] == ["policy_refused", "failed"]


def test_no_address_reaches_the_log(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.books.suppress(ANN)
    events.configure(format="json")
    for asked in (
        rcpt(),
        rcpt("ann%customer.example"),
        rcpt(f"{ANN}@"),
        rcpt("ann\udcff@customer.example"),
        rcpt(policy_context=f"for {ANN}"),
    ):
        action(desk.context(), asked)
        action(desk.context(observe=True), asked)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert len(lines) == 10
    assert "customer" not in json.dumps(lines)
    assert len({line["rcpt"] for line in lines if line["event"] in ("policy_refused", "policy_would_refuse")}) == 1


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30), st.sampled_from(["RCPT", "DATA", "MAIL"]))
def test_every_answer_is_one_line_of_ascii(
    shared: Callable[[], Context], recipient: str, context: str, user: str, state: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "_log", type("Quiet", (), {"__getattr__": lambda *_: lambda *_, **__: None})())
        for asked in (recipient, f"{recipient}@suppressed.example"):
            answer = action(shared(), rcpt(asked, context, user, state))
            assert answer == "DUNNO" or re.fullmatch(r"(550 5|451 4)\.\d\.\d [ -~]+", answer)


@pytest.fixture(scope="module")
def shared() -> Iterator[Callable[[], Context]]:
    """One context for all examples, with a domain that is suppressed."""
    with tempfile.TemporaryDirectory() as directory:
        made = Desk(books(Path(directory)))
        made.books.suppress("@suppressed.example", reason=Reason.OPERATOR)
        context = made.context()
        yield lambda: context


# ------------------------------------------------------------------ connections


async def test_other_settings_count_from_the_next_request_of_an_open_connection(desk: Desk) -> None:
    desk.books.suppress(ANN)
    async with serving(desk.context()) as service:
        reader, writer = await asyncio.open_connection(HOST, service.port)
        writer.write(written(rcpt()))
        assert (await reader.readuntil(b"\n\n")).startswith(b"action=550 ")
        service.server.take_over(desk.context(observe=True))
        writer.write(written(rcpt()))
        assert await reader.readuntil(b"\n\n") == b"action=DUNNO\n\n"
        writer.close()


async def test_one_connection_too_many_is_hung_up_on(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, said: list[Any]
) -> None:
    monkeypatch.setattr(postfix, "MAX_CONNECTIONS", 2)
    async with serving(desk.context()) as service:
        open_ = [await asyncio.open_connection(HOST, service.port) for _ in range(2)]
        for reader, writer in open_:
            writer.write(GOOD)
            assert await reader.readuntil(b"\n\n") == b"action=DUNNO\n\n"
        assert await service.ask(GOOD) == b""
        assert said == [("policy_hung_up", {"reason": "too many connections"})]
        open_[0][1].close()
        await asyncio.sleep(0.05)
        assert await service.ask(GOOD) == b"action=DUNNO\n\n"
        open_[1][1].close()


async def test_a_silent_connection_is_closed_in_the_end(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postfix, "IDLE_SECONDS", 0.3)
    async with serving(desk.context()) as service:
        reader, writer = await asyncio.open_connection(HOST, service.port)
        began = time.monotonic()
        for _ in range(3):
            await asyncio.sleep(0.2)  # each request begins the silence anew
            writer.write(GOOD)
            assert await reader.readuntil(b"\n\n") == b"action=DUNNO\n\n"
        assert await reader.read() == b""
        assert 0.85 < time.monotonic() - began < 5
        writer.close()


async def test_who_does_not_read_is_not_read_from_and_holds_nobody_up(desk: Desk, said: list[Any]) -> None:
    short = b"request=smtpd_access_policy\nprotocol_state=RCPT\nrecipient=\n\n"  # with a longer answer
    async with serving(desk.context()) as service:
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect((HOST, service.port))
            while not service.server._clients:
                await asyncio.sleep(0.01)
            (client,) = service.server._clients
            client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    deaf.setblocking(False)
                    await asyncio.get_running_loop().sock_sendall(deaf, short * 40_000)
            await asyncio.sleep(0.2)
            assert client.transport.get_write_buffer_size() < 100_000  # of 4 MB
            assert await service.ask(GOOD) == b"action=DUNNO\n\n"
            begin = time.monotonic()
            await service.server.stop()
            assert time.monotonic() - begin < 5


async def test_it_stops_with_connections_open_and_starts_again_on_the_same_port(desk: Desk) -> None:
    async with serving(desk.context()) as service:
        reader, writer = await asyncio.open_connection(HOST, service.port)
        writer.write(GOOD)
        assert await reader.readuntil(b"\n\n")
        began = time.monotonic()
        await service.server.stop()
        assert await reader.read() == b""
        assert time.monotonic() - began < 1
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await service.ask(GOOD)
        async with serving(desk.context(), service.port) as again:
            assert await again.ask(GOOD) == b"action=DUNNO\n\n"


async def test_a_taken_port_is_an_error_and_nothing_is_left_listening(desk: Desk) -> None:
    free = free_port()
    async with serving(desk.context()) as service:
        second = Server([f"{HOST}:{free}", f"{HOST}:{service.port}"], desk.context())
        with pytest.raises(OSError, match="in use"):
            await second.start()
    with socket.socket() as probe:
        assert probe.connect_ex((HOST, free))


async def test_it_listens_where_it_is_told(desk: Desk) -> None:
    server = Server([f"{HOST}:0", "[::1]:0"], desk.context())
    four, six = await server.start()
    await server.stop()
    assert re.fullmatch(r"127\.0\.0\.1:\d+", four)
    assert re.fullmatch(r"\[::1\]:\d+", six)


# ------------------------------------------------------------------ a real Postfix, as the docs say


class Asking(Postfix):
    """A Postfix with a main.cf of docs/policy-service.md. `policy_port`: where optoutd listens, or will."""

    def __init__(self, directory: Path, relayhost_port: int, from_the_docs: str):
        super().__init__(directory, relayhost_port)
        self.policy_port = free_port()
        assert "inet:127.0.0.1:10031" in from_the_docs
        # A domain of its own, for routes through it; sendmail needs postdrop without set-gid, or it trusts /etc only.
        here = f"mydestination = $myhostname\ncommand_directory = {directory}/sbin\n"
        made_later = (
            "virtual_alias_maps = inline:{ team@quillpdf.example=ann@customer.example }\n"
            "recipient_bcc_maps = inline:{ bob@customer.example=cc@customer.example }\n"
        )
        main = (self.etc / "main.cf").read_text().replace("mydestination =\n", here)
        docs = from_the_docs.replace("127.0.0.1:10031", f"{HOST}:{self.policy_port}")
        (self.etc / "main.cf").write_text(main + made_later + docs)
        (directory / "sbin").mkdir()
        shutil.copyfile(program("postdrop") or "postdrop", directory / "sbin/postdrop")
        (directory / "sbin/postdrop").chmod(0o755)
        with (self.etc / "master.cf").open("a") as master:
            master.write("pickup unix n - n 1 1 pickup\n")

    def sendmail(self, recipient: str) -> None:
        """Hand a message over as programs on the same machine do."""
        command = [program("sendmail") or "sendmail", "-C", str(self.etc), "-f", "news@quillpdf.example", recipient]
        subprocess.run(command, input=b"Subject: by sendmail\n\nx\n", check=True, capture_output=True)

    def send(
        self, *recipients: str, between: Callable[[], object] = lambda: None, header: str = ""
    ) -> list[tuple[int, str]]:
        """Send a message; the replies to each RCPT, and to DATA and the dot if there was a recipient.

        `between` happens after the last RCPT.
        """
        with smtplib.SMTP(HOST, self.port, timeout=20) as client:
            client.ehlo("crm.example")
            client.docmd("MAIL FROM:<news@quillpdf.example>")
            replies = [client.docmd(f"RCPT TO:<{r}>") for r in recipients]
            between()
            if any(code == 250 for code, _ in replies):
                replies.append(client.docmd("DATA"))
                client.send(f"{header}Subject: hello\r\n\r\nhello\r\n.\r\n".encode())
                replies.append(client.getreply())
        return [(code, text.decode()) for code, text in replies]


@contextlib.contextmanager
def asking(from_the_docs: str, upstream: Sink) -> Iterator[Asking]:
    with servers._directory() as directory:
        server = Asking(directory, upstream.port, from_the_docs)
        server.start()
        try:
            yield server
        finally:
            server.kill()


@pytest.fixture(scope="module")
def _out() -> Iterator[Sink]:
    with sink() as server:
        yield server


@pytest.fixture(scope="module")
def _mta(_out: Sink) -> Iterator[Asking]:
    with asking(MAIN_CF[0], _out) as server:
        yield server


@pytest.fixture
def mta(_mta: Asking, _out: Sink) -> Asking:
    """A Postfix with the first main.cf of the docs."""
    _mta.clear()
    _out.reset()
    return _mta


@pytest.fixture
def out(mta: Asking, _out: Sink) -> Sink:
    """Where its mail goes."""
    return _out


def reached(out: Sink, last: str = "last@customer.example", count: int = 1) -> set[str]:
    """Whom mail has reached, once `last` has got his."""

    def so_far() -> list[str]:
        return [r.partition(">")[0].removeprefix("<") for t in out.messages for r in t.rcpt_to]

    out.wait_for(lambda: so_far().count(last) >= count)
    return set(so_far())


def told(reply: tuple[int, str]) -> str:
    """The reply as a line, with what Postfix puts before the text of a policy service taken off."""
    return re.sub(r"^(\d+ \S+) <[^>]*>: (Recipient address|End-of-data) rejected: ", r"\1 ", f"{reply[0]} {reply[1]}")


@pytest.mark.postfix
async def test_postfix_refuses_whom_we_refuse(desk: Desk, mta: Asking, out: Sink) -> None:
    ref = desk.books.suppress(ANN, "newsletter").evidence
    async with serving(desk.context(), mta.policy_port):
        replies = await asyncio.to_thread(mta.send, ANN, "bob@customer.example", "last@customer.example")
    assert told(replies[0]) == f"550 5.7.1 <{ANN}> has opted out of newsletter (ref {ref})"
    assert [code for code, _ in replies[1:]] == [250, 250, 354, 250]
    assert {"bob@customer.example"} < await asyncio.to_thread(reached, out)
    assert ANN not in reached(out)


@pytest.mark.postfix
async def test_an_opt_out_between_two_messages_counts_for_the_second(desk: Desk, mta: Asking, out: Sink) -> None:
    async with serving(desk.context(), mta.policy_port):
        first = await asyncio.to_thread(mta.send, ANN)
        desk.books.suppress(ANN)
        second = await asyncio.to_thread(mta.send, ANN)
    assert [code for code, _ in first] == [250, 354, 250]
    assert [told(r)[: len(OPTED_OUT)] for r in second] == [OPTED_OUT]
    assert reached(out, ANN) == {ANN}
    assert len(out.messages) == 1


@pytest.mark.postfix
async def test_without_us_nothing_passes_and_with_us_it_does_again(desk: Desk, mta: Asking, out: Sink) -> None:
    (away,) = await asyncio.to_thread(mta.send, "last@customer.example")
    assert told(away) == "451 4.3.5 cannot ask whether this recipient has opted out"
    async with serving(desk.context(), mta.policy_port):
        back = await asyncio.to_thread(mta.send, "last@customer.example")
    assert [code for code, _ in back] == [250, 354, 250]
    assert reached(out) == {"last@customer.example"}


@pytest.mark.postfix
async def test_nothing_passes_while_the_ledger_cannot_be_asked_or_main_cf_is_wrong(
    desk: Desk, mta: Asking, said: list[Any]
) -> None:
    async with serving(desk.context(lists=frozenset({"offers"})), mta.policy_port) as service:
        (wrong,) = await asyncio.to_thread(mta.send, "bob@customer.example")
        desk.books.ledger.path.unlink()
        service.server.take_over(desk.context())
        (away,) = await asyncio.to_thread(mta.send, "bob@customer.example")
    assert told(wrong).startswith("451 4.3.5 the policy_context of this server is wrong")
    assert told(away).startswith("451 4.3.0 ")


@pytest.mark.postfix
async def test_no_spelling_of_a_suppressed_address_gets_through(desk: Desk, mta: Asking, out: Sink) -> None:
    desk.books.suppress(ANN)
    async with serving(desk.context(), mta.policy_port):
        for spelling in SPELLINGS:
            replies = await asyncio.to_thread(mta.send, spelling)
            assert [code for code, _ in replies] == [550], (spelling, replies)
        await asyncio.to_thread(mta.send, "last@customer.example")
    assert await asyncio.to_thread(reached, out) == {"last@customer.example"}


@pytest.mark.postfix
async def test_those_spellings_would_have_reached_her(desk: Desk, mta: Asking, out: Sink) -> None:
    """Or the test before this one would show nothing."""
    async with serving(desk.context(), mta.policy_port):
        for spelling in SPELLINGS:
            replies = await asyncio.to_thread(mta.send, spelling)
            assert [code for code, _ in replies] == [250, 354, 250], (spelling, replies)
    seen = [parse(a) for a in await asyncio.to_thread(reached, out, ANN, len(SPELLINGS) - 2)]
    assert {a.local.lower() for a in seen} <= {"ann", "ann+offers"}
    assert {a.domain for a in seen} == {"customer.example"}


@pytest.mark.postfix
async def test_an_opt_out_after_rcpt_stops_a_message_for_one_but_not_for_several(
    desk: Desk, mta: Asking, out: Sink
) -> None:
    """The docs say so: Postfix names the recipient at the end of the message only if there is one."""
    async with serving(desk.context(), mta.policy_port):
        one = await asyncio.to_thread(partial(mta.send, ANN, between=lambda: desk.books.suppress(ANN)))
        desk.books.lift(ANN)
        several = await asyncio.to_thread(
            partial(mta.send, ANN, "last@customer.example", between=lambda: desk.books.suppress(ANN))
        )
    assert [code for code, _ in one] == [250, 354, 550]
    assert told(one[-1]).startswith(OPTED_OUT)
    assert [code for code, _ in several] == [250, 250, 354, 250]
    assert ANN in await asyncio.to_thread(reached, out)
    assert len({t.data for t in out.messages}) == 1


@pytest.mark.postfix
async def test_what_postfix_makes_later_is_not_seen(desk: Desk, mta: Asking, out: Sink) -> None:
    """Aliases and Bcc maps, as the docs say."""
    desk.books.suppress(ANN)
    desk.books.suppress("cc@customer.example")
    async with serving(desk.context(), mta.policy_port):
        await asyncio.to_thread(mta.send, "team@quillpdf.example", "bob@customer.example", "last@customer.example")
        assert {ANN, "cc@customer.example"} < await asyncio.to_thread(reached, out)


@pytest.mark.postfix
async def test_what_is_handed_over_by_sendmail_is_not_seen(desk: Desk, mta: Asking, out: Sink) -> None:
    desk.books.suppress(ANN)
    async with serving(desk.context(), mta.policy_port):
        await asyncio.to_thread(mta.sendmail, ANN)
        assert await asyncio.to_thread(reached, out, ANN) == {ANN}
    assert desk.counted == []


@pytest.mark.postfix
async def test_a_postfix_for_service_mail_as_the_docs_say(desk: Desk) -> None:
    """And the List-Id in the header, which no policy service sees, changes nothing."""
    desk.books.suppress(ANN)
    desk.books.suppress("bob@customer.example", reason=Reason.HARD_BOUNCE)
    with sink() as out, asking(MAIN_CF[1], out) as mta:
        async with serving(desk.context(), mta.policy_port):
            header = f"List-Id: <{LISTS['newsletter']}>\r\n"
            replies = await asyncio.to_thread(partial(mta.send, ANN, "bob@customer.example", header=header))
        assert [code for code, _ in replies] == [250, 550, 354, 250]
        assert await asyncio.to_thread(reached, out, ANN) == {ANN}
    assert [facts[0] for facts in desk.counted] == ["service", "refused"]
    assert len(MAIN_CF) == 2
