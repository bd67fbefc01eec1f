"""compare_paths: the compute path that makes a run differ from its FP32 baseline."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from keras_precision._adapters import adapter_for_file, adapter_of, adapters_in_use
from keras_precision._adapters.training.callback import Callback, Logs
from keras_precision.core.errors import InputError
from keras_precision.core.plan import PrecisionPlan, check_precision
from keras_precision.core.result import Measurement, Result
from keras_precision.experiments.run import build_in_precision
from keras_precision.experiments.task import check_build, check_data, load_data, map_arrays
from keras_precision.experiments.worker import Worker, deadline_after, serialize

__all__ = ["compare_paths"]

_RESPONSIBLE = 0.5  # without the path, at most this share of the difference remains


@dataclass(frozen=True)
class _Path:
    """A compute path that settings or environment variables of a child process turn off."""

    off: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


_PATHS: dict[str, dict[str, _Path]] = {
    "tensorflow": {
        "jit": _Path(("jit",)),
        "oneDNN": _Path(environment={"TF_ENABLE_ONEDNN_OPTS": "0"}),
        "TF32": _Path(("tf32",)),
    },
    "jax": {
        "jit": _Path(("jit",)),
        "oneDNN": _Path(environment={"XLA_FLAGS": "--xla_cpu_use_onednn=false"}),
        "XNNPACK": _Path(environment={"XLA_FLAGS": "--xla_cpu_use_xnnpack=false"}),
        "TF32": _Path(("tf32",)),
    },
    "torch": {"jit": _Path(("jit",)), "oneDNN": _Path(("mkldnn",)), "TF32": _Path(("tf32",))},
}


def compare_paths(
    build: Any,
    data: Any,
    precision: str | PrecisionPlan = "mixed_float16",
    *,
    steps: int = 8,
    batch_size: int = 32,
    seed: int = 0,
    time_limit: float | None = None,
) -> Result:
    """Find the compute path that makes a run differ from its baseline in float32.

    The run is trained for a few steps in its own process, and so is its baseline, in float32 with all paths turned off.
    Then the run is trained again with one path turned off at a time: compilation (jit), the kernels of oneDNN and XNNPACK,
    and TF32, as far as the backend has them. The responsible path is the one without which the losses return to the
    baseline. All trainings begin with the same weights and use the same batches.

    Args:
        build: A function that returns a compiled model, or ``"module:function"``.
        data: ``(x, y)`` of arrays, or a function that returns them.
        precision: A policy or a training plan, for the run.
        steps: Training steps per process.
        batch_size: Samples a batch.
        seed: For weights and dropout.
        time_limit: Seconds for everything; None for no limit.

    Returns:
        A result with the row ``loss_difference`` for ``"run"``, and for every path as ``"without oneDNN"``: the largest difference
        from the baseline's loss, over the steps, as a share of it. Its notes name the responsible path, if there is one.

    Raises:
        InputError: An argument cannot be used.
        DataError: There are no data.
        WorkerError: The run itself, or its baseline, failed, or the time is over. A path that cannot be turned off is unknown, and a note says why.
    """
    task = check_build(build), check_data(data, "data")
    _check(precision, steps, batch_size)
    adapter = adapter_for_file()
    uses_tf_keras = any(other.keras.__name__ == "tf_keras" for other in adapters_in_use())
    legacy = uses_tf_keras and adapter.compute.name == "tensorflow"
    paths = _PATHS["tensorflow" if legacy else adapter.compute.name]
    settings, deadline = (steps, batch_size, seed), deadline_after(time_limit)
    baseline = _losses("baseline", task, "float32", tuple(_switches(paths)), settings, {}, deadline)
    run = _losses("run", task, precision, (), settings, {}, deadline)
    differences: dict[str, float | None] = {"run": _difference(run, baseline)}
    notes: list[str] = []
    for name, path in paths.items():
        if name == "TF32" and adapter.compute.tf32 is None:
            differences[f"without {name}"] = None  # this device has none
            continue
        try:
            losses = _losses(f"without {name}", task, precision, path.off, settings, _added(path.environment), deadline)
        except RuntimeError as error:  # a WorkerError, such as a flag unknown to this version
            notes.append(f"{name} could not be turned off: {str(error).splitlines()[0]}")
            differences[f"without {name}"] = None
            continue
        differences[f"without {name}"] = _difference(losses, baseline)
    rows = tuple(Measurement(name, "loss_difference", value) for name, value in differences.items())
    return Result("paths", rows, adapter.compute.environment(), notes=(_verdict(differences), *notes))


def _check(precision: str | PrecisionPlan, steps: int, batch_size: int) -> None:
    if isinstance(precision, PrecisionPlan):
        precision.expect("training")
    else:
        check_precision(precision, "training", "precision")
    for name, count in (("steps", steps), ("batch_size", batch_size)):
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise InputError(f"Expected {name} to be a whole number >= 1. Received: {count!r}.")


def _added(environment: Mapping[str, str]) -> dict[str, str]:
    """Return variables for a child, with flags of XLA appended to those of this process."""
    flags = (
        {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {environment['XLA_FLAGS']}".strip()}
        if "XLA_FLAGS" in environment
        else {}
    )
    return {**environment, **flags}


def _switches(paths: Mapping[str, _Path]) -> Sequence[str]:
    return [switch for path in paths.values() for switch in path.off]


def _losses(
    name: str,
    task: tuple[Any, Any],
    precision: str | PrecisionPlan,
    off: Sequence[str],
    settings: tuple[int, int, int],
    environment: Mapping[str, str],
    deadline: float | None,
) -> list[float]:
    """Train in a child process; return the losses of the steps."""
    build, data = task

    def serve(channel: Any) -> PathRun:  # noqa: ARG001 - the child passes its channel
        return PathRun(build, data, precision, tuple(off))

    backend = adapter_for_file().compute.name
    with Worker(serialize(serve, "build and data"), name, backend, environment, deadline) as worker:
        return [float(loss) for loss in worker.ask("losses", *settings, deadline=deadline)]


def _difference(losses: Sequence[float], baseline: Sequence[float]) -> float:
    shares = [abs(one - other) / max(abs(other), 1e-12) for one, other in zip(losses, baseline, strict=True)]
    return max((math.inf if math.isnan(share) else share for share in shares), default=0.0)


def _verdict(differences: Mapping[str, float | None]) -> str:
    run = differences["run"] or 0.0
    known = {name: value for name, value in differences.items() if name != "run" and value is not None}
    best = min(known, key=lambda name: known[name], default=None)
    if best is not None and run > 0 and known[best] <= _RESPONSIBLE * run:
        path = best.removeprefix("without ")
        return f"{path} makes the difference: {run:.3g} of the baseline's loss with it, {known[best]:.3g} without."
    return f"No single compute path makes the difference of {run:.3g}: the precision itself does, or several paths together."


class PathRun:
    """A training of a few steps in a child process, with some compute paths (``"jit"``, ``"tf32"``, ``"mkldnn"``) off."""

    def __init__(self, build: Any, data: Any, precision: str | PrecisionPlan, off: Sequence[str]) -> None:
        self._build, self._data, self._precision, self._off = build, data, precision, off

    def losses(self, steps: int, batch_size: int, seed: int) -> list[float]:
        """Train, and return the losses of the steps."""
        model = build_in_precision(self._build, self._precision, seed)
        compute = adapter_of(model).compute
        if "jit" in self._off:
            model.jit_compile = False
        if "tf32" in self._off:
            compute.allow_tf32(allowed=False)
        if "mkldnn" in self._off:
            compute.without_onednn()
        x, y, *_ = map_arrays(lambda array: array[: steps * batch_size], tuple(load_data(self._data)))
        recorder = _LossRecorder()
        for begin in range(0, len(y), batch_size):
            self._fit_batch(model, x, y, slice(begin, begin + batch_size), recorder)
        return recorder.losses

    def _fit_batch(self, model: Any, x: Any, y: Any, part: slice, recorder: Callback) -> None:
        """Fit one batch as an epoch, so that the loss of the epoch is that of the batch."""
        batch = map_arrays(lambda array: array[part], (x, y))
        model.fit(*batch, batch_size=part.stop - part.start, shuffle=False, verbose=0, callbacks=[recorder])


class _LossRecorder(Callback):
    """Records the loss of every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Record it."""
        self.losses.append(float((logs or {})["loss"]))
