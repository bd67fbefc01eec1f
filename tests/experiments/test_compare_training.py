"""compare_training: what it starts, proves and keeps, with runs that only say that they train; and once in earnest."""

from pathlib import Path
from typing import Any

import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.comparison.comparison import Comparison
from keras_precision.core.environment import Environment
from keras_precision.core.errors import (
    DestinationError,
    InputError,
    PlanKindError,
    PrecisionWarning,
    UnknownPrecisionError,
    WorkerError,
)
from keras_precision.core.result import Measurement, Result
from keras_precision.experiments.compare_training import compare_training
from keras_precision.experiments.onednn_log import BEGIN, END
from keras_precision.experiments.series import Series

DATA = np.ones((4, 2)), np.ones(4)


class ScriptedWorker:
    """A worker with a scripted training."""

    alive: list["ScriptedWorker"] = []  # noqa: RUF012 - shared on purpose: what is started, and not closed

    def __init__(self, script: "Script", name: str, seed: int) -> None:
        self.script, self.name, self.seed = script, name, seed
        script.started.append((name, seed))
        ScriptedWorker.alive.append(self)

    def ask(self, request: str, *args: Any, deadline: float | None = None) -> Any:
        planned = self.script.failures.get((request, self.name, self.seed))
        if planned is not None:
            raise planned
        if request == "prepare":
            return {"metric": "val_accuracy", **self.script.identity(self.name)}
        if request == "train":
            rows = [
                Measurement("fit", "val_accuracy", self.script.accuracy[self.name] + self.seed / 100),
                Measurement("fit", "peak_memory_mb", 100.0), Measurement("fit", "skipped_steps", self.seed),
                Measurement("fit", "diverged_share", 0.0), Measurement("fit", "batch_size", 16),
                Measurement("epoch", "loss", 0.5, 0), Measurement("class 0", "class_accuracy", 0.9),
            ]  # fmt: skip
            return Result(self.name, tuple(rows), Environment(device="cpu", processor="cpu"))
        return [self.script.step_ms[self.name]] * args[0] if args else None

    def close(self) -> None:
        if self in ScriptedWorker.alive:
            ScriptedWorker.alive.remove(self)


class Script:
    """What the runs of a test do."""

    def __init__(self) -> None:
        self.started: list[tuple[str, int]] = []
        self.failures: dict[tuple[str, str, int], BaseException] = {}
        self.accuracy = {"float32": 0.9, "mixed_bfloat16": 0.9, "mixed_float16": 0.9}
        self.step_ms = {"float32": 10.0, "mixed_bfloat16": 5.0, "mixed_float16": 20.0}
        self.different = ""

    def identity(self, name: str) -> dict[str, str]:
        same = {"initial_weights": "w", "data_order": "d", "configuration": "c"}
        return {**same, self.different: "other"} if self.different and name == "mixed_bfloat16" else same


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs that only say that they train; none is left behind."""
    scripted = Script()
    monkeypatch.setattr(Series, "_started", lambda self, name, seed: ScriptedWorker(scripted, name, seed))
    ScriptedWorker.alive.clear()
    yield scripted
    assert ScriptedWorker.alive == []


def compare(**options: Any) -> Comparison:
    """Compare three runs that only say that they train."""
    return compare_training(dict, DATA, DATA, **{"seeds": (0, 1, 2), **options})


def test_each_seed_and_each_process_is_started_once(script: Script) -> None:
    """Three runs, three seeds; five more processes of each take turns; the verdicts follow."""
    comparison = compare()
    names = ["float32", "mixed_bfloat16", "mixed_float16"]
    assert script.started == [(name, seed) for seed in (0, 1, 2, 0, 1, 2, 0, 1) for name in names]
    assert [comparison.verdict("step_time_ms", name) for name in names[1:]] == ["better", "worse"]
    assert comparison.recommended == "mixed_bfloat16"
    assert comparison.interval("step_time_ms", "mixed_bfloat16").count == 8
    run = comparison.result("mixed_bfloat16")
    assert run.value("val_accuracy", "fit") == pytest.approx(0.91)
    assert run.value("skipped_steps", "fit") == 3
    assert run.value("samples_per_second") == pytest.approx(3200)
    assert run.series("loss", "seed 2") == ([0], [0.5])
    assert run.environment.sources["step_time_ms"].startswith("median of all steps")
    assert "8 processes of every run" in run.environment.sources["step_time_ms"]


def test_memory_is_measured_alone_on_an_accelerator(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """There, a process that waits would hold memory: each is closed before the next, and the turns have their own."""
    original = ScriptedWorker.ask

    def ask(self: ScriptedWorker, request: str, *args: Any, deadline: float | None = None) -> Any:
        answer = original(self, request, *args, deadline=deadline)
        if request == "train":
            assert len(ScriptedWorker.alive) == 1
            answer = Result(answer.name, answer.measurements, Environment(device="gpu", processor="cpu"))
        return answer

    monkeypatch.setattr(ScriptedWorker, "ask", ask)
    compare(processes=2)
    assert len(script.started) == 3 * 3 + 2 * 3


@pytest.mark.parametrize("what", ["initial_weights", "data_order", "configuration"])
def test_runs_that_differ_in_more_than_precision_are_refused(script: Script, what: str) -> None:
    """The hash that differs is named, with what to do."""
    script.different = what
    with pytest.raises(
        InputError,
        match=f"only in precision. Received: 'mixed_bfloat16' and 'float32', whose {what.replace('_', ' ')} differ for seed 0",
    ):
        compare()


def test_a_run_that_dies_costs_the_others_nothing(script: Script) -> None:
    """What was measured of it before is kept; the others go on; the warning has its last words."""
    script.failures["train", "mixed_float16", 1] = WorkerError("ended with signal SIGKILL.\nlast line of its log")
    with pytest.warns(PrecisionWarning, match="(?s)'mixed_float16' is excluded from seed 1 on:.*last line of its log"):
        comparison = compare()
    assert comparison.verdict("step_time_ms", "mixed_bfloat16") == "better"
    assert [row.step for row in comparison.result("mixed_float16").select("val_accuracy", "seed")] == [0]
    assert any("last line of its log" in note for note in comparison.notes)


def test_nothing_is_compared_with_a_baseline_that_failed(script: Script) -> None:
    """Its error is raised."""
    script.failures["train", "float32", 0] = WorkerError("the baseline's last words")
    with pytest.raises(WorkerError, match="the baseline's last words"):
        compare()


def test_ctrl_c_keeps_what_was_measured(script: Script, tmp_path: Path) -> None:
    """Interrupted in the second seed, the first is there, returned and saved; before there is anything, it is Ctrl-C."""
    script.failures["train", "mixed_bfloat16", 1] = KeyboardInterrupt()
    with pytest.warns(PrecisionWarning, match="interrupted: these are the results"):
        comparison = compare(path=tmp_path / "comparison.json")
    assert [row.step for row in comparison.result("mixed_float16").select("val_accuracy", "seed")] == [0]
    assert [result.name for result in Comparison.load(tmp_path / "comparison.json").results] == list(script.accuracy)
    script.failures["train", "float32", 0] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        compare()


def test_a_full_disk_costs_nothing_that_is_in_memory(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison is returned, and a warning says that the file is not there."""

    def full(self: Comparison, path: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Comparison, "save", full)
    with pytest.warns(PrecisionWarning, match="could not be written: .*No space left on device"):
        comparison = compare(path=tmp_path / "comparison.json")
    assert comparison.recommended == "mixed_bfloat16"


def test_the_time_limit_ends_it(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no time for a second seed, the first is there, and the note says so."""
    clock = iter(range(0, 10**6, 10))
    monkeypatch.setattr(
        "keras_precision.experiments.series.time", type("Clock", (), {"monotonic": staticmethod(lambda: next(clock))})
    )
    monkeypatch.setattr(
        "keras_precision.experiments.worker.time", type("Clock", (), {"monotonic": staticmethod(lambda: 0)})
    )
    with pytest.warns(PrecisionWarning, match="the time limit allowed 1 of 3 seeds"):
        comparison = compare(time_limit=25, processes=1)
    assert [row.step for row in comparison.result("mixed_bfloat16").select("val_accuracy", "seed")] == [0]
    assert len({name for name, _ in script.started}) == 3


def test_each_run_is_traced_in_a_process_of_its_own(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more process of each run, in a folder of its own; what its kernels tell is in the result."""
    line = "onednn_verbose,v1,primitive,exec,cpu,matmul,brg,undef,src:bf16::blocked:ab::f0 dst:bf16::blocked:ab::f0,,,8x8,1.0"

    class Tracing(ScriptedWorker):
        def __enter__(self) -> "Tracing":
            return self

        def __exit__(self, *exception: object) -> None:
            self.close()

        def ask(self, request: str, *args: Any, deadline: float | None = None) -> Any:
            return (5.0, None) if request == "trace" else super().ask(request, *args, deadline=deadline)

        def log(self) -> list[str]:
            return [BEGIN, line, END]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Series, "_started", lambda self, name, seed, environment=None: Tracing(script, name, seed))
    comparison = compare(seeds=(0,), processes=1, trace=True)
    assert len(script.started) == 6
    assert sorted(path.name for path in (tmp_path / "traces").iterdir()) == sorted(script.accuracy)
    assert [run.value("low_precision_share") for run in comparison.results] == [1.0] * 3


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"precisions": ("float32",)}, InputError, "at least two precisions"),
        ({"precisions": "float32"}, InputError, "at least two precisions"),
        ({"precisions": ("float32", "float32")}, InputError, "To compare one with itself, name the runs"),
        ({"precisions": ("float32", "bfloat16")}, UnknownPrecisionError, "the precision of 'bfloat16'"),
        ({"precisions": {"a": "float32", "b": kp.PrecisionPlan.deployment("int8")}}, PlanKindError, "a training plan"),
        ({"seeds": ()}, InputError, "different seeds, and at least one"),
        ({"seeds": (1, 1)}, InputError, "different seeds, and at least one"),
        ({"epochs": 0}, InputError, "epochs to be a whole number >= 1. Received: 0"),
        ({"steps": 1.5}, InputError, "steps to be a whole number"),
        ({"processes": 0}, InputError, "processes to be a whole number"),
        ({"time_limit": 0}, InputError, "time_limit to be a number above 0"),
        ({"resolution": -1}, InputError, "resolution to be a number above 0"),
        ({"mode": "up"}, InputError, "mode to be 'auto'"),
        ({"margin": -1}, InputError, "margin and tolerance of at least 0"),
        ({"path": "no/such/folder/c.json"}, DestinationError, "a folder that exists"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused_before_any_work(
    script: Script, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Nothing was started."""
    with pytest.raises(error, match=message):
        compare(**options)
    assert script.started == []


@pytest.mark.slow
@pytest.mark.every_stack
def test_in_earnest(stack: Any, rng: np.random.Generator, tmp_path: Path) -> None:
    """In real processes, from the same weights and data: the curves differ by no more than the precision."""
    legacy = stack.name == "tf_keras"

    def build() -> Any:
        import importlib

        keras = importlib.import_module("tf_keras" if legacy else "keras")
        layers = keras.layers
        model = keras.Sequential([layers.Input((8,)), layers.Dense(16, "relu"), layers.Dense(3, "softmax")])
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    x, y = nets.classes(rng, 96)
    comparison = kp.compare_training(
        build, (x[:64], y[:64]), (x[64:], y[64:]), {"float32": "float32", "bf16": "mixed_bfloat16"}, seeds=(7,),
        epochs=2, batch_size=16, processes=1, timing_seconds=0.5, path=tmp_path / "c.json",
    )  # fmt: skip
    assert comparison.result("bf16").plan == kp.PrecisionPlan.training("mixed_bfloat16")
    wide, narrow = (result.series("loss", "seed 7")[1] for result in comparison.results)
    assert wide != narrow
    assert wide == pytest.approx(narrow, rel=0.05)
    for result in comparison.results:
        assert result.value("step_time_ms", "fit") > 0
        assert len(result.select("step_time_ms", "process 0")) >= 4
        assert result.value("peak_memory_mb", "fit") is None or result.value("peak_memory_mb", "fit") >= 0
    assert Comparison.load(tmp_path / "c.json") == comparison


def test_a_baseline_that_never_ended_is_told() -> None:
    """Without its figures, nothing can be compared."""
    with pytest.raises(WorkerError, match="Expected a training of 'base' that ended. Received: none within the time"):
        Series({"base": "float32"}, b"", {}).comparison()
