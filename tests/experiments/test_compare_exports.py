"""compare_exports: forms of one model, what each answers, and what can be shown of the difference."""

from pathlib import Path
from typing import Any

import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import DataError, DestinationError, InputError, UnknownPrecisionError
from keras_precision.experiments.compare_exports import compare_exports
from keras_precision.experiments.deployed_models import single_output


@pytest.fixture(scope="module")
def trained(stack: Any) -> Any:
    """A small classifier that was trained, and its data."""
    rng = np.random.default_rng(0)
    x, y = nets.classes(rng, 120)
    model = nets.mlp(stack.keras)
    model.compile(stack.keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=5, verbose=0)
    return model, x, y


@pytest.mark.slow
def test_files_and_the_model_stand_side_by_side(trained: Any, tmp_path: Path) -> None:
    """Each form is named by target and precision, answers the same samples, and takes its turns."""
    model, x, y = trained
    weights = [array.copy() for array in model.get_weights()]
    comparison = compare_exports(
        model, x, y, ("float32", "int8", "mixed_bfloat16"), ("tflite", "keras"), folder=tmp_path, openings=2,
        timing_seconds=0.2, batch_size=16,
    )  # fmt: skip
    names = ["tflite:float32", "tflite:int8", "keras:float32", "keras:mixed_bfloat16"]
    assert [result.name for result in comparison.results] == names
    for result in comparison.results:
        assert result.value("latency_ms", result.name) > 0
        assert result.value("accuracy", result.name) > 0.9
        assert {row.subject for row in result.select("class_accuracy")} == {"class 0", "class 1", "class 2"}
        assert len({row.subject for row in result.select("latency_ms") if row.step is not None}) == 2
    assert comparison.baseline.value("agreement") == 1
    assert comparison.baseline.value("size_bytes") == (tmp_path / "float32.tflite").stat().st_size
    assert [result.value("batch_size") for result in comparison.results] == [1, 1, 16, 16]
    assert comparison.interval("latency_ms", "keras:float32").estimate > 1  # a call of Keras costs more than the file's
    assert comparison.verdict("accuracy", "keras:float32") == "inconclusive"
    assert comparison.interval("accuracy", "keras:float32").estimate == 0
    assert comparison.result("keras:mixed_bfloat16").plan == kp.PrecisionPlan.training("mixed_bfloat16")
    assert all(np.array_equal(before, after) for before, after in zip(weights, model.get_weights(), strict=True))
    drawn = kp.render(comparison)
    assert "Acc. per ms" in drawn
    assert "tflite:int8 against tflite:float32: size_bytes " in drawn


def test_toolchains_stand_side_by_side(trained: Any, tmp_path: Path) -> None:
    """Files of each runtime answer as the model does, and each takes the precisions that it has."""
    for module in ("onnxruntime", "tf2onnx", "openvino"):
        pytest.importorskip(module, reason='pip install "keras-precision[openvino]"')
    model, x, y = trained
    comparison = compare_exports(
        model, x, y, ("float32", "int8", "int16x8"), ("tflite", "onnx", "openvino"), folder=tmp_path, openings=2,
        timing_seconds=0.1, representative_dataset=kp.calibrate(model, x),
    )  # fmt: skip
    names = [f"tflite:{precision}" for precision in ("float32", "int8", "int16x8")]
    names += [f"{target}:{precision}" for target in ("onnx", "openvino") for precision in ("float32", "int8")]
    assert [result.name for result in comparison.results] == names
    assert [result.value("accuracy", result.name) > 0.9 for result in comparison.results] == [True] * 7
    assert [result.value("agreement") >= 0.97 for result in comparison.results] == [True] * 7
    assert comparison.result("onnx:int8").value("size_bytes") == (tmp_path / "int8.onnx").stat().st_size
    assert "onnxruntime" in comparison.result("onnx:int8").environment.backend


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"targets": ("onxn",)}, InputError, "targets among tflite, onnx, openvino, keras. Received: 'onxn'"),
        ({"precisions": ("float32", "int7")}, UnknownPrecisionError, "precisions that tflite can have: .*Received: 'int7'. Did you mean 'int8'"),
        ({"precisions": ("mixed_bfloat16",)}, UnknownPrecisionError, "Received: 'mixed_bfloat16'"),
        ({"precisions": ()}, InputError, "at least one precision and one target"),
        ({"openings": 0}, InputError, "openings > 0. Received: 0"),
        ({"folder": "no/such/folder"}, DestinationError, "a folder that exists. Received: 'no/such/folder'"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused(
    trained: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Before any file is made."""
    with pytest.raises(error, match=message):
        compare_exports(*trained, **options)


def test_the_keras_target_takes_its_three_policies(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none but float32 is named, the model stands in all three."""
    from keras_precision.experiments.compare_exports import _requested_models

    assert _requested_models(("float32", "int8"), ("tflite", "keras")) == [
        ("tflite", "float32"), ("tflite", "int8"), ("keras", "float32"), ("keras", "mixed_bfloat16"),
        ("keras", "mixed_float16"),
    ]  # fmt: skip
    assert _requested_models("mixed_float16", "keras") == [("keras", "mixed_float16")]


def test_labels_that_do_not_fit_are_refused(trained: Any) -> None:
    """Fewer labels than samples, and labels that are no classes."""
    model, x, y = trained
    with pytest.raises(DataError, match="as many predictions as labels"):
        compare_exports(model, x, y[:-1], ("float32",))
    with pytest.raises(DataError, match="class numbers or one-hot"):
        compare_exports(model, x, y + 0.5, ("float32",))
    with pytest.raises(DataError, match="Expected a model with one output. Received: 'two' with 2"):
        single_output([x, x], "two")
