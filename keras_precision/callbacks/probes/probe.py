"""Probe: one thing that the profiler watches."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from keras_precision._adapters import KerasAdapter
from keras_precision.core.result import Measurement, Value

__all__ = ["Fit", "Probe", "Step"]


@dataclass
class Fit:
    """The fit that is being watched.

    Attributes:
        model: The model.
        adapter: Its Keras.
        optimizer: What a training loop of the user's own updates it with; None in ``fit``.
        batches: Batches trained so far.
        batches_exact: Whether that is certain; if not, it may be too high by less than
            ``steps_per_execution`` an epoch.
        samples: Samples trained so far; None once they could not be counted.
        loss: Keras's mean of the loss over the running epoch; None if it tells none.
        own_loop: Whether a training loop of the user's own is watched, and no ``fit``.
        resources: What is let go of when the fit ends, or the next one begins: a probe may enter
            context managers here.
    """

    model: Any
    adapter: KerasAdapter
    optimizer: Any = None
    batches: int = 0
    batches_exact: bool = True
    samples: int | None = 0
    loss: float | None = None
    own_loop: bool = False
    resources: ExitStack = field(default_factory=ExitStack)


class Step:
    """One step of a training loop of the user's own.

    Attributes:
        outputs: Tensors that the step computes, in any structure; they are waited for.
    """

    outputs: Any = None


class Probe:
    """One thing that the profiler watches; a subclass overrides the hooks that it needs.

    An exception in a hook switches the probe off for the rest of the fit, with one warning.

    Attributes:
        name: What a warning calls it.
    """

    name = "probe"

    def begin(self, fit: Fit) -> None:
        """Run before the first step.

        Args:
            fit: The fit; it stays current for as long as the fit lasts.
        """

    def step_begin(self) -> None:
        """Run before a training step."""

    def step_end(self, batches: int) -> None:
        """Run after a training step.

        Args:
            batches: Batches that it trained: more than one under ``steps_per_execution``.
        """

    def epoch_end(self, epoch: int) -> None:
        """Run after an epoch, and before its validation where there is one.

        Args:
            epoch: Its number, from 0.
        """

    def end(self) -> None:
        """Run when the result has been made: let go of the model, so that it can be freed."""

    def values(self) -> Mapping[str, Value]:
        """Return the figures as they stand: metric to value, None for what cannot be known."""
        return {}

    def rows(self, since: int = 0) -> Iterator[Measurement]:
        """Yield more than summaries: figures of single steps or epochs, in the order in which they were made.

        Args:
            since: How many of them to leave out, because they were asked for before.
        """
        return iter(())

    def sources(self) -> Mapping[str, str]:
        """Return how each figure was got: metric to words."""
        return {}
