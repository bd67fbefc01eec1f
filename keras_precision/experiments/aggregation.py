"""Aggregation of one run's trainings from several seeds, and of its interleaved times, as one result."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from keras_precision.core.environment import Environment
from keras_precision.core.result import Measurement, Result
from keras_precision.core.system.timing import spread
from keras_precision.experiments.interleaving import InterleavedTimes
from keras_precision.experiments.onednn_log import Kernels

__all__ = ["aggregate_run", "trace_rows"]

_BY_SEED = ("peak_memory_mb", "skipped_steps", "diverged_share")
_ONCE = ("weights_mb", "gradients_mb", "optimizer_mb", "activations_mb", "loss_scale", "batch_size", "batches")
_TIMING_SOURCE = (
    "median of all steps, callbacks included; {count} processes of every run were interleaved (ABBA); a speedup has "
    "one value per process, from the fastest tenth of the steps in a block"
)


def aggregate_run(
    name: str,
    trained: Mapping[int, Result],
    identities: Mapping[int, Mapping[str, str]],
    metric: str,
    timings: Sequence[InterleavedTimes] = (),
    session: str = "",
) -> Result:
    """Return the result of one run from its trainings by seed, their hashes, and its interleaved times.

    It has summaries with the subject ``"fit"``; ``"seed"`` rows, whose step is the seed; ``"seed N"`` rows, the metrics of
    every epoch; ``"process N"`` rows, whose step is the round; and ``"class K"`` rows by seed.
    """
    first = next(iter(trained.values()))
    rows = [*_summaries(trained, metric), *_seeds(trained, metric), *_identity_rows(identities), *_curves(trained)]
    environment: Environment = first.environment
    timed = {number: times for number, times in enumerate(timings) if name in times.rounds and name not in times.failed}
    if timed:
        rows += _timing_rows(name, timed, session, first.get("batch_size"))
        environment = environment.with_sources({"step_time_ms": _TIMING_SOURCE.format(count=len(timed))})
    notes = dict.fromkeys(note for result in trained.values() for note in result.notes)
    return Result(name, tuple(rows), environment, first.plan, tuple(notes))


def trace_rows(kernels: Kernels, elapsed_ms: float, computing_ms: float | None) -> list[Measurement]:
    """Return times in milliseconds, counts and shares of a trace; a share is unknown where another library than oneDNN computes."""
    share = kernels.low_precision_milliseconds / kernels.milliseconds if kernels.milliseconds else None
    return [
        Measurement("fit", "traced_products", kernels.products),
        Measurement("fit", "low_precision_products", kernels.low_precision),
        Measurement("fit", "low_precision_share", share),
        Measurement("fit", "traced_casts", kernels.casts),
        Measurement("fit", "traced_ms", elapsed_ms),
        Measurement("fit", "traced_device_ms", computing_ms),
        Measurement("fit", "traced_host_ms", None if computing_ms is None else max(0.0, elapsed_ms - computing_ms)),
    ]


def _summaries(trained: Mapping[int, Result], metric: str) -> Iterator[Measurement]:
    results = list(trained.values())
    for name in _BY_SEED:
        values = [result.value(name, "fit") for result in results if result.select(name, "fit")]
        known = [value for value in values if value is not None]
        reduce = np.median if name == "peak_memory_mb" else np.mean if name == "diverged_share" else np.sum
        yield Measurement("fit", name, reduce(known) if known and len(known) == len(values) else None)
    finals = [result.value(metric, "fit") for result in results]
    yield Measurement("fit", metric, float(np.mean(finals)))
    for name in _ONCE:
        if results[-1].select(name, "fit"):
            yield Measurement("fit", name, results[-1].value(name, "fit"))


def _seeds(trained: Mapping[int, Result], metric: str) -> Iterator[Measurement]:
    for seed, result in trained.items():
        for name in (*_BY_SEED, metric):
            if result.select(name, "fit"):
                yield Measurement("seed", name, result.value(name, "fit"), seed)
        for row in result.select("class_accuracy"):
            yield Measurement(row.subject, "class_accuracy", row.value, seed)


def _identity_rows(identities: Mapping[int, Mapping[str, str]]) -> Iterator[Measurement]:
    for seed, hashes in identities.items():
        yield Measurement("seed", "initial_weights", hashes["initial_weights"], seed)
        yield Measurement("seed", "data_order", hashes["data_order"], seed)
        yield Measurement("seed", "configuration", hashes["configuration"], seed)


def _curves(trained: Mapping[int, Result]) -> Iterator[Measurement]:
    for seed, result in trained.items():
        for row in result:
            if row.subject == "epoch":
                yield Measurement(f"seed {seed}", row.metric, row.value, row.step)


def _timing_rows(
    name: str, timings: Mapping[int, InterleavedTimes], session: str, batch_size: int | None
) -> Iterator[Measurement]:
    times = spread(step for timing in timings.values() for step in timing.steps[name])
    yield Measurement("fit", "step_time_ms", times.median)
    yield Measurement("fit", "step_time_p5_ms", times.p5)
    yield Measurement("fit", "step_time_p95_ms", times.p95)
    yield Measurement("fit", "steps_measured", times.count)
    yield Measurement("fit", "samples_per_second", batch_size * 1e3 / times.median if batch_size else None)
    yield Measurement("fit", "session", session)
    for number, timing in timings.items():
        for index, value in enumerate(timing.rounds[name]):
            yield Measurement(f"process {number}", "step_time_ms", value, index)
