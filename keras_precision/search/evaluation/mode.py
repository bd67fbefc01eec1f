"""Mode: how a search judges a plan, and what comes of the best one."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from keras_precision.core.errors import InputError, ModelError
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Result
from keras_precision.export.plan_space import Assignment, Space
from keras_precision.scoring.divergence import Answers
from keras_precision.search.evaluation.evaluator import Evaluation
from keras_precision.search.strategy.trials import Outcome

__all__ = ["EVALUATION", "Given", "Mode", "Rounds", "check_compiled", "described", "is_finalist"]

EVALUATION = "evaluation"
"""The hyperparameter that says how a trial is judged, where a search judges in two ways."""

_MOST = 16  # numbers of a list, such as seeds, that tell one search from another


class Given(NamedTuple):
    """What a search is given.

    Attributes:
        representative: Samples to calibrate with, or a calibration.
        validation: What plans are judged on: ``(samples, labels)``, or samples.
        x: Samples to train with; None where nothing is trained.
        y: Their labels; None where ``x`` has them.
        options: Of the training.
    """

    representative: Any = None
    validation: Any = None
    x: Any = None
    y: Any = None
    options: Mapping[str, Any] = {}

    def behind(self, own: "Given", used: "Given | None") -> "Given":
        """Return what a search is given, with what is known already.

        Args:
            own: What the tuner was given, which comes first.
            used: What a search before was given, which comes last.

        Returns:
            This, with the representative and the validation data to use.
        """
        order = (own, self, used or Given())
        representative = next((each.representative for each in order if each.representative is not None), None)
        validation = next((each.validation for each in order if each.validation is not None), None)
        return self._replace(representative=representative, validation=validation)

    def pair(self) -> Any:
        """Return what is trained with.

        Returns:
            ``(x, y)``, or ``x`` where that has its labels.
        """
        return self.x if self.y is None else (self.x, self.y)

    def is_judged_like(self, other: "Given") -> bool:
        """Tell whether plans are made and judged with the same data.

        Args:
            other: What was given before.

        Returns:
            Whether these are the very same objects.
        """
        return self.representative is other.representative and self.validation is other.validation


class Rounds(Protocol):
    """Plans to run, round by round. The same evidence gives the same rounds."""

    space: Space
    gap: float | None

    def first_round(self) -> list[Assignment]:
        """Return the plans that come first."""
        ...

    def next_round(self) -> list[Assignment]:
        """Return the plans to run next; none where the search has ended."""
        ...

    def finalists(self, count: int) -> list[Assignment]:
        """Return the plans that are worth a judgement that takes longer."""
        ...

    def learn(self, assignment: Assignment, figures: Mapping[str, float], answers: Answers) -> None:
        """Take in what a plan cost and answered."""
        ...

    def fail(self, assignment: Assignment) -> None:
        """Take in that a plan cannot be run."""
        ...


class Mode(ABC):
    """One way to judge plans.

    Attributes:
        name: What ``evaluation=`` calls it.
        choices: The precisions that are chosen among.
        space: The plans; there once ``prepare`` has run.
        reference_figures: What the float model costs and scores.
    """

    name: ClassVar[str]
    choices: tuple[str, ...]
    space: Space
    reference_figures: dict[str, float]

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise for options of ``search`` that this way has no use for.

        Args:
            options: By name.

        Raises:
            InputError: One is unknown.
        """
        if options:
            raise InputError(
                f"Expected x, y, validation_data, verbose or lease_s. Received: {', '.join(sorted(options))}. No model is trained here; "
                "with evaluation='quantization_aware' or 'training' one is."
            )

    def train_with(self, given: Given) -> dict[str, str]:
        """Take what plans are trained with, if they are.

        Args:
            given: The data, and the options of the training.

        Returns:
            What tells this search from others, as text.

        Raises:
            DataError: There are no data, where some are needed.
            InputError: An option cannot be used.
        """
        return {}

    def trains(self, values: Mapping[str, Any]) -> bool:
        """Tell whether a trial is judged by a training.

        Args:
            values: Its hyperparameters.

        Returns:
            Whether it is.
        """
        return False

    @abstractmethod
    def prepare(self, given: Given) -> dict[str, str]:
        """Check the data that plans are judged on, and find the space.

        Args:
            given: The data.

        Returns:
            What tells this search from others, as text.
        """

    @abstractmethod
    def check_budget(self) -> None:
        """Raise where no plan can meet the budget."""

    @abstractmethod
    def rounds(self, tolerance: float) -> Rounds:
        """Return which plans to run.

        Args:
            tolerance: The gap at which the search ends.

        Returns:
            New rounds.
        """

    @abstractmethod
    def judge(self, values: Mapping[str, str], folder: Path) -> Evaluation:
        """Judge a plan.

        Args:
            values: The hyperparameters of a trial.
            folder: Its folder, which may not be there yet.

        Returns:
            What it costs and answers.
        """

    @abstractmethod
    def model_of(self, values: Mapping[str, str], folder: Path) -> Any:
        """Return a Keras model in the plan of a trial.

        Args:
            values: Its hyperparameters.
            folder: Its folder.

        Returns:
            The model.
        """

    @abstractmethod
    def write(
        self, outcome: Outcome, plan: PrecisionPlan, folder: Path, path: Path, options: Mapping[str, Any]
    ) -> Result:
        """Write the file of a plan.

        Args:
            outcome: A trial that has ended well.
            plan: Its plan.
            folder: Its folder.
            path: Where the file goes.
            options: As for the export.

        Returns:
            The result of the export.
        """

    @property
    @abstractmethod
    def axes(self) -> Sequence[str]:
        """The figures of a front, of which less is better."""

    @abstractmethod
    def result(self, outcome: Outcome, plan: PrecisionPlan) -> Result:
        """Return the outcome of a trial as a result.

        Args:
            outcome: The outcome.
            plan: Its plan.

        Returns:
            A row for each figure.
        """

    def hyperparameters(self, space: Any, *, every: bool) -> None:
        """Add what a trial of this search chooses.

        Args:
            space: KerasTuner's space, which is added to.
            every: Whether an oracle that knows no finalists chooses.
        """
        for unit, usual in zip(self.space.units, self.space.start, strict=True):
            space.Choice(unit.name, list(unit.choices), default=usual)


def is_finalist(values: Mapping[str, Any]) -> bool:
    """Tell whether a trial is one of the last, which are judged by more than the others.

    Args:
        values: Its hyperparameters.

    Returns:
        Whether it is.
    """
    return values.get(EVALUATION) == "quantization_aware"


def described(options: Mapping[str, Any]) -> str:
    """Return the options of a training as text, to tell searches apart.

    Args:
        options: By name.

    Returns:
        Those that are numbers, texts, or short lists of them, by name; nothing of others, such as callbacks or weights.
    """
    return ", ".join(f"{name}={value!r}" for name, value in sorted(options.items()) if _is_short(value))


def _is_short(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) <= _MOST and all(isinstance(each, str | int | float) for each in value)
    return isinstance(value, str | int | float)


def check_compiled(model: Any, why: str) -> None:
    """Raise where a model cannot be trained as it is.

    Args:
        model: The model.
        why: What it would be trained for.

    Raises:
        ModelError: It is not compiled.
    """
    if getattr(model, "optimizer", None) is None:
        raise ModelError(
            f"Expected a compiled model, {why}. Received: '{model.name}', not compiled. Call model.compile."
        )
