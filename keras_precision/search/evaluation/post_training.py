"""PostTraining: plans are evaluated by their files from post-training quantization, in memory."""

import math
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from keras_precision._adapters import adapter_for_file, adapter_of
from keras_precision.core.errors import DataError, PrecisionWarning, SearchError
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Result
from keras_precision.core.system.files import write_atomic
from keras_precision.export.card import with_card
from keras_precision.export.tflite import export_tflite
from keras_precision.export.units import check_choices
from keras_precision.runtimes.card import card
from keras_precision.search.checkpoint import digest_of
from keras_precision.search.evaluation.evaluator import Evaluation, Evaluator, prepare_evaluator
from keras_precision.search.evaluation.mode import Mode, SearchInputs
from keras_precision.search.evaluation.validation_set import check_count, read_validation_set
from keras_precision.search.objective.budget import Budget
from keras_precision.search.objective.feasibility import check_reachable, needs_float_io
from keras_precision.search.objective.objective import SearchObjective
from keras_precision.search.strategy.strategy import Strategy
from keras_precision.search.strategy.trials import TrialOutcome

__all__ = ["PostTraining"]


class PostTraining(Mode):
    """Calibrates once; after that, compiling and running the file of a plan takes milliseconds."""

    name: ClassVar[str] = "post_training"
    evaluator: Evaluator
    """Makes and evaluates the files of plans; available after ``prepare``."""

    def __init__(
        self,
        model: Any,
        choices: Sequence[str],
        objective: SearchObjective,
        *,
        runtime: str = "litert",
        samples: int | None = None,
    ) -> None:
        self.model, self.objective, self.choices = model, objective, check_choices(choices)
        self._runtime, self._samples = runtime, check_count(samples)
        self._export_options: dict[str, Any] = {"runtime": runtime}

    def prepare(self, inputs: SearchInputs) -> dict[str, str]:
        """Calibrate, and find the layers with a choice of precisions."""
        if inputs.representative is None or inputs.validation is None:
            missing = "representative data" if inputs.representative is None else "validation data"
            raise DataError(
                f"Expected {missing}. Received: None. Pass them to kp.PrecisionTuner, or to search(x, y, validation_data=(x, y))."
            )
        validation = read_validation_set(self.model, inputs.validation, self.objective.score, self._samples)
        evaluator = prepare_evaluator(
            self.model,
            inputs.representative,
            validation,
            self.choices,
            runtime=self._runtime,
            latency=self.objective.latency,
        )
        if needs_float_io(self._untrained_budget, evaluator):
            evaluator = evaluator.with_io("float32")
        self.evaluator, self.space = evaluator, evaluator.space
        self.reference_figures = evaluator.reference_figures
        io = self.space.io or "default"
        return {"validation data": digest_of(validation), "runtime": self._runtime, "inputs and outputs": io}

    @property
    def _untrained_budget(self) -> Budget:
        """The limits that a plan must meet by post-training quantization."""
        return self.objective.budget

    def check_budget(self) -> None:
        """Check the budget against the smallest and the most precise plan."""
        check_reachable(self._untrained_budget, self.evaluator)

    def rounds(self, tolerance: float) -> Strategy:
        """Return the strategy: one layer at a time, then an integer program."""
        evaluator, score = self.evaluator, self.objective.score
        return Strategy(
            self.space,
            self.objective.goal(self.reference_figures),
            evaluator.reference,
            evaluator.validation.labels if score is not None else None,
            score,
            self.reference_figures[score.name] if score is not None else math.nan,
            tolerance,
        )

    def evaluate(self, values: Mapping[str, str], folder: Path) -> Evaluation:
        """Compile and run the file of a plan."""
        return self.evaluator(self.space.assignment(values))

    def content(self, values: Mapping[str, str], folder: Path) -> bytes:
        """Return the ``.tflite`` file of a trial with these hyperparameters."""
        return self.evaluator.content(self.space.assignment(values))

    def model_of(self, values: Mapping[str, str], folder: Path) -> Any:
        """Return a Keras 3 model that runs the file, compiled with the loss and metrics of the model."""
        from keras_precision.search.evaluation.file_model import file_model

        shapes = [list(outputs.shape[1:]) for outputs in self.evaluator.reference]
        like = self.model if isinstance(self.model, adapter_for_file().keras.Model) else None
        inputs = list(adapter_of(self.model).inputs(self.model))
        return file_model(self.content(values, folder), inputs, self.input_names(values, folder), shapes, like)

    def input_names(self, values: Mapping[str, str], folder: Path) -> list[str]:
        """Return the input names in the file of a trial, in the order of the model's inputs."""
        return [entry.name for entry in adapter_of(self.model).inputs(self.model)]

    def write(
        self, outcome: TrialOutcome, plan: PrecisionPlan, folder: Path, path: Path, options: Mapping[str, Any]
    ) -> Result:
        """Export the model with the plan, unless the file is larger than the budget allows."""
        limit = self.objective.budget.max_size_bytes
        with tempfile.TemporaryDirectory() as temporary:
            draft = Path(temporary) / path.name
            export_options = {**self._export_options, **options}
            exported = self._export(draft, plan, export_options)
            if limit is not None and exported.value("size_bytes") > limit:
                raise SearchError(
                    f"Expected a file of at most {limit:,.0f} bytes. Received: {exported.value('size_bytes'):,}, with the options "
                    "of this export. Export without them, or search with a smaller max_size_bytes."
                )
            if not options:
                self._check_judged(outcome, draft)
            write_atomic(path, draft.read_bytes())
        return exported

    def verify(self, outcome: TrialOutcome, plan: PrecisionPlan) -> None:
        """Export the plan, and compare the file with the one that was evaluated."""
        with tempfile.TemporaryDirectory() as temporary:
            draft = Path(temporary) / "model.tflite"
            self._export(draft, plan, self._export_options)
            self._check_judged(outcome, draft)

    def _export(self, path: Path, plan: PrecisionPlan, options: Mapping[str, Any]) -> Result:
        """Export a plan whose predictions the search has evaluated: that they differ from the model's is no news."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*predicts otherwise than the model", PrecisionWarning)
            options = {"per_channel": True, **options}  # as files are evaluated
            return export_tflite(self.model, path, plan, self.evaluator.calibration, **options)

    def _check_judged(self, outcome: TrialOutcome, file: Path) -> None:
        """Raise unless a file is, apart from its card, the one that was evaluated."""
        if with_card(self.evaluator.content(outcome.assignment), card(file)) != file.read_bytes():
            raise SearchError(
                f"Expected the export of {outcome.trial} to write the file that was evaluated. Received: another. "
                "The model, its data or a package changed since: search again in another project."
            )

    @property
    def axes(self) -> Sequence[str]:
        """Size, quality, and latency if it is measured."""
        quality = "metric_drop" if self.objective.score is not None else "divergence"
        return ["size_bytes", quality, *(["latency_ms"] if self.objective.latency else [])]

    def result(self, outcome: TrialOutcome, plan: PrecisionPlan) -> Result:
        """Return the figures of the file."""
        source = f"{self.evaluator.validation.count} samples of the validation data, on which plans were chosen"
        sources = {"divergence": source, "metric_drop": source}
        if "latency_ms" in outcome.figures:
            sources["latency_ms"] = "calls interleaved with the baseline's, median, on 1 thread"
        return outcome.result(plan, ".tflite", "litert", sources)
