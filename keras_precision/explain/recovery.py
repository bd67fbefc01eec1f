"""DropStudy: the causes of an accuracy drop in turn (calibration, inputs and outputs, layers), and the recovery from it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from keras_precision._adapters.layer_paths import layer_paths
from keras_precision.comparison.intervals import mcnemar
from keras_precision.core.errors import PlanError
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Measurement
from keras_precision.core.system.progress import progress
from keras_precision.explain.layer_sensitivity import (
    LayerEffect,
    PlanEvaluator,
    PlanQuality,
    RecoveryStep,
    by_sensitivity,
)
from keras_precision.export.default_export import DefaultExport
from keras_precision.export.plan_space import Unit
from keras_precision.export.units import find_space
from keras_precision.quantization.calibration import Calibration

__all__ = ["DropStudy", "Recovery"]

_SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Recovery:
    """How an accuracy drop comes about, and the plans that recover from it.

    Attributes:
        evaluator: What evaluated the plans: with the calibration and the type of inputs and outputs that are needed.
        base: The file of the whole plan, made again.
        recalibrated: The same from the samples of the explanation, where these alone recover the predictions.
        effects: The layers, the most sensitive first.
        steps: The steps of the greedy recovery.
        plan: The plan of the file.
        of_channels: The step that recovers channels of the output, which is worth its size even where each sample still has a
            value that is changed.
    """

    evaluator: PlanEvaluator
    base: PlanQuality
    recalibrated: PlanQuality | None
    effects: list[LayerEffect]
    steps: list[RecoveryStep]
    plan: PrecisionPlan
    of_channels: RecoveryStep | None = None

    def plans(self) -> list[PrecisionPlan]:
        """Return the plans that change fewer predictions than the file's, the best first, and last that of the file."""
        better = [step for step in self.steps if step.quality.changed < self.base.changed or step is self.of_channels]
        return [*(step.plan for step in sorted(better, key=lambda step: step.quality.changed)), self.plan]

    def rows(self) -> Iterator[Measurement]:
        """Yield the figures of layers, of the calibration, and of the steps."""
        for effect in self.effects:
            yield from effect.rows()
        files = [("whole plan", self.base)]
        if self.recalibrated is not None:
            files.append(("calibration", self.recalibrated))
        for number, step in enumerate(self.steps, 1):
            files.append((f"keep {number}: {'' if number == 1 else '+ '}{step.name}", step.quality))
        for subject, quality in files:
            yield Measurement(subject, "changed_share", quality.share)
            yield Measurement(subject, "size_bytes", len(quality.content))

    def notes(self, study: "DropStudy") -> Iterator[str]:
        """Yield what a reader should know of the recovery."""
        changed, share = int(study.changes.sum()), study.share
        if self.recalibrated is not None:
            yield (
                f"calibration mismatch: calibrated on these samples, the same plan changes {self.recalibrated.changed} instead of "
                f"{changed} predictions, so that no layer is the cause: export with representative_dataset= such samples"
            )
            return
        if self.base.changed == 0:
            yield "a file of this plan changes no prediction: there is nothing to recover"
        elif len(self.steps) > 1 and len(self.steps) == len(self.effects):
            yield "nothing less than every layer in float recovers so many predictions: look at the earlier steps"
        if self.evaluator.plan != self.plan:
            yield (
                f"inputs and outputs in {self.plan.io_type} are a cause by themselves: no choice of layers alone recovers {share}, "
                "so that layers are evaluated with inputs and outputs in float32"
            )
        if self.steps and self.steps[-1].quality.changed > study.limit(self.base):
            best = min(step.quality.changed for step in self.steps)
            yield f"no set of layers in float recovers {share} of the {self.base.changed} changed predictions: the best leaves {best}"
        if self.base.changed != changed:
            yield (
                f"the files of single layers come from this calibration: one of the whole plan changes {self.base.changed} of the samples "
                f"on which layers are evaluated, the file itself {changed}"
            )


class DropStudy(NamedTuple):
    """A file whose accuracy drop is explained.

    Attributes:
        model: The float model.
        evaluator: Evaluates plans with the calibration of the caller.
        changes: For which of the evaluator's samples the file's prediction is another than the model's, of shape (n,).
        keep: The precision of layers that are put in float.
        win_back: The share of the changed predictions that is to be recovered.
    """

    model: Any
    evaluator: PlanEvaluator
    changes: npt.NDArray[np.bool_]
    keep: str
    win_back: float

    @property
    def share(self) -> str:
        """The share that is to be recovered, as text."""
        return f"{100 * self.win_back:.0f} %"

    def limit(self, base: PlanQuality) -> float:
        """Return how many predictions may remain changed."""
        return (1 - self.win_back) * base.changed

    def recover(self, calibrate: Callable[[], Calibration] | None, verbose: bool | None) -> Recovery:
        """Look for the causes in turn; ``calibrate`` calibrates on the evaluator's samples, None if they were used."""
        units, evaluator, plan = self._units(), self.evaluator, self.evaluator.plan
        with progress("explaining", "files", 2 * len(units), verbose=verbose) as advance:
            base = evaluator.evaluate(plan)
            own = self._recalibrated(calibrate)
            recalibrated = None if own is None else own.evaluate(plan)
            if own is not None and recalibrated is not None:
                evaluator, base = own, recalibrated
            steps: list[RecoveryStep] = []
            whole, limit = base, self.limit(base)
            if recalibrated is None and self._is_io_a_cause(limit):
                evaluator = evaluator.with_float_io()
                whole = evaluator.evaluate(evaluator.plan)
                steps.append(RecoveryStep("inputs and outputs", evaluator.plan, whole))
            effects = []
            for unit in units:
                effects.append(evaluator.effect(unit, whole))
                advance(1)
            effects = by_sensitivity(effects)
            if recalibrated is None and whole.changed > limit:
                steps += evaluator.greedy_recovery([effect.unit for effect in effects], whole.changed, limit, advance)
        return Recovery(evaluator, base, recalibrated, effects, steps, plan)

    def _units(self) -> list[Unit]:
        """Return the quantized layers with weights, together with those that share their operators."""
        plan, export = self.evaluator.plan, self.evaluator.export
        weights = {name: int(layer.count_params()) for name, layer in layer_paths(self.model).items()}
        choices = tuple(dict.fromkeys([self.keep, *plan.layers.values(), plan.default]))
        units = find_space(export.compiler, export.calibration.float_file.trace, weights, choices).units
        high = ("float32", self.keep)
        quantized = [u for u in units if plan.precision_of(u.paths[0]) not in high and self.keep in u.choices]
        if not quantized:
            raise PlanError(
                f"Expected a file with quantized layers that could be in {self.keep}. Received: one without. "
                "Pass a file of a lower precision."
            )
        return quantized

    def _recalibrated(self, calibrate: Callable[[], Calibration] | None) -> PlanEvaluator | None:
        """Return an evaluator calibrated on these samples, if that alone recovers the predictions, beyond chance."""
        changed = int(self.changes.sum())
        if not _is_beyond_chance(changed):
            return None
        own = self.evaluator
        if calibrate is not None:
            own = own.with_export(DefaultExport(self.model, calibrate()))
        quality = own.evaluate(own.plan)
        is_shown = mcnemar(~self.changes, ~quality.changes).p_value < _SIGNIFICANCE
        return own if is_shown and quality.changed <= (1 - self.win_back) * changed else None

    def _is_io_a_cause(self, limit: float) -> bool:
        """Whether integer inputs and outputs change too many predictions by themselves, with every layer in float."""
        if self.evaluator.plan.io_type == "float32" or self.keep != "float32":
            return False
        changed = self.evaluator.all_float().changed
        return changed > limit and _is_beyond_chance(changed)


def _is_beyond_chance(changed: int) -> bool:
    """Whether so many changed predictions differ from none by an exact McNemar test: six or more do."""
    return mcnemar(np.ones(changed), np.zeros(changed)).p_value < _SIGNIFICANCE
