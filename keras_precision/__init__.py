"""See what lower precision does to a Keras model, ship it safely, and choose it by evidence.

The names are loaded on first use: importing this package imports no Keras and no backend.
"""

import importlib
from typing import TYPE_CHECKING, Any

from keras_precision.core import display as _display
from keras_precision.core import saved_classes as _saved_classes

if TYPE_CHECKING:
    from keras_precision import edge
    from keras_precision._adapters.layer_paths import layer_paths, plan_of
    from keras_precision._adapters.model_file.load_model import load_model
    from keras_precision._adapters.precision_wrapper import PrecisionWrapper
    from keras_precision._adapters.training.loss_scale_optimizer import LossScaleOptimizer
    from keras_precision.callbacks.loss_scale_guard import LossScaleGuard
    from keras_precision.callbacks.probes.numerics import NumericsProbe
    from keras_precision.callbacks.probes.probe import Probe
    from keras_precision.callbacks.profiler import PrecisionProfiler
    from keras_precision.callbacks.scheduler import PrecisionScheduler
    from keras_precision.comparison.comparison import Comparison
    from keras_precision.comparison.regression_gate import check_results
    from keras_precision.core.environment import Environment
    from keras_precision.core.errors import PrecisionError, PrecisionWarning
    from keras_precision.core.formats import fit as formats
    from keras_precision.core.metrics import METRICS
    from keras_precision.core.plan import PrecisionPlan
    from keras_precision.core.result import Measurement, Result
    from keras_precision.diagnosis.diagnose import diagnose
    from keras_precision.diagnosis.lint import lint
    from keras_precision.experiments.batch_size import find_max_batch_size
    from keras_precision.experiments.compare_exports import compare_exports
    from keras_precision.experiments.compare_paths import compare_paths
    from keras_precision.experiments.compare_training import compare_training
    from keras_precision.experiments.unstable_layers import find_unstable_layers
    from keras_precision.explain.drop import explain_drop
    from keras_precision.export.checks.ethos_u import check_ethos_u
    from keras_precision.export.checks.tensorrt import check_tensorrt
    from keras_precision.export.checks.tflm import check_micro
    from keras_precision.export.coreml import export_coreml
    from keras_precision.export.onnx.export import export_onnx
    from keras_precision.export.openvino import export_openvino
    from keras_precision.export.tflite import export_tflite
    from keras_precision.findings.finding import Finding
    from keras_precision.findings.suggest_plan import suggest_plan
    from keras_precision.mixed_precision.apply_plan import apply_plan
    from keras_precision.mixed_precision.hardware import hardware
    from keras_precision.mixed_precision.policy import precision, set_precision
    from keras_precision.quantization.calibration import Calibration, calibrate
    from keras_precision.quantization.layer_errors import quantization_report
    from keras_precision.quantization.qat.layers.quantize_rule import QuantizeRule, register_quantize_rule
    from keras_precision.quantization.qat.layers.quantize_wrapper import QuantizeWrapper
    from keras_precision.quantization.qat.quantize_aware import from_quantize_aware, quantize_aware
    from keras_precision.quantization.qat.tfmot.registry import register_tfmot_config
    from keras_precision.report.render import render
    from keras_precision.report.save import save_report
    from keras_precision.search.hypermodel import PrecisionHyperModel
    from keras_precision.search.objective.budget import Budget
    from keras_precision.search.sensitivity import sensitivity
    from keras_precision.search.tuner import PrecisionTuner
    from keras_precision.verify.benchmark import benchmark
    from keras_precision.verify.evaluate import evaluate

__version__ = "0.1.0"

# In the order of the workflow: look, decide, act, verify, tell.
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

_MODULES = ("edge", "formats")  # the names that stand for a whole module

__all__ = [
    "METRICS",
    "Budget",
    "Calibration",
    "Comparison",
    "Environment",
    "Finding",
    "LossScaleGuard",
    "LossScaleOptimizer",
    "Measurement",
    "NumericsProbe",
    "PrecisionError",
    "PrecisionHyperModel",
    "PrecisionPlan",
    "PrecisionProfiler",
    "PrecisionScheduler",
    "PrecisionTuner",
    "PrecisionWarning",
    "PrecisionWrapper",
    "Probe",
    "QuantizeRule",
    "QuantizeWrapper",
    "Result",
    "apply_plan",
    "benchmark",
    "calibrate",
    "check_ethos_u",
    "check_micro",
    "check_results",
    "check_tensorrt",
    "compare_exports",
    "compare_paths",
    "compare_training",
    "diagnose",
    "edge",
    "evaluate",
    "explain_drop",
    "export_coreml",
    "export_onnx",
    "export_openvino",
    "export_tflite",
    "find_max_batch_size",
    "find_unstable_layers",
    "formats",
    "from_quantize_aware",
    "hardware",
    "layer_paths",
    "lint",
    "load_model",
    "plan_of",
    "precision",
    "quantization_report",
    "quantize_aware",
    "register_quantize_rule",
    "register_tfmot_config",
    "render",
    "save_report",
    "sensitivity",
    "set_precision",
    "suggest_plan",
]


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
_display.draw_with(lambda result: str(__getattr__("render")(result, "html")))


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
