"""The config: one example that is whole and true, a folder of bad ones, and where files and secrets are looked for."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from daemon import config
from daemon.config import Config, ConfigError, Loaded, find, host_port, is_loopback, load

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "config.example.toml"
BAD = sorted((Path(__file__).parent / "configs").glob("*.toml"))
HOUSE = '[house]\nname = "Quill"\n'


@pytest.fixture(autouse=True)
def _no_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CREDENTIALS_DIRECTORY", "STATE_DIRECTORY", "OPTOUTD_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def written(directory: Path, text: str) -> Path:
    path = directory / "optoutd.toml"
    path.write_text(text)
    path.chmod(0o600)
    return path


def loaded(directory: Path, text: str = HOUSE) -> Loaded:
    return load(written(directory, text))


def problems(directory: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as told:
        loaded(directory, text)
    return [str(p) for p in told.value.problems]


# ------------------------------------------------------------------ the example


def options(model: type[BaseModel], at: str = "") -> Iterator[tuple[str, Any]]:
    """(path, default) of every option of a section and those within it; `...` where there is no default."""
    for name, field in model.model_fields.items():
        if field.exclude:
            continue
        path = f"{at}.{name}".lstrip(".")
        within = (field.annotation, *get_args(field.annotation))
        sections = [a for a in within if isinstance(a, type) and issubclass(a, BaseModel)]
        for section in sections:
            yield from options(section, path)
        if not sections:
            yield path, ... if field.is_required() else field.default


def given_in(table: dict[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of every option in a TOML file."""
    for key, value in table.items():
        path = f"{at}.{key}".lstrip(".")
        if isinstance(value, dict):
            yield from given_in(value, path)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield from given_in(value[0], path)
        else:
            yield path, tuple(value) if isinstance(value, list) else value


def whole_example() -> dict[str, Any]:
    """The example with the tables and options in it that are commented out, since most do without them."""
    return dict(given_in(tomllib.loads(re.sub(r"(?m)^# (?=\[|[a-z_]+ = )", "", EXAMPLE.read_text()))))


def test_the_example_has_every_option_and_no_other_in_the_order_of_the_code() -> None:
    example = list(whole_example())
    assert example == [path for path, _ in options(Config)]


def test_the_example_shows_the_defaults() -> None:
    """Where the default is empty (no domains, no title) the example may show what it is good for."""
    example = whole_example()
    differ = {
        path: (example[path], default)
        for path, default in options(Config)
        if default not in (..., "", (), None) and not path.startswith("upstream.fallback") and example[path] != default
    }
    assert not differ


def test_the_example_is_valid_once_its_secrets_are_there(tmp_path: Path) -> None:
    assert problems(tmp_path, EXAMPLE.read_text()) == [
        f"mailbox[0].password_file: cannot read {tmp_path / 'imap-password'}: there is no such file"
    ]
    (tmp_path / "imap-password").write_text("secret\n")
    assert loaded(tmp_path, EXAMPLE.read_text()).config.house.lists[0].id == "newsletter"


def test_every_line_of_the_example_that_sets_something_fits_a_screen() -> None:
    assert [line for line in EXAMPLE.read_text().splitlines() if len(line) > 120] == []


# ------------------------------------------------------------------ bad ones


@pytest.mark.parametrize("path", BAD, ids=lambda p: p.stem)
def test_every_problem_is_told_at_once(path: Path, tmp_path: Path) -> None:
    """The lines `#! ...` of the file are what is to be said of it, in this order."""
    text = path.read_text()
    assert problems(tmp_path, text) == [line[3:] for line in text.splitlines() if line.startswith("#! ")]


def test_a_syntax_error_is_one_problem_with_line_and_column(tmp_path: Path) -> None:
    (told,) = problems(tmp_path, HOUSE + "domains = [\nname = 1\n")
    assert told.startswith(f"config {tmp_path / 'optoutd.toml'}: not valid TOML: ")
    assert "(at line 4, column " in told


def test_a_file_that_is_not_utf8_says_so(tmp_path: Path) -> None:
    path = written(tmp_path, "")
    path.write_bytes(b'[house]\nname = "Qu\xefll"\n')
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(path)


@pytest.mark.parametrize("section", ["house", "relay", "upstream", "log", "intake"])
def test_a_section_that_is_no_table_is_told(tmp_path: Path, section: str) -> None:
    assert f"{section}: must be a [table]" in problems(tmp_path, f"{section} = 3\n")


def test_no_value_is_converted_in_silence(tmp_path: Path) -> None:
    assert problems(tmp_path, HOUSE + "[relay]\nmax_size = 1e6\n") == ["relay.max_size: must be a whole number"]


MAILBOX = '[[mailbox]]\nname = "m"\nhost = "h.example"\nusername = "u"\npassword_file = "/dev/null"\n'


# ------------------------------------------------------------------ whose file it is


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_config_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path, HOUSE)
    path.chmod(mode)
    with pytest.raises(ConfigError, match="others may write it; run: chmod go-w"):
        load(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_a_config_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, HOUSE)
    os.chown(path, 65534, 65534)
    with pytest.raises(ConfigError, match="belongs to another user"):
        load(path)


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_config_that_cannot_be_read_says_why(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"config .*: (No such file|Is a) ?"):
        load(tmp_path / name)


def test_the_config_is_given_or_in_the_environment_or_beside_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "DEFAULT_PATHS", (Path("optoutd.toml"), tmp_path / "etc.toml"))
    with pytest.raises(ConfigError, match="no config"):
        find(None)
    (tmp_path / "etc.toml").touch()
    assert find(None) == tmp_path / "etc.toml"
    (tmp_path / "optoutd.toml").touch()
    assert find(None) == Path("optoutd.toml")
    monkeypatch.setenv("OPTOUTD_CONFIG", "other.toml")
    assert find(None) == Path("other.toml")
    assert find("given.toml") == Path("given.toml")


# ------------------------------------------------------------------ where files are


def test_files_are_beside_the_config(tmp_path: Path) -> None:
    it = loaded(tmp_path)
    assert (it.database, it.key_file) == (tmp_path / "optoutd.db", tmp_path / "site.key")
    assert it.file("imap-password") == tmp_path / "imap-password"
    assert it.file("secrets/imap") == tmp_path / "secrets/imap"
    assert it.file("/run/imap") == Path("/run/imap")


def test_relative_means_relative_to_the_config_wherever_we_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    written(tmp_path / "sub", HOUSE)
    monkeypatch.chdir(tmp_path)
    assert load(Path("sub/optoutd.toml")).database == tmp_path / "sub/optoutd.db"


def test_an_absolute_database_has_four_slashes(tmp_path: Path) -> None:
    it = loaded(tmp_path, HOUSE + '[storage]\nurl = "sqlite:////srv/list.db"\n')
    assert it.database == Path("/srv/list.db")


def test_under_systemd_database_and_key_are_in_the_state_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    monkeypatch.setenv("STATE_DIRECTORY", f"{state}:/second")
    it = loaded(tmp_path)
    assert (it.database, it.key_file) == (state / "optoutd.db", state / "site.key")


def test_a_database_that_was_named_stays_where_it_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    it = loaded(tmp_path, HOUSE + '[storage]\nurl = "sqlite:///mine.db"\nkey_file = "keys/mine.key"\n')
    assert (it.database, it.key_file) == (tmp_path / "mine.db", tmp_path / "keys/mine.key")


def test_a_shell_finds_the_database_of_the_daemon() -> None:
    """`optoutd suppress` has no $STATE_DIRECTORY, and must not look for the daemon's list in /etc."""
    it = Loaded(Config.model_validate({"house": {"name": "Quill"}}), Path("/etc/optoutd/config.toml"))
    assert (it.database, it.key_file.name) == (Path("/var/lib/optoutd/optoutd.db"), "site.key")


def test_a_credential_comes_before_a_file_beside_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    for name in ("imap-password", "site.key"):
        (tmp_path / name).write_text("beside")
        (credentials / name).write_text("credential\n")
    it = loaded(tmp_path)
    assert it.secret("imap-password") == "credential"
    assert it.key_file == credentials / "site.key"
    assert it.secret("./imap-password") == "beside"
    assert it.scratch == tmp_path / "state"  # credentials are read-only
    in_postgres = loaded(tmp_path, f'{HOUSE}[storage]\nurl = "postgresql:///optoutd"\n')
    assert in_postgres.scratch == tmp_path / "state"
    monkeypatch.delenv("STATE_DIRECTORY")
    assert in_postgres.scratch == tmp_path


def test_a_command_on_the_daemons_config_finds_what_the_unit_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, kept = tmp_path / "run", tmp_path / "credstore"
    for directory in (shown, kept):
        directory.mkdir()
    monkeypatch.setattr(config, "DEFAULT_PATHS", (Path("optoutd.toml"), tmp_path / "config.toml"))
    monkeypatch.setattr(config, "UNITS", (f"{shown}/", f"{kept}/optoutd."))
    it = loaded(tmp_path)
    assert it.file("imap-password") == tmp_path / "imap-password"
    (tmp_path / "imap-password").write_text("beside")
    (kept / "optoutd.imap-password").write_text("kept by root")
    assert it.secret("imap-password") == "kept by root"  # before what lies beside the config, as for the unit itself
    (shown / "imap-password").write_text("shown")
    assert it.secret("imap-password") == "shown"
    assert it.secret("./imap-password") == "beside"
    assert it.key_file == Path("/var/lib/optoutd/site.key")
    (kept / "optoutd.site.key").write_text("")
    assert it.key_file == kept / "optoutd.site.key"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "another"))
    assert it.secret("imap-password") == "beside"
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    monkeypatch.setattr(config, "DEFAULT_PATHS", (Path("optoutd.toml"), Path("/etc/optoutd/config.toml")))
    assert it.secret("imap-password") == "beside"  # a config elsewhere is none of the unit's


@pytest.mark.parametrize(
    ("octets", "secret"),
    [
        (b"pw", "pw"),
        (b"pw\n", "pw"),
        (b"pw\r\n", "pw"),
        (b"pw\n\n", "pw\n"),
        (b" p w \n", " p w "),
        ("pässwört\n".encode(), "pässwört"),
    ],
)
def test_one_newline_at_the_end_of_a_secret_is_cut(tmp_path: Path, octets: bytes, secret: str) -> None:
    (tmp_path / "pw").write_bytes(octets)
    assert loaded(tmp_path).secret("pw") == secret


def test_a_secret_that_cannot_be_read_is_a_config_error_without_the_secret(tmp_path: Path) -> None:
    (tmp_path / "pw").write_bytes(b"hunter\xff\n")
    with pytest.raises(ConfigError, match="not UTF-8") as told:
        loaded(tmp_path).secret("pw")
    assert "hunter" not in str(told.value)
    with pytest.raises(ConfigError, match="No such file"):
        loaded(tmp_path).secret("missing")


def test_a_mailbox_password_that_is_missing_is_told_beside_other_problems(tmp_path: Path) -> None:
    text = MAILBOX.replace("/dev/null", "imap-password") + 'tls = "ssl"\n' + HOUSE
    assert [t.partition(":")[0] for t in problems(tmp_path, text)] == ["mailbox[0].password_file", "mailbox[0].tls"]


# ------------------------------------------------------------------ values


def test_folder_is_the_short_form_of_folders(tmp_path: Path) -> None:
    one = loaded(tmp_path, HOUSE + MAILBOX + 'folder = "INBOX/Ask"\n')
    many = loaded(tmp_path, HOUSE + MAILBOX + 'folders = ["INBOX/Ask"]\n')
    assert one.config == many.config
    assert one.config.mailbox[0].folders == ("INBOX/Ask",)


def test_listen_may_be_one_address(tmp_path: Path) -> None:
    assert loaded(tmp_path, HOUSE + '[relay]\nlisten = "[::1]:0"\n').config.relay.listen == ("[::1]:0",)


def test_names_are_kept_in_the_form_that_is_compared(tmp_path: Path) -> None:
    text = '[house]\nname = "B"\ndomains = ["Bücher.Example."]\naddresses = ["Hilfe@BÜCHER.example"]\n'
    house = loaded(tmp_path, text).config.house
    assert house.domains == ("xn--bcher-kva.example",)
    assert house.addresses == ("Hilfe@xn--bcher-kva.example",)


@pytest.mark.parametrize(
    ("domain", "ours"),
    [
        ("quillpdf.example", True),
        ("News.QuillPDF.example.", True),
        ("notquillpdf.example", False),
        ("quillpdf.example.org", False),
    ],
)
def test_a_house_owns_its_domains_and_what_is_below_them(tmp_path: Path, domain: str, ours: bool) -> None:
    house = loaded(tmp_path, HOUSE + 'domains = ["quillpdf.example"]\n').config.house
    assert house.owns(domain) is ours


@pytest.mark.parametrize(
    "address", ["support@q.example", "SUPPORT@Q.example", "support+u-abc@q.example", "f@q.example"]
)
def test_our_own_addresses_are_known_in_every_spelling(tmp_path: Path, address: str) -> None:
    house = loaded(
        tmp_path, HOUSE + 'addresses = ["Support@q.example"]\nform_addresses = ["f@q.example"]\n'
    ).config.house
    assert house.is_ours(address)
    assert not house.is_ours("ann@q.example")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("loopback", False),
    ],
)
def test_only_this_machine_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@given(st.text(max_size=30))
def test_host_port_takes_what_it_should_or_says_no(text: str) -> None:
    try:
        host, port = host_port(text)
    except ValueError:
        return
    assert host
    assert 0 <= port <= 65535
    assert text in (f"{host}:{text.rpartition(':')[2]}", f"[{host}]:{text.rpartition(':')[2]}")


def test_a_config_is_for_reading_only(tmp_path: Path) -> None:
    it = loaded(tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        it.config.relay.mode = "strip"  # type: ignore[misc]
