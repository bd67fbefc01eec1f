"""A toolchain is one class: a format of this file alone goes through the real pipeline, and nothing else knows of it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import DestinationError, ExportError, PlanError, UnknownPrecisionError
from keras_precision.export.pipeline import export_file
from keras_precision.export.toolchain import ExportedFile, ExportJob, Toolchain, check_session
from keras_precision.runtimes.model_info import EdgeModel, Tensor
from keras_precision.runtimes.session import RuntimeSession
from keras_precision.runtimes.tflite.operators import Operator


@dataclass
class ToyFile:
    """Dense layers as JSON: of each a name, a precision, a kernel and a bias."""

    path: Path

    @property
    def document(self) -> dict[str, Any]:
        """What the file says."""
        return json.loads(self.path.read_text())

    def model(self) -> EdgeModel:
        """What it holds."""
        document = self.document
        layers = document["layers"]
        operators = tuple(
            Operator("DENSE", layer["precision"], (f"{layer['scope']}/MatMul",), (number - 1,) if number else ())
            for number, layer in enumerate(layers)
        )
        sides = [Tensor(name, (1, size), "float32") for name, size in document["sides"]]
        return EdgeModel(
            str(self.path), self.path.stat().st_size, "toy 1.0", (sides[0],), (sides[1],), operators,
            (len(layers) - 1,), document.get("card", ""),
        )  # fmt: skip


class ToySession(RuntimeSession):
    """Dense layers in NumPy, a ReLU between them, a softmax behind the last."""

    def __init__(self, path: Path) -> None:
        super().__init__(ToyFile(path).model())
        self._layers = ToyFile(path).document["layers"]

    def run(self, sample):
        """Return the predictions for one sample."""
        (x,) = sample
        for layer in self._layers[:-1]:
            x = np.maximum(x @ np.array(layer["kernel"]) + layer["bias"], 0)
        x = np.exp(x @ np.array(self._layers[-1]["kernel"]) + self._layers[-1]["bias"])
        return [(x / x.sum(axis=-1, keepdims=True)).astype("float32")]


class ToyToolchain(Toolchain):
    """``.toy`` files, in float32 and float16."""

    name, suffix = "toy", ".toy"
    precisions = ("float32", "float16")
    mixed = False

    def export(self, job: ExportJob, path: Path) -> ExportedFile:
        """Write weights as text, and compare the file's predictions with the model's own."""
        scopes = {layer: scope for scope, layer in job.source.trace.scopes.items() if scope.count("/") == 1}
        precision = job.request.plan.default
        weights = {name: layer.get_weights() for name, layer in job.view.layers.items()}
        layers = [
            {
                "scope": scopes[name],
                "precision": precision,
                "kernel": np.asarray(kernel, precision).tolist(),
                "bias": np.asarray(bias, precision).tolist(),
            }
            for name, (kernel, bias) in weights.items()
        ]
        sides = [[job.view.inputs[0].name, len(layers[0]["kernel"])], ["output_0", len(layers[-1]["bias"])]]
        path.write_text(json.dumps({"layers": layers, "sides": sides}))
        check_session(job.view, ToySession(path))
        return ExportedFile(notes=("made by a toy",))

    def read_back(self, path: Path) -> EdgeModel:
        """Read the file."""
        return ToyFile(path).model()

    def run(self, path, *, threads: int = 1) -> ToySession:
        """Open the file."""
        return ToySession(Path(path))

    def inscribe(self, path: Path, card: str) -> None:
        """Put the card beside the layers."""
        path.write_text(json.dumps({**ToyFile(path).document, "card": card}))


def export_toy(model: Any, path: Path, plan: str | kp.PrecisionPlan, **keywords: Any) -> kp.Result:
    """Write a model as a ``.toy`` file."""
    return export_file(ToyToolchain(), model, path, plan, **keywords)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_model_goes_through_the_pipeline(tmp_path, rng, precision):
    """The file is read back, realises its plan, carries its card, and predicts as the model does."""
    model, path = nets.mlp(keras), tmp_path / "model.toy"
    result = export_toy(model, path, precision)
    assert result.name == f"toy:{precision}"
    assert result.plan == kp.PrecisionPlan.deployment(precision)
    assert result.notes == ("made by a toy",)
    assert result.value("operator_count", f"DENSE {precision}") == 2
    assert result.value("size_bytes") == path.stat().st_size
    assert [file.name for file in tmp_path.iterdir()] == ["model.toy"]
    card = kp.Result.from_bytes(ToyFile(path).model().card.encode(), path)
    assert (card.name, card.plan, card.notes) == (result.name, result.plan, result.notes)
    assert card.value("output_type", "output_0") == "float32"
    x = rng.normal(size=(5, 8)).astype("float32")
    np.testing.assert_allclose(
        ToyToolchain().run(path).predict(x),
        model.predict(x, verbose=0),
        atol=1e-5 if precision == "float32" else 1e-2,
    )


@pytest.mark.parametrize(
    ("plan", "error", "message"),
    [
        ("int8", UnknownPrecisionError, r"a precision that toy files have\. Received: 'int8'"),
        (
            kp.PrecisionPlan.deployment("float32", layers={"head": "float16"}),
            PlanError,
            r"Expected one precision in a file of toy",
        ),
    ],
)
def test_its_limits_are_checked_before_any_work(tmp_path, plan, error, message):
    """A plan that the format cannot hold is refused."""
    with pytest.raises(error, match=message):
        export_toy(nets.mlp(keras), tmp_path / "model.toy", plan)
    assert list(tmp_path.iterdir()) == []


def test_its_mistakes_are_found(tmp_path, monkeypatch):
    """A file that does not predict as the model does, or loses its card, is not written."""
    monkeypatch.setattr(ToyToolchain, "inscribe", lambda self, path, card: None)
    with pytest.raises(ExportError, match="the same operators with a card inside"):
        export_toy(nets.mlp(keras), tmp_path / "model.toy", "float32")
    monkeypatch.setattr(ToySession, "run", lambda self, sample: [np.full((1, 3), 5.0, "float32")])
    with pytest.raises(ExportError, match=r"output 0 is off by"):
        export_toy(nets.mlp(keras), tmp_path / "model.toy", "float32")
    assert list(tmp_path.iterdir()) == []


def test_places_are_those_of_every_export(tmp_path):
    """Endings are checked; an older file is replaced through a link, or kept."""
    model, path = nets.mlp(keras), tmp_path / "model.toy"
    with pytest.raises(DestinationError, match=r"ends in '\.toy'"):
        export_toy(model, tmp_path / "model.tflite", "float32")
    export_toy(model, path, "float32")
    with pytest.raises(DestinationError, match="a path that is free"):
        export_toy(model, path, "float32", overwrite=False)
    (tmp_path / "link.toy").symlink_to(path)
    export_toy(model, tmp_path / "link.toy", "float16")
    assert (tmp_path / "link.toy").is_symlink()
    assert ToyFile(path).document["layers"][0]["precision"] == "float16"
