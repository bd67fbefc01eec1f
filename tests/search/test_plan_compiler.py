"""PlanCompiler: the file that a search judges is the one that an export writes, byte for byte."""

from typing import Any

import pytest

import keras_precision as kp
from keras_precision.export.calibration_choice import method_of
from keras_precision.export.card import with_card
from keras_precision.export.plan_compiler import PlanCompiler
from keras_precision.runtimes.card import card


@pytest.fixture(scope="module")
def measured(trained) -> tuple[Any, Any]:
    """Return a model and its calibration."""
    return trained.model, kp.calibrate(trained.model, trained.x[:32])


@pytest.mark.parametrize(
    "plan",
    [
        kp.PrecisionPlan.deployment("int8"),
        kp.PrecisionPlan.deployment("int8", io="float32"),
        kp.PrecisionPlan.deployment("int8", {"head": "float32"}),
        kp.PrecisionPlan.deployment("int4"),
        kp.PrecisionPlan.deployment("int16x8", {"stem": "int8"}),
        kp.PrecisionPlan.deployment("int8_dynamic"),
        kp.PrecisionPlan.deployment("int8", {"stem": "int16x8", "pointwise": "int4", "head": "float32"}),
        kp.PrecisionPlan.deployment("float32", {"stem": "int8"}),
        kp.PrecisionPlan.deployment("float32"),
    ],
    ids=lambda plan: f"{plan.default} {dict(plan.layers)} {plan.io}",
)
def test_a_judged_file_is_the_exported_one(measured, tmp_path, plan) -> None:
    """Under all defaults of an export, every byte is the same, apart from the card."""
    model, calibration = measured
    path = tmp_path / "model.tflite"
    kp.export_tflite(model, path, plan, calibration)
    compiled = PlanCompiler(calibration, method_of(calibration, "auto"))(plan)
    assert with_card(compiled, card(path)) == path.read_bytes()


def test_the_converter_is_taken_where_it_leaves_less_in_float(tmp_path, rng) -> None:
    """The same engine is chosen for a plan that is judged as for one that is exported."""
    import keras

    layers = [keras.layers.Dense(6, name="first"), keras.layers.PReLU(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((5,)), *layers])
    calibration = kp.calibrate(model, rng.normal(size=(64, 5)).astype("float32"))
    result = kp.export_tflite(model, tmp_path / "model.tflite", "int8", calibration, calibration="mse")
    assert result.value("engine") == "converter"  # AI Edge Quantizer leaves the PReLU in float
    compiled = PlanCompiler(calibration, "mse")(kp.PrecisionPlan.deployment("int8"))
    assert with_card(compiled, card(tmp_path / "model.tflite")) == (tmp_path / "model.tflite").read_bytes()
