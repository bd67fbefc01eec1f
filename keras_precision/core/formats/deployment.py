"""DeploymentPrecision: the number format of a deployed layer, and the file formats that support it."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = [
    "DEPLOYMENT_PRECISIONS",
    "FILE_FORMATS",
    "DeploymentPrecision",
    "activation_precision",
    "supported_precisions",
]

FILE_FORMATS = ("tflite", "onnx", "openvino", "coreml")


@dataclass(frozen=True)
class DeploymentPrecision:
    """One number format of a deployment plan: weights and activations side by side.

    Attributes:
        name: Its name in plans.
        weight_bits: Bits of a weight in the file.
        activation_bits: Bits of the activations that weights are multiplied by.
        activation_type: NumPy's name of the activations' dtype, also at inputs and outputs.
        needs_ranges: Whether activations are quantized statically, with calibrated ranges.
        without_weights: The precision of operators without weights.
        file_formats: The file formats that support it.
    """

    name: str
    weight_bits: int
    activation_bits: int
    activation_type: str = "float32"
    needs_ranges: bool = False
    without_weights: str = "float32"
    file_formats: tuple[str, ...] = FILE_FORMATS

    @property
    def bits_per_product(self) -> int:
        """Bit operations of one multiply-accumulate."""
        return self.weight_bits * self.activation_bits

    @property
    def largest_weight(self) -> int:
        """The largest integer of a weight: weights are symmetric around zero, as TensorFlow Lite specifies them.

        https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec
        """
        return int(2 ** (self.weight_bits - 1) - 1)


DEPLOYMENT_PRECISIONS: Mapping[str, DeploymentPrecision] = MappingProxyType(
    {
        precision.name: precision
        for precision in (
            DeploymentPrecision("float32", 32, 32),
            # Weights are widened at run time: an operator without any stays in float32.
            DeploymentPrecision("float16", 16, 32),
            DeploymentPrecision("int8", 8, 8, "int8", needs_ranges=True, without_weights="int8"),
            DeploymentPrecision(
                "int16x8", 8, 16, "int16", needs_ranges=True, without_weights="int16x8", file_formats=("tflite",)
            ),
            DeploymentPrecision(
                "int4", 4, 8, "int8", needs_ranges=True, without_weights="int8", file_formats=("tflite",)
            ),
            DeploymentPrecision("int8_dynamic", 8, 8, file_formats=("tflite",)),
        )
    }
)
"""Name to precision. A new one is a row here, and a rule in ``quantization/post_training.py`` that writes it."""


def activation_precision(name: str) -> str:
    """Return the precision of operators without weights next to a layer of precision ``name``."""
    return DEPLOYMENT_PRECISIONS[name].without_weights


def supported_precisions(file_format: str) -> tuple[str, ...]:
    """Return the precisions that a file format, one of ``FILE_FORMATS``, supports."""
    return tuple(name for name, precision in DEPLOYMENT_PRECISIONS.items() if file_format in precision.file_formats)
