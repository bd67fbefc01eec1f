"""Space: the layers that a search chooses precisions for, and the plan of every choice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from keras_precision.core.formats.deployment import activation_precision
from keras_precision.core.plan import PrecisionPlan

__all__ = ["Assignment", "Space", "Unit"]

Assignment = tuple[str, ...]
"""One precision per unit, in the order of the space."""


@dataclass(frozen=True)
class Unit:
    """Layers with weights that have one precision, because the file computes them in one operator.

    Attributes:
        name: The first of the paths, also the name of the hyperparameter.
        paths: Layer paths that a plan names.
        choices: The precisions in which the file can compute them.
        followers: Precision of the unit to the layers without weights that read from it alone and take that precision
            too: an addition in int8 behind a float32 convolution would undo what that gains.
        macs: Multiply-accumulates for one sample.
    """

    name: str
    paths: tuple[str, ...]
    choices: tuple[str, ...]
    followers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    macs: int = 0


@dataclass(frozen=True)
class Space:
    """All plans that a search may choose from.

    Attributes:
        units: The units whose precision is searched.
        baseline: The precision from which one unit at a time is changed.
        io: The ``io`` of every deployment plan.
    """

    units: tuple[Unit, ...]
    baseline: str
    io: str | None = None

    @property
    def default(self) -> str:
        """The precision of all layers that are in no unit."""
        return activation_precision(self.baseline) if self.baseline == "int4" else self.baseline

    @cached_property
    def start(self) -> Assignment:
        """Every unit in the baseline, or in the first precision that it can have."""
        return tuple(self.baseline if self.baseline in unit.choices else unit.choices[0] for unit in self.units)

    @property
    def size(self) -> int:
        """The number of plans."""
        count = 1
        for unit in self.units:
            count *= len(unit.choices)
        return count

    def single(self) -> list[Assignment]:
        """Return the assignments in which one unit alone differs from the baseline."""
        return [
            (*self.start[:number], choice, *self.start[number + 1 :])
            for number, unit in enumerate(self.units)
            for choice in unit.choices
            if choice != self.start[number]
        ]

    def everywhere(self, choice: str) -> Assignment:
        """Return the assignment with one precision for all units that can have it; others are as in the baseline."""
        pairs = zip(self.units, self.start, strict=True)
        return tuple(choice if choice in unit.choices else start for unit, start in pairs)

    def plan(self, assignment: Sequence[str], reasons: Mapping[str, str] | None = None) -> PrecisionPlan:
        """Return the deployment plan of an assignment, with exact layer paths; ``reasons`` are by layer path."""
        layers: dict[str, str] = {}
        for unit, choice in zip(self.units, assignment, strict=True):
            if choice != self.default:
                layers.update(dict.fromkeys(unit.paths, choice))
            if activation_precision(choice) != activation_precision(self.default):
                layers.update(dict.fromkeys(unit.followers.get(choice, ()), activation_precision(choice)))
        return PrecisionPlan.deployment(self.default, layers=layers, reasons=reasons, io=self.io)

    def assignment(self, values: Mapping[str, str]) -> Assignment:
        """Return the assignment of hyperparameters, which are precisions by the names of units."""
        return tuple(values[unit.name] for unit in self.units)

    def check(self, assignment: Sequence[str]) -> None:
        """Raise ``ValueError`` if an assignment has another number of units, or a precision that its unit cannot have."""
        for unit, choice in zip(self.units, assignment, strict=True):
            if choice not in unit.choices:
                raise ValueError(f"the precision {choice!r} of '{unit.name}'")

    def values(self, assignment: Sequence[str]) -> dict[str, str]:
        """Return an assignment as hyperparameters: name of a unit to its precision."""
        return {unit.name: choice for unit, choice in zip(self.units, assignment, strict=True)}
