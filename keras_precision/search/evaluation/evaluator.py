"""Evaluator: the costs and predictions of a plan, measured on its file."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from keras_precision.core.formats.deployment import DEPLOYMENT_PRECISIONS
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Result
from keras_precision.export.candidate import Candidate, read_back
from keras_precision.export.card import card_text, facts, with_card
from keras_precision.export.plan_compiler import PlanCompiler
from keras_precision.export.plan_space import Assignment, Space
from keras_precision.export.readback import check_plan, realised_plan
from keras_precision.export.request import ExportRequest
from keras_precision.quantization.calibration import Calibration
from keras_precision.quantization.layer_trace import layers_of
from keras_precision.runtimes.tflite.in_memory import interleaved_latencies, predict_in_memory
from keras_precision.scoring.divergence import Outputs, mean_divergence, output_kind
from keras_precision.search.evaluation.validation_set import ValidationSet

__all__ = ["Evaluation", "Evaluator"]

Array = npt.NDArray[Any]

_NAME = "a" * 32  # a placeholder for the file name in the card, which is unknown until the export
_WORTH_A_THREAD = 1e-3  # seconds per call; below that, the interpreter lock outweighs what threads gain
_ALIGNMENT = 32  # bytes by which the tables of a card may move


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
    """Compiles, checks, runs and scores the file of any plan of a space.

    Attributes:
        reference: The predictions of the float file.
        reference_figures: Its size and score.
    """

    def __init__(
        self,
        calibration: Calibration,
        compiler: PlanCompiler,
        space: Space,
        validation: ValidationSet,
        *,
        latency: bool = False,
        threads: int = 1,
    ) -> None:
        self._calibration, self._compiler, self.space, self.validation = calibration, compiler, space, validation
        start = time.perf_counter()
        self.reference = predict_in_memory(compiler.float_content, validation.samples)
        per_call = (time.perf_counter() - start) / validation.count
        self._threads = threads if per_call > _WORTH_A_THREAD else 1
        self._kinds = [output_kind(outputs) for outputs in self.reference]
        self._baseline = self._compiler(space.plan(space.start))
        self._baseline_ms = interleaved_latencies([self._baseline], validation.samples)[0] if latency else None
        self._card_overhead = self._measure_card_overhead()
        self.reference_figures = {"size_bytes": float(len(compiler.float_content)), "divergence": 0.0}
        score, labels = validation.score, validation.labels
        if score is not None and labels is not None:
            self.reference_figures[score.name] = score.compute(labels, self.reference[0])

    def __call__(self, assignment: Assignment) -> Evaluation:
        """Evaluate a plan by its file; raises ``PlanNotHonouredError`` if the file does not follow the plan."""
        plan = self.space.plan(assignment)
        content = self._compiler(plan)
        return self.evaluate_file(content, assignment, self._size_with_card(plan, content))

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
        return self._compiler(self.space.plan(assignment))

    def size(self, assignment: Assignment) -> float:
        """Return the bytes of a plan's file with its card, without running it."""
        plan = self.space.plan(assignment)
        return float(self._size_with_card(plan, self._compiler(plan)))

    def _size_with_card(self, plan: PrecisionPlan, content: bytes) -> int:
        return len(content) + len(card_text(self._card(plan, content))) + self._card_overhead

    def _scores(self, predictions: Outputs) -> dict[str, float]:
        score, labels = self.validation.score, self.validation.labels
        if score is None or labels is None:
            return {}
        value = score.compute(labels, predictions[0])
        return {score.name: value, "metric_drop": score.drop(self.reference_figures[score.name], value)}

    def _card(self, plan: PrecisionPlan, content: bytes) -> Result:
        """Check a file against its plan, and return the content of its card."""
        model, trace = read_back(content), self._calibration.float_file.trace
        layers = layers_of(model, trace)
        realised = realised_plan(model, plan, layers, list(trace.paths))
        notes = check_plan(model, plan, realised, layers, strict=False)
        request = ExportRequest(plan, calibration=self._compiler.method, engine="aeq")
        pairs = self._calibration.float_file.equalized_pairs
        candidate = Candidate(content, model, trace, layers, "aeq", notes, equalized_pairs=pairs)
        return facts(_NAME, request, candidate, self._calibration, realised, notes)

    def _measure_card_overhead(self) -> int:
        """Return the bytes that a card adds to a file in addition to its text: the tables that refer to it."""
        card = self._card(self.space.plan(self.space.start), self._baseline)
        return len(with_card(self._baseline, card)) - len(self._baseline) - len(card_text(card)) + _ALIGNMENT
