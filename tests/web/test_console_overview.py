"""Overview, lists and settings: what operators look at, and change nothing by looking."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from types import ModuleType
from typing import Any

import pytest

from daemon.options import MailingList
from daemon.vitals import AlarmVitals, DutyVitals, MailboxVitals, Vitals
from daemon.web.console.overview import opt_outs_plot, relayed_plot
from daemon.web.console.settings import by_section
from daemon.web.context import Context, Holder
from storage import refusals, sights, suppressions
from storage.address import parse
from storage.refusals import Tally
from storage.sights import OptOuts
from storage.terms import Reason, seconds
from storage.write import write
from tests.ledgers import Books, queued
from tests.web.support import ADMIN, Door, context, door, inside
from tests.web.visitor import LOOKER, Visitor

HOSTILE = "<script>alert(1)</script>\u202e\x07"
PAGES = ("/console/", "/console/lists", "/console/settings")
NOW = datetime.now(UTC)
VITALS = Vitals(
    NOW - timedelta(hours=1),
    {"relay": ("127.0.0.1:2525",), "web": ("127.0.0.1:8025",)},
    (MailboxVitals("support", True, True, NOW), MailboxVitals("bounces", True, False, None, f"login: {HOSTILE}")),
    f"connect: {HOSTILE}",
    ("jobs",),
)
SETTINGS = (
    ("house.name", '"Quill"'),
    ("mailbox[0].name", '"support"'),
    ("mailbox[0].host", f'"{HOSTILE[:-1]}"'),
    ("relay.credential[0].username", '"crm"'),
    ("relay.credential[0].list", '"offers"'),
    ("webhook[0].url", '"https://hooks.example/services/SECRET"'),
)


def made(ledger: Books, **other: Any) -> Context:
    """A door with a life behind it."""
    of = context(ledger)
    lists = (MailingList(id="offers", title=HOSTILE), MailingList(id="news", list_id="news.quillpdf.example"))
    house = of.house.model_copy(update={"lists": lists})
    facts: dict[str, Any] = {"vitals": lambda: VITALS, "settings": SETTINGS, **other}
    return replace(of, house=house, inside=inside(ledger, house, **facts))


@pytest.fixture
def web(ledger: Books) -> Iterator[Door]:
    with door(ledger, made(ledger)) as opened:
        yield opened


def text(body: str) -> str:
    """What is read, on one line."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


# ------------------------------------------------------------------ all of them


@pytest.mark.parametrize("path", PAGES)
def test_who_is_not_in_or_lacks_the_right_sees_nothing(ledger: Books, path: str) -> None:
    lee = Holder("lee", "review only", frozenset({"review"}))
    with door(ledger, made(ledger, operators={"lee": lee})) as web:
        assert web.ask("GET", path).status == 303
        visitor = Visitor(web, name="")
        visitor.get("/console/login")
        visitor.post("/console/login", username="lee", password=lee.secret)
        refused = visitor.get(path)
    assert refused.status == 403
    assert "<code>check</code>" in refused.body


@pytest.mark.parametrize("path", PAGES)
def test_looking_changes_nothing_and_there_is_nothing_to_send(web: Door, path: str) -> None:
    visitor = Visitor(web, *LOOKER)
    dump = _everything(web)
    assert visitor.get(path).status == 200
    assert visitor.post(path).status == 405
    assert _everything(web) == dump


def _everything(web: Door) -> list[Any]:
    tables = ("audit", "suppression", "meta", "list_number", "review", "incoming", "job_run")
    with web.books.ledger.connect() as db:
        return [db.exec_driver_sql(f"SELECT * FROM {table}").all() for table in tables]


@pytest.mark.parametrize("path", PAGES)
def test_what_strangers_wrote_is_only_text(web: Door, path: str) -> None:
    body = Visitor(web).get(path).body
    assert "<script>alert" not in body
    assert "\u202e" not in body
    assert "&lt;script&gt;alert(1)" in body
    assert not re.search(r"\sstyle=|\son\w+=|<style", body)


@pytest.mark.parametrize("path", PAGES)
def test_pages_are_made_for_everybody(web: Door, path: str) -> None:
    """What a machine can check of it: language, one heading, named regions, a label for each field, headed columns."""
    body = Visitor(web).get(path).body
    assert '<html lang="en">' in body
    assert len(re.findall("<h1", body)) == 1
    assert len(re.findall("<table", body)) == len(re.findall("<caption", body))
    assert all("scope=" in cell for cell in re.findall(r"<th[ >][^>]*>", body))
    ids = re.findall(r'\sid="([^"]+)"', body)
    assert len(ids) == len(set(ids))
    for region in re.findall(r'<div class="scroll"[^>]*>', body):
        assert 'tabindex="0" role="region" aria-label="' in region


# ------------------------------------------------------------------ the overview


def test_the_overview_shows_alarms_with_advice_and_the_oldest_open_request(ledger: Books) -> None:
    advice = f"Mend it: `optoutd {HOSTILE}`."
    alarms = (
        AlarmVitals("mailbox-silent", "bounces", datetime.now(UTC) - timedelta(hours=1), f"Silent {HOSTILE}", advice),
    )
    since = datetime.now(UTC) - timedelta(hours=47, minutes=10)  # NOW is that of the first test of all
    duty = DutyVitals(alarms, since, "whatever came into bounces since it fell silent")
    with door(ledger, made(ledger, vitals=lambda: replace(VITALS, duty=duty))) as web:
        body = Visitor(web).get("/console/").body
    said = text(body)
    assert "<script>alert" not in body
    assert "Mend it: <code>optoutd &lt;script&gt;alert(1)&lt;/script&gt;\ufffd\ufffd</code>." in body
    assert "The mailbox bounces has not answered" not in said  # once is enough
    assert "is whatever came into bounces since it fell silent: since" in said
    assert re.search(r"(49|50) minutes left", said)
    late = replace(VITALS, duty=replace(duty, open_since=NOW - timedelta(hours=50)))
    with door(ledger, made(ledger, vitals=lambda: late)) as web:
        assert "2 hours late." in text(Visitor(web).get("/console/").body)


def test_the_overview_says_what_is_wrong_in_words(ledger: Books) -> None:
    lately = replace(VITALS, started=datetime.now(UTC) - timedelta(hours=1))  # NOW is that of the first test of all
    with door(ledger, made(ledger, vitals=lambda: lately)) as web:
        said = text(Visitor(web).get("/console/").body)
    assert "It is in danger: somebody has to act." in said
    assert re.search(r"The mailbox bounces has not answered for 6\d minutes", said)
    assert "The mail server behind the relay does not answer" in said
    assert "support : connected" in said


def test_the_overview_counts_what_there_is(ledger: Books) -> None:
    now = datetime.now(UTC)
    with write(ledger.ledger, now, "test") as w:
        for n in range(1234):
            suppressions.add(w, parse(f"p{n}@example.com"), 0, Reason.OPT_OUT, "one-click", {})
        suppressions.add(w, parse("b@example.com"), 0, Reason.HARD_BOUNCE, "dsn", {})
        suppressions.add(w, parse("w@example.com"), 1, Reason.WANTED, "mail", {})
        queued(w, now - timedelta(hours=47, minutes=10))
        refusals.record(
            w,
            [],
            {
                Tally(seconds(now) // 3600, 1, "", "refused", 2): 5,
                Tally(seconds(now) // 3600, 1, "", "passed", 0): 67_890,
            },
        )
        w.job_ran("note_head")
    fine = replace(VITALS, mailboxes=VITALS.mailboxes[:1], upstream="")
    with door(ledger, made(ledger, vitals=lambda: fine)) as web:
        body = Visitor(web).get("/console/").body
    said = text(body)
    assert "Yes, but something wants to be looked at." in said
    assert "49 minutes left." in said or "50 minutes left." in said
    assert "1,235 1,234 opt-out 1 hard-bounce 1 wanted" in said
    assert "5 refused 67,890 recipients passed" in said
    assert "found whole" in said
    assert f"{now:%m-%d}: 1,234 by link" in body
    assert "5 recipients refused and 67,890 passed" in said


def test_of_several_nodes_it_says_who_does_what(ledger: Books) -> None:
    theirs = MailboxVitals("support", ours=False, connected=False)
    found = replace(VITALS, mailboxes=(theirs,), duties=())
    with ledger.ledger.connect() as db:
        db.exec_driver_sql("INSERT INTO lease (role, holder, until) VALUES ('mailbox support', 'node-b:7', 9999999999)")
        db.commit()
    with door(ledger, made(ledger, vitals=lambda: found)) as web:
        said = text(Visitor(web).get("/console/").body)
    assert "watched by another node node-b:7" in said
    assert "this one does: nothing" in said


def test_many_who_look_cost_one_look_at_the_database(web: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def watch(module: ModuleType, name: str) -> None:
        real = getattr(module, name)

        def watched(*about: Any) -> Any:
            asked.append(name)
            return real(*about)

        monkeypatch.setattr(module, name, watched)

    for name in ("sight", "opt_outs", "relayed"):
        watch(sights, name)
    watch(refusals, "standing")
    visitor = Visitor(web)
    for _ in range(5):
        assert visitor.get("/console/").status == 200
    assert sorted(asked) == ["opt_outs", "relayed", "sight", "standing"]


def test_without_a_relay_and_mailboxes_it_says_that(ledger: Books) -> None:
    bare = Vitals(NOW)
    with door(ledger, made(ledger, vitals=lambda: bare)) as web:
        said = text(Visitor(web).get("/console/").body)
    assert "nobody can opt out by mail" in said
    assert "There is no relay here" in said
    assert said.count("Nothing in this time.") == 2


def test_every_way_to_opt_out_is_in_the_plot_once() -> None:
    today = date(2026, 11, 27)
    sources = ("mail", "one-click", "page", "api", "phone", "letter", "operator", "import", "new-one")
    plot = opt_outs_plot(OptOuts({(today, source): 2**n for n, source in enumerate(sources)}, whole=False), today)
    assert sum(plot.totals) == 2 ** len(sources) - 1
    assert "not counted in full" in plot.about
    assert plot.places[-1] == "11-27"


def test_what_is_only_sometimes_there_is_only_then_in_the_plot() -> None:
    hour = datetime(2026, 11, 27, 12, tzinfo=UTC)
    plain = relayed_plot({(hour, "refused"): 1, (hour, "withdrawn"): 2}, hour + timedelta(minutes=59))
    assert (plain.columns, plain.totals[-1]) == (["refused", "passed"], 3)
    observed = relayed_plot({(hour, "would-refuse"): 1}, hour)
    assert len(observed.columns) == 3


# ------------------------------------------------------------------ lists


def test_lists_say_who_left_and_how_their_mail_is_known(ledger: Books) -> None:
    ledger.suppress("ann@example.com")
    for n in range(3):
        ledger.suppress(f"p{n}@example.com", "offers")
    ledger.suppress("c@example.com", "offers", Reason.COMPLAINT)
    ledger.suppress("old@example.com", "newsletter")
    offers = ledger.numbers["offers"]
    with write(ledger.ledger, NOW, "relay") as w:
        recent, old = seconds(NOW) // 3600, seconds(NOW) // 3600 - 31 * 24
        refusals.record(w, [], {Tally(recent, offers, "", "stripped", 2): 9, Tally(old, offers, "", "refused", 2): 100})
    with door(ledger, made(ledger)) as web:
        body = Visitor(web).get("/console/lists").body
    said = text(body)
    assert re.search(r"offers credential crm 3 0 1 9", said)
    assert "news List-Id news.quillpdf.example 0 0 0 0" in said
    gone = said.partition("Gone from the config")[2]
    assert "newsletter nothing any more 1 0 0 0" in gone
    assert "Opted out of everything: 1." in said


@pytest.mark.parametrize(
    ("settings", "bound", "url", "said"),
    [
        ((), {}, "https://x.example", "no relay here"),
        ((("relay.stamp", "false"),), {"relay": ("a",)}, "https://x.example", "Nothing is stamped"),
        ((), {"relay": ("a",)}, "", "set web.public_url"),
        ((), {"relay": ("a",)}, "https://x.example", "one-click"),
    ],
)
def test_lists_say_how_mail_is_stamped(
    ledger: Books, settings: tuple[tuple[str, str], ...], bound: dict[str, tuple[str]], url: str, said: str
) -> None:
    of = replace(made(ledger, settings=settings, vitals=lambda: Vitals(NOW, bound)), public_url=url)
    with door(ledger, of) as web:
        body = Visitor(web, host="localhost").get("/console/lists").body
    assert said in text(body)


# ------------------------------------------------------------------ settings


def test_settings_show_what_is_given_and_no_secret(web: Door) -> None:
    body = Visitor(web).get("/console/settings").body
    said = text(body)
    assert "optoutd.db" in said
    assert "Site keys 1" in said
    assert "mailbox[0] support" in said
    assert "https://hooks.example/..." in said
    for secret in (ADMIN.secret, "shop-token", "SECRET", web.books.key_text, LOOKER[1]):
        assert secret not in body


def test_options_stand_in_the_tables_they_are_of() -> None:
    found = by_section(
        [
            ("house.name", '"Q"'),
            ("a[0].host", '"h"'),
            ("a[0].b.c", "1"),
            ("house.language", '"en"'),
            ("a[1].name", '"n"'),
        ]
    )
    assert found == [
        ("house", "", [("name", '"Q"'), ("language", '"en"')]),
        ("a[0]", "h", [("host", '"h"')]),
        ("a[0].b", "", [("c", "1")]),
        ("a[1]", "n", [("name", '"n"')]),
    ]
