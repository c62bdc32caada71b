"""What the parts get of the config."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon import building
from daemon.config import Config, ConfigError, House, Loaded
from daemon.mail import tokens
from daemon.options import MailingList, Web
from daemon.upstream import Endpoint, Pool
from storage.engine import Unavailable
from storage.terms import ALL
from tests.ledgers import Books, books


@pytest.fixture
def ledger(tmp_path: Path) -> Books:
    return books(tmp_path / "ledger")


@pytest.mark.parametrize(
    ("public_url", "begins"),
    [("", "mailto:support@quillpdf.example?subject=undo%20"), ("https://m.example/x", "https://m.example/x/undo/")],
)
def test_a_notice_leads_to_a_page_where_there_is_one_and_else_to_a_mail(
    ledger: Books, public_url: str, begins: str
) -> None:
    house = House(name="Quill", addresses=("support@quillpdf.example",))
    config = Config(house=house, web=Web(public_url=public_url))
    post = building.post(config, ledger.ledger, Pool([Endpoint("127.0.0.1", 1)], hostname="relay.example", timeout=2))
    token = tokens.make(ledger.ledger.site_key, "undo", bytes(16), 0, day=1)
    assert post.undo_link(token) == begins + token


def test_the_pages_know_the_colour_and_the_proxies(ledger: Books) -> None:
    config = Config(house=House(name="Quill"), web=Web(colour="#aa0022", trusted_proxies=("10.0.0.0/8",)))
    made = building.web_context(Loaded(config, Path("/etc/optoutd/config.toml")), ledger.ledger, ledger.numbers, None)
    assert (made.colour, made.trusted_proxies) == ("#aa0022", ("10.0.0.0/8",))


def test_the_pages_are_in_doubt_about_lists_that_have_no_numbers_yet(ledger: Books) -> None:
    config = Config(house=House(name="Quill"), list=(MailingList(id="newsletter"), MailingList(id="offers")))
    loaded = Loaded(config, Path("/etc/optoutd/config.toml"))
    known = building.web_context(loaded, ledger.ledger, ledger.numbers, None)
    assert known.numbers == ledger.numbers
    unknown = building.web_context(loaded, ledger.ledger, {}, None)
    with pytest.raises(Unavailable):
        unknown.numbers["offers"]
    assert unknown.title(ALL) is None


@pytest.mark.parametrize(
    ("secret", "said"),
    [("", "is empty"), ("$argon2id$v=19$m=65536", "is no whole argon2 hash (`optoutd password` makes one)"), ("x", "")],
)
def test_a_password_file_that_lets_nobody_in_is_told(tmp_path: Path, secret: str, said: str) -> None:
    (tmp_path / "admin").write_text(secret + "\n")
    config = Config(house=House(name="Quill"), web=Web(admin_password_file="admin"))
    loaded = Loaded(config, tmp_path / "optoutd.toml")
    if not said:
        assert building.holders(loaded)[0]["admin"].secret == secret
        return
    with pytest.raises(ConfigError) as told:
        building.holders(loaded)
    assert [str(p) for p in told.value.problems] == [f"web.admin_password_file: {tmp_path / 'admin'}: {said}"]
