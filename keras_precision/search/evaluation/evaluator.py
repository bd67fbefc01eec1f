"""Evaluator: the costs and predictions of a plan, measured on the file that its export writes."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from keras_precision._adapters.layer_paths import layer_paths
from keras_precision.core.environment import usable_cores
from keras_precision.core.formats.deployment import DEPLOYMENT_PRECISIONS
from keras_precision.core.plan import PrecisionPlan
from keras_precision.export.card import card_text, with_card
from keras_precision.export.default_export import DefaultExport
from keras_precision.export.plan_compiler import Candidate
from keras_precision.export.plan_space import Assignment, Space
from keras_precision.export.units import find_space
from keras_precision.quantization.calibration import Calibration, calibrate
from keras_precision.runtimes.tflite.in_memory import interleaved_latencies, predict_in_memory
from keras_precision.scoring.divergence import Outputs, mean_divergence, output_kind
from keras_precision.scoring.scores import predicted_classes
from keras_precision.search.evaluation.validation_set import ValidationSet

__all__ = ["Evaluation", "Evaluator", "prepare_evaluator"]

Array = npt.NDArray[Any]

_NAME = "a" * 32  # a placeholder for the file name in the card, which is unknown until the export
_WORTH_A_THREAD = 1e-3  # seconds per call; below that, the interpreter lock outweighs what threads gain
_ALIGNMENT = 32  # bytes by which the tables of a card may move
_MIN_AGREEMENT, _MAX_NOISE = 0.95, 10**-1.5  # noise of 15 dB; beyond these, predictions are not the model's any more


@dataclass(frozen=True)
class Evaluation:
    """The figures and predictions of a plan.

    Attributes:
        figures: ``size_bytes``, ``divergence``, ``bit_operations``, with labels the metric and ``metric_drop``, and
            ``latency_ms`` if it is measured.
        predictions: One array of shape (n, ...) per output.
    """

    figures: Mapping[str, float]
    predictions: Outputs = field(repr=False)


class Evaluator:
    """Makes, checks, runs and scores the file of any plan of a space.

    Attributes:
        reference: The predictions of the float file.
        reference_figures: Its size and score.
    """

    def __init__(
        self,
        export: DefaultExport,
        space: Space,
        validation: ValidationSet,
        *,
        latency: bool = False,
        threads: int = 1,
    ) -> None:
        self._export, self.space, self.validation = export, space, validation
        self._latency, float_content = latency, export.compiler.float_content
        start = time.perf_counter()
        self.reference = predict_in_memory(float_content, validation.samples)
        per_call = (time.perf_counter() - start) / validation.count
        self._threads = threads if per_call > _WORTH_A_THREAD else 1
        self._kinds = [output_kind(outputs) for outputs in self.reference]
        baseline = export.candidate(space.plan(space.start))
        self._baseline = baseline.content
        self._baseline_ms = interleaved_latencies([self._baseline], validation.samples)[0] if latency else None
        self._card_overhead = self._measure_card_overhead(baseline)
        self.reference_figures = {"size_bytes": float(len(float_content)), "divergence": 0.0}
        score, labels = validation.score, validation.labels
        if score is not None and labels is not None:
            self.reference_figures[score.name] = score.compute(labels, self.reference[0])

    @property
    def calibration(self) -> Calibration:
        """The calibration of the model."""
        return self._export.calibration

    def with_io(self, io: str) -> Self:
        """Return an evaluator of the same plans with another type of inputs and outputs."""
        space = replace(self.space, io=io)
        return type(self)(self._export, space, self.validation, latency=self._latency, threads=self._threads)

    def __call__(self, assignment: Assignment) -> Evaluation:
        """Evaluate a plan by its file; raises ``PlanNotHonouredError`` if the file does not follow the plan."""
        plan = self.space.plan(assignment)
        candidate = self._export.candidate(plan)
        return self.evaluate_file(candidate.content, assignment, self._size_with_card(plan, candidate))

    def evaluate_file(
        self,
        content: bytes,
        assignment: Assignment,
        size: int | None = None,
        *,
        samples: Mapping[str, Array] | None = None,
    ) -> Evaluation:
        """Evaluate a ``.tflite`` file for one sample.

        ``size`` is its size with a card, or None if the card is inside. ``samples`` are the validation samples by the
        file's input names, where these differ from the model's.
        """
        inputs = {**self.validation.samples, **(samples or {})}
        predictions = predict_in_memory(content, inputs, self._threads)
        figures = {
            "size_bytes": float(len(content) if size is None else size),
            "divergence": mean_divergence(self._kinds, self.reference, predictions),
            "bit_operations": float(self.bit_operations(assignment)),
            **self._scores(predictions),
        }
        if self._baseline_ms is not None:
            baseline, latency = interleaved_latencies([self._baseline, content], inputs)
            figures["latency_ms"] = self._baseline_ms * latency / baseline
        return Evaluation(figures, predictions)

    def bit_operations(self, assignment: Assignment) -> int:
        """Return the sum over units of multiply-accumulates x bits of weights x bits of activations, for one sample."""
        pairs = zip(self.space.units, assignment, strict=True)
        return sum(unit.macs * DEPLOYMENT_PRECISIONS[choice].bits_per_product for unit, choice in pairs)

    def content(self, assignment: Assignment) -> bytes:
        """Return the ``.tflite`` file of a plan, for one sample and without a card."""
        return self._export.candidate(self.space.plan(assignment)).content

    def size(self, assignment: Assignment) -> float:
        """Return the bytes of a plan's file with its card, without running it."""
        plan = self.space.plan(assignment)
        return float(self._size_with_card(plan, self._export.candidate(plan)))

    def is_like_reference(self, predictions: Outputs) -> bool:
        """Whether predictions are still the model's: 95 % of the classes are the same, or the noise is below -15 dB."""
        for kind, reference, output in zip(self._kinds, self.reference, predictions, strict=True):
            if kind.name == "values":
                if kind.divergence(reference, output) > _MAX_NOISE:
                    return False
            elif np.mean(predicted_classes(output) == predicted_classes(reference)) < _MIN_AGREEMENT:
                return False
        return True

    def _size_with_card(self, plan: PrecisionPlan, candidate: Candidate) -> int:
        card = card_text(self._export.card(plan, candidate, _NAME))
        return len(candidate.content) + len(card) + self._card_overhead

    def _scores(self, predictions: Outputs) -> dict[str, float]:
        score, labels = self.validation.score, self.validation.labels
        if score is None or labels is None:
            return {}
        value = score.compute(labels, predictions[0])
        return {score.name: value, "metric_drop": score.drop(self.reference_figures[score.name], value)}

    def _measure_card_overhead(self, baseline: Candidate) -> int:
        """Return the bytes that a card adds to a file in addition to its text: the tables that refer to it."""
        card, content = self._export.card(self.space.plan(self.space.start), baseline, _NAME), baseline.content
        return len(with_card(content, card)) - len(content) - len(card_text(card)) + _ALIGNMENT


def prepare_evaluator(
    model: Any,
    data: Any,
    validation: ValidationSet,
    choices: Sequence[str],
    *,
    runtime: str = "litert",
    latency: bool = False,
) -> Evaluator:
    """Calibrate a model on representative data, unless those are a calibration, and find the precisions of its layers.

    The choices are those from ``check_choices``.
    """
    calibration = data.expect(model) if isinstance(data, Calibration) else calibrate(model, data)
    export = DefaultExport(model, calibration, runtime=runtime)
    weights = {path: int(layer.count_params()) for path, layer in layer_paths(model).items()}
    space = find_space(export.compiler, calibration.float_file.trace, weights, choices, runtime)
    return Evaluator(export, space, validation, latency=latency, threads=usable_cores())
