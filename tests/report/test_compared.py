"""Comparisons in a report: their verdicts lead, as a sentence, a chart and the classic table."""

from pathlib import Path

import pytest

import keras_precision as kp
from keras_precision.comparison.comparison import Comparison
from keras_precision.report.charts.loss import loss_chart
from keras_precision.report.charts.step_time import step_time_line, step_time_spread
from keras_precision.report.charts.verdicts import verdict_chart
from keras_precision.report.overview import overview

HERE = kp.Environment(processor="One", cores=2, sources={"peak_memory_mb": "allocator"})


def run(name: str, time: float, memory: float, losses: tuple[float, ...]) -> kp.Result:
    """Return a run as ``kp.compare_training`` makes it: three interleaved processes, two seeds."""
    rows = [
        kp.Measurement("fit", "session", "s"),
        kp.Measurement("fit", "step_time_ms", time),
        kp.Measurement("fit", "val_accuracy", 0.9),
        kp.Measurement("fit", "peak_memory_mb", memory),
    ]
    for number in range(3):
        times = [time * (1 + 0.01 * number) * drift for drift in (1.0, 1.1, 1.2, 1.3)]
        rows += [
            kp.Measurement(f"process {number}", "step_time_ms", step_time, index)
            for index, step_time in enumerate(times)
        ]
    for seed in range(3):
        rows.append(kp.Measurement("seed", "val_accuracy", 0.9 + 0.001 * seed, seed))
        rows.append(kp.Measurement("seed", "peak_memory_mb", memory, seed))
        rows += [kp.Measurement(f"seed {seed}", "loss", loss + seed, epoch) for epoch, loss in enumerate(losses)]
    return kp.Result(name, rows, HERE)


COMPARISON = Comparison(
    run("float32", 10.0, 100.0, (4.0, 3.0, 2.0)),
    (run("mixed_bfloat16", 5.0, 60.0, (4.0, 3.0, 2.0)), run("mixed_float16", 20.0, 60.0, (4.0, 6.0, 9.0))),
    metric="val_accuracy",
)


def test_the_recommendation_comes_first() -> None:
    """The first sentence is the comparison's own, with its reason, and the first tile its speed with the interval."""
    said = overview([], (), [COMPARISON])
    assert said.sentences == (f"Recommended: mixed_bfloat16: {COMPARISON.reason}",)
    assert said.tiles[0].figure == "2.00x"
    assert said.tiles[0].meaning.startswith("speed of mixed_bfloat16 against float32 (")


def test_intervals_are_drawn_by_verdict() -> None:
    """Every metric with an interval is a point; its colour is the verdict, and right is better."""
    chart = verdict_chart(COMPARISON)
    assert chart.layout["yaxis"]["ticktext"] == [
        "mixed_bfloat16: speed of a step",
        "mixed_bfloat16: memory saved",
        "mixed_float16: speed of a step",
        "mixed_float16: memory saved",
    ]
    points = {trace["name"]: dict(zip(trace["y"], trace["x"], strict=True)) for trace in chart.traces}
    assert points["better"] == pytest.approx({0: 2.0, 1: 1.6667, 3: 1.6667}, rel=1e-3)
    assert points["worse"] == pytest.approx({2: 0.5}, rel=1e-3)
    assert all(value >= 0 for trace in chart.traces for value in trace["error_x"]["array"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what plotly imports
def test_plotly_knows_every_word_of_it() -> None:
    """Plotly's own check accepts the chart."""
    from plotly.graph_objects import Figure

    chart = verdict_chart(COMPARISON)
    assert Figure(data=list(chart.traces), layout=dict(chart.layout)).data


def test_curves_are_means_over_seeds() -> None:
    """A run of several seeds is one curve, and is compared as one."""
    chart = loss_chart(COMPARISON.results)
    assert [trace["y"] for trace in chart.traces] == [[5.0, 4.0, 3.0], [5.0, 4.0, 3.0], [5.0, 7.0, 10.0]]
    assert [shape["x0"] for shape in chart.layout["shapes"]] == [2]


def test_processes_have_a_spread_and_no_time_line() -> None:
    """The steps of processes are spread like any; an order they have not."""
    assert len(step_time_spread(COMPARISON.results).traces) == 3
    assert step_time_line(COMPARISON.results) is None


def test_a_comparison_is_shown_once(tmp_path: Path) -> None:
    """Its runs stand in its own table, and in no other; other results have theirs."""
    COMPARISON.save(tmp_path / "comparison.json")
    other = kp.Result("int8", [kp.Measurement("m.tflite", "size_bytes", 5)], HERE)
    page = kp.save_report([tmp_path / "comparison.json", other], tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<figcaption>Training</figcaption>") == 1
    assert page.count("<figcaption>Deployment</figcaption>") == 1
    assert page.index("Recommended: mixed_bfloat16") < page.index("Against float32") < page.index("<h2>Runs and files")
    assert kp.render([COMPARISON, other], "markdown").count("### ") == 2
