"""The relay's manners, as dialogues (see desk.py for how to read them)."""

from __future__ import annotations

import asyncio
import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ledgers import Books, books
from tests.relay.desk import BODY, relay
from tests.sink import Sink, sink

HELLO = """
    C: EHLO crm.quillpdf.example
    S: 250
    C: MAIL FROM:<news@quillpdf.example>
    S: 250 2.1.0
"""


@pytest.fixture
def ledger(tmp_path: Path) -> Books:
    return books(tmp_path)


@pytest.fixture
def upstream() -> Iterator[Sink]:
    with sink() as server:
        yield server


def below_received(data: bytes) -> bytes:
    """What stands below the line that we add."""
    lines = data.split(b"\r\n")
    assert lines[0].startswith(b"Received: from ")
    end = next(n for n, line in enumerate(lines[1:], 1) if not line.startswith((b" ", b"\t")))
    return b"\r\n".join(lines[end:])


async def test_a_message_passes_byte_for_byte(ledger: Books, upstream: Sink) -> None:
    async with relay(ledger, upstream) as desk:
        await desk.talk(
            HELLO + "C: RCPT TO:<ann@example.com>\nS: 250\nC: DATA\nS: 354\nC: ...\nS: 250\nC: QUIT\nS: 221"
        )
    assert below_received(upstream.messages[0].data) == BODY.replace(b"\r\n..dot", b"\r\n.dot")
    assert upstream.messages[0].rcpt_to == ("<ann@example.com>",)


async def test_a_suppressed_recipient_is_refused_and_the_others_are_not(ledger: Books, upstream: Sink) -> None:
    ref = ledger.suppress("ann@example.com").evidence
    async with relay(ledger, upstream) as desk:
        await desk.talk(
            HELLO
            + f"""
            C: RCPT TO:<Ann+offers@Example.com>
            S: 550 5.7.1 <Ann+offers@Example.com> has opted out (ref {ref})
            C: RCPT TO:<bob@example.com>
            S: 250
            C: DATA
            S: 354
            C: ...
            S: 250
            """
        )
    assert [m.rcpt_to for m in upstream.messages] == [("<bob@example.com>",)]


async def test_all_refused_then_data(ledger: Books, upstream: Sink) -> None:
    ledger.suppress("ann@example.com")
    async with relay(ledger, upstream) as desk:
        await desk.talk(
            HELLO
            + "C: RCPT TO:<ann@example.com>\nS: 550 5.7.1\nC: DATA\nS: 554 5.5.1\nC: RSET\nS: 250\nC: NOOP\nS: 250"
        )
    assert not upstream.messages


async def test_strip_mode_says_how_many_it_left_out(ledger: Books, upstream: Sink) -> None:
    ledger.suppress("ann@example.com")
    async with relay(ledger, upstream, mode="strip") as desk:
        said = await desk.talk(
            HELLO
            + "C: RCPT TO:<ann@example.com>\nS: 250\nC: RCPT TO:<bob@example.com>\nS: 250\nC: DATA\nS: 354\nC: ...\nS: 250"
        )
        assert said[-1].endswith(" (1 of 2 recipients left out: opted out)")
        said = await desk.talk(HELLO + "C: RCPT TO:<ann@example.com>\nS: 250\nC: DATA\nS: 354\nC: ...\nS: 250")
        assert said[-1] == "250 2.0.0 nothing sent: all 1 recipients have opted out"
    assert [m.rcpt_to for m in upstream.messages] == [("<bob@example.com>",)]


async def test_the_list_is_known_from_the_message(ledger: Books, upstream: Sink) -> None:
    ref = ledger.suppress("ann@example.com", "newsletter").evidence
    body = b"List-Id: The Quill Letter\r\n <Newsletter.QuillPDF.example>\r\n" + BODY
    one = HELLO + "C: RCPT TO:<ann@example.com>\nS: 250\nC: DATA\nS: 354\nC: ...\n"
    both = (
        HELLO + "C: RCPT TO:<ann@example.com>\nS: 250\nC: RCPT TO:<bob@example.com>\nS: 250\nC: DATA\nS: 354\nC: ...\n"
    )
    async with relay(ledger, upstream) as desk:
        await desk.talk(one + f"S: 550 5.7.1 <ann@example.com> has opted out of newsletter (ref {ref})", body)
        said = await desk.talk(both + "S: 250", body)
        assert said[-1].endswith(" (1 of 2 left out: opted out of newsletter)")
        await desk.talk(one + "S: 250")  # no List-Id: only `all` counts
    assert [m.rcpt_to for m in upstream.messages] == [("<bob@example.com>",), ("<ann@example.com>",)]


async def test_a_worse_answer_at_the_replay_sends_nothing(ledger: Books, upstream: Sink) -> None:
    ledger.suppress("ann@example.com", "newsletter")
    body = b"List-Id: <newsletter.quillpdf.example>\r\n" + BODY
    async with relay(ledger, upstream) as desk:
        script = HELLO + "C: RCPT TO:<ann@example.com>\nS: 250\nC: RCPT TO:<bob@example.com>\nS: 250\nC: DATA\nS: 354"
        reader_script = script + "\nC: ...\nS: 451 4.5.0"
        # the sink changes its mind as soon as it sees the RSET of the replay
        upstream.delays["RSET"] = 0.2

        async def change_its_mind() -> None:
            while not any(c.upper().startswith("RSET") for c in upstream.commands):
                await asyncio.sleep(0.01)
            upstream.replies["RCPT <bob@example.com>"] = "450 4.2.0 not now"

        await asyncio.gather(desk.talk(reader_script, body), change_its_mind())
    assert not upstream.messages


async def test_a_late_opt_out_withdraws_the_message(ledger: Books, upstream: Sink) -> None:
    async with relay(ledger, upstream) as desk:
        reader, writer = await asyncio.open_connection("127.0.0.1", desk.port)
        writer.write(
            b"EHLO x\r\nMAIL FROM:<n@quillpdf.example>\r\nRCPT TO:<ann@example.com>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n"
        )
        while not (await reader.readline()).startswith(b"354"):
            pass
        writer.write(BODY)
        await asyncio.sleep(0.1)
        ledger.suppress("ann@example.com")
        writer.write(b".\r\n")
        assert (await reader.readline()).startswith(b"451 4.7.1")
        writer.write(
            b"MAIL FROM:<n@quillpdf.example>\r\nRCPT TO:<ann@example.com>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n"
        )
        assert [(await reader.readline())[:9] for _ in range(4)] == [
            b"250 2.1.0",
            b"550 5.7.1",
            b"250 2.1.5",
            b"354 end d",
        ]
        writer.write(BODY + b".\r\n")
        assert (await reader.readline()).startswith(b"250")
        writer.close()
    assert [m.rcpt_to for m in upstream.messages] == [("<bob@example.com>",)]


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b"Subject: x\r\n\r\nbare\nline\r\n", "550 5.6.11"),
        (b"Subject: x\r\n\r\nbare\rline\r\n", "550 5.6.11"),
        (b"Subject: x\r\n\r\nsmuggled\n.\r\nMAIL FROM:<evil@example.com>\r\n", "550 5.6.11"),
        (b"X-Long: " + b"y" * 300_000 + b"\r\nList-Id: <newsletter.quillpdf.example>\r\n\r\nx\r\n", "552 5.3.4"),
        (b"Received: x\r\n" * 51 + b"Subject: loop\r\n\r\nx\r\n", "554 5.4.6"),
        (b"Subject: x\r\n\r\n" + b"y" * 5000 + b"\r\n", "552 5.3.4"),
    ],
)
async def test_bodies_that_are_refused(ledger: Books, upstream: Sink, body: bytes, answer: str) -> None:
    size = 3000 if len(body) < 10_000 and answer.startswith("552") else 1_000_000
    async with relay(ledger, upstream, max_size=size) as desk:
        script = HELLO + f"C: RCPT TO:<bob@example.com>\nS: 250\nC: DATA\nS: 354\nC: ...\nS: {answer}\nC: NOOP\nS: 250"
        await desk.talk(script, body)
    assert not upstream.transactions


@pytest.mark.parametrize(
    "body",
    [b"", b"\r\n", b"x" * 70_000 + b"\r\n", b"\r\nno header\r\n", b"..\r\n", b"S: x\r\n\r\n" + b"..\r\n" * 40_000],
)
async def test_bodies_that_pass(ledger: Books, upstream: Sink, body: bytes) -> None:
    async with relay(ledger, upstream) as desk:
        await desk.talk(
            HELLO + "C: RCPT TO:<bob@example.com>\nS: 250\nC: DATA\nS: 354\nC: ...\nS: 250\nC: NOOP\nS: 250", body
        )
    unstuffed = b"\r\n".join(line[1:] if line.startswith(b".") else line for line in body.split(b"\r\n"))
    received_end = upstream.messages[0].data.index(b"\r\n\t", 60)
    assert upstream.messages[0].data[received_end:].partition(b"\r\n")[2].endswith(unstuffed)


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("MAIL FROM:<n@quillpdf.example>", "503 5.5.1"),
        ("RCPT", "501 5.5.4"),
        ("RCPT TO:<>", "501 5.1.3"),
        ("RCPT TO:<ann>", "501 5.1.3"),
        ("RCPT TO:<ann@>", "501 5.1.3"),
        ("RCPT TO:<@example.com>", "501 5.1.3"),
        ("RCPT TO:<a b@example.com>", "501 5.5.4"),
        ("RCPT TO:<\udcff@example.com>", "501 5.1.3"),
        ("RCPT TO:<jörg@example.com>", "553 5.6.7"),
        ("RCPT TO:<ann@example.com> X=1", "555 5.5.4"),
        ("RCPT TO:<ann@example.com> NOTIFY=WHAT", "501 5.5.4"),
        ('RCPT TO:<"a> b"@example.com>', "250"),
        ("RCPT TO:<@a.example,@b.example:ann@example.com>", "250"),
        ("RCPT TO:ann@example.com", "250"),
        ("rcpt to: <ann@example.com>", "250"),
        ("RCPT TO:<ann@example.com> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Ann+2Bx@Example.com", "250"),
        ("DATA", "503 5.5.1"),
        ("DATA now", "501 5.5.4"),
        ("BDAT 5", "502 5.5.1"),
        ("WHAT", "500 5.5.2"),
        ("NOOP " + "x" * 5000, "500 5.5.2"),
        ("NOOP " + "x" * 200_000, "500 5.5.2"),
        ("VRFY ann", "252"),
        ("EXPN ann", "502"),
        ("", "500 5.5.2"),
    ],
)
async def test_commands(ledger: Books, upstream: Sink, line: str, answer: str) -> None:
    async with relay(ledger, upstream) as desk:
        await desk.talk(HELLO + f"C: {line}\nS: {answer}\nC: NOOP\nS: 250")


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("MAIL FROM:<>", "250"),
        ("MAIL FROM:<n@x.example> SIZE=100 BODY=8BITMIME", "250"),
        ("MAIL FROM:<n@x.example> SIZE=99999999", "552 5.3.4"),
        ("MAIL FROM:<n@x.example> SIZE=ten", "501 5.5.4"),
        ("MAIL FROM:<n@x.example> BODY=BINARYMIME", "501 5.5.4"),
        ("MAIL FROM:<n@x.example> MT-PRIORITY=3", "555 5.5.4"),
        ("MAIL FROM:<jörg@x.example> SMTPUTF8", "250"),
        ("MAIL FROM:<jörg@x.example>", "553 5.6.7"),
        ("MAIL FROM:<@a.example:>", "501 5.5.4"),
        ("MAIL FROM:<@a.example>", "501 5.1.7"),
        ("MAIL TO:<n@x.example>", "501 5.5.4"),
        ("MAIL", "501 5.5.4"),
        ("RCPT TO:<n@x.example>", "503 5.5.1"),
        ("DATA", "503 5.5.1"),
        ("EHLO", "501 5.5.4"),
        ("HELO x", "250"),
    ],
)
async def test_commands_before_mail(ledger: Books, upstream: Sink, line: str, answer: str) -> None:
    async with relay(ledger, upstream) as desk:
        await desk.talk(f"C: EHLO x\nS: 250\nC: {line}\nS: {answer}\nC: NOOP\nS: 250")


async def test_parameters_pass_octet_for_octet(ledger: Books, upstream: Sink) -> None:
    async with relay(ledger, upstream) as desk:
        await desk.talk(
            """
            C: EHLO x
            S: 250
            C: MAIL FROM:<n@x.example> RET=hdrs ENVID=CaSe+2Bx BODY=8bitmime
            S: 250
            C: RCPT TO:<Ann@example.com> NOTIFY=success ORCPT=rfc822;Ann+2Bx@Example.com
            S: 250
            C: RCPT TO:<jörg@bücher.example>
            S: 553 5.6.7
            C: RSET
            S: 250
            C: MAIL FROM:<n@x.example> SMTPUTF8
            S: 250
            C: RCPT TO:<jörg@bücher.example>
            S: 250
            """
        )
    assert "MAIL FROM:<n@x.example> RET=hdrs ENVID=CaSe+2Bx BODY=8bitmime" in upstream.commands
    assert "RCPT TO:<Ann@example.com> NOTIFY=success ORCPT=rfc822;Ann+2Bx@Example.com" in upstream.commands
    assert "RCPT TO:<jörg@bücher.example>" in upstream.commands


async def test_ehlo_offers_what_upstream_has(ledger: Books) -> None:
    with sink(keywords=("PIPELINING", "SIZE 1000000")) as upstream:
        async with relay(ledger, upstream) as desk:

            def ask() -> dict[str, str]:
                with smtplib.SMTP("127.0.0.1", desk.port) as client:
                    client.ehlo()
                    return dict(client.esmtp_features)

            features = await asyncio.to_thread(ask)
            assert set(features) == {"pipelining", "enhancedstatuscodes", "size"}
            assert int(features["size"]) <= 1_000_000
            await desk.talk(
                "C: EHLO x\nS: 250\nC: MAIL FROM:<n@x.example> RET=HDRS\nS: 501 5.5.4\nC: MAIL FROM:<ü@x.example> SMTPUTF8\nS: 553 5.6.7"
            )


async def test_too_many_recipients(ledger: Books, upstream: Sink) -> None:
    async with relay(ledger, upstream, max_recipients=2) as desk:
        rcpts = "".join(f"C: RCPT TO:<r{n}@example.com>\nS: {'250' if n < 2 else '452 4.5.3'}\n" for n in range(3))
        await desk.talk(HELLO + rcpts + "C: DATA\nS: 354\nC: ...\nS: 250")
    assert len(upstream.messages[0].rcpt_to) == 2


async def test_too_many_connections(ledger: Books, upstream: Sink) -> None:
    async with relay(ledger, upstream, max_connections=1) as desk:
        _, writer = await asyncio.open_connection("127.0.0.1", desk.port)
        second, other = await asyncio.open_connection("127.0.0.1", desk.port)
        assert (await second.readline()).startswith(b"421 4.3.2")
        assert await second.read() == b""
        writer.close()
        other.close()


async def test_pipelined_replies_come_in_one_packet(ledger: Books, upstream: Sink) -> None:
    ledger.suppress("ann@example.com")
    async with relay(ledger, upstream) as desk:
        reader, writer = await asyncio.open_connection("127.0.0.1", desk.port)
        await reader.readline()
        writer.write(b"EHLO x\r\n")
        while (await reader.readline())[3:4] == b"-":
            pass
        writer.write(b"MAIL FROM:<n@x.example>\r\nRCPT TO:<ann@example.com>\r\nNOOP\r\nRSET\r\n")
        first = await reader.read(65_536)
        assert [line[:3] for line in first.splitlines()] == [b"250", b"550", b"250", b"250"]
        writer.close()


async def test_idle_clients_are_sent_away(ledger: Books, upstream: Sink) -> None:
    async with relay(ledger, upstream, idle_timeout=1) as desk:
        await desk.talk("S: 421 4.4.2")
        await desk.talk(HELLO + "C: RCPT TO:<ann@example.com>\nS: 250\nC: DATA\nS: 354\nS: 421 4.4.2")
    assert not upstream.transactions


async def test_many_addresses_that_are_none_do_not_end_the_session(ledger: Books, upstream: Sink) -> None:
    async with relay(ledger, upstream) as desk:
        bad = "C: RCPT TO:<nobody>\nS: 501 5.1.3\n" * 60
        await desk.talk(HELLO + bad + "C: RCPT TO:<bob@example.com>\nS: 250\nC: DATA\nS: 354\nC: ...\nS: 250")
    assert len(upstream.messages) == 1


async def test_a_message_that_upstream_is_too_small_for_is_refused_by_us(ledger: Books) -> None:
    with sink(keywords=("SIZE 5000",)) as upstream:
        async with relay(ledger, upstream) as desk:
            big = b"Subject: x\r\n\r\n" + b"y" * 4500 + b"\r\n"
            await desk.talk(HELLO + "C: RCPT TO:<bob@example.com>\nS: 250\nC: DATA\nS: 354\nC: ...\nS: 552 5.3.4", big)
        assert not upstream.transactions
