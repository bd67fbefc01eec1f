"""export_coreml: the package has the types that its plan says, or is not written; it runs on macOS alone."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import (
    DestinationError,
    ExportError,
    FileFormatError,
    InputError,
    MissingExtraError,
    UnknownPrecisionError,
)
from keras_precision.export.coreml import CoremlToolchain
from keras_precision.runtimes.card import card
from keras_precision.runtimes.coreml import inspect_coreml, open_coreml

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
    path, sizes = tmp_path / "model.mlpackage", []
    for plan in ("float32", "float16", "int8"):  # one in the place of the other
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
    with pytest.raises(DestinationError, match=r"overwrite=True"):
        kp.export_coreml(model, path, "float16", overwrite=False)


def held_weights(path: Path) -> list[np.ndarray]:
    """Return the weights of a package as they are when it runs, largest first."""
    import coremltools.optimize.coreml as optimize
    from coremltools.converters.mil.frontend.milproto.load import load as load_program

    plain = optimize.decompress_weights(open_coreml(path))
    program = load_program(plain.get_spec(), 7, plain.weights_dir)
    found = [each.val.val for each in program.functions["main"].find_ops(op_type="const") if each.val.val is not None]
    return sorted((np.asarray(values, "float32") for values in found if np.ndim(values) == 2), key=np.size)[::-1]


def test_palettized_weights_are_entries_of_a_table(tmp_path: Path) -> None:
    """Each tensor has at most 256 values, near the model's own; a package is as small as with linear steps."""
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((64,)), keras.layers.Dense(512, "relu", name="wide"), keras.layers.Dense(3, name="head")]
    )
    exact = [layer.kernel.numpy().T for layer in model.layers]
    errors, sizes = {}, {}
    for weights in ("linear", "palettized"):
        path = tmp_path / f"{weights}.mlpackage"
        result = kp.export_coreml(model, path, "int8", weights=weights)
        assert result.plan == kp.PrecisionPlan.deployment("int8")
        assert result.value("operator_count", "matmul int8") == 2
        held = [operator.weights for operator in inspect_coreml(path).operators if operator.weights]
        assert held == [(f"int8 {weights}",)] * 2
        assert sum(f"int8 {weights}" in str(row.value) for row in result.select("operator")) == 2
        got = [
            values if values.shape == own.shape else values.T
            for values, own in zip(held_weights(path), exact, strict=True)
        ]
        errors[weights] = [float(np.abs(values - own).max()) for values, own in zip(got, exact, strict=True)]
        sizes[weights] = result.value("size_bytes")
        if weights == "palettized":
            assert [len(np.unique(values)) <= 256 for values in got] == [True, True]
    assert max(errors["palettized"]) < 0.01 * np.abs(exact[0]).max()
    assert max(errors["linear"]) < 0.01 * np.abs(exact[0]).max()
    assert sizes["palettized"] < 1.1 * sizes["linear"] < 0.7 * 2 * model.count_params() + 20_000


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """An unknown way, and a table under a plan of floats, are refused before any work."""
    import keras

    with pytest.raises(InputError, match=r"linear, palettized. Received: 'paletized'\. Did you mean 'palettized'"):
        kp.export_coreml(nets.mlp(keras), tmp_path / "model.mlpackage", "int8", weights="paletized")
    with pytest.raises(InputError, match=r"plan int8 for palettized weights\. Received: float16\. .*weights='linear'"):
        kp.export_coreml(nets.mlp(keras), tmp_path / "model.mlpackage", weights="palettized")
    assert list(tmp_path.iterdir()) == []


def test_a_package_says_how_it_was_made(tmp_path: Path) -> None:
    """The card is among the package's own metadata."""
    import keras

    result = kp.export_coreml(nets.mlp(keras), tmp_path / "model.mlpackage", "int8")
    told = card(tmp_path / "model.mlpackage")
    assert told.plan == result.plan
    assert told.notes == result.notes
    assert "keras_precision.card" in open_coreml(tmp_path / "model.mlpackage").user_defined_metadata
    assert [each.name for each in tmp_path.iterdir()] == ["model.mlpackage"]
    with pytest.raises(FileNotFoundError):
        card(tmp_path / "none.mlpackage")


class Neural(NamedTuple):
    """A package that is no program, but has layers of a neural network."""

    spec: Any

    def get_spec(self) -> Any:
        return self.spec


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
    from coremltools.proto import Model_pb2

    with (
        monkeypatch.context() as patched,
        pytest.raises(FileFormatError, match="Core ML program.*model of another kind"),
    ):
        patched.setattr("keras_precision.runtimes.coreml.open_coreml", lambda path: Neural(Model_pb2.Model()))
        inspect_coreml(tmp_path)
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(MissingExtraError, match=r"'coremltools'.*keras-precision\[coreml\]"):
        kp.export_coreml(nets.mlp(keras), tmp_path / "model.mlpackage", "float16")
    assert list(tmp_path.iterdir()) == []
