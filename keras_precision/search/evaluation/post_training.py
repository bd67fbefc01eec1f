"""PostTraining: plans are judged by the files that post-training quantization makes, in memory."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from keras_precision._adapters import adapter_for_file, adapter_of
from keras_precision.core.errors import DataError, SearchError
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Result
from keras_precision.core.system.files import write_whole
from keras_precision.export.tflite import export_tflite
from keras_precision.export.units import check_choices
from keras_precision.search.checkpoint import digest_of
from keras_precision.search.evaluation.evaluator import Evaluation
from keras_precision.search.evaluation.mode import Given, Mode
from keras_precision.search.evaluation.setting import Setting, ready
from keras_precision.search.evaluation.validation_set import check_count, held_out
from keras_precision.search.objective.feasibility import check_reachable
from keras_precision.search.objective.objective import Wishes
from keras_precision.search.strategy.strategy import Strategy
from keras_precision.search.strategy.trials import Outcome

__all__ = ["PostTraining"]


class PostTraining(Mode):
    """One calibration, and then a file in milliseconds for each plan.

    Args:
        model: The model.
        choices: Deployment precisions.
        wishes: What is asked for.
        runtime: What files are to run on.
        samples: Validation samples that are used at most; None for all.

    Attributes:
        setting: What plans are made of and judged with; there once ``prepare`` has run.
    """

    name: ClassVar[str] = "post_training"
    setting: Setting

    def __init__(
        self, model: Any, choices: Sequence[str], wishes: Wishes, *, runtime: str = "litert", samples: int | None = None
    ) -> None:
        self.model, self.wishes, self.choices = model, wishes, check_choices(choices)
        self._runtime, self._samples = runtime, check_count(samples)
        self._asked: dict[str, Any] = {"runtime": runtime}  # of each export

    def prepare(self, given: Given) -> dict[str, str]:
        """Calibrate, and find the layers that can be chosen for."""
        if given.representative is None or given.validation is None:
            what = "representative data" if given.representative is None else "validation data"
            raise DataError(
                f"Expected {what}. Received: None. Give them to kp.PrecisionTuner, or to search(x, y, validation_data=(x, y))."
            )
        held = held_out(self.model, given.validation, self.wishes.score, self._samples)
        self.setting = ready(
            self.model, given.representative, held, self.choices, runtime=self._runtime, latency=self.wishes.latency
        )
        self.space = self.setting.space
        self.reference_figures = self.setting.evaluator.reference_figures
        return {"validation data": digest_of(held), "runtime": self._runtime}

    def check_budget(self) -> None:
        """Run the smallest and the most precise plan."""
        check_reachable(self.wishes.budget, self.space, self.setting.evaluator)

    def rounds(self, tolerance: float) -> Strategy:
        """Return the strategy of sweep and integer program."""
        evaluator, score = self.setting.evaluator, self.wishes.score
        return Strategy(
            self.space,
            self.wishes.goal(self.reference_figures),
            evaluator.reference,
            evaluator.held.truth if score is not None else None,
            score,
            self.reference_figures[score.name] if score is not None else math.nan,
            tolerance,
        )

    def judge(self, values: Mapping[str, str], folder: Path) -> Evaluation:
        """Make and run the file of a plan."""
        return self.setting.evaluator(self.space.assignment(values))

    def content(self, values: Mapping[str, str], folder: Path) -> bytes:
        """Return the file of a trial.

        Args:
            values: Its hyperparameters.
            folder: Its folder.

        Returns:
            The content of a ``.tflite`` file.
        """
        return self.setting.evaluator.content(self.space.assignment(values))

    def model_of(self, values: Mapping[str, str], folder: Path) -> Any:
        """Return a Keras 3 model that runs the file, compiled with the loss and metrics of the model."""
        from keras_precision.search.evaluation.file_model import file_model

        shapes = [list(each.shape[1:]) for each in self.setting.evaluator.reference]
        like = self.model if isinstance(self.model, adapter_for_file().keras.Model) else None
        inputs = list(adapter_of(self.model).inputs(self.model))
        return file_model(self.content(values, folder), inputs, self.input_names(values, folder), shapes, like)

    def input_names(self, values: Mapping[str, str], folder: Path) -> list[str]:
        """Return what the file of a trial calls the inputs.

        Args:
            values: Its hyperparameters.
            folder: Its folder.

        Returns:
            Names, in the order of the model's inputs.
        """
        return [each.name for each in adapter_of(self.model).inputs(self.model)]

    def write(
        self, outcome: Outcome, plan: PrecisionPlan, folder: Path, path: Path, options: Mapping[str, Any]
    ) -> Result:
        """Export the model in the plan, unless the file becomes larger than the budget allows."""
        limit = self.wishes.budget.max_size_bytes
        with tempfile.TemporaryDirectory() as passing:
            draft = Path(passing) / path.name
            asked = {"engine": "aeq", **self._asked, **options}
            written = export_tflite(self.model, draft, plan, self.setting.calibration, **asked)
            if limit is not None and written.value("size_bytes") > limit:
                raise SearchError(
                    f"Expected a file of at most {limit:,.0f} bytes. Received: {written.value('size_bytes'):,}, with what was "
                    "asked for beside the plan. Export without that, or search with a smaller max_size_bytes."
                )
            write_whole(path, draft.read_bytes())
        return written

    @property
    def axes(self) -> Sequence[str]:
        """Size, quality, and latency where that is measured."""
        quality = "metric_drop" if self.wishes.score is not None else "divergence"
        return ["size_bytes", quality, *(["latency_ms"] if self.wishes.latency else [])]

    def result(self, outcome: Outcome, plan: PrecisionPlan) -> Result:
        """Return the figures of the file."""
        how = f"{self.setting.evaluator.held.count} samples of the validation data, on which plans were chosen"
        sources = {"divergence": how, "metric_drop": how}
        if "latency_ms" in outcome.figures:
            sources["latency_ms"] = "calls in turn with the baseline's, median, on 1 thread"
        return outcome.result(plan, ".tflite", "litert", sources)
