"""PrecisionOracle: the strategy as an oracle of KerasTuner."""

from typing import Any

from keras_precision.optional import require
from keras_precision.search.project import Project
from keras_precision.search.space import Assignment
from keras_precision.search.strategy import Strategy

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
        self.strategy: Strategy | None = None
        self._project: Project | None = None
        self._rounds: list[list[Assignment]] = []
        self._learned = 0  # rounds

    def attach(self, strategy: Strategy, project: Project, more: int = 30) -> None:
        """Give the oracle what it chooses with, and let it learn from the trials that there are already.

        Args:
            strategy: The strategy, new.
            project: Where the outcomes of trials lie.
            more: Trials after the first round, where no number was given.
        """
        self.strategy, self._project, self._learned = strategy, project, 0
        rounds, self._rounds = self._rounds, [strategy.first_round()]
        if self.max_trials is None:
            self.max_trials = len(self._rounds[0]) + more
        for known in rounds[1:]:  # as it went the first time, so that what follows is the same
            self._learn()
            strategy.next_round()
            self._rounds.append(known)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Return the next plan of the round.

        Args:
            trial_id: The trial that is to run it.

        Returns:
            ``status``, and ``values`` where there is a plan; idle while others of the round still run.
        """
        assert self.strategy is not None, "attach comes first"
        given = {self._assignment(trial) for trial in self.trials.values()}
        while True:
            waiting = [plan for plan in self._rounds[-1] if plan not in given]
            if waiting:
                return {
                    "status": _tuner.engine.trial.TrialStatus.RUNNING,
                    "values": self.strategy.space.values(waiting[0]),
                }
            if any(trial.trial_id not in self.end_order for trial in self.trials.values()):
                return {"status": _tuner.engine.trial.TrialStatus.IDLE}
            self._learn()
            following = self.strategy.next_round()
            if not following:
                return {"status": _tuner.engine.trial.TrialStatus.STOPPED}
            self._rounds.append(following)

    def get_state(self) -> dict[str, Any]:
        """Return what resuming needs.

        Returns:
            The state of KerasTuner's oracles, and the rounds so far.
        """
        return {**super().get_state(), "rounds": [[list(plan) for plan in each] for each in self._rounds]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over what ``get_state`` returned.

        Args:
            state: The state.
        """
        super().set_state(state)
        self._rounds = [[tuple(plan) for plan in each] for each in state["rounds"]]

    def _learn(self) -> None:
        """Take in the outcomes of the rounds that have not been learned, in their order, whoever ran them."""
        assert self.strategy is not None
        assert self._project is not None
        trials = {self._assignment(trial): trial for trial in self.trials.values()}
        for plans in self._rounds[self._learned :]:
            for plan in plans:
                trial = trials.get(plan)
                ended_well = trial is not None and trial.status == _tuner.engine.trial.TrialStatus.COMPLETED
                outcome = self._project.kept(trial.trial_id) if trial is not None and ended_well else None
                if outcome is None:
                    self.strategy.fail(plan)
                else:
                    self.strategy.learn(plan, outcome.figures, outcome.answers)
        self._learned = len(self._rounds)

    def _assignment(self, trial: Any) -> Assignment:
        assert self.strategy is not None
        return self.strategy.space.assignment(trial.hyperparameters.values)
