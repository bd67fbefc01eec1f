"""The effect of one layer of a quantized file, and the greedy recovery that puts layers back in float."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from keras_precision.comparison.intervals import mcnemar
from keras_precision.core.formats.deployment import activation_precision
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Measurement
from keras_precision.explain.prediction_changes import ReferencePredictions
from keras_precision.export.default_export import DefaultExport
from keras_precision.export.plan_space import Unit
from keras_precision.runtimes.tflite.in_memory import predict_in_memory
from keras_precision.scoring.divergence import output_kind

__all__ = ["LayerEffect", "PlanEvaluator", "PlanQuality", "RecoveryStep", "by_sensitivity", "evenly_spaced"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class PlanQuality:
    """The file of a plan: which predictions it changes, of shape (n,), and their divergence from the float model."""

    content: bytes
    changes: npt.NDArray[np.bool_]
    divergence: float

    @property
    def changed(self) -> int:
        """The number of changed predictions."""
        return int(self.changes.sum())

    @property
    def share(self) -> float:
        """The share of changed predictions."""
        return float(self.changes.mean())


@dataclass(frozen=True)
class LayerEffect:
    """The effect of one layer, with those that the file computes in one operator with it.

    Attributes:
        unit: The layer.
        only_quantized: A float file in which only this layer is quantized.
        only_float: The quantized file with only this layer in float.
        p_value: How probable so large a difference from the file is by chance (exact McNemar test).
    """

    unit: Unit
    only_quantized: PlanQuality
    only_float: PlanQuality
    p_value: float

    def rows(self) -> Iterator[Measurement]:
        """Yield shares of changed predictions, divergences, the p-value, and the size with the layer in float."""
        yield Measurement(self.unit.name, "changed_lowered_alone", self.only_quantized.share)
        yield Measurement(self.unit.name, "divergence_lowered_alone", self.only_quantized.divergence)
        yield Measurement(self.unit.name, "changed_kept_alone", self.only_float.share)
        yield Measurement(self.unit.name, "divergence_only_layer_in_float", self.only_float.divergence)
        yield Measurement(self.unit.name, "p_value", self.p_value)
        yield Measurement(self.unit.name, "size_kept_alone", len(self.only_float.content))


class RecoveryStep(NamedTuple):
    """One more layer, or inputs and outputs, in float: the plan has those of the earlier steps, too."""

    name: str
    plan: PrecisionPlan
    quality: PlanQuality


class PlanEvaluator:
    """Makes the file that an export of a plan writes, runs it on some samples, and compares it with the float model.

    ``plan`` is that of the explained file, and ``precision`` the higher one, that of layers "in float".
    """

    def __init__(
        self,
        export: DefaultExport,
        plan: PrecisionPlan,
        samples: Mapping[str, Array],
        reference: ReferencePredictions,
        threads: int,
        precision: str,
    ) -> None:
        self.export, self.plan, self._samples = export, plan, samples
        self._reference, self._threads, self._precision = reference, threads, precision
        self._kind = output_kind(reference.reference)

    def with_export(self, export: DefaultExport) -> Self:
        """Return the same with files of another calibration."""
        return type(self)(export, self.plan, self._samples, self._reference, self._threads, self._precision)

    def with_float_io(self) -> Self:
        """Return the same with inputs and outputs in float32."""
        plan = replace(self.plan, io="float32")
        return type(self)(self.export, plan, self._samples, self._reference, self._threads, self._precision)

    def evaluate(self, plan: PrecisionPlan) -> PlanQuality:
        """Make and run the file of a deployment plan."""
        content = self.export.candidate(plan).content
        other = predict_in_memory(content, self._samples, self._threads)[0]
        divergence = self._kind.divergence(self._reference.reference, other)
        return PlanQuality(content, self._reference.changed(other), divergence)

    def all_float(self) -> PlanQuality:
        """Evaluate the plan with every layer in float, and inputs and outputs as they are."""
        layers = dict.fromkeys(self.export.compiler.paths, "float32")
        return self.evaluate(PrecisionPlan.deployment(self.plan.default, layers=layers, io=self.plan.io))

    def effect(self, unit: Unit, base: PlanQuality) -> LayerEffect:
        """Evaluate one quantized layer: only this layer quantized, and only this layer in float, unlike in ``base``."""
        precision = self.plan.precision_of(unit.paths[0])
        layers = {
            **dict.fromkeys(unit.followers.get(precision, ()), activation_precision(precision)),
            **dict.fromkeys(unit.paths, precision),
        }
        only = PrecisionPlan.deployment("float32", layers=layers)
        only_float = self.evaluate(self.with_float([unit]))
        p_value = mcnemar(~base.changes, ~only_float.changes).p_value
        return LayerEffect(unit, self.evaluate(only), only_float, p_value)

    def with_float(self, units: list[Unit], reasons: Mapping[str, str] | None = None) -> PrecisionPlan:
        """Return the plan with some layers in the higher precision; ``reasons`` are by layer path."""
        followers = [path for unit in units for path in unit.followers.get(self._precision, ())]
        raised = dict.fromkeys(followers, activation_precision(self._precision))
        raised |= {path: self._precision for unit in units for path in self._same_operator(unit)}
        merged = {**self.plan.layers, **raised}
        layers = {path: precision for path, precision in merged.items() if precision != self.plan.default}
        return PrecisionPlan.deployment(self.plan.default, layers=layers, reasons=reasons, io=self.plan.io)

    def _same_operator(self, unit: Unit) -> list[str]:
        """Return the paths of a unit, and those that the plan names for the same operator, such as an activation."""
        operators = [set(paths) for paths in self.export.compiler.layers if set(paths) & set(unit.paths)]
        planned = [path for path in self.plan.layers if any(path in paths for paths in operators)]
        return list(dict.fromkeys([*unit.paths, *planned]))

    def greedy_recovery(
        self, order: list[Unit], before: int, limit: float, advance: Callable[[int], None]
    ) -> list[RecoveryStep]:
        """Put one layer after the other in float, in this order, until at most ``limit`` predictions are changed.

        ``before`` counts the changed predictions of the whole plan, and ``advance`` is called with 1 after every file.
        """
        steps: list[RecoveryStep] = []
        reasons: dict[str, str] = {}
        for count in range(1, len(order) + 1):
            quality = self.evaluate(self.with_float(order[:count]))
            reasons[order[count - 1].paths[0]] = (
                f"changed predictions: {before} without, {quality.changed} with it in {self._precision}"
            )
            before = quality.changed
            plan = self.with_float(order[:count], dict(reasons))
            steps.append(RecoveryStep(order[count - 1].name, plan, quality))
            advance(1)
            if quality.changed <= limit:
                break
        return steps


def by_sensitivity(effects: list[LayerEffect]) -> list[LayerEffect]:
    """Return layers, the most sensitive first: in float, it leaves the fewest changed predictions and divergence."""
    return sorted(
        effects,
        key=lambda effect: (effect.only_float.changed, effect.only_float.divergence, -effect.only_quantized.divergence),
    )


def evenly_spaced(samples: Mapping[str, Array], limit: int) -> tuple[dict[str, Array], npt.NDArray[np.int64]]:
    """Return at most ``limit`` evenly spaced samples by input name, and their numbers."""
    count = len(next(iter(samples.values())))
    numbers = np.linspace(0, count - 1, min(limit, count)).astype(np.int64)
    return {name: array[numbers] for name, array in samples.items()}, numbers
