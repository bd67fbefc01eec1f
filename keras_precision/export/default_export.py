"""DefaultExport: the file that ``kp.export_tflite`` writes for a plan by default, in memory and without its card."""

from functools import cache
from typing import Any

from keras_precision._adapters.model_view import ModelView
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Result
from keras_precision.export.calibration_choice import method_of
from keras_precision.export.card import facts
from keras_precision.export.plan_compiler import Candidate, PlanCompiler, plain_candidate
from keras_precision.export.readback import check_file
from keras_precision.export.request import ExportRequest
from keras_precision.export.tflite import TfliteToolchain
from keras_precision.quantization.calibration import Calibration
from keras_precision.quantization.conversion import ConvertedFile
from keras_precision.quantization.range_estimators import AUTO

__all__ = ["DefaultExport"]


class DefaultExport:
    """Makes the files that ``kp.export_tflite(model, path, plan, calibration)`` writes, apart from their cards.

    Searches and explanations evaluate these bytes, so that a plan is judged by the very file that it is exported to.

    Attributes:
        calibration: The ranges of the model's activations.
        compiler: What quantizes the float file.
    """

    def __init__(self, model: Any, calibration: Calibration, *, runtime: str = "litert") -> None:
        self.calibration = calibration
        self.compiler = PlanCompiler(calibration, method_of(calibration, AUTO))
        self._view, self._runtime, self._toolchain = ModelView.of_built(model), runtime, TfliteToolchain()
        self._plain_candidate = cache(self._convert)  # of one or two precisions, by a conversion of the model

    def candidate(self, plan: PrecisionPlan) -> Candidate:
        """Return the file of a plan, loaded and run.

        Raises:
            PlanError: The plan gives two formats to layers that are one operator.
            ExportError: The quantizer failed.
        """
        request = self._request(plan)
        return self._plain_candidate(plan.default) if request.plain else self.compiler.candidate(plan)

    def card(self, plan: PrecisionPlan, candidate: Candidate, name: str) -> Result:
        """Check a file against its plan as an export does, and return the content of its card.

        Raises:
            PlanNotHonouredError: A layer that the plan names is in another precision.
            PlanError: The runtime cannot run the file.
        """
        model, request = candidate.model, self._request(plan)
        realised, notes = check_file(model, model, request, candidate.layers, candidate.trace.paths)
        calibration = None if request.plain else self.calibration
        return facts(name, request, candidate, calibration, realised, (*notes, *candidate.notes))

    def _request(self, plan: PrecisionPlan) -> ExportRequest:
        return ExportRequest(plan, calibration=self.compiler.method, runtime=self._runtime)

    def _convert(self, precision: str) -> Candidate:
        source = self._toolchain.float_source(self._view, self._request(PrecisionPlan.deployment(precision)))
        return plain_candidate(ConvertedFile(source.content, source.trace))
