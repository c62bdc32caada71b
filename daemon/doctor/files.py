"""The config itself, and the secrets that it names."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from daemon.config import DEFAULT_PATHS, UNITS, ConfigError, Loaded
from daemon.doctor.findings import Finding, Look, count

_NO_SECRETS: Final = ("ca_file", "cert_file")


def config(look: Look) -> Iterator[Finding]:
    """It has been read: else nobody would ask."""
    found = look.config
    has = [
        count(len(found.mailbox), "mailbox").replace("boxs", "boxes"),
        "a relay" if found.upstream else "no relay (no [upstream])",
        "HTTP" if found.web.listen or found.web.public_listen else "no HTTP (no [web])",
        count(len(found.list), "list"),
    ]
    yield look.ok(f"{look.loaded.path}: {', '.join(has)}")


def problems(error: ConfigError, path: Path) -> Iterator[Finding]:
    """A config that cannot be used: a line for each thing wrong with it."""
    for problem in error.problems:
        yield Finding("config", "FAIL", str(problem), _advice(problem.path, path))


def _advice(option: str, path: Path) -> str:
    if option.endswith("_file") and os.geteuid() and path.absolute().parent == DEFAULT_PATHS[-1].parent:
        return f"if the secret lies at {UNITS[-1]}NAME, only root and the unit can see it: run this as root"
    return f"mend it in {path}, then `optoutd check-config`; a daemon that runs goes on with what it read"


# ------------------------------------------------------------------ secrets


def secrets(look: Look) -> Iterator[Finding]:
    """Each file with a secret: can the daemon read it, can anybody else, and does it hold what it seems to hold?"""
    named = dict(_secret_files(look.config.model_dump()))
    named.pop("storage.key_file", None)  # told as `site key`
    user = daemon_user(look.loaded)
    found = [finding for path, name in named.items() for finding in _secret(look, path, look.loaded.file(name), user)]
    good = len(named) - len({finding.text.partition(":")[0] for finding in found})
    if good or not named:
        yield look.ok(f"{count(good, 'file')} readable, closed to others, not empty" if named else "none are named")
    yield from found


def _secret_files(value: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """(path of the option, file) of every option that names a secret."""
    tables = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, tuple) else ()
    for key, inner in tables:
        path = f"{at}[{key}]" if isinstance(key, int) else f"{at}.{key}".lstrip(".")
        if isinstance(inner, str) and inner and str(key).endswith("_file") and key not in _NO_SECRETS:
            yield path, inner
        yield from _secret_files(inner, path)


def _secret(look: Look, option: str, file: Path, user: int) -> Iterator[Finding]:
    look.step(str(file))
    try:
        mode = file.stat().st_mode
        text = look.loaded.secret(str(file))
    except (OSError, ConfigError) as why:
        yield look.fail(f"{option}: {look.said(why)}", f"put the secret into {file}, in UTF-8, readable by the daemon")
        return
    if not text.strip():
        yield look.fail(f"{option}: {file} is empty", "put the secret into it, on one line")
    elif text != text.strip() and "key" not in option:
        yield look.warn(
            f"{option}: {file} begins or ends with a blank or an empty line, which counts as part of the secret",
            "if it does not belong to it, write the file anew: printf %s 'SECRET' > FILE",
        )
    if mode & stat.S_IRWXO:
        yield look.warn(f"{option}: everybody on this machine can get at {file}", f"run: chmod o= {file}")
    if not str(file).startswith(UNITS) and not may_read(user, file):  # those systemd shows it
        name = user_name(user)
        yield look.fail(
            f"{option}: {name}, whom the database belongs to, cannot read {file}", f"run: chown {name} {file}"
        )


# ------------------------------------------------------------------ whose files


def daemon_user(loaded: Loaded) -> int:
    """Whom the daemon runs as: whose the home of the database is, as far as that can be told; else who asks."""
    try:
        return loaded.scratch.stat().st_uid
    except OSError:
        return os.geteuid()


def user_name(user: int) -> str:
    """As `chown` takes it."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def may_read(user: int, file: Path) -> bool:
    """Could this user read the file? True where that cannot be told from modes: access lists, credentials."""
    if user in (0, os.geteuid()):
        return True  # that was tried
    try:
        own = pwd.getpwuid(user)
        groups = {*os.getgrouplist(own.pw_name, own.pw_gid)}
    except KeyError:
        groups = set()
    file = file.resolve()
    needed = [(file, 4), *((parent, 1) for parent in file.parents)]
    return all(_has_acl(path) or _allows(path.stat(), user, groups, bit) for path, bit in needed)


def _allows(found: os.stat_result, user: int, groups: set[int], bit: int) -> bool:
    shift = 6 if found.st_uid == user else 3 if found.st_gid in groups else 0
    return bool(found.st_mode >> shift & bit)


def _has_acl(path: Path) -> bool:
    try:
        return bool(os.getxattr(path, "system.posix_acl_access"))
    except OSError:
        return False
