"""The verbs compare and max-batch: what they ask for, and what they say."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_precision as kp
from keras_precision.cli import main
from keras_precision.cli.named import Part
from keras_precision.errors import DataError
from keras_precision.experiment.task import made


def test_compare_passes_on_what_it_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Model, data and numbers reach kp.compare_training; the answer is the table, or the comparison as JSON."""
    asked: dict[str, Any] = {}
    comparison = kp.Comparison(kp.Result("float32", (kp.Measurement("fit", "step_time_ms", 2.0),)))

    def compare(build: Any, train: Any, validation: Any, **options: Any) -> kp.Comparison:
        asked.update(options, data=(build, train, validation))
        return comparison

    monkeypatch.setattr(kp, "compare_training", compare)
    monkeypatch.setattr(sys, "path", list(sys.path))
    line = [
        "compare",
        "--model",
        "m:build",
        "--data",
        "m:train",
        "--seeds",
        "3",
        "4",
        "--steps",
        "7",
        "--metric",
        "auc",
    ]
    assert main([*line, "--validation", "m:test"]) == 0
    assert "│ float32 │" in capsys.readouterr().out
    assert asked["data"] == ("m:build", "m:train", "m:test")
    assert {name: asked[name] for name in ("seeds", "steps", "metric", "time_limit")} == {
        "seeds": [3, 4], "steps": 7, "metric": "auc", "time_limit": None,
    }  # fmt: skip
    assert str(Path.cwd()) in sys.path
    assert main([*line, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(comparison.to_bytes())
    assert asked["data"][1:] == (Part("m:train", rest=False), Part("m:train", rest=True))


def test_a_fifth_of_the_arrays_is_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a function for the validation data, the last fifth of the training data is; a dataset has none."""
    (tmp_path / "ten_samples.py").write_text(
        "import numpy as np\ndef data():\n    return np.arange(10), np.arange(10)\ndef other():\n    return iter(())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    parts = [made(Part("ten_samples:data", rest=rest)) for rest in (False, True)]
    assert [np.asarray(part[0]).tolist() for part in parts] == [list(range(8)), [8, 9]]
    with pytest.raises(DataError, match=r"'ten_samples:other' to return \(x, y\) of arrays. Received: tuple_iterator"):
        made(Part("ten_samples:other", rest=True))


def test_max_batch_passes_on_what_it_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Megabytes become bytes, and the table has a row for each precision."""
    asked: dict[str, Any] = {}

    def find(build: Any, make_batch: Any, precisions: Any, **options: Any) -> kp.Result:
        asked.update(options, given=(build, make_batch, precisions))
        rows = [kp.Measurement(name, "largest_batch", 64) for name in ("float32", "mixed_bfloat16")]
        return kp.Result("largest batch", tuple(rows))

    monkeypatch.setattr(kp, "find_max_batch_size", find)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert (
        main(
            [
                "max-batch",
                "--model",
                "m:build",
                "--data",
                "m:batch",
                "--precisions",
                "float32",
                "--memory-limit",
                "1500",
            ]
        )
        == 0
    )
    assert asked["given"] == ("m:build", "m:batch", ["float32"])
    assert asked["memory_limit"] == 1_500_000_000
    told = capsys.readouterr().out
    assert "mixed_bfloat16" in told
    assert "64" in told


def test_what_cannot_be_done_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    """One line on standard error says why."""
    assert main(["compare", "--model", "gone.keras", "--data", "json:loads"]) == 2
    assert (
        capsys.readouterr().err
        == "keras-precision: Expected a model file. Received: 'gone.keras', which does not exist.\n"
    )
    assert main(["max-batch", "--model", "m:build", "--data", "m:batch", "--precisions", "int8"]) == 2
    assert "the precision of 'int8'" in capsys.readouterr().err
