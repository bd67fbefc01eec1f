"""Comparison: verdicts that are no stronger than the data, from results built by hand."""

import dataclasses
import json
import re
import warnings
from collections.abc import Sequence

import numpy as np
import pytest

from keras_precision.comparison.comparison import Comparison
from keras_precision.comparison.effect import effect, pack_correct, unpack_correct
from keras_precision.core.environment import Environment
from keras_precision.core.errors import (
    FileFormatError,
    InputError,
    NotComparableError,
    NotMeasuredError,
    PrecisionWarning,
)
from keras_precision.core.result import Measurement, Result
from keras_precision.report.render import render

HERE = Environment(system="Linux", processor="One", cores=2, device="One", sources={"peak_memory_mb": "allocator"})
THERE = dataclasses.replace(HERE, processor="Another", device="Another")


def run(
    name: str,
    times: Sequence[Sequence[float]] = (),
    *,
    session: str | None = "s",
    environment: Environment = HERE,
    seeds: dict[str, Sequence[float | str]] | None = None,
) -> Result:
    """Return a run: step times by process and round, and figures by seed."""
    rows = [Measurement("fit", "session", session)] if session else []
    rows += [Measurement("fit", "step_time_ms", float(np.median(times)))] if times else []
    for number, rounds in enumerate(times):
        rows += [
            Measurement(f"process {number}", "step_time_ms", step_time, index) for index, step_time in enumerate(rounds)
        ]
    for metric, values in (seeds or {}).items():
        rows += [Measurement("seed", metric, value, seed) for seed, value in enumerate(values)]
        if not isinstance(values[0], str):
            rows.append(Measurement("fit", metric, float(np.mean(values))))
    return Result(name, tuple(rows), environment)


def processes(*means: float) -> list[list[float]]:
    """Return four rounds around every mean, in a drift that hits both runs of a round alike."""
    return [[mean * drift for drift in (1.0, 1.1, 1.2, 1.3)] for mean in means]


BASE = run(
    "float32", processes(10.0, 10.1, 9.9), seeds={"val_accuracy": [0.90, 0.91, 0.92], "peak_memory_mb": [100] * 3}
)


def against(other: Result, **settings: object) -> Comparison:
    """Return the comparison of a run with the baseline."""
    return Comparison(BASE, [other], metric="val_accuracy", **settings)


@pytest.mark.parametrize(
    ("means", "verdict"),
    [
        ((5.0, 5.1, 4.9), "better"),
        ((20.0, 20.1, 19.9), "worse"),
        ((10.0, 10.2, 9.8), "inconclusive"),
        ((10.05, 10.15, 9.95), "inconclusive"),  # half a percent, without a doubt: two processes differ by more
        ((9.0, 15.0, 6.0), "inconclusive"),
    ],
)
def test_times_are_compared_over_processes(means: tuple[float, ...], verdict: str) -> None:
    """A difference is one that every pair of processes shows, beyond what two processes of one program differ by."""
    comparison = against(run("other", processes(*means)))
    assert comparison.verdict("step_time_ms", "other") == verdict
    assert comparison.interval("step_time_ms", "other").count == 3


def test_a_rate_is_the_inverse_of_its_time() -> None:
    """Half of the time is twice the rate, and better as well."""
    comparison = against(run("fast", processes(5.0, 5.0, 5.1)))
    assert comparison.verdict("samples_per_second", "fast") == "better"
    assert comparison.interval("samples_per_second", "fast").estimate == pytest.approx(
        1 / comparison.interval("step_time_ms", "fast").estimate
    )


def test_a_drift_that_hits_both_is_no_difference() -> None:
    """A machine that slows down to a third does not decide: the rounds are compared in pairs."""
    slowing = [1.0, 1.5, 2.0, 2.5, 2.8, 3.0]
    pair = [run(name, [[step_time * k for step_time in slowing] for k in (1, 1.01, 0.99)]) for name in ("a", "b")]
    assert Comparison(pair[0], pair[1:]).verdict("step_time_ms", "b") == "inconclusive"


def test_times_of_other_days_are_allowed_a_drift() -> None:
    """Without turns, five percent are no difference, and a half is one."""
    base = run("base", processes(10.0, 10.0, 10.1), session="monday")
    for mean, verdict in ((10.5, "inconclusive"), (5.0, "better")):
        other = run("other", processes(mean, mean, mean * 1.01), session="tuesday")
        assert Comparison(base, [other]).verdict("step_time_ms", "other") == verdict


def test_steps_of_a_profiler_can_be_compared() -> None:
    """A run that the profiler alone watched has steps, in groups."""

    def profiled(name: str, mean: float) -> Result:
        steps = [Measurement("step", "step_time_ms", mean * (1 + 0.01 * (k % 3)), k) for k in range(60)]
        return Result(name, (Measurement("fit", "step_time_ms", mean), *steps), HERE)

    assert Comparison(profiled("a", 10.0), [profiled("b", 20.0)]).verdict("step_time_ms", "b") == "worse"
    few = dataclasses.replace(profiled("c", 10.0), measurements=profiled("c", 10.0).measurements[:15])
    with pytest.raises(NotMeasuredError, match="at least 20 timed steps. Received: 14 of 'c'. Train longer"):
        Comparison(profiled("a", 10.0), [few]).verdict("step_time_ms", "c")


def test_times_of_two_machines_are_refused() -> None:
    """There is a warning, no verdict on time, and a verdict on the metric all the same."""
    other = run("other", processes(5.0, 5.0, 5.1), environment=THERE, seeds={"val_accuracy": [0.5, 0.51, 0.52]})
    with pytest.warns(PrecisionWarning, match="'other' was measured on a different machine than 'float32'"):
        comparison = against(other)
    with pytest.raises(NotComparableError, match="times of one machine. Received: 'step_time_ms' of 'float32' and"):
        comparison.verdict("step_time_ms", "other")
    assert comparison.verdict("val_accuracy", "other") == "worse"
    assert comparison.recommended == "float32"
    assert re.search(r"\| other \| 5\.\d+ ms \| - \|", render(comparison, "markdown"))


def test_memory_of_two_sources_is_refused() -> None:
    """Figures of an allocator and of a resident set are not compared."""
    other = run(
        "other", environment=dataclasses.replace(HERE, sources={"peak_memory_mb": "resident set"}),
        seeds={"peak_memory_mb": [50, 50, 50]},
    )  # fmt: skip
    with pytest.raises(
        NotComparableError, match="values of one source.*'float32' from allocator, and of 'other' from resi"
    ):
        against(other).verdict("peak_memory_mb", "other")


@pytest.mark.parametrize(
    ("values", "verdict"),
    [((50, 50, 50), "better"), ((100, 100, 100), "inconclusive"), ((90, 130, 100), "inconclusive")],
)
def test_memory_is_compared_over_seeds(values: Sequence[float], verdict: str) -> None:
    """Less memory is better, where the seeds agree."""
    assert against(run("other", seeds={"peak_memory_mb": values})).verdict("peak_memory_mb", "other") == verdict


def test_one_figure_says_nothing_of_its_spread() -> None:
    """One seed, one process and no seed at all are refused, with what to do."""
    one = run("one", processes(5.0), seeds={"val_accuracy": [0.9]})
    with pytest.raises(NotMeasuredError, match="at least two seeds. Received: 1, .* Use seeds="):
        against(one).verdict("val_accuracy", "one")
    with pytest.raises(
        NotMeasuredError, match="interleaved rounds of at least two processes. Received: 1 of 'one'. Allow more time"
    ):
        against(one).verdict("step_time_ms", "one")
    with pytest.raises(NotMeasuredError, match="of several seeds or samples. Received: one value"):
        Comparison(
            Result("a", (Measurement("m", "accuracy", 0.9),)), [Result("b", (Measurement("m", "accuracy", 0.8),))]
        ).verdict("accuracy", "b")


@pytest.mark.parametrize(
    ("accuracies", "preserved"),
    [((0.90, 0.91, 0.92), True), ((0.85, 0.86, 0.87), False), ((0.93, 0.88, 0.92), False), ((0.95, 0.96, 0.97), True)],
)
def test_the_metric_is_preserved_where_a_larger_loss_is_ruled_out(accuracies: Sequence[float], preserved: bool) -> None:
    """It is not enough that no loss is shown."""
    assert against(run("other", seeds={"val_accuracy": accuracies})).keeps_metric("other") == preserved


def test_a_lower_metric_is_preserved_the_other_way_round() -> None:
    """The margin of a loss is one percent of the baseline's, upwards."""
    base, close, far = (
        run(name, seeds={"val_loss": [k * x for x in (2.0, 2.1, 1.9)]})
        for name, k in (("a", 1), ("b", 1.005), ("c", 1.1))
    )
    comparison = Comparison(base, [close, far], metric="val_loss")
    assert comparison.margin_used() == pytest.approx(0.02)
    assert [comparison.keeps_metric(name) for name in "abc"] == [True, True, False]
    assert comparison.verdict("val_loss", "c") == "worse"


def test_the_fastest_that_keeps_the_metric_is_recommended() -> None:
    """A faster one that loses accuracy, or diverges, is not, and the reason says so."""
    good, bad = {"val_accuracy": [0.90, 0.91, 0.92]}, {"val_accuracy": [0.5, 0.5, 0.5]}
    runs = [
        run("bf16", processes(6.0, 6.0, 6.1), seeds=good),
        run("f16", processes(3.0, 3.0, 3.1), seeds=bad),
        run("broken", processes(2.0, 2.0, 2.1), seeds={**good, "diverged_share": [0.0, 1.0, 0.0]}),
    ]
    comparison = Comparison(BASE, runs, metric="val_accuracy")
    assert comparison.recommended == "bf16"
    assert comparison.reason.startswith("bf16 is 1.66 times (")
    assert "val_accuracy is kept within 0.01" in comparison.reason
    without = Comparison(BASE, runs[1:], metric="val_accuracy")
    assert without.recommended == "float32"
    assert "f16: not shown to keep val_accuracy within 0.01" in without.reason
    assert "broken: 33 % of its seeds diverge" in without.reason


def test_less_memory_is_a_reason_where_nothing_is_faster() -> None:
    """A run as fast as the baseline is recommended for its memory."""
    lean = run(
        "lean", processes(10.0, 10.1, 9.9), seeds={"val_accuracy": [0.9, 0.91, 0.92], "peak_memory_mb": [60] * 3}
    )
    assert against(lean).recommended == "lean"
    assert "lean needs 40 % less memory than float32" in against(lean).reason


def deployed(name: str, right: Sequence[bool], **figures: float | str) -> Result:
    """Return a deployed model that answered some samples right."""
    rows = {
        "answers_right": pack_correct(np.asarray(right)),
        "accuracy": float(np.mean(right)),
        "data_order": "d",
        **figures,
    }
    return Result(name, tuple(Measurement(name, metric, value) for metric, value in rows.items()), HERE)


def test_accuracy_is_compared_on_the_same_samples() -> None:
    """McNemar's test decides: of 30 changed answers 25 lost are worse, and 15 lost are nothing."""
    base = [True] * 900 + [False] * 100
    for lost, verdict in ((25, "worse"), (15, "inconclusive"), (5, "better")):
        other = [False] * lost + [True] * (900 - lost) + [True] * (30 - lost) + [False] * (70 + lost)
        comparison = Comparison(deployed("a", base), [deployed("b", other)], metric="accuracy")
        assert comparison.verdict("accuracy", "b") == verdict
        assert comparison.interval("accuracy", "b").estimate == pytest.approx((30 - 2 * lost) / 1000)
    with pytest.raises(NotComparableError, match="otherwise identical. Received: 'a' and 'c', whose 'data_order'"):
        Comparison(deployed("a", base), [deployed("b", base), deployed("c", base, data_order="e")]).verdict(
            "accuracy", "c"
        )


def test_a_size_is_exact() -> None:
    """One figure of a size is enough: a file has no spread."""
    pair = [deployed(name, [True], size_bytes=size) for name, size in (("a", 1000), ("b", 999), ("c", 1000))]
    comparison = Comparison(pair[0], pair[1:])
    assert [comparison.verdict("size_bytes", name) for name in "bc"] == ["better", "inconclusive"]


def test_answers_survive_packing(rng: np.random.Generator) -> None:
    """Any number of answers is unpacked as it was packed, and a damaged text is refused."""
    for count in (0, 1, 7, 8, 9, 1000):
        right = rng.random(count) < 0.5
        assert np.array_equal(unpack_correct(pack_correct(right)), right)
    with pytest.raises(FileFormatError, match="correct predictions as 'count:digits'. Received: 'x:zz'"):
        unpack_correct("x:zz")


def test_classes_that_suffer_are_named() -> None:
    """A mean that stands hides a class that falls: the worst is first, and in the notes."""

    def classified(name: str, *accuracies: float) -> Result:
        rows = [Measurement(f"class {k}", "class_accuracy", v, s) for k, v in enumerate(accuracies) for s in (0, 1)]
        return dataclasses.replace(BASE, name=name, measurements=(*BASE.measurements, *rows))

    comparison = Comparison(classified("a", 0.9, 0.9, 0.9), [classified("b", 0.95, 0.5, 0.95)], metric="val_accuracy")
    assert list(comparison.class_changes("b")) == ["1", "0", "2"]
    assert comparison.class_changes("b")["1"] == pytest.approx(-0.4)
    assert "b: 1 classes lose more than 2 points of accuracy: 1 (-40.0 points)." in render(comparison)


@pytest.mark.parametrize("what", ["initial_weights", "data_order", "configuration"])
def test_runs_that_are_not_otherwise_identical_are_refused(what: str) -> None:
    """Another hash for the same seed is another experiment; for another seed it is none."""
    base = run("a", seeds={what: ["x", "y"]})
    Comparison(base, [run("b", seeds={what: ["x", "y", "z"]})])
    with pytest.raises(NotComparableError, match=f"otherwise identical. Received: 'a' and 'b', whose '{what}' differs"):
        Comparison(base, [run("b", seeds={what: ["x", "z"]})])


def test_wrong_arguments_are_refused() -> None:
    """Every message says what was expected, and what was received."""
    with pytest.raises(InputError, match=r"distinct names. Received: \['float32', 'float32'\]"):
        Comparison(BASE, [BASE])
    with pytest.raises(InputError, match="mode to be 'auto', 'max' or 'min'. Received: 'up'"):
        Comparison(BASE, mode="up")
    with pytest.raises(InputError, match="margin and tolerance of at least 0. Received: -1 and 0.01"):
        Comparison(BASE, margin=-1)
    with pytest.raises(InputError, match="one of the runs float32, other. Received: 'othr'. Did you mean 'other'?"):
        against(run("other")).verdict("step_time_ms", "othr")
    with pytest.raises(InputError, match="better direction. Received: 'loss_scale'"):
        against(run("other")).verdict("loss_scale", "other")


@pytest.mark.parametrize(
    ("metric", "mode", "higher"),
    [("val_auc", "auto", True), ("val_mine", "auto", False), ("val_mine", "max", True), ("val_auc", "min", False)],
)
def test_the_direction_of_a_metric_of_ones_own(metric: str, mode: str, higher: bool) -> None:
    """It follows the name, unless it is said."""
    assert Comparison(BASE, metric=metric, mode=mode).is_higher_better(metric) == higher


def test_a_saved_comparison_is_read_as_it_was(tmp_path) -> None:
    """Results, settings and notes come back, and other files are refused."""
    comparison = against(run("other", processes(5.0, 5.1)), margin=0.02, mode="max", notes=["one seed failed"])
    path = comparison.save(tmp_path / "comparison.json")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Comparison.load(path) == comparison
    for change in (
        {"format": "other"},
        {"version": 9},
        {"more": 1},
        {"results": {}},
        {"results": []},
        {"mode": "fast"},
    ):
        path.write_text(json.dumps({**json.loads(comparison.save(path).read_text()), **change}))
        with pytest.raises(FileFormatError, match="comparison.json"):
            Comparison.load(path)


def test_the_table_shows_the_intervals() -> None:
    """One row a run, the speedup with its interval, what is shown, and which to use."""
    other = run(
        "bf16", processes(5.0, 5.05, 4.95), seeds={"val_accuracy": [0.9, 0.91, 0.92], "peak_memory_mb": [80] * 3}
    )
    drawn = render(against(other), "markdown")
    assert str(against(other)) == render(against(other))
    assert "| Run | Step time | Speedup vs FP32 | Peak memory | Val accuracy |" in drawn
    assert "| bf16 | 5.75 ms | 2.00x (2.00-2.00) | 80 MB | 91.00 % |" in drawn
    assert "bf16 against float32: step_time_ms better, peak_memory_mb better, val_accuracy inconclusive." in drawn
    assert "Recommended: bf16: bf16 is 2.00 times" in drawn
    assert against(other)._repr_html_().startswith("<table><caption>Training</caption>")


def test_the_table_of_deployed_models() -> None:
    """Size, latency, throughput, accuracy, agreement, and accuracy per millisecond."""
    names = ("keras:float32", "tflite:int8")
    pair = [deployed(name, [True, False], size_bytes=2000, latency_ms=0.5, agreement=1.0) for name in names]
    drawn = render(Comparison(pair[0], pair[1:], metric="accuracy"), "markdown")
    assert (
        "| Precision | Model size | Latency | Speedup vs FP32 | Throughput | Accuracy | Agreement | Acc. per ms |"
        in drawn
    )
    assert "| tflite:int8 | 2.0 kB | 0.5 ms | - | - | 50.00 % | 100.00 % | 100 %/ms |" in drawn


def test_an_effect_is_a_ratio_or_a_difference() -> None:
    """Times, memory and sizes are compared by their ratio, shares by their difference."""
    other = run("other", seeds={"val_accuracy": [0.89, 0.90, 0.91], "peak_memory_mb": [50] * 3})
    assert effect(BASE, other, "peak_memory_mb").estimate == pytest.approx(0.5)
    assert effect(BASE, other, "val_accuracy").estimate == pytest.approx(-0.01)
