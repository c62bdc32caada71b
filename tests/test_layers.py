"""Who may import whom (docs/ARCHITECTURE.md draws it), read from the source with `ast`."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import daemon
import storage

ROOT = Path(__file__).parents[1]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("daemon", "storage")
    for path in sorted((ROOT / package).rglob("*.py"))
    if "migrations" not in path.parts
}

DOORS = {"daemon.mailbox", "daemon.relay", "daemon.web", "daemon.postfix", "daemon.jobs", "daemon.cli"}
DESKS = {
    "daemon.intake",
    "daemon.gate",
    "daemon.exchange",
    "daemon.notices",
    "daemon.register",
    "daemon.hand",
    "daemon.telling",
    "daemon.papers",
    "daemon.webhooks",
    "daemon.witness",
    "daemon.duty",
}
ROOMS = {"daemon.mail", "storage"}
LEAVES = {
    "daemon.archives",
    "daemon.options",
    "daemon.process",
    "daemon.config",
    "daemon.events",
    "daemon.relay_events",
    "daemon.log",
    "daemon.loop",
    "daemon.metrics",
    "daemon.posting",
    "daemon.connection",
    "daemon.crosschecks",
    "daemon.steps",
    "daemon.delivery",
    "daemon.own_mail",
    "daemon.dialling",
    "daemon.upstream",
    "daemon.systemd",
    "daemon.texts",
    "daemon.values",
    "daemon.vitals",
    "storage.address",
}
COMPOSERS = {
    "daemon.relaying",
    "daemon.building",
    "daemon.doors",
    "daemon.roles",
    "daemon.mailboxes",
    "daemon.hosting",
    "daemon.nodes",
    "daemon.reloading",
    "daemon.opening",
    "daemon.replay",
    "daemon.service",
    "daemon.doctor",
    "daemon.demo",
    "daemon.__main__",
    "daemon",
}

# From -> what it may import. A part may always import itself.
ALLOWED = {
    "door": {"desk", "room", "leaf"},
    "desk": {"room", "leaf"},
    "room": {"leaf"},
    "leaf": {"leaf"},
    "composer": {"composer", "door", "desk", "room", "leaf"},
}
# More arrows: the outermost door calls what composes, and `telling` words what the gate answers.
EXTRA = {
    ("daemon.cli", f"daemon.{composer}") for composer in ("opening", "relaying", "replay", "service", "demo", "doctor")
} | {("daemon.telling", "daemon.gate")}


def part(module: str) -> str:
    """The part of the house that a module belongs to."""
    for name in sorted(DOORS | DESKS | ROOMS | LEAVES | COMPOSERS, key=len, reverse=True):
        if module == name or (module.startswith(name + ".") and name != "daemon"):
            return name
    raise AssertionError(f"{module} has no place above: give it one")


def kind(of: str) -> str:
    groups = {"door": DOORS, "desk": DESKS, "room": ROOMS, "leaf": LEAVES, "composer": COMPOSERS}
    return next(name for name, members in groups.items() if of in members)


def imports(tree: ast.AST, *, functions: bool = True) -> Iterator[str]:
    """The modules of ours that are imported; those under TYPE_CHECKING are not, they do not exist at run time."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from (i for n in node.orelse for i in imports(n, functions=functions))
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name in FILES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where an arrow goes"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield from [name] if name in FILES else [node.module] if node.module in FILES else []
        elif functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports(node, functions=functions)


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text())


def test_there_is_something_to_look_at() -> None:
    assert len(FILES) > 40
    assert "storage.address" in set(imports(tree("daemon.values")))
    assert "daemon.mail.markup" in set(imports(tree("daemon.mail.dsn"))) - set(
        imports(tree("daemon.mail.dsn"), functions=False)
    )


@pytest.mark.parametrize("module", FILES)
def test_arrows_point_inwards(module: str) -> None:
    here = part(module)
    wrong = [
        f"{module} ({kind(here)}) imports {target} ({kind(there)})"
        for target in imports(tree(module))
        for there in [part(target)]
        if there not in (here, "daemon") and kind(there) not in ALLOWED[kind(here)] and (here, there) not in EXTRA
        and not (here == "storage.address" and there == "storage")  # it is inside
    ]  # fmt: skip
    assert not wrong


def test_the_reading_of_a_message_knows_nothing_of_what_we_remember() -> None:
    """The one arrow from mail/ to storage/ is to storage.address; it may look at config, and tells nobody anything."""
    reached = {t for m in FILES if part(m) == "daemon.mail" for t in imports(tree(m)) if part(t) != "daemon.mail"}
    assert reached <= {"daemon.config", "daemon.options", "storage.address"}


def test_storage_knows_nothing_of_the_daemon() -> None:
    assert not [t for m in FILES if m.startswith("storage") for t in imports(tree(m)) if t.startswith("daemon")]


def test_address_forms_are_pure() -> None:
    assert not set(imports(tree("storage.address")))


def test_nothing_imports_in_a_circle() -> None:
    arrows = {module: set(imports(tree(module), functions=False)) for module in FILES}
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for target in arrows[module]:
                walk(target, (*path, module))
            done.add(module)

    for module in FILES:
        walk(module, ())


def test_only_what_composes_sees_the_whole_config() -> None:
    """A door gets its own section plus house and lists."""
    whole = {"Config", "Loaded", "load"}
    see = {
        part(module)
        for module in FILES
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ImportFrom) and node.module in ("daemon.config", "daemon.options")
        if whole & {a.name for a in node.names}
    }
    assert see <= COMPOSERS | {"daemon.cli", "daemon.config"}


def test_a_writing_transaction_begins_in_one_file_only() -> None:
    words = {
        module: [n.value for n in ast.walk(tree(module)) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        for module in FILES
    }
    documented = (ast.Module, ast.FunctionDef, ast.ClassDef)
    docs = {ast.get_docstring(n, False) for m in FILES for n in ast.walk(tree(m)) if isinstance(n, documented)}
    begins = {m for m, texts in words.items() for t in texts if "BEGIN IMMEDIATE" in t and t not in docs}
    assert begins == {"storage.write"}


def test_only_the_hot_path_and_the_opening_speak_to_sqlite3_itself() -> None:
    direct = {
        m
        for m in FILES
        if "sqlite3.connect" in (ast.unparse(n) for n in ast.walk(tree(m)) if isinstance(n, ast.Attribute))
    }
    assert direct <= {"storage.lookup", "storage.sqlite"}


# ------------------------------------------------------------------ at import

_WATCHED = """
import sys, os
opened = []
def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        name, flags = arguments[0], arguments[2]
        code = name.endswith((".py", ".pyc", ".so", ".pth", ".zip", ".mo")) or "__pycache__" in name or ".dist-info" in name
        if not code and (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            opened.append(name)
        if name.endswith((".toml", ".db", ".key")) and "phrases" not in name:
            opened.append(name)
    elif event in ("socket.connect", "socket.bind", "subprocess.Popen", "sqlite3.connect", "os.fork"):
        opened.append(event)
reads = []
class Environment(dict):
    def get(self, key, default=None):
        reads.append(key) if key.startswith(("OPTOUTD", "CREDENTIALS_", "STATE_", "NOTIFY_", "WATCHDOG_")) else None
        return super().get(key, default)
    def __getitem__(self, key):
        self.get(key)
        return super().__getitem__(key)
os.environ = Environment(os.environ)
sys.addaudithook(hook)
import importlib
for module in sys.argv[1:]:
    importlib.import_module(module)
    if opened or reads:
        print(module, opened, reads)
        sys.exit(1)
print("\\n".join(sys.modules))
"""


def imported(*modules: str) -> set[str]:
    """What a fresh interpreter has loaded after importing these, and nothing has happened beside it."""
    run = subprocess.run([sys.executable, "-B", "-c", _WATCHED, *modules], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return set(run.stdout.split())


def test_nothing_happens_at_import() -> None:
    """No engine, no config, no environment, no socket."""
    assert set(FILES) <= imported(*(m for m in FILES if m != "daemon.__main__")) | {"daemon.__main__"}


def test_a_relay_starts_without_alembic_and_a_demo_server() -> None:
    loaded = imported("daemon.service")
    assert not {m.partition(".")[0] for m in loaded} & {"alembic", "pymap", "typer"}
    # nor what only the HTTP door needs: a third of a second in which nobody takes mail
    assert not {m.partition(".")[0] for m in loaded} & {"fastapi", "starlette", "uvicorn", "jinja2", "argon2"}


def test_reading_a_message_needs_no_database() -> None:
    loaded = imported("daemon.mail.triage")
    assert not {m.partition(".")[0] for m in loaded} & {"sqlite3", "sqlalchemy", "sqlmodel", "aiosmtpd", "imapclient"}


def test_daemon_and_storage_are_ours() -> None:
    """python-daemon installs a package of that name, too."""
    assert Path(str(daemon.__file__)) == ROOT / "daemon" / "__init__.py"
    assert Path(str(storage.__file__)) == ROOT / "storage" / "__init__.py"
