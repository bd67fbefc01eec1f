"""What a search shows while it runs."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console

from keras_precision.report.tables.runs import formatted

__all__ = ["Display", "described"]


class Display:
    """A line that says which trial runs, the best so far, how much better a plan may be, and the time left.

    Args:
        figure: What the search makes as good as possible.
        verbose: Whether to show it, as KerasTuner has it; None or ``"auto"``: on a terminal.
    """

    def __init__(self, figure: str, verbose: bool | int | str | None = None) -> None:
        on_terminal = verbose is None or verbose == "auto"
        self.is_wanted = Console(stderr=True).is_terminal if on_terminal else bool(verbose)
        self._figure = figure
        self._bar: Any = None
        self._task: Any = None

    @property
    def is_shown(self) -> bool:
        """Whether somebody looks."""
        return self._bar is not None

    @contextlib.contextmanager
    def shown(self, total: int | None) -> Iterator[None]:
        """Show the line for a while.

        Args:
            total: Trials at most; None if that is not known.

        Yields:
            Nothing.
        """
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        if not self.is_wanted:
            yield
            return
        told = TextColumn("{task.description}")
        trials = TextColumn("trial {task.completed:.0f} of at most {task.total}")
        columns = (trials, BarColumn(bar_width=20), told, TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as self._bar:
            self._task = self._bar.add_task("lowering layers alone", total=total)
            yield
        self._bar = None

    def tell(self, done: int, best: Mapping[str, float] | None, gap: float | None) -> None:
        """Say how far the search is.

        Args:
            done: Trials that have ended.
            best: The figures of the best plan within the budget; None where there is none yet.
            gap: By which share a plan that was not run may be better; None where that is not known.
        """
        if self._bar is None:
            return
        self._bar.update(self._task, completed=done, description=described(self._figure, best, gap))


def described(figure: str, best: Mapping[str, float] | None, gap: float | None) -> str:
    """Return the state of a search in a few words.

    Args:
        figure: What it makes as good as possible.
        best: The figures of the best plan within the budget; None where there is none.
        gap: By which share a plan that was not run may be better; None where that is not known.

    Returns:
        Such as ``best 48.2 kB, gap 1.2 %``.
    """
    if best is None:
        return "none within the budget yet"
    shown = "divergence" if figure == "front" else figure
    text = f"best {shown} {formatted(shown, best[shown])}"
    return text if gap is None else f"{text}, gap {100 * gap:.1f} %"
