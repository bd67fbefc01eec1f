"""Observation: what went through each layer of a model in one training step, and which layer broke it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from keras_precision.core.result import Measurement

__all__ = ["SCALE", "Blame", "LayerCall", "Observation", "Phase", "Statistics", "blame", "origin_rows", "rows_of"]

Phase = Literal["data", "weights", "forward", "loss", "backward"]

SCALE = 2.0**15
"""The loss scale that Keras starts with; ``scaled_underflow`` is judged under it."""


class Statistics(NamedTuple):
    """Figures of a tensor; all but the shares are of its finite values.

    Attributes:
        mean: Their mean.
        deviation: Their standard deviation.
        minimum: The least of them.
        maximum: The greatest.
        smallest: The least size above 0; infinite where there is none.
        non_finite: Share of NaN and infinity.
        zero: Share of zeros.
        float16_underflow: Share that is not 0, and becomes 0 in float16: below 2**-25.
        float16_overflow: Share that becomes infinite in float16: from 65520 on.
        bfloat16_underflow: Share that is not 0, and becomes 0 in bfloat16.
        bfloat16_overflow: Share that becomes infinite in bfloat16.
        scaled_underflow: As float16_underflow, after multiplication with 2**15.
        near_zero: Share of sizes up to 2**-11, the spacing of float16 below 1.
        near_one: Share of sizes from 1 - 2**-11 on.
        float16_error: What rounding to float16 takes from them, as a share of their size, both as the root of the mean
            square; what becomes infinite is left out.
        bfloat16_error: The same of bfloat16.
    """

    mean: float
    deviation: float
    minimum: float
    maximum: float
    smallest: float
    non_finite: float
    zero: float
    float16_underflow: float
    float16_overflow: float
    bfloat16_underflow: float
    bfloat16_overflow: float
    scaled_underflow: float
    near_zero: float = 0.0
    near_one: float = 0.0
    float16_error: float = 0.0
    bfloat16_error: float = 0.0

    @property
    def int8_error(self) -> float:
        """The same of int8 with one scale, over the range of these values: a step has 1/255 of it."""
        size = math.hypot(self.mean, self.deviation)
        return (max(self.maximum, 0.0) - min(self.minimum, 0.0)) / 255 / math.sqrt(12) / size if size else 0.0

    @property
    def largest(self) -> float:
        """The greatest size of a finite value."""
        return max(abs(self.minimum), abs(self.maximum))

    @property
    def is_finite(self) -> bool:
        """Whether there is no NaN, and no infinity."""
        return self.non_finite == 0


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer; calls come in the order in which they ended, inner ones before the outer one.

    Attributes:
        path: The path of the layer, or of the one that it is within.
        within: Names below that path; empty for the layer itself.
        kind: The name of its class.
        inputs: What went in, one for each float tensor.
        outputs: What came out.
        input_gradients: Of the loss, after what went in; None where nothing flowed back.
        output_gradients: After what came out.
    """

    path: str
    within: str
    kind: str
    inputs: tuple[Statistics, ...]
    outputs: tuple[Statistics, ...]
    input_gradients: tuple[Statistics | None, ...] = ()
    output_gradients: tuple[Statistics | None, ...] = ()


@dataclass(frozen=True)
class Observation:
    """One training step, seen from within.

    Attributes:
        calls: Its calls of layers.
        loss: The loss, not scaled; None where the model is not compiled, or there are no labels.
        scale: What the loss was multiplied with before its gradients were taken.
        inputs: Figures of the batch's inputs.
        labels: Figures of its labels and weights of samples.
        weights: Layer path to figures of its weights, as they were.
        weight_gradients: Layer path to figures of their gradients.
        how: How it was computed, in words.
    """

    calls: tuple[LayerCall, ...]
    loss: float | None
    scale: float = 1.0
    inputs: tuple[Statistics, ...] = ()
    labels: tuple[Statistics, ...] = ()
    weights: Mapping[str, tuple[Statistics, ...]] = field(default_factory=dict)
    weight_gradients: Mapping[str, tuple[Statistics, ...]] = field(default_factory=dict)
    how: str = ""

    def outer(self) -> Iterator[tuple[LayerCall, list[LayerCall]]]:
        """Yield each call of a layer that has a path, with the calls of the layers inside it, in order."""
        inner: list[LayerCall] = []
        for call in self.calls:
            if call.within:
                inner.append(call)
            else:
                yield call, inner
                inner = []


@dataclass(frozen=True)
class Blame:
    """Where the first value that is not finite arose.

    Attributes:
        phase: ``"data"`` (the batch itself), ``"weights"`` (before the step), ``"forward"``, ``"loss"`` or ``"backward"``.
        path: The path of the layer; None where it is no layer's.
        within: Names of layers inside it, where one of those is to blame; ``"inputs"`` or ``"labels"`` of the data.
        kind: The class of the layer.
        near: Where it arose between layers: the path of the next one forward, of the one before backward.
        minimum: The least of what went in: forward the inputs, backward the gradients that came from the loss.
        maximum: The greatest.
    """

    phase: Phase
    path: str | None
    within: str = ""
    kind: str = ""
    near: str = ""
    minimum: float | None = None
    maximum: float | None = None


def blame(observation: Observation) -> Blame | None:
    """Find where the first value of a step that is not finite arose.

    Args:
        observation: The step.

    Returns:
        The origin; None where every value is finite.

    Example:
        >>> fine = Statistics(0, 1, -3, 3, 0.1, 0, 0, 0, 0, 0, 0, 0)
        >>> broken = fine._replace(non_finite=0.5)
        >>> calls = LayerCall("a", "", "Dense", (fine,), (fine,)), LayerCall("b", "", "Boom", (fine,), (broken,))
        >>> origin = blame(Observation(calls, loss=float("nan")))
        >>> origin.phase, origin.path, origin.minimum, origin.maximum
        ('forward', 'b', -3, 3)
    """
    for find in (_in_data, _in_weights, _forward, _in_loss, _backward):
        found = find(observation)
        if found is not None:
            return found
    return None


def _in_data(observation: Observation) -> Blame | None:
    for name, tensors in (("inputs", observation.inputs), ("labels", observation.labels)):
        if not _all_finite(tensors):
            return _blamed("data", None, tensors, within=name)
    return None


def _in_weights(observation: Observation) -> Blame | None:
    for path, tensors in observation.weights.items():
        if not _all_finite(tensors):
            return _blamed("weights", path, tensors)
    return None


def _forward(observation: Observation) -> Blame | None:
    for call, inner in observation.outer():
        if not _all_finite(call.inputs):
            return _blamed("forward", None, call.inputs, near=call.path)
        if not _all_finite(call.outputs):
            culprit = next((each for each in inner if _breaks(each.inputs, each.outputs)), call)
            return _blamed("forward", call.path, culprit.inputs, within=culprit.within, kind=culprit.kind)
    return None


def _in_loss(observation: Observation) -> Blame | None:
    loss = observation.loss
    if loss is None or math.isfinite(loss):
        return None
    outputs = observation.calls[-1].outputs if observation.calls else ()
    return _blamed("loss", None, outputs)


def _backward(observation: Observation) -> Blame | None:
    """Going back from the loss: the first layer whose outputs have finite gradients, and whose inputs or weights have not."""
    last = True
    for call, inner in reversed(list(observation.outer())):
        own = observation.weight_gradients.get(call.path, ())
        if not _all_finite(call.output_gradients):
            # Of the last layer, it came out of the loss like that; of another, out of an operation behind it.
            return _blamed("backward", None, call.outputs, near="" if last else call.path)
        if not _all_finite([*call.input_gradients, *own]):
            culprit = _innermost(inner) or call
            return _blamed("backward", call.path, culprit.output_gradients, within=culprit.within, kind=culprit.kind)
        last = False
    return None


def _innermost(inner: Sequence[LayerCall]) -> LayerCall | None:
    found: LayerCall | None = None
    for call in reversed(inner):
        if found is not None and not call.within.startswith(f"{found.within}/"):
            break
        if not _all_finite(call.output_gradients):
            break
        if not _all_finite(call.input_gradients):
            found = call
    return found


def _breaks(before: Sequence[Statistics | None], after: Sequence[Statistics | None]) -> bool:
    return _all_finite(before) and not _all_finite(after)


def _blamed(
    phase: Phase,
    path: str | None,
    tensors: Sequence[Statistics | None],
    *,
    within: str = "",
    kind: str = "",
    near: str = "",
) -> Blame:
    known = [tensor for tensor in tensors if tensor is not None]
    low = min((tensor.minimum for tensor in known), default=None)
    high = max((tensor.maximum for tensor in known), default=None)
    return Blame(phase, path, within, kind, near, low, high)


def _all_finite(tensors: Sequence[Statistics | None]) -> bool:
    return all(tensor is None or tensor.is_finite for tensor in tensors)


_SHOWN = (
    "mean",
    "deviation",
    "minimum",
    "maximum",
    "non_finite",
    "zero",
    "float16_underflow",
    "float16_overflow",
    "bfloat16_underflow",
    "bfloat16_overflow",
    "float16_error",
    "bfloat16_error",
)


def rows_of(observation: Observation, step: int | None = None) -> Iterator[Measurement]:
    """Yield the figures of each layer as rows, the layers in order; those within others are left out.

    Activations are what a layer puts out. Gradients are of the loss after them, divided by the loss scale. Where a
    layer is called several times, or puts out several tensors, the widest of their figures are told.

    Args:
        observation: The step.
        step: Its number.
    """
    grouped: dict[str, list[LayerCall]] = {}
    for call in observation.calls:
        if not call.within:
            grouped.setdefault(call.path, []).append(call)
    for path, calls in grouped.items():
        outputs = [each for call in calls for each in call.outputs]
        gradients = [each for call in calls for each in call.output_gradients if each is not None]
        yield from _rows(path, "activation", outputs, 1.0, step)
        yield from _rows(path, "gradient", gradients, observation.scale, step)
        yield from _rows(path, "weight_gradient", observation.weight_gradients.get(path, ()), observation.scale, step)


def _rows(path: str, what: str, tensors: Sequence[Statistics], scale: float, step: int | None) -> Iterator[Measurement]:
    if not tensors:
        return
    shown = (*_SHOWN, "int8_error" if what == "activation" else "scaled_underflow")
    for name in shown:
        values = [getattr(tensor, name) for tensor in tensors]
        value = min(values) if name == "minimum" else sum(values) / len(values) if name == "mean" else max(values)
        sized = name in ("mean", "deviation", "minimum", "maximum")
        yield Measurement(path, f"{what}_{name}", value / scale if sized else value, step)


def origin_rows(origin: Blame | None, step: int | None, *, loss_is_finite: bool) -> Iterator[Measurement]:
    """Yield an origin as rows.

    Args:
        origin: What was found; None where the step could not be made to break again.
        step: The number of the step.
        loss_is_finite: Whether its loss was.
    """
    if origin is None:
        yield Measurement("fit", "first_non_finite", "not found again", step)
        return
    subject = origin.path or (f"batch/{origin.within}" if origin.phase == "data" else "loss")
    if origin.near:
        subject = origin.near
    phase = f"{origin.phase}, {'before' if origin.phase == 'forward' else 'behind'} it" if origin.near else origin.phase
    yield Measurement(subject, "first_non_finite", phase, step)
    if origin.path and origin.kind:
        within = f"{origin.within}: " if origin.within else ""
        yield Measurement(subject, "first_non_finite_layer", f"{within}{origin.kind}", step)
    yield Measurement(subject, "first_non_finite_from", origin.minimum, step)
    yield Measurement(subject, "first_non_finite_to", origin.maximum, step)
    yield Measurement(subject, "first_non_finite_loss", "finite" if loss_is_finite else "not finite", step)
