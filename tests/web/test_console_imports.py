"""Imports in the console."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Iterator

import pytest

from daemon.web.multipart import MOST_BEFORE
from daemon.web.spool import Spool
from daemon.web.uploads import MOST_AT_ONCE
from storage import audit
from storage.terms import Reason
from tests.ledgers import Books
from tests.web.hostile import PAYLOADS
from tests.web.parsed import holds, parsed
from tests.web.sending import multipart, send, upload
from tests.web.support import ANN, Answer, Door, door, whole
from tests.web.visitor import LOOKER, Visitor

LIST = b"email,reason,since\nann@customer.example,complaint,2024-01-02\nbob@customer.example,,\nnonsense,,\n"


@pytest.fixture
def web(ledger: Books) -> Iterator[Door]:
    with door(ledger, whole(ledger)) as opened:
        yield opened


@pytest.fixture
def admin(web: Door) -> Visitor:
    visitor = Visitor(web)
    visitor.get("/console/imports")
    return visitor


def settled(visitor: Visitor, answer: Answer) -> tuple[str, Answer]:
    """Where an upload has its page, and that page when nothing is under way any more."""
    assert answer.status == 303, answer.body
    path = answer.headers["location"]
    for _ in range(400):
        page = visitor.get(path)
        if "refresh" not in page.headers:
            return path, page
        time.sleep(0.02)
    raise AssertionError(page.body)


def rows(books: Books, table: str) -> int:
    with books.ledger.connect() as db:
        return int(db.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


# ------------------------------------------------------------------ who may


def test_without_the_right_nobody_brings_a_list(ledger: Books, web: Door) -> None:
    kim = Visitor(web, *LOOKER)
    assert kim.get("/console/imports").status == 403
    assert upload(kim, LIST).status == 403
    assert kim.get("/console/imports/anything").status == 403
    assert rows(ledger, "import_run") == 0


def test_a_list_without_the_token_of_the_page_is_refused_before_it_is_kept(
    admin: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Spool, "put", None)  # whoever calls it fails
    for fields in ({}, {"csrf_token": "forged"}, {"csrf_token": ""}):
        assert send(admin, "/console/imports", *multipart(fields, "a.csv", LIST)).status == 403


def test_a_form_goes_on_before_its_file_only_for_so_long(admin: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    """One name again and again, so that neither the number of the fields nor the length of one stops it."""
    monkeypatch.setattr(Spool, "put", None)
    field = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"b" * 7_000 + b"\r\n"
    body = field * (MOST_BEFORE // len(field) + 2)
    assert send(admin, "/console/imports", BOUNDARY, body + b"--x--\r\n").status == 413


def test_looking_changes_nothing(ledger: Books, web: Door, admin: Visitor) -> None:
    path, _ = settled(admin, upload(admin, LIST))
    before = web.audit_rows()
    for _ in range(3):
        assert admin.get(path).status == admin.get("/console/imports").status == 200
    assert admin.get(path + "?decision=import").status == 200
    time.sleep(0.1)
    assert (web.audit_rows(), rows(ledger, "import_run"), web.standing()) == (before, 0, [])


def test_a_decision_needs_the_token_too(ledger: Books, admin: Visitor) -> None:
    path, _ = settled(admin, upload(admin, LIST))
    assert admin.post(path, decision="import", csrf_token="forged").status == 403
    assert rows(ledger, "import_run") == 0


# ------------------------------------------------------------------ the way of a list


def test_a_list_is_counted_and_imported_after_a_yes(ledger: Books, web: Door, admin: Visitor) -> None:
    path, page = settled(admin, upload(admin, LIST, name="C:\\old\\people.csv", list="offers"))
    text = parsed(page.body).text
    assert "Import? people.csv" in text
    assert "CSV, UTF-8, comma-separated, with header, addresses in 'email'" in text
    assert "ann@customer.example, reason complaint, since 2024-01-02" in text
    assert "Import 2 new" in text
    assert (rows(ledger, "import_run"), web.standing()) == (0, [])
    _, done = settled(admin, admin.post(path, decision="import"))
    assert "2 added." in done.body
    assert 'href="/console/undo?import=1"' in done.body
    assert web.standing() == [(ledger.numbers["offers"], Reason.COMPLAINT)]
    home = admin.get("/console/imports").body
    assert re.search(r'<th scope="row">1</th><td>people.csv</td>.*Undo import 1', home)
    assert '<span class="good">complete</span>' in home
    with ledger.ledger.reading() as db:
        audit.verify(db, ledger.ledger.site_key)
        assert db.exec_driver_sql("SELECT actor FROM audit WHERE event = 'imported'").scalar() == "console admin"


def test_bad_rows_can_be_had_as_a_file_that_runs_no_formula(admin: Visitor) -> None:
    octets = b'email,reason\nann@customer.example,\n"=HYPERLINK(""//x"")",\n"@SUM(1)\x07",\ncaf\xe9@@,\n'
    path, page = settled(admin, upload(admin, octets))
    assert "Download the 3 bad rows" in page.body
    answer = admin.get(path + "/rejects.csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="rejects.csv"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    found = list(csv.reader(io.StringIO(answer.body)))
    assert found[0] == ["line", "reason", "row"]
    assert [row[0] for row in found[1:]] == ["3", "4", "5"]
    assert not [cell for row in found for cell in row if cell[:1] in "=+-@" and cell]
    assert "\x07" not in answer.body


def test_a_list_that_is_not_wanted_leaves_nothing(ledger: Books, admin: Visitor) -> None:
    path, _ = settled(admin, upload(admin, LIST))
    told = admin.follow(admin.post(path, decision="cancel"))
    assert "It was cancelled." in told.body
    assert "old.csv" not in told.body
    assert admin.get(path).status == 200
    again = admin.follow(admin.post(path, decision="import"))
    assert "cannot be imported now" in again.body
    assert rows(ledger, "import_run") == 0
    assert admin.post(path, decision="perhaps").status == 400


def test_the_same_list_again_changes_nothing(ledger: Books, admin: Visitor) -> None:
    for said in ("2 added.", "This list had been imported before."):
        path, _ = settled(admin, upload(admin, LIST))
        _, done = settled(admin, admin.post(path, decision="import"))
        assert said in done.body
    assert (rows(ledger, "import_run"), rows(ledger, "suppression")) == (1, 2)


@pytest.mark.parametrize(
    ("fields", "octets", "sentence"),
    [
        ({}, b"", "Choose a file"),
        ({}, b"a,b\n1,2\n", "This list was not understood"),
        ({"column": "nobody"}, LIST, "no column"),
        ({"format": "magic"}, LIST, "must be one of auto"),
        ({"list": "nothere"}, LIST, "there is no list"),
        ({"reason": "because"}, LIST, "must be one of complaint"),
        ({"reason": "wanted"}, LIST, "name the list"),
        ({"as_of": "yesterday"}, LIST, "is no date"),
        ({"as_of": "9999-12-31T23:59:59-23:59"}, LIST, "is no date"),
    ],
)
def test_what_is_wrong_is_said_beside_the_form(
    admin: Visitor, fields: dict[str, str], octets: bytes, sentence: str
) -> None:
    answer = upload(admin, octets, **fields)
    assert answer.status == 422
    page = holds(answer.body)
    assert ("p", "role", "alert") in page.attributes
    assert sentence in page.text
    assert admin.get("/console/imports").body.count("old.csv") == 0


def test_a_list_that_is_too_long_is_refused(ledger: Books) -> None:
    with door(ledger, whole(ledger, max_upload=1000)) as web:
        admin = Visitor(web)
        admin.get("/console/imports")
        answer = upload(admin, b"ann@customer.example\n" * 60)
        assert (answer.status, "larger than 1,000 octets" in answer.body) == (413, True)
        assert upload(admin, b"ann@customer.example\n" * 4_000).status == 413  # by its stated length alone
        assert upload(admin, LIST).status == 303


def test_only_so_many_lists_are_kept_at_once(admin: Visitor) -> None:
    paths = [settled(admin, upload(admin, LIST))[0] for _ in range(MOST_AT_ONCE)]
    answer = upload(admin, LIST)
    assert (answer.status, "lists are here already" in answer.body) == (429, True)
    admin.post(paths[0], decision="cancel")
    assert upload(admin, LIST).status == 303


def test_a_page_of_an_upload_that_nobody_knows_is_not_found(admin: Visitor) -> None:
    assert admin.get("/console/imports/nothing").status == 404
    assert admin.get("/console/imports/nothing/rejects.csv").status == 404
    path, _ = settled(admin, upload(admin, b"ann@customer.example\n"))
    assert admin.get(path + "/rejects.csv").status == 404  # there are none


def test_a_door_that_cannot_keep_a_list_says_so(ledger: Books) -> None:
    gone = ledger.ledger.path.parent / "not-there"
    with door(ledger, whole(ledger, uploads=gone)) as web:
        admin = Visitor(web)
        admin.get("/console/imports")
        answer = upload(admin, LIST)
        assert (answer.status, "could not be kept" in answer.body) == (507, True)


def test_an_import_that_failed_goes_on_when_the_database_is_back(
    ledger: Books, web: Door, admin: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from storage import imports
    from storage.engine import Unavailable

    path, _ = settled(admin, upload(admin, LIST))

    def away(*_: object) -> None:
        raise Unavailable("away")

    with monkeypatch.context() as failing:
        failing.setattr(imports, "finish", away)
        _, page = settled(admin, admin.post(path, decision="import"))
    assert "the database could not be asked" in page.body
    _, done = settled(admin, admin.post(path, decision="import"))
    assert "Done" in done.body
    assert web.standing(ANN) == [(0, Reason.COMPLAINT)]


# ------------------------------------------------------------------ forms that are none


BOUNDARY = "multipart/form-data; boundary=x"


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/x-www-form-urlencoded", b"csrf_token=x", 415),
        ("multipart/form-data", b"x", 415),
        (BOUNDARY, b"nothing of the kind", 400),
        (BOUNDARY, b"--x\r\n\r\nno name\r\n--x--\r\n", 400),
        (BOUNDARY, b'--x\r\nContent-Disposition: attachment; name="a"\r\n\r\nb\r\n--x--\r\n', 400),
        (BOUNDARY, b"--x\r\n" + b"A: b\r\n" * 5_000 + b"\r\nb\r\n--x--\r\n", 400),
        (BOUNDARY, b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"b" * 20_000 + b"\r\n--x--\r\n", 400),
        (BOUNDARY, b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb', 400),
        (f"multipart/form-data; boundary={'x' * 500}", b"x", 400),
    ],
)
def test_what_is_no_form_with_a_file_is_refused(admin: Visitor, content_type: str, body: bytes, status: int) -> None:
    assert send(admin, "/console/imports", content_type, body).status == status


def test_one_file_is_enough(admin: Visitor) -> None:
    content_type, body = multipart({"csrf_token": admin.csrf_token}, "a.csv", LIST)
    boundary = content_type.partition("boundary=")[2]
    end = f"--{boundary}--\r\n".encode()
    second = f'--{boundary}\r\nContent-Disposition: form-data; name="f"; filename="b"\r\n\r\nx\r\n'.encode()
    assert send(admin, "/console/imports", content_type, body.replace(end, second + end)).status == 400


# ------------------------------------------------------------------ hostile lists


@pytest.fixture(scope="module")
def one_door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Books, Visitor]]:
    from tests.ledgers import books

    made = books(tmp_path_factory.mktemp("hostile") / "ledger")
    with door(made, whole(made)) as web:
        yield made, Visitor(web)


@pytest.mark.parametrize("name", PAYLOADS)
def test_whatever_stands_in_a_list_or_its_name_is_shown_as_text(one_door: tuple[Books, Visitor], name: str) -> None:
    _, admin = one_door
    admin.get("/console/imports")
    payload = PAYLOADS[name]
    octets = io.StringIO()
    csv.writer(octets).writerows([["email"], ["ann@customer.example"], [payload], [f"{payload}@x.example"]])
    file_name = re.sub(r"[\"\r\n]", "_", payload)[:300]
    answer = upload(admin, octets.getvalue().encode("utf-8", "replace"), name=file_name + ".csv")
    if "\0" in payload:  # that is no text
        assert (answer.status, bool(holds(answer.body))) == (422, True)
        return
    path, page = settled(admin, answer)
    holds(page.body)
    holds(admin.get("/console/imports").body)
    path, done = settled(admin, admin.post(path, decision="import"))
    holds(done.body)
    holds(admin.get("/console/imports").body)
    wrong = upload(
        admin, LIST, column=payload.replace("\r\n", " ")[:300], list="x" + payload[:100].replace("\r\n", " ")
    )
    assert wrong.status == 422
    holds(wrong.body)
