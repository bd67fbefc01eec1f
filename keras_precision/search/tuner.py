"""PrecisionTuner: a tuner of KerasTuner that chooses a precision per layer of a model."""

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
from keras_precision.core.system.captured_output import capture_output
from keras_precision.core.system.files import check_destination, write_atomic
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
    record_verdict,
)
from keras_precision.search.distributed.supervision import (
    FAILURE,
    check_completed,
    harden,
    heartbeat,
    requeue_failed,
    serve,
)
from keras_precision.search.evaluation.mode import Mode, Rounds, SearchInputs
from keras_precision.search.evaluation.modes import mode_of
from keras_precision.search.groups import Grouping
from keras_precision.search.objective.budget import Budget
from keras_precision.search.objective.objective import SearchObjective, search_objective
from keras_precision.search.oracle import PrecisionOracle
from keras_precision.search.strategy.trials import TrialOutcome, best_of, front_of, raise_infeasible

__all__ = ["PrecisionTuner"]

_tuner: Any = require("keras_tuner", extra="search")


class PrecisionTuner(_tuner.Tuner):
    """Chooses a precision per layer: the best plan within a budget, or the whole Pareto front.

    Every trial is a plan, with layer paths as names of hyperparameters. Its file is compiled, run and scored in memory.
    The default oracle first changes the layers one at a time, then solves an integer program for the most promising
    plans, runs them, and corrects its model of errors, until no plan promises an improvement above ``tolerance``.

    Args:
        model: A built functional or sequential model.
        representative_dataset: As for ``kp.calibrate``, or a calibration; None: the ``x`` of ``search``.
        validation_data: ``(samples, labels)``, a dataset of such batches, or samples alone, on which plans are
            evaluated; None: the ``validation_data`` of ``search``.
        choices: Deployment precisions; None: int8, int4, int16x8 and float32, or, with ``evaluation="quantization_aware"``,
            int8 and int4. With ``"training"``: policies, the baseline first; None: all three.
        budget: The limits of cost and quality; None for no limit.
        objective: ``"size_bytes"``, ``"latency_ms"``, ``"bit_operations"``, ``"divergence"``, a compiled metric such as
            ``"val_accuracy"``, a ``keras_tuner.Objective``, or ``"front"``. None: the smallest file if the budget limits
            quality, the best quality if it limits a cost, and the front if it limits nothing.
        metric: The metric of ``max_metric_drop``, unless it is that of the objective or the first compiled one.
        evaluation: How plans are evaluated. ``"post_training"``: by their files, in milliseconds.
            ``"quantization_aware"``: the same, and then the finalists by the files of models that
            ``search(x, y, epochs=1)`` has trained with ``kp.quantize_aware``. ``"training"``: ``choices`` are policies,
            and every plan is trained and compared with a training in the first of them.
        finalists: The number of plans that a quantization-aware search trains.
        groups: Layers that share a precision in a search for training plans, as for ``kp.PrecisionHyperModel``.
        oracle: An oracle of KerasTuner instead of the default one. Its objective is ``"score"`` with direction
            ``"min"``, which includes the budget, or any figure of a trial.
        max_trials: The maximum number of trials; None: one per layer and choice, and thirty more.
        tolerance: The gap at which the search ends: 0.02 is two percent.
        samples: The maximum number of validation samples, evenly spread over the data; None for all.
        runtime: The runtime for which the files are meant.
        directory: The folder of the projects.
        project_name: The folder of this search in ``directory``.
        overwrite: Whether to remove an existing project of that name; otherwise, and always in a worker, its search
            continues.
        max_retries_per_trial: As in KerasTuner; for the default oracle.
        max_consecutive_failed_trials: As in KerasTuner; for the default oracle.
        verbose: Whether to show progress and results; None: on a terminal.

    Raises:
        InputError: An argument cannot be used.
        DataError: Data do not fit the model.
        DestinationError: The folder has another search.
        MissingExtraError: KerasTuner or a package for the export is not installed.

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
        self.objective: SearchObjective = search_objective(
            model, budget, objective, metric, training=evaluation == "training"
        )
        self.mode = mode_of(evaluation, model, choices, self.objective, runtime=runtime, samples=samples, groups=groups)
        if not 0 <= tolerance < 1:
            raise InputError(f"Expected tolerance from 0 to below 1. Received: {tolerance!r}.")
        if max_trials is not None and max_trials < 1:
            raise InputError(f"Expected max_trials >= 1. Received: {max_trials!r}.")
        self._finalists = finalists if self.mode.name == "quantization_aware" else 0
        if finalists < 1 or (max_trials is not None and self._finalists >= max_trials):
            raise InputError(f"Expected finalists from 1 to below max_trials. Received: {finalists!r}.")
        self._tolerance, self._verbose = tolerance, verbose
        self._own_inputs = SearchInputs(representative_dataset, validation_data)
        self._inputs: SearchInputs | None = None  # of the latest search
        self._training: dict[str, str] = {}
        self._verified: set[str] = set()  # trials whose plans gave the evaluated file when they were exported
        self._project = Project(Path(directory or ".") / project_name)
        self._identity = {
            "weights": weights_digest(model),
            "choices": ", ".join(self.mode.choices),
            "evaluation": self.mode.name,
            **self.objective.described(),
        }
        overwrite = overwrite and is_first()
        if not is_worker():
            self._project.claim(self._identity, overwrite=overwrite)
        if oracle is None:
            oracle = PrecisionOracle(max_trials, max_retries_per_trial, max_consecutive_failed_trials)
        if overwrite:
            self._project.clear()
        with capture_output("KerasTuner"), loopback_by_default():
            super().__init__(
                harden(oracle), directory=str(directory or "."), project_name=project_name, overwrite=overwrite
            )
        self._display = Display(self.objective.figure, verbose)

    @record_verdict()
    def search(self, x: Any = None, y: Any = None, *, validation_data: Any = None, **options: Any) -> None:
        """Search, or continue a search that was interrupted.

        With KerasTuner's environment variables set, this process is the chief or a worker of a distributed search.

        Args:
            x: Training data if plans are trained; otherwise representative data, unless the tuner has them.
            y: Labels of ``x``; used only if plans are trained.
            validation_data: ``(samples, labels)`` or samples, unless the tuner has them.
            **options: ``verbose``, as in KerasTuner; ``lease_s``, for a chief: seconds after which a silent worker counts
                as dead. For a quantization-aware search, the options of ``fit``; for training plans, those of
                ``kp.compare_training``: ``epochs``, ``steps``, ``batch_size``, ``seeds``, ``processes`` and so on.

        Raises:
            DataError: Data are missing or do not fit the model.
            InputError: No plan can meet the budget (the message has the nearest limit), or an option cannot be used.
            DestinationError: The folder has a search on other data, or with another training.
            SearchError: Too many trials failed, or all finalists did.
        """
        training_options = {name: value for name, value in options.items() if name not in ("verbose", "lease_s")}
        self.mode.check_options(training_options)
        inputs = SearchInputs(x, validation_data, x, y, training_options)
        self._prepare(inputs.with_defaults(self._own_inputs, self._inputs))
        if is_first() and requeue_failed(self.oracle):
            self._attach()
        self._display = Display(self.objective.figure, options.get("verbose", self._verbose))
        folder = self._project.folder
        if is_chief():
            self.save()
            self.oracle.verbose, lease_s = 0, float(options.get("lease_s", 60.0))
            with self._display.visible(self.oracle.max_trials):
                serve(self.oracle, chief_address(), folder, lease_s=lease_s, on_trial_end=self._show_progress)
        else:
            with self._display.visible(self.oracle.max_trials), heartbeat(folder, self.tuner_id):
                super().search(verbose=0)
        if not is_worker():
            self._conclude()

    def run_trial(self, trial: Any, *args: Any, **options: Any) -> dict[str, float]:
        """Compile, run and score the file of a trial's plan; return its figures and ``score``.

        Raises:
            FailedTrialError: The file cannot be compiled, does not follow the plan, or the training diverged.
        """
        mode = self._prepare()
        try:
            evaluation = mode.evaluate(trial.hyperparameters.values, self._folder(trial.trial_id))
        except (ExportError, FileFormatError, PlanError, SearchError, WorkerError) as error:
            raise _tuner.errors.FailedTrialError(str(error)) from error
        self._project.save_evaluation(trial.trial_id, evaluation)
        figures, metric = dict(evaluation.figures), self.objective.score
        if metric is not None:
            figures |= {f"val_{name}": figures[metric.name] for name in (metric.name, metric.logged)}
        return {**figures, "score": self.objective.goal(mode.reference_figures).score(figures)}

    def on_trial_end(self, trial: Any) -> None:
        """Save the trial and the reason if it failed, and show the progress of the search."""
        if trial.message:
            write_atomic(Path(self.get_trial_dir(trial.trial_id)) / FAILURE, trial.message)
        super().on_trial_end(trial)
        completed = trial.status == _tuner.engine.trial.TrialStatus.COMPLETED
        if completed and self.mode.needs_training(trial.hyperparameters.values):
            self._project.record(self._training)  # only now: training options that fail must not exclude others
        if not is_worker():
            self._show_progress()

    def _show_progress(self) -> None:
        if self._display.is_visible:
            best = self._best()
            self._display.update(len(self.oracle.end_order), best and best.figures, self.gap)

    def save(self) -> None:
        """Save the state of the search, every file atomically."""
        if not self._is_worker():
            self.oracle.save()
        write_atomic(self._get_tuner_fname(), "{}")

    def reload(self) -> None:
        """Take up the trials in the folder; KerasTuner's own file of a tuner has nothing in it."""
        if not self._is_worker():
            self.oracle.reload()

    # Overrides a private method of KerasTuner 1.4.8, which it calls where the file of a tuner is missing; that does not
    # mean that there are no trials. The space comes with the data of a search.
    # https://github.com/keras-team/keras-tuner/blob/v1.4.8/keras_tuner/src/engine/base_tuner.py
    def _populate_initial_space(self) -> None:
        self.reload()

    # Overrides a private method of KerasTuner 1.4.8, which asks for KERASTUNER_ORACLE_IP; here that variable is optional.
    # https://github.com/keras-team/keras-tuner/blob/v1.4.8/keras_tuner/src/engine/base_tuner.py
    def _is_worker(self) -> bool:
        """Whether a chief in another process has the oracle."""
        return is_worker()

    # Overrides a private method of the same file. KerasTuner reloads a project only if this file exists; with a file
    # name per tuner, a chief cannot continue the search of a single process (keras-tuner issue 976).
    # https://github.com/keras-team/keras-tuner/issues/976
    def _get_tuner_fname(self) -> str:
        """Return one file name for a chief and for a single process, so that either continues the other's search."""
        name = self.tuner_id if is_worker() else "tuner0"
        return os.path.join(str(self.project_dir), f"{name}.json")

    def load_model(self, trial: Any) -> Any:
        """Return a Keras 3 model that runs the exported file of a trial.

        It cannot be trained, and is compiled with the loss and metrics of a Keras 3 model.
        """
        return self._prepare().model_of(trial.hyperparameters.values, self._folder(trial.trial_id))

    @property
    def space(self) -> Space:
        """The layers to choose precisions for, and their possible precisions."""
        return self._prepare().space

    @property
    def gap(self) -> float | None:
        """How much better than the best a plan that was not run may be, as a share, by the model of errors; or None."""
        strategy: Rounds | None = getattr(self.oracle, "strategy", None)
        return strategy.gap if strategy is not None else None

    @property
    def best_plan(self) -> PrecisionPlan:
        """The best plan within the budget, which was exported once more to see that it gives the file that was run.

        Raises:
            SearchError: No plan that was run is within the budget, or its export writes another file.
        """
        best = self._expected_best()
        plan = self._plan_of(best)
        if best.trial not in self._verified:
            self._prepare().verify(best, plan)
            self._verified.add(best.trial)
        return plan

    def results(self) -> tuple[Result, ...]:
        """Return the plans that were run.

        Returns:
            A result per completed trial, with its plan and its figures, in the order of the trials.
        """
        return tuple(map(self._result_of, self._outcomes()))

    def pareto_front(self) -> tuple[Result, ...]:
        """Return the plans that no other plan dominates.

        Returns:
            The results on the Pareto front of file size, metric drop (without labels: divergence) and, if it was
            measured, latency. The smallest file comes first.
        """
        return tuple(map(self._result_of, front_of(self._outcomes(), self._prepare().axes)))

    def export_best(self, path: str | os.PathLike[str], *, overwrite: bool = True, **options: Any) -> Result:
        """Write the file of the best plan.

        Args:
            path: The path of the file, ending in ``.tflite``.
            overwrite: Whether an existing file at ``path`` may be replaced.
            **options: As for ``kp.export_tflite``.

        Returns:
            The result of the export, as for ``kp.export_tflite``.

        Raises:
            SearchError: No plan is within the budget, or the exported file is larger than the budget allows.
            PrecisionError: As for ``kp.export_tflite``.
        """
        destination = check_destination(path, suffix=".tflite")
        if destination.exists() and not overwrite:
            raise DestinationError(
                f"Expected a path that is free. Received: '{destination}', which exists. Pass overwrite=True to replace it."
            )
        best = self._expected_best()
        return self._prepare().write(best, self._plan_of(best), self._folder(best.trial_id), destination, options)

    def _prepare(self, inputs: SearchInputs | None = None) -> Mode:
        """Check the inputs and attach the space to the oracle; an error leaves the tuner unchanged.

        Inputs of None, for reading the results of a search, stand for those of the latest search or of the tuner.
        """
        if inputs is None and self._inputs is not None:
            return self.mode
        used, mode = inputs or self._own_inputs, copy.copy(self.mode)
        training = {} if inputs is None else mode.set_training(inputs)
        is_known = self._inputs is not None and used.has_same_data(self._inputs)
        identity = {**self._identity, **({} if is_known else mode.prepare(used))}
        if not is_worker():
            self._project.claim({**identity, **training}, overwrite=False)
            if inputs is not None and isinstance(self.oracle, PrecisionOracle):
                self.oracle.check_room(self._finalists)
            if not is_known:
                mode.check_budget()
            self._project.record(identity)
        self.mode, self._inputs, self._training = mode, used, training
        if not is_known:
            self._attach()
        return mode

    def _attach(self) -> None:
        """Give the oracle the space and the evaluations of earlier trials."""
        is_default, space = isinstance(self.oracle, PrecisionOracle), _tuner.HyperParameters()
        self.mode.add_hyperparameters(space, train_all=not is_default)
        self.oracle.update_space(space)
        if not is_worker():
            self._project.check_plans(self.oracle.trials, self.mode.space)
        if is_default:
            self.oracle.attach(self.mode.rounds(self._tolerance), self._project, finalists=self._finalists)

    def _folder(self, trial_id: str) -> Path:
        return Path(self.get_trial_dir(trial_id))

    def _outcomes(self) -> list[TrialOutcome]:
        return self._project.outcomes(self.oracle.trials, self._prepare().space)

    def _best(self) -> TrialOutcome | None:
        return best_of(self._outcomes(), self.objective.goal(self._prepare().reference_figures))

    def _expected_best(self) -> TrialOutcome:
        best = self._best()
        return best if best is not None else raise_infeasible(self._outcomes(), self.objective.budget)

    def _plan_of(self, outcome: TrialOutcome) -> PrecisionPlan:
        trained = ", by a training" if outcome.is_finalist else ""
        reasons = {unit.name: f"{outcome.trial} of a precision search{trained}" for unit in self.space.units}
        return self.space.plan(outcome.assignment, reasons)

    def _result_of(self, outcome: TrialOutcome) -> Result:
        return self._prepare().result(outcome, self._plan_of(outcome))

    def _conclude(self) -> None:
        """Save the search, raise the reason if it ended early, and print the front."""
        self.save()
        if self.oracle.failure is not None:
            raise SearchError(f"Expected trials that run. Received: {self.oracle.failure.strip()}")
        check_completed(self.oracle)
        if self._display.is_enabled:
            Console(stderr=True).print(front_text(self.pareto_front()), markup=False, highlight=False, soft_wrap=True)
