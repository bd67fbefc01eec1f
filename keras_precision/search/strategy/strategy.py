"""Strategy: which plans to run next, from the results of the plans before; independent of KerasTuner."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from keras_precision.export.plan_space import Assignment, Space
from keras_precision.scoring.divergence import Outputs
from keras_precision.search.objective.goal import Goal
from keras_precision.search.objective.score import Score
from keras_precision.search.strategy.candidates import COSTS, Candidates, PredictedPlan
from keras_precision.search.strategy.error_model import ErrorModel
from keras_precision.search.strategy.trials import TrialOutcome, best_of, front_of, spread_evenly

__all__ = ["Strategy"]

_CANDIDATES = 48  # candidates per round whose outputs are predicted
_CANDIDATES_ALONG = 480  # the same if a cost is minimized: the metric may allow plans far from the float model
_RECENT = 12  # predictions from which the accuracy of the error model is estimated
_DEFAULT_ERROR = (
    0.005  # assumed error of a predicted metric, as a share of the float model's, for the first predictions
)
_FEW = 6
_PER_STEP = 8  # plans per size along the front
_TINY = 1e-12
_METRIC_TOLERANCE = 0.1  # factor of the tolerance if the metric is optimized: two percent of an accuracy would be much


@dataclass
class Strategy:
    """Rounds of plans: first single changes of the baseline, then solutions of the integer program and neighbours.

    The same results lead to the same rounds, with any number of workers. ``reference`` are the outputs of the float model,
    ``bound`` is the best cost that the model of errors allows, and ``gap`` by what share that is below the best plan's.
    """

    space: Space
    goal: Goal
    reference: Outputs
    labels: npt.NDArray[np.generic] | None = None
    score: Score | None = None
    reference_score: float = math.nan
    tolerance: float = 0.02
    round_size: int = 3
    gap: float | None = None
    bound: float | None = None
    _model: ErrorModel = field(init=False)
    _figures: dict[Assignment, dict[str, float]] = field(default_factory=dict)
    _failed: set[Assignment] = field(default_factory=set)
    _predicted: dict[Assignment, dict[str, float]] = field(default_factory=dict)
    _errors: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start with the outputs of the float model."""
        self._model = ErrorModel(self.reference, self.space.start)

    def first_round(self) -> list[Assignment]:
        """Return the plans that the model of errors needs: the baseline, and its single changes."""
        return [self.space.start, *self.space.single()]

    def learn(self, assignment: Assignment, figures: Mapping[str, float], predictions: Outputs) -> None:
        """Add the figures and outputs of a plan."""
        self._failed.discard(assignment)  # it may have failed before
        self._model.learn(assignment, predictions)
        self._figures[assignment] = dict(figures)
        predicted = self._predicted.get(assignment)
        if predicted is not None:
            ratio = figures["divergence"] / predicted["divergence"] if predicted["divergence"] > 0 else 1.0
            self._errors.append((ratio, predicted.get("metric_drop", 0.0) - figures.get("metric_drop", 0.0)))

    def fail(self, assignment: Assignment) -> None:
        """Add a plan that cannot be run; after a failed single change, its choice is no longer used for the unit."""
        self._failed.add(assignment)

    def best(self) -> TrialOutcome | None:
        """Return the best plan within the budget, or None."""
        return best_of([TrialOutcome("", plan, figures) for plan, figures in self._figures.items()], self.goal)

    def next_round(self) -> list[Assignment]:
        """Return at most ``round_size`` plans, or none if no plan promises an improvement above the tolerance."""
        candidates = self._candidates()
        if candidates is None:
            return []
        chosen = self._on_the_front(candidates) if self.goal.figure == "front" else self._towards_the_goal(candidates)
        self._predicted.update({plan.assignment: dict(plan.figures) for plan in chosen})
        return [plan.assignment for plan in chosen]

    def finalists(self, count: int) -> list[Assignment]:
        """Return at most ``count`` plans for which a training may pay.

        If a cost is minimized, these are plans at even steps from the cost of the best plan down to the least possible
        cost, with the least predicted divergence at every step. For a front they are plans along it, else the best plans.
        """
        outcomes = [TrialOutcome("", plan, figures) for plan, figures in self._figures.items() if _is_quantized(plan)]
        if not outcomes:
            return []
        if self.goal.figure == "front":
            quality = "divergence" if self.score is None else "metric_drop"
            return [point.assignment for point in spread_evenly(front_of(outcomes, ["size_bytes", quality]), count)]
        if self.goal.figure in COSTS:
            return self._ladder(self.goal.figure, count)
        feasible = [outcome for outcome in outcomes if self._within(outcome.figures)] or outcomes
        best = sorted(feasible, key=lambda outcome: self.goal.cost(outcome.figures))[:count]
        return [outcome.assignment for outcome in best]

    def _ladder(self, figure: str, count: int) -> list[Assignment]:
        """Return plans from the best to the cheapest possible one."""
        best = self.best()
        candidates = self._candidates()
        top = max(figures[figure] for figures in self._figures.values()) if best is None else best.figures[figure]
        plans = [] if best is None or not _is_quantized(best.assignment) else [best.assignment]
        if candidates is not None:
            lowest = candidates.steps(figure, self._figures.values())[0] * (1 + _TINY)
            for limit in np.linspace(top, lowest, count)[len(plans) :]:
                known = [
                    PredictedPlan(plan, figures)
                    for plan, figures in self._figures.items()
                    if figures[figure] <= limit and plan not in self._failed
                ]
                predicted = self._predict(candidates.within({figure: float(limit)}, 1))
                quantized = [plan for plan in (*known, *predicted) if _is_quantized(plan.assignment)]
                nearest = min(quantized, key=lambda plan: plan.figures["divergence"], default=None)
                if nearest is not None and nearest.assignment not in plans:
                    plans.append(nearest.assignment)
        return plans[:count]

    def _candidates(self) -> Candidates | None:
        """Return plans that were not run, or None as long as the baseline was not run."""
        if self.space.start not in self._figures:
            return None
        return Candidates.of(self.space, self._model, self._figures, self._failed)

    def _towards_the_goal(self, candidates: Candidates) -> list[PredictedPlan]:
        """Return the plans that may be better than the best, the most promising first; set gap and bound."""
        best = self.best()
        here = math.inf if best is None else self.goal.cost(best.figures)
        plans = self._predict_candidates(candidates, best)
        feasible = [plan for plan in plans if self._within(self._optimistic(plan.figures))]
        costs = [self.goal.cost(self._optimistic(plan.figures)) for plan in feasible]
        self._set_gap(here, min(costs, default=here))
        if best is None:
            plans.sort(key=lambda plan: (self.goal.budget.excess(plan.figures), self.goal.cost(plan.figures)))
            return plans[: self.round_size]
        factor = _METRIC_TOLERANCE if self.score is not None and self.goal.figure == self.score.name else 1.0
        threshold = here - factor * self.tolerance * abs(here)
        better = [plan for plan, cost in zip(feasible, costs, strict=True) if cost < threshold]
        better.sort(key=lambda plan: (not self._within(plan.figures), self.goal.cost(plan.figures)))
        return better[: self.round_size]

    def _on_the_front(self, candidates: Candidates) -> list[PredictedPlan]:
        """Return plans that should diverge less than all plans of their size, by the largest ratio; set the gap."""
        pool = {
            plan.assignment: plan
            for limit in candidates.steps("size_bytes", self._figures.values())
            for plan in candidates.within({"size_bytes": limit}, _PER_STEP)
        }
        ranked: list[tuple[float, PredictedPlan]] = []
        for plan in self._predict(pool.values()):
            size = plan.figures["size_bytes"]
            here = [figures["divergence"] for figures in self._figures.values() if figures["size_bytes"] <= size]
            ratio = plan.figures["divergence"] / max(min(here), _TINY) if here else 0.0
            if self._within(plan.figures) and ratio < 1 - self.tolerance:
                ranked.append((ratio, plan))
        ranked.sort(key=lambda item: item[0])
        self.gap = 1 - ranked[0][0] if ranked else 0.0
        return [plan for _, plan in ranked[: self.round_size]]

    def _predict_candidates(self, candidates: Candidates, best: TrialOutcome | None) -> list[PredictedPlan]:
        limits = {
            name: limit for name, limit in self.goal.budget.limits().items() if name in ("size_bytes", "latency_ms")
        }
        if self.goal.figure in candidates.costs:
            figures = None if best is None else best.figures
            return self._predict(candidates.along(self.goal.figure, limits, _CANDIDATES_ALONG, figures))
        return self._predict(candidates.within(limits, _CANDIDATES))

    def _predict(self, plans: Iterable[PredictedPlan]) -> list[PredictedPlan]:
        return [PredictedPlan(plan.assignment, self._predict_figures(plan)) for plan in plans]

    def _predict_figures(self, plan: PredictedPlan) -> dict[str, float]:
        """Return the figures of a candidate, computed from its predicted outputs."""
        outputs = self._model.predict(plan.assignment)
        figures = {**plan.figures, "divergence": self._model.divergence(outputs)}
        if self.score is not None and self.labels is not None:
            value = self.score.compute(self.labels, outputs[0])
            figures |= {self.score.name: value, "metric_drop": self.score.drop(self.reference_score, value)}
        return figures

    def _within(self, figures: Mapping[str, float]) -> bool:
        return self.goal.budget.is_satisfied_by(figures)

    def _optimistic(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Return predicted figures, improved by the largest recent errors of predictions."""
        recent = self._errors[-_RECENT:]
        ratio = min([1.0, *(ratio for ratio, _ in recent)])
        default = _DEFAULT_ERROR * abs(self.reference_score) if len(recent) < _FEW else 0.0
        slack = max([default, *(drop for _, drop in recent)])
        better = dict(figures) | {"divergence": figures["divergence"] * ratio}
        if self.score is not None:
            better["metric_drop"] = figures["metric_drop"] - slack
            better[self.score.name] = figures[self.score.name] + (slack if self.score.direction == "max" else -slack)
        return better

    def _set_gap(self, here: float, promised: float) -> None:
        self.bound = min(here, promised) if math.isfinite(here) else None
        self.gap = None
        if self.bound is not None:
            self.gap = (here - self.bound) / abs(here) if here else here - self.bound


def _is_quantized(plan: Assignment) -> bool:
    """Whether a plan has any layer to train for."""
    return set(plan) != {"float32"}
