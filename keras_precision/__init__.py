"""Measure what lower precision does to a Keras model, choose a precision per layer, and deploy it safely.

The names are loaded on first use: importing this package imports neither Keras nor a backend.
"""

import importlib
from typing import TYPE_CHECKING, Any

from keras_precision.core import display as _display
from keras_precision.core import saved_classes as _saved_classes

if TYPE_CHECKING:  # "X as X" is what type checkers, and ruff, take for an export
    from keras_precision import edge as edge
    from keras_precision._adapters.layer_paths import layer_paths as layer_paths
    from keras_precision._adapters.layer_paths import plan_of as plan_of
    from keras_precision._adapters.model_file.load_model import load_model as load_model
    from keras_precision._adapters.precision_wrapper import PrecisionWrapper as PrecisionWrapper
    from keras_precision._adapters.training.loss_scale_optimizer import LossScaleOptimizer as LossScaleOptimizer
    from keras_precision.callbacks.loss_scale_guard import LossScaleGuard as LossScaleGuard
    from keras_precision.callbacks.probes.numerics import NumericsProbe as NumericsProbe
    from keras_precision.callbacks.probes.probe import Probe as Probe
    from keras_precision.callbacks.profiler import PrecisionProfiler as PrecisionProfiler
    from keras_precision.callbacks.scheduler import PrecisionScheduler as PrecisionScheduler
    from keras_precision.comparison.comparison import Comparison as Comparison
    from keras_precision.comparison.regression_gate import check_results as check_results
    from keras_precision.core.environment import Environment as Environment
    from keras_precision.core.errors import PrecisionError as PrecisionError
    from keras_precision.core.errors import PrecisionWarning as PrecisionWarning
    from keras_precision.core.formats import fit as _fit
    from keras_precision.core.metrics import METRICS as METRICS
    from keras_precision.core.plan import PrecisionPlan as PrecisionPlan
    from keras_precision.core.result import Measurement as Measurement
    from keras_precision.core.result import Result as Result
    from keras_precision.diagnosis.diagnose import diagnose as diagnose
    from keras_precision.diagnosis.lint import lint as lint
    from keras_precision.experiments.batch_size import find_max_batch_size as find_max_batch_size
    from keras_precision.experiments.compare_exports import compare_exports as compare_exports
    from keras_precision.experiments.compare_paths import compare_paths as compare_paths
    from keras_precision.experiments.compare_training import compare_training as compare_training
    from keras_precision.experiments.unstable_layers import find_unstable_layers as find_unstable_layers
    from keras_precision.explain.drop import explain_drop as explain_drop
    from keras_precision.export.checks.ethos_u import check_ethos_u as check_ethos_u
    from keras_precision.export.checks.tensorrt import check_tensorrt as check_tensorrt
    from keras_precision.export.checks.tflm import check_micro as check_micro
    from keras_precision.export.coreml import export_coreml as export_coreml
    from keras_precision.export.onnx.export import export_onnx as export_onnx
    from keras_precision.export.openvino import export_openvino as export_openvino
    from keras_precision.export.tflite import export_tflite as export_tflite
    from keras_precision.findings.finding import Finding as Finding
    from keras_precision.findings.suggest_plan import suggest_plan as suggest_plan
    from keras_precision.mixed_precision.apply_plan import apply_plan as apply_plan
    from keras_precision.mixed_precision.hardware import hardware as hardware
    from keras_precision.mixed_precision.policy import precision as precision
    from keras_precision.mixed_precision.policy import set_precision as set_precision
    from keras_precision.mixed_precision.recompile import recompile as recompile
    from keras_precision.quantization.calibration import Calibration as Calibration
    from keras_precision.quantization.calibration import calibrate as calibrate
    from keras_precision.quantization.layer_errors import quantization_report as quantization_report
    from keras_precision.quantization.qat.layers.quantize_rule import QuantizeRule as QuantizeRule
    from keras_precision.quantization.qat.layers.quantize_rule import register_quantize_rule as register_quantize_rule
    from keras_precision.quantization.qat.layers.quantize_wrapper import QuantizeWrapper as QuantizeWrapper
    from keras_precision.quantization.qat.quantize_aware import from_quantize_aware as from_quantize_aware
    from keras_precision.quantization.qat.quantize_aware import quantize_aware as quantize_aware
    from keras_precision.quantization.qat.tfmot.registry import register_tfmot_config as register_tfmot_config
    from keras_precision.report.render import render as render
    from keras_precision.report.save import save_report as save_report
    from keras_precision.search.hypermodel import PrecisionHyperModel as PrecisionHyperModel
    from keras_precision.search.objective.budget import Budget as Budget
    from keras_precision.search.sensitivity import sensitivity as sensitivity
    from keras_precision.search.tuner import PrecisionTuner as PrecisionTuner
    from keras_precision.verify.benchmark import benchmark as benchmark
    from keras_precision.verify.evaluate import evaluate as evaluate

    formats = _fit

__version__ = "0.1.0"

# Public name to the module that defines it, in the order of the workflow: profile, plan, apply, validate, report.
_WHERE = {
    "formats": "core.formats.fit",
    "hardware": "mixed_precision.hardware",
    "load_model": "_adapters.model_file.load_model",
    "layer_paths": "_adapters.layer_paths",
    "plan_of": "_adapters.layer_paths",
    "PrecisionProfiler": "callbacks.profiler",
    "NumericsProbe": "callbacks.probes.numerics",
    "Probe": "callbacks.probes.probe",
    "compare_training": "experiments.compare_training",
    "find_max_batch_size": "experiments.batch_size",
    "PrecisionPlan": "core.plan",
    "diagnose": "diagnosis.diagnose",
    "lint": "diagnosis.lint",
    "suggest_plan": "findings.suggest_plan",
    "precision": "mixed_precision.policy",
    "apply_plan": "mixed_precision.apply_plan",
    "recompile": "mixed_precision.recompile",
    "PrecisionScheduler": "callbacks.scheduler",
    "find_unstable_layers": "experiments.unstable_layers",
    "compare_paths": "experiments.compare_paths",
    "PrecisionWrapper": "_adapters.precision_wrapper",
    "set_precision": "mixed_precision.policy",
    "LossScaleOptimizer": "_adapters.training.loss_scale_optimizer",
    "LossScaleGuard": "callbacks.loss_scale_guard",
    "sensitivity": "search.sensitivity",
    "Budget": "search.objective.budget",
    "PrecisionTuner": "search.tuner",
    "PrecisionHyperModel": "search.hypermodel",
    "calibrate": "quantization.calibration",
    "Calibration": "quantization.calibration",
    "quantize_aware": "quantization.qat.quantize_aware",
    "from_quantize_aware": "quantization.qat.quantize_aware",
    "QuantizeWrapper": "quantization.qat.layers.quantize_wrapper",
    "QuantizeRule": "quantization.qat.layers.quantize_rule",
    "register_quantize_rule": "quantization.qat.layers.quantize_rule",
    "register_tfmot_config": "quantization.qat.tfmot.registry",
    "export_tflite": "export.tflite",
    "export_onnx": "export.onnx.export",
    "export_openvino": "export.openvino",
    "compare_exports": "experiments.compare_exports",
    "export_coreml": "export.coreml",
    "evaluate": "verify.evaluate",
    "benchmark": "verify.benchmark",
    "quantization_report": "quantization.layer_errors",
    "explain_drop": "explain.drop",
    "edge": "edge",
    "check_tensorrt": "export.checks.tensorrt",
    "check_micro": "export.checks.tflm",
    "check_ethos_u": "export.checks.ethos_u",
    "render": "report.render",
    "save_report": "report.save",
    "check_results": "comparison.regression_gate",
    "METRICS": "core.metrics",
    "Measurement": "core.result",
    "Result": "core.result",
    "Comparison": "comparison.comparison",
    "Environment": "core.environment",
    "Finding": "findings.finding",
    "PrecisionError": "core.errors",
    "PrecisionWarning": "core.errors",
}

_MODULES = ("edge", "formats")  # the names of whole modules

if not TYPE_CHECKING:  # type checkers read the imports above
    __all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    where = _WHERE.get(name)
    if where is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{where}")
    value = module if name in _MODULES else getattr(module, name)
    globals()[name] = value
    return value


_saved_classes.add_modules(
    "keras",
    "keras_precision._adapters.keras3.wrapper",
    "keras_precision._adapters.training.loss_scale_optimizer",
    "keras_precision.quantization.qat.layers.quantize_wrapper",
    "keras_precision.quantization.qat.layers.activation_range",
)
_saved_classes.add_modules("tf_keras", "keras_precision._adapters.tf_keras.wrapper")
_display.set_renderer(lambda result, form: str(__getattr__("render")(result, form)))


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
