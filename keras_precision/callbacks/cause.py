"""CauseSearch: why a step failed, and what cures it, by trials on copies of the model.

The same batch in float32 decides first. Where float32 breaks too, precision is not the cause, and the trials go through the loss,
the update and the data; else through the layers that break. Only what has trained a few batches is reported as a cure.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np

from keras_precision._adapters.layer_paths import paths_of, plan_of
from keras_precision._adapters.rebuild import compile_like, in_float32, is_compiled, rebuilt_with
from keras_precision._adapters.tracing.step_observer import Batch
from keras_precision._adapters.training.open_state import training_state_of
from keras_precision.callbacks.first_failure import FailedStep
from keras_precision.callbacks.probes.probe import FitState
from keras_precision.callbacks.trial import Trial
from keras_precision.core.errors import PrecisionError
from keras_precision.core.observation import NonFiniteOrigin, origin_rows
from keras_precision.core.result import Measurement
from keras_precision.mixed_precision.apply_plan import apply_plan

__all__ = ["CauseSearch"]

_MAX_LAYERS = 8  # lifted to float32: a model that needs more of them is better trained in another policy
_TRIAL_STEPS = 16  # dynamic loss scaling needs as many to get from its first scale of 2**15 down to 1
_RATES = (0.1, 0.01, 0.001, 1e-5)
_LARGE_INPUT = 32.0  # larger than standardized data, smaller than pixels and raw measurements
_MAX_CLIPPED = 1e4  # outputs beyond it overflow by themselves, whatever a logarithm makes of them
_TINY, _ALMOST_ONE = 1e-7, 1 - 1e-7


class CauseSearch:
    """Searches why a fit broke, and what cures it.

    Args:
        fit: The state of the fit.
    """

    def __init__(self, fit: FitState) -> None:
        self._fit, self._adapter, self._model = fit, fit.adapter, fit.model
        self._batches: list[Batch] = []
        self._deadline = 0.0
        self._step: int | None = None
        self._tried: list[str] = []
        self._fresh: Trial | None = None

    def rows(self, failed: FailedStep | None, batches: Sequence[Batch], deadline: float) -> Iterator[Measurement]:
        """Yield the cause of a break, its cure, and what was tried.

        Args:
            failed: The step that failed; None where the weights were lost before any step was recorded: then training is
                repeated from new weights.
            batches: The recorded batches.
            deadline: The time of ``time.monotonic`` after which no trial begins.
        """
        self._batches, self._deadline, self._tried = list(batches), deadline, []
        if not is_compiled(self._model):
            return
        named = False
        try:
            for row in self._search(failed):
                named |= row.metric in ("cause", "cured_in") or row.value == "data"
                yield row
        except PrecisionError as error:  # the model cannot be copied, or not in such a plan
            self._tried.append(str(error))
        if self._is_over:
            self._tried.append("the time limit of the examination ended the trials")
        if not named:
            yield from (Measurement("fit", "tried", text, self._step) for text in self._tried)

    def _search(self, failed: FailedStep | None) -> Iterator[Measurement]:
        self._step = None if failed is None else failed.number
        if failed is None:
            failed = yield from self._repeated()
        if failed is None or failed.origin is None or failed.origin.phase in ("data", "weights"):
            return
        if failed.origin.phase == "update":
            rows = list(self._update(failed))
            yield from rows
            if rows:
                return
        breaks = self._breaks_in_float32(failed)
        if breaks:
            yield Measurement("fit", "breaks_in_float32", 1, self._step)
        yield from self._precision(failed) if breaks is False else self._others(failed)

    def _repeated(self) -> Generator[Measurement, None, FailedStep | None]:
        """Train from new weights on the batches after the break; return the step that fails."""
        batch = next(filter(self._has_non_finite, self._batches), None)
        if batch is not None:
            name = "inputs" if self._non_finite(batch.x) else "labels"
            yield from origin_rows(NonFiniteOrigin("data", None, name), None, loss_is_finite=False)
            return None
        if not self._batches:
            return None
        failed = self._new.failure(self._new.run(self._batches, self._deadline))
        if failed is None:
            self._tried.append(f"the next {len(self._batches)} batches, from new weights, train without a break")
            return None
        yield Measurement("fit", "rehearsed_step", failed.number)
        yield from origin_rows(failed.origin, None, loss_is_finite=False)
        return failed

    @property
    def _new(self) -> Trial:
        """The model with new weights."""
        if self._fresh is None:
            self._fresh = Trial(self._adapter, self._copy())
        return self._fresh

    def _breaks_in_float32(self, failed: FailedStep) -> bool | None:
        """Whether the same step breaks in float32; None where the model is in float32."""
        copy = in_float32(self._adapter, self._model)
        if copy is self._model or self._is_over:
            return None
        compile_like(self._adapter, copy, self._model, scale_loss=False)
        return not self._is_finite(copy, failed, failed.step.batch)

    def _is_finite(self, copy: Any, failed: FailedStep, batch: Batch) -> bool:
        """Whether a copy with the weights before the failed step trains on a batch."""
        return Trial(self._adapter, copy, failed.step.values).run([batch], self._deadline).failed is None

    def _precision(self, failed: FailedStep) -> Iterator[Measurement]:
        """Lift the layer that breaks, then the one that breaks next, until none does; then train a few batches."""
        plan, origin, lifted = plan_of(self._model), failed.origin, list[str]()
        while origin is not None:
            path = origin.path or origin.near or self._first_half(lifted)
            if not path or path in lifted or len(lifted) == _MAX_LAYERS or self._is_over:
                break
            lifted.append(path)
            copy = apply_plan(self._model, plan.with_layers(dict.fromkeys(lifted, "float32")))
            trial = Trial(self._adapter, copy, failed.step.values)
            origin = trial.observe(failed.step.batch, failed.step.scale)
            if origin is None:
                sequence = ([failed.step.batch, *self._batches] * _TRIAL_STEPS)[:_TRIAL_STEPS]
                run = trial.run(sequence, self._deadline)
                if run.is_healthy or not run.complete:  # the step itself is finite; the time may end those after it
                    yield from (Measurement(path, "cured_in", "float32", self._step) for path in lifted)
                    return
                failure = trial.failure(run)
                origin = None if failure is None else failure.origin
        if lifted:
            self._tried.append(f"{', '.join(map(repr, lifted))} in float32")
        yield from self._others(failed)

    def _first_half(self, lifted: Sequence[str]) -> str:
        """The last layer that is in 16 bits: where the loss breaks, it is computed from its outputs."""
        plan = plan_of(self._model)
        paths = [
            path
            for path in paths_of(self._adapter, self._model)
            if plan.precision_of(path) != "float32" and path not in lifted
        ]
        return paths[-1] if paths else ""

    def _others(self, failed: FailedStep) -> Iterator[Measurement]:
        """Try what is not precision: the loss, the range of the data, the learning rate."""
        in_loss = failed.origin is not None and failed.origin.phase == "loss"
        yield from self._first(*((self._masked, self._logarithm) if in_loss else ()), self._course, failed=failed)

    def _update(self, failed: FailedStep) -> Iterator[Measurement]:
        """Try what an update consists of besides the gradients."""
        yield from self._first(self._schedule, self._epsilon, self._constraint, failed=failed)

    def _first(
        self, *finders: Callable[[FailedStep], Iterator[Measurement]], failed: FailedStep
    ) -> Iterator[Measurement]:
        """Yield the rows of the first that finds a cause."""
        for find in finders:
            rows = [] if self._is_over else list(find(failed))
            yield from rows
            if rows:
                return

    def _masked(self, failed: FailedStep) -> Iterator[Measurement]:
        """Whether the step is finite without the samples that are all padding."""
        batch = failed.step.batch
        rest = self._without_padding(batch)
        if rest is None:
            return
        if self._is_finite(self._copy(), failed, rest):
            yield self._cause("masked")

    def _without_padding(self, batch: Batch) -> Batch | None:
        """The batch without samples whose labels are all the same or whose weight is 0; another batch where none is left."""
        kept = self._content(batch)
        if kept is None or kept.all():
            return None
        if kept.any():
            return Batch(*self._map(lambda leaf: self._array(leaf)[kept], (batch.x, batch.y, batch.sample_weight)))
        others = ((other, self._content(other)) for other in self._batches)
        return next((other for other, content in others if content is not None and content.all()), None)

    def _content(self, batch: Batch) -> Any:
        """For each sample, whether it has more than one label, or unlike others, and a weight; None where that cannot be told."""
        if not hasattr(batch.y, "shape"):
            return None
        rows = self._array(batch.y).reshape(len(batch.y), -1)
        unlike = (
            np.ptp(rows, axis=1) > 0 if rows.shape[1] > 1 else np.full(len(rows), len(rows) > 1 and np.ptp(rows) > 0)
        )
        if hasattr(batch.sample_weight, "shape"):
            unlike = unlike & self._array(batch.sample_weight).reshape(len(rows), -1).any(axis=1)
        return unlike

    def _array(self, leaf: Any) -> Any:
        return self._adapter.flat_arrays(leaf)[0]

    def _map(self, function: Callable[[Any], Any], structure: Any) -> Any:
        return training_state_of(self._adapter, self._model).map_leaves(function, structure)

    def _standardized(self, leaf: Any) -> Any:
        """Each feature of a float input with mean 0 and deviation 1 over the batch."""
        array = self._array(leaf)
        if array.dtype.kind != "f":
            return leaf
        spread = array.std(axis=0, dtype=np.float64)
        mean = array.mean(axis=0, dtype=np.float64)
        return ((array - mean) / np.where(spread > 0, spread, 1)).astype(np.float32)

    def _logarithm(self, failed: FailedStep) -> Iterator[Measurement]:
        """Whether the step is finite with outputs that are clipped away from 0, and from 1 where they are probabilities."""
        origin = failed.origin
        loss = self._model.loss
        if (
            origin is None
            or origin.minimum is None
            or origin.maximum is None
            or not (isinstance(loss, str) or callable(loss))
        ):
            return
        if origin.minimum > _TINY or max(abs(origin.minimum), abs(origin.maximum)) > _MAX_CLIPPED:
            return
        high = _ALMOST_ONE if origin.maximum <= 1 else _MAX_CLIPPED
        keras = self._adapter.keras
        function, clip = keras.losses.get(loss), getattr(keras, "ops", keras.backend).clip
        copy = self._copy()
        settings = dict(copy._compile_config.config)  # see compile_like
        copy.compile(**settings | {"loss": lambda y, p: function(y, clip(p, _TINY, high))})
        if self._is_finite(copy, failed, failed.step.batch):
            yield self._cause("logarithm of probabilities" if high < 1 else "logarithm")

    def _schedule(self, failed: FailedStep) -> Iterator[Measurement]:
        """Whether the learning rate is NaN or infinite, as of a schedule that divides by 0."""
        inner = self._adapter.unscaled(self._model.optimizer)
        schedule = getattr(inner, "_learning_rate", None)
        steps = range(max(0, failed.number - 2), failed.number + 1)
        with np.errstate(all="ignore"):
            rates = [schedule(step) for step in steps] if callable(schedule) else [inner.learning_rate]
        if not all(np.isfinite(self._adapter.flat_arrays([rate])[0]).all() for rate in rates):
            yield self._cause("schedule" if callable(schedule) else "learning rate not finite")

    def _epsilon(self, failed: FailedStep) -> Iterator[Measurement]:
        """Whether the optimizer divides by an epsilon that is 0 in the format of the weights."""
        epsilon = getattr(self._adapter.unscaled(self._model.optimizer), "epsilon", None)
        types = {str(weight.dtype) for weight in self._model.trainable_variables}
        if epsilon and np.float16(epsilon) == 0 and any("float16" in name and "b" not in name for name in types):
            yield self._cause("epsilon")

    def _constraint(self, failed: FailedStep) -> Iterator[Measurement]:
        """Whether the same step is finite without the constraints of weights."""
        copy = self._copy(_without_constraints)
        changed = self._adapter.config_of(copy) != self._adapter.config_of(self._model)
        if changed and self._is_finite(copy, failed, failed.step.batch):
            yield self._cause("constraint")

    def _course(self, failed: FailedStep) -> Iterator[Measurement]:
        """Whether training from new weights is finite with standardized inputs, or with a smaller learning rate."""
        trial = self._new
        batches = (self._batches or [failed.step.batch]) * (_TRIAL_STEPS // max(1, len(self._batches)) + 1)
        if trial.run(batches, self._deadline).is_healthy:
            self._tried.append(f"{len(batches)} steps from new weights, which train without a break")
            return
        largest = max((tensor.largest for tensor in failed.observation.inputs), default=0.0)
        if largest > _LARGE_INPUT:
            standard = [
                Batch(self._map(self._standardized, batch.x), batch.y, batch.sample_weight) for batch in batches
            ]
            if trial.run(standard, self._deadline).is_healthy:
                yield self._cause("range of the inputs")
                return
            self._tried.append("standardized inputs")
        if not trial.has_rate:
            return
        for rate in _RATES:
            run = trial.run(batches, self._deadline, rate=rate)
            if run.is_healthy:
                yield self._cause("learning rate")
                yield Measurement("optimizer", "cured_by_rate", rate, self._step)
                return
            if not run.complete:
                return
        self._tried.append(f"{_RATES[-1]:g} of the learning rate")

    def _copy(self, change: Callable[[Any], Any] = lambda config: config) -> Any:
        """A compiled copy of the model with new weights."""
        copy = rebuilt_with(self._adapter, self._model, change)
        scaled = self._adapter.is_loss_scaling(self._model.optimizer)
        compile_like(self._adapter, copy, self._model, scale_loss=scaled)
        return copy

    def _cause(self, name: str) -> Measurement:
        return Measurement("fit", "cause", name, self._step)

    @property
    def _is_over(self) -> bool:
        return time.monotonic() > self._deadline

    def _has_non_finite(self, batch: Batch) -> bool:
        return self._non_finite((batch.x, batch.y, batch.sample_weight))

    def _non_finite(self, structure: Any) -> bool:
        leaves = [self._array(leaf) for leaf in self._adapter.flat(structure) if leaf is not None]
        return any(not np.isfinite(leaf).all() for leaf in leaves if leaf.dtype.kind == "f")


def _without_constraints(config: Any) -> Any:
    if isinstance(config, dict):
        return {
            key: None if key.endswith("_constraint") else _without_constraints(value) for key, value in config.items()
        }
    return [_without_constraints(item) for item in config] if isinstance(config, list) else config
