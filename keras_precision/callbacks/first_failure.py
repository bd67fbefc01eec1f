"""first_failure: the first of the recorded steps that failed, replayed to find the layer where it failed."""

from dataclasses import dataclass
from typing import Self

from keras_precision._adapters.tracing.step_observer import StepObserver
from keras_precision._adapters.training.step_replay import Capture, ReplayedStep
from keras_precision.core.observation import NonFiniteOrigin, Observation, find_origin

__all__ = ["FailedStep", "first_failure"]


@dataclass(frozen=True)
class FailedStep:
    """A step whose loss or weights are not finite, or that loss scaling skipped.

    Attributes:
        number: The number of the step, from 1.
        step: Its batch and the state before it.
        observation: Statistics of all layers when the step was run again.
        origin: Where the first non-finite value arose; None where the repeated run was finite.
    """

    number: int
    step: ReplayedStep
    observation: Observation
    origin: NonFiniteOrigin | None

    @classmethod
    def of(cls, number: int, step: ReplayedStep, observation: Observation) -> Self:
        """Return a failed step with its origin: the update, where weights were lost behind finite gradients."""
        origin = find_origin(observation)
        if origin is None and not step.weights_after:
            origin = NonFiniteOrigin("update", None)
        return cls(number, step, observation, origin)


def first_failure(capture: Capture, observer: StepObserver, *, trained: int, after: int = 0) -> FailedStep | None:
    """Replay the recorded steps after step ``after`` and return the first that failed; ``trained`` counts all steps so far."""
    first = trained - len(capture.batches) + 1
    for number, step in enumerate(capture.replay(), start=first):
        skipped = step.scale is not None and not step.updated
        if number > after and (not step.is_finite or skipped):
            failed = FailedStep.of(number, step, observer.observe(step.batch, step.values, step.scale or 1.0))
            if failed.origin is None and step.is_finite:
                continue  # Not skipped: its update changed nothing, as with a learning rate of 0.
            return failed
    return None
