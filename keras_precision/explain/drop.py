"""explain_drop: whom a quantized file hurts, which layers are to blame, and the plan that wins the answers back."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from keras_precision._adapters import adapter_of
from keras_precision._adapters.data.labels import joined, stream_labelled
from keras_precision._adapters.data.samples import at_once, read_samples
from keras_precision._adapters.layer_paths import layer_paths
from keras_precision.core.environment import Environment, usable_cores
from keras_precision.core.errors import DataError, FileFormatError, InputError, PlanError
from keras_precision.core.plan import PrecisionPlan, check_precision
from keras_precision.core.result import Measurement, Result
from keras_precision.core.system.progress import progress
from keras_precision.explain.answer_changes import Judge
from keras_precision.explain.layer_blame import Bench, Blame, Outcome, Step, evenly, order_of
from keras_precision.export.plan_compiler import FileMaker
from keras_precision.export.plan_space import Unit
from keras_precision.export.units import find_space
from keras_precision.quantization.calibration import Calibration, calibrate
from keras_precision.runtimes.card import card
from keras_precision.runtimes.tflite.file import inspect
from keras_precision.runtimes.tflite.in_memory import answers, relative_latency

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
    """Tell whom a quantized file hurts, which layers are to blame, and what it takes to win the answers back.

    The file is run beside the float model. Then each layer alone is lowered in a float file, and each
    alone is kept in float in a file of the same plan: files of their own, made in memory from one
    calibration, and run. Last, layers are kept in float one after the other, those that help most
    first, until enough of the changed answers are as the float model's.

    Args:
        model: The model that the file was made from, with the weights that it had; it has one output.
        path: A ``.tflite`` file that ``kp.export_tflite`` wrote: its card says its plan.
        x: Samples, as for ``kp.evaluate``; those of a dataset bring their labels.
        y: Labels: class numbers, one-hot, or numbers; None where only changes are asked for.
        representative_dataset: As for ``kp.calibrate``, or what that returned; None: ``x``.
        slices: Name to which samples belong to it: truth values of shape (n,).
        win_back: The share of the changed answers that the plan must win back.
        keep: What layers are kept in: ``"float32"``, or ``"int16x8"`` where all must be integers.
        tolerance: Of a regression: by how many standard deviations of the float model's answers an
            answer must be off to count as changed.
        samples: How many the layers are judged on at most, evenly spread; the groups are of all.
        verbose: Whether to draw a progress bar; None: where it takes long, on a terminal.

    Returns:
        For ``all``, each ``class``, and each ``slice``: ``samples``, ``changed_samples``, and with
        labels ``lost_samples``, ``won_samples``, ``float_accuracy``, ``accuracy`` and the exact
        McNemar ``p_value``. For each layer, the first to blame first: ``changed_lowered_alone`` and
        ``changed_kept_alone`` (shares), ``divergence_lowered_alone``, ``divergence_only_layer_in_float`` and
        ``size_kept_alone``. For the ``whole plan`` made anew, and each step of winning back (``keep
        1: head``): ``changed_share``, ``size_bytes``. For ``plan``: the same, and ``latency_ratio`` to the file. For each changed
        sample, ``changed_answer``. The result's plan is the one that wins the answers back, or the
        best that was found, as the notes then say.

    Raises:
        FileFormatError: The file is damaged, or has no card.
        InputError: A share or count is out of range, or the calibration and the file are not both equalized.
        PlanError: The file's plan lowers no layer with weights.
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
    told = card(path)
    plan = _lowering(told.plan, path)
    x, y = _arrays(model, path, x, y)
    members = _members(slices or {}, len(next(iter(x.values()))))
    source = _calibration_of(
        model,
        x if representative_dataset is None else representative_dataset,
        equalized=bool(told.select("equalized_pairs")),
    )
    method = str(told.get("calibration_method") or "mse")
    threads = usable_cores()
    judge = Judge.of(answers(source.float_file.content, x, threads)[0], y, tolerance)
    other = answers(Path(path).read_bytes(), x, threads)[0]
    layers = _Layers(model, Path(path), plan, FileMaker(source, method), source, keep, win_back)
    rows = [*judge.rows(other, members), *judge.single_samples(other)]
    return _explained(layers, rows, x, judge, other, samples, verbose)


class _Layers(NamedTuple):
    """What is asked of the layers of a file."""

    model: Any
    path: Path
    plan: PrecisionPlan
    maker: FileMaker
    source: Calibration
    keep: str
    win_back: float

    def units(self) -> list[Unit]:
        """The layers with weights that the plan lowers, each with those that go with it."""
        weights = {name: int(layer.count_params()) for name, layer in layer_paths(self.model).items()}
        choices = tuple(dict.fromkeys([self.keep, *self.plan.layers.values(), self.plan.default]))
        found = find_space(self.maker, self.source.float_file.trace, weights, choices).units
        out = ("float32", self.keep)
        lowered = [u for u in found if self.plan.precision_of(u.paths[0]) not in out and self.keep in u.choices]
        if not lowered:
            raise PlanError(f"Expected a file with layers that could be kept in {self.keep}. Received: one without.")
        return lowered


def _explained(
    layers: _Layers,
    rows: list[Measurement],
    x: Mapping[str, Array],
    judge: Judge,
    other: Array,
    samples: int,
    verbose: bool | None,
) -> Result:
    """What the groups' rows say, with what the layers do."""
    plan, threads, file = layers.plan, usable_cores(), layers.path.read_bytes()
    few, kept = evenly(x, samples)
    seen = replace(judge, reference=judge.reference[kept], truth=None)
    bench = Bench(layers.maker, plan, few, seen, threads, layers.keep)
    blamed, steps, base = _files(bench, plan, layers.units(), layers.win_back, verbose)
    chosen = _chosen(plan, base, steps)
    rows += [row for each in blamed for row in each.rows()]
    rows += _step_rows(base, steps)
    rows += _plan_rows(bench, chosen, file, few, judge, answers(layers.maker(chosen), x, threads)[0])
    how = f"files of one calibration of {layers.source.samples} samples, run on {len(kept)} samples"
    environment = Environment.here(
        backend=inspect(layers.path).runtime,
        sources={"changed_kept_alone": how, "latency_ratio": "medians of 40 calls of each file in turn, on one thread"},
    )
    notes = tuple(_notes(base, blamed, steps, layers.win_back, int(judge.changed(other)[kept].sum())))
    return Result(f"drop of {layers.path.name}", tuple(rows), environment, chosen, notes)


def _check(win_back: float, tolerance: float, samples: int, keep: str) -> None:
    check_precision(keep, "deployment", "keep")
    if not 0 <= win_back <= 1 or tolerance <= 0 or samples < 1:
        raise InputError(
            f"Expected win_back between 0 and 1, tolerance above 0 and samples >= 1. Received: {win_back}, {tolerance} and {samples}."
        )


def _lowering(plan: PrecisionPlan | None, path: str | os.PathLike[str]) -> PrecisionPlan:
    """The plan of the file, which must lower something."""
    if plan is None:
        raise FileFormatError(f"{path}: expected a card with the plan of the file. Received: one without.")
    if {plan.default, *plan.layers.values()} <= {"float32"}:
        raise PlanError(
            f"Expected a file in a lower precision than float32. Received: '{path}', which is all in float32."
        )
    return plan


def _arrays(model: Any, path: str | os.PathLike[str], x: Any, y: Any) -> tuple[dict[str, Array], Any]:
    """Samples by input name, and labels."""
    count = len(inspect(path).outputs)
    if count != 1:
        raise DataError(f"Expected a model with one output. Received: '{model.name}' with {count}.")
    inputs = adapter_of(model).inputs(model)
    if y is None and not at_once(x):
        pieces = list(stream_labelled(x, inputs))
        y = joined([labels for _, labels in pieces])
        x = tuple(np.concatenate(arrays) for arrays in zip(*(arrays for arrays, _ in pieces), strict=True))
    return read_samples(x, inputs), y


def _members(slices: Mapping[str, npt.ArrayLike], count: int) -> dict[str, Array]:
    found = {}
    for name, members in slices.items():
        array = np.asarray(members)
        if array.shape != (count,) or array.dtype != bool:
            raise DataError(
                f"Expected truth values of shape ({count},) for the slice '{name}'. Received: {array.dtype} of shape {array.shape}."
            )
        found[name] = array
    return found


def _calibration_of(model: Any, data: Any, *, equalized: bool) -> Calibration:
    if not isinstance(data, Calibration):
        given = tuple(data.values()) if isinstance(data, dict) else data
        return calibrate(model, given, cross_layer_equalization=equalized)
    if (data.float_file.equalized_pairs is not None) != equalized:
        raise InputError(
            f"Expected a calibration with cross_layer_equalization={equalized}, as the file was made. Received: one of the other kind. "
            "Pass that of the export, or samples."
        )
    return data.expect(model)


def _files(
    bench: Bench, plan: PrecisionPlan, units: list[Unit], win_back: float, verbose: bool | None
) -> tuple[list[Blame], list[Step], Outcome]:
    """What each layer does alone, in the order of blame; the steps of winning back; the whole plan."""
    with progress("explaining", "layers", 2 * len(units), verbose=verbose) as advance:
        base = bench.outcome(plan)
        found = []
        for unit in units:
            found.append(bench.blame(unit))
            advance(1)
        blamed = order_of(found)
        most = (1 - win_back) * base.changed
        steps = [] if base.changed == 0 else bench.won_back([each.unit for each in blamed], base.changed, most, advance)
    return blamed, steps, base


def _chosen(plan: PrecisionPlan, base: Outcome, steps: list[Step]) -> PrecisionPlan:
    """The plan of the last step, or of the one with the fewest changed answers; the file's own where none is better."""
    best = min(steps, key=lambda step: step.outcome.changed, default=None)
    return plan if best is None or best.outcome.changed >= base.changed else best.plan


def _step_rows(base: Outcome, steps: list[Step]) -> Iterator[Measurement]:
    yield Measurement("whole plan", "changed_share", base.share)
    yield Measurement("whole plan", "size_bytes", len(base.content))
    for number, step in enumerate(steps, 1):
        subject = f"keep {number}: {'' if number == 1 else '+ '}{step.unit.name}"
        yield Measurement(subject, "changed_share", step.outcome.share)
        yield Measurement(subject, "size_bytes", len(step.outcome.content))


def _plan_rows(
    bench: Bench, chosen: PrecisionPlan, file: bytes, few: Mapping[str, Array], judge: Judge, other: Array
) -> Iterator[Measurement]:
    """The plan that wins back, on all samples, and what it costs against the file."""
    found = bench.outcome(chosen)
    yield from judge.group("plan", np.ones(len(other), bool), other)
    yield Measurement("plan", "size_bytes", len(found.content))
    own, usual = relative_latency([found.content, file], few)
    yield Measurement("plan", "latency_ratio", own / usual)


def _notes(base: Outcome, blamed: list[Blame], steps: list[Step], win_back: float, changed: int) -> Iterator[str]:
    if base.changed == 0:
        yield "no answer of a file of this plan is changed: there is nothing to win back"
    elif len(steps) > 1 and len(steps) == len(blamed):
        yield "nothing less than keeping every layer wins so many answers back: look at the steps before"
    if steps and steps[-1].outcome.changed > (1 - win_back) * base.changed:
        best = min(step.outcome.changed for step in steps)
        yield (
            f"no set of layers kept in float wins back {100 * win_back:.0f} % of the {base.changed} changed answers: the best leaves {best}"
        )
    if base.changed != changed:
        yield (
            f"the files of single layers come from this calibration: one of the whole plan changes {base.changed} of the samples "
            f"that layers are judged on, the file itself {changed}"
        )
