"""Results as Markdown, for a pull request."""

from keras_precision.report.tables.runs import Table

__all__ = ["draw"]


def draw(table: Table) -> str:
    """Return a table as Markdown: a heading, a pipe table, and the notes.

    Example:
        >>> print(draw(Table("Training", ("Run", "Step time"), (("float32", "1 ms"),))))
        ### Training
        <BLANKLINE>
        | Run | Step time |
        | :-- | --: |
        | float32 | 1 ms |
    """
    alignment = [":--", *["--:"] * (len(table.header) - 1)]
    header, *body = (
        tuple(" ".join(cell.split()).replace("|", "\\|") for cell in row) for row in (table.header, *table.rows)
    )
    lines = [f"### {table.title}", "", *(f"| {' | '.join(row)} |" for row in (header, alignment, *body))]
    return "\n".join([*lines, *("\n" + note for note in table.notes)])
