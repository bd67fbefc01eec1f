"""explain_drop: accuracy drop per class of a quantized file, its most sensitive layers, and the plan that recovers."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision._adapters import adapter_of
from keras_precision._adapters.data.labels import read_labelled
from keras_precision.core.environment import Environment, usable_cores
from keras_precision.core.errors import DataError, ExportError, FileFormatError, InputError, PlanError
from keras_precision.core.plan import PrecisionPlan, check_precision
from keras_precision.core.result import Measurement, Result
from keras_precision.explain.channel_recovery import ChannelRecovery
from keras_precision.explain.layer_sensitivity import PlanEvaluator, evenly_spaced
from keras_precision.explain.prediction_changes import ReferencePredictions
from keras_precision.explain.recovery import DropStudy, Recovery
from keras_precision.export.default_export import DefaultExport
from keras_precision.export.tflite import export_tflite
from keras_precision.quantization.calibration import Calibration, calibrate
from keras_precision.runtimes.card import card
from keras_precision.runtimes.tflite.file import inspect
from keras_precision.runtimes.tflite.in_memory import interleaved_latencies, predict_in_memory

__all__ = ["explain_drop"]

Array = npt.NDArray[Any]

_SAMPLES = 1024


def explain_drop(
    model: Any,
    path: str | os.PathLike[str],
    x: Any,
    y: Any = None,
    representative_dataset: Any = None,
    *,
    slices: Mapping[str, npt.ArrayLike] | None = None,
    win_back: float = 0.75,
    keep: str = "float32",
    tolerance: float = 0.1,
    samples: int = _SAMPLES,
    verbose: bool | None = None,
) -> Result:
    """Explain the accuracy drop of a quantized file: groups of samples, most sensitive layers, and a recovery plan.

    The file is compared with the float model. A calibration on other data is named first, if a calibration on these samples
    alone recovers the predictions, and then integer inputs and outputs that change them with every layer in float. Every
    layer is evaluated in two files: one in float with only this layer quantized, and one of the same plan with only this
    layer in float. Last, layers are put in float one after the other, the most sensitive first, until enough predictions
    are recovered, or the last layers alone, for channels that are lost in the scale of others. All files are as exported.

    Args:
        model: The exported model, with the weights of the export; it has one output.
        path: A ``.tflite`` file that ``kp.export_tflite`` wrote: its card holds the plan.
        x: Samples, as for ``kp.evaluate``; those of a dataset bring their labels.
        y: Labels: class numbers, one-hot, or numbers; None to count changes only.
        representative_dataset: As for ``kp.calibrate``, or what that returned; None: ``x``.
        slices: Name to a boolean mask of samples, of shape (n,).
        win_back: The share of the changed predictions that the plan must recover.
        keep: The precision of recovered layers: ``"float32"``, or ``"int16x8"`` where all must be integers.
        tolerance: Of a regression: a prediction off by more standard deviations of its channel counts as changed.
        samples: The most samples for the evaluation of layers, evenly spaced; groups are evaluated on all.
        verbose: Whether to draw a progress bar; None: where it takes long, on a terminal.

    Returns:
        For ``all``, every ``class``, and every ``slice``: ``samples``, ``changed_samples``, and with labels
        ``lost_samples``, ``won_samples``, ``float_accuracy``, ``accuracy`` and the exact McNemar ``p_value``. For every
        layer, the most sensitive first: ``changed_lowered_alone`` and ``changed_kept_alone`` (shares),
        ``divergence_lowered_alone``, ``divergence_only_layer_in_float``, ``size_kept_alone`` and the ``p_value`` of the
        difference that the layer makes. For the ``whole plan``, made again, for ``calibration``, if that is the cause, and for
        every recovery step (``keep 1: head``): ``changed_share``, ``size_bytes``. For ``plan``: the figures of ``all`` and
        ``latency_ratio`` to the file, measured on the exported file. For every changed sample, ``changed_answer``. For every
        channel of numbers: ``channel_snr_db``, ``channel_spread``; if one is lost, ``channel_snr_with_plan_db``. The plan
        is the one that recovers the requested share, or the best of the steps, as the notes then say.

    Raises:
        FileFormatError: The file is damaged, or has no card.
        InputError: A share or count is out of range, or the calibration and the file are not both equalized.
        PlanError: The file's plan quantizes no layer with weights.
        DataError: Data are missing, or do not fit the model, or the model has several outputs.
        ModelError: The model is subclassed or not built.
        ExportError: It cannot be converted.
        MissingExtraError: TensorFlow, AI Edge Quantizer or the interpreter is not installed.

    Example:
        >>> import keras_precision as kp
        >>> written = kp.export_tflite(model, "model.tflite", "int8", x_cal)
        >>> result = explain_drop(model, "model.tflite", x_test, y_test)
        >>> result.plan.default
        'int8'
    """
    _check(win_back, tolerance, samples, keep)
    metadata = card(path)
    plan = _quantizing_plan(metadata.plan, path)
    x, y = _arrays(model, path, x, y)
    masks = _masks(slices or {}, len(next(iter(x.values()))))
    equalized = bool(metadata.select("equalized_pairs"))
    data = x if representative_dataset is None else representative_dataset
    source = _calibration_of(model, data, equalized=equalized)
    export, threads = DefaultExport(model, source), usable_cores()
    reference = ReferencePredictions.of(predict_in_memory(source.float_file.content, x, threads)[0], y, tolerance)
    other = predict_in_memory(Path(path).read_bytes(), _with_file_names(x, path), threads)[0]
    few, numbers = evenly_spaced(x, samples)
    evaluator = PlanEvaluator(export, plan, few, reference.without_labels(numbers), threads, keep)
    study = DropStudy(model, evaluator, reference.changed(other)[numbers], keep, win_back)
    fresh = None if representative_dataset is None else partial(_calibration_of, model, few, equalized=equalized)
    outcome = study.recover(fresh, verbose)
    channels = ChannelRecovery(outcome.evaluator, x, reference.reference, keep, threads)
    return _result(study, outcome, [*reference.rows(other, masks)], Path(path), few, reference, channels, other)


def _result(
    study: DropStudy,
    outcome: Recovery,
    rows: list[Measurement],
    path: Path,
    few: Mapping[str, Array],
    reference: ReferencePredictions,
    channels: ChannelRecovery,
    explained: Array,
) -> Result:
    """Export the plan of a recovery, and return its figures with those of groups and layers."""
    outcome = channels.extended(outcome, explained, study.limit(outcome.base))
    chosen, file = _exported(study.model, outcome)
    predictions = predict_in_memory(file, channels.samples, usable_cores())[0]
    rows += [*reference.single_samples(explained), *outcome.rows(), *channels.rows(explained, predictions)]
    rows += _plan_rows(file, predictions, path.read_bytes(), _with_file_names(few, path), reference)
    samples = outcome.evaluator.export.calibration.samples
    sources = {
        "changed_kept_alone": f"files of one calibration of {samples} samples, run on {len(study.changes)} samples",
        "latency_ratio": "medians of 40 calls of the two files in turn, on one thread",
    }
    environment = Environment.here(backend=inspect(path).runtime, sources=sources)
    return Result(f"drop of {path.name}", tuple(rows), environment, chosen, tuple(outcome.notes(study)))


def _check(win_back: float, tolerance: float, samples: int, keep: str) -> None:
    check_precision(keep, "deployment", "keep")
    if not 0 <= win_back <= 1 or tolerance <= 0 or samples < 1:
        raise InputError(
            f"Expected win_back between 0 and 1, tolerance above 0 and samples >= 1. Received: {win_back}, {tolerance} and {samples}."
        )


def _quantizing_plan(plan: PrecisionPlan | None, path: str | os.PathLike[str]) -> PrecisionPlan:
    """Return the plan of the file, which must quantize something, with the type of its inputs and outputs."""
    if plan is None:
        raise FileFormatError(
            f"{path}: expected a card with the plan of the file. Received: one without. Export it with kp.export_tflite."
        )
    if {plan.default, *plan.layers.values()} <= {"float32"}:
        raise PlanError(
            f"Expected a file in a lower precision than float32. Received: '{path}', which is all in float32. "
            "Pass a quantized file."
        )
    model = inspect(path)
    in_float = all(tensor.dtype == "float32" for tensor in (*model.inputs, *model.outputs))
    return replace(plan, io="float32") if in_float and plan.io_type != "float32" else plan  # cards of before lack it


def _arrays(model: Any, path: str | os.PathLike[str], x: Any, y: Any) -> tuple[dict[str, Array], Any]:
    """Return samples by input name, and labels."""
    count = len(inspect(path).outputs)
    if count != 1:
        raise DataError(f"Expected a model with one output. Received: '{model.name}' with {count}.")
    return read_labelled(x, y, adapter_of(model).inputs(model))


def _with_file_names(samples: Mapping[str, Array], path: str | os.PathLike[str]) -> dict[str, Array]:
    """Return samples by the model's input names and by the file's: Keras renames unnamed inputs when it loads a model."""
    names = [tensor.name for tensor in inspect(path).inputs]
    renamed = {} if set(names) == set(samples) else dict(zip(names, samples.values(), strict=True))
    return {**samples, **renamed}


def _masks(slices: Mapping[str, npt.ArrayLike], count: int) -> dict[str, Array]:
    masks = {}
    for name, members in slices.items():
        array = np.asarray(members)
        if array.shape != (count,) or array.dtype != bool:
            raise DataError(
                f"Expected truth values of shape ({count},) for the slice '{name}'. Received: {array.dtype} of shape {array.shape}."
            )
        masks[name] = array
    return masks


def _calibration_of(model: Any, data: Any, *, equalized: bool) -> Calibration:
    if not isinstance(data, Calibration):
        samples = tuple(data.values()) if isinstance(data, dict) else data
        return calibrate(model, samples, cross_layer_equalization=equalized)
    if (data.float_file.equalized_pairs is not None) != equalized:
        raise InputError(
            f"Expected a calibration with cross_layer_equalization={equalized}, as in the export. Received: one of the other kind. "
            "Pass that of the export, or samples."
        )
    return data.expect(model)


def _exported(model: Any, outcome: Recovery) -> tuple[PrecisionPlan, bytes]:
    """Return the best plan that ``kp.export_tflite`` carries out, with the file that it writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.tflite"
        for plan in outcome.plans()[:-1]:
            try:
                export_tflite(model, path, plan, outcome.evaluator.export.calibration)
            except (ExportError, PlanError):
                continue  # the next best plan
            return plan, path.read_bytes()
        plan = outcome.plans()[-1]  # that of the file, which was exported before
        export_tflite(model, path, plan, outcome.evaluator.export.calibration)
        return plan, path.read_bytes()


def _plan_rows(
    file: bytes,
    predictions: Array,
    explained: bytes,
    few: Mapping[str, Array],
    reference: ReferencePredictions,
) -> Iterator[Measurement]:
    """Yield the quality of the recovery plan's exported file on all samples, and its size and latency against the file."""
    yield from reference.group("plan", np.ones(len(predictions), bool), predictions)
    yield Measurement("plan", "size_bytes", len(file))
    own, usual = interleaved_latencies([file, explained], few)
    yield Measurement("plan", "latency_ratio", own / usual)
