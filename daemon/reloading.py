"""What a SIGHUP may change in place, and what needs a restart: where we listen, and what we write to."""

from __future__ import annotations

from collections.abc import Iterator

from daemon.config import Config


def needs_restart(old: Config, new: Config) -> Iterator[str]:
    """The paths of the options that differ and cannot change in place."""
    if old.storage != new.storage:
        yield "storage"
    if (old.upstream is None) != (new.upstream is None):
        yield "upstream"
    if _sockets(old) != _sockets(new):
        yield "relay.listener" if old.relay.listener or new.relay.listener else "relay.listen"
    if old.postfix.policy != new.postfix.policy:
        yield "postfix.policy"
    for option in ("listen", "public_listen"):
        if getattr(old.web, option) != getattr(new.web, option):
            yield f"web.{option}"


def _sockets(config: Config) -> list[tuple[str, bool]]:
    return [(listener.address, listener.tls == "implicit") for listener in config.relay.listeners()]


def keep(old: Config, new: Config) -> Config:
    """The new config with what cannot change as it was."""
    kept: dict[str, object] = {"storage": old.storage}
    if (old.upstream is None) != (new.upstream is None):
        kept["upstream"] = old.upstream
    if _sockets(old) != _sockets(new):
        kept["relay"] = old.relay
    kept["postfix"] = new.postfix.model_copy(update={"policy": old.postfix.policy})
    listening = {"listen": old.web.listen, "public_listen": old.web.public_listen}
    kept["web"] = new.web.model_copy(update=listening)
    return new.model_copy(update=kept)
