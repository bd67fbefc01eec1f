"""TrainingRuns: training plans are evaluated by short trainings, compared with one in the first choice."""

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
from keras_precision.experiments.series import TimingSettings
from keras_precision.experiments.task import Task, check_data
from keras_precision.experiments.worker import serialize
from keras_precision.export.plan_space import Space, Unit
from keras_precision.export.units import check_choices
from keras_precision.mixed_precision.apply_plan import apply_plan
from keras_precision.search.evaluation.evaluator import Evaluation
from keras_precision.search.evaluation.mode import Mode, SearchInputs, check_compiled, describe_options
from keras_precision.search.groups import Grouping, group_layers
from keras_precision.search.objective.objective import SearchObjective
from keras_precision.search.objective.score import compiled_names
from keras_precision.search.strategy.local_search import Neighbourhood
from keras_precision.search.strategy.trials import TrialOutcome

__all__ = ["TrainingRuns", "TrainingSpace"]

_OPTIONS = ("epochs", "steps", "batch_size", "callbacks", "seeds", "processes", "resolution", "timing_seconds")
_DEFAULTS = {"seeds": (0,), "processes": 3, "timing_seconds": 10.0}
_BASELINE, _PLAN = "baseline", "plan"
_RATIOS = {"step_time_ratio": "step_time_ms", "peak_memory_ratio": "peak_memory_mb"}


@dataclass(frozen=True)
class TrainingSpace(Space):
    """All training plans of a search."""

    def plan(self, assignment: Sequence[str], reasons: Mapping[str, str] | None = None) -> PrecisionPlan:
        """Return a training plan of exact layer paths; a policy that all units share is its default."""
        if len(set(assignment)) == 1 and assignment:
            return PrecisionPlan.training(assignment[0])
        layers = {
            path: choice
            for unit, choice in zip(self.units, assignment, strict=True)
            for path in unit.paths
            if choice != self.baseline
        }
        used = {path: reason for path, reason in (reasons or {}).items() if path in layers}
        return PrecisionPlan.training(self.baseline, layers=layers, reasons=used)


class TrainingRuns(Mode):
    """Compares every plan with the baseline by ``kp.compare_training``, which interleaves trainings in processes."""

    name: ClassVar[str] = "training"

    def __init__(
        self, model: Any, choices: Sequence[str], objective: SearchObjective, *, groups: Grouping = "block"
    ) -> None:
        self.model, self.objective, self.choices = model, objective, check_choices(choices, "training")
        check_compiled(model, "to train it")
        logged = compiled_names(model)
        if objective.score is not None and objective.score.logged not in logged:
            raise InputError(
                f"Expected a metric that the model is compiled with: {', '.join(logged)}. Received: '{objective.score.logged}', which its "
                "trainings do not log. Compile it with that metric."
            )
        layers = layer_paths(model)
        weighted = {path for path, layer in layers.items() if getattr(layer, "weights", ())}
        units = tuple(
            Unit(name, paths, self.choices)
            for name, paths in group_layers(layers, groups).items()
            if weighted.intersection(paths)
        )
        if not units:
            raise PlanError(
                f"Expected layers with weights to choose for. Received: '{model.name}', with none. "
                "Pass a model with weights, or other groups."
            )
        self.space = TrainingSpace(units, self.choices[0])
        self.reference_figures = {}
        self._inputs = SearchInputs()

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Accept the options of ``kp.compare_training`` that control the runs."""
        unknown = sorted(set(options) - set(_OPTIONS))
        if unknown:
            raise InputError(
                f"Expected x, y, validation_data, verbose, lease_s, {', '.join(_OPTIONS)}. Received: {', '.join(unknown)}. "
                "Leave the others out."
            )

    def set_training(self, inputs: SearchInputs) -> dict[str, str]:
        """Store data and options of the runs, after the checks of ``kp.compare_training``."""
        if inputs.x is None or inputs.validation is None:
            missing = "data to train with" if inputs.x is None else "validation data"
            raise DataError(f"Expected {missing}. Received: None. Pass them to search(x, y, validation_data=(x, y)).")
        task_options = {
            field.name: inputs.options[field.name] for field in fields(Task) if field.name in inputs.options
        }
        data = check_data(inputs.training_data(), "training data"), check_data(inputs.validation, "validation data")
        task = Task(_BASELINE, *data, **task_options)
        options = {"resolution": 0.02, **_DEFAULTS, **inputs.options}
        check_numbers(
            task,
            options["seeds"],
            TimingSettings(options["processes"], options["resolution"], options["timing_seconds"]),
        )
        serialize(task, "data and callbacks")
        self._inputs = inputs
        return {"training": describe_options(inputs.options)}

    def needs_training(self, values: Mapping[str, Any]) -> bool:
        """Always true."""
        return True

    def prepare(self, inputs: SearchInputs) -> dict[str, str]:
        """Return the groups: the space does not depend on data."""
        layers = hashlib.blake2b(json.dumps([unit.paths for unit in self.space.units]).encode(), digest_size=8)
        return {"groups": ", ".join(unit.name for unit in self.space.units), "layers of groups": layers.hexdigest()}

    def check_budget(self) -> None:
        """Do nothing: the baseline loses nothing, so it is within every budget."""

    def rounds(self, tolerance: float) -> Neighbourhood:
        """Return the neighbourhood of the best plan so far."""
        return Neighbourhood(self.space, self.objective.goal(self.reference_figures))

    def evaluate(self, values: Mapping[str, str], folder: Path) -> Evaluation:
        """Train the plan and the baseline, and compare them; a ratio that does not differ from 1 significantly is 1."""
        plan = self.space.plan(self.space.assignment(values))
        baseline = self.space.plan(self.space.start)
        options: dict[str, Any] = {**_DEFAULTS, **self._inputs.options}
        data = self._inputs.training_data(), self._inputs.validation
        metric = None if self.objective.score is None else self.objective.score.logged
        with tempfile.TemporaryDirectory() as temporary:
            saved = Path(temporary) / "model.keras"
            self.model.save(saved)
            comparison = compare_training(
                saved, *data, {_BASELINE: baseline, _PLAN: plan}, verbose=False, **options, metric=metric
            )
        figures = self._figures(comparison)
        if figures["diverged_share"] > 0:
            raise SearchError(
                f"Expected a training that stays finite. Received: NaN or infinity in {figures['diverged_share']:.0%} of the seeds. "
                "Keep sensitive layers in float32, or use a lower learning rate."
            )
        return Evaluation(figures, [])

    def model_of(self, values: Mapping[str, str], folder: Path) -> Any:
        """Return a compiled copy of the model with the plan, and with the weights from before the search."""
        return apply_plan(self.model, self.space.plan(self.space.assignment(values)))

    def write(
        self, outcome: TrialOutcome, plan: PrecisionPlan, folder: Path, path: Path, options: Mapping[str, Any]
    ) -> Result:
        """Raise: a training plan has no file."""
        raise ExportError(
            "Expected a deployment plan to export. Received: a training plan. Train "
            "kp.apply_plan(model, tuner.best_plan), and export the trained model."
        )

    def verify(self, outcome: TrialOutcome, plan: PrecisionPlan) -> None:
        """Do nothing: a plan was applied and trained to be evaluated."""

    @property
    def axes(self) -> Sequence[str]:
        """Step time, and the metric drop or, without a metric, peak memory."""
        return ["step_time_ratio", *(["metric_drop"] if self.objective.score is not None else ["peak_memory_ratio"])]

    def result(self, outcome: TrialOutcome, plan: PrecisionPlan) -> Result:
        """Return the figures of the comparison."""
        source = f"a training interleaved with one in {self.space.baseline}, in separate processes"
        backend = adapter_of(self.model).compute.name
        return outcome.result(plan, "", backend, dict.fromkeys(outcome.figures, source))

    def _figures(self, comparison: Comparison) -> dict[str, float]:
        figures = {}
        for name, metric in _RATIOS.items():
            with contextlib.suppress(NotMeasuredError):  # not every backend measures memory
                differs = comparison.verdict(metric, _PLAN) != "inconclusive"
                figures[name] = comparison.interval(metric, _PLAN).estimate if differs else 1.0
        figures["diverged_share"] = float(comparison.result(_PLAN).value("diverged_share"))
        score = self.objective.score
        if score is not None:
            before, after = (
                float(comparison.result(run).value(f"val_{score.logged}", "fit")) for run in (_BASELINE, _PLAN)
            )
            figures |= {score.name: after, "metric_drop": score.drop(before, after)}
        return figures
