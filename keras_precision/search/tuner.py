"""PrecisionTuner: a tuner of KerasTuner that chooses a precision for each layer of a model to deploy."""

import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from keras_precision._adapters import adapter_for_file, adapter_of
from keras_precision.chatter import captured
from keras_precision.deploy.tflite import export_tflite
from keras_precision.errors import DataError, DestinationError, ExportError, FileFormatError, InputError, SearchError
from keras_precision.files import check_destination, write_whole
from keras_precision.optional import require
from keras_precision.plan import PrecisionPlan
from keras_precision.quantize.float_file import weights_digest
from keras_precision.report.front import front_text
from keras_precision.result import Result
from keras_precision.search.budget import Budget
from keras_precision.search.display import Display
from keras_precision.search.oracle import PrecisionOracle
from keras_precision.search.outcomes import Outcome, best_of, front_of
from keras_precision.search.project import Project, digest_of
from keras_precision.search.reachable import check_reachable
from keras_precision.search.setting import Setting, held_out, ready
from keras_precision.search.space import Space
from keras_precision.search.strategy import Strategy
from keras_precision.search.supervision import FAILURE, hardened, heartbeat, serve
from keras_precision.search.units import check_choices
from keras_precision.search.wishes import Wishes, wishes_of

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
        validation_data: ``(samples, labels)``, or samples alone, that plans are judged on; None: what ``search`` is given.
        choices: Deployment precisions.
        budget: What a plan may cost; None for no limit.
        objective: ``"size_bytes"``, ``"latency_ms"``, ``"bit_operations"``, ``"divergence"``, a compiled metric such as
            ``"val_accuracy"``, a ``keras_tuner.Objective``, or ``"front"``. None: the smallest file where quality is
            limited, the best quality where a cost is, and the front where nothing is.
        metric: The metric of ``max_metric_drop``, if it is not that of the objective or the first compiled one.
        oracle: An oracle of KerasTuner, in the place of ours. Its objective is ``"score"``, which is to be minimised
            and has the budget in it, or any figure of a trial.
        max_trials: Trials at most; None: as many as changing each layer alone takes, and thirty more.
        tolerance: The gap at which the search ends: 0.02 is two percent.
        samples: Validation samples that are used at most, evenly spread; None for all.
        runtime: What files are to run on.
        directory: Where projects lie.
        project_name: The folder of this search, there.
        overwrite: Whether a project of that name may be removed; if not, the search goes on where it was.
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
        choices: Sequence[str] = ("int8", "int4", "int16x8", "float32"),
        *,
        budget: Budget | None = None,
        objective: Any = None,
        metric: Any = None,
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
        self.model, self.choices = model, check_choices(choices)
        self.wishes: Wishes = wishes_of(model, budget, objective, metric)
        if not 0 <= tolerance < 1:
            raise InputError(f"Expected tolerance from 0 to below 1. Received: {tolerance!r}.")
        if max_trials is not None and max_trials < 1:
            raise InputError(f"Expected max_trials >= 1. Received: {max_trials!r}.")
        self._tolerance, self._samples, self._runtime, self._verbose = tolerance, samples, runtime, verbose
        self._data, self._validation = representative_dataset, validation_data
        self._setting: Setting | None = None
        self._project = Project(Path(directory or ".") / project_name)
        self._purpose = {
            "weights": weights_digest(model),
            "choices": ", ".join(self.choices),
            **self.wishes.described(),
        }
        if not _is_worker():
            self._project.claim(self._purpose, overwrite=overwrite)
        if oracle is None:
            oracle = PrecisionOracle(max_trials, max_retries_per_trial, max_consecutive_failed_trials)
        with captured("KerasTuner"):
            super().__init__(
                hardened(oracle), directory=str(directory or "."), project_name=project_name, overwrite=overwrite
            )
        self._display = Display(self.wishes.figure, verbose)

    def search(self, x: Any = None, y: Any = None, *, validation_data: Any = None, **options: Any) -> None:
        """Search, or go on with a search that was interrupted.

        Under KerasTuner's environment variables this process is the chief, or a worker, of a search in several.

        Args:
            x: Representative data, where none were given to the tuner.
            y: Labels of ``x``; they are not needed, and stand here as in ``fit``.
            validation_data: ``(samples, labels)`` or samples, where none were given to the tuner.
            **options: ``verbose``, as in KerasTuner; ``lease_s``, for a chief: seconds after which a silent worker is
                taken for dead.

        Raises:
            DataError: There are no data, or they do not fit the model.
            InputError: No plan can meet the budget; the message says the nearest.
            SearchError: Too many trials failed.
        """
        unknown = sorted(set(options) - {"verbose", "lease_s"})
        if unknown:
            raise InputError(
                f"Expected x, y, validation_data, verbose or lease_s. Received: {', '.join(unknown)}. No model is trained here."
            )
        self._data = x if self._data is None else self._data
        self._validation = validation_data if self._validation is None else self._validation
        self._prepare()
        folder = self._project.folder
        if _is_chief():
            self.save()
            address = f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"
            serve(self.oracle, address, folder, lease_s=float(options.get("lease_s", 60.0)))
            return
        with self._display.shown(self.oracle.max_trials), heartbeat(folder, self.tuner_id):
            super().search(verbose=0)
        if not _is_worker():
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
            FailedTrialError: The file cannot be made, or does not do what the plan says.
        """
        setting = self._prepare()
        try:
            outcome = setting.evaluator(setting.space.assignment(trial.hyperparameters.values))
        except (ExportError, FileFormatError) as error:
            raise _tuner.errors.FailedTrialError(str(error)) from error
        self._project.keep(trial.trial_id, outcome)
        figures = dict(outcome.figures)
        if self.wishes.score is not None:
            figures[f"val_{self.wishes.score.name}"] = figures[self.wishes.score.name]
        return {**figures, "score": self.wishes.goal(setting.evaluator.reference_figures).score(figures)}

    def on_trial_end(self, trial: Any) -> None:
        """Save the trial, and why it failed if it did, and show how far the search is."""
        if trial.message:
            write_whole(Path(self.get_trial_dir(trial.trial_id)) / FAILURE, trial.message)
        super().on_trial_end(trial)
        if not _is_worker():
            best = self._best() if self._display.is_shown else None
            self._display.tell(len(self.oracle.end_order), best and best.figures, self.gap)

    def save(self) -> None:
        """Save the search, each file whole."""
        if not self._is_worker():
            self.oracle.save()
        write_whole(self._get_tuner_fname(), "{}")

    def _get_tuner_fname(self) -> str:
        """One name for a chief and for a process alone: either takes up what the other began."""
        name = self.tuner_id if _is_worker() else "tuner0"
        return os.path.join(str(self.project_dir), f"{name}.json")

    def load_model(self, trial: Any) -> Any:
        """Return a Keras model that computes as the exported file of a trial does: it runs the file.

        Args:
            trial: The trial.

        Returns:
            A Keras 3 model, compiled with the loss and metrics of the model; it cannot be trained.
        """
        from keras_precision._adapters.file_model import file_model

        setting = self._prepare()
        content = setting.evaluator.content(setting.space.assignment(trial.hyperparameters.values))
        shapes = [list(each.shape[1:]) for each in setting.evaluator.reference]
        like = self.model if isinstance(self.model, adapter_for_file().keras.Model) else None
        return file_model(content, list(adapter_of(self.model).inputs(self.model)), shapes, like)

    @property
    def space(self) -> Space:
        """The layers that are chosen for, and the precisions that each can have."""
        return self._prepare().space

    @property
    def gap(self) -> float | None:
        """By which share a plan that was not run may be better than the best, by the model of errors; None if not known."""
        strategy: Strategy | None = getattr(self.oracle, "strategy", None)
        return strategy.gap if strategy is not None else None

    @property
    def best_plan(self) -> PrecisionPlan:
        """The best plan within the budget.

        Raises:
            SearchError: No plan that was run keeps within it.
        """
        found = self._best()
        if found is None:
            outcomes = self._outcomes()
            if not outcomes:
                raise SearchError("Expected trials that ended well. Received: none. Call search first.")
            budget = self.wishes.budget
            nearest = min(outcomes, key=lambda each: budget.excess(each.figures))
            told = ", ".join(f"{name} {nearest.figures[name]:.6g}" for name in budget.limits())
            raise SearchError(
                f"Expected a plan within {budget}. Received: none among {len(outcomes)}; the nearest has {told}. "
                "Widen the budget, or give more choices."
            )
        return self._plan_of(found)

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
        axes = ["size_bytes", "metric_drop" if self.wishes.score is not None else "divergence"]
        axes += ["latency_ms"] if self.wishes.latency else []
        return tuple(map(self._result_of, front_of(self._outcomes(), axes)))

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
        plan, calibration = self.best_plan, self._prepare().calibration
        limit = self.wishes.budget.max_size_bytes
        with tempfile.TemporaryDirectory() as folder:
            draft = Path(folder) / destination.name
            asked = {"engine": "aeq", "runtime": self._runtime, **options}
            written = export_tflite(self.model, draft, plan, calibration, **asked)
            if limit is not None and written.value("size_bytes") > limit:
                raise SearchError(
                    f"Expected a file of at most {limit:,.0f} bytes. Received: {written.value('size_bytes'):,}, with what was "
                    "asked for beside the plan. Export without that, or search with a smaller max_size_bytes."
                )
            write_whole(destination, draft.read_bytes())
        return written

    def _prepare(self) -> Setting:
        """Calibrate, find the space, and give the oracle what it chooses with; once."""
        if self._setting is not None:
            return self._setting
        x, y = self._validation if _is_pair(self._validation) else (self._validation, None)
        if self._data is None or x is None:
            what = "representative data" if self._data is None else "validation data"
            raise DataError(
                f"Expected {what}. Received: None. Give them to kp.PrecisionTuner, or to search(x, y, validation_data=(x, y))."
            )
        held = held_out(self.model, x, y, self.wishes.score, self._samples)
        setting = ready(self.model, self._data, held, self.choices, runtime=self._runtime, latency=self.wishes.latency)
        purpose = {**self._purpose, "validation data": digest_of(held), "runtime": self._runtime}
        if not _is_worker():
            self._project.claim(purpose, overwrite=False)
            check_reachable(self.wishes.budget, setting.space, setting.evaluator)
            self._project.sign(purpose)
        space = _tuner.HyperParameters()
        for unit, usual in zip(setting.space.units, setting.space.start, strict=True):
            space.Choice(unit.name, list(unit.choices), default=usual)
        self.oracle.update_space(space)
        if isinstance(self.oracle, PrecisionOracle):
            self.oracle.attach(self._strategy(setting), self._project)
        self._setting = setting
        return setting

    def _strategy(self, setting: Setting) -> Strategy:
        evaluator, score = setting.evaluator, self.wishes.score
        reference = evaluator.reference_figures
        return Strategy(
            setting.space,
            self.wishes.goal(reference),
            evaluator.reference,
            evaluator.held.truth if score is not None else None,
            score,
            reference[score.name] if score is not None else math.nan,
            self._tolerance,
        )

    def _outcomes(self) -> list[Outcome]:
        """Every trial that ended well, from the files in the project: whichever oracle, and whichever worker."""
        space, found = self._prepare().space, []
        for trial_id in sorted(self.oracle.trials):
            trial = self.oracle.trials[trial_id]
            if trial.status == _tuner.engine.trial.TrialStatus.COMPLETED:
                kept = self._project.kept(trial_id)
                if kept is not None:
                    found.append(
                        Outcome(f"trial {trial_id}", space.assignment(trial.hyperparameters.values), kept.figures)
                    )
        return found

    def _best(self) -> Outcome | None:
        return best_of(self._outcomes(), self.wishes.goal(self._prepare().evaluator.reference_figures))

    def _plan_of(self, outcome: Outcome) -> PrecisionPlan:
        reasons = {unit.name: f"{outcome.trial} of a precision search" for unit in self.space.units}
        return self.space.plan(outcome.assignment, reasons)

    def _result_of(self, outcome: Outcome) -> Result:
        return outcome.result(self._plan_of(outcome), self._prepare().evaluator.held.count)

    def _conclude(self) -> None:
        """Say how the search ended: why early, and what it found."""
        if self.oracle.failure is not None:
            raise SearchError(f"Expected trials that run. Received: {self.oracle.failure.strip()}")
        console = Console(stderr=True)
        if self._verbose or (self._verbose is None and console.is_terminal):
            console.print(front_text(self.pareto_front()), markup=False, highlight=False, soft_wrap=True)


def _is_pair(data: Any) -> bool:
    return isinstance(data, tuple) and len(data) == 2


def _is_chief() -> bool:
    return "KERASTUNER_ORACLE_IP" in os.environ and "chief" in os.environ.get("KERASTUNER_TUNER_ID", "")


def _is_worker() -> bool:
    return "KERASTUNER_ORACLE_IP" in os.environ and not _is_chief()
