"""Probe: one quantity that the profiler records during a fit."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from keras_precision._adapters import KerasAdapter
from keras_precision.core.result import Measurement, Value

__all__ = ["FitState", "LoopStep", "Probe"]


@dataclass
class FitState:
    """The state of the fit that is being recorded.

    Attributes:
        model: The model.
        adapter: The adapter of its Keras version.
        optimizer: The optimizer of a custom training loop; None in ``fit``.
        batches: Batches trained so far.
        batches_exact: Whether that count is exact; if not, it may be too high by less than
            ``steps_per_execution`` an epoch.
        samples: Samples trained so far; None after they could not be counted.
        loss: Keras's running mean of the loss in the current epoch; None if the logs have none.
        own_loop: Whether a custom training loop is recorded instead of ``fit``.
        resources: Context managers that are closed when the fit ends or the next one begins; a probe may
            enter its own here.
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


class LoopStep:
    """One step of a custom training loop.

    Attributes:
        outputs: Tensors that the step computes, in any structure; the clock stops when they are computed.
    """

    outputs: Any = None


class Probe:
    """One quantity that the profiler records; a subclass overrides the hooks that it needs.

    An exception in a hook disables the probe for the rest of the fit, with one warning.

    Attributes:
        name: The name of the probe in warnings.
    """

    name = "probe"

    def begin(self, fit: FitState) -> None:
        """Run before the first step.

        Args:
            fit: The state of the fit; the same object is updated until the fit ends.
        """

    def step_begin(self) -> None:
        """Run before a training step."""

    def step_end(self, batches: int) -> None:
        """Run after a training step.

        Args:
            batches: Number of batches that the step trained: more than one under ``steps_per_execution``.
        """

    def epoch_end(self, epoch: int) -> None:
        """Run after an epoch, before its validation if there is one.

        Args:
            epoch: The number of the epoch, from 0.
        """

    def end(self) -> None:
        """Run after the result is complete: release the model, so that its memory can be freed."""

    def values(self) -> Mapping[str, Value]:
        """Return the current values by metric; None for a value that cannot be determined."""
        return {}

    def rows(self, since: int = 0) -> Iterator[Measurement]:
        """Yield measurements of single steps or epochs, in the order in which they were taken.

        Args:
            since: The number of measurements to skip, because an earlier call has returned them.
        """
        return iter(())

    def sources(self) -> Mapping[str, str]:
        """Return how the metrics were measured, by metric."""
        return {}
