"""The review queue in the console."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.web.console.review import PAGE, marked
from daemon.web.rendering import shown
from storage import audit, incoming, suppressions
from storage.address import parse
from storage.incoming import Place
from storage.terms import Reason
from storage.write import write
from tests.ledgers import Books
from tests.web.hostile import PAYLOADS
from tests.web.parsed import holds, parsed
from tests.web.sending import post_all
from tests.web.support import ANN, Door, door, whole
from tests.web.visitor import LOOKER, Visitor

NOW = datetime.now(UTC)


def queued(books: Books, **facts: Any) -> int:
    """An item of the queue."""
    usual: dict[str, Any] = {
        "received": NOW - timedelta(hours=1),
        "sender": ANN,
        "addresses": [ANN],
        "scope": "all",
        "rules": ["2-review-a-unclear"],
        "words": "please stop this",
        "wish": "review",
        "excerpt": "Subject: hello\n\nHi,\nplease  stop\nthis. Ann\n",
    }
    with write(books.ledger, NOW, "test") as w:
        return incoming.open_review(w, facts.pop("message", None), **(usual | facts))


def state(books: Books, number: int) -> tuple[str, str]:
    with books.ledger.connect() as db:
        item = incoming.review(db, number)
    assert item is not None
    return item.state, item.note


def last_actor(books: Books) -> str:
    with books.ledger.connect() as db:
        return str(db.exec_driver_sql("SELECT actor FROM audit ORDER BY seq DESC LIMIT 1").scalar_one())


@pytest.fixture
def web(ledger: Books) -> Iterator[Door]:
    with door(ledger, whole(ledger)) as opened:
        yield opened


@pytest.fixture
def admin(web: Door) -> Visitor:
    return Visitor(web)


# ------------------------------------------------------------------ who may come in


def test_without_the_right_nobody_sees_the_queue(ledger: Books, web: Door) -> None:
    number = queued(ledger)
    kim = Visitor(web, *LOOKER)
    assert kim.get("/console/review").status == 403
    assert kim.get(f"/console/review/{number}").status == 403
    assert kim.post(f"/console/review/{number}", decision="accept").status == 403
    assert state(ledger, number) == ("open", "")


def test_a_decision_without_the_token_of_the_page_is_refused(ledger: Books, admin: Visitor) -> None:
    number = queued(ledger)
    assert admin.post(f"/console/review/{number}", decision="accept", csrf_token="forged").status == 403
    assert admin.post("/console/review", decision="accept", item=str(number), csrf_token="").status == 403
    assert state(ledger, number) == ("open", "")


def test_looking_changes_nothing(ledger: Books, web: Door, admin: Visitor) -> None:
    number = queued(ledger)
    before = web.audit_rows()
    assert admin.get("/console/review").status == 200
    assert admin.get(f"/console/review/{number}?decision=accept&csrf_token={admin.csrf_token}").status == 200
    assert (state(ledger, number), web.audit_rows()) == (("open", ""), before)


@pytest.mark.parametrize("path", ["0", "99", "x", "-1", "1.0", "9" * 30, "%D9%A1", "1%00"])
def test_an_item_that_is_not_there_is_not_found(admin: Visitor, path: str) -> None:
    assert admin.get(f"/console/review/{path}").status == 404


# ------------------------------------------------------------------ the list


def test_open_items_are_listed_oldest_first_and_the_late_ones_are_marked(ledger: Books, admin: Visitor) -> None:
    late = queued(ledger, received=NOW - timedelta(hours=49), sender="late@customer.example")
    fresh = queued(ledger, received=NOW - timedelta(hours=47), sender="fresh@customer.example")
    page = admin.get("/console/review").body
    assert re.findall(r'href="/console/review/(\d+)" data-item', page) == [str(late), str(fresh)]
    assert page.count('<span class="bad">overdue</span>') == 1
    assert page.index("late@customer.example") < page.index("overdue") + 500
    assert "Suppress ann@customer.example, for everything." in parsed(page).text


def test_the_list_goes_on_behind_a_page(ledger: Books, admin: Visitor) -> None:
    numbers = [queued(ledger, words=f"word {n}") for n in range(PAGE + 3)]
    first = admin.get("/console/review").body
    (link,) = re.findall(r'href="([^"]+)" rel="next"', first)
    second = admin.get(link.replace("&amp;", "&")).body
    found = [int(n) for page in (first, second) for n in re.findall(r'/console/review/(\d+)" data-item', page)]
    assert found == numbers
    assert 'rel="next"' not in second


def test_decided_items_are_seen_when_asked_for(ledger: Books, admin: Visitor) -> None:
    yes, no = queued(ledger), queued(ledger)
    admin.get("/console/review")
    admin.post(f"/console/review/{yes}", decision="accept", note="clear enough")
    admin.post(f"/console/review/{no}", decision="reject")
    assert "data-item" not in admin.get("/console/review").body
    for word, number in (("accepted", yes), ("rejected", no)):
        page = admin.get(f"/console/review?state={word}").body
        assert re.findall(r'/console/review/(\d+)" data-item', page) == [str(number)]
        assert 'name="decision"' not in page
    assert len(re.findall("data-item", admin.get("/console/review?state=all").body)) == 2
    decided = admin.get(f"/console/review/{yes}").body
    assert "clear enough" in decided
    assert 'name="decision"' not in decided
    assert admin.get("/console/review?state=other").status == 404


# ------------------------------------------------------------------ one item


def test_an_item_is_accepted_in_the_name_of_the_operator(ledger: Books, web: Door, admin: Visitor) -> None:
    number = queued(ledger)
    page = admin.get(f"/console/review/{number}")
    assert "<mark>please  stop\nthis</mark>" in page.body
    assert "unclear what is to be cancelled, removed or stopped" in page.body
    answer = admin.post(f"/console/review/{number}", decision="accept", note="as she says")
    assert answer.headers["location"] == "/console/review"
    assert f"Item {number} was accepted. Nothing else waits." in admin.follow(answer).body
    assert web.standing() == [(0, Reason.OPT_OUT)]
    assert state(ledger, number) == ("accepted", "as she says")
    assert last_actor(ledger) == "console admin"
    with ledger.ledger.reading() as db:
        audit.verify(db, ledger.ledger.site_key)


def test_a_rejected_item_suppresses_nobody(ledger: Books, web: Door, admin: Visitor) -> None:
    number = queued(ledger)
    admin.get(f"/console/review/{number}")
    admin.post(f"/console/review/{number}", decision="reject", note="a question")
    assert (state(ledger, number), web.standing()) == (("rejected", "a question"), [])


def test_after_a_decision_comes_the_next_open_item_and_then_the_oldest(ledger: Books, admin: Visitor) -> None:
    one, two, three = (queued(ledger) for _ in range(3))
    admin.get(f"/console/review/{two}")
    assert admin.post(f"/console/review/{two}", decision="reject").headers["location"] == f"/console/review/{three}"
    assert admin.post(f"/console/review/{three}", decision="reject").headers["location"] == f"/console/review/{one}"


def test_the_neighbours_of_an_item_are_the_open_ones(ledger: Books, admin: Visitor) -> None:
    one, two, three = (queued(ledger) for _ in range(3))
    admin.get("/console/review")
    admin.post(f"/console/review/{two}", decision="reject")
    page = admin.get(f"/console/review/{one}").body
    assert f'href="/console/review/{three}" rel="next"' in page
    assert 'rel="prev"' not in page


def test_an_accepted_message_is_owed_its_filing(ledger: Books, admin: Visitor) -> None:
    place = Place("support", "INBOX", 1, 7)
    with write(ledger.ledger, NOW, "test") as w:
        message = incoming.record(
            w,
            place,
            digest=b"d",
            size=1,
            message_id="<1@x>",
            internaldate=NOW,
            label="review",
            state="done",
            target="Opt-outs",
        )
    number = queued(ledger, message=message)
    page = admin.get(f"/console/review/{number}").body
    assert "support, INBOX, UID 7" in page
    admin.post(f"/console/review/{number}", decision="accept")
    with ledger.ledger.connect() as db:
        assert [seen.place for seen in incoming.owed(db, "support")] == [place]


def test_what_stands_already_is_shown(ledger: Books, admin: Visitor) -> None:
    ledger.suppress(ANN, "offers", Reason.COMPLAINT)
    page = parsed(admin.get(f"/console/review/{queued(ledger)}").body)
    assert re.search(r"ann@customer\.example: stands already list:offers complaint since", page.text)


def test_who_decides_twice_is_told_that_somebody_was_quicker(ledger: Books, admin: Visitor) -> None:
    number = queued(ledger)
    admin.get(f"/console/review/{number}")
    admin.post(f"/console/review/{number}", decision="reject")
    again = admin.follow(admin.post(f"/console/review/{number}", decision="accept"))
    assert "somebody else was quicker" in again.body
    assert state(ledger, number) == ("rejected", "")


def test_an_item_that_names_nobody_cannot_be_accepted_and_says_what_to_do(ledger: Books, admin: Visitor) -> None:
    number = queued(ledger, sender="", addresses=["support@quillpdf.example"])
    page = admin.get(f"/console/review/{number}").body
    assert "suppress them by hand" in page
    assert 'value="accept"' not in page
    told = admin.follow(admin.post(f"/console/review/{number}", decision="accept"))
    assert "names nobody" in told.body
    assert state(ledger, number) == ("open", "")


def test_a_wish_to_come_back_that_is_outdated_lifts_nothing(ledger: Books, web: Door, admin: Visitor) -> None:
    number = queued(ledger, wish="resubscribe", received=NOW - timedelta(days=2))
    ledger.suppress(ANN)
    admin.get(f"/console/review/{number}")
    told = admin.follow(admin.post(f"/console/review/{number}", decision="accept"))
    assert "opted out again after this message" in told.body
    assert (state(ledger, number), web.standing()) == (("open", ""), [(0, Reason.OPT_OUT)])


def test_a_form_that_says_neither_is_refused(ledger: Books, admin: Visitor) -> None:
    number = queued(ledger)
    admin.get("/console/review")
    assert admin.post(f"/console/review/{number}", decision="perhaps").status == 400
    assert admin.post("/console/review", item=str(number)).status == 400
    assert state(ledger, number) == ("open", "")


# ------------------------------------------------------------------ several at once


def test_ticked_items_are_decided_each_by_itself_and_each_failure_is_told(
    ledger: Books, web: Door, admin: Visitor
) -> None:
    good, other = queued(ledger), queued(ledger, addresses=["bob@customer.example"])
    nobody = queued(ledger, sender="", addresses=[])
    left = queued(ledger)
    admin.get("/console/review")
    ticked = [str(n) for n in (good, nobody, other, good, 4711)]
    answer = post_all(admin, "/console/review", decision="accept", note="all clear", item=[*ticked, "x"])
    page = admin.follow(answer).body
    assert "2 accepted." in page
    assert f"Item {nobody} names nobody" in page
    assert "There is no item 4711." in page
    assert state(ledger, good) == state(ledger, other) == ("accepted", "all clear")
    assert state(ledger, nobody)[0] == state(ledger, left)[0] == "open"
    assert web.standing("bob@customer.example") == [(0, Reason.OPT_OUT)]


def test_if_nothing_is_ticked_nothing_happens(ledger: Books, admin: Visitor) -> None:
    queued(ledger)
    admin.get("/console/review")
    assert "Nothing was ticked" in admin.follow(admin.post("/console/review", decision="accept")).body


def test_an_item_of_somebody_who_was_forgotten_has_nothing_left_to_show(ledger: Books, admin: Visitor) -> None:
    number = queued(ledger)
    admin.get("/console/review")
    admin.post(f"/console/review/{number}", decision="reject")
    with write(ledger.ledger, NOW, "test") as w:
        incoming.strip(w, [number])
    page = admin.get(f"/console/review/{number}")
    assert page.status == 200
    assert "Nothing of its text is kept" in page.body


# ------------------------------------------------------------------ the writer's own words


def test_words_are_found_though_their_space_differs() -> None:
    assert marked("a  b\n c", "b c") == [("a  ", False), ("b\n c", True)]
    assert marked("Stop it. Not this. I mean it!", "Stop it. I mean it!") == [
        ("Stop it.", True),
        (" Not this. ", False),
        ("I mean it!", True),
    ]
    assert marked("something else", "b c") is None
    assert marked("something", " ") is None


@given(st.text(), st.text())
def test_marking_loses_nothing_of_an_excerpt(excerpt: str, words: str) -> None:
    parts = marked(excerpt, words)
    assert parts is None or "".join(text for text, _ in parts) == excerpt


@given(st.text(max_size=50), st.text(max_size=20), st.text(max_size=50))
def test_words_that_stand_in_an_excerpt_are_marked(before: str, words: str, behind: str) -> None:
    parts = marked(f"{before}{words}{behind}", words)
    assert (parts is None) == (not words.split())
    assert parts is None or any(own for _, own in parts)


def test_marking_takes_no_long_time_over_hostile_words() -> None:
    assert marked(("a " * 5_000) + " " * 20_000, "a " * 90 + "b") is None


# ------------------------------------------------------------------ hostile mail is the normal input


@pytest.fixture(scope="module")
def one_door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Books, Visitor]]:
    from tests.ledgers import books

    made = books(tmp_path_factory.mktemp("hostile") / "ledger")
    with door(made, whole(made)) as web:
        yield made, Visitor(web)


def _texts(payload: str) -> dict[str, Any]:
    """The payload everywhere a stranger's text can stand. A database keeps no half characters; JSON does."""
    return {
        "sender": payload,
        "addresses": [payload],
        "rules": [payload],
        "words": payload,
        "excerpt": f"x {payload} y",
    }


@pytest.mark.parametrize("name", PAYLOADS)
def test_whatever_a_stranger_writes_is_shown_as_text(one_door: tuple[Books, Visitor], name: str) -> None:
    books, admin = one_door
    payload = PAYLOADS[name]
    harmless, number = queued(books, **_texts("quiet")), queued(books, **_texts(payload))
    usual = [parsed(admin.get(p).body).tags for p in (f"/console/review/{harmless}", "/console/review")]
    page = holds(admin.get(f"/console/review/{number}").body)
    assert _squeezed(shown(payload)) in _squeezed(page.text)
    assert page.tags.count("mark") == usual[0].count("mark") or not payload.split()
    assert set(page.tags) <= {*usual[0], "nav"}
    assert holds(admin.get("/console/review").body, usual=usual[1])
    note = admin.post(f"/console/review/{number}", decision="reject", note=payload)
    assert note.status == 303
    admin.get("/console/review")
    admin.post(f"/console/review/{harmless}", decision="reject")
    decided = holds(admin.get(f"/console/review/{number}").body)
    assert _squeezed(shown(payload))[:900] in _squeezed(decided.text)
    holds(admin.get("/console/review?state=all").body)
    holds(admin.get(f"/console/review?state={'rejected'}&beyond={number + 1}").body)


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def test_halves_of_characters_are_shown_too(ledger: Books, admin: Visitor) -> None:
    number = queued(ledger, addresses=["\ud800@x.example", "a\udfff"], rules=["\udead"])
    page = admin.get(f"/console/review/{number}")
    assert page.status == 200
    assert "\ufffd" in page.body
    assert admin.get("/console/review").status == 200


def test_a_decision_about_hostile_mail_is_one_like_any_other(ledger: Books, admin: Visitor) -> None:
    numbers = [queued(ledger, **(_texts(p) | {"addresses": [ANN]})) for p in PAYLOADS.values()]
    admin.get("/console/review")
    for number in numbers:
        assert (
            admin.post(f"/console/review/{number}", decision="accept", note=PAYLOADS["jinja expression"]).status == 303
        )
    assert {state(ledger, number)[0] for number in numbers} == {"accepted"}
    with ledger.ledger.reading() as db:
        audit.verify(db, ledger.ledger.site_key)
        assert suppressions.standing(db, ledger.ledger.site_key, parse(ANN))
