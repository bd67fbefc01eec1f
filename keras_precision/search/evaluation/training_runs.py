"""TrainingRuns: plans of training are judged by short trainings, compared with one in the first choice."""

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from keras_precision._adapters import adapter_of
from keras_precision._adapters.layer_paths import layer_paths
from keras_precision.comparison.comparison import Comparison
from keras_precision.core.errors import (
    DataError,
    ExportError,
    InputError,
    NotMeasuredError,
    PlanError,
    SearchError,
)
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Result
from keras_precision.experiments.compare_training import check_numbers, compare_training
from keras_precision.experiments.series import Watch
from keras_precision.experiments.task import Task, check_data
from keras_precision.experiments.worker import packed
from keras_precision.export.plan_space import Space, Unit
from keras_precision.export.units import check_choices
from keras_precision.mixed_precision.apply_plan import apply_plan
from keras_precision.search.evaluation.evaluator import Evaluation
from keras_precision.search.evaluation.mode import Given, Mode, check_compiled, described
from keras_precision.search.groups import Grouping, grouped
from keras_precision.search.objective.objective import Wishes
from keras_precision.search.objective.score import compiled_names
from keras_precision.search.strategy.local_search import Neighbourhood
from keras_precision.search.strategy.trials import Outcome

__all__ = ["TrainingRuns", "TrainingSpace"]

_OPTIONS = ("epochs", "steps", "batch_size", "callbacks", "seeds", "processes", "resolution", "timing_seconds")
_USUAL = {"seeds": (0,), "processes": 3, "timing_seconds": 10.0}
_BASELINE, _PLAN = "baseline", "plan"
_RATIOS = {"step_time_ratio": "step_time_ms", "peak_memory_ratio": "peak_memory_mb"}


@dataclass(frozen=True)
class TrainingSpace(Space):
    """All plans of training that a search may choose from."""

    def plan(self, assignment: Sequence[str], reasons: Mapping[str, str] | None = None) -> PrecisionPlan:
        """Return the plan that an assignment stands for.

        Args:
            assignment: A policy for each unit.
            reasons: Layer path to why.

        Returns:
            A training plan of exact paths; where all units have one policy, that is its default.
        """
        if len(set(assignment)) == 1 and assignment:
            return PrecisionPlan.training(assignment[0])
        layers = {
            path: choice
            for unit, choice in zip(self.units, assignment, strict=True)
            for path in unit.paths
            if choice != self.baseline
        }
        named = {path: why for path, why in (reasons or {}).items() if path in layers}
        return PrecisionPlan.training(self.baseline, layers=layers, reasons=named)


class TrainingRuns(Mode):
    """Each plan is trained beside the baseline, in processes that take turns, by ``kp.compare_training``.

    Args:
        model: A compiled model of Keras 3.
        choices: Policies, the baseline first.
        wishes: What is asked for.
        groups: Layers that are chosen for together, as for ``kp.PrecisionHyperModel``.

    Raises:
        InputError: The choices, or a limit of the budget, cannot be used.
        UnknownPrecisionError: A choice is no training precision.
        PlanError: There is nothing to choose for.
        ModelError: The model is not compiled.
    """

    name: ClassVar[str] = "training"

    def __init__(self, model: Any, choices: Sequence[str], wishes: Wishes, *, groups: Grouping = "block") -> None:
        self.model, self.wishes, self.choices = model, wishes, check_choices(choices, "training")
        check_compiled(model, "to train it")
        logged = compiled_names(model)
        if wishes.score is not None and wishes.score.logged not in logged:
            raise InputError(
                f"Expected a metric that the model is compiled with: {', '.join(logged)}. Received: '{wishes.score.logged}', which its "
                "trainings do not tell. Compile it with that metric."
            )
        layers = layer_paths(model)
        weighs = {path for path, layer in layers.items() if getattr(layer, "weights", ())}
        units = tuple(
            Unit(name, paths, self.choices)
            for name, paths in grouped(layers, groups).items()
            if weighs.intersection(paths)
        )
        if not units:
            raise PlanError(f"Expected layers with weights to choose for. Received: '{model.name}', with none.")
        self.space = TrainingSpace(units, self.choices[0])
        self.reference_figures = {}
        self._given = Given()

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Take those of ``kp.compare_training`` that say how long runs are."""
        unknown = sorted(set(options) - set(_OPTIONS))
        if unknown:
            raise InputError(
                f"Expected x, y, validation_data, verbose, lease_s, {', '.join(_OPTIONS)}. Received: {', '.join(unknown)}."
            )

    def train_with(self, given: Given) -> dict[str, str]:
        """Keep the data and options of the runs, checked as a comparison would check them."""
        if given.x is None or given.validation is None:
            what = "data to train with" if given.x is None else "validation data"
            raise DataError(f"Expected {what}. Received: None. Give them to search(x, y, validation_data=(x, y)).")
        named = {field.name: given.options[field.name] for field in fields(Task) if field.name in given.options}
        data = check_data(given.pair(), "training data"), check_data(given.validation, "validation data")
        task = Task(_BASELINE, *data, **named)
        options = {"resolution": 0.02, **_USUAL, **given.options}
        check_numbers(
            task, options["seeds"], Watch(options["processes"], options["resolution"], options["timing_seconds"])
        )
        packed(task, "data and callbacks")
        self._given = given
        return {"training": described(given.options)}

    def trains(self, values: Mapping[str, Any]) -> bool:
        """Every plan is."""
        return True

    def prepare(self, given: Given) -> dict[str, str]:
        """Tell what is chosen for: the space is known without data."""
        layers = hashlib.blake2b(json.dumps([unit.paths for unit in self.space.units]).encode(), digest_size=8)
        return {"groups": ", ".join(unit.name for unit in self.space.units), "layers of groups": layers.hexdigest()}

    def check_budget(self) -> None:
        """The baseline keeps every budget: it loses nothing."""

    def rounds(self, tolerance: float) -> Neighbourhood:
        """Return the neighbourhood of the best plan so far."""
        return Neighbourhood(self.space, self.wishes.goal(self.reference_figures))

    def judge(self, values: Mapping[str, str], folder: Path) -> Evaluation:
        """Train the plan and the baseline, and compare them.

        A ratio that the comparison does not show to differ from 1 is 1.
        """
        plan = self.space.plan(self.space.assignment(values))
        baseline = self.space.plan(self.space.start)
        options: dict[str, Any] = {**_USUAL, **self._given.options}
        with tempfile.TemporaryDirectory() as passing:
            saved = Path(passing) / "model.keras"
            self.model.save(saved)
            comparison = compare_training(
                saved, self._given.pair(), self._given.validation, {_BASELINE: baseline, _PLAN: plan}, verbose=False, **options,
                metric=None if self.wishes.score is None else self.wishes.score.logged,
            )  # fmt: skip
        figures = self._figures(comparison)
        if figures["diverged_share"] > 0:
            raise SearchError(
                f"Expected a training that stays finite. Received: NaN or infinity in {figures['diverged_share']:.0%} of the seeds."
            )
        return Evaluation(figures, [])

    def model_of(self, values: Mapping[str, str], folder: Path) -> Any:
        """Return a copy of the model in the plan, compiled as it is, with the weights of before the search."""
        return apply_plan(self.model, self.space.plan(self.space.assignment(values)))

    def write(
        self, outcome: Outcome, plan: PrecisionPlan, folder: Path, path: Path, options: Mapping[str, Any]
    ) -> Result:
        """Refuse: a plan of training makes no file."""
        raise ExportError(
            "Expected a plan of deployment to export. Received: one of training. Train with "
            "kp.apply_plan(model, tuner.best_plan), and export what comes of that."
        )

    @property
    def axes(self) -> Sequence[str]:
        """Time and, with a metric, quality."""
        return ["step_time_ratio", *(["metric_drop"] if self.wishes.score is not None else ["peak_memory_ratio"])]

    def result(self, outcome: Outcome, plan: PrecisionPlan) -> Result:
        """Return the figures of the comparison."""
        how = f"a training beside one in {self.space.baseline}, in processes that took turns"
        backend = adapter_of(self.model).compute.name
        return outcome.result(plan, "", backend, dict.fromkeys(outcome.figures, how))

    def _figures(self, comparison: Comparison) -> dict[str, float]:
        figures = {}
        for name, metric in _RATIOS.items():
            with contextlib.suppress(NotMeasuredError):  # a stack that tells no memory
                differs = comparison.verdict(metric, _PLAN) != "inconclusive"
                figures[name] = comparison.interval(metric, _PLAN).estimate if differs else 1.0
        figures["diverged_share"] = float(comparison.result(_PLAN).value("diverged_share"))
        score = self.wishes.score
        if score is not None:
            before, after = (
                float(comparison.result(run).value(f"val_{score.logged}", "fit")) for run in (_BASELINE, _PLAN)
            )
            figures |= {score.name: after, "metric_drop": score.drop(before, after)}
        return figures
