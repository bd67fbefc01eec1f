"""StepTimeProbe: how long training steps take."""

import time
from collections.abc import Iterator, Mapping

from keras_precision.callbacks.probe import Fit, Probe
from keras_precision.errors import InputError
from keras_precision.result import Measurement, Value
from keras_precision.timing import spread

__all__ = ["StepTimeProbe"]


class StepTimeProbe(Probe):
    """Times each step between the trainer's begin and end hooks.

    Keras brings the metrics of a step to the host before it calls the end hook of a callback, so
    that the step has ended on the device too. On TensorFlow and JAX the wait for the next batch of
    data lies inside.

    Args:
        warmup_steps: Steps left out at the start of the fit: they trace and compile.

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
        self._spans: list[tuple[int, int]] = []  # nanoseconds and batches of each step

    def begin(self, fit: Fit) -> None:
        """Forget earlier fits."""
        self._fit, self._spans = fit, []

    def step_begin(self) -> None:
        """Start the clock."""
        self._began = time.perf_counter_ns()

    def step_end(self, batches: int) -> None:
        """Stop the clock."""
        self._spans.append((time.perf_counter_ns() - self._began, batches))

    def end(self) -> None:
        """Let go of the model."""
        self._fit = None

    def values(self) -> Mapping[str, Value]:
        """Return median, percentiles, throughput and what was left out."""
        measured = self._milliseconds()[self.warmup_steps :]
        warmup = self._spans[: self.warmup_steps]
        left_out = {
            "warmup_steps": sum(batches for _, batches in warmup),
            "warmup_time_ms": sum(span for span, _ in warmup) / 1e6,
        }
        if not measured:
            return dict.fromkeys(("step_time_ms", "step_time_p5_ms", "step_time_p95_ms", "samples_per_second")) | {
                "steps_measured": 0,
                **left_out,
            }
        times = spread(measured)
        return {
            "step_time_ms": times.median,
            "step_time_p5_ms": times.p5,
            "step_time_p95_ms": times.p95,
            "samples_per_second": self._throughput(times.median),
            "steps_measured": times.count,
            **left_out,
        }

    def rows(self) -> Iterator[Measurement]:
        """Yield the time of every step, warm-up included; several batches run as one step share its time."""
        step = 0
        for milliseconds, (_, batches) in zip(self._milliseconds(), self._spans, strict=True):
            step += batches
            yield Measurement("step", "step_time_ms", milliseconds, step)

    def sources(self) -> Mapping[str, str]:
        """Return how the times were taken."""
        how = f"from begin hook to end hook, the first {self.warmup_steps} steps left out; waiting for data may lie inside"
        return {"step_time_ms": how, "samples_per_second": "mean samples per batch over the median step time"}

    def _milliseconds(self) -> list[float]:
        return [span / batches / 1e6 for span, batches in self._spans]

    def _throughput(self, step_ms: float) -> float | None:
        """Samples a second, from the samples that the model counted; None if it counts none."""
        fit = self._fit
        if fit is None or not fit.samples or not fit.batches:
            return None
        return fit.samples / fit.batches * 1e3 / step_ms
