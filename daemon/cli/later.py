"""What is announced and this version lacks: refused with a sentence that says so, and not shown in the help."""

from __future__ import annotations

from typing import Any, Final

from typer.core import TyperGroup

from daemon.cli.common import USAGE, Stop

NOT_YET: Final = "is not in this version yet"

COMMANDS: Final = frozenset(("doctor",))


class Group(TyperGroup):
    """The commands of `optoutd`; those to come are known by name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that was asked for. Raises Stop(64) for one that is still to come."""
        if args and args[0] in COMMANDS:
            raise Stop(f"{args[0]} {NOT_YET}", USAGE)
        return super().resolve_command(ctx, args)
