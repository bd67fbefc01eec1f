"""Request: what a file is asked to be, checked before any work is done."""

from dataclasses import dataclass

from keras_precision.core.errors import InputError
from keras_precision.core.formats.deployment import DEPLOYMENT_PRECISIONS
from keras_precision.core.plan import PrecisionPlan, check_precision
from keras_precision.quantization.equalization import check_equalization
from keras_precision.quantization.range_estimators import check_method
from keras_precision.runtimes.tflite.kernel_support import check_runtime

__all__ = ["ENGINES", "Request", "side_type", "wanted_plan"]

ENGINES = ("auto", "aeq", "converter")


@dataclass(frozen=True)
class Request:
    """What ``export_tflite`` is asked for, apart from the model and its data.

    Attributes:
        plan: A deployment plan.
        io: Element type of inputs and outputs.
        calibration: How ranges are chosen.
        percentile: For the method of that name.
        bias_correction: Whether the mean error of quantized weights is taken out of the biases.
        cross_layer_equalization: Whether channels are scaled so that weights reach alike on both sides of them.
        engine: One of ``ENGINES``.
        runtime: What the file is to run on.
        strict: Whether operators under the plan's default must be honoured, too.
    """

    plan: PrecisionPlan
    io: str
    calibration: str = "mse"
    percentile: float = 99.99
    bias_correction: bool = True
    cross_layer_equalization: bool = False
    engine: str = "auto"
    runtime: str = "litert"
    strict: bool = False

    def __post_init__(self) -> None:
        """Check what the type of each field cannot say."""
        check_method(self.calibration, self.percentile, auto=True)
        check_runtime(self.runtime)
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
        """Whether the converter's float file is all that is asked for."""
        return self.precisions == {"float32"} or self.precisions == {"float16"}

    @property
    def needs_ranges(self) -> bool:
        """Whether activations become integers before the model runs."""
        return any(DEPLOYMENT_PRECISIONS[name].needs_ranges for name in self.precisions)


def wanted_plan(plan: str | PrecisionPlan) -> PrecisionPlan:
    """Return the deployment plan that is meant.

    Args:
        plan: A plan, or the precision of every layer.

    Returns:
        The plan.

    Raises:
        UnknownPrecisionError: The precision is no deployment precision.
        PlanKindError: It is a training plan.
    """
    if not isinstance(plan, PrecisionPlan):
        check_precision(plan, "deployment", "the plan")
        plan = PrecisionPlan.deployment(plan)
    return plan.expect("deployment")


def side_type(io: str | None, plan: PrecisionPlan) -> str:
    """Return the element type of inputs and outputs.

    Args:
        io: What was asked for; None for that of the plan's default activations.
        plan: A deployment plan.

    Returns:
        ``"int8"``, ``"int16"`` or ``"float32"``.

    Raises:
        InputError: The type is unknown, or not one of such a file.
    """
    own = DEPLOYMENT_PRECISIONS[plan.default].activation_type
    allowed = list(dict.fromkeys([own, "float32"]))
    if io is not None and io not in allowed:
        raise InputError(
            f"Expected io to be {' or '.join(repr(each) for each in allowed)} for a plan whose default is {plan.default}. Received: {io!r}."
        )
    return io or own
