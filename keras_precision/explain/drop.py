"""explain_drop: accuracy drop per class of a quantized file, its most sensitive layers, and the plan that recovers."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from keras_precision._adapters import adapter_of
from keras_precision._adapters.data.labels import read_labelled
from keras_precision._adapters.layer_paths import layer_paths
from keras_precision.core.environment import Environment, usable_cores
from keras_precision.core.errors import DataError, FileFormatError, InputError, PlanError
from keras_precision.core.plan import PrecisionPlan, check_precision
from keras_precision.core.result import Measurement, Result
from keras_precision.core.system.progress import progress
from keras_precision.explain.layer_sensitivity import (
    LayerEffect,
    PlanEvaluator,
    PlanQuality,
    RecoveryStep,
    by_sensitivity,
    evenly_spaced,
)
from keras_precision.explain.prediction_changes import ReferencePredictions
from keras_precision.export.plan_compiler import PlanCompiler
from keras_precision.export.plan_space import Unit
from keras_precision.export.units import find_space
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

    The file is compared with the float model. Then every layer is evaluated on its own, in two files: one in float with only
    this layer quantized, and one of the same plan with only this layer in float. These files are compiled in memory from one
    calibration, and run. Last, layers are put in float one after the other, the most sensitive first, until enough
    of the changed predictions equal the float model's again (greedy recovery).

    Args:
        model: The exported model, with the weights of the export; it has one output.
        path: A ``.tflite`` file that ``kp.export_tflite`` wrote: its card holds the plan.
        x: Samples, as for ``kp.evaluate``; those of a dataset bring their labels.
        y: Labels: class numbers, one-hot, or numbers; None to count changes only.
        representative_dataset: As for ``kp.calibrate``, or what that returned; None: ``x``.
        slices: Name to a boolean mask of samples, of shape (n,).
        win_back: The share of the changed predictions that the plan must recover.
        keep: The precision of recovered layers: ``"float32"``, or ``"int16x8"`` where all must be integers.
        tolerance: Of a regression: by how many standard deviations of the float model's predictions a prediction must be off
            to count as changed.
        samples: The most samples for the evaluation of layers, evenly spaced; groups are evaluated on all.
        verbose: Whether to draw a progress bar; None: where it takes long, on a terminal.

    Returns:
        For ``all``, every ``class``, and every ``slice``: ``samples``, ``changed_samples``, and with labels
        ``lost_samples``, ``won_samples``, ``float_accuracy``, ``accuracy`` and the exact McNemar ``p_value``. For every
        layer, the most sensitive first: ``changed_lowered_alone`` and ``changed_kept_alone`` (shares),
        ``divergence_lowered_alone``, ``divergence_only_layer_in_float`` and ``size_kept_alone``. For the ``whole plan``,
        compiled again, and every recovery step (``keep 1: head``): ``changed_share``, ``size_bytes``. For ``plan``: the
        same, and ``latency_ratio`` to the file. For every changed sample, ``changed_answer``. The result's plan is the
        one that recovers the requested share, or the best of the steps, as the notes then say.

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
        >>> result.value("changed_samples", "all")
        0
    """
    _check(win_back, tolerance, samples, keep)
    metadata = card(path)
    plan = _quantizing_plan(metadata.plan, path)
    x, y = _arrays(model, path, x, y)
    masks = _masks(slices or {}, len(next(iter(x.values()))))
    source = _calibration_of(
        model,
        x if representative_dataset is None else representative_dataset,
        equalized=bool(metadata.select("equalized_pairs")),
    )
    method = str(metadata.get("calibration_method") or "mse")
    threads = usable_cores()
    reference = ReferencePredictions.of(predict_in_memory(source.float_file.content, x, threads)[0], y, tolerance)
    other = predict_in_memory(Path(path).read_bytes(), x, threads)[0]
    layers = _LayerStudy(model, Path(path), plan, PlanCompiler(source, method), source, keep, win_back)
    rows = [*reference.rows(other, masks), *reference.single_samples(other)]
    return _explained(layers, rows, x, reference, other, samples, verbose)


class _LayerStudy(NamedTuple):
    """A file whose layers are evaluated, with the requested recovery."""

    model: Any
    path: Path
    plan: PrecisionPlan
    compiler: PlanCompiler
    source: Calibration
    keep: str
    win_back: float

    def units(self) -> list[Unit]:
        """Return the quantized layers with weights, together with those that share their operators."""
        weights = {name: int(layer.count_params()) for name, layer in layer_paths(self.model).items()}
        choices = tuple(dict.fromkeys([self.keep, *self.plan.layers.values(), self.plan.default]))
        units = find_space(self.compiler, self.source.float_file.trace, weights, choices).units
        high = ("float32", self.keep)
        quantized = [u for u in units if self.plan.precision_of(u.paths[0]) not in high and self.keep in u.choices]
        if not quantized:
            raise PlanError(
                f"Expected a file with quantized layers that could be in {self.keep}. Received: one without. "
                "Pass a file of a lower precision."
            )
        return quantized


def _explained(
    layers: _LayerStudy,
    rows: list[Measurement],
    x: Mapping[str, Array],
    reference: ReferencePredictions,
    other: Array,
    samples: int,
    verbose: bool | None,
) -> Result:
    """Return the groups' rows together with the effects of the layers and the recovery."""
    plan, threads, file = layers.plan, usable_cores(), layers.path.read_bytes()
    few, numbers = evenly_spaced(x, samples)
    few_predictions = replace(reference, reference=reference.reference[numbers], truth=None)
    evaluator = PlanEvaluator(layers.compiler, plan, few, few_predictions, threads, layers.keep)
    effects, steps, base = _evaluate_layers(evaluator, plan, layers.units(), layers.win_back, verbose)
    chosen = _chosen_plan(plan, base, steps)
    rows += [row for effect in effects for row in effect.rows()]
    rows += _step_rows(base, steps)
    rows += _plan_rows(
        evaluator, chosen, file, few, reference, predict_in_memory(layers.compiler(chosen), x, threads)[0]
    )
    how = f"files of one calibration of {layers.source.samples} samples, run on {len(numbers)} samples"
    environment = Environment.here(
        backend=inspect(layers.path).runtime,
        sources={
            "changed_kept_alone": how,
            "latency_ratio": "medians of 40 calls of the two files in turn, on one thread",
        },
    )
    notes = tuple(_notes(base, effects, steps, layers.win_back, int(reference.changed(other)[numbers].sum())))
    return Result(f"drop of {layers.path.name}", tuple(rows), environment, chosen, notes)


def _check(win_back: float, tolerance: float, samples: int, keep: str) -> None:
    check_precision(keep, "deployment", "keep")
    if not 0 <= win_back <= 1 or tolerance <= 0 or samples < 1:
        raise InputError(
            f"Expected win_back between 0 and 1, tolerance above 0 and samples >= 1. Received: {win_back}, {tolerance} and {samples}."
        )


def _quantizing_plan(plan: PrecisionPlan | None, path: str | os.PathLike[str]) -> PrecisionPlan:
    """Return the plan of the file, which must quantize something."""
    if plan is None:
        raise FileFormatError(
            f"{path}: expected a card with the plan of the file. Received: one without. Export it with kp.export_tflite."
        )
    if {plan.default, *plan.layers.values()} <= {"float32"}:
        raise PlanError(
            f"Expected a file in a lower precision than float32. Received: '{path}', which is all in float32. "
            "Pass a quantized file."
        )
    return plan


def _arrays(model: Any, path: str | os.PathLike[str], x: Any, y: Any) -> tuple[dict[str, Array], Any]:
    """Return samples by input name, and labels."""
    count = len(inspect(path).outputs)
    if count != 1:
        raise DataError(f"Expected a model with one output. Received: '{model.name}' with {count}.")
    return read_labelled(x, y, adapter_of(model).inputs(model))


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


def _evaluate_layers(
    evaluator: PlanEvaluator, plan: PrecisionPlan, units: list[Unit], win_back: float, verbose: bool | None
) -> tuple[list[LayerEffect], list[RecoveryStep], PlanQuality]:
    """Return the effects of the layers, the most sensitive first, the recovery steps, and the quality of the whole plan."""
    with progress("explaining", "layers", 2 * len(units), verbose=verbose) as advance:
        base = evaluator.evaluate(plan)
        effects = []
        for unit in units:
            effects.append(evaluator.effect(unit))
            advance(1)
        effects = by_sensitivity(effects)
        limit = (1 - win_back) * base.changed
        order = [effect.unit for effect in effects]
        steps = [] if base.changed == 0 else evaluator.greedy_recovery(order, base.changed, limit, advance)
    return effects, steps, base


def _chosen_plan(plan: PrecisionPlan, base: PlanQuality, steps: list[RecoveryStep]) -> PrecisionPlan:
    """Return the plan of the step with the fewest changed predictions, or the file's own where none is better."""
    best = min(steps, key=lambda step: step.quality.changed, default=None)
    return plan if best is None or best.quality.changed >= base.changed else best.plan


def _step_rows(base: PlanQuality, steps: list[RecoveryStep]) -> Iterator[Measurement]:
    yield Measurement("whole plan", "changed_share", base.share)
    yield Measurement("whole plan", "size_bytes", len(base.content))
    for number, step in enumerate(steps, 1):
        subject = f"keep {number}: {'' if number == 1 else '+ '}{step.unit.name}"
        yield Measurement(subject, "changed_share", step.quality.share)
        yield Measurement(subject, "size_bytes", len(step.quality.content))


def _plan_rows(
    evaluator: PlanEvaluator,
    chosen: PrecisionPlan,
    file: bytes,
    few: Mapping[str, Array],
    reference: ReferencePredictions,
    other: Array,
) -> Iterator[Measurement]:
    """Yield the quality of the recovery plan on all samples, and its size and latency against the file."""
    quality = evaluator.evaluate(chosen)
    yield from reference.group("plan", np.ones(len(other), bool), other)
    yield Measurement("plan", "size_bytes", len(quality.content))
    own, usual = interleaved_latencies([quality.content, file], few)
    yield Measurement("plan", "latency_ratio", own / usual)


def _notes(
    base: PlanQuality, effects: list[LayerEffect], steps: list[RecoveryStep], win_back: float, changed: int
) -> Iterator[str]:
    if base.changed == 0:
        yield "a file of this plan changes no prediction: there is nothing to recover"
    elif len(steps) > 1 and len(steps) == len(effects):
        yield "nothing less than every layer in float recovers so many predictions: look at the earlier steps"
    if steps and steps[-1].quality.changed > (1 - win_back) * base.changed:
        best = min(step.quality.changed for step in steps)
        yield (
            f"no set of layers in float recovers {100 * win_back:.0f} % of the {base.changed} changed predictions: the best leaves {best}"
        )
    if base.changed != changed:
        yield (
            f"the files of single layers come from this calibration: one of the whole plan changes {base.changed} of the samples "
            f"on which layers are evaluated, the file itself {changed}"
        )
