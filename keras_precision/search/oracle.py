"""PrecisionOracle: the strategy as an oracle of KerasTuner."""

from collections.abc import Iterable
from typing import Any

from keras_precision.core.errors import InputError
from keras_precision.core.system.optional import require
from keras_precision.export.plan_space import Assignment
from keras_precision.search.checkpoint import Project
from keras_precision.search.evaluation.mode import EVALUATION, Rounds, is_finalist

__all__ = ["PrecisionOracle"]

_tuner: Any = require("keras_tuner", extra="search")


class PrecisionOracle(_tuner.Oracle):
    """Hands out the plans of each round, and asks for the next round when all of one have ended.

    Args:
        max_trials: Trials at most; None: those of the first round, and thirty more.
        max_retries_per_trial: As in KerasTuner.
        max_consecutive_failed_trials: As in KerasTuner.
    """

    def __init__(
        self, max_trials: int | None = None, max_retries_per_trial: int = 0, max_consecutive_failed_trials: int = 3
    ) -> None:
        super().__init__(
            objective=_tuner.Objective("score", "min"),
            max_trials=max_trials,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
            seed=1,  # nothing is drawn
        )
        self.max_trials: int | None
        self.strategy: Rounds | None = None
        self._project: Project | None = None
        self._rounds: list[list[Assignment]] = []
        self._learned: set[Assignment] = set()
        self._is_exhausted = False
        self._gap: float | None = None
        self._wanted = 0
        self._chosen_of = 0  # how many were wanted when the finalists were chosen
        self._finalists: list[Assignment] | None = None

    def check_room(self, finalists: int) -> None:
        """Raise where there are too many trials to train more finalists than before.

        Args:
            finalists: How many are wanted.

        Raises:
            InputError: ``max_trials`` is too small.
        """
        needed = len(self.trials) + finalists
        if self.trials and self._chosen_of < finalists and needed > (self.max_trials or needed):
            raise InputError(
                f"Expected max_trials >= {needed}, for {finalists} finalists behind the {len(self.trials)} trials that there are. "
                f"Received: {self.max_trials}."
            )

    def attach(self, strategy: Rounds, project: Project, more: int = 30, finalists: int = 0) -> None:
        """Give the oracle what it chooses with, and let it learn from the trials that there are already.

        Args:
            strategy: The strategy, new.
            project: Where the outcomes of trials lie.
            more: Trials after the first round, where no number was given.
            finalists: How many plans are judged once more, by a training, when the search has ended.
        """
        self.strategy, self._project, self._learned, self._wanted = strategy, project, set(), finalists
        self._is_exhausted = False
        if self._chosen_of < finalists:
            self._finalists = None
        rounds, self._rounds = self._rounds, [strategy.first_round()]
        if self.max_trials is None:
            self.max_trials = len(self._rounds[0]) + more + finalists
        for known in rounds[1:]:  # as it went the first time, so that what follows is the same
            self._learn()
            strategy.next_round()
            self._rounds.append(known)
        if self._gap is not None:  # that of a last round which promised nothing, and so is not among the rounds
            strategy.gap = self._gap

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Return the next plan of the round.

        Args:
            trial_id: The trial that is to run it.

        Returns:
            ``status``, and ``values`` where there is a plan; idle while others of the round still run.
        """
        assert self.strategy is not None, "attach comes first"
        given = self._by_plan(finalists=False)
        # Finalists of before that are not chosen again take room as well.
        while not self._is_exhausted and (self.max_trials is None or len(self.trials) < self.max_trials - self._wanted):
            waiting = [plan for plan in self._rounds[-1] if plan not in given]
            if waiting:
                self._finalists = None  # of a search that goes on with more trials than before
                return self._running(waiting[0], "post_training")
            if self._any_runs(given.values()):
                return {"status": _tuner.engine.trial.TrialStatus.IDLE}
            self._learn()
            following = self.strategy.next_round()
            if following:
                self._rounds.append(following)
            else:
                self._is_exhausted = True
        return self._next_finalist()

    def _next_finalist(self) -> dict[str, Any]:
        """The next plan that is judged by a training; idle while trials run that say which these are."""
        assert self.strategy is not None
        if self._wanted and self._finalists is None:
            if self._any_runs(self.trials.values()):
                return {"status": _tuner.engine.trial.TrialStatus.IDLE}
            self._learn()
            self._finalists, self._chosen_of = self.strategy.finalists(self._wanted), self._wanted
        last = self._by_plan(finalists=True)
        waiting = [plan for plan in self._finalists or [] if plan not in last]
        if waiting:
            return self._running(waiting[0], "quantization_aware")
        return {"status": _tuner.engine.trial.TrialStatus.STOPPED}

    def _any_runs(self, trials: Iterable[Any]) -> bool:
        return any(trial.trial_id not in self.end_order for trial in trials)

    def _running(self, plan: Assignment, evaluation: str) -> dict[str, Any]:
        assert self.strategy is not None
        values = self.strategy.space.values(plan) | ({EVALUATION: evaluation} if self._wanted else {})
        return {"status": _tuner.engine.trial.TrialStatus.RUNNING, "values": values}

    def get_state(self) -> dict[str, Any]:
        """Return what resuming needs.

        Returns:
            The state of KerasTuner's oracles, and the rounds, the finalists and the gap so far.
        """
        rounds = [[list(plan) for plan in each] for each in self._rounds]
        finalists = None if self._finalists is None else [list(plan) for plan in self._finalists]
        gap = self._gap if self.strategy is None else self.strategy.gap
        own = {"rounds": rounds, "finalists": finalists, "finalists_wanted": self._chosen_of, "gap": gap}
        return {**super().get_state(), **own}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over what ``get_state`` returned.

        Args:
            state: The state.
        """
        super().set_state(state)
        self._rounds = [[tuple(plan) for plan in each] for each in state["rounds"]]
        self._gap = state.get("gap")
        finalists = state.get("finalists")
        self._finalists = None if finalists is None else [tuple(plan) for plan in finalists]
        self._chosen_of = state.get("finalists_wanted", len(finalists or []))

    def _learn(self) -> None:
        """Take in the outcomes of the rounds that have not been learned, in their order, whoever ran them.

        What failed, or is being tried again, is looked at another time, too.
        """
        assert self.strategy is not None
        assert self._project is not None
        trials = self._by_plan(finalists=False)
        for plan in (plan for plans in self._rounds for plan in plans if plan not in self._learned):
            trial = trials.get(plan)
            ended_well = trial is not None and trial.status == _tuner.engine.trial.TrialStatus.COMPLETED
            outcome = self._project.kept(trial.trial_id) if trial is not None and ended_well else None
            if outcome is None:
                self.strategy.fail(plan)
            else:
                self.strategy.learn(plan, outcome.figures, outcome.answers)
                self._learned.add(plan)

    def _by_plan(self, *, finalists: bool) -> dict[Assignment, Any]:
        """The trials so far by their plans: those of the search, or those that were trained behind it."""
        assert self.strategy is not None
        every = [(trial.hyperparameters.values, trial) for trial in self.trials.values()]
        space = self.strategy.space
        return {space.assignment(values): trial for values, trial in every if is_finalist(values) == finalists}
