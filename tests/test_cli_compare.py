"""The commands compare and max-batch: their requests and their output."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_precision as kp
from keras_precision.cli.main import main
from keras_precision.cli.module_function import IMPORT_LOCATION, DataPart, modules_importable
from keras_precision.core.errors import DataError
from keras_precision.experiments.task import load_data


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a module ``m`` in it and a planted ``select``; nothing imports them."""
    for name in ("m", "select"):
        (tmp_path / f"{name}.py").write_text(
            "raise ImportError('the command imports no module that only children need')"
        )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_compare_passes_on_its_arguments(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Model, data and numbers reach kp.compare_training; the output is the table, or the comparison as JSON."""
    request: dict[str, Any] = {}
    comparison = kp.Comparison(kp.Result("float32", (kp.Measurement("fit", "step_time_ms", 2.0),)))

    def compare(build: Any, train: Any, validation: Any, **options: Any) -> kp.Comparison:
        request.update(options, data=(build, train, validation), path=list(sys.path))
        return comparison

    monkeypatch.setattr(kp, "compare_training", compare)
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
    assert request["data"] == ("m:build", "m:train", "m:test")
    assert {name: request[name] for name in ("seeds", "steps", "metric", "time_limit")} == {
        "seeds": [3, 4], "steps": 7, "metric": "auc", "time_limit": None,
    }  # fmt: skip
    assert request["path"] == [*sys.path, str(folder)]
    assert main([*line, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(comparison.to_bytes())
    assert request["data"][1:] == (DataPart("m:train", validation=False), DataPart("m:train", validation=True))


def test_a_fifth_of_the_arrays_is_validation_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a function for the validation data, the last fifth of the training data is; a dataset has none."""
    (tmp_path / "ten_samples.py").write_text(
        "import numpy as np\ndef data():\n    return np.arange(10), np.arange(10)\ndef other():\n    return iter(())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    parts = [load_data(DataPart("ten_samples:data", validation=validation)) for validation in (False, True)]
    assert [np.asarray(part[0]).tolist() for part in parts] == [list(range(8)), [8, 9]]
    with pytest.raises(DataError, match=r"'ten_samples:other' to return \(x, y\) of arrays. Received: tuple_iterator"):
        load_data(DataPart("ten_samples:other", validation=True))


def test_max_batch_passes_on_its_arguments(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Megabytes become bytes, and the table has a row per precision."""
    request: dict[str, Any] = {}

    def find(build: Any, make_batch: Any, precisions: Any, **options: Any) -> kp.Result:
        request.update(options, inputs=(build, make_batch, precisions), path=list(sys.path))
        rows = [kp.Measurement(name, "largest_batch", 64) for name in ("float32", "mixed_bfloat16")]
        return kp.Result("largest batch", tuple(rows))

    monkeypatch.setattr(kp, "find_max_batch_size", find)
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
    assert request["inputs"] == ("m:build", "m:batch", ["float32"])
    assert request["memory_limit"] == 1_500_000_000
    assert request["path"] == [*sys.path, str(folder)]
    printed = capsys.readouterr().out
    assert "mixed_bfloat16" in printed
    assert "64" in printed


def test_what_cannot_be_done_ends_with_2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line on standard error says why."""
    assert main(["compare", "--model", "gone.keras", "--data", "m:train"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"keras-precision: importing 'm' from {folder / 'm.py'}",
        "keras-precision: Expected a model file. Received: 'gone.keras', which does not exist.",
    ]
    assert main(["max-batch", "--model", "m:build", "--data", "m:batch", "--precisions", "int8"]) == 2
    assert "the precision of 'int8'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["gone:build", "__main__:build"])
def test_a_module_that_is_nowhere_is_refused_with_the_folder(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """The message has the folder that was searched, before any process is started, and the module path is as it was."""
    before = list(sys.path)
    assert main(["compare", "--model", name, "--data", "m:train"]) == 2
    module = name.partition(":")[0]
    message = f"Received: '{module}', but there is no '{module}' in {folder}, and none is installed. Run the command"
    assert message in capsys.readouterr().err
    assert sys.path == before


def test_a_module_of_python_is_not_taken_from_the_current_folder(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A planted file is passed over, and the command says which file it imports."""
    (folder / "json").mkdir()
    (folder / "json" / "__init__.py").write_text("")
    with modules_importable("json:loads", "select:select", "json.decoder:JSONDecoder"):
        pass
    said = capsys.readouterr().err
    assert f"importing 'json' from {json.__file__}\n" in said
    assert f"importing 'json.decoder' from {json.decoder.__file__}\n" in said
    assert "importing 'select' from " in said
    assert str(folder) not in said


def test_packages_of_the_current_folder_are_printed_with_their_files(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A module inside a package, a package without a file, and a module that the package must find itself."""
    (folder / "theirs" / "deep").mkdir(parents=True)
    (folder / "theirs" / "__init__.py").write_text("raise ImportError('nothing is imported to look for it')")
    (folder / "theirs" / "nets.py").write_text("")
    with modules_importable("theirs.nets:build", "theirs.deep:build", "theirs.gone:build", "m.gone:build"):
        pass
    assert capsys.readouterr().err.splitlines() == [
        f"keras-precision: importing 'theirs.nets' from {folder / 'theirs' / 'nets.py'}",
        f"keras-precision: importing 'theirs.deep' from {folder / 'theirs' / 'deep'}",
        f"keras-precision: importing 'theirs.gone' from {folder / 'theirs' / '__init__.py'}",
        f"keras-precision: importing 'm.gone' from {folder / 'm.py'}",
    ]


@pytest.mark.parametrize("names", [("model.keras",), (None,), ("m.py",), ("m:build:more",)])
def test_without_a_named_module_the_current_folder_is_not_searched(
    folder: Path, capsys: pytest.CaptureFixture[str], names: tuple[str | None, ...]
) -> None:
    """A path, or nothing, leaves the module path as it is, and nothing is said."""
    before = list(sys.path)
    with modules_importable(*names):
        assert sys.path == before
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("entry", ["", None])
def test_a_current_folder_that_is_searched_already_stays_where_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, entry: str | None
) -> None:
    """As under ``python -m``: neither twice on the module path, nor taken from it."""
    path = [str(folder) if entry is None else entry, *sys.path]
    monkeypatch.setattr(sys, "path", list(path))
    with modules_importable("m:build"):
        assert sys.path == path
    assert sys.path == path


@pytest.mark.parametrize("command", ["compare", "max-batch", "search"])
def test_help_says_where_modules_are_imported_from(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """Whoever names a module knows which one is meant."""
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert IMPORT_LOCATION in " ".join(capsys.readouterr().out.split())
