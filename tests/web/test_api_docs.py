"""docs/api.md: every line of curl in it is run, in its order, and answers as the page says.

`python -m tests.web.test_api_docs` writes the answers into the page anew.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

import pytest

import daemon
from daemon.values import Right
from daemon.web.api.app import api
from storage import refusals, suppressions
from storage.address import parse
from storage.postgres import Server, migrate, open_server
from storage.refusals import Refusal
from storage.terms import ALL, Reason
from storage.write import write
from tests.ledgers import Books, books, opened, queued
from tests.servers import Postgres
from tests.web.program import API, MAY_ALL
from tests.web.support import door, whole

PAGE: Final = Path(__file__).parents[2] / "docs/api.md"
NOW: Final = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)
ANN, BOB = "ann@customer.example", "bob@customer.example"
_STEP: Final = re.compile(r"```sh\n(curl (?:(?!```).)*)```\n```json (\d+)\n(.*?)```\n", re.DOTALL)


class Step(NamedTuple):
    """A command of the page, and what the page says comes of it."""

    command: str
    status: int
    output: str


def steps() -> list[Step]:
    """In order."""
    return [Step(command, int(status), output) for command, status, output in _STEP.findall(PAGE.read_text())]


# ------------------------------------------------------------------ what the page speaks of


def _happened(it: Books) -> None:
    """Ann has opted out of everything, Bob of the offers, both were refused since, and two mails wait for a person."""
    ledger, day = it.ledger, NOW - timedelta(days=1)
    with write(ledger, day, "mailbox support") as w:
        words = {"words": "please stop", "mailbox": "support", "uid": 17, "rules": ["4.1-stop"]}
        suppressions.add(w, parse(ANN), ALL, Reason.OPT_OUT, "mail", words)
        refs = suppressions.add(w, parse(BOB), it.numbers["offers"], Reason.OPT_OUT, "mail", words).evidence
        for sender, said in (("eve@other.example", "enough of this"), ("spam@other.example", "buy a list")):
            queued(w, sender=sender, rules=["6-model"], words=said, excerpt=f"Hello, {said}.")
    key = ledger.site_key.address_key(BOB)
    with write(ledger, NOW, "relay") as w:
        sent = Refusal(
            NOW, "refused", key, it.numbers["offers"], Reason.OPT_OUT, "crm", "<may@quillpdf.example>", refs, 2
        )
        refusals.record(w, [sent], {})


@contextmanager
def running(directory: Path, it: Books) -> Iterator[dict[str, str]]:
    """A door at which it has happened; what the commands of the page find in their environment."""
    _happened(it)
    curl = directory / ".curlrc"
    curl.write_text('silent\nwrite-out = "\\n%{http_code}"\n')
    context = replace(whole(it, programs=(replace(MAY_ALL, name="shop"),), uploads=directory), now=lambda: NOW)
    with door(it, context) as web:
        yield {
            "PATH": "/usr/bin:/bin",
            "CURL_HOME": str(directory),
            "API": f"http://127.0.0.1:{web.port}{API}",
            "AUTH": f"Authorization: Bearer {MAY_ALL.secret}",
        }


def run(command: str, environment: dict[str, str]) -> tuple[int, Any]:
    """(status, what the body says)."""
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, (command, done.stderr)
    body, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(body)


def answered(command: str, environment: dict[str, str]) -> tuple[int, Any]:
    """The same; of an import, when it has ended. Its id is $ID from then on."""
    for _ in range(200):
        status, told = run(command, environment)
        if "$ID" not in command or told["state"] not in ("counting", "importing"):
            break
        time.sleep(0.05)
    if "/imports?" in command:
        environment["ID"] = told["id"]
    return status, told


def _settled(told: Any) -> Any:
    """Without what differs from ledger to ledger: keys, macs and the cursors made of them; and from version to version."""
    text = re.sub(r"\b[0-9a-f]{32}\b", "(key)", json.dumps(told))
    text = re.sub(r'"next": "[A-Za-z0-9_-]{28}"', '"next": "(cursor)"', text)
    text = re.sub(r'"id": "[A-Za-z0-9_-]{8,}"', '"id": "(id)"', text)
    text = re.sub(r'"(state|read|counts|import)": (?:"counting"|"importing"|0|null)', r'"\1": "(at work)"', text)
    return json.loads(text.replace(f'"version": "{daemon.__version__}"', '"version": "(version)"'))


def _shown(text: str) -> Any:
    told = json.loads(text)
    return told | {"version": daemon.__version__} if "version" in told else told


# ------------------------------------------------------------------ the tests


@pytest.fixture(params=["file", pytest.param("postgres", marks=pytest.mark.postgres)])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Books]:
    """In either database."""
    if request.param == "file":
        it = books(tmp_path / "ledger")
    else:
        made: Postgres = request.getfixturevalue("postgres")
        server, key_file = Server(made.url(made.new_database())), tmp_path / "site.key"
        migrate(server, key_file)
        it = opened(open_server(server, key_file))
    yield it
    it.close()


def test_every_line_of_the_page_does_what_it_says(tmp_path: Path, ledger: Books) -> None:
    with running(tmp_path, ledger) as environment:
        for step in steps():
            status, told = answered(step.command, environment)
            assert (status, _in_order(told)) == (step.status, _in_order(_shown(step.output))), step.command


def _in_order(told: Any) -> Any:
    """A page of the list is in order of key, and so differs from ledger to ledger."""
    found = _settled(told)
    if isinstance(found, dict) and "suppressions" in found and "next" in found:
        return len(found["suppressions"]), sorted(found["suppressions"][0]), found["next"]
    return found


def test_every_operation_is_on_the_page() -> None:
    commands = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL))
    for path, operations in api().openapi()["paths"].items():
        where = re.escape(path).replace(r"\{id\}", r"(?:\d+|\$ID)").replace(r"\{address\}", r"\S+@\S+")
        for method in operations:
            found = re.findall(rf'\$API{where}(?=[ "?\n]).*?(?=curl|\Z)', commands, re.DOTALL)
            assert any(bool(re.search("--json|--data", line)) == (method == "post") for line in found), (method, path)


def test_every_right_and_every_status_is_on_the_page() -> None:
    text = PAGE.read_text()
    described = [o for path in api().openapi()["paths"].values() for o in path.values()]
    used = {right for o in described for scheme in o.get("security", ()) for right in scheme["token"]}
    assert used <= set(get_args(Right))
    assert {right for right in used if f"\n| `{right}` |" not in text} == set()
    assert {s for o in described for s in o["responses"] if s >= "400" and f"\n| {s} |" not in text} == set()


def _write_anew() -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        running(Path(directory), books(Path(directory, "ledger"))) as environment,
    ):

        def filled(found: re.Match[str]) -> str:
            status, told = answered(found[1], environment)
            if status != int(found[2]):
                raise SystemExit(f"{found[1]}: {status} {told}")
            output = json.dumps(told, indent=2, ensure_ascii=False)
            return f"```sh\n{found[1]}```\n```json {status}\n{_compact(output)}\n```\n"

        PAGE.write_text(_STEP.sub(filled, PAGE.read_text()))


def _compact(text: str) -> str:
    """Indented, but what has nothing below it on one line, if there is room."""

    def one_line(found: re.Match[str]) -> str:
        line = (
            re.sub(r"\s*\n\s*", " ", found[0])
            .replace("[ ", "[")
            .replace(" ]", "]")
            .replace("{ ", "{")
            .replace(" }", "}")
        )
        return line if len(line) < 110 else found[0]

    return re.sub(r"[\[{]\n[^\[\]{}]*\n *[\]}]", one_line, text)


if __name__ == "__main__":
    _write_anew()
