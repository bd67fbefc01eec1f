"""compare_training: otherwise identical trainings in several precisions, with verdicts from confidence intervals."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from keras_precision.comparison.comparison import Comparison
from keras_precision.core.errors import InputError
from keras_precision.core.plan import PrecisionPlan, check_precision
from keras_precision.core.system.files import check_destination
from keras_precision.core.system.progress import progress
from keras_precision.experiments.series import Series, TimingSettings
from keras_precision.experiments.task import Task, check_build, check_data
from keras_precision.experiments.worker import deadline_after, serialize

__all__ = ["check_numbers", "check_runs", "compare_training"]


def compare_training(
    build: Any,
    train_data: Any,
    validation_data: Any,
    precisions: Sequence[str | PrecisionPlan] | Mapping[str, str | PrecisionPlan] = (
        "float32",
        "mixed_bfloat16",
        "mixed_float16",
    ),
    seeds: Sequence[int] = (0, 1, 2),
    *,
    epochs: int = 1,
    steps: int | None = None,
    batch_size: int = 32,
    callbacks: Callable[[str], Sequence[Any]] | str | None = None,
    metric: str | None = None,
    mode: Literal["auto", "max", "min"] = "auto",
    margin: float | None = None,
    processes: int = 8,
    resolution: float = 0.02,
    timing_seconds: float = 60.0,
    time_limit: float | None = None,
    path: str | os.PathLike[str] | None = None,
    trace: bool | str | os.PathLike[str] = False,
    verbose: bool | None = None,
) -> Comparison:
    """Train one model in several precisions, otherwise identically, and report which differences are significant.

    Every training has a fresh process, and begins with the same weights and data; then steps are timed interleaved (ABBA).

    Args:
        build: A function that returns a compiled model, ``"module:function"``, or the path of a ``.keras`` file.
        train_data: ``(x, y)`` or ``(x, y, weights)``, shuffled once per seed; a dataset; or a function that returns one.
        validation_data: The same, evaluated after every epoch.
        precisions: Policies or training plans, the baseline first; or run names to these.
        seeds: For initial weights, order of the data, and dropout: one training per seed.
        epochs: Epochs of a training.
        steps: Training steps of a training, in place of epochs.
        batch_size: Samples a batch, where the data are arrays.
        callbacks: A function, or ``"module:function"``, that is called with the run's name and returns callbacks.
        metric: The compiled metric to compare; None for the first, or the loss.
        mode: Whether higher (``"max"``) or lower (``"min"``) is better; ``"auto"`` by the metric's name.
        margin: The loss of the metric that still counts as equal; None: see ``Comparison``.
        processes: Timed processes per run; a speedup is an interval over them.
        resolution: The target half width of that interval; timing goes on until it is reached.
        timing_seconds: The most seconds of timing, all processes together.
        time_limit: Seconds for everything; None for no limit.
        path: Where the comparison is saved, again after every seed; None for nowhere.
        trace: A folder for a trace of a few steps per run, by the backend's own profiler; True for ``"traces"``.
        verbose: Whether to draw a progress bar; None: on a terminal.

    Returns:
        The comparison.

    Raises:
        InputError: An argument cannot be used, ``build`` cannot be pickled or differs between calls.
        DataError: The data do not fit, or run out.
        WorkerError: The baseline failed; the message has the last lines of its log.
        DestinationError: ``path`` cannot be written.

    Example:
        >>> model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
        >>> _ = model.fit(x_test, y_test, verbose=0), model.save("small.keras")
        >>> data, runs = (x_test, y_test), {"a": "float32", "b": "float32"}
        >>> comparison = compare_training("small.keras", data, data, runs, (0,), processes=1, timing_seconds=0.1)
        >>> comparison.result("b").value("diverged_share")
        0.0
    """
    timing, runs = TimingSettings(processes, resolution, timing_seconds), check_runs(precisions)
    checked = check_data(train_data, "training data"), check_data(validation_data, "validation data")
    task = Task(check_build(build), *checked, callbacks, batch_size, epochs, steps, metric)
    check_numbers(task, seeds, timing)
    series = Series(
        runs,
        serialize(task, "build, data and callbacks"),
        {"mode": mode, "margin": margin},
        deadline=deadline_after(time_limit),
        path=None if path is None else check_destination(path),
    )
    return _run_series(series, len(runs), seeds, timing, trace, verbose)


def _run_series(
    series: Series, runs: int, seeds: Sequence[int], timing: TimingSettings, trace: Any, verbose: bool | None
) -> Comparison:
    series.check_settings()  # before any work
    with (
        series,
        progress("comparing", "processes", runs * max(len(seeds), timing.processes), verbose=verbose) as advance,
    ):
        try:
            series.train(seeds, timing, advance)
            series.time(seeds, timing, advance)
            if trace is not False:
                series.trace(seeds[0], Path("traces" if trace is True else trace))
        except KeyboardInterrupt:
            if not series.has_baseline:
                raise
            series.note("interrupted: these are the results until then")
    return series.comparison()


def check_runs(precisions: Any, least: int = 2) -> dict[str, str | PrecisionPlan]:
    """Return name to precision, the baseline first, of policies or training plans, or of a mapping of names to these."""
    if isinstance(precisions, str) or not isinstance(precisions, Sequence | Mapping) or len(precisions) < least:
        count = "two precisions, the baseline first" if least > 1 else "one precision"
        raise InputError(
            f"Expected at least {count}. Received: {precisions!r}. "
            "Pass a sequence, or a mapping of run names to precisions or plans."
        )
    if isinstance(precisions, Mapping):
        runs = {str(name): precision for name, precision in precisions.items()}
    else:
        names = [value if isinstance(value, str) else f"plan {number}" for number, value in enumerate(precisions)]
        runs = dict(zip(names, precisions, strict=True))
    if len(runs) < len(precisions):
        raise InputError(
            f"Expected different precisions. Received: {precisions!r}. To compare one with itself, name the runs: "
            "{'a': 'float32', 'b': 'float32'}."
        )
    for name, precision in runs.items():
        if isinstance(precision, PrecisionPlan):
            precision.expect("training")
        else:
            check_precision(precision, "training", f"the precision of '{name}'")
    return runs


def check_numbers(task: Task, seeds: Sequence[int], timing: TimingSettings) -> None:
    """Raise InputError for a seed, count or time of a comparison that is out of range."""
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(
            f"Expected different seeds, and at least one. Received: {seeds!r}. Pass a sequence such as (0, 1, 2)."
        )
    counts = {
        "epochs": task.epochs, "steps": task.steps, "batch_size": task.batch_size, "processes": timing.processes,
    }  # fmt: skip
    for name, count in counts.items():
        if not (name == "steps" and count is None) and (not isinstance(count, int) or count < 1):
            raise InputError(f"Expected {name} to be a whole number >= 1. Received: {count!r}.")
    sizes = {"resolution": timing.resolution, "timing_seconds": timing.seconds}
    for name, size in sizes.items():
        if not isinstance(size, int | float) or size <= 0:
            raise InputError(f"Expected {name} to be a number above 0. Received: {size!r}.")
