"""The config file: finding it, reading it, and telling all that is wrong with it at once.

The options themselves stand in daemon/options.py; they are re-exported here, where the rest of the daemon gets them.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, ValidationError

from daemon import crosschecks
from daemon.options import (
    Bounce,
    Brake,
    Config,
    Endpoint,
    House,
    Intake,
    Listener,
    Log,
    Mailbox,
    MailingList,
    Notices,
    OAuth2,
    Relay,
    Retention,
    Section,
    Storage,
    Upstream,
    Web,
    Webhook,
)
from daemon.values import bound_to, host_port, is_loopback

__all__ = [
    "Bounce",
    "Brake",
    "Config",
    "ConfigError",
    "Endpoint",
    "House",
    "Intake",
    "Listener",
    "Loaded",
    "Log",
    "Mailbox",
    "MailingList",
    "Notices",
    "OAuth2",
    "Problem",
    "Relay",
    "Retention",
    "Section",
    "Storage",
    "Upstream",
    "Web",
    "Webhook",
    "bound_to",
    "find",
    "host_port",
    "is_loopback",
    "load",
    "load_house",
]

DEFAULT_PATHS: Final = (Path("optoutd.toml"), Path("/etc/optoutd/config.toml"))
# What stands before the name of a secret of our unit: where systemd shows it, and where root keeps it.
UNITS: Final = ("/run/credentials/optoutd.service/", "/etc/credstore/optoutd.")


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
    def in_postgres(self) -> bool:
        """Does the ledger lie in PostgreSQL? Else in a file, `database`."""
        return self.config.storage.url.startswith("postgresql:")

    @property
    def database(self) -> Path:
        """The SQLite file of `storage.url`."""
        named = self.config.storage.url.removeprefix("sqlite:///")
        state = self._state_directory()
        return state / named if named == "optoutd.db" and state else self.base / named

    @property
    def scratch(self) -> Path:
        """A directory of ours to keep things in for a while: that of the ledger. (The site key's may be read-only.)"""
        return self._state_directory() or self.base if self.in_postgres else self.database.parent

    def with_url(self, url: str) -> Loaded:
        """The same with the ledger elsewhere. Raises ConfigError for a `storage.url` that cannot be one."""
        try:
            storage = Storage.model_validate({**self.config.storage.model_dump(), "url": url})
        except ValidationError as wrong:
            raise ConfigError([_problem(e) for e in wrong.errors()]) from None
        return Loaded(self.config.model_copy(update={"storage": storage}), self.path)

    @property
    def key_file(self) -> Path:
        """The site key's file."""
        name = self.config.storage.key_file
        state = self._state_directory()
        if "/" not in name and state and not _credential(self.path, name):
            beside = self.base / name
            return beside if beside.exists() else state / name
        return self.file(name)

    @property
    def backup_dir(self) -> Path | None:
        """Where hourly backups and the journal of keys are kept, if they are wanted."""
        named = self.config.storage.backup_dir
        return self.base / named if named else None

    def _state_directory(self) -> Path | None:
        """The default home of database and key: under systemd, and for whoever shares the daemon's config with it."""
        if "STATE_DIRECTORY" in os.environ:
            return Path(os.environ["STATE_DIRECTORY"].partition(":")[0])
        return Path("/var/lib/optoutd") if self.base == DEFAULT_PATHS[-1].parent else None

    def file(self, name: str) -> Path:
        """Where a `..._file` option points: absolute; or a systemd credential of that name; or beside the config.

        A command beside the daemon, on its config, finds what the unit is shown: else it could be used by nobody.
        """
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
    return _credential(config, name) or config.parent / name


def _credential(config: Path, name: str) -> Path | None:
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if "/" in name or not (directory or config.parent == DEFAULT_PATHS[-1].parent):
        return None
    places = (f"{directory}/",) if directory else UNITS
    return next((Path(place + name) for place in places if os.access(place + name, os.F_OK)), None)


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
    crossed = crosschecks.problems(data, lambda name: _beside(path.absolute(), name))
    problems = [Problem(at, sentence) for at, sentence in crossed]
    config: Config | None = None
    try:
        config = Config.model_validate(data, strict=True)
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
        config = Config.model_validate(data, strict=True)
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


_SENTENCES: Final = {
    "missing": "must be given",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "string_type": "must be a string in quotes",
    "tuple_type": "must be a list in [brackets]",
    "string_too_short": "must not be empty",
    "too_short": "needs at least one valid entry",
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
    """The option names at a place of the file."""
    model: Any = Config
    for part in loc:
        if isinstance(part, str):
            model = _model(model.model_fields[part].annotation)
    return [n for n, f in model.model_fields.items() if not f.exclude]


def _model(annotation: Any) -> Any:
    """The section inside `tuple[Section, ...]` or `Section | None`."""
    if get_origin(annotation) is None:
        return annotation
    return next(a for a in get_args(annotation) if isinstance(a, type) and issubclass(a, BaseModel))
