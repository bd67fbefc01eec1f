"""QuantizationAware: post-training trials, and then a short training for each of the best plans."""

import copy
import inspect
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from keras_precision._adapters import adapter_for_file, adapter_of
from keras_precision.core.errors import DataError, DestinationError, InputError, PlanError, nearest
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Result
from keras_precision.core.system.files import write_whole
from keras_precision.experiments.task import check_data
from keras_precision.export.tflite import export_tflite
from keras_precision.quantization.qat.quantize_aware import quantize_aware
from keras_precision.search.evaluation.evaluator import Evaluation
from keras_precision.search.evaluation.mode import EVALUATION, Given, check_compiled, described, is_finalist
from keras_precision.search.evaluation.post_training import PostTraining
from keras_precision.search.objective.feasibility import check_reachable
from keras_precision.search.objective.objective import Wishes
from keras_precision.search.strategy.trials import Outcome

__all__ = ["QuantizationAware"]

_FILE, _INPUTS = "model.tflite", "inputs.json"
_TRAINABLE = {"keras": ("int8", "int4", "float32"), "tf_keras": ("int8", "float32")}


class QuantizationAware(PostTraining):
    """Trains the finalists as their files will compute, and judges the files of what was trained.

    Args:
        model: A compiled model.
        choices: Deployment precisions that can be trained for.
        wishes: What is asked for.
        runtime: What files are to run on.
        samples: Validation samples that are used at most; None for all.

    Raises:
        ModelError: The model is not compiled.
        PlanError: A choice cannot be trained for.
    """

    name: ClassVar[str] = "quantization_aware"

    def __init__(
        self, model: Any, choices: Sequence[str], wishes: Wishes, *, runtime: str = "litert", samples: int | None = None
    ) -> None:
        super().__init__(model, choices, wishes, runtime=runtime, samples=samples)
        family = "keras" if isinstance(model, adapter_for_file().keras.Model) else "tf_keras"
        others = [each for each in self.choices if each not in _TRAINABLE[family]]
        if others:
            raise PlanError(
                f"Expected choices among {', '.join(_TRAINABLE[family])}, which a model of {family} can be trained for. "
                f"Received: {', '.join(others)}. Leave them out, or search with evaluation='post_training'."
            )
        check_compiled(model, "to train the finalists")
        self._given = Given()

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Take those of ``fit``."""
        known = [name for name in inspect.signature(self.model.fit).parameters if name not in ("x", "y")]
        for unknown in sorted(set(options) - set(known)):
            raise InputError(
                f"Expected x, y, validation_data, verbose, lease_s, or an option of fit. Received: {unknown}. {nearest(unknown, known)}".rstrip()
            )

    def train_with(self, given: Given) -> dict[str, str]:
        """Keep the data and options of the finalists' training."""
        if given.x is None:
            raise DataError(
                "Expected data to train the finalists with. Received: None. Give them to search(x, y, epochs=1)."
            )
        if isinstance(given.x, Iterator):
            raise DataError(
                f"Expected data that can be read again, for each finalist. Received: a {type(given.x).__name__}, which is used up "
                "by the first. Give arrays, a tf.data.Dataset, a PyDataset or a DataLoader."
            )
        check_data(given.pair(), "training data")
        self._given = given
        return {"training": described(given.options)}

    def trains(self, values: Mapping[str, Any]) -> bool:
        """Finalists are."""
        return is_finalist(values)

    def check_budget(self) -> None:
        """Check sizes and times; what quantization loses, a training may win back."""
        kept = replace(self.wishes.budget, max_metric_drop=None, max_divergence=None)
        check_reachable(kept, self.space, self.setting.evaluator)

    def hyperparameters(self, space: Any, *, every: bool) -> None:
        """Add how a trial is judged: by an oracle that knows no finalists, always by training."""
        super().hyperparameters(space, every=every)
        if every:
            space.Fixed(EVALUATION, self.name)
        else:
            space.Choice(EVALUATION, [PostTraining.name, self.name], default=PostTraining.name)

    def judge(self, values: Mapping[str, str], folder: Path) -> Evaluation:
        """Judge a finalist by the file of what is trained, and keep the file."""
        if not is_finalist(values):
            return super().judge(values, folder)
        content, names = self._trained(values)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / _INPUTS, json.dumps(names))
        write_whole(folder / _FILE, content)
        held = self.setting.evaluator.held.samples
        samples = dict(zip(names, (held[each.name] for each in adapter_of(self.model).inputs(self.model)), strict=True))
        return self.setting.evaluator.of_file(content, self.space.assignment(values), samples=samples)

    def content(self, values: Mapping[str, str], folder: Path) -> bytes:
        """Return the file of a trial, trained or not."""
        return (folder / _FILE).read_bytes() if is_finalist(values) else super().content(values, folder)

    def input_names(self, values: Mapping[str, str], folder: Path) -> list[str]:
        """Return what the file of a trial calls the inputs: Keras names those of a copy otherwise, where the user does not."""
        if not is_finalist(values):
            return super().input_names(values, folder)
        return [str(name) for name in json.loads((folder / _INPUTS).read_text(encoding="utf-8"))]

    def write(
        self, outcome: Outcome, plan: PrecisionPlan, folder: Path, path: Path, options: Mapping[str, Any]
    ) -> Result:
        """Write the file of a finalist as it was judged."""
        if not outcome.is_finalist:
            return super().write(outcome, plan, folder, path, options)
        if options:
            raise DestinationError(
                f"Expected no options for the file of a plan that was trained. Received: {', '.join(sorted(options))}. "
                "Call export_best without them."
            )
        write_whole(path, (folder / _FILE).read_bytes())
        return self.result(outcome, plan)

    def _trained(self, values: Mapping[str, str]) -> tuple[bytes, list[str]]:
        """The file of a plan that was trained for, and the names of its inputs in the order of the model's."""
        plan = self.space.plan(self.space.assignment(values))
        options = {"verbose": 0, **self._given.options}
        options["callbacks"] = copy.deepcopy(options.get("callbacks"))  # as KerasTuner does: each trial has its own
        labels = () if self._given.y is None else (self._given.y,)
        with tempfile.TemporaryDirectory() as passing:
            aware = quantize_aware(self.model, plan, representative_dataset=self.setting.calibration)
            aware.fit(self._given.x, *labels, **options)
            path = Path(passing) / _FILE
            export_tflite(aware, path, **self._asked)
            return path.read_bytes(), [each.name for each in adapter_of(aware).inputs(aware)]
