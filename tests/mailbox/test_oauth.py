"""Logging in to a real Dovecot with access tokens, which it has checked by the server that gave them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from daemon.config import Loaded, Mailbox, load
from daemon.mailbox import tokens as keeping_tokens
from daemon.mailbox.refresh_token import Kept
from daemon.mailbox.session import Failed
from daemon.mailbox.tokens import Tokens
from daemon.mailboxes import log_in, tokens_of
from tests.servers import Dovecot, dovecot
from tests.tokenserver import CLIENT, CLIENT_SECRET, REFRESH, TokenServer, tokenserver

pytestmark = pytest.mark.dovecot


@dataclass
class Desk:
    """A config beside its secrets, and the servers that it names."""

    directory: Path
    server: TokenServer
    imap: Dovecot

    def loaded(self, oauth2: dict[str, Any], **box: Any) -> Loaded:
        """The config with this [mailbox.oauth2]."""
        told = {"name": "support", "host": "localhost", "port": self.imap.imaps_port, "username": "support"}
        told |= {"ca_file": str(self.imap.ca_file), "poll_seconds": 1} | box
        oauth2 = {"ca_file": str(self.server.ca_file)} | oauth2
        lines = ['[house]\nname = "Quill"\n[[mailbox]]', *(f"{k} = {json.dumps(v)}" for k, v in told.items())]
        lines += ["[mailbox.oauth2]", *(f"{k} = {json.dumps(v)}" for k, v in oauth2.items() if v)]
        path = self.directory / "optoutd.toml"
        path.write_text("\n".join(lines) + "\n")
        path.chmod(0o600)
        return load(path)

    def source(self, oauth2: dict[str, Any], **box: Any) -> tuple[Loaded, Mailbox, Tokens]:
        """What a watcher logs in with."""
        loaded = self.loaded(oauth2, **box)
        settings = loaded.config.mailbox[0]
        source = tokens_of(loaded, settings)
        assert source is not None
        return loaded, settings, source

    def enters(self, where: tuple[Loaded, Mailbox, Tokens]) -> None:
        """Log in, and see the inbox."""
        session = log_in(*where)
        try:
            assert session.enter("INBOX").uidvalidity
        finally:
            session.close()

    def fails(self, where: tuple[Loaded, Mailbox, Tokens]) -> Failed:
        """Why it cannot be logged in."""
        with pytest.raises(Failed) as failed:
            self.enters(where)
        told = f"{failed.value} {failed.value.advice}"
        assert not [s for s in (CLIENT_SECRET, REFRESH, *self.server.good) if s in told]
        return failed.value

    @property
    def refreshing(self) -> dict[str, Any]:
        """With a refresh token."""
        return self.of_client | {"refresh_token_file": "refresh-token"}

    @property
    def of_client(self) -> dict[str, Any]:
        """With the client's own credentials."""
        return {"token_url": self.server.url, "client_id": CLIENT, "client_secret_file": "client-secret"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenServer]:
    with tokenserver(tmp_path_factory.mktemp("tokens")) as it:
        yield it


@pytest.fixture(scope="module")
def imap(server: TokenServer) -> Iterator[Dovecot]:
    with dovecot(introspection=server.introspection_url) as it:
        yield it


@pytest.fixture
def desk(tmp_path: Path, server: TokenServer, imap: Dovecot) -> Desk:
    for name in ("user", "seconds", "rotates", "refuse", "date"):
        setattr(server, name, TokenServer.__dataclass_fields__[name].default)
    server.asked.clear()
    server.good.clear()
    server.refresh_tokens = {REFRESH}
    (tmp_path / "client-secret").write_text(CLIENT_SECRET + "\n")
    (tmp_path / "refresh-token").write_text(REFRESH + "\n")
    return Desk(tmp_path, server, imap)


# ------------------------------------------------------------------ grants, mechanisms


@pytest.mark.parametrize("mechanism", ["auto", "xoauth2", "oauthbearer"])
def test_each_mechanism_opens_the_mailbox(desk: Desk, mechanism: str) -> None:
    desk.enters(desk.source(desk.refreshing | {"mechanism": mechanism}))
    (asked,) = desk.server.asked
    assert asked == {
        "grant_type": "refresh_token",
        "refresh_token": REFRESH,
        "client_id": CLIENT,
        "client_secret": CLIENT_SECRET,
    }


def test_a_token_goes_over_starttls_as_well(desk: Desk) -> None:
    desk.enters(desk.source(desk.refreshing, tls="starttls", port=desk.imap.imap_port))


def test_a_client_with_a_secret_and_no_refresh_token_asks_for_itself(desk: Desk) -> None:
    scope = "https://outlook.office365.com/.default"
    desk.enters(desk.source(desk.of_client | {"scope": scope}))
    (asked,) = desk.server.asked
    assert (asked["grant_type"], asked["scope"]) == ("client_credentials", scope)


def test_a_service_account_signs_for_the_mailbox(desk: Desk) -> None:
    (desk.directory / "key.json").write_text(desk.server.account_file())
    desk.enters(desk.source({"service_account_file": "key.json"}))
    assert list(desk.server.asked[0]) == ["grant_type", "assertion"]


def test_a_shared_mailbox_is_opened_with_the_token_of_somebody_else(desk: Desk) -> None:
    """username is then only a name for people; what is asked for is `login`."""
    desk.enters(desk.source(desk.refreshing | {"login": "support"}, username="kim"))
    assert desk.fails(desk.source(desk.refreshing, username="kim")).step == "login"


def test_a_program_gives_the_token(desk: Desk) -> None:
    desk.server.good["from-a-program"] = "support"
    desk.enters(desk.source({"token_command": ["/bin/echo", "from-a-program"], "ca_file": ""}))


# ------------------------------------------------------------------ how long


def test_a_token_is_used_until_shortly_before_its_end(desk: Desk) -> None:
    where = desk.source(desk.refreshing)
    desk.enters(where)
    desk.enters(where)
    assert len(desk.server.asked) == 1
    where[2]._until -= 3600 - 299  # less than five minutes are left
    desk.enters(where)
    assert len(desk.server.asked) == 2


def test_a_server_that_does_not_say_how_long_is_asked_every_few_minutes(desk: Desk) -> None:
    desk.server.seconds = None
    where = desk.source(desk.refreshing)
    desk.enters(where)
    desk.enters(where)
    assert len(desk.server.asked) == 1


def test_a_token_that_is_refused_before_its_time_is_replaced_at_once(desk: Desk) -> None:
    where = desk.source(desk.refreshing)
    desk.enters(where)
    desk.server.revoke()
    desk.enters(where)
    assert len(desk.server.asked) == 2


def test_a_mailbox_that_takes_no_token_does_not_make_us_ask_for_more_and_more(desk: Desk) -> None:
    desk.server.user = "alice"
    where = desk.source(desk.refreshing)
    for _ in range(3):
        failed = desk.fails(where)
        assert (failed.step, failed.refused) == ("login", True)
        assert "the token is good, but not for this mailbox" in failed.advice
    assert len(desk.server.asked) == 1


# ------------------------------------------------------------------ refresh tokens that change


def kept(desk: Desk) -> Path:
    return desk.directory / "oauth2-support.json"


def test_a_new_refresh_token_is_kept_for_the_next_start(desk: Desk) -> None:
    desk.server.rotates = True
    desk.enters(desk.source(desk.refreshing))
    assert kept(desk).stat().st_mode & 0o777 == 0o600
    desk.enters(desk.source(desk.refreshing))  # another process, as it were
    assert desk.server.asked[1]["refresh_token"] not in (REFRESH, "")
    desk.enters(desk.source(desk.refreshing))
    assert sorted(p.name for p in desk.directory.iterdir() if "oauth2" in p.name) == ["oauth2-support.json"]


def test_a_refresh_token_that_the_operator_gives_anew_counts(desk: Desk) -> None:
    desk.server.rotates = True
    desk.enters(desk.source(desk.refreshing))
    desk.server.refresh_tokens = {"another-refresh-token"}
    (desk.directory / "refresh-token").write_text("another-refresh-token")
    desk.enters(desk.source(desk.refreshing))
    assert desk.server.asked[1]["refresh_token"] == "another-refresh-token"


@pytest.mark.parametrize("garbage", ["", "{", "[]", '{"origin": 1}', '{"origin": "x", "refresh_token": "y"}'])
def test_a_kept_file_that_is_none_is_as_if_it_were_not_there(desk: Desk, garbage: str) -> None:
    kept(desk).write_text(garbage)
    desk.enters(desk.source(desk.refreshing))
    assert desk.server.asked[0]["refresh_token"] == REFRESH


def test_a_kept_refresh_token_gone_bad_gives_way_to_the_one_in_the_file(desk: Desk) -> None:
    desk.server.rotates = True
    desk.enters(desk.source(desk.refreshing))
    desk.server.refresh_tokens = {REFRESH}
    desk.enters(desk.source(desk.refreshing))
    assert [a["refresh_token"] == REFRESH for a in desk.server.asked] == [True, False, True]


def test_a_refresh_token_that_another_process_has_renewed_meanwhile_is_found(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.server.rotates = True
    newest = Kept.newest
    slow, other = desk.source(desk.refreshing), desk.source(desk.refreshing)

    def overtaken(of: Kept) -> str:
        found = newest(of)
        monkeypatch.setattr(Kept, "newest", newest)
        desk.enters(other)  # between our reading of the file and our use of what was in it
        return found

    monkeypatch.setattr(Kept, "newest", overtaken)
    desk.enters(slow)
    first, second, third = (a["refresh_token"] for a in desk.server.asked)
    assert first == second == REFRESH != third


def test_a_new_refresh_token_that_cannot_be_written_is_used_and_written_the_next_time(
    desk: Desk, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    desk.server.rotates = True
    where = desk.source(desk.refreshing)
    kept(desk).mkdir()  # nothing can take its place
    desk.enters(where)
    assert [line["event"] for line in logged()] == ["refresh_token_not_kept"]
    kept(desk).rmdir()
    where[2]._until = 0
    desk.enters(where)
    desk.enters(desk.source(desk.refreshing))
    assert len(desk.server.asked) == 3
    assert len({a["refresh_token"] for a in desk.server.asked}) == 3


def test_no_token_is_asked_for_where_a_new_one_could_not_be_kept(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    where = desk.source(desk.refreshing)
    monkeypatch.setattr("daemon.mailbox.refresh_token.os.access", lambda *a: False)
    failed = desk.fails(where)
    assert (failed.step, failed.why) == ("token", f"{desk.directory}: no right to write there")
    assert desk.server.asked == []


# ------------------------------------------------------------------ what goes wrong


def test_a_revoked_refresh_token_says_so(desk: Desk) -> None:
    desk.server.refresh_tokens.clear()
    failed = desk.fails(desk.source(desk.refreshing))
    assert (failed.step, str(failed.why)) == ("token", "invalid_grant: AADSTS700082: The refresh token has expired.")
    assert "log in again" in failed.advice


def test_a_wrong_client_secret_says_so(desk: Desk) -> None:
    (desk.directory / "client-secret").write_text("Another~secret")
    failed = desk.fails(desk.source(desk.of_client))
    assert failed.step == "token"
    assert "24 months" in failed.advice


def test_a_secret_that_is_changed_counts_from_the_next_token_on(desk: Desk) -> None:
    where = desk.source(desk.of_client)
    (desk.directory / "client-secret").write_text("Another~secret")
    desk.fails(where)
    (desk.directory / "client-secret").write_text(CLIENT_SECRET)
    desk.enters(where)


def test_a_secret_that_cannot_be_read_any_more_is_told_as_the_step_that_it_is(desk: Desk) -> None:
    where = desk.source(desk.of_client)
    (desk.directory / "client-secret").unlink()
    failed = desk.fails(where)
    assert failed.step == "token"
    assert "client-secret: No such file" in str(failed.why)


def test_a_service_account_without_delegation_says_so(desk: Desk) -> None:
    (desk.directory / "key.json").write_text(desk.server.account_file())
    failed = desk.fails(desk.source({"service_account_file": "key.json"}, username="alice"))
    assert failed.step == "token"
    assert "domain-wide delegation" in failed.advice


def test_a_clock_that_is_wrong_is_told_by_how_much(desk: Desk) -> None:
    (desk.directory / "key.json").write_text(desk.server.account_file())
    desk.server.date = 1_700_000_000.0
    failed = desk.fails(desk.source({"service_account_file": "key.json"}))
    assert "seconds ahead" in failed.advice


def test_a_token_server_that_is_not_ours_to_trust_is_told_nothing(desk: Desk) -> None:
    failed = desk.fails(desk.source(desk.refreshing | {"ca_file": str(desk.imap.ca_file)}))
    assert failed.step == "token"
    assert "certificate" in str(failed.why)
    assert desk.server.asked == []


def test_a_mailbox_without_the_mechanism_says_what_it_lacks(desk: Desk, dovecot: Dovecot) -> None:
    where = desk.source(desk.refreshing, port=dovecot.imaps_port, ca_file=str(dovecot.ca_file))
    failed = desk.fails(where)
    assert (failed.step, failed.why) == ("login", "the server offers neither OAUTHBEARER nor XOAUTH2")
    assert desk.server.asked == []


def test_after_a_while_another_token_is_tried_on_a_mailbox_that_took_none(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping_tokens, "_VAIN", 0.0)
    desk.server.user = "alice"
    where = desk.source(desk.refreshing)
    desk.fails(where)
    desk.server.user = "support"
    desk.enters(where)
