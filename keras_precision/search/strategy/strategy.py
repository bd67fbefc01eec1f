"""Strategy: which plans to run next, from what the plans before answered. It knows nothing of KerasTuner."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from keras_precision.export.plan_space import Assignment, Space
from keras_precision.scoring.divergence import Answers
from keras_precision.search.objective.goal import Goal
from keras_precision.search.objective.score import Score
from keras_precision.search.strategy.candidates import COSTS, Candidates, Guess
from keras_precision.search.strategy.error_model import ErrorModel
from keras_precision.search.strategy.trials import Outcome, best_of, evenly, front_of

__all__ = ["Strategy"]

_CHECKED = 48  # candidates whose answers are predicted in each round
_CHECKED_ALONG = (
    480  # the same where a cost is minimised: the metric may allow what is not the nearest to the float model
)
_REMEMBERED = 12  # predictions that say how far the model is off
_DOUBT = 0.005  # of the float model's metric: how far a prediction is taken to be off until some are known
_FEW = 6
_PER_STEP = 8  # plans for each size along the front
_TINY = 1e-12
_FINER = 0.1  # a gap of a metric is a share of all that it is worth: two percent of an accuracy would be much


@dataclass
class Strategy:
    """Rounds of plans: first each layer alone, then what the integer program and its neighbours promise.

    The same evidence gives the same rounds, however many workers run them.

    Attributes:
        space: The plans.
        goal: What is looked for.
        reference: The float model's answers.
        truth: Labels; None where there are none.
        score: The metric of them.
        reference_score: What the float model scores.
        tolerance: The gap at which the search ends: 0.02 is two percent.
        round_size: Plans of a round, after the first.
    """

    space: Space
    goal: Goal
    reference: Answers
    truth: npt.NDArray[np.generic] | None = None
    score: Score | None = None
    reference_score: float = math.nan
    tolerance: float = 0.02
    round_size: int = 3
    gap: float | None = None
    bound: float | None = None
    _model: ErrorModel = field(init=False)
    _figures: dict[Assignment, dict[str, float]] = field(default_factory=dict)
    _failed: set[Assignment] = field(default_factory=set)
    _guesses: dict[Assignment, dict[str, float]] = field(default_factory=dict)
    _misses: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with the float model's answers alone."""
        self._model = ErrorModel(self.reference, self.space.start)

    @property
    def evidence(self) -> Mapping[Assignment, Mapping[str, float]]:
        """The figures of each plan that was run."""
        return self._figures

    def first_round(self) -> list[Assignment]:
        """Return the plans that the model of errors is made from.

        Returns:
            The baseline, and each unit alone in each of its other choices.
        """
        return [self.space.start, *self.space.single()]

    def learn(self, assignment: Assignment, figures: Mapping[str, float], answers: Answers) -> None:
        """Take in what a plan cost and answered.

        Args:
            assignment: The plan.
            figures: Its figures.
            answers: One array per output.
        """
        self._failed.discard(assignment)  # it was tried again
        self._model.learn(assignment, answers)
        self._figures[assignment] = dict(figures)
        guess = self._guesses.get(assignment)
        if guess is not None:
            ratio = figures["divergence"] / guess["divergence"] if guess["divergence"] > 0 else 1.0
            self._misses.append((ratio, guess.get("metric_drop", 0.0) - figures.get("metric_drop", 0.0)))

    def fail(self, assignment: Assignment) -> None:
        """Take in that a plan cannot be run.

        Args:
            assignment: The plan; alone, it takes the choice from the unit that it is about.
        """
        self._failed.add(assignment)

    def best(self) -> Outcome | None:
        """Return the best plan within the budget.

        Returns:
            The plan and its figures; None where no plan that was run keeps the budget.
        """
        return best_of([Outcome("", plan, figures) for plan, figures in self._figures.items()], self.goal)

    def next_round(self) -> list[Assignment]:
        """Return the plans to run next.

        Returns:
            At most ``round_size`` of them; none where no plan promises to be better by more than the tolerance.
        """
        candidates = self._candidates()
        if candidates is None:
            return []
        chosen = self._on_the_front(candidates) if self.goal.figure == "front" else self._towards_the_goal(candidates)
        self._guesses.update({each.assignment: dict(each.figures) for each in chosen})
        return [each.assignment for each in chosen]

    def finalists(self, count: int) -> list[Assignment]:
        """Return the plans for which a training may pay.

        Args:
            count: How many at the most.

        Returns:
            Where a cost is minimised: plans in even steps from the cost of the best one down to the least there is, of each
            cost the one that should diverge least. For a front: plans along it. Else the best plans within the budget.
        """
        outcomes = [Outcome("", plan, figures) for plan, figures in self._figures.items() if _quantizes(plan)]
        if not outcomes:
            return []
        if self.goal.figure == "front":
            quality = "divergence" if self.score is None else "metric_drop"
            return [each.assignment for each in evenly(front_of(outcomes, ["size_bytes", quality]), count)]
        if self.goal.figure in COSTS:
            return self._ladder(self.goal.figure, count)
        kept = [each for each in outcomes if self._within(each.figures)] or outcomes
        return [each.assignment for each in sorted(kept, key=lambda each: self.goal.cost(each.figures))[:count]]

    def _ladder(self, figure: str, count: int) -> list[Assignment]:
        """Plans from the best to the cheapest there is."""
        best = self.best()
        candidates = self._candidates()
        top = max(each[figure] for each in self._figures.values()) if best is None else best.figures[figure]
        found = [] if best is None or not _quantizes(best.assignment) else [best.assignment]
        if candidates is not None:
            lowest = candidates.steps(figure, self._figures.values())[0] * (1 + _TINY)
            for limit in np.linspace(top, lowest, count)[len(found) :]:
                known = [
                    Guess(plan, figures)
                    for plan, figures in self._figures.items()
                    if figures[figure] <= limit and plan not in self._failed
                ]
                hoped = self._guessed(candidates.within({figure: float(limit)}, 1))
                able = [each for each in (*known, *hoped) if _quantizes(each.assignment)]
                nearest = min(able, key=lambda each: each.figures["divergence"], default=None)
                if nearest is not None and nearest.assignment not in found:
                    found.append(nearest.assignment)
        return found[:count]

    def _candidates(self) -> Candidates | None:
        """Plans that were not run; None where the evidence cannot tell of any."""
        if self.space.start not in self._figures:
            return None
        return Candidates.of(self.space, self._model, self._figures, self._failed)

    def _towards_the_goal(self, candidates: Candidates) -> list[Guess]:
        """The candidates that may be better than the best, the most promising first; sets gap and bound."""
        best = self.best()
        here = math.inf if best is None else self.goal.cost(best.figures)
        guesses = self._predicted(candidates, best)
        hopeful = [each for each in guesses if self._within(self._optimistic(each.figures))]
        costs = [self.goal.cost(self._optimistic(each.figures)) for each in hopeful]
        self._note_gap(here, min(costs, default=here))
        if best is None:
            guesses.sort(key=lambda each: (self.goal.budget.excess(each.figures), self.goal.cost(each.figures)))
            return guesses[: self.round_size]
        finer = _FINER if self.score is not None and self.goal.figure == self.score.name else 1.0
        enough = here - finer * self.tolerance * abs(here)
        better = [each for each, cost in zip(hopeful, costs, strict=True) if cost < enough]
        better.sort(key=lambda each: (not self._within(each.figures), self.goal.cost(each.figures)))
        return better[: self.round_size]

    def _on_the_front(self, candidates: Candidates) -> list[Guess]:
        """What should diverge less than anything run that is as small, by the largest ratio; sets the gap."""
        pool = {
            guess.assignment: guess
            for limit in candidates.steps("size_bytes", self._figures.values())
            for guess in candidates.within({"size_bytes": limit}, _PER_STEP)
        }
        found: list[tuple[float, Guess]] = []
        for guess in self._guessed(pool.values()):
            size = guess.figures["size_bytes"]
            here = [each["divergence"] for each in self._figures.values() if each["size_bytes"] <= size]
            ratio = guess.figures["divergence"] / max(min(here), _TINY) if here else 0.0
            if self._within(guess.figures) and ratio < 1 - self.tolerance:
                found.append((ratio, guess))
        found.sort(key=lambda item: item[0])
        self.gap = 1 - found[0][0] if found else 0.0
        return [guess for _, guess in found[: self.round_size]]

    def _predicted(self, candidates: Candidates, best: Outcome | None) -> list[Guess]:
        limits = {
            name: limit for name, limit in self.goal.budget.limits().items() if name in ("size_bytes", "latency_ms")
        }
        if self.goal.figure in candidates.costs:
            return self._guessed(
                candidates.along(self.goal.figure, limits, _CHECKED_ALONG, None if best is None else best.figures)
            )
        return self._guessed(candidates.within(limits, _CHECKED))

    def _guessed(self, found: Iterable[Guess]) -> list[Guess]:
        return [Guess(each.assignment, self._figures_of(each)) for each in found]

    def _figures_of(self, guess: Guess) -> dict[str, float]:
        """The figures that a candidate should have, from the answers that it should give."""
        answers = self._model.predict(guess.assignment)
        figures = {**guess.figures, "divergence": self._model.divergence(answers)}
        if self.score is not None and self.truth is not None:
            value = self.score.compute(self.truth, answers[0])
            figures |= {self.score.name: value, "metric_drop": self.score.drop(self.reference_score, value)}
        return figures

    def _within(self, figures: Mapping[str, float]) -> bool:
        return self.goal.budget.is_satisfied_by(figures)

    def _optimistic(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Figures as good as the worst misses so far leave room for."""
        recent = self._misses[-_REMEMBERED:]
        ratio = min([1.0, *(ratio for ratio, _ in recent)])
        doubt = _DOUBT * abs(self.reference_score) if len(recent) < _FEW else 0.0
        slack = max([doubt, *(drop for _, drop in recent)])
        better = dict(figures) | {"divergence": figures["divergence"] * ratio}
        if self.score is not None:
            better["metric_drop"] = figures["metric_drop"] - slack
            better[self.score.name] = figures[self.score.name] + (slack if self.score.direction == "max" else -slack)
        return better

    def _note_gap(self, here: float, hoped: float) -> None:
        self.bound = min(here, hoped) if math.isfinite(here) else None
        self.gap = None
        if self.bound is not None:
            self.gap = (here - self.bound) / abs(here) if here else here - self.bound


def _quantizes(plan: Assignment) -> bool:
    """Whether there is anything in a plan that could be trained for."""
    return set(plan) != {"float32"}
