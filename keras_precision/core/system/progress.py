"""A progress bar for long work, on terminals."""

import contextlib
import time
from collections.abc import Callable, Iterator

__all__ = ["progress"]

_LONG_S = 2.0


@contextlib.contextmanager
def progress(
    what: str, unit: str, total: int | None = None, *, verbose: bool | None = None
) -> Iterator[Callable[[int], None]]:
    """Show a progress bar and yield a function that advances it by a count of units.

    With ``verbose=None``, it appears once the work has taken two seconds, and only on a terminal.

    Example:
        >>> with progress("counting", "sheep", 3, verbose=False) as advance:
        ...     for _ in range(3):
        ...         advance(1)
    """
    if verbose is False:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if verbose is None and not console.is_terminal:
        yield lambda _: None
        return
    counted = TextColumn("{task.completed:.0f} " + unit)
    columns = (TextColumn("{task.description}"), BarColumn(), counted, TimeElapsedColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=console.is_terminal)
    task = bar.add_task(what, total=total)
    began = time.monotonic()

    def advance(count: int) -> None:
        bar.update(task, advance=count)
        if not bar.live.is_started and (verbose or time.monotonic() - began > _LONG_S):
            bar.start()

    try:
        yield advance
    finally:
        bar.stop()
