"""LayerFacts: what a model says of a layer before anything runs; and the rules that need no more."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from keras_precision.core.layer_facts import HALF_TYPES, LayerFacts
from keras_precision.core.observation import Observation
from keras_precision.findings.finding import Finding, in_order

__all__ = ["facts_findings", "input_findings", "loss_findings", "saturation_findings", "variance_findings"]
_LEAST_EPSILON = 2.0**-25  # what is not above it becomes 0 in float16
_LARGE_INPUT = 32.0  # standardized data stay below; pixels and raw measurements do not
_SATURATED = 0.9  # of what a bounded activation puts out, on a whole batch
_BOUNDED = {"sigmoid": True, "hard_sigmoid": True, "tanh": False, "hard_tanh": False}  # whether 0 is an end, too
_EXPLODES = 4.0  # times the spread that the same layer has in float32


def facts_findings(layers: Sequence[LayerFacts], *, on_accelerator: bool = False) -> tuple[Finding, ...]:
    """Judge the layers of a model by what it says of them.

    Args:
        layers: The layers, in order.
        on_accelerator: Whether an accelerator computes, whose units of matrix products want certain sizes.

    Returns:
        The findings, the worst first.

    Example:
        >>> [each.code for each in facts_findings([LayerFacts("head", "Dense", "float16", "float16")])]
        ['plain-float16']
    """
    rules: tuple[_Rule, ...] = (_plain_half, _half_softmax, _half_output, _tiny_epsilon)
    found = [finding for layer in layers for rule in rules for finding in rule(layer)]
    odd = [each for each in layers if each.is_half and each.width is not None and each.width % 8]
    if on_accelerator and odd:
        names = ", ".join(f"'{each.path}' ({each.width})" for each in odd[:4])
        found.append(
            Finding(
                "odd-width", "info", odd[0].path,
                f"The widths of {len(odd)} layers are no multiples of 8, as tensor cores want them in 16 bits: {names}.",
                "Dense(1024) in place of Dense(1000): round units and filters up to the next multiple of 8",
            )
        )  # fmt: skip
    return in_order(found)


_Rule = Callable[[LayerFacts], Iterator[Finding]]


def _plain_half(layer: LayerFacts) -> Iterator[Finding]:
    if layer.policy in HALF_TYPES:
        yield Finding(
            "plain-float16", "error", layer.path,
            f"'{layer.path}' has the policy '{layer.policy}', which keeps the weights in {layer.policy}, too: updates smaller than "
            "about a thousandth of a weight are rounded away, and training stalls.",
            f"keras.layers.{layer.kind}(..., dtype='mixed_{layer.policy}')  # or kp.apply_plan",
        )  # fmt: skip


def _half_softmax(layer: LayerFacts) -> Iterator[Finding]:
    if layer.is_half and (layer.activation == "softmax" or layer.kind == "Softmax") and layer.is_output:
        yield Finding(
            "half-softmax", "warning", layer.path,
            f"'{layer.path}' is the model's output, and computes its softmax in {layer.compute}: probabilities below 6e-8 become 0 "
            "in float16, those of bfloat16 have 3 digits, and the loss takes their logarithm.",
            f"layers={{'{layer.path}': 'float32'}} in the plan, or Dense(n) with from_logits=True in float32",
        )  # fmt: skip


def _half_output(layer: LayerFacts) -> Iterator[Finding]:
    if layer.is_half and layer.is_output and layer.activation != "softmax" and layer.kind != "Softmax":
        yield Finding(
            "half-output", "warning", layer.path,
            f"'{layer.path}' is the model's output, in {layer.compute}: the loss begins with what 11 bits (8 in bfloat16) left of it.",
            f"kp.PrecisionPlan.training('mixed_{layer.compute}', layers={{'{layer.path}': 'float32'}})",
        )  # fmt: skip


def _tiny_epsilon(layer: LayerFacts) -> Iterator[Finding]:
    epsilon = layer.epsilon
    if layer.compute == "float16" and layer.is_own and epsilon is not None and 0 < epsilon <= _LEAST_EPSILON:
        yield Finding(
            "tiny-epsilon", "error", layer.path,
            f"'{layer.path}' adds {epsilon:.3g} before it divides or takes a logarithm; in float16, which it computes in, that is 0.",
            f"epsilon=1e-3, or layers={{'{layer.path}': 'float32'}} in the plan",
        )  # fmt: skip


def input_findings(observation: Observation, layers: Sequence[LayerFacts]) -> tuple[Finding, ...]:
    """Judge the scale of what goes into a model.

    Args:
        observation: One step.
        layers: The layers, in order.

    Returns:
        One finding, or none.
    """
    largest = max((tensor.largest for tensor in observation.inputs), default=0.0)
    least = min((tensor.minimum for tensor in observation.inputs), default=0.0)
    half = next((each for each in layers if each.is_half), None)
    scales = any(each.kind in ("Rescaling", "Normalization") for each in layers[:2])
    if half is None or largest <= _LARGE_INPUT or scales:
        return ()
    pixels = least >= 0 and 128 < largest <= 255
    return (
        Finding(
            "input-scale", "error" if largest > 65504 else "warning", half.path,
            f"The inputs reach {largest:.4g}, and go into {half.compute}: "
            + ("they look like pixels of 0 to 255; " if pixels else "")
            + "a sum of their products soon leaves the range, and near its end numbers are 32 apart.",
            "keras.layers.Rescaling(1 / 255)" if pixels else "keras.layers.Normalization(), adapted to the training data",
        ),
    )  # fmt: skip


def loss_findings(types: Sequence[str]) -> tuple[Finding, ...]:
    """Judge the types that the losses of a model are computed in.

    Args:
        types: They, one for each loss.

    Returns:
        One finding, or none.

    Example:
        >>> [each.code for each in loss_findings(["float16"])]
        ['half-loss']
    """
    half = next((each for each in types if each in HALF_TYPES), None)
    if half is None:
        return ()
    return (
        Finding(
            "half-loss", "error", "loss",
            f"The loss is computed in {half}, its mean over the batch included: a sum that leaves {half}'s range or digits is lost "
            "before the gradients begin, and no loss scale brings it back.",
            "keras.config.set_floatx('float32') before the model is built, and losses without dtype=",
        ),
    )  # fmt: skip


def saturation_findings(observation: Observation, layers: Sequence[LayerFacts]) -> tuple[Finding, ...]:
    """Find layers whose bounded activation is at its ends for nearly all of a batch, where its gradient vanishes.

    Near is within 2**-11 of an end, what float16 tells apart below 1. Outputs of the model are left out: a sigmoid
    there is sure of its answers.

    Args:
        observation: One step.
        layers: The layers, in order.

    Returns:
        A finding for each.
    """
    bounded = {each.path: each for each in layers if each.activation in _BOUNDED and not each.is_output}
    found = []
    for call, _ in observation.outer():
        layer = bounded.get(call.path)
        if layer is None or not call.outputs:
            continue
        shares = [each.near_one + each.near_zero * _BOUNDED[layer.activation] for each in call.outputs]
        if min(shares) >= _SATURATED:
            found.append(
                Finding(
                    "saturated-units", "warning", layer.path,
                    f"{min(shares):.0%} of what '{layer.path}' puts out is at an end of its {layer.activation}, within 2**-11: "
                    f"the gradient there is as good as 0, and is 0 in 16 bits.",
                    "A smaller initializer or normalized inputs; keras.layers.LayerNormalization() before it",
                )
            )  # fmt: skip
    return tuple(dict.fromkeys(found))


def variance_findings(
    observation: Observation, baseline: Observation, layers: Sequence[LayerFacts]
) -> tuple[Finding, ...]:
    """Compare the spread of what each layer puts out with that of the same layers in float32.

    Args:
        observation: A step in the model's own precision.
        baseline: The forward pass of the same batch in float32.
        layers: The layers of the model.

    Returns:
        The first layer whose spread explodes or collapses, if there is one.
    """
    usual, half = _spreads(baseline), {each.path for each in layers if each.is_half}
    for path, spread in _spreads(observation).items():
        expected = usual.get(path)
        if path not in half or not expected:
            continue
        ratio = spread / expected
        if ratio > _EXPLODES or ratio < 1 / _EXPLODES:
            word = "explodes" if ratio > 1 else "collapses"
            return (
                Finding(
                    f"variance-{word}", "warning", path,
                    f"The spread of what '{path}' puts out {word}: its deviation is {spread:.4g}, and {expected:.4g} in float32.",
                    f"layers={{'{path}': 'float32'}} in the plan",
                ),
            )  # fmt: skip
    return ()


def _spreads(observation: Observation) -> Mapping[str, float]:
    return {
        call.path: max(tensor.deviation for tensor in call.outputs)
        for call, _ in observation.outer()
        if call.outputs and all(tensor.is_finite for tensor in call.outputs)
    }
