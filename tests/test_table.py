"""Table: what the terminal and a notebook show."""

import io

from rich.console import Console

from keras_precision.core.table import Table

TABLE = Table("A <title>", ("Run", "Time"), (("[bold]a[/bold]", "1 ms"), ("b & c", "-")), ("a note",))


def test_rich_prints_it_as_it_is() -> None:
    """What stands in brackets is no markup."""
    paper = io.StringIO()
    Console(file=paper, width=80, color_system=None).print(TABLE)
    for text in ("A <title>", "[bold]a[/bold]", "1 ms", "b & c", "a note"):
        assert text in paper.getvalue()


def test_a_notebook_shows_it_escaped() -> None:
    """Names cannot become HTML."""
    shown = TABLE._repr_html_()
    assert "<caption>A &lt;title&gt;</caption>" in shown
    assert '<th scope="row">b &amp; c</th><td>-</td>' in shown
    assert shown.endswith("<p>a note</p>")
