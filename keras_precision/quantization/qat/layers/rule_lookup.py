"""rule_of: the rule of a layer, by its class, including the built-in rules."""

from typing import Any

from keras_precision.core.errors import ModelError
from keras_precision.quantization.qat.layers.quantize_rule import _RULES, QuantizeRule

__all__ = ["known_rule_of", "rule_of"]


def rule_of(layer: Any) -> QuantizeRule:
    """Return the rule of a layer's class, or the default rule; ModelError if the layer then has weights."""
    rule = known_rule_of(layer)
    if rule is not None:
        return rule
    if layer.weights:
        raise ModelError(
            f"Expected layers that have a rule for computing in integers. Received: '{layer.name}' of type {type(layer).__name__}. "
            "Register one: kp.register_quantize_rule(its class, kp.QuantizeRule(weights=...)); or leave it in float: "
            f"PrecisionPlan.deployment('int8', layers={{'{layer.name}': 'float32'}})."
        )
    return QuantizeRule()


def known_rule_of(layer: Any) -> QuantizeRule | None:
    """Return the rule of a layer's class or its nearest base class with one; None if there is none."""
    from keras_precision.quantization.qat.layers import rules  # noqa: F401 - registers the built-in rules

    return next((_RULES[base] for base in type(layer).__mro__ if base in _RULES), None)
