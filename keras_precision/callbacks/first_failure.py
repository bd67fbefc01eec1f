"""find_break: the first of the last steps of a fit that broke, and where in it."""

from dataclasses import dataclass

from keras_precision._adapters.tracing.step_observer import Observer
from keras_precision._adapters.training.step_replay import Capture, Replayed
from keras_precision.core.observation import Blame, Observation, blame

__all__ = ["Broken", "find_break"]


@dataclass(frozen=True)
class Broken:
    """A step that broke.

    Attributes:
        number: Its number, from 1.
        step: What it was run on, and with.
        observation: What went through each layer when it was run again.
        origin: Where the first value that is not finite arose; None where that run did not break.
    """

    number: int
    step: Replayed
    observation: Observation
    origin: Blame | None


def find_break(capture: Capture, observer: Observer, *, trained: int, after: int = 0) -> Broken | None:
    """Run the steps that were kept again, and look at the first in which something broke, or that was skipped.

    Args:
        capture: What kept them.
        observer: What looks at layers.
        trained: Batches trained so far, the last one that was kept included.
        after: Steps up to this one are not asked for.

    Returns:
        The step; None if none of them broke.
    """
    first = trained - len(capture.batches) + 1
    for number, step in enumerate(capture.replay(), start=first):
        skipped = step.scale is not None and not step.updated
        if number > after and (not step.is_finite or skipped):
            observation = observer.observe(step.batch, step.values, step.scale or 1.0)
            origin = blame(observation)
            if origin is None and step.is_finite:
                continue  # not skipped: its update changed nothing, as with a learning rate of 0
            return Broken(number, step, observation, origin)
    return None
