"""PlanCompiler: the file that a search judges predicts as the one that an export writes."""

import numpy as np
import pytest

import keras_precision as kp
from keras_precision.export.plan_compiler import PlanCompiler
from keras_precision.runtimes.tflite.in_memory import predict_in_memory


@pytest.mark.parametrize("plan", ["int8", "int4", "mixed"])
def test_a_judged_file_answers_as_the_exported_one(trained, tmp_path, plan):
    """Ranges and biases are those of an export: every answer is the same, bit by bit."""
    if plan == "mixed":
        plan = kp.PrecisionPlan.deployment("int8", layers={"stem": "int16x8", "pointwise": "int4", "head": "float32"})
    elif isinstance(plan, str):
        plan = kp.PrecisionPlan.deployment(plan)
    calibration = kp.calibrate(trained.model, trained.x[:32])
    kp.export_tflite(trained.model, tmp_path / "model.tflite", plan, calibration, engine="aeq", calibration="mse")
    compiled = PlanCompiler(calibration, "mse")(plan)
    (judged,), (exported,) = (
        predict_in_memory(content, {"image": trained.x_val}, 1)
        for content in (compiled, (tmp_path / "model.tflite").read_bytes())
    )
    np.testing.assert_array_equal(judged, exported)
