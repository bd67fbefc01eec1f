"""Evaluator: what the file of a plan costs and answers, from the file itself."""

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
from keras_precision.export.plan_compiler import FileMaker
from keras_precision.export.plan_space import Assignment, Space
from keras_precision.export.readback import check_plan, realised_plan
from keras_precision.export.request import Request, side_type
from keras_precision.quantization.calibration import Calibration
from keras_precision.quantization.layer_trace import layers_of
from keras_precision.runtimes.tflite.in_memory import answers, relative_latency
from keras_precision.scoring.divergence import Answers, kind_of, mean_divergence
from keras_precision.search.objective.score import Score

__all__ = ["Evaluation", "Evaluator", "Held"]

Array = npt.NDArray[Any]

_NAME = "a" * 32  # stands for the file's name in its card, which is not known yet
_WORTH_A_THREAD = 1e-3  # seconds that a call takes; below, Python's own share of it is too large
_ALIGNMENT = 32  # bytes by which the tables of a card may move


@dataclass(frozen=True)
class Held:
    """The data that plans are judged on.

    Attributes:
        samples: Input name to an array of shape (n, ...).
        truth: Labels, of shape (n, ...); None where there are none.
        score: The metric of them; None where there is none.
    """

    samples: Mapping[str, Array]
    truth: Array | None = None
    score: Score | None = None

    @property
    def count(self) -> int:
        """How many samples there are."""
        return len(next(iter(self.samples.values())))


@dataclass(frozen=True)
class Evaluation:
    """What the file of a plan costs and answers.

    Attributes:
        figures: ``size_bytes``, ``divergence``, ``bit_operations``, the metric and ``metric_drop`` where there are
            labels, ``latency_ms`` where it is measured.
        answers: One array of shape (n, ...) per output.
    """

    figures: Mapping[str, float]
    answers: Answers = field(repr=False)


class Evaluator:
    """Makes, checks, runs and scores the file of any plan of a space.

    Args:
        calibration: What the activations of the model look like.
        maker: Makes its files.
        space: The plans.
        held: The data that they are judged on.
        latency: Whether files are timed.
        threads: Interpreters that run side by side.

    Attributes:
        reference: What the float file answers.
        reference_figures: What it costs and scores.
    """

    def __init__(
        self,
        calibration: Calibration,
        maker: FileMaker,
        space: Space,
        held: Held,
        *,
        latency: bool = False,
        threads: int = 1,
    ) -> None:
        self._calibration, self._maker, self.space, self.held = calibration, maker, space, held
        began = time.perf_counter()
        self.reference = answers(maker.float_content, held.samples)
        per_call = (time.perf_counter() - began) / held.count
        self._threads = threads if per_call > _WORTH_A_THREAD else 1
        self._kinds = [kind_of(each) for each in self.reference]
        self._base = self._maker(space.plan(space.start))
        self._base_ms = relative_latency([self._base], held.samples)[0] if latency else None
        self._wrapping = self._measured_wrapping()
        self.reference_figures = {"size_bytes": float(len(maker.float_content)), "divergence": 0.0}
        if held.score is not None and held.truth is not None:
            self.reference_figures[held.score.name] = held.score.compute(held.truth, self.reference[0])

    def __call__(self, assignment: Assignment) -> Evaluation:
        """Judge a plan by its file.

        Args:
            assignment: A precision for each unit.

        Returns:
            What its file costs and answers.

        Raises:
            PlanNotHonouredError: The file does not do what the plan says.
            ExportError: It could not be made.
            FileFormatError: It does not run.
        """
        plan = self.space.plan(assignment)
        content = self._maker(plan)
        card = len(card_text(self._told(plan, content)))
        return self.of_file(content, assignment, len(content) + card + self._wrapping)

    def of_file(
        self,
        content: bytes,
        assignment: Assignment,
        size: int | None = None,
        *,
        samples: Mapping[str, Array] | None = None,
    ) -> Evaluation:
        """Judge a file that is there.

        Args:
            content: A ``.tflite`` file for one sample.
            assignment: The plan that it is in.
            size: What it will take with its card; None where that is inside.
            samples: Those of the validation data by the file's own input names; None where these are the model's.

        Returns:
            What it costs and answers.

        Raises:
            FileFormatError: It does not run.
        """
        given = {**self.held.samples, **(samples or {})}
        got = answers(content, given, self._threads)
        figures = {
            "size_bytes": float(len(content) if size is None else size),
            "divergence": mean_divergence(self._kinds, self.reference, got),
            "bit_operations": float(self.bit_operations(assignment)),
            **self._scored(got),
        }
        if self._base_ms is not None:
            base, own = relative_latency([self._base, content], given)
            figures["latency_ms"] = self._base_ms * own / base
        return Evaluation(figures, got)

    def bit_operations(self, assignment: Assignment) -> int:
        """Return the products of a plan, each weighed with the bits of its two factors.

        Args:
            assignment: A precision for each unit.

        Returns:
            The sum over units of multiply-accumulates x bits of weights x bits of activations, for one sample.
        """
        pairs = zip(self.space.units, assignment, strict=True)
        return sum(unit.macs * DEPLOYMENT_PRECISIONS[choice].bits_per_product for unit, choice in pairs)

    def content(self, assignment: Assignment) -> bytes:
        """Return the file of a plan, without a card.

        Args:
            assignment: A precision for each unit.

        Returns:
            The content of a ``.tflite`` file for one sample.
        """
        return self._maker(self.space.plan(assignment))

    def size(self, assignment: Assignment) -> float:
        """Return the size of a plan's file, without running it.

        Args:
            assignment: A precision for each unit.

        Returns:
            Bytes, its card included.
        """
        plan = self.space.plan(assignment)
        content = self._maker(plan)
        return float(len(content) + len(card_text(self._told(plan, content))) + self._wrapping)

    def _scored(self, got: Answers) -> dict[str, float]:
        score, truth = self.held.score, self.held.truth
        if score is None or truth is None:
            return {}
        value = score.compute(truth, got[0])
        return {score.name: value, "metric_drop": score.drop(self.reference_figures[score.name], value)}

    def _told(self, plan: PrecisionPlan, content: bytes) -> Result:
        """Check a file against its plan; return what its card will tell."""
        model, trace = read_back(content), self._calibration.float_file.trace
        layers = layers_of(model, trace)
        realised = realised_plan(model, plan, layers, list(trace.paths))
        notes = check_plan(model, plan, realised, layers, strict=False)
        request = Request(plan, side_type(None, plan), calibration=self._maker.method, engine="aeq")
        pairs = self._calibration.float_file.equalized_pairs
        made = Candidate(content, model, trace, layers, "aeq", notes, equalized_pairs=pairs)
        return facts(_NAME, request, made, self._calibration, realised, notes)

    def _measured_wrapping(self) -> int:
        """Bytes that a card takes beside its text: the tables that lead to it."""
        told = self._told(self.space.plan(self.space.start), self._base)
        return len(with_card(self._base, told)) - len(self._base) - len(card_text(told)) + _ALIGNMENT
