"""A plan's type of inputs and outputs: the file has it, the result says it, and an explicit io= comes first."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_precision as kp
from keras_precision.runtimes.card import card

litert = pytest.importorskip("ai_edge_litert.interpreter", reason='pip install "keras-precision[tflite]"')


def types(path: Path) -> tuple[type, type]:
    """Return the types of a file's input and output, as LiteRT has them."""
    runner = litert.Interpreter(str(path))
    return runner.get_input_details()[0]["dtype"], runner.get_output_details()[0]["dtype"]


@pytest.mark.every_stack
def test_a_file_has_the_inputs_that_its_plan_asks_for(stack: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    """The plan is followed after saving and loading, says so in result and card, and yields to an explicit io."""
    layers = stack.keras.layers
    model = stack.keras.Sequential([stack.keras.Input((6,)), layers.Dense(8, "relu"), layers.Dense(3)])
    calibration = kp.calibrate(model, rng.random((32, 6)).astype("float32"))
    path = tmp_path / "model.tflite"
    plan = kp.PrecisionPlan.load(kp.PrecisionPlan.deployment("int8", io="float32").save(tmp_path / "plan.json"))
    result = kp.export_tflite(model, path, plan, calibration)
    assert types(path) == (np.float32, np.float32)
    assert result.plan == card(path).plan == plan
    assert kp.export_tflite(model, path, plan, calibration, io="int8").plan == kp.PrecisionPlan.deployment("int8")
    assert types(path) == (np.int8, np.int8)
    kp.export_tflite(model, path, "int8", calibration, io="float32")
    assert types(path) == (np.float32, np.float32)


def test_a_quantization_aware_model_keeps_the_type_of_a_plan(tmp_path: Path, rng: np.random.Generator) -> None:
    """Its plan is read from the model, apart from what the export is asked for at inputs and outputs."""
    import keras

    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)])
    x = rng.random((32, 6)).astype("float32")
    aware = kp.quantize_aware(model, representative_dataset=x)
    path = tmp_path / "model.tflite"
    kp.export_tflite(aware, path, kp.PrecisionPlan.deployment("int8", io="float32"))
    assert types(path) == (np.float32, np.float32)
    kp.export_tflite(aware, path, io="float32")
    assert types(path) == (np.float32, np.float32)
    kp.export_tflite(aware, path)
    assert types(path) == (np.int8, np.int8)
