"""Every option: its type, default and limit. `load(path)` reports all problems at once.

A section is a frozen pydantic model; its fields are the options of the TOML file, in the order of config.example.toml
(tests/test_config.py holds the two together). Options that the project promises but this version does not have are
listed in LATER and refused with a sentence that says so, unless they are given the value this version lives by anyway.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from storage.address import NotAnAddress, a_label, parse

DEFAULT_PATHS: Final = (Path("optoutd.toml"), Path("/etc/optoutd/config.toml"))


# ------------------------------------------------------------------ kinds of values


def _domain(text: str) -> str:
    try:
        return a_label(text.lower())
    except NotAnAddress as problem:
        raise ValueError(f"{text!r}: {problem}") from None


def _address(text: str) -> str:
    try:
        return str(parse(text)) if text else ""
    except NotAnAddress as problem:
        raise ValueError(f"{text!r}: {problem}") from None


def _listen(text: str) -> str:
    if not is_loopback(host_port(text)[0]):
        raise ValueError("TLS and AUTH are not in this version yet, so only a loopback address is allowed")
    return text


def _loopback(host: str) -> str:
    if not is_loopback(host):
        raise ValueError("TLS to the upstream is not in this version yet, so it must be on loopback")
    return host


def _sqlite(url: str) -> str:
    if url.startswith(("postgresql:", "postgres:")):
        raise ValueError("PostgreSQL is not in this version yet; use sqlite:///FILE")
    if not re.match(r"sqlite:///.", url):
        raise ValueError("must be sqlite:///FILE (three slashes and a relative path, or four and an absolute one)")
    return url


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Domain = Annotated[str, AfterValidator(_domain)]
EMail = Annotated[str, AfterValidator(_address)]
Listen = Annotated[str, AfterValidator(_listen)]
Port = Annotated[int, Field(ge=1, le=65535)]
ListId = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


def host_port(text: str) -> tuple[str, int]:
    """`127.0.0.1:2525`, `[::1]:2525` or `localhost:0` -> (host, port). Raises ValueError."""
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\s\[\]]+):(\d{1,5})", text)
    if not found or int(found[2]) > 65535:
        raise ValueError(f'{text!r} is not HOST:PORT (for example "127.0.0.1:2525" or "[::1]:2525")')
    return found[1].strip("[]"), int(found[2])


def is_loopback(host: str) -> bool:
    """Can only this machine reach it? Names other than localhost are not resolved and count as reachable."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


_CLEAR_TEXT: Final = '"none" is for loopback hosts only; use "implicit" or "starttls"'
_FILED_IN_CIRCLES: Final = "processed_folder and machine_folder must not be among the watched folders"


class Section(BaseModel):
    """A table of the file. Frozen, no unknown keys, no silent conversions ("30" is not 30)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


# ------------------------------------------------------------------ the sections


class MailingList(Section):
    """A named kind of marketing mail. Its id is for ever; a list gone from here keeps its rows."""

    id: ListId
    list_id: str = ""  # RFC 2919 value, as in the List-Id of its mailings
    title: str = ""
    names: tuple[str, ...] = ()  # what people call it
    sender: EMail = ""


class House(Section):
    """Who we are: what reading a message needs to know."""

    name: Annotated[str, Field(min_length=1)]
    domains: tuple[Domain, ...] = ()  # ours, with subdomains
    addresses: tuple[EMail, ...] = ()  # mailboxes people write to
    form_addresses: tuple[EMail, ...] = ()  # senders of our own web forms
    authserv_id: str = ""  # whose Authentication-Results we trust; "" = nobody's
    lists: tuple[MailingList, ...] = Field((), exclude=True)  # filled in by load(); not an option

    def owns(self, domain: str) -> bool:
        """Is this domain one of ours, or below one of ours?"""
        domain = domain.lower().removesuffix(".")
        return any(domain == d or domain.endswith("." + d) for d in self.domains)

    def is_ours(self, address: str) -> bool:
        """Is this one of the addresses people write to (plus tags aside), or of our own web forms?"""
        local, _, domain = address.lower().rpartition("@")
        bare = f"{local.partition('+')[0]}@{domain}"
        return any(a.lower() in (bare, address.lower()) for a in (*self.addresses, *self.form_addresses))


class Storage(Section):
    """Where the ledger and its key are."""

    url: Annotated[str, AfterValidator(_sqlite)] = "sqlite:///optoutd.db"
    key_file: str = "site.key"
    create: bool = True  # may `run` create database and key when both are missing?
    keep_addresses: bool = True
    same_person: tuple[Literal["tag", "alias"], ...] = ("tag", "alias")


class Mailbox(Section):
    """An IMAP account that people write to (role support), or that our bounces return to (role bounces)."""

    name: Name
    host: Annotated[str, Field(min_length=1)]
    port: Port = 993
    tls: Literal["implicit", "starttls", "none"] = "implicit"
    ca_file: str = ""
    username: Annotated[str, Field(min_length=1)]
    password_file: Annotated[str, Field(min_length=1)]
    folders: Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=1)] = ("INBOX",)
    role: Literal["support", "bounces"] = "support"
    processed_folder: str = "Opt-outs"  # "" leaves honoured requests in place
    machine_folder: str = ""  # "" leaves recorded bounces and complaints
    first_days: Annotated[int, Field(ge=0, le=3650)] = 30
    poll_seconds: Annotated[int, Field(ge=1, le=540)] = 60  # Office 365 forgets an IDLE after about ten minutes

    @model_validator(mode="before")
    @classmethod
    def _folder_is_folders(cls, data: object) -> object:
        if isinstance(data, dict) and "folder" in data:
            if "folders" in data:
                raise ValueError("folder: give either folder or folders")
            data = {**{k: v for k, v in data.items() if k != "folder"}, "folders": data["folder"]}
        return data

    @model_validator(mode="after")
    def _no_clear_text(self) -> Mailbox:
        if self.tls == "none" and not is_loopback(self.host):
            raise ValueError(f"tls: {_CLEAR_TEXT}")
        if {self.processed_folder, self.machine_folder} & set(self.folders):
            raise ValueError(_FILED_IN_CIRCLES)
        return self


class Bounce(Section):
    """When temporary failures become a suppression, and for how long."""

    soft_limit: Annotated[int, Field(ge=1)] = 5  # on different days
    soft_window_days: Annotated[int, Field(ge=1)] = 30
    soft_days: Annotated[int, Field(ge=1)] = 30


class Relay(Section):
    """The SMTP door. Loopback only in this version, so that it cannot become an open relay."""

    listen: Annotated[tuple[Listen, ...], BeforeValidator(_as_tuple)] = ("127.0.0.1:2525",)
    hostname: Domain = "localhost"
    mode: Literal["refuse", "strip"] = "refuse"
    max_size: Annotated[int, Field(ge=1024)] = 36_700_160  # octets
    max_recipients: Annotated[int, Field(ge=1)] = 1000
    max_connections: Annotated[int, Field(ge=1)] = 1000
    idle_timeout: Annotated[int, Field(ge=1)] = 300  # seconds; RFC 5321 4.5.3.2.7 asks for 300


class Upstream(Section):
    """The MTA that takes the mail from us."""

    host: Annotated[str, Field(min_length=1), AfterValidator(_loopback)] = "127.0.0.1"
    port: Port = 25
    timeout: Annotated[int, Field(ge=1)] = 60  # seconds for one reply; the reply to the dot: 570
    connections: Annotated[int, Field(ge=1)] = 20


class Log(Section):
    """What is logged, and how."""

    format: Literal["auto", "json", "text"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"
    addresses: Literal["digest", "plain"] = "digest"


class Config(Section):
    """The whole file. Only `service`, `doctor`, `demo` and `cli` see it; a door gets its own section plus house and lists."""

    house: House
    list: tuple[MailingList, ...] = ()
    storage: Storage = Storage()
    mailbox: tuple[Mailbox, ...] = ()
    bounce: Bounce = Bounce()
    relay: Relay = Relay()
    upstream: Upstream | None = None
    log: Log = Log()


# What CONTRACT promises and this version lacks: path -> the values that are true of this version all the same.
LATER: Final[dict[str, tuple[object, ...]]] = {
    "house.operators_mail": ("",),
    "house.language": (),
    "storage.backup_dir": ("",),
    "mailbox.oauth2": (),
    "mailbox.subaddress": ("",),
    "mailbox.trusted_only": (True,),
    "mailbox.observe": (False,),
    "intake.unproven_per_hour": (0,),
    "relay.listener": (),
    "relay.tls": ("none",),
    "relay.cert_file": ("",),
    "relay.key_file": ("",),
    "relay.auth": (False,),
    "relay.senders": ([],),
    "relay.stamp": (False,),
    "relay.existing": ("keep",),
    "relay.bare_newline": ("refuse",),
    "relay.credential": (),
    "upstream.tls": ("none",),
    "upstream.ca_file": ("",),
    "upstream.username": ("",),
    "upstream.password_file": ("",),
    "notices.confirm": (False,),
    "notices.sender": ("",),
    "web": (),
    "postfix": (),
    "retention.evidence": (0,),
    "retention.refusals": (),
    "retention.ordinary": (0,),
    "retention.review_excerpt": (0,),
}
_LATER_CHOICES: Final = {"relay.mode": ("observe",)}
_LATER_SECTIONS: Final = frozenset(p.partition(".")[0] for p in LATER if "." in p) - Config.model_fields.keys()


# ------------------------------------------------------------------ loading


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a config: the option's path and a sentence."""

    path: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.path}: {self.sentence}" if self.path else self.sentence


class ConfigError(Exception):
    """The config cannot be used; `problems` has all that is wrong with it."""

    def __init__(self, problems: list[Problem]):
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Loaded:
    """A config that was read, and where from: relative paths in it start at `base`."""

    config: Config
    path: Path

    @property
    def base(self) -> Path:
        """The directory of the config file."""
        return self.path.parent

    @property
    def database(self) -> Path:
        """The SQLite file of `storage.url`."""
        named = self.config.storage.url.removeprefix("sqlite:///")
        state = self._state_directory()
        return state / named if named == "optoutd.db" and state else self.base / named

    @property
    def key_file(self) -> Path:
        """The site key's file."""
        name = self.config.storage.key_file
        state = self._state_directory()
        if "/" not in name and state and not _credential(name):
            beside = self.base / name
            return beside if beside.exists() else state / name
        return self.file(name)

    def _state_directory(self) -> Path | None:
        """The default home of database and key: under systemd, and for whoever shares the daemon's config with it."""
        if "STATE_DIRECTORY" in os.environ:
            return Path(os.environ["STATE_DIRECTORY"].partition(":")[0])
        return Path("/var/lib/optoutd") if self.base == DEFAULT_PATHS[-1].parent else None

    def file(self, name: str) -> Path:
        """Where a `..._file` option points: absolute; or a systemd credential of that name; or beside the config."""
        return _beside(self.path, name)

    def secret(self, name: str) -> str:
        """The secret in a `..._file`, less one trailing newline. Raises ConfigError when it cannot be read."""
        path = self.file(name)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as why:
            reason = why.strerror if isinstance(why, OSError) else "not UTF-8"
            raise ConfigError([Problem("", f"secret file {path}: {reason}")]) from None
        return text.removesuffix("\n").removesuffix("\r")


def _beside(config: Path, name: str) -> Path:
    return _credential(name) or config.parent / name


def _credential(name: str) -> Path | None:
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(directory, name) if directory and "/" not in name else None
    return path if path and path.exists() else None


def find(given: str | None) -> Path:
    """The config file to use: `given`, else $OPTOUTD_CONFIG, else ./optoutd.toml, else /etc/optoutd/config.toml."""
    named = given or os.environ.get("OPTOUTD_CONFIG")
    if named:
        return Path(named)
    for path in DEFAULT_PATHS:
        if path.exists():
            return path
    raise ConfigError(
        [
            Problem(
                "",
                "no config: give one with -c FILE, or copy config.example.toml to ./optoutd.toml (`optoutd demo` needs none)",
            )
        ]
    )


def load(path: Path) -> Loaded:
    """Read and check a config file. Raises ConfigError with every problem found, not the first."""
    data = _read(path)
    problems = [*_later(data), *_across(data), *_missing_files(data, path.absolute())]
    config: Config | None = None
    try:
        config = Config.model_validate(_without_later(data), strict=True)
    except ValidationError as error:
        problems += [_problem(e) for e in error.errors(include_url=False, include_input=False)]
    if problems or config is None:
        raise ConfigError(sorted(dict.fromkeys(problems), key=lambda p: p.path))
    house = config.house.model_copy(update={"lists": config.list})
    return Loaded(config.model_copy(update={"house": house}), path.absolute())


def load_house(path: Path) -> House:
    """Only [house] and [[list]] of a file, which is all that reading a message needs. Raises ConfigError."""
    data = {k: v for k, v in _read(path).items() if k in ("house", "list")}
    try:
        config = Config.model_validate(_without_later(data), strict=True)
    except ValidationError as error:
        raise ConfigError([_problem(e) for e in error.errors(include_url=False, include_input=False)]) from None
    return config.house.model_copy(update={"lists": config.list})


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            _refuse_foreign(path, os.fstat(file.fileno()))
            data: dict[str, Any] = _tuples(tomllib.load(file))
            return data
    except OSError as why:
        raise ConfigError([Problem("", f"config {path}: {why.strerror}")]) from None
    except tomllib.TOMLDecodeError as why:
        raise ConfigError([Problem("", f"config {path}: not valid TOML: {why}")]) from None
    except UnicodeDecodeError:
        raise ConfigError([Problem("", f"config {path}: not UTF-8")]) from None


def _refuse_foreign(path: Path, found: os.stat_result) -> None:
    """A config decides whose mail is read and where passwords go: nobody else may have written it."""
    if found.st_uid not in (0, os.geteuid()):
        raise ConfigError([Problem("", f"config {path}: belongs to another user; it must be yours or root's")])
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError([Problem("", f"config {path}: others may write it; run: chmod go-w {path}")])


def _tuples(value: Any) -> Any:
    """TOML arrays as tuples: the sections are immutable."""
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _options(data: dict[str, Any], at: str = "", name: str = "") -> Iterator[tuple[str, str, Any]]:
    """(path with indices, path without, value) of every table entry."""
    for key, value in data.items():
        here, plain = f"{at}.{key}".lstrip("."), f"{name}.{key}".lstrip(".")
        yield here, plain, value
        if isinstance(value, dict):
            yield from _options(value, here, plain)
        elif isinstance(value, tuple):
            for n, item in enumerate(value):
                if isinstance(item, dict):
                    yield from _options(item, f"{here}[{n}]", plain)


def _later(data: dict[str, Any]) -> Iterator[Problem]:
    for here, plain, value in _options(data):
        true_now = LATER.get(plain)
        if (
            true_now is not None
            and value not in true_now
            and list(value if isinstance(value, tuple) else "-") not in true_now
        ):
            hint = f" (this version: {' or '.join(map(_toml, true_now))})" if true_now else ""
            yield Problem(here, f"not in this version yet{hint}")
        if isinstance(value, str) and value in _LATER_CHOICES.get(plain, ()):
            yield Problem(here, f"{value!r} is not in this version yet")
        if plain in _LATER_SECTIONS and not isinstance(value, dict):
            yield Problem(here, "must be a [table]")
        section, _, option = plain.partition(".")
        if section in _LATER_SECTIONS and option and plain not in LATER:
            yield _unknown(here, option, _later_options(section))


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)


def _without_later(data: dict[str, Any], name: str = "") -> dict[str, Any]:
    """The data less what `_later` has judged, so that no option is reported twice."""
    kept: dict[str, Any] = {}
    for key, value in data.items():
        plain = f"{name}.{key}".lstrip(".")
        if (
            plain in LATER
            or plain in _LATER_SECTIONS
            or (isinstance(value, str) and value in _LATER_CHOICES.get(plain, ()))
        ):
            continue
        if isinstance(value, dict):
            value = _without_later(value, plain)
        elif isinstance(value, tuple):
            value = tuple(_without_later(v, plain) if isinstance(v, dict) else v for v in value)
        kept[key] = value
    return kept


_SENTENCES: Final = {
    "missing": "must be given",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "string_type": "must be a string in quotes",
    "tuple_type": "must be a list in [brackets]",
    "string_too_short": "must not be empty",
}


def _problem(error: Any) -> Problem:
    """A pydantic error in our words."""
    path, kind, sentence = _path(error["loc"]), error["type"], str(error["msg"])
    if kind == "extra_forbidden":
        return _unknown(path, str(error["loc"][-1]), _known(error["loc"][:-1]))
    if kind == "value_error":
        sentence = sentence.removeprefix("Value error, ")
        named = re.match(r"([a-z_]+(?:\[\d+\])?(?:\.[a-z_]+)?): (.*)", sentence, re.DOTALL)
        return Problem(f"{path}.{named[1]}".lstrip("."), named[2]) if named else Problem(path, sentence)
    if kind == "model_type":
        return Problem(path, "must be a [table]")
    if kind == "string_pattern_mismatch":
        return Problem(
            path,
            "only small letters, digits and hyphens, at most 32"
            if path.startswith("list")
            else "only letters, digits, dots, hyphens and underscores",
        )
    if kind == "literal_error":
        return Problem(path, "must be " + str(error["ctx"]["expected"]).replace("'", '"'))
    return Problem(path, _SENTENCES.get(kind) or sentence[0].lower() + sentence[1:])


def _unknown(path: str, given: str, known: Sequence[str]) -> Problem:
    near = difflib.get_close_matches(given, known, 1)
    return Problem(path, "unknown key" + (f", did you mean `{near[0]}`?" if near else ""))


def _path(loc: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")


def _known(loc: tuple[int | str, ...]) -> list[str]:
    """The option names at a place of the file, those of later versions too."""
    model: Any = Config
    for part in loc:
        if isinstance(part, str):
            model = _model(model.model_fields[part].annotation)
    later = _later_options(".".join(p for p in loc if isinstance(p, str)))
    return [*(n for n, f in model.model_fields.items() if not f.exclude), *later]


def _later_options(at: str) -> list[str]:
    return [p.removeprefix(at + ".").partition(".")[0] for p in LATER if not at or p.startswith(at + ".")]


def _model(annotation: Any) -> Any:
    """The section inside `tuple[Section, ...]` or `Section | None`."""
    if get_origin(annotation) is None:
        return annotation
    return next(a for a in get_args(annotation) if isinstance(a, type) and issubclass(a, BaseModel))


def _tables(data: dict[str, Any], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(path, table) of an array of tables, as far as it is one."""
    found = data.get(name)
    for n, table in enumerate(found if isinstance(found, tuple) else ()):
        if isinstance(table, dict):
            yield f"{name}[{n}]", table


def _across(data: dict[str, Any]) -> Iterator[Problem]:
    """What is wrong between options. Pydantic would say so only once every option by itself is right."""
    for name, key in (("list", "id"), ("mailbox", "name")):
        given: list[object] = []
        for at, table in _tables(data, name):
            if table.get(key) in given:
                yield Problem(f"{at}.{key}", f"{table[key]!r} is given twice")
            given += [table[key]] if key in table else []
    for at, box in _tables(data, "mailbox"):
        if box.get("tls") == "none" and isinstance(box.get("host"), str) and not is_loopback(box["host"]):
            yield Problem(f"{at}.tls", _CLEAR_TEXT)
        watched = _as_tuple(box.get("folders", box.get("folder", "INBOX")))
        filed = box.get("processed_folder", "Opt-outs"), box.get("machine_folder", "")
        if isinstance(watched, tuple) and any(f in watched for f in filed):
            yield Problem(at, _FILED_IN_CIRCLES)
    if isinstance(data.get("house"), dict) and "lists" in data["house"]:
        yield Problem("house.lists", "unknown key")


def _missing_files(data: dict[str, Any], path: Path) -> Iterator[Problem]:
    """Secret and CA files that cannot be read: better told now than at the first connection."""
    for at, box in _tables(data, "mailbox"):
        for option in ("password_file", "ca_file"):
            name = box.get(option)
            if isinstance(name, str) and name and not os.access(_beside(path, name), os.R_OK):
                yield Problem(f"{at}.{option}", f"cannot read {_beside(path, name)}")
