"""Results as HTML: tables for a notebook, or a page of one's own."""

from html import escape

from keras_precision.report.table import Table

__all__ = ["draw"]


def draw(table: Table) -> str:
    """Return a table as a fragment of HTML, without styles or scripts.

    Args:
        table: The table.

    Returns:
        A ``figure`` with a caption, the table, and its notes; names are escaped.

    Example:
        >>> print(draw(Table("Training", ("Run", "Step time"), (("<b>", "1 ms"),))))
        <figure>
        <figcaption>Training</figcaption>
        <table>
        <thead><tr><th scope="col">Run</th><th scope="col">Step time</th></tr></thead>
        <tbody>
        <tr><th scope="row">&lt;b&gt;</th><td>1 ms</td></tr>
        </tbody>
        </table>
        </figure>
    """
    header = "".join(f'<th scope="col">{escape(title)}</th>' for title in table.header)
    lines = [
        f"<figure>\n<figcaption>{escape(table.title)}</figcaption>\n<table>\n<thead><tr>{header}</tr></thead>\n<tbody>"
    ]
    for first, *others in table.rows:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in others)
        lines.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    lines.append("</tbody>\n</table>")
    lines += [f"<p>{escape(note)}</p>" for note in table.notes]
    return "\n".join([*lines, "</figure>"])
