"""The command line, and the demo that it runs."""

import argparse
import importlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.cli.command import CommandOutput
from keras_precision.cli.commands import COMMANDS
from keras_precision.cli.demo_run import TimeLimit
from keras_precision.cli.main import main


def run(*arguments, **options):
    """Run ``keras-precision`` in a process of its own."""
    command = [sys.executable, "-m", "keras_precision.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.mark.slow
def test_demo_runs_and_reports_its_results(tmp_path):
    """The demo prints both tables and a verdict, writes what it names, and no messages of other packages."""
    done = run("demo", "--epochs", 2, "--output", tmp_path / "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for part in ("Step time", "Samples/s", "Peak memory", "Val accuracy", "Latency", "Agreement", "On this machine ("):
        assert part in done.stdout
    results = {path.stem: kp.Result.load(path) for path in (tmp_path / "out" / "results").iterdir()}
    runs = ["float32", "mixed_bfloat16", "mixed_float16"]
    exports = ["tflite-float32", "tflite-float16", "tflite-int8", "tflite-best"]
    assert sorted(results) == sorted(runs + exports)
    assert results["float32"].value("batches") == 2 * 20
    for name in runs[1:]:  # one that takes too long here is ended, and the demo says so
        steps = results[name].value("batches")
        assert 6 <= steps <= 2 * 20
        assert (f"stopped after {steps} of 40 steps" in " ".join(done.stdout.split())) == (steps < 40)
    assert results["mixed_float16"].value("loss_scale") is not None
    assert results["tflite-int8"].value("size_bytes") < results["tflite-float32"].value("size_bytes") / 2
    assert results["tflite-int8"].value("agreement") > 0.9
    assert kp.PrecisionPlan.load(tmp_path / "out" / "plan.json") == results["tflite-int8"].plan
    assert results["tflite-best"].value("size_bytes") < results["tflite-int8"].value("size_bytes")
    assert "int4" in kp.PrecisionPlan.load(tmp_path / "out" / "plan.best.json").layers.values()
    assert "A precision per layer: of " in done.stdout
    assert kp.edge.inspect(tmp_path / "out" / "model.int8.tflite").inputs[0].dtype == "int8"


def test_demo_ends_a_run_that_takes_too_long(rng):
    """Out of time, a run is ended after the steps that its time is taken from; within its time, it is not."""
    keras = pytest.importorskip("keras")
    x, y = nets.classes(rng, 80)
    for seconds, expected in ((-1.0, 5), (600.0, 20)):
        model = nets.mlp(keras)
        model.compile("sgd", "sparse_categorical_crossentropy")
        profiler = kp.PrecisionProfiler(verbose=0)
        model.fit(x, y, batch_size=4, verbose=0, callbacks=[profiler, TimeLimit(seconds, least_steps=5)])
        assert profiler.result.value("batches") == expected


def test_misuse_ends_with_2_and_one_line(tmp_path, capsys):
    """What cannot be done is one line on standard error, and exit code 2."""
    (tmp_path / "file").write_text("")
    assert main(["demo", "--epochs", "0"]) == 2
    assert capsys.readouterr().err == "keras-precision: Expected epochs >= 1. Received: 0. Pass a positive number.\n"
    assert main(["demo", "--output", str(tmp_path / "file")]) == 2
    assert "Expected a folder that can be created" in capsys.readouterr().err


def test_output_that_cannot_be_written_ends_with_2():
    """A full disk is not done, and neither a finding nor a traceback."""
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "keras_precision.cli", "formats"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "keras-precision: [Errno 28] No space left on device\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_command_with_its_exit_code(number, code, monkeypatch):
    """Files and processes of the command are cleaned up, and the handler is gone afterwards."""
    cleaned = []

    def run(options):
        try:
            signal.raise_signal(number)
        finally:
            cleaned.append(number)

    options = argparse.Namespace(run=run, parse_args=lambda arguments: options)
    monkeypatch.setattr(importlib.import_module("keras_precision.cli.main"), "build_parser", lambda: options)
    before = signal.getsignal(signal.SIGTERM)
    interrupted = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let background jobs ignore it
    try:
        received = main([])
    except SystemExit as ended:
        received = ended.code
    finally:
        signal.signal(signal.SIGINT, interrupted)
    assert (received, cleaned) == (code, [number])
    assert signal.getsignal(signal.SIGTERM) == before


def test_only_the_command_line_handles_signals():
    """A library leaves them to the program that uses it."""
    package = Path(kp.__file__).parent
    users = {
        str(path.relative_to(package)) for path in package.rglob("*.py") if "signal.signal(" in path.read_text("utf-8")
    }
    assert users == {"cli/main.py"}


def test_errors_show_control_characters_escaped(tmp_path, capsys):
    """A name that would steer the terminal is shown."""
    (tmp_path / "red\x1b[31m").write_text("{")
    assert main(["report", str(tmp_path / "red\x1b[31m")]) == 2
    assert "red\\x1b[31m: expected a JSON file" in capsys.readouterr().err


def test_unknown_command_lists_the_known(capsys):
    """A command that does not exist is refused, with a list of those that do."""
    with pytest.raises(SystemExit, match="2"):
        main(["dem"])
    assert "demo" in capsys.readouterr().err


def test_version_is_the_packages(capsys):
    """--version prints the version."""
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"keras-precision {kp.__version__}\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a model, and samples and labels under two pairs of names."""
    import keras

    folder = tmp_path_factory.mktemp("files")
    keras.utils.set_random_seed(1)
    nets.mlp(keras).save(folder / "model.keras")
    x, y = nets.classes(np.random.default_rng(0), 40)
    np.savez(folder / "data.npz", x=x, y=y, features=x[:, :3], truth=y)
    np.save(folder / "x.npy", x)
    return folder


def json_of(capsys, *arguments):
    """Run a command with --json in this process; return what it printed."""
    code = main([*map(str, arguments), "--json"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return json.loads(printed.out)


def test_export_evaluate_and_benchmark_chain(files, tmp_path, capsys):
    """A model is exported, its file is scored against it and timed; as JSON, every output is a saved result."""
    model, data, written = files / "model.keras", files / "data.npz", tmp_path / "model.tflite"
    exported = json_of(capsys, "export", model, "-o", written, "--data", data, "--samples", 30, "--validation", data)
    (tmp_path / "exported.json").write_text(json.dumps(exported))
    result = kp.Result.load(tmp_path / "exported.json")
    assert result.plan == kp.PrecisionPlan.deployment("int8")
    assert result.value("calibration_samples") == 30
    scored = json_of(capsys, "evaluate", written, "--data", data, "--y", "truth", "--reference", model)
    rows = {row[1]: row[2] for row in scored["measurements"]}
    assert rows["accuracy"] == result.value("accuracy")
    assert rows["agreement"] > 0.9
    assert main(["benchmark", str(written), "--data", str(files / "x.npy"), "--warmup", "1", "--seconds", "0"]) == 0
    assert "latency_p95_ms" in capsys.readouterr().out


def test_export_writes_for_other_runtimes(files, tmp_path, capsys):
    """The ending of the file says for which, as --format does, and other commands read the file."""
    pytest.importorskip("tf2onnx", reason='pip install "keras-precision[onnx]"')
    pytest.importorskip("onnxruntime", reason='pip install "keras-precision[onnx]"')
    model, data = files / "model.keras", files / "data.npz"
    exported = json_of(capsys, "export", model, "-o", tmp_path / "model.onnx", "--data", data)
    assert exported["name"] == "onnx:int8"
    scored = json_of(capsys, "evaluate", tmp_path / "model.onnx", "--data", data)
    assert "accuracy" in json.dumps(scored)
    line = ["export", str(model), "-o", str(tmp_path / "model.tflite"), "--precision", "float32", "--format", "onnx"]
    assert main(line) == 2
    assert "ends in '.onnx'" in capsys.readouterr().err
    assert main([*line[:-2], "--weights", "palettized"]) == 2
    assert "Core ML's format only. Received: it with tflite" in capsys.readouterr().err
    assert main([*line, "--no-bias-correction"]) == 2
    assert "Expected --no-bias" not in (error := capsys.readouterr().err)
    assert "--bias-correction with TensorFlow Lite's format only. Received: it with onnx" in error


def test_export_corrects_and_equalizes(files, tmp_path, capsys):
    """--cross-layer-equalization and --no-bias-correction reach the package."""
    common = ("export", files / "model.keras", "--data", files / "data.npz", "-o")
    exported = json_of(capsys, *common, tmp_path / "one.tflite", "--cross-layer-equalization")
    assert "equalized_pairs" in {row[1] for row in exported["measurements"]}
    exported = json_of(capsys, *common, tmp_path / "other.tflite", "--no-bias-correction")
    assert "equalized_pairs" not in {row[1] for row in exported["measurements"]}
    assert (tmp_path / "one.tflite").read_bytes() != (tmp_path / "other.tflite").read_bytes()


def test_export_writes_tables_of_weights(files, tmp_path, capsys):
    """--weights reaches the package."""
    pytest.importorskip("coremltools", reason='pip install "keras-precision[coreml]"')
    line = ("export", files / "model.keras", "-o", tmp_path / "model.mlpackage", "--weights", "palettized")
    assert "int8 palettized" in json.dumps(json_of(capsys, *line))


def test_export_takes_a_plan(files, tmp_path, capsys):
    """A plan from a file is what is exported, and an older file is not replaced with --no-overwrite."""
    plan = kp.PrecisionPlan.deployment("int8", layers={"head": "float32"})
    plan.save(tmp_path / "plan.json")
    written = tmp_path / "model.tflite"
    line = ["export", files / "model.keras", "-o", written, "--plan", tmp_path / "plan.json", "--data", files / "x.npy"]
    assert dict(kp.PrecisionPlan.load(tmp_path / "plan.json").layers) == {"head": "float32"}
    assert json_of(capsys, *line)["plan"]["layers"] == {"head": "float32"}
    assert main([*map(str, line), "--no-overwrite"]) == 2
    assert "Expected a path that is free" in capsys.readouterr().err


def test_formats_and_hardware(capsys):
    """Both print a table, and as JSON list every format."""
    assert [row["name"] for row in json_of(capsys, "formats")] == list(kp.formats.FORMATS)
    assert {row[0] for row in json_of(capsys, "hardware")["measurements"]} == set(kp.formats.FORMATS)
    assert main(["formats"]) == main(["hardware"]) == 0
    assert "65504" in capsys.readouterr().out


def test_data_that_cannot_be_used(files, tmp_path, capsys):
    """Missing arrays, foreign files and missing files are errors of one line, with exit code 2."""
    (tmp_path / "data.npz").write_bytes(b"no archive")
    model = str(files / "model.keras")
    for data, message in (
        (
            (files / "data.npz", "--y", "label"),
            "expected an array 'label'. Received: x, y, features, truth. Name the array",
        ),
        ((tmp_path / "data.npz",), "expected an .npz or .npy file of numbers"),
        ((tmp_path / "none.npz",), "which does not exist"),
        ((files / "data.npz", "--x", "features"), "Expected samples of shape (n, 8)"),
    ):
        assert main(["evaluate", model, "--data", *map(str, data)]) == 2
        printed = capsys.readouterr()
        assert message in printed.err
        assert printed.out == ""


def test_a_finding_of_severity_error_makes_the_code_1():
    """Errors make the exit code 1, warnings do not; text and JSON contain both."""
    error, warning = (kp.Finding("code", severity, "layer", "Seen.", "Do.") for severity in ("error", "warning"))
    result = kp.Result("run")
    assert [CommandOutput.of(result, "", findings).code for findings in ((), (warning,), (warning, error))] == [0, 0, 1]
    output = CommandOutput.of(result, "table", (error,))
    assert output.text == "table\nError: Seen.\n    Do."
    assert json.loads(output.json())["findings"][0]["severity"] == "error"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_help_has_examples_that_can_be_parsed(command, capsys):
    """The help of every command shows examples and exit codes; every example is a command line of that command."""
    with pytest.raises(SystemExit, match="0"):
        main([command.name, "--help"])
    shown = capsys.readouterr().out
    assert "exit codes:" in shown
    for example in command.examples:
        assert f"keras-precision {example}" in shown
        name, *rest = example.partition(" > ")[0].split()
        assert name == command.name
        assert parser_of_the_program().parse_args([name, *rest]).run is command.run


def parser_of_the_program():
    """Return the parser that main uses."""
    from keras_precision.cli.main import build_parser

    return build_parser()
