"""export_coreml: the package has the types that its plan says, or is not written; it runs on macOS alone."""

import sys
from pathlib import Path

import nets
import pytest

import keras_precision as kp
from keras_precision.deploy.coreml import CoremlToolchain
from keras_precision.errors import (
    DestinationError,
    ExportError,
    FileFormatError,
    MissingExtraError,
    UnknownPrecisionError,
)

pytest.importorskip("coremltools", reason='pip install "keras-precision[coreml]"')


def test_a_package_has_the_types_of_its_plan(tmp_path: Path) -> None:
    """The size falls with the precision of the weights, and each weighted operator has it."""
    import keras

    model = keras.Sequential(
        [
            keras.Input((8,), name="features"),
            keras.layers.Dense(512, "relu", name="wide"),
            keras.layers.Dense(3, name="head"),
        ]
    )
    sizes = []
    for plan in ("float32", "float16", "int8"):
        path = tmp_path / f"{plan}.mlpackage"
        result = kp.export_coreml(model, path, plan)
        sizes.append(sum(each.stat().st_size for each in path.rglob("*") if each.is_file()))
        assert result.value("size_bytes") == sizes[-1]
        assert result.value("operator_count", f"matmul {plan}") == 2
        assert result.plan == kp.PrecisionPlan.deployment(plan)
        read = CoremlToolchain().read_back(path)
        assert [(tensor.name, tensor.shape) for tensor in read.inputs] == [("features", (1, 8))]
        assert any("was not run" in note for note in result.notes) == (sys.platform != "darwin")
    assert sizes[0] > 1.5 * sizes[1]
    assert sizes[1] > 1.2 * sizes[2]
    kp.export_coreml(model, tmp_path / "int8.mlpackage", "float16")  # in the place of the other
    assert CoremlToolchain().read_back(tmp_path / "int8.mlpackage").operator_counts["matmul float16"] == 2
    with pytest.raises(DestinationError, match=r"overwrite=True"):
        kp.export_coreml(model, tmp_path / "int8.mlpackage", "float16", overwrite=False)


def test_what_cannot_be_exported_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop, a precision that the format lacks, a damaged package and a missing package: nothing is written."""
    import keras

    series = keras.Sequential([keras.Input((5, 4)), keras.layers.GRU(4), keras.layers.Dense(2)])
    with pytest.raises(ExportError, match=r"coremltools to convert.*unroll=True"):
        kp.export_coreml(series, tmp_path / "model.mlpackage", "float16")
    with pytest.raises(UnknownPrecisionError, match=r"coreml: float32, float16, int8"):
        kp.export_coreml(nets.mlp(keras), tmp_path / "model.mlpackage", "int4")
    with pytest.raises(DestinationError, match=r"ends in '\.mlpackage'"):
        kp.export_coreml(nets.mlp(keras), tmp_path / "model.mlmodel", "float16")
    with pytest.raises(FileFormatError, match=r"expected a Core ML package"):
        CoremlToolchain().read_back(tmp_path)
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(MissingExtraError, match=r"'coremltools'.*keras-precision\[coreml\]"):
        kp.export_coreml(nets.mlp(keras), tmp_path / "model.mlpackage", "float16")
    assert list(tmp_path.iterdir()) == []
