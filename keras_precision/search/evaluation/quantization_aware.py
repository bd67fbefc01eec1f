"""QuantizationAware: post-training trials, and then a short training of the best plans."""

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
from keras_precision.core.system.files import write_atomic
from keras_precision.experiments.task import check_data
from keras_precision.export.tflite import export_tflite
from keras_precision.quantization.qat.quantize_aware import quantize_aware
from keras_precision.search.evaluation.evaluator import Evaluation
from keras_precision.search.evaluation.mode import (
    EVALUATION,
    SearchInputs,
    check_compiled,
    describe_options,
    is_finalist,
)
from keras_precision.search.evaluation.post_training import PostTraining
from keras_precision.search.objective.budget import Budget
from keras_precision.search.objective.objective import SearchObjective
from keras_precision.search.strategy.trials import TrialOutcome

__all__ = ["QuantizationAware"]

_FILE, _INPUTS = "model.tflite", "inputs.json"
_TRAINABLE = {"keras": ("int8", "int4", "float32"), "tf_keras": ("int8", "float32")}


class QuantizationAware(PostTraining):
    """Trains the finalists with ``quantize_aware``, and evaluates the files of the trained models."""

    name: ClassVar[str] = "quantization_aware"

    def __init__(
        self,
        model: Any,
        choices: Sequence[str],
        objective: SearchObjective,
        *,
        runtime: str = "litert",
        samples: int | None = None,
    ) -> None:
        super().__init__(model, choices, objective, runtime=runtime, samples=samples)
        family = "keras" if isinstance(model, adapter_for_file().keras.Model) else "tf_keras"
        others = [choice for choice in self.choices if choice not in _TRAINABLE[family]]
        if others:
            raise PlanError(
                f"Expected choices among {', '.join(_TRAINABLE[family])}, which a model of {family} can be trained for. "
                f"Received: {', '.join(others)}. Leave them out, or search with evaluation='post_training'."
            )
        check_compiled(model, "to train the finalists")
        self._inputs = SearchInputs()

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Accept the options of ``fit``."""
        known = [name for name in inspect.signature(self.model.fit).parameters if name not in ("x", "y")]
        for unknown in sorted(set(options) - set(known)):
            raise InputError(
                f"Expected x, y, validation_data, verbose, lease_s, or an option of fit. Received: {unknown}. {nearest(unknown, known)}".rstrip()
            )

    def set_training(self, inputs: SearchInputs) -> dict[str, str]:
        """Store data and options for the training of the finalists."""
        if inputs.x is None:
            raise DataError(
                "Expected data to train the finalists with. Received: None. Pass them to search(x, y, epochs=1)."
            )
        if isinstance(inputs.x, Iterator):
            raise DataError(
                f"Expected data that can be read again, for every finalist. Received: a {type(inputs.x).__name__}, which is used up "
                "by the first. Pass arrays, a tf.data.Dataset, a PyDataset or a DataLoader."
            )
        check_data(inputs.training_data(), "training data")
        self._inputs = inputs
        return {"training": describe_options(inputs.options)}

    def needs_training(self, values: Mapping[str, Any]) -> bool:
        """Whether the trial is a finalist."""
        return is_finalist(values)

    @property
    def _untrained_budget(self) -> Budget:
        """Size and latency only: a training may recover the accuracy that quantization loses."""
        return replace(self.objective.budget, max_metric_drop=None, max_divergence=None)

    def add_hyperparameters(self, space: Any, *, train_all: bool) -> None:
        """Add the way of evaluation, in addition to the precisions."""
        super().add_hyperparameters(space, train_all=train_all)
        if train_all:
            space.Fixed(EVALUATION, self.name)
        else:
            space.Choice(EVALUATION, [PostTraining.name, self.name], default=PostTraining.name)

    def evaluate(self, values: Mapping[str, str], folder: Path) -> Evaluation:
        """Evaluate a finalist by the file of its trained model, and save the file."""
        if not is_finalist(values):
            return super().evaluate(values, folder)
        content, names = self._train(values)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / _INPUTS, json.dumps(names))
        write_atomic(folder / _FILE, content)
        arrays = [self.evaluator.validation.samples[name] for name in super().input_names(values, folder)]
        samples = dict(zip(names, arrays, strict=True))
        return self.evaluator.evaluate_file(content, self.space.assignment(values), samples=samples)

    def content(self, values: Mapping[str, str], folder: Path) -> bytes:
        """Return the file of a trial, trained or not."""
        return (folder / _FILE).read_bytes() if is_finalist(values) else super().content(values, folder)

    def input_names(self, values: Mapping[str, str], folder: Path) -> list[str]:
        """Return the input names in the file; Keras renames inputs without a name of the user's in a copy of a model."""
        if not is_finalist(values):
            return super().input_names(values, folder)
        return [str(name) for name in json.loads((folder / _INPUTS).read_text(encoding="utf-8"))]

    def write(
        self, outcome: TrialOutcome, plan: PrecisionPlan, folder: Path, path: Path, options: Mapping[str, Any]
    ) -> Result:
        """Write the file of a finalist as it was evaluated."""
        if not outcome.is_finalist:
            return super().write(outcome, plan, folder, path, options)
        if options:
            raise DestinationError(
                f"Expected no options for the file of a plan that was trained. Received: {', '.join(sorted(options))}. "
                "Call export_best without them."
            )
        write_atomic(path, (folder / _FILE).read_bytes())
        return self.result(outcome, plan)

    def verify(self, outcome: TrialOutcome, plan: PrecisionPlan) -> None:
        """Export the plan, unless it is a finalist's, whose file was saved as it was evaluated."""
        if not outcome.is_finalist:
            super().verify(outcome, plan)

    def _train(self, values: Mapping[str, str]) -> tuple[bytes, list[str]]:
        """Return the file of a trained plan, and the names of its inputs in the order of the model's inputs."""
        plan = self.space.plan(self.space.assignment(values))
        options = {"verbose": 0, **self._inputs.options}
        options["callbacks"] = copy.deepcopy(options.get("callbacks"))  # one set per trial, as in KerasTuner
        labels = () if self._inputs.y is None else (self._inputs.y,)
        with tempfile.TemporaryDirectory() as temporary:
            trained = quantize_aware(self.model, plan, representative_dataset=self.evaluator.calibration)
            trained.fit(self._inputs.x, *labels, **options)
            path = Path(temporary) / _FILE
            export_tflite(trained, path, **{**self._export_options, "io": self.space.io})
            return path.read_bytes(), [entry.name for entry in adapter_of(trained).inputs(trained)]
