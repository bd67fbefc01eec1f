"""compare_training: otherwise identical trainings in several precisions, compared so that the verdict can be trusted."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from keras_precision.comparison.comparison import Comparison
from keras_precision.core.errors import InputError
from keras_precision.core.plan import PrecisionPlan, check_precision
from keras_precision.core.system.files import check_destination
from keras_precision.core.system.progress import progress
from keras_precision.experiments.series import Series, Watch
from keras_precision.experiments.task import Task, check_build, check_data
from keras_precision.experiments.worker import packed

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
    """Train one model in several precisions, otherwise identically, and say what can be shown of the difference.

    Each training has a fresh process, and begins with the same weights and data; then they take turns.

    Args:
        build: A function that returns a compiled model, ``"module:function"``, or the path of a ``.keras`` file.
        train_data: ``(x, y)`` or ``(x, y, weights)``, shuffled once for each seed; or what makes data in the child.
        validation_data: The same, scored after each epoch.
        precisions: Policies or training plans, the baseline first; or run names to these.
        seeds: For initial weights, order of the data, and dropout: one training each.
        epochs: Epochs of each training.
        steps: Training steps of each, in place of epochs.
        batch_size: Samples a batch, where the data are arrays.
        callbacks: A function, or ``"module:function"``, that is given the run's name and returns callbacks.
        metric: The compiled metric to compare; None for the first, or the loss.
        mode: Whether higher (``"max"``) or lower (``"min"``) is better; ``"auto"`` by the metric's name.
        margin: How much worse the metric may be and count as kept; None: see ``Comparison``.
        processes: How many of each run take turns; a speedup is an interval over them.
        resolution: How narrow that interval is to be to each side; turns go on until their part of it is.
        timing_seconds: Seconds of turns at the most, all processes together.
        time_limit: Seconds for everything; None for no limit.
        path: Where the comparison is saved, again after each seed; None for nowhere.
        trace: A folder for a trace of a few steps of each run, by the backend's own profiler; True for ``"traces"``.
        verbose: Whether to draw a progress bar; None: on a terminal.

    Returns:
        The comparison.

    Raises:
        InputError: An argument cannot be used, ``build`` cannot travel or differs between calls.
        DataError: The data do not fit, or run out.
        WorkerError: The baseline failed; the message has the end of its log.
        DestinationError: ``path`` cannot be written.

    Example:
        >>> model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
        >>> _ = model.fit(x_test, y_test, verbose=0), model.save("small.keras")
        >>> data, runs = (x_test, y_test), {"a": "float32", "b": "float32"}
        >>> comparison = compare_training("small.keras", data, data, runs, (0,), processes=1, timing_seconds=0.1)
        >>> comparison.result("b").value("diverged_share")
        0.0
    """
    watch, runs = Watch(processes, resolution, timing_seconds), check_runs(precisions)
    checked = check_data(train_data, "training data"), check_data(validation_data, "validation data")
    task = Task(check_build(build), *checked, callbacks, batch_size, epochs, steps, metric)
    check_numbers(task, seeds, watch, time_limit)
    series = Series(
        runs,
        packed(task, "build, data and callbacks"),
        {"mode": mode, "margin": margin},
        deadline=None if time_limit is None else time.monotonic() + time_limit,
        path=None if path is None else check_destination(path),
    )
    return _measured(series, len(runs), seeds, watch, trace, verbose)


def _measured(
    series: Series, runs: int, seeds: Sequence[int], watch: Watch, trace: Any, verbose: bool | None
) -> Comparison:
    series.comparison_of_nothing()  # refuses mode and margin before any work is done
    with (
        series,
        progress("comparing", "processes", runs * max(len(seeds), watch.processes), verbose=verbose) as advance,
    ):
        try:
            series.train(seeds, watch, advance)
            series.time(seeds, watch, advance)
            if trace is not False:
                series.trace(seeds[0], Path("traces" if trace is True else trace))
        except KeyboardInterrupt:
            if not series.has_baseline:
                raise
            series.note("interrupted: this is what was measured until then")
    return series.comparison()


def check_runs(precisions: Any, least: int = 2) -> dict[str, str | PrecisionPlan]:
    """Return the precision of each run.

    Args:
        precisions: Policies or training plans, or run names to these.
        least: How many there must be.

    Returns:
        Name to precision, the baseline first.

    Raises:
        InputError: There are too few, or two have one name.
        UnknownPrecisionError: A precision is no training precision.
        PlanKindError: A plan is a deployment plan.
    """
    if isinstance(precisions, str) or not isinstance(precisions, Sequence | Mapping) or len(precisions) < least:
        count = "two precisions, the baseline first" if least > 1 else "one precision"
        raise InputError(
            f"Expected at least {count}. Received: {precisions!r}. "
            "Give a sequence, or a mapping of run names to precisions or plans."
        )
    if isinstance(precisions, Mapping):
        runs = {str(name): precision for name, precision in precisions.items()}
    else:
        names = [each if isinstance(each, str) else f"plan {number}" for number, each in enumerate(precisions)]
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


def check_numbers(task: Task, seeds: Sequence[int], watch: Watch, time_limit: float | None = None) -> None:
    """Raise where a number of a comparison is none that it can have.

    Args:
        task: What every run does.
        seeds: One training each.
        watch: How turns are taken.
        time_limit: Seconds for everything; None for no limit.

    Raises:
        InputError: One cannot be used.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"Expected different seeds, and at least one. Received: {seeds!r}.")
    counts = {
        "epochs": task.epochs, "steps": task.steps, "batch_size": task.batch_size, "processes": watch.processes,
    }  # fmt: skip
    for name, count in counts.items():
        if not (name == "steps" and count is None) and (not isinstance(count, int) or count < 1):
            raise InputError(f"Expected {name} to be a whole number >= 1. Received: {count!r}.")
    sizes = {"resolution": watch.resolution, "timing_seconds": watch.seconds, "time_limit": time_limit}
    for name, size in sizes.items():
        if not (name == "time_limit" and size is None) and (not isinstance(size, int | float) or size <= 0):
            raise InputError(f"Expected {name} to be a number above 0. Received: {size!r}.")
