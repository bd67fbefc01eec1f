"""Results as Markdown, for a pull request."""

import re

from keras_precision.core.printable import one_line
from keras_precision.report.tables.runs import Table

__all__ = ["draw"]


def draw(table: Table) -> str:
    """Return a table as Markdown: a heading, a pipe table, and the notes; names show as they are, as no HTML and no link.

    Example:
        >>> print(draw(Table("Training", ("Run", "Step time"), (("float32", "1 ms"),))))
        ### Training
        <BLANKLINE>
        | Run | Step time |
        | :-- | --: |
        | float32 | 1 ms |
    """
    alignment = [":--", *["--:"] * (len(table.header) - 1)]
    header, *body = (tuple(_escaped(cell).replace("|", "\\|") for cell in row) for row in (table.header, *table.rows))
    lines = [f"### {_escaped(table.title)}", "", *(f"| {' | '.join(row)} |" for row in (header, alignment, *body))]
    return "\n".join([*lines, *("\n" + _escaped(note) for note in table.notes)])


def _escaped(text: str) -> str:
    """Return a text in one line whose HTML, code, images and links are shown instead of obeyed.

    GitHub makes links of bare addresses, too: https://github.github.com/gfm/#autolinks-extension-.
    """
    shown = re.sub(r"[\\`\[\]]", r"\\\g<0>", one_line(text))
    shown = shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"(?i)\bwww\.", lambda match: match[0][:-1] + r"\.", shown.replace("://", r":\//"))
