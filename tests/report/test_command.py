"""``keras-precision report``: saved results to a page, or to tables."""

from pathlib import Path

import pytest
from recorded import GOLDEN

import keras_precision as kp
from keras_precision.cli.main import main

SESSION = GOLDEN / "session"


def test_a_folder_becomes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page is written, the line says what is in it, and what was left out."""
    results = tmp_path / "results"
    results.mkdir()
    (results / "good.json").write_bytes((SESSION / "train-float32.json").read_bytes())
    (results / "bad.json").write_text("{")
    page = tmp_path / "page.html"
    assert main(["report", str(results), "-o", str(page), "--title", "Mine"]) == 0
    summary, left_out = capsys.readouterr().out.splitlines()
    assert summary.startswith(f"Wrote {page} (")
    assert summary.endswith("MB): 1 result.")
    assert left_out.startswith("Left out: ")
    assert "bad.json" in left_out
    assert "<h1>Mine</h1>" in page.read_text(encoding="utf-8")


def test_files_become_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    """The tables are printed, for a pull request."""
    assert (
        main(
            ["report", *(str(SESSION / f"tflite-{name}.json") for name in ("float32", "int8")), "--format", "markdown"]
        )
        == 0
    )
    assert capsys.readouterr().out.startswith("### Deployment")


def test_a_run_that_cannot_be_trusted_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A finding of severity error is printed, and sets the exit code; nothing to report is 2."""
    kp.Result("fp16", [kp.Measurement("fit", "loss_scale", 0.0, 9)]).save(tmp_path / "run.json")
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "page.html")]) == 1
    assert "Error: fp16: The loss scale fell to 0" in capsys.readouterr().out
    (tmp_path / "run.json").unlink()
    assert main(["report", str(tmp_path)]) == 2
    assert "Save one with result.save" in capsys.readouterr().err
