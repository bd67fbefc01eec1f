"""FileMaker: the quantized file of any plan of a model, in memory and in milliseconds."""

from typing import Any

from keras_precision.core.plan import PrecisionPlan
from keras_precision.export.candidate import read_back
from keras_precision.export.request import side_type
from keras_precision.quantization.bias_correction import corrected
from keras_precision.quantization.calibration import Calibration
from keras_precision.quantization.format_assignment import assigned, assigned_ranges
from keras_precision.quantization.layer_trace import layers_of
from keras_precision.quantization.post_training import Job, by_quantizer

__all__ = ["FileMaker"]


class FileMaker:
    """Makes files as ``kp.export_tflite(..., engine="aeq")`` does, without writing and checking each.

    What does not depend on the plan is done once: the float file, the ranges, the layers of each operator.

    Args:
        calibration: What the activations of the model look like.
        method: How ranges are chosen from it.

    Attributes:
        method: That.
        operators: The operators of the float file.
        layers: The layers that each of them computes.
        paths: All layer paths of the model.
    """

    def __init__(self, calibration: Calibration, method: str = "mse") -> None:
        source = calibration.float_file
        plain = read_back(source.content)
        self.operators = plain.operators
        self.layers = layers_of(plain, source.trace)
        self.paths = source.trace.paths
        self.float_content = source.content
        self.method = method
        self._calibration = calibration
        self._chosen = calibration.ranges(method)
        self._full = calibration.ranges("minmax")

    def __call__(self, plan: PrecisionPlan) -> bytes:
        """Return the file of a plan.

        Args:
            plan: A deployment plan.

        Returns:
            The content of a ``.tflite`` file for one sample, without a card inside.

        Raises:
            PlanError: The plan wants two formats for layers that are one operator.
            ExportError: The quantizer failed.
        """
        formats = assigned(self.operators, self.layers, plan)
        if set(formats) == {"float32"}:
            return self.float_content
        ranges: dict[str, Any] = assigned_ranges(self.operators, formats, self._chosen, self._full)
        content = corrected(self.float_content, formats, self._calibration)
        return by_quantizer(Job(content, formats, ranges, side_type(None, plan)))
