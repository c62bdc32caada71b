"""A log line an event, and nobody's address in it."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from daemon import events, log, relay_events
from storage.address import NotAnAddress, SiteKey, Who, parse

WHO = SiteKey((bytes(32),)).who(parse("Ann.Example@quill.example"))
SECRET = "Ann.Example@quill.example"
ARGUMENTS: dict[str, Any] = {
    "who": WHO,
    "reason": f"<{SECRET}>: user unknown",
    "error": ValueError(f"cannot read {SECRET}"),
    "problems": [f"house.addresses[0]: '{SECRET}' is odd"],
    "reply": f"550 5.1.1 <{SECRET}> unknown",
    "upstream": f"250 2.0.0 queued for {SECRET}",
    "facts": {},
    "about": [WHO],
    "bound": {},
}
EVENTS = [
    f
    for module in (events, relay_events)
    for name, f in inspect.getmembers(module, inspect.isfunction)
    if f.__module__ == module.__name__ and not name.startswith("_") and name not in ("configure", "masked")
]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root, plain = list(logging.getLogger().handlers), log.plain
    yield
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = root
    log.plain = plain


def call(event: Callable[..., None]) -> None:
    """With something fitting for each parameter, an address wherever somebody else's text may stand."""
    given_: dict[str, Any] = {}
    for name, parameter in inspect.signature(event).parameters.items():
        if parameter.kind == parameter.VAR_KEYWORD:
            continue
        usual: Any = {"int": 1, "float": 0.5, "bool": True, "list[str]": ["a"], "Iterable[str]": ["a"]}.get(
            str(parameter.annotation), "word"
        )
        ours = name == "reason" and parameter.annotation == "str" and event is not events.audit_broken
        given_[name] = "has opted out" if ours else ARGUMENTS.get(name, usual)
    event(**given_)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


@pytest.mark.parametrize("event", EVENTS, ids=lambda f: f.__name__)
def test_every_event_is_a_line_of_json_without_an_address(
    event: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    events.configure(level="debug")
    call(event)
    (line,) = lines(capsys)
    assert list(line)[:3] == ["ts", "level", "event"]
    assert line["event"] == event.__name__
    assert line["ts"].endswith("Z")
    assert "example" not in json.dumps(line).lower().replace(Path(__file__).name, "")


@pytest.mark.parametrize(
    "event", [f for f in EVENTS if "who" in inspect.signature(f).parameters], ids=lambda f: f.__name__
)
def test_a_person_is_twelve_hex_digits_unless_the_operator_wants_addresses(
    event: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    for addresses, expected in (("digest", WHO.digest), ("plain", SECRET)):
        events.configure(addresses=addresses)
        call(event)
        (line,) = lines(capsys)
        assert line.get("who", line.get("rcpt")) == expected
    assert len(WHO.digest) == 12


def test_the_level_holds_back_what_is_below_it(capsys: pytest.CaptureFixture[str]) -> None:
    events.configure(level="warning")
    events.stopped()
    events.database_unavailable("away")
    assert [line["event"] for line in lines(capsys)] == ["database_unavailable"]


def test_text_is_for_people_and_has_no_address_either(capsys: pytest.CaptureFixture[str]) -> None:
    events.configure(format="text")
    relay_events.rcpt_refused(WHO, "has opted out", 7, None)
    events.failed("relay", raised())
    said = capsys.readouterr().err
    assert "rcpt_refused" in said
    assert SECRET not in said
    assert "hunter2" not in said


# ------------------------------------------------------------------ failures


def raised() -> ValueError:
    """An error from deep within, with secrets in its frames."""
    password, address = "hunter2", SECRET

    def inner() -> None:
        try:
            parse(f"{address} and {password}")
        except NotAnAddress:
            raise ValueError(f"cannot use {address}") from LookupError(f"no {address}")

    try:
        inner()
    except ValueError as error:
        return error
    raise AssertionError


def test_a_bug_is_told_with_the_place_but_without_any_value(capsys: pytest.CaptureFixture[str]) -> None:
    """structlog's own traceback has the local variables in it: addresses, passwords, messages."""
    events.configure(format="json")
    events.failed("relay", raised())
    said = capsys.readouterr().err
    assert "hunter2" not in said
    assert "quill.example" not in said
    line = json.loads(said)
    assert (line["where"], line["error"]) == ("relay", "ValueError")
    assert line["trace"][0] == "ValueError"
    assert line["trace"][-1] == "LookupError"
    assert any(place.startswith("test_events.py:") and place.endswith(" inner") for place in line["trace"])


# ------------------------------------------------------------------ what libraries say


def test_what_a_library_says_is_a_line_like_ours(capsys: pytest.CaptureFixture[str]) -> None:
    events.configure(format="json")
    events.configure(format="json")  # twice is once: a reload configures again
    log = logging.getLogger("aiosmtpd")
    log.info("RCPT TO:<%s>", SECRET)
    log.warning("odd argument %s", SECRET)
    try:
        raise raised()
    except ValueError:
        logging.getLogger("asyncio").exception("Task exception was never retrieved")
    one, other = lines(capsys)
    assert (one["event"], one["logger"], one["text"]) == ("library_said", "aiosmtpd", "odd argument <address>")
    assert other["level"] == "error"
    assert "quill.example" not in json.dumps(other)
    assert "hunter2" not in json.dumps(other)


# ------------------------------------------------------------------ masking


@pytest.mark.parametrize(
    "address",
    [
        "ann@example.com",
        "Ann.O'Neil+x=1@mail.example.com",
        '"ann b"@example.com',
        "josé@example.com",
        "ann@bücher.example",
        "ann@例子.example",
        "ann@[192.0.2.1]",
        "x" * 64 + "@example.com",
        "postmaster@localhost",
    ],
)
def test_an_address_is_masked_wherever_it_stands(address: str) -> None:
    for around in ("<{}>: unknown", "for {} now", "({})", "'{}'", "to={}, from", "{}", "a {}\r\n\tb"):
        said = events.masked(around.format(address))
        assert "<address>" in said
        assert not any(piece in said for piece in address.strip('"').split("@"))


def test_a_long_text_is_cut_after_masking_so_that_no_half_is_left() -> None:
    said = events.masked("x " * 140 + "very.secret.name.of.somebody@example.com")
    assert len(said) <= 300
    assert "secret" not in said


@given(st.text(max_size=400))
def test_masked_is_one_short_line_without_an_at_between_words(text: str) -> None:
    said = events.masked(text + " ann@example.com")
    assert len(said) <= 300
    assert said.isprintable()
    assert "\n" not in said
    assert "ann@" not in said


def test_masking_is_quick_on_hostile_text() -> None:
    import time

    began = time.thread_time()
    for text in ("a" * 100_000, '"' * 100_000, "@" * 100_000, "a@" * 50_000, '"a' * 50_000, "[" * 9999 + "@["):
        events.masked(text)
    assert time.thread_time() - began < 1


def test_a_who_does_not_show_itself() -> None:
    assert SECRET not in repr(WHO)
    assert isinstance(WHO, Who)


class _Full:
    """A stderr on a disk that is full."""

    def write(self, _: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        raise ValueError("I/O operation on closed file")

    def isatty(self) -> bool:
        return False


def test_a_log_that_cannot_be_written_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    events.configure("json", "info")
    monkeypatch.setattr("sys.stderr", _Full())
    events.stopped()
