"""rule_of: the rule of a layer, by its class; the rules of Keras's own layers register themselves."""

from typing import Any

from keras_precision.core.errors import ModelError
from keras_precision.quantization.qat.layers.quantize_rule import _RULES, QuantizeRule

__all__ = ["known_rule_of", "rule_of"]


def rule_of(layer: Any) -> QuantizeRule:
    """Return the rule of a layer.

    Args:
        layer: A layer of Keras 3.

    Returns:
        That of its class, or the nearest base class that has one; without one, a layer without
        weights gets the plain rule.

    Raises:
        ModelError: A layer with weights has no rule.
    """
    found = known_rule_of(layer)
    if found is not None:
        return found
    if layer.weights:
        raise ModelError(
            f"Expected layers that have a rule for computing in integers. Received: '{layer.name}' of type {type(layer).__name__}. "
            "Register one: kp.register_quantize_rule(its class, kp.QuantizeRule(weights=...)); or leave it in float: "
            f"PrecisionPlan.deployment('int8', layers={{'{layer.name}': 'float32'}})."
        )
    return QuantizeRule()


def known_rule_of(layer: Any) -> QuantizeRule | None:
    """Return the rule of a layer, if there is one.

    Args:
        layer: A layer of Keras 3.

    Returns:
        That of its class, or the nearest base class that has one; else None.
    """
    from keras_precision.quantization.qat.layers import rules  # noqa: F401 - they register themselves

    return next((_RULES[base] for base in type(layer).__mro__ if base in _RULES), None)
