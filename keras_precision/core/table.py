"""Table: a table as text, independent of its renderer."""

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keras_precision.core.metrics import metric_of
from keras_precision.core.printable import printable
from keras_precision.core.result import Value

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ["UNKNOWN", "Table", "format_value"]

UNKNOWN = "-"


@dataclass(frozen=True)
class Table:
    """A table, ready to be drawn: by ``rich``, in a notebook, or by ``kp.render``.

    Attributes:
        title: What it shows.
        header: One heading per column.
        rows: Cells, as text.
        notes: Sentences below the table.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def __rich__(self) -> "Group":
        """Return what ``rich.print`` draws."""
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        def text(value: str) -> Text:
            return Text(printable(value))

        drawn = RichTable(title=text(self.title), title_justify="left")
        for index, title in enumerate(self.header):
            drawn.add_column(text(title), justify="left" if index == 0 else "right", overflow="fold")
        for row in self.rows:
            drawn.add_row(*map(text, row))
        return Group(drawn, *map(text, self.notes))

    def _repr_html_(self) -> str:
        """Return the table as HTML for notebooks and ``kp.render(..., "html")``: no styles, no scripts, names escaped."""
        head = "".join(f'<th scope="col">{html.escape(title)}</th>' for title in self.header)
        lines = [f"<table><caption>{html.escape(self.title)}</caption>", f"<thead><tr>{head}</tr></thead>", "<tbody>"]
        for first, *others in self.rows:
            cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in others)
            lines.append(f'<tr><th scope="row">{html.escape(first)}</th>{cells}</tr>')
        lines += ["</tbody></table>", *(f"<p>{html.escape(note)}</p>" for note in self.notes)]
        return "\n".join(lines)


def format_value(metric: str, value: Value) -> str:
    """Return a figure with its unit: 3 significant digits, whole counts, percent for shares, "-" if unknown.

    Example:
        >>> format_value("step_time_ms", 12.3456), format_value("accuracy", 0.9815)
        ('12.3 ms', '98.15 %')
    """
    if value is None:
        return UNKNOWN
    if isinstance(value, str):
        return value
    known = metric_of(metric)
    bare = metric.removeprefix("val_")
    if bare in ("accuracy", "agreement"):
        return f"{100 * value:.2f} %"
    if known.unit == "B":
        return f"{value / 1e3:,.1f} kB"
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,} {known.unit}".rstrip()
    digits = f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"
    return f"{digits} {known.unit}".rstrip()
