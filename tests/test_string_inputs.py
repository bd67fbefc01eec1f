"""Models that take strings: refused by what writes or trains numbers, with the way round, and left alone by the rest."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import ModelError

pytestmark = pytest.mark.every_stack

X = np.array([["a"], ["b"]] * 8)
Call = Callable[[Any, Path], object]
REFUSED: dict[str, Call] = {
    "export_tflite": lambda model, folder: kp.export_tflite(model, folder / "model.tflite", "int8", X),
    "export_onnx": lambda model, folder: kp.export_onnx(model, folder / "model.onnx", "float32"),
    "export_openvino": lambda model, folder: kp.export_openvino(model, folder / "model.xml", "float32"),
    "calibrate": lambda model, folder: kp.calibrate(model, X),
    "sensitivity": lambda model, folder: kp.sensitivity(model, X),
    "quantize_aware": lambda model, folder: kp.quantize_aware(model),
}


@pytest.fixture(scope="module")
def model(stack: Any) -> Any:
    """A lookup, an embedding and a dense layer; where the backend has no strings, there is no such model."""
    if stack.name in ("jax", "torch"):
        pytest.skip("layers that look strings up run on TensorFlow alone")
    layers = stack.keras.layers
    words = stack.keras.Input((1,), dtype="string", name="words")
    numbers = layers.StringLookup(vocabulary=["a", "b"])(words)
    return stack.keras.Model(words, layers.Dense(2)(layers.Flatten()(layers.Embedding(9, 4)(numbers))))


@pytest.mark.parametrize("name", REFUSED)
def test_strings_are_refused_by_name(model: Any, tmp_path: Path, name: str) -> None:
    """The message says which input takes them, and to look them up before; no file is written."""
    with pytest.raises(ModelError, match="input 'words' takes strings.*Look them up before the model"):
        REFUSED[name](model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_such_a_model_is_copied_all_the_same(model: Any) -> None:
    """A training plan concerns its numbers."""
    assert kp.plan_of(kp.apply_plan(model, kp.PrecisionPlan.training("mixed_bfloat16"))).default == "mixed_bfloat16"
