"""What each layer of a quantized file does alone, and the layers to keep in float, one after the other."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from keras_precision.core.formats.deployment import activation_precision
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Measurement
from keras_precision.explain.answer_changes import Judge
from keras_precision.export.plan_compiler import FileMaker
from keras_precision.export.plan_space import Unit
from keras_precision.runtimes.tflite.in_memory import answers
from keras_precision.scoring.divergence import kind_of

__all__ = ["Bench", "Blame", "Outcome", "Step", "evenly", "order_of"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Outcome:
    """What the file of a plan does.

    Attributes:
        content: The file.
        changed: How many samples it answers otherwise than the float model.
        share: The same, as a share.
        divergence: How far its answers are from the float model's.
    """

    content: bytes
    changed: int
    share: float
    divergence: float


@dataclass(frozen=True)
class Blame:
    """What one layer does alone.

    Attributes:
        unit: The layer, and those that the file computes in one operator with it.
        lowered: What a float file does in which it alone is lowered.
        kept: What the quantized file does in which it alone is kept in float.
    """

    unit: Unit
    lowered: Outcome
    kept: Outcome

    def rows(self) -> Iterator[Measurement]:
        """Yield the figures of the layer.

        Yields:
            Shares of changed answers, divergences, and the size of keeping it.
        """
        yield Measurement(self.unit.name, "changed_lowered_alone", self.lowered.share)
        yield Measurement(self.unit.name, "divergence_lowered_alone", self.lowered.divergence)
        yield Measurement(self.unit.name, "changed_kept_alone", self.kept.share)
        yield Measurement(self.unit.name, "divergence_only_layer_in_float", self.kept.divergence)
        yield Measurement(self.unit.name, "size_kept_alone", len(self.kept.content))


class Step(NamedTuple):
    """One more layer kept in float.

    Attributes:
        unit: The layer.
        plan: The plan, with those of the steps before.
        outcome: What its file does.
    """

    unit: Unit
    plan: PrecisionPlan
    outcome: Outcome


class Bench:
    """Makes the file of any plan, runs it on some samples, and compares it with the float model.

    Args:
        maker: Makes files.
        plan: The plan of the file that is explained.
        samples: Input name to an array of shape (n, ...).
        judge: Holds the float model's answers to them.
        threads: Interpreters that run side by side.
        keep: What layers are kept in.
    """

    def __init__(
        self, maker: FileMaker, plan: PrecisionPlan, samples: Mapping[str, Array], judge: Judge, threads: int, keep: str
    ) -> None:
        self._keep = keep
        self._maker, self._plan, self._samples, self._judge, self._threads = maker, plan, samples, judge, threads
        self._kind = kind_of(judge.reference)

    def outcome(self, plan: PrecisionPlan) -> Outcome:
        """Return what the file of a plan does.

        Args:
            plan: A deployment plan.

        Returns:
            The outcome on these samples.
        """
        content = self._maker(plan)
        other = answers(content, self._samples, self._threads)[0]
        changed = self._judge.changed(other)
        divergence = self._kind.divergence(self._judge.reference, other)
        return Outcome(content, int(changed.sum()), float(changed.mean()), divergence)

    def blame(self, unit: Unit) -> Blame:
        """Return what one layer does alone.

        Args:
            unit: The layer, which the plan lowers.

        Returns:
            The outcomes.
        """
        precision = self._plan.precision_of(unit.paths[0])
        layers = {
            **dict.fromkeys(unit.followers.get(precision, ()), activation_precision(precision)),
            **dict.fromkeys(unit.paths, precision),
        }
        alone = PrecisionPlan.deployment("float32", layers=layers)
        return Blame(unit, self.outcome(alone), self.outcome(self.keeping([unit])))

    def keeping(self, units: list[Unit], reasons: Mapping[str, str] | None = None) -> PrecisionPlan:
        """Return the plan with some layers kept in a higher precision.

        Args:
            units: Which.
            reasons: Layer path to why.

        Returns:
            The plan.
        """
        kept = {path: activation_precision(self._keep) for unit in units for path in unit.followers.get(self._keep, ())}
        kept |= {path: self._keep for unit in units for path in self._together(unit)}
        wanted = {**self._plan.layers, **kept}
        layers = {path: precision for path, precision in wanted.items() if precision != self._plan.default}
        return PrecisionPlan.deployment(self._plan.default, layers=layers, reasons=reasons)

    def _together(self, unit: Unit) -> list[str]:
        """The paths of a unit, and of what the plan names beside them for the same operator, such as an activation."""
        owners = [set(paths) for paths in self._maker.layers if set(paths) & set(unit.paths)]
        beside = [path for path in self._plan.layers if any(path in paths for paths in owners)]
        return list(dict.fromkeys([*unit.paths, *beside]))

    def won_back(self, order: list[Unit], before: int, most: float, tell: Callable[[int], None]) -> list[Step]:
        """Keep one layer after the other in float, until few enough answers are changed.

        Args:
            order: The layers, the one that helps most first.
            before: The changed answers of the whole plan.
            most: The most changed answers that are allowed.
            tell: Called with 1 after each file.

        Returns:
            The steps.
        """
        steps: list[Step] = []
        reasons: dict[str, str] = {}
        for count in range(1, len(order) + 1):
            plan = self.keeping(order[:count])
            found = self.outcome(plan)
            reasons[order[count - 1].paths[0]] = (
                f"changed answers: {before} without, {found.changed} with it in {self._keep}"
            )
            before = found.changed
            steps.append(Step(order[count - 1], self.keeping(order[:count], dict(reasons)), found))
            tell(1)
            if found.changed <= most:
                break
        return steps


def order_of(found: list[Blame]) -> list[Blame]:
    """Return layers, the one to blame most first: without it, most answers come back, and the rest are nearest.

    Args:
        found: The layers.

    Returns:
        The same, in that order.
    """
    return sorted(found, key=lambda each: (each.kept.changed, each.kept.divergence, -each.lowered.divergence))


def evenly(samples: Mapping[str, Array], most: int) -> tuple[dict[str, Array], npt.NDArray[np.int64]]:
    """Return some samples, evenly spread, and which they are.

    Args:
        samples: Input name to an array of shape (n, ...).
        most: How many at most.

    Returns:
        The samples and their numbers.
    """
    count = len(next(iter(samples.values())))
    kept = np.linspace(0, count - 1, min(most, count)).astype(np.int64)
    return {name: array[kept] for name, array in samples.items()}, kept
