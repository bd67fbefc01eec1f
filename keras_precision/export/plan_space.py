"""Space: the layers that a search chooses among, and the plan of each choice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from keras_precision.core.formats.deployment import activation_precision
from keras_precision.core.plan import PrecisionPlan

__all__ = ["Assignment", "Space", "Unit"]

Assignment = tuple[str, ...]
"""A precision for each unit, in the order of the space."""


@dataclass(frozen=True)
class Unit:
    """Layers with weights that are chosen together, because the file computes them in one operator.

    Attributes:
        name: The layer path that stands for them: hyperparameters are called so.
        paths: Layer paths that a plan names.
        choices: The precisions in which the file can compute them.
        followers: Layers without weights that read from this unit alone, by the precision under which
            they go with it: an addition in int8 behind a float32 convolution would undo what that gains.
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
        units: What is chosen for.
        baseline: The precision from which layers are lowered, or raised, one at a time.
    """

    units: tuple[Unit, ...]
    baseline: str

    @property
    def default(self) -> str:
        """The precision of all that is no unit."""
        return activation_precision(self.baseline) if self.baseline == "int4" else self.baseline

    @cached_property
    def start(self) -> Assignment:
        """Every unit in the baseline, or in the first precision that it can have."""
        return tuple(self.baseline if self.baseline in unit.choices else unit.choices[0] for unit in self.units)

    @property
    def size(self) -> int:
        """How many plans there are."""
        count = 1
        for unit in self.units:
            count *= len(unit.choices)
        return count

    def single(self) -> list[Assignment]:
        """Return the plans in which one unit alone leaves the baseline.

        Returns:
            One assignment for each unit and each of its other choices.
        """
        found = []
        for number, unit in enumerate(self.units):
            for choice in unit.choices:
                if choice != self.start[number]:
                    found.append((*self.start[:number], choice, *self.start[number + 1 :]))
        return found

    def everywhere(self, choice: str) -> Assignment:
        """Return the plan in which every unit that can has one precision.

        Args:
            choice: The precision.

        Returns:
            The assignment; other units are as in the baseline.
        """
        pairs = zip(self.units, self.start, strict=True)
        return tuple(choice if choice in unit.choices else start for unit, start in pairs)

    def plan(self, assignment: Sequence[str], reasons: Mapping[str, str] | None = None) -> PrecisionPlan:
        """Return the plan that an assignment stands for.

        Args:
            assignment: A precision for each unit.
            reasons: Layer path to why.

        Returns:
            A deployment plan of exact paths.
        """
        layers: dict[str, str] = {}
        for unit, choice in zip(self.units, assignment, strict=True):
            if choice != self.default:
                layers.update(dict.fromkeys(unit.paths, choice))
            if activation_precision(choice) != activation_precision(self.default):
                layers.update(dict.fromkeys(unit.followers.get(choice, ()), activation_precision(choice)))
        return PrecisionPlan.deployment(self.default, layers=layers, reasons=reasons)

    def assignment(self, values: Mapping[str, str]) -> Assignment:
        """Return the assignment that hyperparameters stand for.

        Args:
            values: Name of a unit to its precision.

        Returns:
            The assignment.
        """
        return tuple(values[unit.name] for unit in self.units)

    def values(self, assignment: Sequence[str]) -> dict[str, str]:
        """Return an assignment as hyperparameters.

        Args:
            assignment: A precision for each unit.

        Returns:
            Name of each unit to its precision.
        """
        return {unit.name: choice for unit, choice in zip(self.units, assignment, strict=True)}
