"""quantize_aware and from_quantize_aware: prepare a model for quantization-aware training, and restore a plain one."""

from typing import Any, Literal

from keras_precision._adapters.model_view import ModelView
from keras_precision.core.errors import InputError, ModelError
from keras_precision.core.plan import PrecisionPlan, check_precision
from keras_precision.core.system.optional import available, require
from keras_precision.quantization.qat.schedule import Settings

__all__ = ["from_quantize_aware", "quantize_aware"]

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

    Weights and activations are fake-quantized in the forward pass, exactly where the file
    quantizes them, and gradients pass the rounding. The copy is a normal Keras model: compile and fit it
    with any callback, save and load it, then pass it to ``kp.export_tflite``, which uses its
    ranges. The copy of a compiled model is compiled, with a new optimizer (``"tfmot"``: only of tf_keras).

    Args:
        model: A built functional or sequential model. It does not change.
        plan: ``"int8"``, ``"int4"`` (4-bit weights, 8-bit activations), or a deployment plan of
            these and ``"float32"``.
        engine: ``"keras"``, on any backend of Keras 3; ``"tfmot"``, TensorFlow Model Optimization, on
            a model of tf_keras or one rebuilt there, only in int8 and with none of the settings
            below; ``"auto"``: the first for Keras 3, the second for tf_keras.
        representative_dataset: Samples that initialize the ranges of activations, as for
            ``kp.calibrate``, or a calibration; None to start with the first batch. Where a batch
            normalization was never trained, averaged and learned ranges always start with that. Where
            no layer follows an activation, the copy holds some samples, given or of training, also in its file.
        ranges: ``"average"`` (moving averages of the extremes of batches), ``"learned"`` (by
            gradients) or ``"fixed"`` (the initial ranges).
        calibration: The method for the initial ranges, as for ``kp.export_tflite``.
        start_after: Training steps before quantization starts: train, then quantize.
        freeze_after: Training steps after which averaged ranges do not change.
        freeze_norm_after: Training steps after which batch normalizations use their moving
            statistics, and do not update them.

    Returns:
        The quantization-aware model, with the same weights, inputs and outputs; with ``"tfmot"`` it is
        a model of tf_keras.

    Raises:
        ModelError: The model is subclassed, not built, already quantized, or has a layer without a
            rule or a ``get_config``.
        PlanError: The plan quantizes nothing, or names a format that cannot be trained for.
        InputError: The engine is unknown, or a setting out of range.
        DataError: The representative data do not fit the model.
        MissingExtraError: TensorFlow, whose converter determines which layers become one kernel, or
            TensorFlow Model Optimization, where that is the engine, is not installed.

    Example:
        >>> aware = quantize_aware(model, "int8", representative_dataset=x_cal)
        >>> aware.compile("adam", "sparse_categorical_crossentropy")
        >>> from_quantize_aware(aware).count_params() == model.count_params()
        True
    """
    settings = Settings(ranges, calibration, start_after, freeze_after, freeze_norm_after)
    settings.check_data(representative_dataset)
    deployment_plan = _deployment_plan(plan)
    view = ModelView.of_built(model)
    if view.is_quantize_aware or view.is_tfmot:
        raise ModelError(
            f"Expected a model in float. Received: '{model.name}', which is quantization-aware already. "
            "Train it, or restore a plain model first: kp.from_quantize_aware(model)."
        )
    if _engine(engine, view.adapter.keras.__name__) == "tfmot":
        if settings != Settings():
            raise InputError(
                "Expected no settings of ranges and schedules with engine='tfmot', whose ranges average by themselves. "
                f"Received: {settings}. Leave them out, or train with engine='keras'."
            )
        if not available("tensorflow_model_optimization"):  # _tools imports it, and restores the environment
            require("tensorflow_model_optimization", extra="qat")
        from keras_precision.quantization.qat.tfmot_engine import quantize_with_tfmot

        return quantize_with_tfmot(model, deployment_plan, representative_dataset)
    from keras_precision.quantization.qat.keras3_engine import quantize_with_keras

    return quantize_with_keras(model, deployment_plan, representative_dataset, settings)


def from_quantize_aware(model: Any) -> Any:
    """Return the plain model of a quantization-aware one.

    Args:
        model: A model that ``quantize_aware`` returned, trained or not.

    Returns:
        A model in float, with the trained weights, not compiled, of the Keras version of the original.

    Raises:
        ModelError: The model is not quantization-aware, or TensorFlow Model Optimization has prepared
            it in another process.

    Example:
        >>> aware = quantize_aware(model)
        >>> [layer.name for layer in from_quantize_aware(aware).layers] == [layer.name for layer in model.layers]
        True
    """
    view = ModelView.of(model)
    if view.is_tfmot:
        from keras_precision.quantization.qat.tfmot_engine import restore_from_tfmot

        return restore_from_tfmot(model)
    if not view.is_quantize_aware:
        raise ModelError(
            f"Expected a quantization-aware model. Received: '{model.name}', none of whose layers is. "
            "Prepare it first: kp.quantize_aware(model)."
        )
    from keras_precision.quantization.qat.layers.model_surgery import unwrap_layers

    return unwrap_layers(view.adapter, model)


def _engine(engine: str, keras: str) -> str:
    if engine not in ("auto", "keras", "tfmot"):
        raise InputError(f"Expected engine to be 'auto', 'keras' or 'tfmot'. Received: {engine!r}.")
    if engine == "keras" and keras == "tf_keras":
        raise ModelError(
            "Expected a model of Keras 3 for engine='keras'. Received: one of tf_keras. Use engine='tfmot'."
        )
    return ("tfmot" if keras == "tf_keras" else "keras") if engine == "auto" else engine


def _deployment_plan(plan: str | PrecisionPlan) -> PrecisionPlan:
    if not isinstance(plan, PrecisionPlan):
        check_precision(plan, "deployment", "the plan")
        plan = PrecisionPlan.deployment(plan)
    return plan.expect("deployment")
