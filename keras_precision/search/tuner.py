"""PrecisionTuner: a tuner of KerasTuner that chooses a precision for each layer of a model."""

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from keras_precision._adapters import adapter_of
from keras_precision.core.errors import (
    DestinationError,
    ExportError,
    FileFormatError,
    InputError,
    PlanError,
    SearchError,
    WorkerError,
)
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Result
from keras_precision.core.system.captured_output import captured
from keras_precision.core.system.files import check_destination, write_whole
from keras_precision.core.system.optional import require
from keras_precision.export.plan_space import Space
from keras_precision.quantization.float_model import weights_digest
from keras_precision.report.tables.pareto_front import front_text
from keras_precision.search.checkpoint import Project
from keras_precision.search.display import Display
from keras_precision.search.distributed.role import (
    chief_address,
    is_chief,
    is_first,
    is_worker,
    loopback_by_default,
    verdict,
)
from keras_precision.search.distributed.supervision import (
    FAILURE,
    check_ended_well,
    hardened,
    heartbeat,
    put_back,
    serve,
)
from keras_precision.search.evaluation.mode import Given, Mode, Rounds, is_finalist
from keras_precision.search.evaluation.modes import mode_of
from keras_precision.search.groups import Grouping
from keras_precision.search.objective.budget import Budget
from keras_precision.search.objective.objective import Wishes, wishes_of
from keras_precision.search.oracle import PrecisionOracle
from keras_precision.search.strategy.trials import Outcome, best_of, front_of, none_within

__all__ = ["PrecisionTuner"]

_tuner: Any = require("keras_tuner", extra="search")


class PrecisionTuner(_tuner.Tuner):
    """Chooses a precision for each layer: the best plan within a budget, or the whole front.

    Each trial is a plan, whose hyperparameters are called by layer paths. Its file is made, run and scored in memory.
    Our oracle first changes each layer alone, then has an integer program say which plans promise most, runs those,
    and corrects itself, until no plan promises to be better by more than ``tolerance``.

    Args:
        model: A built functional or sequential model.
        representative_dataset: As for ``kp.calibrate``, or what that returned; None: what ``search`` is given.
        validation_data: ``(samples, labels)``, or a dataset of such batches, or samples alone, that plans are judged on; None:
            what ``search`` is given.
        choices: Deployment precisions; None: int8, int4, int16x8 and float32, or, with ``evaluation="quantization_aware"``,
            int8 and int4. With ``"training"``: policies, the baseline first; None: all three.
        budget: What a plan may cost; None for no limit.
        objective: ``"size_bytes"``, ``"latency_ms"``, ``"bit_operations"``, ``"divergence"``, a compiled metric such as
            ``"val_accuracy"``, a ``keras_tuner.Objective``, or ``"front"``. None: the smallest file where quality is
            limited, the best quality where a cost is, and the front where nothing is.
        metric: The metric of ``max_metric_drop``, if it is not that of the objective or the first compiled one.
        evaluation: How a plan is judged. ``"post_training"``: by its file, in milliseconds. ``"quantization_aware"``: the
            same, and then the finalists by files of what ``search(x, y, epochs=1)`` has trained with ``kp.quantize_aware``.
            ``"training"``: ``choices`` are policies, and each plan is trained beside the first of them.
        finalists: Plans that are trained, in a quantization-aware search.
        groups: Layers that are chosen for together where plans are of training, as for ``kp.PrecisionHyperModel``.
        oracle: An oracle of KerasTuner, in the place of ours. Its objective is ``"score"``, which is to be minimised
            and has the budget in it, or any figure of a trial.
        max_trials: Trials at most; None: as many as changing each layer alone takes, and thirty more.
        tolerance: The gap at which the search ends: 0.02 is two percent.
        samples: Validation samples that are used at most, evenly spread; None for all.
        runtime: What files are to run on.
        directory: Where projects lie.
        project_name: The folder of this search, there.
        overwrite: Whether a project of that name may be removed; if not, or in a worker, the search goes on where it was.
        max_retries_per_trial: As in KerasTuner; of our oracle.
        max_consecutive_failed_trials: As in KerasTuner; of our oracle.
        verbose: Whether to show progress and results; None: on a terminal.

    Raises:
        InputError: An argument cannot be used.
        DataError: Data do not fit the model.
        DestinationError: The folder holds another search.
        MissingExtraError: KerasTuner, or what exporting needs, is not installed.

    Example:
        >>> tuner = PrecisionTuner(model, x_cal, x_test, ("int8", "int4"), budget=Budget(max_divergence=0.05))
        >>> tuner.search()
        >>> tuner.best_plan.kind
        'deployment'
    """

    def __init__(
        self,
        model: Any,
        representative_dataset: Any = None,
        validation_data: Any = None,
        choices: Sequence[str] | None = None,
        *,
        budget: Budget | None = None,
        objective: Any = None,
        metric: Any = None,
        evaluation: Literal["post_training", "quantization_aware", "training"] = "post_training",
        finalists: int = 3,
        groups: Grouping = "block",
        oracle: Any = None,
        max_trials: int | None = None,
        tolerance: float = 0.02,
        samples: int | None = None,
        runtime: str = "litert",
        directory: str | os.PathLike[str] | None = None,
        project_name: str = "precision_search",
        overwrite: bool = False,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 3,
        verbose: bool | None = None,
    ) -> None:
        adapter_of(model).inputs(model)
        self.model = model
        self.wishes: Wishes = wishes_of(model, budget, objective, metric, training=evaluation == "training")
        self.mode = mode_of(evaluation, model, choices, self.wishes, runtime=runtime, samples=samples, groups=groups)
        if not 0 <= tolerance < 1:
            raise InputError(f"Expected tolerance from 0 to below 1. Received: {tolerance!r}.")
        if max_trials is not None and max_trials < 1:
            raise InputError(f"Expected max_trials >= 1. Received: {max_trials!r}.")
        self._finalists = finalists if self.mode.name == "quantization_aware" else 0
        if finalists < 1 or (max_trials is not None and self._finalists >= max_trials):
            raise InputError(f"Expected finalists from 1 to below max_trials. Received: {finalists!r}.")
        self._tolerance, self._verbose = tolerance, verbose
        self._own = Given(representative_dataset, validation_data)
        self._used: Given | None = None
        self._training: dict[str, str] = {}
        self._project = Project(Path(directory or ".") / project_name)
        self._purpose = {
            "weights": weights_digest(model),
            "choices": ", ".join(self.mode.choices),
            "evaluation": self.mode.name,
            **self.wishes.described(),
        }
        overwrite = overwrite and is_first()
        if not is_worker():
            self._project.claim(self._purpose, overwrite=overwrite)
        if oracle is None:
            oracle = PrecisionOracle(max_trials, max_retries_per_trial, max_consecutive_failed_trials)
        with captured("KerasTuner"), loopback_by_default():
            super().__init__(
                hardened(oracle), directory=str(directory or "."), project_name=project_name, overwrite=overwrite
            )
        self._display = Display(self.wishes.figure, verbose)

    @verdict()
    def search(self, x: Any = None, y: Any = None, *, validation_data: Any = None, **options: Any) -> None:
        """Search, or go on with a search that was interrupted.

        Under KerasTuner's environment variables this process is the chief, or a worker, of a search in several.

        Args:
            x: Representative data, where none were given to the tuner; what is trained with, where something is.
            y: Labels of ``x``; not needed where nothing is trained.
            validation_data: ``(samples, labels)`` or samples, where none were given to the tuner.
            **options: ``verbose``, as in KerasTuner; ``lease_s``, for a chief: seconds after which a silent worker is
                taken for dead. For a quantization-aware search, what ``fit`` takes; for plans of training, what
                ``kp.compare_training`` takes: ``epochs``, ``steps``, ``batch_size``, ``seeds``, ``processes`` and so on.

        Raises:
            DataError: There are no data, or they do not fit the model.
            InputError: No plan can meet the budget; the message says the nearest. Or an option cannot be used.
            DestinationError: The folder holds a search on other data, or with another training.
            SearchError: Too many trials failed, or all finalists did.
        """
        fitting = {name: value for name, value in options.items() if name not in ("verbose", "lease_s")}
        self.mode.check_options(fitting)
        self._prepare(Given(x, validation_data, x, y, fitting).behind(self._own, self._used))
        if is_first() and put_back(self.oracle):
            self._attach()
        self._display = Display(self.wishes.figure, options.get("verbose", self._verbose))
        folder = self._project.folder
        if is_chief():
            self.save()
            self.oracle.verbose, lease_s = 0, float(options.get("lease_s", 60.0))
            with self._display.shown(self.oracle.max_trials):
                serve(self.oracle, chief_address(), folder, lease_s=lease_s, tell=self._tell)
        else:
            with self._display.shown(self.oracle.max_trials), heartbeat(folder, self.tuner_id):
                super().search(verbose=0)
        if not is_worker():
            self._conclude()

    def run_trial(self, trial: Any, *args: Any, **options: Any) -> dict[str, float]:
        """Make, run and score the file of a trial's plan.

        Args:
            trial: The trial.
            *args: Not used.
            **options: Not used.

        Returns:
            Its figures, and ``score``.

        Raises:
            FailedTrialError: The file cannot be made, or does not do what the plan says, or the training diverged.
        """
        mode = self._prepare()
        try:
            outcome = mode.judge(trial.hyperparameters.values, self._folder(trial.trial_id))
        except (ExportError, FileFormatError, PlanError, SearchError, WorkerError) as error:
            raise _tuner.errors.FailedTrialError(str(error)) from error
        self._project.keep(trial.trial_id, outcome)
        figures = dict(outcome.figures)
        if self.wishes.score is not None:
            value = figures[self.wishes.score.name]
            figures |= {f"val_{name}": value for name in (self.wishes.score.name, self.wishes.score.logged)}
        return {**figures, "score": self.wishes.goal(mode.reference_figures).score(figures)}

    def on_trial_end(self, trial: Any) -> None:
        """Save the trial, and why it failed if it did, and show how far the search is."""
        if trial.message:
            write_whole(Path(self.get_trial_dir(trial.trial_id)) / FAILURE, trial.message)
        super().on_trial_end(trial)
        ended_well = trial.status == _tuner.engine.trial.TrialStatus.COMPLETED
        if ended_well and self.mode.trains(trial.hyperparameters.values):
            self._project.sign(self._training)  # not before: a training that cannot be is no reason to refuse another
        if not is_worker():
            self._tell()

    def _tell(self) -> None:
        if self._display.is_shown:
            best = self._best()
            self._display.tell(len(self.oracle.end_order), best and best.figures, self.gap)

    def save(self) -> None:
        """Save the search, each file whole."""
        if not self._is_worker():
            self.oracle.save()
        write_whole(self._get_tuner_fname(), "{}")

    def _is_worker(self) -> bool:
        """KerasTuner's own asks for an address alone, which need not be set."""
        return is_worker()

    def _get_tuner_fname(self) -> str:
        """One name for a chief and for a process alone: either takes up what the other began."""
        name = self.tuner_id if is_worker() else "tuner0"
        return os.path.join(str(self.project_dir), f"{name}.json")

    def load_model(self, trial: Any) -> Any:
        """Return a Keras model that computes as the exported file of a trial does: it runs the file.

        Args:
            trial: The trial.

        Returns:
            A Keras 3 model, compiled with the loss and metrics of the model if that is of Keras 3; it cannot be trained.
        """
        return self._prepare().model_of(trial.hyperparameters.values, self._folder(trial.trial_id))

    @property
    def space(self) -> Space:
        """The layers that are chosen for, and the precisions that each can have."""
        return self._prepare().space

    @property
    def gap(self) -> float | None:
        """By which share a plan that was not run may be better than the best, by the model of errors; None if not known."""
        strategy: Rounds | None = getattr(self.oracle, "strategy", None)
        return strategy.gap if strategy is not None else None

    @property
    def best_plan(self) -> PrecisionPlan:
        """The best plan within the budget.

        Raises:
            SearchError: No plan that was run keeps within it.
        """
        return self._plan_of(self._expected_best())

    def results(self) -> tuple[Result, ...]:
        """Return each plan that was run.

        Returns:
            A result for each trial that has ended well, with its plan and its figures, in the order of the trials.
        """
        return tuple(map(self._result_of, self._outcomes()))

    def pareto_front(self) -> tuple[Result, ...]:
        """Return the plans that no other beats.

        Returns:
            Of each plan for which no other has a file as small, and as good a metric (or, without labels, as little
            divergence; or latency, if that was measured): its result. The smallest comes first.
        """
        return tuple(map(self._result_of, front_of(self._outcomes(), self._prepare().axes)))

    def export_best(self, path: str | os.PathLike[str], *, overwrite: bool = True, **options: Any) -> Result:
        """Write the file of the best plan.

        Args:
            path: Where it goes, ending in ``.tflite``.
            overwrite: Whether an older file at ``path`` may be replaced.
            **options: As for ``kp.export_tflite``.

        Returns:
            As ``kp.export_tflite``.

        Raises:
            SearchError: No plan keeps within the budget, or the file has become larger than that allows.
            PrecisionError: As ``kp.export_tflite``.
        """
        destination = check_destination(path, suffix=".tflite")
        if destination.exists() and not overwrite:
            raise DestinationError(
                f"Expected a path that is free. Received: '{destination}', which exists. Pass overwrite=True to replace it."
            )
        best = self._expected_best()
        return self._prepare().write(best, self._plan_of(best), self._folder(best.trial_id), destination, options)

    def _prepare(self, given: Given | None = None) -> Mode:
        """Check the data, find the space, and give the oracle what it chooses with; what is refused changes nothing.

        Args:
            given: What ``search`` is given; None to read what a search has found.
        """
        if given is None and self._used is not None:
            return self.mode
        wanted, mode = given or self._own, copy.copy(self.mode)
        training = {} if given is None else mode.train_with(given)
        is_known = self._used is not None and wanted.is_judged_like(self._used)
        purpose = {**self._purpose, **({} if is_known else mode.prepare(wanted))}
        if not is_worker():
            self._project.claim({**purpose, **training}, overwrite=False)
            if given is not None and isinstance(self.oracle, PrecisionOracle):
                self.oracle.check_room(self._finalists)
            if not is_known:
                mode.check_budget()
            self._project.sign(purpose)
        self.mode, self._used, self._training = mode, wanted, training
        if not is_known:
            self._attach()
        return mode

    def _attach(self) -> None:
        """Tell the oracle what there is to choose, and what was found before."""
        is_ours, space = isinstance(self.oracle, PrecisionOracle), _tuner.HyperParameters()
        self.mode.hyperparameters(space, every=not is_ours)
        self.oracle.update_space(space)
        if is_ours:
            self.oracle.attach(self.mode.rounds(self._tolerance), self._project, finalists=self._finalists)

    def _folder(self, trial_id: str) -> Path:
        return Path(self.get_trial_dir(trial_id))

    def _outcomes(self) -> list[Outcome]:
        """Every trial that ended well, from the files in the project: whichever oracle, and whichever worker."""
        space, found = self._prepare().space, []
        for trial_id in sorted(self.oracle.trials, key=_number):
            trial = self.oracle.trials[trial_id]
            if trial.status == _tuner.engine.trial.TrialStatus.COMPLETED:
                kept = self._project.kept(trial_id)
                if kept is not None:
                    values = trial.hyperparameters.values
                    last = is_finalist(values)
                    found.append(Outcome(f"trial {trial_id}", space.assignment(values), kept.figures, last))
        return found

    def _best(self) -> Outcome | None:
        return best_of(self._outcomes(), self.wishes.goal(self._prepare().reference_figures))

    def _expected_best(self) -> Outcome:
        found = self._best()
        return found if found is not None else none_within(self._outcomes(), self.wishes.budget)

    def _plan_of(self, outcome: Outcome) -> PrecisionPlan:
        trained = ", by a training" if outcome.is_finalist else ""
        reasons = {unit.name: f"{outcome.trial} of a precision search{trained}" for unit in self.space.units}
        return self.space.plan(outcome.assignment, reasons)

    def _result_of(self, outcome: Outcome) -> Result:
        return self._prepare().result(outcome, self._plan_of(outcome))

    def _conclude(self) -> None:
        """Say how the search ended: why early, and what it found."""
        self.save()
        if self.oracle.failure is not None:
            raise SearchError(f"Expected trials that run. Received: {self.oracle.failure.strip()}")
        check_ended_well(self.oracle)
        if self._display.is_wanted:
            Console(stderr=True).print(front_text(self.pareto_front()), markup=False, highlight=False, soft_wrap=True)


def _number(trial_id: str) -> tuple[int, str]:
    """What sorts trials: KerasTuner pads their numbers to as many digits as max_trials has, which may have grown."""
    digits = trial_id.lstrip("0")
    return len(digits), digits
