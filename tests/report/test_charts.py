"""The charts: what they show of results, and that plotly knows every word of them."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
from recorded import session

import keras_precision as kp
from keras_precision.report.charts.chart import Chart, label
from keras_precision.report.charts.heat_map import heat_maps
from keras_precision.report.charts.layer_error import layer_errors
from keras_precision.report.charts.loss import divergence_step, loss_chart
from keras_precision.report.charts.loss_scale import loss_scale_chart
from keras_precision.report.charts.memory import memory_chart
from keras_precision.report.charts.pareto import pareto_charts
from keras_precision.report.charts.step_time import step_time_line, step_time_spread

Row = tuple[str, str, Any, int | None]


def result(name: str, *rows: Row, plan: kp.PrecisionPlan | None = None, **sources: str) -> kp.Result:
    """Return a result with these rows."""
    return kp.Result(name, [kp.Measurement(*row) for row in rows], kp.Environment(sources=sources), plan)


def series(metric: str, values: Sequence[float | None], subject: str = "epoch") -> list[Row]:
    """Return rows of the values, with steps from 0."""
    return [(subject, metric, value, step) for step, value in enumerate(values)]


def trace(chart: Chart, name: str) -> Any:
    """Return the trace of a name."""
    (match,) = [candidate for candidate in chart.traces if candidate["name"] == name]
    return match


def every_chart(results: Sequence[kp.Result]) -> list[Chart]:
    """Return all charts of results."""
    makers = (step_time_spread, step_time_line, loss_chart, loss_scale_chart, memory_chart)
    charts = [maker(results) for maker in makers]
    return [chart for chart in charts if chart] + pareto_charts(results) + heat_maps(results) + layer_errors(results)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what plotly imports
def test_plotly_knows_every_word() -> None:
    """Plotly's own check, which refuses misspelt attributes and wrong values, accepts every chart of the session."""
    from plotly.graph_objects import Figure

    watched = result(
        "watched", ("stem", "activation_float16_overflow", 0.5, 1), ("head", "gradient_non_finite", 0.1, 1)
    )
    alone = result("alone", ("a in int8", "divergence", 0.1, None), ("b in int8", "divergence", 0.2, None))
    charts = every_chart([*session(), watched, alone])
    assert len(charts) == 10
    for chart in charts:
        Figure(data=list(chart.traces), layout=dict(chart.layout))
    with pytest.raises(ValueError, match="Invalid property"):
        Figure(data=[{"type": "scatter", "colour": "red"}])


def test_nothing_measured_is_no_chart() -> None:
    """A result that holds nothing, or nothing that is known, has no charts."""
    unknown = result(
        "u", ("fit", "step_time_ms", None, None), ("fit", "loss_scale", None, 5), ("fit", "peak_memory_mb", None, None)
    )
    assert every_chart([result("nothing")]) == every_chart([unknown]) == []


def test_warm_up_is_marked_and_not_counted() -> None:
    """Excluded steps are crosses in the chart of single steps, and not in the histogram."""
    rows = [("step", "step_time_ms", 10.0 + step % 2, step) for step in range(10, 30)]
    run = result("run", ("warm-up step", "step_time_ms", 900.0, 1), *rows)
    line, spread = step_time_line([run]), step_time_spread([run])
    assert trace(line, "run: excluded")["x"] == [1]
    assert trace(line, "run: excluded")["marker"]["symbol"] == "x"
    assert trace(line, "run")["x"] == list(range(10, 30))
    (histogram,) = spread.traces
    assert sum(histogram["y"]) == pytest.approx(1)
    assert max(histogram["x"]) < 12
    assert "median 10.5 ms" in histogram["name"]


def test_the_histogram_says_what_lies_beyond_it() -> None:
    """Steps slower than its right end are counted in a note, and too few steps are no histogram."""
    slow = result("run", *series("step_time_ms", [10.0 + 0.01 * step for step in range(400)] + [500.0], "step"))
    assert step_time_spread([slow]).notes[0].startswith("2 steps took longer than")
    assert step_time_spread([result("few", *series("step_time_ms", [1.0] * 4, "step"))]) is None
    same = step_time_spread([result("same", *series("step_time_ms", [2.0] * 9, "step"))])
    assert sum(same.traces[0]["y"]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ([4.0, 3.0, 2.0, 1.0], None),
        ([4.3, 3.2, 2.1, 1.05], None),  # within a tenth
        ([4.0, 3.0, 2.5, 1.5], 2),
        ([8.0, 3.0, 2.0, 1.5], 3),  # it came back before it left for good
        ([8.0, 8.0, 2.0, 1.0], None),
        ([4.0, 3.0, math.nan, math.nan], 2),
        ([4.0, math.inf, 2.0, 1.0], None),
        ([4.0, None, 2.5, 1.5], 2),
    ],
)  # fmt: skip
def test_curves_part_where_they_stay_apart(other: list[float], expected: int | None) -> None:
    """The divergence_step is the first step from which on two curves differ to the end."""
    steps = [0, 1, 2, 3]
    assert divergence_step((steps, [4.0, 3.0, 2.0, 1.0]), (steps, other)) == expected


def test_the_loss_chart_marks_the_divergence_step() -> None:
    """Where a run diverges from the first, there is a line, its name, and a sentence; where none does, that is said."""
    first = result("float32", *series("loss", [4.0, 3.0, 2.0]), *series("val_loss", [4.0, 3.5, 3.0]))
    other = result("float16", *series("loss", [4.0, 3.0, 5.0]))
    chart = loss_chart([first, other])
    assert [shape["x0"] for shape in chart.layout["shapes"]] == [3]
    assert chart.layout["annotations"][0]["text"] == "float16 diverges"
    assert chart.notes[0].startswith("float16 diverges from float32 at epoch 3:")
    assert trace(chart, "float32, validation")["line"]["dash"] == "dash"
    assert loss_chart([first, first]).notes == (
        "No run diverges from float32: at the end, all are within 10 % of its loss.",
    )


def test_a_diverged_loss_is_noted() -> None:
    """NaN has no place on an axis: the curve ends, and a note says where."""
    gone = loss_chart([result("gone", *series("loss", [1.0, math.nan, math.nan]))])
    back = loss_chart([result("back", *series("loss", [1.0, math.inf, 0.5]))])
    assert gone.traces[0]["y"] == [1.0, None, None]
    assert gone.notes == ("gone: the loss is not finite at epoch 2, from there to the end.",)
    assert back.notes == ("back: the loss is not finite at epoch 2, and finite again later.",)


def test_losses_of_steps_are_averaged() -> None:
    """The noise of single batches is no divergence_step: curves by steps are running means, and the chart says so."""
    noise = [1.0 + 0.5 * (-1) ** step for step in range(1000)]
    chart = loss_chart([result("a", *series("loss", noise, "step")), result("b", *series("loss", noise[::-1], "step"))])
    assert chart.layout["shapes"] == []
    assert "Points are means of the last 20 steps." in chart.notes
    assert chart.traces[0]["y"][-1] == 1.0
    assert chart.layout["yaxis"]["type"] == "log"
    negative = loss_chart([result("n", *series("loss", [1.0, -1.0]))])
    assert negative.layout["yaxis"]["type"] == "linear"


def test_the_loss_scale_and_what_was_skipped() -> None:
    """Known steps and windows are counted up; a scale of 0 is a note, because the axis cannot show it."""
    run = result(
        "run", ("fit", "loss_scale", 32768.0, 50), ("fit", "loss_scale", 0.0, 100), ("step", "skipped_in_window", 1, 7),
        ("steps 65 to 90", "skipped_in_window", 3, 90), ("fit", "skipped_steps", 4, 50), ("fit", "skipped_steps", 4, 100),
        ("fit", "skipped_steps", 4, None), ("fit", "skipped_loss_finite", 1, None), ("fit", "skipped_loss_not_finite", 3, None),
        ("fit", "batches", 100, None),
    )  # fmt: skip
    chart = loss_scale_chart([run])
    scale, skipped = chart.traces
    assert scale["y"] == [32768.0, None]
    assert (skipped["x"], skipped["y"]) == ([0, 7, 90, 100], [0, 1, 4, 4])
    assert skipped["text"][1:3] == ["step 7 skipped", "3 of steps 65 to 90 skipped"]
    assert chart.notes == (
        "run skipped 4 of 100 steps: 1 with a finite loss (the scale searching), 3 without.",
        "run ended with a loss scale of 0, which the axis cannot show.",
        "run: the count was not read at every step, so it is unknown which of steps 65 to 90 were skipped.",
    )


def test_skipped_steps_without_places() -> None:
    """Where no windows were recorded, the counts of the epochs are drawn."""
    rows = [("fit", "loss_scale", 2.0, 10), ("fit", "skipped_steps", 2, 10), ("fit", "skipped_steps", 5, 20)]
    _, skipped = loss_scale_chart([result("run", *rows)]).traces
    assert (skipped["x"], skipped["y"]) == ([10, 20], [2, 5])


def test_memory_by_kind_and_its_peak() -> None:
    """Parts are bars; peaks are drawn where one source measured all, and a note explains it where two did."""
    parts = [("fit", "weights_mb", 4.0, None), ("fit", "optimizer_mb", 8.0, None)]
    peak = ("fit", "peak_memory_mb", 20.0, None)
    one = memory_chart([result(name, *parts, peak, peak_memory_mb="allocator") for name in "ab"])
    assert [bar["name"] for bar in one.traces] == ["weights", "optimizer", "measured peak"]
    assert one.traces[0]["x"] == [4.0, 4.0]
    assert one.notes == ("Peak: allocator.",)
    two = memory_chart([result(name, *parts, peak, peak_memory_mb=name) for name in "ab"])
    assert [bar["name"] for bar in two.traces] == ["weights", "optimizer"]
    assert two.notes[0].startswith("Peaks are not drawn: they come from 2 sources")
    assert memory_chart([result(name, peak, peak_memory_mb=name) for name in "ab"]) is None


def test_the_heat_map_shows_the_worst_step() -> None:
    """A cell is the largest share of any step; columns without any are named below instead."""
    run = result(
        "run", ("stem", "activation_float16_overflow", 0.0, 1), ("stem", "activation_float16_overflow", 0.01, 2),
        ("<head>", "activation_float16_overflow", 0.0, 1), ("stem", "activation_bfloat16_overflow", 0.0, 1),
    )  # fmt: skip
    (chart,) = heat_maps([result("other"), run])
    (cells,) = chart.traces
    assert cells["x"] == ["activ.<br>float16<br>overflow"]
    assert cells["z"] == [[-2.0], [-6.0]]
    assert cells["text"][0] == ["stem<br>activations, float16: overflow: 1 %"]
    assert chart.layout["yaxis"]["ticktext"] == ["stem", "&lt;head&gt;"]
    assert chart.notes == ("No layer has any overflow in bfloat16 (activations).",)


def test_errors_of_rounding_have_a_colour_where_they_matter() -> None:
    """What every value loses in a format is blank, and a tenth has a colour in the middle."""
    rows = [("stem", "activation_bfloat16_error", 0.0017, 1), ("stem", "activation_int8_error", 0.1, 1)]
    rows += [("stem", "gradient_float16_error", 1.5, 1), ("head", "gradient_float16_error", 0.002, 1)]
    (chart,) = heat_maps([result("run", *rows)])
    (cells,) = chart.traces
    assert cells["x"] == ["activ.<br>int8<br>error", "gradients<br>float16<br>error"]
    assert cells["z"] == [[-3.0, 0.0], [None, -6.0]]
    assert cells["text"][0][0] == "stem<br>activations, int8: error: 10 %"
    assert chart.notes[0] == "No layer has any error of 1 % in bfloat16 (activations)."
    assert "predicted" in chart.notes[1]


def files(*figures: tuple[str, float, float]) -> list[kp.Result]:
    """Return files with a size, an accuracy, and a plan of 20 layers."""
    plan = kp.PrecisionPlan.deployment("int8", layers={f"layer_{n}": "float32" for n in range(20)})
    return [
        result(name, (name, "size_bytes", size, None), (name, "accuracy", accuracy, None), plan=plan)
        for name, size, accuracy in figures
    ]


def test_the_pareto_chart_links_what_nothing_beats() -> None:
    """The Pareto front is linked; points show their plans, cut where they are long."""
    (chart,) = pareto_charts(files(("a", 1000, 0.9), ("b", 2000, 0.8), ("c", 3000, 0.95), ("d", 3000, 0.94)))
    best, others = chart.traces
    assert (best["text"], best["x"]) == (["a", "c"], [1.0, 3.0])
    assert others["text"] == ["b", "d"]
    hover = best["hovertext"][0].split("<br>")
    assert hover[:5] == ["<b>a</b>", "size: 1.0 kB", "accuracy: 90.00 %", "default: int8", "layer_0: float32"]
    assert hover[-1] == "and 6 more layers"


def test_a_worth_that_is_better_when_lower() -> None:
    """Runs without an accuracy are judged by their validation loss, and the lower left is best."""
    runs = [
        result(name, ("fit", "step_time_ms", time, None), ("epoch", "val_loss", loss, 3))
        for name, time, loss in (("a", 2.0, 0.5), ("b", 1.0, 0.7), ("c", 3.0, 0.6))
    ]
    (chart,) = pareto_charts(runs)
    assert chart.traces[0]["text"] == ["b", "a"]
    assert "lower left" in chart.about
    assert pareto_charts(runs[:1]) == []


def test_errors_by_layer() -> None:
    """Layers keep their order; every precision has its bars, and a single subject is no layer."""
    rows = [("all in int8", 0.01), ("stem in int4", 0.5), ("stem in float32", 0.0), ("head in int4", 0.2)]
    (chart,) = layer_errors([result("run", *[(name, "divergence", value, None) for name, value in rows])])
    assert chart.layout["yaxis"]["ticktext"] == ["all", "stem", "head"]
    assert [(bars["name"], bars["y"], bars["x"]) for bars in chart.traces] == [
        ("int8", [0], [0.01]),
        ("int4", [1, 2], [0.5, 0.2]),
        ("float32", [1], [0.0]),
    ]
    (plain,) = layer_errors([result("file", ("stem", "snr_db", 30.0, None), ("head", "snr_db", 20.0, None))])
    assert plain.title == "Signal-to-noise ratio: file"
    assert [bars["name"] for bars in plain.traces] == ["snr db"]
    assert layer_errors([result("file", ("model.tflite", "snr_db", 30.0, None))]) == []


def test_a_result_of_many_plans_is_a_front() -> None:
    """Where one result holds many subjects with a size and a divergence, all of them are points."""
    rows = [
        (f"plan {n}", metric, value, None)
        for n, pair in enumerate([(1e3, 0.5), (2e3, 0.1), (3e3, 0.2)])
        for metric, value in zip(("size_bytes", "divergence"), pair, strict=True)
    ]
    (chart,) = pareto_charts([result("search", *rows)])
    assert chart.traces[0]["text"] == ["plan 0", "plan 1"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("stem", "stem"),
        ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)&gt;"),
        ("a\nb\t c", "a b c"),
        ("x" * 100_000, "x" * 23 + "…" + "x" * 23),
    ],
)
def test_labels_are_short_and_harmless(text: str, shown: str) -> None:
    """Plotly reads tags in texts: a label has none, one line, and an end."""
    assert label(text) == shown
