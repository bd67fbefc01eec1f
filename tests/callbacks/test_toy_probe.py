"""A probe that is defined here alone goes through the profiler, a saved result, the report and the command line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.cli import main

pytestmark = pytest.mark.every_stack


class BiasNorm(kp.Probe):
    """Watches the size of the last layer's bias, which no metric of the package knows."""

    name = "bias norm"

    def begin(self, fit: Any) -> None:
        self.model, self.norms = fit.model, []

    def epoch_end(self, epoch: int) -> None:
        self.norms.append(float(np.linalg.norm(self.model.layers[-1].get_weights()[1])))

    def end(self) -> None:
        self.model = None

    def values(self) -> dict[str, Any]:
        return {"bias_norm": self.norms[-1] if self.norms else None}

    def rows(self, since: int = 0) -> Iterator[kp.Measurement]:
        rows = [kp.Measurement("epoch", "bias_norm", norm, epoch) for epoch, norm in enumerate(self.norms)]
        return iter(rows[since:])

    def sources(self) -> dict[str, str]:
        return {"bias_norm": "Euclidean norm, read at the end of each epoch"}


def test_a_new_probe_is_one_class(
    stack: Any, rng: np.random.Generator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its figure is in the result, in the file, in the table of the command line and on the page of the report."""
    model = nets.mlp(stack.keras)
    model.compile("sgd", "sparse_categorical_crossentropy")
    profiler = kp.PrecisionProfiler("toy", probes=[BiasNorm()], path=tmp_path / "toy.json", verbose=0)
    x, y = nets.classes(rng, 32)
    model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[profiler])
    norm = float(np.linalg.norm(model.layers[-1].get_weights()[1]))
    assert profiler.result.value("bias_norm", "fit") == norm
    loaded = kp.Result.load(tmp_path / "toy.json")
    assert loaded.series("bias_norm", "epoch")[1][-1] == norm
    assert loaded.environment.sources["bias_norm"].startswith("Euclidean")
    assert main(["report", str(tmp_path / "toy.json"), "-o", str(tmp_path / "toy.html")]) == 0
    assert "Wrote" in capsys.readouterr().out
    assert "bias_norm" in (tmp_path / "toy.html").read_text(encoding="utf-8")
