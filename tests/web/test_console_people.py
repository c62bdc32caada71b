"""Suppressions in the console: search anything, see why, suppress, lift, forget, papers."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

from daemon.web.context import Holder
from storage import deferral, incoming, newest, refusals, suppressions
from storage.address import parse
from storage.incoming import Place
from storage.refusals import Refusal
from storage.suppressions import Added
from storage.terms import ALL, Reason
from storage.write import write
from tests.ledgers import Books, bring, queued
from tests.web.rooms import asked, rooms, text_of
from tests.web.support import ANN, Door, door, whole
from tests.web.visitor import LOOKER, Visitor

BOB = "bob@customer.example"
NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
HOSTILE = '<script>alert(1)</script>\u202e"\x1b[31m'


@pytest.fixture
def web(ledger: Books) -> Iterator[Door]:
    with rooms(ledger) as opened:
        yield opened


@pytest.fixture
def admin(web: Door) -> Visitor:
    return Visitor(web)


def add(ledger: Books, whom: str | bytes, list_id: str | None = None, source: str = "mail", **detail: object) -> Added:
    """By a message, or a click."""
    scope = ALL if list_id is None else ledger.numbers[list_id]
    who = whom if isinstance(whom, bytes) else parse(whom)
    with write(ledger.ledger, NOW, "mailbox support") as w:
        return suppressions.add(w, who, scope, Reason.OPT_OUT, source, dict(detail))


# ------------------------------------------------------------------ searching


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (ANN, "The person asked to be left alone"),
        (f"Ann Example <{ANN}>", "The person asked to be left alone"),
        ("ref {ref}", "Found by reference"),
        ("{ref}", "Found by reference"),
        ("550 5.7.1 <" + ANN + "> has opted out (ref {ref})", "Found by reference"),
        ("{token}", "a link of ours for everything"),
        ("https://mail.quillpdf.example/u/{token}?x=1", "a link of ours for everything"),
        ("support+u-{TOKEN}@quillpdf.example", "a link of ours for everything"),
    ],
)
def test_whatever_somebody_has_in_hand_leads_to_the_person(web: Door, admin: Visitor, text: str, says: str) -> None:
    ref = add(web.books, ANN).evidence
    token = web.token()
    page = asked(admin, text.format(ref=ref, token=token, TOKEN=token.upper()))
    assert (page.status, f"<h1>{ANN}</h1>" in page.body) == (200, True)
    assert says in text_of(page)


@pytest.mark.parametrize("text", ["@customer.example", "customer.example"])
def test_a_domain_is_found_with_and_without_its_sign(web: Door, admin: Visitor, text: str) -> None:
    web.books.suppress("@customer.example", reason=Reason.OPERATOR)
    page = text_of(asked(admin, text))
    assert page.startswith("@customer.example")
    assert "no marketing mail goes to this domain" in page


@pytest.mark.parametrize("text", ["nobody", "a@b@", "ref 4711", "@", "x" * 3000, "99999999999999999999", "\x00", "("])
def test_what_cannot_be_found_is_said_and_kept(admin: Visitor, text: str) -> None:
    page = asked(admin, text)
    assert page.status == 200
    assert "Nothing found" in page.body


def test_a_message_tells_what_came_of_it_and_who_was_left_out(web: Door, admin: Visitor) -> None:
    ref = add(web.books, ANN).evidence
    with write(web.books.ledger, NOW, "test") as w:
        incoming.record(
            w, Place("support", "INBOX", 1, 7), digest=b"x", size=1, message_id="<m1@x.example>", internaldate=NOW,
            label="opt-out", state="done", evidence=ref,
        )  # fmt: skip
        refusals.record(w, [Refusal(NOW, "refused", web.key(), 0, 2, "crm", "<m2@x.example>", ref)], {})
    read = text_of(asked(admin, "<m1@x.example>"))
    assert ("support, INBOX, UID 7" in read, f"ref {ref}" in read) == (True, True)
    assert "support, INBOX, UID 7" in text_of(asked(admin, "m1@x.example"))
    refused = text_of(asked(admin, "<m2@x.example>"))
    assert (ANN in refused, "The relay refused a mail to them" in refused) == (True, True)


def test_a_reference_to_many_names_them_and_one_to_an_import_says_so(web: Door, admin: Visitor) -> None:
    with write(web.books.ledger, NOW, "test") as w:
        number = w.evidence(address=f"{ANN};{BOB}", source="mail")
        for who in (ANN, BOB):
            suppressions.add(w, parse(who), ALL, Reason.OPT_OUT, "mail", {}, evidence=lambda: number)
    page = asked(admin, f"ref {number[0]}")
    assert f"<h1>Reference {number[0]}</h1>" in page.body
    assert (ANN in page.body, BOB in page.body) == (True, True)
    with write(web.books.ledger, NOW, "import") as w:
        key = web.key("cem@example.org")
        found = bring(w, [(key, ALL, 2, 1)], "import", {"file": "old.csv", "import": 1}, [(key, "cem@example.org")])
    imported = text_of(asked(admin, f"ref {found.evidence}"))
    assert ("Brought by an import" in imported, "old.csv" in imported) == (True, True)


# ------------------------------------------------------------------ why?


def test_nothing_known_of_somebody_is_said(admin: Visitor) -> None:
    page = text_of(asked(admin, ANN))
    assert "May be mailed: nothing stands against it." in page
    assert "Nothing was ever recorded." in page


def test_the_ladder_shows_which_form_was_hit(web: Door, admin: Visitor) -> None:
    web.books.suppress("ann@gmail.com")
    page = asked(admin, "a.nn+news@googlemail.com")
    assert "found by another spelling of the same mailbox" in text_of(page)
    rows = re.findall(
        r'<th scope="row">(\w+)</th>\s*<td class="mono">(?:<a [^>]*>)?([^<]+)<(.*?)</tr>', page.body, re.DOTALL
    )
    assert [(kind, form, "opt-out (all)" in rest) for kind, form, rest in rows] == [
        ("exact", "a.nn+news@googlemail.com", False),
        ("tag", "a.nn@googlemail.com", False),
        ("alias", "ann@gmail.com", True),
        ("domain", "@googlemail.com", False),
    ]


def test_every_list_is_answered_by_itself(web: Door, admin: Visitor) -> None:
    web.books.suppress(ANN, "offers")
    page = text_of(asked(admin, ANN))
    assert "May be mailed, but not this list: The offers." in page
    assert "The newsletter yes nothing stands against it" in page
    assert "The offers no the person asked to be left alone" in page


def test_a_list_that_is_wanted_all_the_same(web: Door, admin: Visitor) -> None:
    web.books.suppress(ANN, since=NOW)
    web.books.suppress(ANN, "offers", Reason.WANTED, since=NOW + timedelta(days=1))
    page = text_of(asked(admin, ANN))
    assert "The offers yes the person asked to get this list all the same" in page
    assert "The newsletter no" in page


def test_a_domain_stops_whoever_is_there_and_is_not_lifted_with_one_of_them(web: Door, admin: Visitor) -> None:
    web.books.suppress("@customer.example", reason=Reason.OPERATOR)
    page = asked(admin, ANN)
    assert "found by the whole domain" in text_of(page)
    assert 'action="/console/lift"' not in page.body
    assert "A whole domain is suppressed: look at @customer.example to take it off the list." in text_of(page)
    assert 'href="/console/suppressions?q=%40customer.example"' in page.body


def test_the_history_explains_words_and_rules(web: Door, admin: Visitor) -> None:
    add(
        web.books,
        ANN,
        words="please stop",
        rules=["2-opt-out", "7.9-brake"],
        message_id="<m@x>",
        mailbox="support",
        uid=7,
    )
    web.books.lift(ANN)
    page = text_of(asked(admin, ANN))
    assert "Taken off the list again" in page
    assert "please stop" in page
    assert "2-opt-out: asks that our mailings stop, now and unconditionally" in page
    assert "<m@x> in mailbox support, UID 7" in page


def test_hostile_text_is_text(web: Door, admin: Visitor) -> None:
    add(web.books, ANN, words=HOSTILE, rules=[HOSTILE], message_id=HOSTILE, mailbox=HOSTILE, uid=1, note=HOSTILE)
    for page in (asked(admin, ANN), asked(admin, HOSTILE), admin.get("/console/suppressions")):
        assert "<script>alert" not in page.body
        assert "\u202e" not in page.body
        assert "\x1b" not in page.body


def test_of_a_clicked_link_only_the_key_is_known(web: Door, admin: Visitor) -> None:
    added = add(web.books, web.key(), "offers", "one-click", words="List-Unsubscribe=One-Click")
    page = asked(admin, f"ref {added.evidence}")
    assert "Only the key of this person is known" in text_of(page)
    assert "The offers no" in text_of(page)
    assert "/console/erase" not in page.body
    assert "May be mailed, but not this list: The offers." in text_of(asked(admin, ANN))  # whoever knows the address


def test_who_waits_in_the_queue_is_told(web: Door, admin: Visitor) -> None:
    with write(web.books.ledger, NOW, "test") as w:
        number = queued(w, NOW, sender=ANN, addresses=["Ann+x@customer.example"], wish="opt-out")
        queued(w, NOW, sender=BOB, wish="opt-out")
    assert f"waits for a decision: review {number}" in text_of(asked(admin, ANN))
    assert f"waits for a decision: review {number + 1}" in text_of(asked(admin, BOB))


def test_an_address_that_is_a_way_to_another_says_so(admin: Visitor) -> None:
    page = text_of(asked(admin, "ann%other.example@customer.example"))
    assert "A mail server may read this address as a way to ann@other.example" in page


def test_after_a_restore_with_a_gap_nothing_is_claimed(web: Door, admin: Visitor) -> None:
    web.books.suppress(ANN)
    with write(web.books.ledger, NOW, "test") as w:
        deferral.begin(w, 1)
    page = text_of(asked(admin, ANN))
    assert "Cannot tell at the moment" in page
    assert "restored from a backup" in page
    assert "Suppressed: opt-out (all)" in page  # the record is there


# ------------------------------------------------------------------ the newest


def test_the_newest_come_first_with_a_way_to_older_ones(
    web: Door, admin: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(newest.newest, "__defaults__", (None, 2))
    for n in range(5):
        web.books.suppress(f"p{n}@example.org")
    found, path = [], "/console/suppressions"
    while path:
        page = admin.get(path)
        found.append(re.findall(r">(p\d)@example\.org</a>", page.body))
        older = re.search(r'href="([^"]*before=[^"]*)" rel="next"', page.body)
        path = html.unescape(older[1]) if older else ""
    assert found == [["p4", "p3"], ["p2", "p1"], ["p0"]]


def test_filters_are_kept_on_the_way(web: Door, admin: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newest.newest, "__defaults__", (None, 1))
    web.books.suppress("a@example.org", "offers")
    web.books.suppress("b@example.org")
    web.books.suppress("c@example.org", "offers")
    page = admin.get("/console/suppressions?list=offers&reason=opt-out&source=operator&since=2020-01-01")
    assert ("c@example.org" in page.body, "b@example.org" in page.body) == (True, False)
    (older,) = re.findall(r'href="([^"]*before=[^"]*)" rel="next"', page.body)
    assert "a@example.org" in admin.get(html.unescape(older)).body


@pytest.mark.parametrize("query", ["list=nope", "reason=spam", "source=fax", "since=yesterday"])
def test_a_filter_that_cannot_be_is_told(admin: Visitor, query: str) -> None:
    page = admin.get(f"/console/suppressions?{query}")
    assert page.status == 422
    assert 'role="alert"' in page.body


@pytest.mark.parametrize("before", ["x", "-1", "99999999999999999999999", "0"])
def test_a_cursor_that_nobody_gave_is_harmless(admin: Visitor, before: str) -> None:
    assert admin.get(f"/console/suppressions?before={before}").status == 200


# ------------------------------------------------------------------ doing


def test_suppressed_at_once_with_reason_source_and_note(web: Door, admin: Visitor) -> None:
    asked(admin, ANN)
    answer = admin.post(
        "/console/suppress", address=ANN, list="offers", reason="opt-out", source="phone", note="rang at noon"
    )
    page = text_of(admin.follow(answer))
    assert f"{ANN} is on the list now (offers)." in page
    assert web.standing() == [(web.books.numbers["offers"], Reason.OPT_OUT)]
    with web.books.ledger.connect() as db:
        (fact,) = suppressions.history(db, web.books.ledger.site_key, parse(ANN))
    assert (fact.actor, fact.source, (fact.detail or {})["note"]) == ("console admin", "phone", "rang at noon")


def test_the_fields_of_the_contract_are_enough(web: Door, admin: Visitor) -> None:
    admin.get("/console/suppressions")
    assert admin.post("/console/suppress", address=ANN, list="", note="").status == 303
    assert web.standing() == [(ALL, Reason.OPERATOR)]
    assert admin.post("/console/lift", address=ANN, because="wrote again").status == 303
    assert web.standing() == []


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"address": "nobody"}, "not an address"),
        ({"address": "support@quillpdf.example"}, "one of our own addresses"),
        ({"address": "@gmail.com"}, "tick the box"),
        ({"address": ANN, "list": "nope"}, "No list"),
        ({"address": ANN, "reason": "spam"}, "must be one of"),
        ({"address": ANN, "source": "fax"}, "must be one of"),
        ({"address": ANN, "reason": "wanted"}, "name the list"),
        ({"address": ""}, "not an address"),
    ],
)
def test_what_is_not_accepted_keeps_what_was_typed(
    web: Door, admin: Visitor, fields: dict[str, str], says: str
) -> None:
    asked(admin, ANN)
    page = admin.post("/console/suppress", note="keep <me>", **fields)
    assert page.status == 422
    assert says in text_of(page)
    assert "keep &lt;me&gt;" in page.body
    assert f'value="{fields["address"]}"' in page.body
    assert web.audit_rows() == 0


def test_who_may_only_suppress_gives_nothing_back(ledger: Books) -> None:
    clerk = Holder("clerk", "a clerk's password", frozenset({"check", "suppress"}))
    with door(ledger, whole(ledger, operators={clerk.name: clerk})) as web:
        visitor = Visitor(web, clerk.name, clerk.secret)
        ledger.suppress(ANN)
        assert 'value="opt-out"' in asked(visitor, BOB).body
        assert 'value="wanted"' not in asked(visitor, BOB).body.partition('name="reason"')[2]
        before = web.audit_rows()
        assert visitor.post("/console/suppress", address=ANN, list="offers", reason="wanted").status == 403
        assert (web.audit_rows(), web.standing()) == (before, [(ALL, Reason.OPT_OUT)])


def test_a_whole_provider_only_with_a_tick(web: Door, admin: Visitor) -> None:
    asked(admin, "@gmail.com")
    assert admin.post("/console/suppress", address="@gmail.com", provider="yes").status == 303
    assert web.standing("x@gmail.com") == [(ALL, Reason.OPERATOR)]


def test_lifting_says_why_and_what_still_stands(web: Door, admin: Visitor) -> None:
    web.books.suppress(ANN)
    web.books.suppress(ANN, "offers")
    asked(admin, ANN)
    page = text_of(admin.follow(admin.post("/console/lift", address=ANN, list="", because="rang us")))
    assert "Taken off the list (everything). Still suppressed: list:offers." in page
    assert "rang us" in page
    assert web.standing() == [(web.books.numbers["offers"], Reason.OPT_OUT)]


def test_lifting_without_a_reason_is_not_done(web: Door, admin: Visitor) -> None:
    web.books.suppress(ANN)
    asked(admin, ANN)
    page = admin.post("/console/lift", address=ANN, because=" ")
    assert (page.status, "Say why" in page.body) == (422, True)
    assert web.standing() == [(ALL, Reason.OPT_OUT)]


def test_lifting_nothing_is_told(admin: Visitor) -> None:
    asked(admin, ANN)
    page = text_of(admin.follow(admin.post("/console/lift", address=ANN, because="x")))
    assert "Nothing was done: nothing of their own stood for everything." in page


@pytest.mark.parametrize(
    "fields", [{"address": "nobody"}, {"address": "", "key": "zz"}, {"address": ANN, "list": "no"}]
)
def test_lifting_nobody_is_not_done(admin: Visitor, fields: dict[str, str]) -> None:
    asked(admin, ANN)
    assert admin.post("/console/lift", because="x", **fields).status == 422


def test_who_is_known_by_a_key_only_can_be_lifted(web: Door, admin: Visitor) -> None:
    add(web.books, web.key(), None, "one-click")
    page = asked(admin, f"key {web.key().hex()}")
    assert f'name="key" value="{web.key().hex()}"' in page.body
    answer = admin.post("/console/lift", address="", key=web.key().hex(), because="rang us")
    assert "Taken off the list" in text_of(admin.follow(answer))
    assert web.standing() == []


# ------------------------------------------------------------------ who may what


@pytest.mark.parametrize("path", ["/console/suppress", "/console/lift", "/console/erase", "/console/papers"])
def test_who_may_only_look_changes_nothing(web: Door, path: str) -> None:
    web.books.suppress(ANN)
    kim = Visitor(web, *LOOKER)
    page = asked(kim, ANN)
    assert page.status == 200
    assert f'action="{path}"' not in page.body
    answer = kim.post(path, address=ANN, because="x", sure="yes", paper="subject")
    assert answer.status == 403
    assert web.standing() == [(ALL, Reason.OPT_OUT)]


@pytest.mark.parametrize("path", ["/console/suppress", "/console/lift", "/console/erase", "/console/papers"])
def test_a_forged_form_changes_nothing(web: Door, admin: Visitor, path: str) -> None:
    web.books.suppress(ANN)
    admin.csrf_token = "forged"
    assert admin.post(path, address=ANN, because="x", sure="yes", paper="subject").status == 403
    assert web.audit_rows() == 1


def test_looking_changes_nothing(web: Door, admin: Visitor) -> None:
    web.books.suppress(ANN)
    for path in (
        "/console/suppressions",
        f"/console/suppressions?q={quote(ANN)}",
        "/console/suppressions?q=ref+1",
        f"/console/erase?address={quote(ANN)}&sure=yes",
    ):
        assert admin.get(path).status == 200
    assert admin.get("/console/suppress?address=x@example.org").status == 405
    assert admin.get("/console/lift?address=x@example.org&because=x").status == 405
    assert web.audit_rows() == 1
