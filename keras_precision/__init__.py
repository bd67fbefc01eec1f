"""See what lower precision does to a Keras model, ship it safely, and choose it by evidence.

The names are loaded on first use: importing this package imports no Keras and no backend.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_precision import edge, formats
    from keras_precision._adapters.aware.rule import QuantizeRule, register_quantize_rule
    from keras_precision._adapters.aware.wrapper import QuantizeWrapper
    from keras_precision._adapters.loss_scale_optimizer import LossScaleOptimizer
    from keras_precision._adapters.model_file import load_model
    from keras_precision._adapters.paths import layer_paths, plan_of
    from keras_precision._adapters.precision_wrapper import PrecisionWrapper
    from keras_precision._adapters.tfmot import register_tfmot_config
    from keras_precision.callbacks.loss_scale_guard import LossScaleGuard
    from keras_precision.callbacks.numerics import NumericsProbe
    from keras_precision.callbacks.probe import Probe
    from keras_precision.callbacks.profiler import PrecisionProfiler
    from keras_precision.callbacks.scheduler import PrecisionScheduler
    from keras_precision.comparison import Comparison
    from keras_precision.deploy.coreml import export_coreml
    from keras_precision.deploy.ethos_u import check_ethos_u
    from keras_precision.deploy.micro import check_micro
    from keras_precision.deploy.onnx import export_onnx
    from keras_precision.deploy.openvino import export_openvino
    from keras_precision.deploy.tensorrt import check_tensorrt
    from keras_precision.deploy.tflite import export_tflite
    from keras_precision.diagnosis.diagnosing import diagnose
    from keras_precision.diagnosis.linting import lint
    from keras_precision.environment import Environment
    from keras_precision.errors import PrecisionError, PrecisionWarning
    from keras_precision.experiment.batch_size import find_max_batch_size
    from keras_precision.experiment.computing_paths import compare_paths
    from keras_precision.experiment.exports import compare_exports
    from keras_precision.experiment.training import compare_training
    from keras_precision.experiment.unstable import find_unstable_layers
    from keras_precision.explain.drop import explain_drop
    from keras_precision.findings import Finding
    from keras_precision.gate import check_results
    from keras_precision.machine import hardware
    from keras_precision.metrics import METRICS
    from keras_precision.plan import PrecisionPlan
    from keras_precision.planned import apply_plan
    from keras_precision.policy import precision, set_precision
    from keras_precision.quantize.aware.verb import from_quantize_aware, quantize_aware
    from keras_precision.quantize.calibration import Calibration, calibrate
    from keras_precision.quantize.layer_errors import quantization_report
    from keras_precision.report.render import render
    from keras_precision.report.saving import save_report
    from keras_precision.result import Measurement, Result
    from keras_precision.search.budget import Budget
    from keras_precision.search.hypermodel import PrecisionHyperModel
    from keras_precision.search.sensitivity import sensitivity
    from keras_precision.search.tuner import PrecisionTuner
    from keras_precision.suggestion import suggest_plan
    from keras_precision.verify import benchmark, evaluate

__version__ = "0.1.0"

# In the order of the workflow: look, decide, act, verify, tell.
_WHERE = {
    "formats": "formats",
    "hardware": "machine",
    "load_model": "_adapters.model_file",
    "layer_paths": "_adapters.paths",
    "plan_of": "_adapters.paths",
    "PrecisionProfiler": "callbacks.profiler",
    "NumericsProbe": "callbacks.numerics",
    "Probe": "callbacks.probe",
    "compare_training": "experiment.training",
    "find_max_batch_size": "experiment.batch_size",
    "PrecisionPlan": "plan",
    "diagnose": "diagnosis.diagnosing",
    "lint": "diagnosis.linting",
    "suggest_plan": "suggestion",
    "precision": "policy",
    "apply_plan": "planned",
    "PrecisionScheduler": "callbacks.scheduler",
    "find_unstable_layers": "experiment.unstable",
    "compare_paths": "experiment.computing_paths",
    "PrecisionWrapper": "_adapters.precision_wrapper",
    "set_precision": "policy",
    "LossScaleOptimizer": "_adapters.loss_scale_optimizer",
    "LossScaleGuard": "callbacks.loss_scale_guard",
    "sensitivity": "search.sensitivity",
    "Budget": "search.budget",
    "PrecisionTuner": "search.tuner",
    "PrecisionHyperModel": "search.hypermodel",
    "calibrate": "quantize.calibration",
    "Calibration": "quantize.calibration",
    "quantize_aware": "quantize.aware.verb",
    "from_quantize_aware": "quantize.aware.verb",
    "QuantizeWrapper": "_adapters.aware.wrapper",
    "QuantizeRule": "_adapters.aware.rule",
    "register_quantize_rule": "_adapters.aware.rule",
    "register_tfmot_config": "_adapters.tfmot",
    "export_tflite": "deploy.tflite",
    "export_onnx": "deploy.onnx",
    "export_openvino": "deploy.openvino",
    "compare_exports": "experiment.exports",
    "export_coreml": "deploy.coreml",
    "evaluate": "verify",
    "benchmark": "verify",
    "quantization_report": "quantize.layer_errors",
    "explain_drop": "explain.drop",
    "edge": "edge",
    "check_tensorrt": "deploy.tensorrt",
    "check_micro": "deploy.micro",
    "check_ethos_u": "deploy.ethos_u",
    "render": "report.render",
    "save_report": "report.saving",
    "check_results": "gate",
    "METRICS": "metrics",
    "Measurement": "result",
    "Result": "result",
    "Comparison": "comparison",
    "Environment": "environment",
    "Finding": "findings",
    "PrecisionError": "errors",
    "PrecisionWarning": "errors",
}

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
    value = module if where == name else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
