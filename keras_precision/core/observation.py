"""Observation: the tensors of every layer in one training step, and the origin of its first NaN or infinity."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from keras_precision.core.result import Measurement

__all__ = [
    "INITIAL_LOSS_SCALE",
    "LayerCall",
    "NonFiniteOrigin",
    "Observation",
    "Phase",
    "Statistics",
    "find_origin",
    "origin_rows",
    "statistics_rows",
]

Phase = Literal["data", "weights", "forward", "loss", "backward", "update"]

INITIAL_LOSS_SCALE = 2.0**15
"""The initial loss scale of Keras, under which ``scaled_underflow`` is measured."""


class Statistics(NamedTuple):
    """Statistics of a tensor; all but the shares are over its finite values.

    Attributes:
        mean: Their mean.
        deviation: Their standard deviation.
        minimum: The smallest of them.
        maximum: The largest.
        smallest: The smallest absolute value above 0; infinite if there is none.
        non_finite: Share of NaN and infinity.
        zero: Share of zeros.
        float16_underflow: Share that is not 0, and becomes 0 in float16: below 2**-25.
        float16_overflow: Share that becomes infinite in float16: from 65520 on.
        bfloat16_underflow: Share that is not 0, and becomes 0 in bfloat16.
        bfloat16_overflow: Share that becomes infinite in bfloat16.
        scaled_underflow: As float16_underflow, after multiplication by 2**15.
        near_zero: Share of absolute values up to 2**-11, the spacing of float16 below 1.
        near_one: Share of absolute values from 1 - 2**-11 on.
        float16_error: Root mean square of the rounding error of float16, relative to that of the values; values that
            overflow are left out.
        bfloat16_error: The same for bfloat16.
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
        """The same for int8 with one scale: a step is 1/255 of the range, and rounding has an error of step / sqrt(12)."""
        size = math.hypot(self.mean, self.deviation)
        return (max(self.maximum, 0.0) - min(self.minimum, 0.0)) / 255 / math.sqrt(12) / size if size else 0.0

    @property
    def largest(self) -> float:
        """The largest absolute value among the finite ones."""
        return max(abs(self.minimum), abs(self.maximum))

    @property
    def is_finite(self) -> bool:
        """Whether there is no NaN and no infinity."""
        return self.non_finite == 0


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer; calls are in the order in which they returned, inner ones before the outer one.

    Attributes:
        path: The path of the layer, or of the layer that contains it.
        within: Names below that path; empty for the layer itself.
        kind: The name of its class.
        inputs: Statistics of its float inputs.
        outputs: Statistics of its float outputs.
        input_gradients: Of the loss with respect to the inputs; None where no gradient flows.
        output_gradients: Of the loss with respect to the outputs.
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
    """Statistics of one training step.

    Attributes:
        calls: Its calls of layers.
        loss: The loss, not scaled; None if the model is not compiled, or there are no labels.
        scale: The loss scale with which the gradients were computed.
        inputs: Statistics of the batch's inputs.
        labels: Statistics of its labels and sample weights.
        weights: Layer path to statistics of its weights before the step.
        weight_gradients: Layer path to statistics of their gradients.
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
        """Yield the calls of layers that have a path, in order, with the calls of the layers inside them."""
        inner: list[LayerCall] = []
        for call in self.calls:
            if call.within:
                inner.append(call)
            else:
                yield call, inner
                inner = []


@dataclass(frozen=True)
class NonFiniteOrigin:
    """The origin of the first NaN or infinity of a step.

    Attributes:
        phase: ``"data"`` (the batch itself), ``"weights"`` (before the step), ``"forward"``, ``"loss"``, ``"backward"`` or
            ``"update"`` (the optimizer made weights NaN or infinite from finite gradients).
        path: The path of the layer; None if it is in no layer.
        within: The path of an inner layer below ``path``, if it is the origin; ``"inputs"`` or ``"labels"`` of the data.
        kind: The class of the layer.
        near: If it is between layers: the path of the next layer forward, or of the previous one backward.
        minimum: The minimum of the layer's inputs (forward), or of the gradients with respect to its outputs (backward).
        maximum: The maximum of the same.
    """

    phase: Phase
    path: str | None
    within: str = ""
    kind: str = ""
    near: str = ""
    minimum: float | None = None
    maximum: float | None = None


def find_origin(observation: Observation) -> NonFiniteOrigin | None:
    """Return the origin of the first NaN or infinity of a step; None if every value is finite.

    Example:
        >>> fine = Statistics(0, 1, -3, 3, 0.1, 0, 0, 0, 0, 0, 0, 0)
        >>> broken = fine._replace(non_finite=0.5)
        >>> calls = LayerCall("a", "", "Dense", (fine,), (fine,)), LayerCall("b", "", "Boom", (fine,), (broken,))
        >>> origin = find_origin(Observation(calls, loss=float("nan")))
        >>> origin.phase, origin.path, origin.minimum, origin.maximum
        ('forward', 'b', -3, 3)
    """
    for find in (_in_data, _in_weights, _forward, _in_loss, _backward):
        origin = find(observation)
        if origin is not None:
            return origin
    return None


def _in_data(observation: Observation) -> NonFiniteOrigin | None:
    for name, tensors in (("inputs", observation.inputs), ("labels", observation.labels)):
        if not _all_finite(tensors):
            return _origin("data", None, tensors, within=name)
    return None


def _in_weights(observation: Observation) -> NonFiniteOrigin | None:
    for path, tensors in observation.weights.items():
        if not _all_finite(tensors):
            return _origin("weights", path, tensors)
    return None


def _forward(observation: Observation) -> NonFiniteOrigin | None:
    for call, inner in observation.outer():
        if not _all_finite(call.inputs):
            return _origin("forward", None, call.inputs, near=call.path)
        if not _all_finite(call.outputs):
            source = next((layer for layer in inner if _breaks(layer.inputs, layer.outputs)), call)
            return _origin("forward", call.path, source.inputs, within=source.within, kind=source.kind)
    return None


def _in_loss(observation: Observation) -> NonFiniteOrigin | None:
    loss = observation.loss
    if loss is None or math.isfinite(loss):
        return None
    outputs = observation.calls[-1].outputs if observation.calls else ()
    return _origin("loss", None, outputs)


def _backward(observation: Observation) -> NonFiniteOrigin | None:
    """Going back from the loss: the first layer with finite output gradients, whose inputs or weights have others."""
    last = True
    for call, inner in reversed(list(observation.outer())):
        own = observation.weight_gradients.get(call.path, ())
        if not _all_finite(call.output_gradients):
            # At the last layer, the gradient of the loss itself; at another, that of an operation after the layer.
            return _origin("backward", None, call.outputs, near="" if last else call.path)
        if not _all_finite([*call.input_gradients, *own]):
            source = _innermost(inner) or call
            return _origin("backward", call.path, source.output_gradients, within=source.within, kind=source.kind)
        last = False
    return None


def _innermost(inner: Sequence[LayerCall]) -> LayerCall | None:
    """Going back: the first inner layer that breaks the gradient, or the innermost one inside that."""
    innermost: LayerCall | None = None
    for call in reversed(inner):
        if innermost is not None and not call.within.startswith(f"{innermost.within}/"):
            break
        if not _all_finite(call.output_gradients):
            break
        if not _all_finite(call.input_gradients):
            innermost = call
    return innermost


def _breaks(before: Sequence[Statistics | None], after: Sequence[Statistics | None]) -> bool:
    return _all_finite(before) and not _all_finite(after)


def _origin(
    phase: Phase,
    path: str | None,
    tensors: Sequence[Statistics | None],
    *,
    within: str = "",
    kind: str = "",
    near: str = "",
) -> NonFiniteOrigin:
    known = [tensor for tensor in tensors if tensor is not None]
    low = min((tensor.minimum for tensor in known), default=None)
    high = max((tensor.maximum for tensor in known), default=None)
    return NonFiniteOrigin(phase, path, within, kind, near, low, high)


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


def statistics_rows(observation: Observation, step: int | None = None) -> Iterator[Measurement]:
    """Yield the statistics of outer layers as rows: of activations, and of gradients divided by the loss scale.

    Over several calls or outputs of a layer, it is the mean of means, the smallest minimum, and else the largest value.
    """
    grouped: dict[str, list[LayerCall]] = {}
    for call in observation.calls:
        if not call.within:
            grouped.setdefault(call.path, []).append(call)
    for path, calls in grouped.items():
        outputs = [tensor for call in calls for tensor in call.outputs]
        gradients = [tensor for call in calls for tensor in call.output_gradients if tensor is not None]
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
        is_scaled = name in ("mean", "deviation", "minimum", "maximum")
        yield Measurement(path, f"{what}_{name}", value / scale if is_scaled else value, step)


def origin_rows(origin: NonFiniteOrigin | None, step: int | None, *, loss_is_finite: bool) -> Iterator[Measurement]:
    """Yield an origin as rows; None is a step that could not be made to break again."""
    if origin is None:
        yield Measurement("fit", "first_non_finite", "not found again", step)
        return
    elsewhere = {"data": f"batch/{origin.within}", "update": "optimizer"}
    subject = origin.path or elsewhere.get(origin.phase, "loss")
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
