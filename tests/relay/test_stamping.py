"""What the upstream gets: our lines on top, every other octet as it came."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from random import Random
from types import SimpleNamespace
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from daemon import values
from daemon.mail import tokens
from daemon.mail.headers import list_id_value
from daemon.mail.links import Links
from daemon.relay.access import Policy
from daemon.relay.context import GROWN, Client, Context
from daemon.relay.stamping import Stamping
from daemon.relay.transaction import without_separator
from storage.address import SiteKey, parse, person
from tests.ledgers import LISTS, Books
from tests.relay.doors import doors, sender
from tests.relay.puppet import Puppet

pytestmark = pytest.mark.usefixtures("nothing_unexpected")

SUPPORT: Final = "support@quillpdf.example"
WEB: Final = "https://m.quillpdf.example"
HERE: Final = "newsletter"
LIST_ID: Final = b"The Quill Letter <newsletter.quillpdf.example>"
HEADER: Final = b"From: letter@news.quillpdf.example\r\nSubject: spring\r\n"
BODY: Final = b"\r\nDear reader\r\n..dot\r\n"
RECEIVED: Final = re.compile(
    rb"Received: from crm\.quillpdf\.example \(\[127\.0\.0\.1\]\)\r\n\tby relay\.quillpdf\.example \(optoutd\) with ESMTP"
    rb"\r\n\tid ([a-z2-7]{48});\r\n\t[A-Z][a-z]{2}, [^\r\n]+ \+0000\r\n"
)
GENERIC: Final = b"List-Unsubscribe: <mailto:support@quillpdf.example?subject=unsubscribe>\r\n"
PERSONAL: Final = re.compile(
    rb"List-Unsubscribe: <https://m\.quillpdf\.example/u/([a-z2-7]{48})>,\r\n"
    rb" <mailto:support@quillpdf\.example\?subject=unsubscribe%20([a-z2-7]{48})>\r\n"
    rb"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
)


def stamping(books: Books, *, url: str = WEB, **more: Any) -> Stamping:
    value = list_id_value("The Quill Letter", LISTS[HERE])
    return Stamping(Links(SUPPORT, False, url), books.ledger.site_key, books.numbers, {HERE: value}, **more)


def policy(
    list_id: str | None = None, mode: Any = "refuse", *, purpose: Any = "marketing", credential: str = "crm"
) -> Policy:
    return Policy(mode, list_id, purpose, (), credential)


def below(data: bytes) -> tuple[bytes, bytes]:
    """The token in our Received line, and all that is below that."""
    found = RECEIVED.match(data)
    assert found, data
    return found[1], data[found.end() :]


def key(books: Books, address: str) -> bytes:
    return books.ledger.site_key.address_key(person(parse(address), ("tag", "alias")))


async def passed(
    books: Books,
    upstream: Puppet,
    recipients: list[str],
    message: bytes = HEADER + BODY,
    *,
    rules: Policy | None = None,
    stamps: Stamping | None = None,
) -> bytes:
    """A message through the relay, as the upstream got it (still dot-stuffed)."""
    upstream.messages.clear()
    stamps = stamps or stamping(books)
    async with (
        doors(books, upstream, rules or policy(HERE), stamping=stamps) as relay,
        sender(relay.ports[0]) as client,
    ):
        _, final = await client.send(recipients, message)
        assert final.startswith("250 2.0.0 taken"), final
    ((_, data),) = upstream.messages
    return data


# ------------------------------------------------------------------ whose link


@pytest.mark.parametrize("address", ["ann@example.com", "A.nn+spring@GoogleMail.com", '"a b"@example.com'])
@pytest.mark.parametrize("known", ["listener", "List-Id", "unknown"])
async def test_one_recipient_gets_a_link_that_names_him_and_the_list(
    ledger: Books, upstream: Puppet, address: str, known: str
) -> None:
    field = b"List-Id: <newsletter.quillpdf.example>\r\n" if known == "List-Id" else b""
    rules = policy(HERE if known == "listener" else None)
    token, rest = below(await passed(ledger, upstream, [address], field + HEADER + BODY, rules=rules))
    number = 0 if known == "unknown" else ledger.numbers[HERE]
    site_key, whom = ledger.ledger.site_key, tokens.Token(key(ledger, address), number)
    assert tokens.read(site_key, "received", token.decode()) == whom
    found = PERSONAL.match(rest)
    assert found
    for link in found.groups():
        assert tokens.read(site_key, "link", link.decode()) == whom
        assert tokens.read(site_key, "received", link.decode()) is None  # one is not the other
    added = b"List-Id: " + LIST_ID + b"\r\n" if known == "listener" else b""
    assert rest[found.end() :] == added + field + HEADER + BODY


async def test_a_personal_link_is_for_one_who_is_alone(ledger: Books, upstream: Puppet) -> None:
    """With others, or with somebody left out beside him, the link would be in a message that was meant for several."""
    ledger.suppress("left@example.com", HERE)
    upstream.says["RCPT TO:<gone@example.com>"] = b"550 5.1.1 no such user\r\n"
    by_id = b"List-Id: <newsletter.quillpdf.example>\r\n" + HEADER + BODY
    cases = [
        (policy(HERE), ["ann@example.com", "bob@example.com"], HEADER + BODY, False),
        (policy(HERE), ["ann@example.com", "ann+x@example.com"], HEADER + BODY, False),
        (policy(HERE, "strip"), ["ann@example.com", "left@example.com"], HEADER + BODY, False),
        (policy(None, "strip"), ["ann@example.com", "left@example.com"], by_id, False),
        (policy(None, "refuse"), ["ann@example.com", "left@example.com"], by_id, False),
        (policy(HERE, "observe"), ["ann@example.com", "left@example.com"], HEADER + BODY, False),
        (policy(HERE, "observe"), ["left@example.com"], HEADER + BODY, True),
        (policy(HERE), ["ann@example.com", "left@example.com"], HEADER + BODY, True),  # refused: not ours to send to
        (policy(HERE), ["ann@example.com", "gone@example.com"], HEADER + BODY, True),
    ]
    for rules, recipients, message, personal in cases:
        token, rest = below(await passed(ledger, upstream, recipients, message, rules=rules))
        assert bool(PERSONAL.match(rest)) == personal, (rules, recipients)
        assert rest.startswith(GENERIC) != personal
        assert (b"List-Unsubscribe-Post" in rest) == personal
        whom = key(ledger, recipients[0]) if personal else tokens.NOBODY
        found = tokens.read(ledger.ledger.site_key, "received", token.decode())
        assert found == tokens.Token(whom, ledger.numbers[HERE])


async def test_without_a_web_door_there_is_no_one_click(ledger: Books, upstream: Puppet) -> None:
    _, rest = below(await passed(ledger, upstream, ["ann@example.com"], stamps=stamping(ledger, url="")))
    assert re.match(rb"List-Unsubscribe: <mailto:[^>]+unsubscribe%20[a-z2-7]{48}>\r\nList-Id: ", rest)
    assert b"-Post" not in rest


# ------------------------------------------------------------------ what is there already

THEIRS: Final = (
    b"List-Unsubscribe: <https://crm.example/1>,\r\n <mailto:a@crm.example>\r\n"
    b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
)


@pytest.mark.parametrize("replace", [False, True])
async def test_fields_that_came_with_it_stay_or_go(ledger: Books, upstream: Puppet, *, replace: bool) -> None:
    message = HEADER + THEIRS + b"To: x\r\n" + BODY
    async with doors(ledger, upstream, policy(HERE), stamping=stamping(ledger, replace=replace)) as relay:
        async with sender(relay.ports[0]) as client:
            await client.send(["ann@example.com"], message)
        assert relay.record.totals == {"passed": 1, **({} if replace else {"foreign": 1})}
    _, rest = below(upstream.messages[0][1])
    if replace:
        found = PERSONAL.match(rest)
        assert found
        assert rest[found.end() :] == b"List-Id: " + LIST_ID + b"\r\n" + HEADER + b"To: x\r\n" + BODY
    else:
        assert rest == b"List-Id: " + LIST_ID + b"\r\n" + message
    assert rest.count(b"List-Unsubscribe:") == rest.count(b"List-Unsubscribe-Post:") == 1


@pytest.mark.parametrize("name", [b"DKIM-Signature", b"dkim-signature", b"DomainKey-Signature", b"ARC-Seal"])
@pytest.mark.parametrize("replace", [False, True])
async def test_signed_mail_is_left_as_it_is(ledger: Books, upstream: Puppet, name: bytes, *, replace: bool) -> None:
    message = name + b": v=1; a=rsa-sha256; h=from;\r\n\tb=AAAA\r\n" + HEADER + THEIRS + BODY
    stamps = stamping(ledger, replace=replace, sender_id="quillpdf", cfbl_address=b"fbl@quillpdf.example; report=arf")
    assert below(await passed(ledger, upstream, ["ann@example.com"], message, stamps=stamps))[1] == message


async def test_service_mail_is_not_stamped(ledger: Books, upstream: Puppet) -> None:
    token, rest = below(await passed(ledger, upstream, ["ann@example.com"], rules=policy(purpose="service")))
    assert rest == HEADER + BODY
    assert tokens.read(ledger.ledger.site_key, "received", token.decode())  # its bounce is believed all the same


async def test_the_other_fields(ledger: Books, upstream: Puppet) -> None:
    stamps = stamping(ledger, sender_id="quillpdf", cfbl_address=b"fbl@quillpdf.example; report=arf")
    both = ["ann@example.com", "bob@example.com"]
    cfbl = b"CFBL-Address: fbl@quillpdf.example; report=arf\r\n"
    cases = [
        (policy(HERE), b"newsletter:crm:marketing:quillpdf", b""),
        (policy(None, credential=""), b"all:relay:marketing:quillpdf", b""),
        (
            policy(None, credential="crème:brûlée\r\n" + "x" * 99),
            b"all:cr_me_br_l_e__" + b"x" * 50 + b":marketing:quillpdf",
            b"",
        ),
        (policy(HERE), b"", b"Feedback-ID: theirs\r\nCFBL-Address: theirs@crm.example\r\n"),
    ]
    for rules, feedback, there in cases:
        list_id = b"List-Id: " + LIST_ID + b"\r\n" if rules.list_id else b""
        _, rest = below(await passed(ledger, upstream, both, there + HEADER + BODY, rules=rules, stamps=stamps))
        added = b"" if there else b"Feedback-ID: " + feedback + b"\r\n" + cfbl
        assert rest == GENERIC + list_id + added + there + HEADER + BODY


@pytest.mark.parametrize(
    "field",
    [
        b"List-Id: <newsletter.quillpdf.example>",
        b"list-id:newsletter.quillpdf.example",
        b"LIST-ID :\r\n The <old> Quill\r\n\t< Newsletter.quillpdf.EXAMPLE >",
        b".List-Id: <newsletter.quillpdf.example>",  # the next server takes the dot off
        b".List-Id: x\r\n. <newsletter.quillpdf.example>",
    ],
)
async def test_a_list_that_the_message_names_is_kept_and_known(ledger: Books, upstream: Puppet, field: bytes) -> None:
    token, rest = below(await passed(ledger, upstream, ["ann@example.com"], field + b"\r\n" + BODY, rules=policy()))
    assert rest.endswith(b"One-Click\r\n" + field + b"\r\n" + BODY)
    found = tokens.read(ledger.ledger.site_key, "received", token.decode())
    assert found
    assert found.list_number == ledger.numbers[HERE]


# ------------------------------------------------------------------ every other octet


def some_body(random: Random) -> bytes:
    """Lines of a message, dot-stuffed as a client has to."""
    words = [
        b"",
        b".",
        b"..",
        b". ",
        b"x",
        b"From ann",
        b"\t",
        b" ",
        b"\xff\x00\xfe",
        b"a" * 998,
        b"List-Unsubscribe: <x>",
    ]
    lines = [b"".join(random.choices(words, k=random.randrange(4))) for _ in range(random.randrange(30))]
    return b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines)


async def test_bodies_go_through_untouched(ledger: Books, upstream: Puppet) -> None:
    random = Random(8)
    async with (
        doors(ledger, upstream, policy(HERE), stamping=stamping(ledger)) as relay,
        sender(relay.ports[0]) as client,
    ):
        for n in range(300):
            message = random.choice((HEADER, b"", THEIRS)) + b"\r\n" + some_body(random) * random.choice((1, 1, 99))
            await client.send(["ann@example.com"], message)
            assert upstream.messages[n][1].endswith(b"\r\n" + message)
            assert upstream.messages[n][1].count(b"(optoutd)") == 1


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\r\n",
        b"\r\n\r\n",
        b"\r\nbody without a header\r\n",
        b"Subject: header without a body\r\n",
        b"Subject: x\r\n\r\n",
        b"no header at all\r\n",
        b"..\r\n",
    ],
)
async def test_messages_that_are_hardly_there(ledger: Books, upstream: Puppet, message: bytes) -> None:
    _, rest = below(await passed(ledger, upstream, ["ann@example.com"], message))
    found = PERSONAL.match(rest)
    assert found
    assert rest[found.end() :] == b"List-Id: " + LIST_ID + b"\r\n" + message


@pytest.mark.parametrize("replace", [False, True])
async def test_a_header_that_comes_in_two_pieces_cut_anywhere(
    ledger: Books, upstream: Puppet, *, replace: bool
) -> None:
    message = b"List-Id: x\r\n <newsletter.quillpdf.example>\r\n" + THEIRS + b"To: x\r\n\r\nHi\r\n..dot\r\n"
    seen = set()
    async with (
        doors(ledger, upstream, policy(), stamping=stamping(ledger, replace=replace)) as relay,
        sender(relay.ports[0]) as client,
    ):
        for cut in range(len(message) + 4):
            octets = message + b".\r\n"
            await client.say("MAIL FROM:<n@quillpdf.example>", "RCPT TO:<ann@example.com>", "DATA")
            client.write(octets[:cut])
            await asyncio.sleep(0.002)
            client.write(octets[cut:])
            assert (await client.heard()).startswith("250")
            seen.add(below(upstream.messages[-1][1])[1])
    (rest,) = seen
    assert rest.endswith(message.replace(THEIRS, b"") if replace else message)


# ------------------------------------------------------------------ the line of an mbox

SEPARATORS: Final = [
    b"From ann@example.com Mon Jan  1 00:00:00 2001\r\n",
    b"From MAILER-DAEMON Fri Nov 27 13:24:29 2026\r\n",
    b"From - Fri Nov 27 13:24:29 2026\r\n",
    b"From ann@example.com Fri Nov 27 13:24:29 +0100 2026\r\n",
    b"From ann@example.com Fri, 27 Nov 2026 13:24:29 +0000\r\n",
    b"From ann@example.com  Fri Nov 27 13:24 MET 2026 remote from host\r\n",
    b">From ann@example.com Fri Nov 27 13:24:29 2026\r\n",
]


@pytest.mark.parametrize("line", SEPARATORS)
@pytest.mark.parametrize("rest", [HEADER + BODY, BODY, b"", b"Subject: x\r\n"])
async def test_the_line_before_a_message_of_an_mbox_goes(
    ledger: Books, upstream: Puppet, line: bytes, rest: bytes
) -> None:
    """Behind our Received line it would end the header before it began."""
    with_it = await passed(ledger, upstream, ["ann@example.com", "bob@example.com"], line + rest)
    assert below(with_it)[1] == GENERIC + b"List-Id: " + LIST_ID + b"\r\n" + rest
    service = await passed(ledger, upstream, ["ann@example.com"], line + rest, rules=policy(purpose="service"))
    assert below(service)[1] == rest


@pytest.mark.parametrize(
    "head",
    [
        HEADER + SEPARATORS[0] + BODY,  # not the first line
        b"\r\n" + SEPARATORS[0],
        b"From: ann@example.com\r\n",
        b"From : ann@example.com (Mon Jan  1 00:00:00 2001)\r\n",
        b"From \t: ann@example.com (Mon Jan  1 00:00:00 2001)\r\n",
        b"From the desk of Ann: unsubscribe at 12:00\r\n\r\nHello\r\n",
        b"From ann@example.com Mon Jan  1 00:00:00 2001",  # no line yet
        b"from ann@example.com Mon Jan  1 00:00:00 2001\r\n",
        b"From\r\n",
        b"From " + b"Mon " * 60_000 + b"12:00\r\n",
    ],
)
def test_what_is_no_such_line_stays(head: bytes) -> None:
    assert without_separator(head) == head


# ------------------------------------------------------------------ SIZE


async def test_the_size_told_to_the_upstream_is_enough(ledger: Books, upstream: Puppet) -> None:
    message = HEADER + BODY
    async with (
        doors(ledger, upstream, policy(HERE), stamping=stamping(ledger)) as relay,
        sender(relay.ports[0]) as client,
    ):
        await client.say(f"MAIL FROM:<n@x.example> SIZE={len(message)}", "RCPT TO:<ann@example.com>", "DATA")
        client.write(message + b".\r\n")
        assert (await client.heard()).startswith("250")
    (said,) = [int(c.partition("SIZE=")[2]) for c in upstream.commands if c.startswith("MAIL")]
    assert len(upstream.messages[0][1]) <= said == len(message) + GROWN


_LABELS = st.lists(st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=63), min_size=1, max_size=4)
_DOMAINS = _LABELS.map(lambda labels: ".".join(labels)[:253].strip(".-") or "x").map(
    lambda d: values._domain(re.sub(r"\.+", ".", d))
)
_LOCALS = st.text("abcü%+'&雪", min_size=1, max_size=64).filter(lambda t: len(t.encode()) <= 128)
_LONGEST = "a" * 63 + "." + "b" * 63 + "." + "c" * 63 + "." + "d" * 61


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])  # fmt: skip
@given(
    url=st.tuples(_DOMAINS, st.text("abc/~._-", max_size=200)).map(lambda t: f"https://{t[0]}:65535/{t[1]}"),
    local=_LOCALS,
    domain=_DOMAINS,
    title=st.text(max_size=400),
    helo=st.text("abcü.[]:", min_size=1, max_size=255),
    user=st.text(max_size=200),
    alone=st.booleans(),
)
@example(  # the longest of everything that a config lets through
    url=f"https://{_LONGEST}:65535/{'x' * 199}",
    local="ü" * 64,
    domain=_LONGEST,
    title="ü" * 100,
    helo="x" * 255,
    user="x" * 200,
    alone=True,
)
def test_our_lines_are_never_longer_than_what_is_reckoned_with(
    url: str, local: str, domain: str, title: str, helo: str, user: str, *, alone: bool
) -> None:
    """GROWN, which is added to SIZE=, and taken off the SIZE that the upstream offers."""
    assert values._public_url(url) == url.rstrip("/")
    site_key = SiteKey((bytes(32),))
    stamps = Stamping(
        Links(values._address(f"{local}@{domain}"), False, url.rstrip("/")),
        site_key,
        {"x" * 32: 1},
        {"x" * 32: list_id_value(title, _LONGEST)},
        "x" * 15,
        f"{'x' * 64}@{_LONGEST}; report=arf".encode(),
    )
    whom = bytes(16) if alone else None
    stamped = stamps.on(b" continues nothing", whom, "x" * 32, user)
    holder: Any = SimpleNamespace(hostname=domain, now=lambda: datetime(2026, 11, 27, tzinfo=UTC))
    client = Client(helo, "2001:db8:1111:2222:3333:4444:5555:6666", True, True, True)
    received = Context.received(holder, client, tokens.make(site_key, "received", bytes(16), 1), utf8=True)
    assert len(received) + len(stamped.lines) <= GROWN
    assert (received + stamped.lines).isascii()
    assert all(len(line) <= 998 for line in (received + stamped.lines).split(b"\r\n"))
