"""The report: recorded results as tables, against files that were looked at once, and rules that any table obeys."""

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from keras_precision.core.environment import Environment
from keras_precision.core.errors import InputError
from keras_precision.core.result import Measurement, Result, Value
from keras_precision.findings.finding import Finding
from keras_precision.report import markdown, text
from keras_precision.report.render import render
from keras_precision.report.tables.runs import Table, export_table, format_value, run_table

GOLDEN = Path(__file__).parent / "golden"
UNKNOWN = "-"


def result(name: str, subject: str, sources: dict[str, str] | None = None, **values: Value) -> Result:
    """Return a result with one summary row per value."""
    rows = tuple(Measurement(subject, metric, value) for metric, value in values.items())
    return Result(name, rows, Environment(sources=sources or {}))


def run(name: str, steps: int, **values: Value) -> Result:
    """Return the result of a training run."""
    return result(name, "fit", {"peak_memory_mb": "peak resident set"}, steps_measured=steps, **values)


def model(name: str, **values: Value) -> Result:
    """Return the result of a model to deploy."""
    return result(name, f"{name}.tflite", {"latency_ms": "50 calls of 1 sample(s)"}, **values)


RUNS = [
    run(
        "float32",
        90,
        step_time_ms=12.3456,
        step_time_p95_ms=15.0,
        samples_per_second=2592.04,
        peak_memory_mb=1234.5,
        skipped_steps=None,
        loss_scale=None,
        val_loss=0.2,
        val_accuracy=0.98153,
    ),
    run(
        "mixed_float16",
        88,
        step_time_ms=6.1728,
        step_time_p95_ms=999.7,
        samples_per_second=5184.08,
        peak_memory_mb=None,
        skipped_steps=3,
        loss_scale=32768.0,
        val_loss=0.2,
        val_accuracy=0.9815,
    ),
    run("diverged", 90, step_time_ms=None, val_accuracy=math.nan, skipped_steps=1200),
]
MODELS = [
    model("keras", latency_ms=1.5, latency_p95_ms=2.0, accuracy=0.98),
    model("float32", size_bytes=208_000, latency_ms=0.5, latency_p95_ms=0.75, accuracy=0.98, agreement=1.0),
    model("int8 | one", size_bytes=1_234_567, latency_ms=0.0123, latency_p95_ms=0.02, accuracy=0.97, agreement=0.9921),
]
RECORDED = [RUNS[0], MODELS[0], *RUNS[1:], *MODELS[1:]]


def cells(line: str) -> list[str]:
    """Return the cells of one line of a Markdown table."""
    assert line.startswith("| ")
    assert line.endswith(" |")
    return re.split(r"(?<!\\) \| ", line[2:-2])


@pytest.mark.parametrize(("form", "name"), [("markdown", "report.md"), ("text", "report.txt")])
def test_the_report_is_as_recorded(form: str, name: str) -> None:
    """The tables of the recorded results are those of the file."""
    assert render(RECORDED, format=form) + "\n" == (GOLDEN / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("make", "results"), [(run_table, RUNS), (export_table, MODELS), (run_table, MODELS), (export_table, RUNS)]
)
def test_every_row_has_a_cell_per_column(make: Callable[[Sequence[Result]], Table], results: Sequence[Result]) -> None:
    """All rows are as wide as the header, whatever the results contain."""
    table = make(results)
    assert [len(row) for row in table.rows] == [len(table.header)] * len(results)
    assert all(cell for row in table.rows for cell in row)


def test_scores_of_the_users_own_have_columns() -> None:
    """A regression's error stands where an accuracy would, and beside it where there is one."""
    error = model("int8", size_bytes=1000, mean_absolute_error=41.25, my_score=2)
    assert export_table([error]).header == ("Precision", "Size", "Mean absolute error", "My score")
    assert "Accuracy" not in export_table([error]).header
    assert export_table([error]).rows[0][2] == format_value("mean_absolute_error", 41.25)
    assert export_table([MODELS[0], error]).header[5:7] == ("Accuracy", "Mean absolute error")
    assert export_table(MODELS[:2]).header[-2:] == ("Accuracy", "Agreement")


def test_markdown_lines_have_as_many_cells() -> None:
    """Header, alignment and rows of a Markdown table have the same number of cells."""
    for table in render(RECORDED, format="markdown").split("### ")[1:]:
        lines = [line for line in table.splitlines() if line.startswith("|")]
        assert len(lines) == 5
        assert len({len(cells(line)) for line in lines}) == 1


def test_text_has_every_cell_of_the_markdown() -> None:
    """The two forms show the same figures."""
    drawn = render(RECORDED)
    lines = [line for line in render(RECORDED, format="markdown").splitlines() if line.startswith("| ")]
    shown = {cell.replace("\\|", "|") for line in lines for cell in cells(line)} - {":--", "--:"}
    assert len(shown) > 30
    assert {cell for cell in shown if cell not in drawn} == set()


def test_unknown_values_are_dashes() -> None:
    """What was not measured, and what could not be, is shown as unknown and has no speedup."""
    row = dict(zip(run_table(RUNS).header, run_table(RUNS).rows[2], strict=True))
    assert row.pop("Run") == "diverged"
    assert row.pop("Skipped") == "1,200"
    assert row.pop("Val accuracy") == "nan %"
    assert set(row.values()) == {UNKNOWN}


@pytest.mark.parametrize(
    ("metric", "value", "expected"),
    [
        ("step_time_ms", None, "-"),
        ("operator", "CONV_2D int8", "CONV_2D int8"),
        ("step_time_ms", 12.3456, "12.3 ms"),
        ("step_time_ms", 12.0, "12 ms"),
        ("step_time_ms", 0.012345, "0.0123 ms"),
        ("step_time_ms", 999.4, "999 ms"),
        ("step_time_ms", 999.7, "1,000 ms"),
        ("step_time_ms", -999.7, "-1,000 ms"),
        ("step_time_ms", 123456.7, "123,457 ms"),
        ("step_time_ms", math.inf, "inf ms"),
        ("loss_scale", 32768.0, "32,768"),
        ("skipped_steps", 0, "0"),
        ("accuracy", 0.98153, "98.15 %"),
        ("accuracy", 1, "100.00 %"),
        ("val_accuracy", 0.5, "50.00 %"),
        ("agreement", 0.0, "0.00 %"),
        ("size_bytes", 1_234_567, "1,234.6 kB"),
        ("my_metric", 0.12345, "0.123"),
        ("val_loss", math.nan, "nan"),
    ],
)
def test_figures_have_three_digits_and_their_unit(metric: str, value: Value, expected: str) -> None:
    """Figures are rounded as their metric asks, and never shown as a power of ten where it can be helped."""
    assert format_value(metric, value) == expected


@pytest.mark.parametrize(("make", "metric"), [(run_table, "step_time_ms"), (export_table, "latency_ms")])
def test_speedup_is_over_the_first(make: Callable[[Sequence[Result]], Table], metric: str) -> None:
    """The first result is the baseline; a ratio that cannot be had is unknown."""
    table = make([result(str(index), "a", **{metric: value}) for index, value in enumerate((3.0, 1.5, 4.0, None, 0.0))])
    column = table.header.index("Speedup")
    assert [row[column] for row in table.rows] == ["1.00x", "2.00x", "0.75x", UNKNOWN, UNKNOWN]


@pytest.mark.parametrize(
    ("counts", "expected"), [((90, 90), "median of 90 steps per run"), ((90, 7), "median of 7 to 90 steps per run")]
)
def test_the_notes_say_what_the_step_time_rests_on(counts: tuple[int, ...], expected: str) -> None:
    """A table says how many steps were measured, and where its memory figures come from."""
    notes = run_table([run("a", steps, step_time_ms=1.0) for steps in counts]).notes
    assert notes == ("Memory: peak resident set.", f"Step time: {expected}, without warm-up.")


def test_pipes_do_not_break_a_markdown_table() -> None:
    """A pipe in a name, of a run or of a user's metric, is escaped."""
    table = Table("Title", ("Run", "Val a|b"), (("x|y", "1"),))
    assert markdown.draw(table).splitlines()[2:] == ["| Run | Val a\\|b |", "| :-- | --: |", "| x\\|y | 1 |"]


@pytest.mark.parametrize("name", ["[bold]a[/bold]", "[/x]", ":x:", "a|b"])
def test_names_are_drawn_as_they_are(name: str) -> None:
    """What a terminal library would take for markup is text."""
    table = Table(f"T {name}", ("Run", f"H {name}"), ((name, f"c {name}"),), (f"n {name}",))
    drawn = text.draw(table)
    assert [f"{mark}{name}" in drawn for mark in ("T ", "H ", "│ ", "c ", "\nn ")] == [True] * 5


def test_a_table_that_is_too_wide_loses_nothing() -> None:
    """Where the terminal is narrow, cells go on in the next line, and no line is too long."""
    table = Table("T", tuple(f"heading{n}" for n in range(12)), (tuple(f"123,456.{n} ms" for n in range(12)),))
    lines = text.draw(table, width=100).splitlines()
    assert max(map(len, lines)) <= 100
    assert "…" not in "".join(lines)
    columns = zip(*(re.split("[│┃]", line)[1:-1] for line in lines if line[0] in "│┃"), strict=True)
    joined = ["".join(column).replace(" ", "") for column in columns]
    assert joined == [f"heading{n}123,456.{n}ms" for n in range(12)]


def test_training_runs_and_models_have_separate_tables() -> None:
    """Results are grouped by their metrics, and keep their order."""
    drawn = render(RECORDED, format="markdown")
    assert re.findall(r"^(?:### |\| )([\w ]+)", drawn, re.MULTILINE) == [
        *("Training", "Run ", "float32 ", "mixed_float16 ", "diverged "),
        *("Deployment", "Precision ", "keras ", "float32 ", "int8 "),
    ]


@pytest.mark.parametrize(("results", "title"), [(RUNS[0], "Training"), (MODELS[0], "Deployment")])
def test_one_result_is_a_table_too(results: Result, title: str) -> None:
    """A single result needs no list, and text is the form that is not asked for."""
    assert render(results) == render([results], format="text")
    assert render(results).startswith(title)
    assert render(iter([results])) == render(results)


@pytest.mark.parametrize(
    ("results", "form", "message"),
    [
        ([], "text", r"Expected at least one result\. Received: none\."),
        (RUNS, "pdf", r"Expected format to be one of text, markdown, html\. Received: 'pdf'\."),
    ],
)
def test_what_cannot_be_rendered_is_refused(results: list[Result], form: str, message: str) -> None:
    """An empty list and an unknown format are refused."""
    with pytest.raises(InputError, match=message):
        render(results, format=form)


@pytest.mark.parametrize(
    ("values", "notes", "expected"),
    [
        ({}, (), []),
        ({"profiler_us_per_step": 3.456}, (), ["Profiler: 3.46 us per step."]),
        ({"profiler_us_per_step": 3.0}, ("a", "b"), ["Profiler: 3 us per step.", "Note: a", "Note: b"]),
    ],
)
def test_the_summary_of_a_run(values: dict[str, Value], notes: tuple[str, ...], expected: list[str]) -> None:
    """A summary is the verdict, the table of the run, the overhead of the profiler, and the notes."""
    one = RUNS[0].with_measurements((Measurement("fit", *item) for item in values.items()), notes)
    table = text.draw(run_table([one])).splitlines()
    assert text.summary(one).splitlines() == ["Healthy: nothing was found that harms this run.", *table, *expected]


def test_the_summary_begins_with_what_is_wrong() -> None:
    """The most severe finding and its remedy are what is read first."""
    finding = Finding("non-finite", "error", "stem", "It broke.", "model = cured")
    lines = text.summary(RUNS[0], [finding]).splitlines()
    assert lines[:2] == ["Error: It broke.", "    model = cured"]
    assert not any(line.startswith("Healthy") for line in lines)


HOSTILE = "\x1b[2J\x9b\u202e<img src=x>[here](http://a.example) `code` www.a.example a|b"


def test_names_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters, HTML, code and links of a name are text in a terminal and in a pull request."""
    hostile = run(HOSTILE, 9, step_time_ms=1.0)
    shown = text.draw(run_table([hostile]), width=400)
    assert HOSTILE.replace("\x1b", "\\x1b").replace("\x9b", "\\x9b").replace("\u202e", "\\u202e") in shown
    text.show(HOSTILE)
    assert capsys.readouterr().out.startswith("\\x1b[2J\\x9b\\u202e<img")
    noted = Table("T", ("a",), ((HOSTILE,),), (HOSTILE,))
    for line in (line for line in markdown.draw(noted).splitlines() if "img" in line):
        assert "&lt;img src=x&gt;\\[here\\](http:\\//a.example) \\`code\\` www\\.a.example" in line
        assert not {*line} & {*"\x1b\x9b\u202e<>"}


def test_print_shows_a_result_as_one_block() -> None:
    """The tables of ``render`` and the notes, also of a result without any measurement."""
    noted = Result("float32", RUNS[0].measurements, RUNS[0].environment, notes=("red \x1b[31m",))
    assert str(noted) == f"{render(noted)}\nNote: red \\x1b[31m"
    assert "12.3 ms" in str(noted)
    assert "nothing" in str(Result("nothing"))


def test_one_run_has_known_figures_alone() -> None:
    """Without another run there is no speedup, and what is unknown has no column."""
    assert run_table([run("a", 9, step_time_ms=1.0, skipped_steps=0)]).header == ("Run", "Step time", "Skipped")
    assert export_table([model("b", size_bytes=9, accuracy=math.nan)]).header == ("Precision", "Size", "Accuracy")
    assert "Speedup" in run_table([run("a", 9), run("b", 9)]).header
