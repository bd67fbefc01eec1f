"""StepTimeProbe: how long training steps take."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from keras_precision.callbacks.probe import Fit, Probe
from keras_precision.errors import InputError
from keras_precision.result import Measurement, Value
from keras_precision.timing import spread

__all__ = ["StepTimeProbe"]


class _Step(NamedTuple):
    """One step as the trainer ran it: several batches under ``steps_per_execution``."""

    milliseconds: float
    batches: int
    warm: bool
    last: int  # number of its last batch, from 1


class StepTimeProbe(Probe):
    """Times each step between the trainer's begin and end hooks.

    Keras brings the metrics of a step to the host before it calls the end hook of a callback, so
    that the step has ended on the device too. On TensorFlow and JAX the wait for the next batch of
    data lies inside. The first steps, and every step in which something was traced or compiled (JAX
    compiles anew for the partial batch that ends an epoch), are left out of the figures.

    Args:
        warmup_steps: Steps left out at the start of the fit.

    Raises:
        InputError: ``warmup_steps`` is negative.

    Example:
        >>> StepTimeProbe(warmup_steps=1).values()["steps_measured"]
        0
    """

    name = "step time"

    def __init__(self, warmup_steps: int = 3) -> None:
        if not isinstance(warmup_steps, int) or warmup_steps < 0:
            raise InputError(f"Expected warmup_steps to be a whole number >= 0. Received: {warmup_steps!r}.")
        self.warmup_steps = warmup_steps
        self._fit: Fit | None = None
        self._began = 0
        self._compilations = 0
        self._steps: list[_Step] = []

    def begin(self, fit: Fit) -> None:
        """Forget earlier fits."""
        self._fit, self._steps, self._compilations = fit, [], 0

    def step_begin(self) -> None:
        """Start the clock."""
        self._began = time.perf_counter_ns()

    def step_end(self, batches: int) -> None:
        """Stop the clock."""
        ended = time.perf_counter_ns()
        if self._fit is None:
            return
        compilations = self._fit.adapter.compute.compilations(self._fit.model)
        compiled = compilations != self._compilations
        self._compilations = compilations
        warm = len(self._steps) >= self.warmup_steps and not compiled
        last = self._steps[-1].last if self._steps else 0
        self._steps.append(_Step((ended - self._began) / 1e6, batches, warm, last + batches))

    def end(self) -> None:
        """Let go of the model."""
        self._fit = None

    def values(self) -> Mapping[str, Value]:
        """Return median, percentiles, throughput and what was left out."""
        warm = [step for step in self._steps if step.warm]
        left_out = [step for step in self._steps if not step.warm]
        counts = {
            "steps_measured": sum(step.batches for step in warm),
            "warmup_steps": sum(step.batches for step in left_out),
            "warmup_time_ms": sum(step.milliseconds for step in left_out),
        }
        if not warm:
            return dict.fromkeys((*_TIMES, "samples_per_second")) | counts
        times = spread(step.milliseconds / step.batches for step in warm)
        figures = dict(zip(_TIMES, (times.median, times.p5, times.p95), strict=True))
        return {**figures, "samples_per_second": self._throughput(warm), **counts}

    def rows(self, since: int = 0) -> Iterator[Measurement]:
        """Yield the time of every step, warm-up included; several batches run as one step share its time."""
        for step in self._steps[since:]:
            subject = "step" if step.warm else "warm-up step"
            yield Measurement(subject, "step_time_ms", step.milliseconds / step.batches, step.last)

    def sources(self) -> Mapping[str, str]:
        """Return how the times were taken."""
        most = max((step.batches for step in self._steps), default=1)
        grouped = f"; means over groups of up to {most} steps, run as one" if most > 1 else ""
        how = f"from begin hook to end hook, waiting for data included where the backend fetches it inside{grouped}"
        return {
            "step_time_ms": how,
            "samples_per_second": "mean samples per batch, times batches, over the time of the measured steps",
        }

    def _throughput(self, warm: Sequence[_Step]) -> float | None:
        """Samples a second, from the samples that the model counted; None if it counts none."""
        fit = self._fit
        if fit is None or not fit.samples or not fit.batches:
            return None
        seconds = sum(step.milliseconds for step in warm) / 1e3
        return fit.samples / fit.batches * sum(step.batches for step in warm) / seconds


_TIMES = ("step_time_ms", "step_time_p5_ms", "step_time_p95_ms")
