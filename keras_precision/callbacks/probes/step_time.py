"""StepTimeProbe: how long training steps take."""

from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter_ns as clock
from typing import NamedTuple

from keras_precision._adapters.training.data_wait import DataWait, UnknownDataWait
from keras_precision.callbacks.probes.probe import FitState, Probe
from keras_precision.core.errors import InputError
from keras_precision.core.result import Measurement, Value
from keras_precision.core.system.timing import spread

__all__ = ["StepTimeProbe"]


class _TimedStep(NamedTuple):
    """One step as the trainer ran it: several batches under ``steps_per_execution``."""

    milliseconds: float
    batches: int
    warm: bool
    last: int  # number of its last batch, from 1
    waited: int | None  # nanoseconds of waiting for its batches
    since: int | None  # nanoseconds since the end of the previous step


class StepTimeProbe(Probe):
    """Times every step between the trainer's begin and end hooks.

    Keras copies the metrics of a step to the host before it calls the end hook of a callback, so
    that the step has ended on the device, too. On TensorFlow and JAX the step time includes the wait for the next
    batch; the wait is measured separately where the trainer calls its iterator in Python: on JAX and
    PyTorch at every step, on TensorFlow at every fifth, whose batch Python fetches for the compiled step. In a custom training loop,
    the time between two steps is reported. The first steps, and every step in which something was traced
    or compiled (JAX recompiles for the partial batch that ends an epoch), are excluded from the statistics.

    Args:
        warmup_steps: Number of steps that are excluded at the start of the fit.

    Raises:
        InputError: ``warmup_steps`` is negative.

    Example:
        >>> StepTimeProbe(warmup_steps=1).values()["steps_measured"]
        0
    """

    name = "step time"

    def __init__(self, warmup_steps: int = 3) -> None:
        if not isinstance(warmup_steps, int) or isinstance(warmup_steps, bool) or warmup_steps < 0:
            raise InputError(f"Expected warmup_steps to be a whole number >= 0. Received: {warmup_steps!r}.")
        self.warmup_steps = warmup_steps
        self._fit: FitState | None = None
        self._wait: DataWait = UnknownDataWait(_OWN_LOOP)
        self._began = self._ended = self._compilations = 0
        self._steps: list[_TimedStep] = []

    def begin(self, fit: FitState) -> None:
        """Clear the times of earlier fits, and start to measure where the trainer waits for data."""
        self._fit, self._steps, self._compilations, self._ended = fit, [], 0, 0
        self._wait = UnknownDataWait(_OWN_LOOP)
        if not fit.own_loop:
            self._wait = fit.resources.enter_context(fit.adapter.data_wait(fit.model))

    def step_begin(self) -> None:
        """Start the clock."""
        self._wait.step_begin()
        self._began = clock()

    def step_end(self, batches: int) -> None:
        """Stop the clock."""
        # The step has ended on the device: Keras has converted its logs to numbers of Python before it calls the hook.
        # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/callbacks/callback_list.py
        ended = clock()
        if self._fit is None:
            return
        compilations = self._fit.adapter.compute.compilations(self._fit.model)
        compiled = compilations != self._compilations
        self._compilations = compilations
        warm = len(self._steps) >= self.warmup_steps and not compiled
        last = self._steps[-1].last if self._steps else 0
        since = self._began - self._ended if self._ended else None
        elapsed = (ended - self._began) / 1e6
        self._steps.append(_TimedStep(elapsed, batches, warm, last + batches, self._wait.step_end(), since))
        self._ended = clock() if self._fit.own_loop else 0

    def end(self) -> None:
        """Release the model."""
        self._fit, self._wait = None, UnknownDataWait(_OWN_LOOP)

    def values(self) -> Mapping[str, Value]:
        """Return median, percentiles, throughput, and the number and time of the excluded steps."""
        warm = [step for step in self._steps if step.warm]
        excluded = [step for step in self._steps if not step.warm]
        counts = {
            "steps_measured": sum(step.batches for step in warm),
            "warmup_steps": sum(step.batches for step in excluded),
            "warmup_time_ms": sum(step.milliseconds for step in excluded),
        }
        if not warm:
            return dict.fromkeys((*_TIMES, *self._waits(warm), "samples_per_second")) | counts
        times = spread(step.milliseconds / step.batches for step in warm)
        step_times = dict(zip(_TIMES, (times.median, times.p5, times.p95), strict=True))
        return {**step_times, **self._waits(warm), "samples_per_second": self._throughput(warm), **counts}

    def rows(self, since: int = 0) -> Iterator[Measurement]:
        """Yield the time of every step, warm-up included; several batches run as one step share its time."""
        for step in self._steps[since:]:
            subject = "step" if step.warm else "warm-up step"
            yield Measurement(subject, "step_time_ms", step.milliseconds / step.batches, step.last)

    def sources(self) -> Mapping[str, str]:
        """Return how the times were measured."""
        most = max((step.batches for step in self._steps), default=1)
        grouped = f"; means over groups of up to {most} steps, run as one" if most > 1 else ""
        how = f"from begin hook to end hook, waiting for data included where the backend fetches it inside{grouped}"
        own_loop = self._fit is not None and self._fit.own_loop
        wait = {"between_steps_ms": "from the end of step() to the begin of the next"} if own_loop else {}
        return {
            "step_time_ms": how,
            **(wait or {"data_wait_ms": self._wait.source}),
            "samples_per_second": "mean samples per batch, times batches, over the time of the measured steps",
        }

    def _waits(self, warm: Sequence[_TimedStep]) -> dict[str, float | None]:
        """Return mean waits: a median would hide an input queue that is empty at every tenth step."""
        if self._fit is not None and self._fit.own_loop:
            between = [step.since for step in warm if step.since is not None]
            return {"between_steps_ms": sum(between) / 1e6 / len(between) if between else None}
        timed = [step for step in warm if step.waited is not None]
        if not timed or (len(timed) < len(warm) and not self._wait.sampled):
            return {"data_wait_ms": None, "data_wait_share": None}
        waited = sum(step.waited or 0 for step in timed) / 1e6
        total = sum(step.milliseconds for step in timed) + (0.0 if self._wait.inside else waited)
        batches = sum(step.batches for step in timed)
        return {"data_wait_ms": waited / batches, "data_wait_share": waited / total if total else None}

    def _throughput(self, warm: Sequence[_TimedStep]) -> float | None:
        """Return samples per second, from the samples that the model counted; None if it counts none."""
        fit = self._fit
        if fit is None or not fit.samples or not fit.batches:
            return None
        seconds = sum(step.milliseconds for step in warm) / 1e3
        return fit.samples / fit.batches * sum(step.batches for step in warm) / seconds


_TIMES = ("step_time_ms", "step_time_p5_ms", "step_time_p95_ms")
_OWN_LOOP = "a custom training loop fetches its own data; see between_steps_ms"
