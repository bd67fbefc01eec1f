"""ExportRequest: the arguments of an export, checked before any work is done."""

from dataclasses import dataclass

from keras_precision.core.errors import InputError
from keras_precision.core.formats.deployment import DEPLOYMENT_PRECISIONS
from keras_precision.core.plan import PrecisionPlan, check_precision
from keras_precision.quantization.equalization import check_equalization
from keras_precision.quantization.range_estimators import check_method
from keras_precision.quantization.weight_rounding import Rounding, check_rounding
from keras_precision.runtimes.tflite.kernel_support import check_runtime

__all__ = ["ENGINES", "ExportRequest", "deployment_plan", "needs_ranges"]

ENGINES = ("auto", "aeq", "converter")


@dataclass(frozen=True)
class ExportRequest:
    """The arguments of an export to any format, apart from the model, its data and the path.

    Attributes:
        plan: A deployment plan.
        calibration: Method that chooses ranges.
        percentile: For the method of that name.
        bias_correction: Whether the mean error of quantized weights is subtracted from biases.
        rounding: One of ``ROUNDINGS``.
        per_channel: Whether dense layers have one scale for each output; None: unless that costs memory on ``runtime``.
        cross_layer_equalization: Whether weight ranges are equalized across layers.
        engine: One of ``ENGINES``.
        runtime: The TensorFlow Lite runtime that is to run the file.
        strict: Whether operators under the plan's default must be honoured, too.
        plan_given: Whether the caller chose the plan; else a quantization-aware model is exported as it was trained.
    """

    plan: PrecisionPlan
    calibration: str = "mse"
    percentile: float = 99.99
    bias_correction: bool = True
    cross_layer_equalization: bool = False
    engine: str = "auto"
    runtime: str = "litert"
    strict: bool = False
    plan_given: bool = True
    rounding: Rounding = "auto"
    per_channel: bool | None = None

    def __post_init__(self) -> None:
        """Check what types cannot say."""
        check_method(self.calibration, self.percentile, auto=True)
        check_runtime(self.runtime)
        check_rounding(self.rounding)
        if self.per_channel not in (None, True, False):
            raise InputError(f"Expected per_channel to be True, False or None. Received: {self.per_channel!r}.")
        if self.engine not in ENGINES:
            raise InputError(f"Expected engine to be one of {', '.join(ENGINES)}. Received: {self.engine!r}.")
        check_equalization(self.cross_layer_equalization)
        if self.cross_layer_equalization and not self.precisions - {"float32", "float16"}:
            raise InputError(
                f"Expected a plan with integers for cross_layer_equalization. Received: {self.plan.default} throughout. Leave it out."
            )

    @property
    def precisions(self) -> set[str]:
        """All precisions of the plan."""
        return {self.plan.default, *self.plan.layers.values()}

    @property
    def plain(self) -> bool:
        """Whether the converter's float file is the requested one."""
        return self.precisions in ({"float32"}, {"float16"})


def needs_ranges(plan: PrecisionPlan) -> bool:
    """Whether a plan has activations that become integers before the model runs."""
    return any(DEPLOYMENT_PRECISIONS[name].needs_ranges for name in (plan.default, *plan.layers.values()))


def deployment_plan(plan: str | PrecisionPlan) -> PrecisionPlan:
    """Return a deployment plan from a plan or the precision of all layers; raise for any other."""
    if not isinstance(plan, PrecisionPlan):
        check_precision(plan, "deployment", "the plan")
        plan = PrecisionPlan.deployment(plan)
    return plan.expect("deployment")
