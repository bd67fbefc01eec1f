"""Mode: how a search evaluates a plan, and what it produces from the best one."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from keras_precision.core.errors import InputError, ModelError
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Result
from keras_precision.export.plan_space import Assignment, Space
from keras_precision.scoring.divergence import Outputs
from keras_precision.search.evaluation.evaluator import Evaluation
from keras_precision.search.strategy.trials import TrialOutcome

__all__ = ["EVALUATION", "Mode", "Rounds", "SearchInputs", "check_compiled", "describe_options", "is_finalist"]

EVALUATION = "evaluation"
"""The hyperparameter that selects how a trial is evaluated, in a search with two ways of evaluation."""

_MAX_LENGTH = 16  # of a list, such as seeds, that is part of a search's identity


class SearchInputs(NamedTuple):
    """The data of a search as ``kp.PrecisionTuner`` takes them; ``x``, ``y`` and ``options`` are those of the training."""

    representative: Any = None
    validation: Any = None
    x: Any = None
    y: Any = None
    options: Mapping[str, Any] = {}

    def with_defaults(self, own: "SearchInputs", previous: "SearchInputs | None") -> "SearchInputs":
        """Return these inputs with data of the tuner, which take precedence, and of a previous search, which come last."""
        order = (own, self, previous or SearchInputs())
        representative = next((inputs.representative for inputs in order if inputs.representative is not None), None)
        validation = next((inputs.validation for inputs in order if inputs.validation is not None), None)
        return self._replace(representative=representative, validation=validation)

    def training_data(self) -> Any:
        """Return ``(x, y)``, or ``x`` if it includes its labels."""
        return self.x if self.y is None else (self.x, self.y)

    def has_same_data(self, other: "SearchInputs") -> bool:
        """Whether representative and validation data are the same objects."""
        return self.representative is other.representative and self.validation is other.validation


class Rounds(Protocol):
    """Plans to run, round by round; the same evaluations lead to the same rounds."""

    space: Space
    gap: float | None

    def first_round(self) -> list[Assignment]:
        """Return the first plans to run."""
        ...

    def next_round(self) -> list[Assignment]:
        """Return the next plans to run, or none at the end of the search."""
        ...

    def finalists(self, count: int) -> list[Assignment]:
        """Return the plans that are worth a longer evaluation."""
        ...

    def learn(self, assignment: Assignment, figures: Mapping[str, float], predictions: Outputs) -> None:
        """Add the evaluation of a plan."""
        ...

    def fail(self, assignment: Assignment) -> None:
        """Add a plan that cannot be run."""
        ...


class Mode(ABC):
    """One way to evaluate plans, named as in ``evaluation=``; ``space`` and ``reference_figures`` come with ``prepare``."""

    name: ClassVar[str]
    choices: tuple[str, ...]
    space: Space
    reference_figures: dict[str, float]

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise ``InputError`` for options of ``search`` that this mode does not use."""
        if options:
            raise InputError(
                f"Expected x, y, validation_data, verbose or lease_s. Received: {', '.join(sorted(options))}. No model is trained here; "
                "with evaluation='quantization_aware' or 'training' one is."
            )

    def set_training(self, inputs: SearchInputs) -> dict[str, str]:
        """Check and store data and options of the training, if there is one; return its part of the search's identity."""
        return {}

    def needs_training(self, values: Mapping[str, Any]) -> bool:
        """Whether a trial with these hyperparameters is evaluated by a training."""
        return False

    @abstractmethod
    def prepare(self, inputs: SearchInputs) -> dict[str, str]:
        """Check the data, find the space, and return the data's part of the search's identity."""

    @abstractmethod
    def check_budget(self) -> None:
        """Raise ``InputError`` if no plan can meet the budget."""

    @abstractmethod
    def rounds(self, tolerance: float) -> Rounds:
        """Return new rounds of plans, which end at a gap of ``tolerance``."""

    @abstractmethod
    def evaluate(self, values: Mapping[str, str], folder: Path) -> Evaluation:
        """Evaluate the plan of a trial, whose folder need not exist yet."""

    @abstractmethod
    def model_of(self, values: Mapping[str, str], folder: Path) -> Any:
        """Return a Keras model with the plan of a trial."""

    @abstractmethod
    def write(
        self, outcome: TrialOutcome, plan: PrecisionPlan, folder: Path, path: Path, options: Mapping[str, Any]
    ) -> Result:
        """Export the plan of a completed trial to ``path``, with options of the export."""

    @abstractmethod
    def verify(self, outcome: TrialOutcome, plan: PrecisionPlan) -> None:
        """Raise ``SearchError`` unless the plan of a completed trial gives what was evaluated."""

    @property
    @abstractmethod
    def axes(self) -> Sequence[str]:
        """The figures of the Pareto front, all of which are minimized."""

    @abstractmethod
    def result(self, outcome: TrialOutcome, plan: PrecisionPlan) -> Result:
        """Return the figures of a trial as a result."""

    def add_hyperparameters(self, space: Any, *, train_all: bool) -> None:
        """Add the hyperparameters to KerasTuner's space; ``train_all`` is for oracles that know no finalists."""
        for unit, default in zip(self.space.units, self.space.start, strict=True):
            space.Choice(unit.name, list(unit.choices), default=default)


def is_finalist(values: Mapping[str, Any]) -> bool:
    """Whether a trial with these hyperparameters is a finalist, which is trained before its evaluation."""
    return values.get(EVALUATION) == "quantization_aware"


def describe_options(options: Mapping[str, Any]) -> str:
    """Return the numbers, texts and short lists among training options as text; it is part of a search's identity."""
    return ", ".join(f"{name}={value!r}" for name, value in sorted(options.items()) if _is_short(value))


def _is_short(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) <= _MAX_LENGTH and all(isinstance(entry, str | int | float) for entry in value)
    return isinstance(value, str | int | float)


def check_compiled(model: Any, purpose: str) -> None:
    """Raise ``ModelError`` if a model is not compiled."""
    if getattr(model, "optimizer", None) is None:
        raise ModelError(
            f"Expected a compiled model, {purpose}. Received: '{model.name}', not compiled. Call model.compile."
        )
