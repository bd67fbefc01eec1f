"""ChannelRecovery: the last layers of a model kept in float, until no channel of its output is lost in the scale of others."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from keras_precision.core.channel_errors import ChannelErrors
from keras_precision.core.errors import ExportError, PlanError
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Measurement
from keras_precision.explain.layer_sensitivity import PlanEvaluator, RecoveryStep
from keras_precision.explain.recovery import Recovery
from keras_precision.quantization.layer_trace import OperatorLayers
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer
from keras_precision.runtimes.tflite.in_memory import predict_in_memory

__all__ = ["ChannelRecovery"]

Array = npt.NDArray[Any]

_MAX_OPERATORS = 12  # back from the output; a scale that is shared further inside is no matter of the output's channels


@dataclass(frozen=True)
class ChannelRecovery:
    """The channels of a file's output, and the plan that recovers those that are lost in the scale of others.

    Attributes:
        evaluator: Makes the files of plans.
        samples: Samples by the name of the input, shape (n, ...).
        reference: The float model's output for them.
        keep: The precision of the last layers.
        threads: Interpreters that run at once.
    """

    evaluator: PlanEvaluator
    samples: Mapping[str, Array]
    reference: Array
    keep: str
    threads: int

    def errors(self, predictions: Array) -> ChannelErrors:
        """Compare a file's predictions for the samples with the float model's, channel by channel."""
        output = next((layers[-1] for layers in self._from_the_end() if layers), "output")
        return ChannelErrors.of(output, self.reference, predictions)

    def rows(self, explained: Array, planned: Array) -> Iterator[Measurement]:
        """Yield the channels of the explained file and, where some are lost, those of the file of the recovery plan."""
        errors = self.errors(explained)
        yield from errors.rows()
        if errors.drowned():
            for channel, ratio in self.errors(planned).snr_db.items():
                yield Measurement(f"{errors.output}[{channel}]", "channel_snr_with_plan_db", ratio)

    def extended(self, outcome: Recovery, explained: Array, limit: float) -> Recovery:
        """Add the plan that recovers lost channels to a recovery: as its only step where that is enough, else as the first.

        ``explained`` are the explained file's predictions, and ``limit`` is how many predictions may remain changed.
        """
        if not self.errors(explained).drowned():
            return outcome
        candidates = [self._step(plan) for plan in dict.fromkeys((outcome.plan, outcome.plans()[0]))]
        found = [step for step in candidates if step is not None]
        enough = [step for step in found if step.quality.changed <= limit]
        chosen = [*enough, *reversed(found)][:1]
        steps = chosen if enough else [*chosen, *outcome.steps]
        return replace(outcome, steps=steps, of_channels=next(iter(chosen), None))

    def _step(self, plan: PrecisionPlan) -> RecoveryStep | None:
        """Return the plan with the fewest last layers in float whose file has no drowned channel; None for none."""
        for layers in self._last_layers():
            reasons = dict.fromkeys(layers, "the channels of the output share a scale")
            candidate = replace(plan.with_layers(dict.fromkeys(layers, self.keep), reasons), io="float32")
            try:
                quality = self.evaluator.evaluate(candidate)
            except (PlanError, ExportError):  # two formats for one operator, or an operator that the format lacks
                continue
            if not self.errors(predict_in_memory(quality.content, self.samples, self.threads)[0]).drowned():
                return RecoveryStep("last layers, for channels of the output", candidate, quality)
        return None

    def _last_layers(self) -> Iterator[list[str]]:
        """Yield no layer, the layers of the last operator, then those of one more operator each time."""
        layers: set[str] = set()
        yield []
        for names in self._from_the_end():
            more = layers | self._sharing({*names} & {*self.evaluator.export.compiler.paths})
            if more != layers:
                layers = more
                yield sorted(layers)

    def _sharing(self, names: set[str]) -> set[str]:
        """Add the layers that are computed by one operator together with these: they have one format."""
        operators = self.evaluator.export.compiler.layers
        while True:
            more = names.union(*(set(layers) for layers in operators if names & set(layers)))
            if more == names:
                return names
            names = more

    def _from_the_end(self) -> OperatorLayers:
        """Return the layers of the operators that lead to the output, the nearest first."""
        compiler = self.evaluator.export.compiler
        graph = Flatbuffer(compiler.float_content)
        writers = {int(number): index for index, operator in enumerate(graph.operators) for number in operator.outputs}
        reached: list[int] = []
        queue = list(graph.outputs)
        while queue and len(reached) < _MAX_OPERATORS:
            index = writers.get(queue.pop(0))
            if index is not None and index not in reached:
                reached.append(index)
                queue += [int(number) for number in graph.operators[index].inputs]
        return [compiler.layers[index] for index in reached]
