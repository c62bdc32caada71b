"""Progress on a terminal, and nothing anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(label: str, total: int | None = None, *, octets: bool = False) -> Iterator[Callable[[int], object]]:
    """A bar on stderr, told how much is done. `total`: of how much; None where nobody knows. `octets`: shown as KB, MB."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    done = (
        DownloadColumn()
        if octets
        else TextColumn("{task.completed:,.0f}" + ("" if total is None else f" of {total:,}"))
    )
    left = TimeElapsedColumn() if total is None else TimeRemainingColumn()
    columns = (TextColumn(label), BarColumn(), done, left)
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(label, total=total)
        yield lambda done: shown.update(task, completed=done)


@contextmanager
def steps(label: str, total: int | None = None) -> Iterator[Callable[[], object]]:
    """The same, told of each step."""
    with bar(label, total) as progress:
        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            progress(done)

        yield step
