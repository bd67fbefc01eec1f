"""Rules for the configuration of layers, and for the inputs, activations and variances of one observed step."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from keras_precision.core.formats.number_format import FLOAT16
from keras_precision.core.layer_facts import HALF_TYPES, LayerFacts
from keras_precision.core.observation import NonFiniteOrigin, Observation, Statistics
from keras_precision.findings.advice import NORMALIZED, in_float32, in_policy
from keras_precision.findings.finding import Finding, by_severity

__all__ = [
    "facts_findings",
    "input_findings",
    "loss_findings",
    "overflow_inside",
    "saturation_findings",
    "variance_findings",
]
_ROUNDS_TO_ZERO = 2.0**-25  # the largest number that float16 rounds to 0
_LARGE_INPUT = 32.0  # larger than standardized data, smaller than pixels and raw measurements
_MAX_NOISE = 0.1  # 20 dB: with more, close values are no longer told apart
_MIN_SATURATED = 0.9  # share of the outputs of a bounded activation, on a whole batch
_BOUNDED = {"sigmoid": True, "hard_sigmoid": True, "tanh": False, "hard_tanh": False}  # whether 0 is a bound, too
_MAX_RATIO = 4.0  # of a layer's standard deviation to that in float32


def facts_findings(layers: Sequence[LayerFacts], *, on_accelerator: bool = False) -> tuple[Finding, ...]:
    """Return the findings on the configuration of layers; the width only matters to the tensor cores of an accelerator.

    Example:
        >>> [finding.code for finding in facts_findings([LayerFacts("head", "Dense", "float16", "float16")])]
        ['plain-float16']
    """
    rules: tuple[_Rule, ...] = (_plain_half, _half_softmax, _half_output, _tiny_epsilon)
    findings = [finding for layer in layers for rule in rules for finding in rule(layer)]
    odd = [layer for layer in layers if layer.is_half and layer.width is not None and layer.width % 8]
    if on_accelerator and odd:
        names = ", ".join(f"'{layer.path}' ({layer.width})" for layer in odd[:4])
        findings.append(
            Finding(
                "odd-width", "info", odd[0].path,
                f"The widths of {len(odd)} layers are not multiples of 8, which tensor cores require in 16 bits: {names}.",
                "# Dense(1024) instead of Dense(1000): round units and filters up to the next multiple of 8",
            )
        )  # fmt: skip
    return by_severity(findings)


_Rule = Callable[[LayerFacts], Iterator[Finding]]


def _plain_half(layer: LayerFacts) -> Iterator[Finding]:
    if layer.policy in HALF_TYPES:
        yield Finding(
            "plain-float16", "error", layer.path,
            f"'{layer.path}' has the policy '{layer.policy}', which stores the weights in {layer.policy}, too: updates smaller than "
            "about a thousandth of a weight are rounded away, and training stalls.",
            in_policy(f"mixed_{layer.policy}"),
        )  # fmt: skip


def _half_softmax(layer: LayerFacts) -> Iterator[Finding]:
    if layer.is_half and (layer.activation == "softmax" or layer.kind == "Softmax") and layer.is_output:
        yield Finding(
            "half-softmax", "warning", layer.path,
            f"'{layer.path}' is the model's output, and computes its softmax in {layer.compute}: probabilities below 6e-8 become 0 "
            "in float16, those in bfloat16 have 3 digits, and the loss takes their logarithm.",
            f"{in_float32(layer.path)}  # or Dense(n) with from_logits=True in float32",
        )  # fmt: skip


def _half_output(layer: LayerFacts) -> Iterator[Finding]:
    if layer.is_half and layer.is_output and layer.activation != "softmax" and layer.kind != "Softmax":
        yield Finding(
            "half-output", "warning", layer.path,
            f"'{layer.path}' is the model's output, in {layer.compute}: the loss is computed from values with 11 significant bits (8 in bfloat16).",
            in_float32(layer.path),
        )  # fmt: skip


def _tiny_epsilon(layer: LayerFacts) -> Iterator[Finding]:
    epsilon = layer.epsilon
    if layer.compute == "float16" and layer.is_own and epsilon is not None and 0 < epsilon <= _ROUNDS_TO_ZERO:
        yield Finding(
            "tiny-epsilon", "error", layer.path,
            f"'{layer.path}' adds {epsilon:.3g} before it divides or takes a logarithm; in float16, its compute dtype, that is 0.",
            f"{in_float32(layer.path)}  # or epsilon=1e-3",
        )  # fmt: skip


def input_findings(observation: Observation, layers: Sequence[LayerFacts]) -> tuple[Finding, ...]:
    """Return a finding if the first layer in 16 bits overflows on large inputs, or rounds off what distinguishes them."""
    half = next((layer for layer in layers if layer.is_half), None)
    has_scaling = any(layer.kind in ("Rescaling", "Normalization") for layer in layers[:2])
    largest = max((tensor.largest for tensor in observation.inputs), default=0.0)
    if half is None or has_scaling or largest <= _LARGE_INPUT:
        return ()
    outputs = [tensor for call, _ in observation.outer() if call.path == half.path for tensor in call.outputs]
    breaks = largest > FLOAT16.largest or not all(tensor.is_finite for tensor in outputs)
    noise = max(_rounding_noise(tensor, half.compute) for tensor in observation.inputs)
    if half.compute == "float16" and (breaks or any(tensor.largest > FLOAT16.largest / 2 for tensor in outputs)):
        reason = f"its outputs {'exceed' if breaks else 'come close to'} the largest number of float16, 65504"
    elif noise > _MAX_NOISE:
        reason, breaks = f"rounding them is an error of {noise:.0%} of their standard deviation", False
    else:
        return ()
    least = min(tensor.minimum for tensor in observation.inputs)
    pixels = least >= 0 and 128 < largest <= 255
    looks = " (they look like pixels of 0 to 255)" if pixels else ""
    return (
        Finding(
            "input-scale", "error" if breaks else "warning", half.path,
            f"The inputs are up to {largest:.4g}{looks}, and '{half.path}' computes with them in {half.compute}: {reason}.",
            _PIXELS if pixels else NORMALIZED,
        ),
    )  # fmt: skip


def _rounding_noise(tensor: Statistics, dtype: str) -> float:
    """The rounding error of a 16-bit format, as a share of the standard deviation."""
    error = tensor.float16_error if dtype == "float16" else tensor.bfloat16_error
    return error * math.hypot(tensor.mean, tensor.deviation) / tensor.deviation if tensor.deviation else 0.0


_FLOAT32_LOSS = (
    "keras.config.set_floatx('float32')\n"
    "loss = keras.losses.get(model.loss)\n"
    "model = kp.recompile(model, loss=lambda y, outputs: getattr(loss, 'call', loss)(y, outputs))"
)
_PIXELS = (
    "scaled = keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Rescaling(1 / 255, dtype='float32'), model])\n"
    "model = kp.recompile(scaled, like=model)"
)


def loss_findings(types: Sequence[str]) -> tuple[Finding, ...]:
    """Return a finding if a loss of a model is computed in 16 bits; ``types`` are the dtypes of the losses.

    Example:
        >>> [finding.code for finding in loss_findings(["float16"])]
        ['half-loss']
    """
    half = next((dtype for dtype in types if dtype in HALF_TYPES), None)
    if half is None:
        return ()
    return (
        Finding(
            "half-loss", "error", "loss",
            f"The loss is computed in {half}, its mean over the batch included: a sum beyond {half}'s range or digits is lost "
            "before the gradients are computed, and no loss scale recovers it.",
            _FLOAT32_LOSS,
        ),
    )  # fmt: skip


def overflow_inside(origin: NonFiniteOrigin, largest: float) -> Finding:
    """Return the finding of a layer that is not finite in float16, with the largest of its outputs in float32."""
    path = str(origin.path)
    place = f"its inner layer '{origin.within}'" if origin.within else "an operation inside it"
    return Finding(
        "float16-overflow-ahead", "warning", path,
        f"In float16, outputs of '{path}' are NaN or infinite: {place} exceeds the largest number, 65504. In float32 they are at most {largest:.4g}.",
        f"{in_float32(path)}  # or kp.PrecisionPlan.training('mixed_bfloat16') for all",
    )  # fmt: skip


def saturation_findings(observation: Observation, layers: Sequence[LayerFacts]) -> tuple[Finding, ...]:
    """Return findings on layers whose bounded activation is saturated for most of a batch, so that its gradient vanishes.

    Saturated is within 2**-11 of a bound, the resolution of float16 below 1. Output layers are excluded: there,
    saturation is a confident prediction.
    """
    bounded = {layer.path: layer for layer in layers if layer.activation in _BOUNDED and not layer.is_output}
    findings = []
    for call, _ in observation.outer():
        layer = bounded.get(call.path)
        if layer is None or not call.outputs:
            continue
        shares = [tensor.near_one + tensor.near_zero * _BOUNDED[layer.activation] for tensor in call.outputs]
        if min(shares) >= _MIN_SATURATED:
            findings.append(
                Finding(
                    "saturated-units", "warning", layer.path,
                    f"{min(shares):.0%} of the outputs of '{layer.path}' are within 2**-11 of a bound of its {layer.activation}: "
                    f"the gradient there is almost 0, and is 0 in 16 bits.",
                    "# A smaller initializer or normalized inputs; keras.layers.LayerNormalization() before it",
                )
            )  # fmt: skip
    return tuple(dict.fromkeys(findings))


def variance_findings(
    observation: Observation, baseline: Observation, layers: Sequence[LayerFacts]
) -> tuple[Finding, ...]:
    """Return a finding on the first layer in 16 bits whose standard deviation differs greatly from that in float32.

    ``baseline`` is the forward pass of the same batch in float32.
    """
    expected, half = _deviations(baseline), {layer.path for layer in layers if layer.is_half}
    for path, deviation in _deviations(observation).items():
        reference = expected.get(path)
        if path not in half or not reference:
            continue
        ratio = deviation / reference
        if ratio > _MAX_RATIO or ratio < 1 / _MAX_RATIO:
            word = "explodes" if ratio > 1 else "collapses"
            return (
                Finding(
                    f"variance-{word}", "warning", path,
                    f"The variance of the outputs of '{path}' {word}: the deviation is {deviation:.4g}, and {reference:.4g} in float32.",
                    in_float32(path),
                ),
            )  # fmt: skip
    return ()


def _deviations(observation: Observation) -> Mapping[str, float]:
    return {
        call.path: max(tensor.deviation for tensor in call.outputs)
        for call, _ in observation.outer()
        if call.outputs and all(tensor.is_finite for tensor in call.outputs)
    }
