"""CAUSES: what trials on copies of a model show to be the cause of a break, in words and with the remedy."""

from collections.abc import Mapping
from types import MappingProxyType

from keras_precision.findings.advice import NORMALIZED, in_policy, with_clipped_outputs

__all__ = ["CAUSES"]

CAUSES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "masked": (
            "Without the samples that are all padding it is finite: the loss divides by their number of labels that count, which is 0.",
            "# In your loss, divide by keras.ops.maximum(keras.ops.sum(mask), 1): it is code of yours that no call can change",
        ),
        "logarithm": (
            "With outputs of at least 1e-7 it is finite: the loss takes a logarithm of 0, or divides by it.",
            with_clipped_outputs("3e38"),
        ),
        "logarithm of probabilities": (
            "With outputs between 1e-7 and 1 - 1e-7 it is finite: the loss takes a logarithm of 0, or divides by it.",
            with_clipped_outputs("1 - 1e-7"),
        ),
        "schedule": (
            "The schedule of the learning rate is NaN or infinite there.",
            "model = kp.recompile(model, optimizer=type(model.optimizer)(learning_rate=1e-3))  # a schedule that is finite in each step",
        ),
        "learning rate not finite": (
            "The learning rate itself is NaN or infinite.",
            "model.optimizer.learning_rate = 1e-3  # and fit again from the start",
        ),
        "epsilon": (
            "The epsilon of the optimizer is 0 in float16, the format of the weights, so that the update divides by 0.",
            in_policy("mixed_float16"),
        ),
        "constraint": (
            "Without the constraints of the weights it is finite: one of them divides by 0, or overflows.",
            "for weight in model.trainable_variables:\n    weight.constraint = None\nmodel = kp.recompile(model)",
        ),
        "range of the inputs": (
            "With standardized inputs the same batches train: the range of the data is the cause.",
            NORMALIZED,
        ),
    }
)
