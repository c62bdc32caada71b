"""A real Postfix that asks, configured as docs/policy-service.md says."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import smtplib
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from storage.address import parse
from storage.terms import Reason
from tests import servers
from tests.ledgers import LISTS
from tests.loopback import HOST, free_port
from tests.policy.desk import ANN, MAIN_CF, OPTED_OUT, SPELLINGS, Desk, serving
from tests.servers import Postfix, Sink, program, sink

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
    with servers.directory_of_its_own() as directory:
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
