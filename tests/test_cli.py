"""The command line, and the demo that it runs."""

import subprocess
import sys

import pytest

import keras_precision as kp
from keras_precision.cli import main


def run(*arguments, **options):
    """Run ``keras-precision`` in a process of its own."""
    command = [sys.executable, "-m", "keras_precision.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.mark.slow
def test_demo_runs_and_says_what_it_found(tmp_path):
    """The demo prints both tables and a verdict, writes what it names, and shows nobody else's chatter."""
    done = run("demo", "--epochs", 2, "--output", tmp_path / "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for part in ("Step time", "Samples/s", "Peak memory", "Val accuracy", "Latency", "Agreement", "On this machine ("):
        assert part in done.stdout
    results = {path.stem: kp.Result.load(path) for path in (tmp_path / "out" / "results").iterdir()}
    runs = ["float32", "mixed_bfloat16", "mixed_float16"]
    exports = ["tflite-float32", "tflite-float16", "tflite-int8"]
    assert sorted(results) == sorted(runs + exports)
    assert all(results[name].value("batches") == 2 * 20 for name in runs)
    assert results["mixed_float16"].value("loss_scale") is not None
    assert results["tflite-int8"].value("size_bytes") < results["tflite-float32"].value("size_bytes") / 2
    assert results["tflite-int8"].value("agreement") > 0.9
    assert kp.PrecisionPlan.load(tmp_path / "out" / "plan.json") == results["tflite-int8"].plan
    assert kp.edge.inspect(tmp_path / "out" / "model.int8.tflite").inputs[0].dtype == "int8"


def test_misuse_ends_with_2_and_one_line(tmp_path, capsys):
    """What cannot be done is one line on standard error, and exit code 2."""
    (tmp_path / "file").write_text("")
    assert main(["demo", "--epochs", "0"]) == 2
    assert capsys.readouterr().err == "keras-precision: Expected epochs >= 1. Received: 0.\n"
    assert main(["demo", "--output", str(tmp_path / "file")]) == 2
    assert "Expected a folder that can be made" in capsys.readouterr().err


def test_unknown_verb_lists_the_known(capsys):
    """A verb that does not exist is refused with those that do."""
    with pytest.raises(SystemExit, match="2"):
        main(["dem"])
    assert "demo" in capsys.readouterr().err


def test_version_is_the_packages(capsys):
    """--version prints the version."""
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"keras-precision {kp.__version__}\n"
