"""quantize_aware and from_quantize_aware: into quantization-aware training, and back."""

from typing import Any, Literal

from keras_precision._adapters import adapter_of
from keras_precision._adapters.layer_paths import layer_paths
from keras_precision.core.errors import InputError, ModelError
from keras_precision.core.plan import PrecisionPlan, check_precision
from keras_precision.core.system.optional import available, require
from keras_precision.quantization.qat.schedule import Settings
from keras_precision.quantization.qat.tfmot.registry import is_tfmot

__all__ = ["from_quantize_aware", "is_prepared", "is_quantize_aware", "quantize_aware"]

Engine = Literal["auto", "keras", "tfmot"]


def quantize_aware(
    model: Any,
    plan: str | PrecisionPlan = "int8",
    engine: Engine = "auto",
    representative_dataset: Any = None,
    *,
    ranges: Literal["average", "learned", "fixed"] = "average",
    calibration: str = "mse",
    start_after: int = 0,
    freeze_after: int | None = None,
    freeze_norm_after: int | None = None,
) -> Any:
    """Return a copy of a model that trains as its integer file will compute.

    Weights and activations are rounded to integer grids in the forward pass, exactly where the file
    rounds them, and gradients pass the rounding. The copy is a normal Keras model: compile and fit it
    with any callback, save and load it, then give it to ``kp.export_tflite``, which keeps its
    ranges. A compiled model gives a compiled copy with a new optimizer (``"tfmot"``: one of tf_keras does).

    Args:
        model: A built functional or sequential model. It is left as it is.
        plan: ``"int8"``, ``"int4"`` (4-bit weights, 8-bit activations), or a deployment plan that
            gives each layer one of these or ``"float32"``.
        engine: ``"keras"``, on any backend of Keras 3; ``"tfmot"``, TensorFlow Model Optimization, on
            a model of tf_keras or one rebuilt there, in int8 alone and with none of the settings
            below; ``"auto"``: the first for Keras 3, the second for tf_keras.
        representative_dataset: Samples to start the ranges of activations from, as for
            ``kp.calibrate``, or what that returned; None to start with the first batch. Where a batch
            normalization was never trained, averaged and learned ranges start with that anyway.
        ranges: ``"average"`` (moving averages of each batch's extremes), ``"learned"`` (by
            gradients) or ``"fixed"`` (as they start).
        calibration: How the start ranges are chosen, as for ``kp.export_tflite``.
        start_after: Training steps before anything is quantized: train, then quantize.
        freeze_after: Training steps after which averaged ranges stay as they are.
        freeze_norm_after: Training steps after which batch normalizations use, and keep, their
            moving statistics.

    Returns:
        The quantization-aware model, with the same weights, inputs and outputs; with ``"tfmot"`` it is
        a model of tf_keras.

    Raises:
        ModelError: The model is subclassed, not built, quantized already, or has a layer without a
            rule or a ``get_config``.
        PlanError: The plan leaves nothing quantized, or names a format that cannot be trained for.
        InputError: The engine is unknown, or a setting out of range.
        DataError: The representative data do not fit the model.
        MissingExtraError: TensorFlow, whose converter tells what becomes one kernel, is missing; or
            TensorFlow Model Optimization, where that is the engine.

    Example:
        >>> aware = quantize_aware(model, "int8", representative_dataset=x_cal)
        >>> aware.compile("adam", "sparse_categorical_crossentropy")
        >>> from_quantize_aware(aware).count_params() == model.count_params()
        True
    """
    settings = Settings(ranges, calibration, start_after, freeze_after, freeze_norm_after)
    settings.check_data(representative_dataset)
    decided = _wanted(plan)
    adapter = adapter_of(model)
    adapter.inputs(model)  # refuses what cannot be rebuilt
    if is_quantize_aware(model) or is_prepared(model):
        raise ModelError(
            f"Expected a model in float. Received: '{model.name}', which is quantization-aware already. "
            "Train it, or take kp.from_quantize_aware(model) first."
        )
    if _engine(engine, adapter.keras.__name__) == "tfmot":
        if settings != Settings():
            raise InputError(
                "Expected no settings of ranges and schedules with engine='tfmot', whose ranges average by themselves. "
                f"Received: {settings}. Leave them out, or train with engine='keras'."
            )
        if not available("tensorflow_model_optimization"):  # it is imported where its traces are removed
            require("tensorflow_model_optimization", extra="qat")
        from keras_precision.quantization.qat.tfmot_engine import quantized_by_tfmot

        return quantized_by_tfmot(model, decided, representative_dataset)
    from keras_precision.quantization.qat.keras3_engine import quantized_natively

    return quantized_natively(model, decided, representative_dataset, settings)


def from_quantize_aware(model: Any) -> Any:
    """Return the plain model that a quantization-aware one stands for.

    Args:
        model: What ``quantize_aware`` returned, trained or not.

    Returns:
        A model in float, with the trained weights, not compiled, of the Keras that it was made in.

    Raises:
        ModelError: The model is not quantization-aware, or TensorFlow Model Optimization has prepared
            it in another process.

    Example:
        >>> aware = quantize_aware(model)
        >>> [layer.name for layer in from_quantize_aware(aware).layers] == [layer.name for layer in model.layers]
        True
    """
    adapter = adapter_of(model)
    if is_prepared(model):
        from keras_precision.quantization.qat.tfmot_engine import without_tfmot

        return without_tfmot(model)
    if not is_quantize_aware(model):
        raise ModelError(
            f"Expected a quantization-aware model, as kp.quantize_aware returns it. Received: '{model.name}', in which no layer is."
        )
    from keras_precision.quantization.qat.layers.model_surgery import unwrapped

    return unwrapped(adapter, model)


def is_quantize_aware(model: Any) -> bool:
    """Tell whether a model was made for quantization-aware training.

    Args:
        model: A model of Keras 3 or tf_keras.

    Returns:
        True where one of its layers is wrapped.
    """
    return any(hasattr(layer, "stands_for") for layer in layer_paths(model).values())


def is_prepared(model: Any) -> bool:
    """Tell whether TensorFlow Model Optimization has prepared a model.

    Args:
        model: A model of Keras 3 or tf_keras.

    Returns:
        True where one of its layers is wrapped.
    """
    return any(is_tfmot(layer) for layer in layer_paths(model).values())


def _engine(engine: str, keras: str) -> str:
    if engine not in ("auto", "keras", "tfmot"):
        raise InputError(f"Expected engine to be 'auto', 'keras' or 'tfmot'. Received: {engine!r}.")
    if engine == "keras" and keras == "tf_keras":
        raise ModelError(
            "Expected a model of Keras 3 for engine='keras'. Received: one of tf_keras. Use engine='tfmot'."
        )
    return ("tfmot" if keras == "tf_keras" else "keras") if engine == "auto" else engine


def _wanted(plan: str | PrecisionPlan) -> PrecisionPlan:
    if not isinstance(plan, PrecisionPlan):
        check_precision(plan, "deployment", "the plan")
        plan = PrecisionPlan.deployment(plan)
    return plan.expect("deployment")
