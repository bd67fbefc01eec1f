"""Progress of a search on the terminal."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console

from keras_precision.report.tables.runs import format_value

__all__ = ["Display", "describe_progress"]


class Display:
    """A line with the running trial, the best plan so far, the gap and the remaining time.

    ``verbose`` is as in KerasTuner; None and ``"auto"`` enable the line on a terminal only.
    """

    def __init__(self, figure: str, verbose: bool | int | str | None = None) -> None:
        on_terminal = verbose is None or verbose == "auto"
        self.is_enabled = Console(stderr=True).is_terminal if on_terminal else bool(verbose)
        self._figure = figure
        self._bar: Any = None
        self._task: Any = None

    @property
    def is_visible(self) -> bool:
        """Whether the line is on the terminal now."""
        return self._bar is not None

    @contextlib.contextmanager
    def visible(self, max_trials: int | None) -> Iterator[None]:
        """Show the line within a ``with`` block; the number of trials is None where it is unknown."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        if not self.is_enabled:
            yield
            return
        description = TextColumn("{task.description}")
        trials = TextColumn("trial {task.completed:.0f} of at most {task.total}")
        columns = (trials, BarColumn(bar_width=20), description, TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as self._bar:
            self._task = self._bar.add_task("quantizing one layer at a time", total=max_trials)
            yield
        self._bar = None

    def update(self, done: int, best: Mapping[str, float] | None, gap: float | None) -> None:
        """Show the number of finished trials, the figures of the best plan within the budget, and the gap."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, description=describe_progress(self._figure, best, gap))


def describe_progress(figure: str, best: Mapping[str, float] | None, gap: float | None) -> str:
    """Return the state of a search as text, such as ``best 48.2 kB, gap 1.2 %``; the gap is a share of the best figure."""
    if best is None:
        return "none within the budget yet"
    name = "divergence" if figure == "front" else figure
    text = f"best {name} {format_value(name, best[name])}"
    return text if gap is None else f"{text}, gap {100 * gap:.1f} %"
