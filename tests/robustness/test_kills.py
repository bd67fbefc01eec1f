"""What the benchmark looks for after a kill: it is seen where it is planted."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import keras_precision as kp
from robustness import kills

SAVED = Path(__file__).parents[1] / "golden" / "saved"


def test_files_that_are_whole_are_fine(tmp_path: Path) -> None:
    """A finished result, a calibration, a .tflite file and a search, with the partial result of a later run."""
    for name in ("result.json", "calibration.npz", "comparison.json"):
        shutil.copy(SAVED / name, tmp_path)
    shutil.copy(SAVED / "int8.tflite", tmp_path / "model.tflite")
    shutil.copytree(SAVED / "search", tmp_path / "search_000")
    (tmp_path / "run.json.partial").write_text(kp.Result("run").log_header())
    assert kills._litter(tmp_path) == []
    assert kills._unreadable(tmp_path) == []
    finished = kills._trials(tmp_path)
    assert len(finished) == 3
    assert kills._lost(finished, tmp_path) == []


def test_what_a_kill_must_not_leave_is_seen(tmp_path: Path) -> None:
    """Half files, files that have other names, a result that is not finished, a trial that is gone."""
    shutil.copytree(SAVED / "search", tmp_path / "search_000")
    finished = kills._trials(tmp_path)
    (tmp_path / "search_000" / "trial_1" / "evaluation.npz").unlink()
    (tmp_path / "search_000" / "oracle.json").write_text("{")
    (tmp_path / "calibration.npz").write_bytes((SAVED / "calibration.npz").read_bytes()[:500])
    (tmp_path / "run.json").write_text(kp.Result("run").log_header())
    (tmp_path / "report.html").write_text("<html>")
    (tmp_path / ".model.tflite.0123456789abcdef").touch()
    assert [Path(path).parent.name for path in kills._lost(finished, tmp_path)] == ["trial_1"]
    assert len(kills._unreadable(tmp_path)) == 4
    assert kills._litter(tmp_path) == [".model.tflite.0123456789abcdef"]


def test_a_process_that_goes_on_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the mark in its environment, and not once it has ended."""
    monkeypatch.setattr(kills, "ORPHAN_S", 0)
    program = "import sys; print(1, flush=True); sys.stdin.read()"
    command, variables = [sys.executable, "-c", program], {**os.environ, kills.MARK: "here"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=variables, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert kills._orphans("here") == [process.pid]
    assert kills._orphans("here") == []
