"""The effect of one layer of a quantized file, and the greedy recovery that puts layers back in float."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from keras_precision.core.formats.deployment import activation_precision
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Measurement
from keras_precision.explain.prediction_changes import ReferencePredictions
from keras_precision.export.plan_compiler import PlanCompiler
from keras_precision.export.plan_space import Unit
from keras_precision.runtimes.tflite.in_memory import predict_in_memory
from keras_precision.scoring.divergence import output_kind

__all__ = ["LayerEffect", "PlanEvaluator", "PlanQuality", "RecoveryStep", "by_sensitivity", "evenly_spaced"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class PlanQuality:
    """The file of a plan, with the count and share of changed predictions and their divergence from the float model."""

    content: bytes
    changed: int
    share: float
    divergence: float


@dataclass(frozen=True)
class LayerEffect:
    """The effect of one layer, with those that the file computes in one operator with it.

    Attributes:
        unit: The layer.
        only_quantized: A float file in which only this layer is quantized.
        only_float: The quantized file with only this layer in float.
    """

    unit: Unit
    only_quantized: PlanQuality
    only_float: PlanQuality

    def rows(self) -> Iterator[Measurement]:
        """Yield shares of changed predictions, divergences, and the size of the file with the layer in float."""
        yield Measurement(self.unit.name, "changed_lowered_alone", self.only_quantized.share)
        yield Measurement(self.unit.name, "divergence_lowered_alone", self.only_quantized.divergence)
        yield Measurement(self.unit.name, "changed_kept_alone", self.only_float.share)
        yield Measurement(self.unit.name, "divergence_only_layer_in_float", self.only_float.divergence)
        yield Measurement(self.unit.name, "size_kept_alone", len(self.only_float.content))


class RecoveryStep(NamedTuple):
    """One more layer in float: the plan has those of the earlier steps, too."""

    unit: Unit
    plan: PrecisionPlan
    quality: PlanQuality


class PlanEvaluator:
    """Compiles the file of any plan, runs it on some samples, and compares it with the float model.

    Args:
        compiler: Compiles a plan to a file.
        plan: The plan of the file that is explained.
        samples: Input name to an array of shape (n, ...).
        reference: The float model's predictions for them.
        threads: Interpreters that run at once.
        precision: The higher precision, that of layers in float.
    """

    def __init__(
        self,
        compiler: PlanCompiler,
        plan: PrecisionPlan,
        samples: Mapping[str, Array],
        reference: ReferencePredictions,
        threads: int,
        precision: str,
    ) -> None:
        self._compiler, self._plan, self._samples = compiler, plan, samples
        self._reference, self._threads, self._precision = reference, threads, precision
        self._kind = output_kind(reference.reference)

    def evaluate(self, plan: PrecisionPlan) -> PlanQuality:
        """Compile and run a deployment plan on the samples."""
        content = self._compiler(plan)
        other = predict_in_memory(content, self._samples, self._threads)[0]
        changed = self._reference.changed(other)
        divergence = self._kind.divergence(self._reference.reference, other)
        return PlanQuality(content, int(changed.sum()), float(changed.mean()), divergence)

    def effect(self, unit: Unit) -> LayerEffect:
        """Evaluate one quantized layer: only this layer quantized, and only this layer in float."""
        precision = self._plan.precision_of(unit.paths[0])
        layers = {
            **dict.fromkeys(unit.followers.get(precision, ()), activation_precision(precision)),
            **dict.fromkeys(unit.paths, precision),
        }
        only = PrecisionPlan.deployment("float32", layers=layers)
        return LayerEffect(unit, self.evaluate(only), self.evaluate(self.with_float([unit])))

    def with_float(self, units: list[Unit], reasons: Mapping[str, str] | None = None) -> PrecisionPlan:
        """Return the plan with some layers in the higher precision; ``reasons`` are by layer path."""
        followers = [path for unit in units for path in unit.followers.get(self._precision, ())]
        raised = dict.fromkeys(followers, activation_precision(self._precision))
        raised |= {path: self._precision for unit in units for path in self._same_operator(unit)}
        merged = {**self._plan.layers, **raised}
        layers = {path: precision for path, precision in merged.items() if precision != self._plan.default}
        return PrecisionPlan.deployment(self._plan.default, layers=layers, reasons=reasons)

    def _same_operator(self, unit: Unit) -> list[str]:
        """Return the paths of a unit, and those that the plan names for the same operator, such as an activation."""
        operators = [set(paths) for paths in self._compiler.layers if set(paths) & set(unit.paths)]
        planned = [path for path in self._plan.layers if any(path in paths for paths in operators)]
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
            steps.append(RecoveryStep(order[count - 1], self.with_float(order[:count], dict(reasons)), quality))
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
