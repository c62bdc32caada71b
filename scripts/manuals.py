"""The man pages, written from what the program itself goes by: `make man`.

    optoutd(1)       from the commands and their options, as `--help` shows them
    optoutd.toml(5)  from config.example.toml (what an option is for) and daemon/options.py (what it may be)

Nothing is written here that stands elsewhere; tests/test_manuals.py holds the pages in man/ to their sources.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import annotated_types
import typer

from daemon import __version__, options, values
from daemon.cli import app

_EXIT_CODES: Final = (
    ("0", "done; yes; nobody is suppressed"),
    ("1", "the answer is no: somebody is suppressed, a check failed, no such suppression"),
    ("64", "wrong usage, or a list that is not in the config"),
    ("65", "bad input data; what was good is done"),
    ("66", "an input cannot be opened"),
    ("70", "a bug of optoutd"),
    ("75", "cannot tell, or try again later: the database is away, a port is taken"),
    ("78", "config, schema or key are wrong"),
    ("130", "Ctrl-C"),
)
_FILES: Final = (
    (
        "./optoutd.toml, /etc/optoutd/config.toml",
        "the config: the first that is there, if neither -c nor $OPTOUTD_CONFIG names one",
    ),
    ("/var/lib/optoutd/optoutd.db", "the list, the record, and what the mailbox is owed (under systemd)"),
    ("/var/lib/optoutd/site.key", "the key without which the list cannot be read: keep a copy apart from the database"),
)
_ENVIRONMENT: Final = (
    ("OPTOUTD_CONFIG", "the config file, where -c names none"),
    ("CREDENTIALS_DIRECTORY", "where the name of a secret is looked for first; systemd sets it"),
    ("STATE_DIRECTORY", "where database and key are, unless the config says otherwise; systemd sets it"),
    ("NO_COLOR", "no colours, whatever the terminal can do"),
)
_KINDS: Final[dict[Any, str]] = {
    values.Colour: "#RRGGBB",
    values.Database: "sqlite:///FILE or postgresql://USER@HOST/NAME",
    values.Domain: "domain",
    values.EMail: "address",
    values.HeaderName: "name of a header field",
    values.HookUrl: "URL",
    values.Language: "language (two letters)",
    values.Listen: "HOST:PORT",
    values.ListenHere: "HOST:PORT",
    values.ListenOrNot: "HOST:PORT",
    values.ListId: "id of a list (small letters, digits, hyphens)",
    values.Name: "name (letters, digits, . _ -)",
    values.Network: "IP address or network",
    values.PlainEMail: "address (ASCII)",
    values.PublicUrl: "https URL",
    values.SenderId: "5 to 15 letters, digits, hyphens or underscores",
}


# ------------------------------------------------------------------ roff


def escaped(text: str) -> str:
    """As roff takes it literally; with hyphens that can be copied."""
    plain = text.replace("\\", "\\e").replace("-", "\\-")
    plain = plain.replace("’", "'").replace("“", "\\(lq").replace("”", "\\(rq").replace("…", "...")
    return re.sub(r"^(?=[.'])", r"\\&", plain, flags=re.MULTILINE)


def bold(text: str) -> str:
    """In bold."""
    return f"\\fB{escaped(text)}\\fR"


def entry(term: str, text: str) -> Iterator[str]:
    """A term and what it means."""
    yield from (".TP", term, escaped(text) if text else "\\&")


def page(name: str, section: int, about: str, body: Iterator[str]) -> str:
    """A whole page."""
    head = [
        f'.TH {name.upper()} {section} "" "optoutd {__version__}"',
        ".SH NAME",
        f"{escaped(name)} \\- {escaped(about)}",
    ]
    return "\n".join([*head, *body]) + "\n"


# ------------------------------------------------------------------ optoutd(1)


def commands() -> Iterator[str]:
    """The body of optoutd(1)."""
    group = typer.main.get_command(app)
    yield from (".SH SYNOPSIS", ".B optoutd", "[\\fB\\-c\\fR \\fIFILE\\fR] \\fICOMMAND\\fR [\\fIARGUMENT\\fR...]")
    yield from (".SH DESCRIPTION", escaped(_one_line(group.help)))
    yield escaped(
        "Facts go to stdout, everything else (progress, notes, errors) to stderr. With --json each fact is a line of JSON."
    )
    yield ".SH OPTIONS"
    yield from _parameters(group.params)
    yield ".SH COMMANDS"
    yield from _tree(group, "")
    for title, rows in (("EXIT STATUS", _EXIT_CODES), ("ENVIRONMENT", _ENVIRONMENT), ("FILES", _FILES)):
        yield f".SH {title}"
        for term, text in rows:
            yield from entry(bold(term), text)
    yield ".SH SIGNALS"
    yield from entry(
        bold("SIGHUP"), "run: the config, certificates and secrets are read again; a bad file changes nothing"
    )
    yield from entry(
        bold("SIGTERM, SIGINT"), "run: finish what is past its final dot, and end; a second one ends at once"
    )
    yield from (".SH SEE ALSO", ".BR optoutd.toml (5),", ".BR systemctl (1),", ".BR postconf (5)")


def _tree(group: Any, above: str) -> Iterator[str]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if getattr(command, "commands", None):
            yield from _tree(command, f"{above}{name} ")
        else:
            yield from _command(f"{above}{name}", command)


def _command(name: str, command: Any) -> Iterator[str]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    given = " ".join(f"\\fI{escaped(_metavar(a))}\\fR" for a in arguments)
    yield f".SS {bold(name)} {given}".rstrip()
    paragraphs = re.split(r"\n\s*\n", (command.help or "").strip())
    for number, paragraph in enumerate(paragraphs):
        yield from ([".PP"] if number else []) + [escaped(_one_line(paragraph))]
    yield from _parameters(command.params)


def _metavar(argument: Any) -> str:
    name = str(argument.metavar or argument.name.upper()).strip("{}")
    return name if argument.required else f"[{name}]"


def _parameters(parameters: Sequence[Any]) -> Iterator[str]:
    for parameter in parameters:
        if (
            parameter.param_type_name != "option"
            or parameter.hidden
            or parameter.name in ("install_completion", "show_completion")
        ):
            continue
        names = ", ".join(bold(name) for name in sorted(parameter.opts, key=len))
        value = (
            "" if parameter.is_flag else f" \\fI{escaped(str(parameter.metavar or parameter.type.name.upper()))}\\fR"
        )
        default = parameter.default
        shown = (
            f" Default: {default}."
            if isinstance(default, str | int) and not isinstance(default, bool) and default != ""
            else ""
        )
        yield from entry(names + value, _one_line(parameter.help or "") + shown)


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


# ------------------------------------------------------------------ optoutd.toml(5)


@dataclass
class Table:
    """A table of config.example.toml: its path, what stands beside its name, and its options with what stands beside them."""

    path: str
    about: str
    options: dict[str, str] = field(default_factory=dict)


def tables(example: str) -> Iterator[Table]:
    """As they stand in the example, those that are commented out too."""
    head = re.compile(r"(?:# )?\[\[?([a-z0-9_.]+)\]\]?\s*(?:# (.*))?$")
    line_of = re.compile(r"(?:# )?([a-z_]+) = (?:\"[^\"]*\"|\[[^\]]*\]|\S+)\s*(?:# (.*))?$")
    more = re.compile(r"(?:# )?\s{12,}# (.*)$")
    table, last = Table("", ""), ""
    for line in example.splitlines():
        if found := head.match(line):
            if table.path:
                yield table
            table, last = Table(found[1], found[2] or ""), ""
        elif found := line_of.match(line):
            last = found[1]
            table.options[last] = found[2] or ""
        elif last and (found := more.match(line)):
            table.options[last] += " " + found[1]
    yield table


def config() -> Iterator[str]:
    """The body of optoutd.toml(5)."""
    example = (ROOT / "config.example.toml").read_text(encoding="utf-8")
    intro = re.findall(r"^# ?(.*)$", example.partition("\n[")[0], re.MULTILINE)
    yield ".SH DESCRIPTION"
    for number, paragraph in enumerate("\n".join(intro).split("\n\n")):
        yield from ([".PP"] if number else []) + [escaped(_one_line(paragraph))]
    for table in tables(example):
        section = _section(table.path)
        many = get_origin(_hints(_section(table.path.rpartition(".")[0]))[table.path.rpartition(".")[2]]) is tuple
        yield f".SH {escaped(f'[[{table.path}]]' if many else f'[{table.path}]')}"
        yield from [escaped(_sentence(table.about))] if table.about else []
        for name, about in table.options.items():
            yield from _option(section, name, about)
    yield from (".SH SEE ALSO", ".BR optoutd (1)")


def _option(section: type[options.Section], name: str, about: str) -> Iterator[str]:
    found = section.model_fields.get(name)
    if found is None:  # a short form of another
        yield from entry(bold(name), _sentence(about))
        return
    kind = kind_of(_hints(section)[name])
    required = "must be given" if found.is_required() else "optional"
    if not found.is_required() and found.default is not None:
        required = f"default: {_toml(found.default)}"
    yield from (".TP", f"{bold(name)} ({escaped(kind)}; {escaped(required)})", escaped(_sentence(about)) or "\\&")


def _sentence(text: str) -> str:
    first = text[:1] if " | " in text[:30] else text[:1].upper()  # values keep their case
    return first + text[1:] + ("" if not text or text[-1] in ".?!" else ".")


def _section(path: str) -> type[options.Section]:
    """The model of a table. Raises KeyError for a table that is none."""
    found: type[options.Section] = options.Config
    for name in path.split(".") if path else ():
        found = next(t for t in _inside(_hints(found)[name]) if isinstance(t, type) and issubclass(t, options.Section))
    return found


def _inside(hint: Any) -> Iterator[Any]:
    yield hint
    for part in get_args(hint):
        yield from _inside(part)


def _hints(of: type) -> dict[str, Any]:
    return get_type_hints(of, include_extras=True)


def kind_of(hint: Any) -> str:
    """What a value may be, in words."""
    if hint in _KINDS:
        return _KINDS[hint]
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _limited(kind_of(parts[0]), parts[1:])
    if origin is Literal:
        return " | ".join(map(str, parts)) if "" not in parts else " | ".join(f'"{p}"' for p in parts)
    if origin is tuple:
        return f"list of: {kind_of(parts[0])}"
    if origin in (Union, UnionType):
        return " or ".join(kind_of(p) for p in parts if p is not NoneType and p != Literal[""])
    return {bool: "true | false", int: "integer", str: "text"}.get(hint, "table")


def _limited(kind: str, limits: Sequence[Any]) -> str:
    found = {type(m): m for limit in limits for m in (getattr(limit, "metadata", None) or [limit])}
    least, most = found.get(annotated_types.Ge), found.get(annotated_types.Le)
    if least is not None and most is not None:
        return f"{kind}, {least.ge} to {most.le}"
    return f"{kind}, {least.ge} or more" if least is not None else kind


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


PAGES: Final[dict[str, Callable[[], str]]] = {
    "optoutd.1": lambda: page("optoutd", 1, "keeps people who opted out from being mailed again", commands()),
    "optoutd.toml.5": lambda: page("optoutd.toml", 5, "the config of optoutd", config()),
}


def main() -> None:
    """Write them."""
    (ROOT / "man").mkdir(exist_ok=True)
    for name, made in PAGES.items():
        (ROOT / "man" / name).write_text(made(), encoding="utf-8")


if __name__ == "__main__":
    main()
