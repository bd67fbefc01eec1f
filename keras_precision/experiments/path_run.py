"""PathRun: a few training steps in a child process, with some ways of computing turned off."""

from collections.abc import Sequence
from typing import Any

from keras_precision._adapters import adapter_of
from keras_precision._adapters.training.callback import Callback, Logs
from keras_precision.core.plan import PrecisionPlan
from keras_precision.experiments.run import built
from keras_precision.experiments.task import made, mapped

__all__ = ["PathRun"]


class PathRun:
    """A training of a few steps.

    Args:
        build: What builds the compiled model.
        data: What it is trained on.
        precision: A policy or a plan.
        off: Ways of computing to turn off: ``"jit"``, ``"tf32"``, ``"mkldnn"``.
    """

    def __init__(self, build: Any, data: Any, precision: str | PrecisionPlan, off: Sequence[str]) -> None:
        self._build, self._data, self._precision, self._off = build, data, precision, off

    def losses(self, steps: int, batch_size: int, seed: int) -> list[float]:
        """Train, and return the loss of each step's batch.

        Args:
            steps: How many.
            batch_size: Samples a batch.
            seed: For weights and dropout.
        """
        model = built(self._build, self._precision, seed)
        compute = adapter_of(model).compute
        if "jit" in self._off:
            model.jit_compile = False
        if "tf32" in self._off:
            compute.allow_tf32(allowed=False)
        if "mkldnn" in self._off:
            compute.without_onednn()
        x, y, *_ = mapped(lambda array: array[: steps * batch_size], tuple(made(self._data)))
        told = _Losses()
        for begin in range(0, len(y), batch_size):
            self._one(model, x, y, slice(begin, begin + batch_size), told)
        return told.seen

    def _one(self, model: Any, x: Any, y: Any, part: slice, told: Any) -> None:
        """Fit one batch: then the loss of the epoch is that of the batch."""
        batch = mapped(lambda array: array[part], (x, y))
        model.fit(*batch, batch_size=part.stop - part.start, shuffle=False, verbose=0, callbacks=[told])


class _Losses(Callback):
    """Notes the loss of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Note it."""
        self.seen.append(float((logs or {})["loss"]))
