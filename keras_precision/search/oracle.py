"""PrecisionOracle: the search strategy as an oracle of KerasTuner."""

from collections.abc import Iterable
from typing import Any

from keras_precision.core.errors import InputError
from keras_precision.core.system.optional import require
from keras_precision.export.plan_space import Assignment
from keras_precision.search.checkpoint import Project
from keras_precision.search.distributed.saved_oracle import damaged_oracle
from keras_precision.search.evaluation.mode import EVALUATION, Rounds, is_finalist

__all__ = ["PrecisionOracle"]

_tuner: Any = require("keras_tuner", extra="search")


class PrecisionOracle(_tuner.Oracle):
    """Proposes plans round by round; a round starts when all trials of the one before have ended.

    ``max_trials`` of None allows the first round and thirty trials more; the other arguments are as in KerasTuner.
    """

    def __init__(
        self, max_trials: int | None = None, max_retries_per_trial: int = 0, max_consecutive_failed_trials: int = 3
    ) -> None:
        super().__init__(
            objective=_tuner.Objective("score", "min"),
            max_trials=max_trials,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
            seed=1,  # unused: the strategy is deterministic
        )
        self.max_trials: int | None
        self.strategy: Rounds | None = None
        self._project: Project | None = None
        self._rounds: list[list[Assignment]] = []
        self._learned: set[Assignment] = set()
        self._is_exhausted = False
        self._gap: float | None = None
        self._finalist_count = 0
        self._count_at_choice = 0  # the finalist count when the finalists were chosen
        self._finalists: list[Assignment] | None = None

    def check_room(self, finalists: int) -> None:
        """Raise ``InputError`` if ``max_trials`` leaves no room for more finalists than before."""
        needed = len(self.trials) + finalists
        if self.trials and self._count_at_choice < finalists and needed > (self.max_trials or needed):
            raise InputError(
                f"Expected max_trials >= {needed}, for {finalists} finalists behind the {len(self.trials)} trials that there are. "
                f"Received: {self.max_trials}."
            )

    def attach(self, strategy: Rounds, project: Project, more: int = 30, finalists: int = 0) -> None:
        """Set a new strategy, and replay the finished rounds into it from the evaluations in the project.

        ``more`` is the number of trials after the first round if ``max_trials`` is None; ``finalists`` is the number
        of plans that are trained after the search.
        """
        self.strategy, self._project, self._learned, self._finalist_count = strategy, project, set(), finalists
        self._is_exhausted = False
        if self._count_at_choice < finalists:
            self._finalists = None
        rounds, self._rounds = self._rounds, [strategy.first_round()]
        with damaged_oracle(project.folder / "oracle.json"):
            for plan in (plan for plans in rounds for plan in plans):
                strategy.space.check(plan)
        if self.max_trials is None:
            self.max_trials = len(self._rounds[0]) + more + finalists
        for known in rounds[1:]:  # in the order of the first run, so that the rounds that follow are the same
            self._learn()
            strategy.next_round()
            self._rounds.append(known)
        if self._gap is not None:  # from a last round without plans, which is not in self._rounds
            strategy.gap = self._gap

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Return ``status``, and ``values`` if there is a plan to run; idle while trials of the round still run."""
        assert self.strategy is not None, "attach comes first"
        trials = self._trials_by_plan(finalists=False)
        # All trials count, also those of earlier finalists that are not chosen again.
        while not self._is_exhausted and (
            self.max_trials is None or len(self.trials) < self.max_trials - self._finalist_count
        ):
            waiting = [plan for plan in self._rounds[-1] if plan not in trials]
            if waiting:
                self._finalists = None  # the search continues with more trials than before, so they are chosen again
                return self._trial(waiting[0], "post_training")
            if self._is_any_running(trials.values()):
                return {"status": _tuner.engine.trial.TrialStatus.IDLE}
            self._learn()
            plans = self.strategy.next_round()
            if plans:
                self._rounds.append(plans)
            else:
                self._is_exhausted = True
        return self._next_finalist()

    def _next_finalist(self) -> dict[str, Any]:
        """Return the next plan to train; idle while trials run on which the choice of finalists depends."""
        assert self.strategy is not None
        if self._finalist_count and self._finalists is None:
            if self._is_any_running(self.trials.values()):
                return {"status": _tuner.engine.trial.TrialStatus.IDLE}
            self._learn()
            self._finalists = self.strategy.finalists(self._finalist_count)
            self._count_at_choice = self._finalist_count
        trained = self._trials_by_plan(finalists=True)
        waiting = [plan for plan in self._finalists or [] if plan not in trained]
        if waiting:
            return self._trial(waiting[0], "quantization_aware")
        return {"status": _tuner.engine.trial.TrialStatus.STOPPED}

    def _is_any_running(self, trials: Iterable[Any]) -> bool:
        return any(trial.trial_id not in self.end_order for trial in trials)

    def _trial(self, plan: Assignment, evaluation: str) -> dict[str, Any]:
        assert self.strategy is not None
        values = self.strategy.space.values(plan) | ({EVALUATION: evaluation} if self._finalist_count else {})
        return {"status": _tuner.engine.trial.TrialStatus.RUNNING, "values": values}

    def get_state(self) -> dict[str, Any]:
        """Return the state of KerasTuner's oracles with the rounds, the finalists and the gap, for resuming."""
        rounds = [[list(plan) for plan in plans] for plans in self._rounds]
        finalists = None if self._finalists is None else [list(plan) for plan in self._finalists]
        gap = self._gap if self.strategy is None else self.strategy.gap
        own = {"rounds": rounds, "finalists": finalists, "finalists_wanted": self._count_at_choice, "gap": gap}
        return {**super().get_state(), **own}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the state from ``get_state``."""
        super().set_state(state)
        self._rounds = [[tuple(plan) for plan in plans] for plans in state["rounds"]]
        self._gap = state.get("gap")
        finalists = state.get("finalists")
        self._finalists = None if finalists is None else [tuple(plan) for plan in finalists]
        self._count_at_choice = state.get("finalists_wanted", len(finalists or []))

    def _learn(self) -> None:
        """Add the evaluations of the rounds to the strategy, in the order of the rounds, whichever worker ran them.

        Trials that failed, or that run again, stay out of ``_learned``, so that a later call reads them again.
        """
        assert self.strategy is not None
        assert self._project is not None
        trials = self._trials_by_plan(finalists=False)
        for plan in (plan for plans in self._rounds for plan in plans if plan not in self._learned):
            trial = trials.get(plan)
            completed = trial is not None and trial.status == _tuner.engine.trial.TrialStatus.COMPLETED
            evaluation = self._project.load_evaluation(trial) if trial is not None and completed else None
            if evaluation is None:
                self.strategy.fail(plan)
            else:
                with self._project.damage_of(trial, "evaluation.npz"):
                    self.strategy.learn(plan, evaluation.figures, evaluation.predictions)
                self._learned.add(plan)

    def _trials_by_plan(self, *, finalists: bool) -> dict[Assignment, Any]:
        """Return plan to trial, for the trials of the search or for the finalists that are trained after it."""
        assert self.strategy is not None
        space, pairs = self.strategy.space, [(trial.hyperparameters.values, trial) for trial in self.trials.values()]
        return {space.assignment(values): trial for values, trial in pairs if is_finalist(values) == finalists}
