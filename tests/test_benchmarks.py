"""The benchmarks: each runs, at its smallest, and prints what it is there for. No test looks at a time."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
_HELPERS = ("healthy_nets", "layer_kinds", "peers", "planted_faults", "search_nets", "side_by_side", "trained_nets")
SCRIPTS = sorted(path for path in BENCHMARKS.glob("*.py") if path.stem not in _HELPERS)


def output_of(name: str, *arguments: str, folder: Path) -> str:
    """Run a benchmark in ``folder`` and return what it printed."""
    child = subprocess.run(
        [sys.executable, str(BENCHMARKS / name), *arguments],
        cwd=folder, env=os.environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    return child.stdout


def tables(output: str) -> dict[str, list[list[str]]]:
    """Return the tables that were printed: title to rows, without the header."""
    found = {}
    for part in re.split(r"^### ", output, flags=re.MULTILINE)[1:]:
        lines = [line for line in part.splitlines() if line.startswith("|")]
        found[part.splitlines()[0]] = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return found


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_benchmark_says_how_to_run_it(script: Path) -> None:
    """Its docstring has the command."""
    assert f"python benchmarks/{script.name}" in str(ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("test", "killed"), [("the_interval_of_a_mean_is_that_of_scipy", 3), ("mcnemar_is_the_binomial_test", 0)]
)
def test_mutants_that_no_test_sees_are_printed(test: str, killed: int, tmp_path: Path) -> None:
    """A test of the mean sees all three changes of the line that returns its interval; one of McNemar's sees none."""
    module = "keras_precision/comparison/intervals.py"
    lines = (BENCHMARKS.parent / module).read_text(encoding="utf-8").splitlines()
    (line,) = (number for number, text in enumerate(lines, 1) if "return Interval(mean, " in text)
    arguments = (module, f"tests/test_intervals.py::test_{test}", "--lines", str(line))
    output = output_of("mutation.py", *arguments, folder=tmp_path)
    assert output.count(f"{module}:{line}: return Interval(mean, ") == 3 - killed
    assert output.endswith(f"{module}: {killed} of 3 killed\n")


@pytest.mark.slow
def test_the_search_is_measured_as_layers_grow(tmp_path: Path) -> None:
    """Each net has a row: its layers, the plans run, and the points of its front."""
    output = output_of("search.py", "--parts", "growth", "--layers", "2", "3", "--no-mobilenet", folder=tmp_path)
    (rows,) = tables(output).values()
    assert [row[:2] for row in rows] == [["chain of 2", "2"], ["chain of 3", "3"]]
    assert all(int(row[2]) >= int(row[1]) + 1 for row in rows)


@pytest.mark.slow
def test_a_search_in_several_processes_loses_nothing(tmp_path: Path) -> None:
    """A chief and three workers, one of which may be killed: no trial that ended is run again, and the front is that of one."""
    arguments = ("--parts", "kills", "--layers", "3", "--samples", "16", "--kills", "1")
    (rows,) = tables(output_of("search_workers.py", *arguments, folder=tmp_path)).values()
    row = rows[-1]
    assert int(row[2]) >= 4
    assert row[4:] == ["0", "True"]


@pytest.mark.slow
def test_profiler_overhead(tmp_path: Path) -> None:
    """Every arm is measured, the profiler reports its own time, and each aim gets a verdict."""
    output = output_of("profiler_overhead.py", "--stack", "tensorflow", "--pairs", "1", "--steps", "5", folder=tmp_path)
    rows = {row[0]: row[1:] for row in tables(output)["Callbacks on tensorflow"]}
    assert len(rows) == 4
    assert all(float(row[0]) > 0 for row in rows.values())
    assert [name for name, row in rows.items() if row[4] != "-"] == ["PrecisionProfiler"]
    assert len(re.findall(r"^Aim: .*: (?:NOT )?met\.$", output, re.MULTILINE)) == 4
    assert "Machine: " in output


@pytest.mark.slow
def test_skips_are_counted_exactly(tmp_path: Path) -> None:
    """Each of the eight cells of TensorFlow has the number that was planted."""
    output = output_of("loss_scale_audit.py", "--what", "skips", "--stack", "tensorflow", folder=tmp_path)
    (rows,) = tables(output).values()
    assert [row[4:] for row in rows] == [["8", "exact"]] * 8
    assert "Exact: 8 of 8 cells" in output


@pytest.mark.slow
def test_failures_are_found_and_healthy_runs_are_not_blamed(tmp_path: Path) -> None:
    """Each failure that was planted on TensorFlow occurred and was found, and nothing else was."""
    output = output_of(
        "loss_scale_audit.py", "--what", "audit", "--stack", "tensorflow", "--seeds", "3", folder=tmp_path
    )
    (rows,) = tables(output).values()
    assert {row[1]: row[4] for row in rows[:-1]} == {row[1]: "found" for row in rows[:-1]}
    assert rows[-1][1:] == ["nothing (6 runs)", "nothing", "0 findings", "right"]
    assert {row[2] for row in rows[:-1]} == {
        f"loss-scale-{what}" for what in ("collapsed", "infinite", "stuck", "missing", "idle")
    }


@pytest.mark.slow
@pytest.mark.parametrize(("only", "count"), [("squeeze", 3), ("text, mean", 1)])
def test_healthy_nets_give_no_warning(tmp_path: Path, only: str, count: int) -> None:
    """Neither small nets, in each policy, nor one of the examples at keras.io."""
    arguments = ("--what", "healthy", "--stack", "tensorflow", "--nets", "42", "--only", only)
    output = output_of("numerics.py", *arguments, folder=tmp_path)
    assert tables(output) == {f"False alarms in {count} healthy nets on tensorflow": []}


@pytest.mark.slow
def test_storms_ruin_no_model_with_bounds(tmp_path: Path) -> None:
    """Plain Keras ends with NaN in the weights; the guard and the bounded optimizer do not."""
    output = output_of("loss_scale_audit.py", "--what", "storms", "--stack", "torch", "--seeds", "1", folder=tmp_path)
    assert list(tables(output).values()) == [[["torch", "1", "0", "0"]]]


@pytest.mark.slow
@pytest.mark.timeout(900)  # four processes, which other work on the machine slows down
@pytest.mark.parametrize(("backend", "net"), [("jax", "transformer"), ("torch", "conv")])
def test_gpu_runs_small_on_a_processor(backend: str, net: str, tmp_path: Path) -> None:
    """A network is measured in each precision, the source of memory is named, and float32 is the baseline."""
    sizes = ("--small", "--steps", "20", "--pairs", "1", "--net", net)
    output = output_of("gpu.py", "--backend", backend, *sizes, folder=tmp_path)
    ((title, rows),) = tables(output).items()
    assert title == f"{net}, small, {backend}, 20 steps"
    assert [row[0] for row in rows] == ["float32", "tf32", "mixed_bfloat16", "mixed_float16"]
    assert rows[0][7].startswith("1.000x")
    ran = [row for row in rows if row[1] != "-"]  # JAX has no attention in float16 on processors (keras-hub 2354)
    assert all(row[1].endswith(" ms") and row[6].endswith(" %") for row in ran)
    assert "nan" not in output
    assert len(rows) - len(ran) <= (backend == "jax")
    assert output.count("Memory: ") == 1
    assert output.count(" cannot run here: ") == (backend == "jax")


def test_report(tmp_path: Path) -> None:
    """A report is built for each number of steps, and its size is told."""
    output = output_of("report.py", "--steps", "20", "40", "--layers", "3", "--repeat", "1", folder=tmp_path)
    (rows,) = tables(output).values()
    assert [row[:2] for row in rows] == [["20", "3"], ["40", "3"]]
    assert all(0 < float(row[3].removesuffix(" MB")) < 6 for row in rows)
    assert "open in under 2 s with 10,000 steps and 300 layers: met." in output


@pytest.mark.slow
def test_load_model(tmp_path: Path) -> None:
    """Each form of a net has a row with the time of a load, that of the checks and their ratio."""
    output = output_of("load_model.py", "--nets", "mlp", "--rounds", "2", folder=tmp_path)
    rows = tables(output)["Loading"]
    assert [row[0] for row in rows] == ["mlp.keras", "mlp.h5"]
    assert all(float(row[2].split()[0]) > float(row[3].split()[0]) > 0 for row in rows)
    assert len(re.findall(r"^Aim: .*: (?:NOT )?met\.$", output, re.MULTILINE)) == 1


@pytest.mark.slow
def test_load_model_against_another_checkout(tmp_path: Path) -> None:
    """The same loads by two checkouts, here the same one twice."""
    options = ("--nets", "mlp", "--rounds", "1", "--against", str(Path(__file__).parents[1]))
    rows = tables(output_of("load_model.py", *options, folder=tmp_path))["Loading against another checkout"]
    assert [row[0] for row in rows] == ["mlp.keras", "mlp.h5"]
    assert all(float(row[2].removesuffix("x")) > 0 for row in rows)


@pytest.mark.slow
def test_compare_trust(tmp_path: Path) -> None:
    """At its smallest, verdicts in earnest, drawn and plain stand side by side, and each aim gets a verdict."""
    sizes = ("--comparisons", "1", "--processes", "2", "--draws", "20", "--seconds", "1", "--what", "verdicts")
    output = output_of("compare_trust.py", *sizes, "--equal", "2", folder=tmp_path)
    (rows,) = tables(output).values()
    assert [row[:3] for row in rows if row[1] == "drawn"] == [
        [what, "drawn", "20"] for what in ("A against A", "A against A slowed by 5 %", "A against A slowed by 10 %")
    ]
    assert [int(row[2]) for row in rows if row[1] == "in earnest"] == [1, 1, 1]
    assert len(re.findall(r"^Aim: .*: (?:NOT )?met\.$", output, re.MULTILINE)) == 3


@pytest.mark.slow
def test_evaluate_threads(tmp_path: Path) -> None:
    """Both precisions of a net are timed in both arms, whose predictions are the same."""
    arguments = ("--nets", "tiny", "--rounds", "1", "--threads", "2", "--seconds", "0.01")
    output = output_of("evaluate_threads.py", *arguments, folder=tmp_path)
    rows = tables(output)["kp.evaluate with 2 interpreters"]
    assert [row[0] for row in rows] == ["tiny, float32", "tiny, int8"]
    assert all(float(row[3]) > 0 for row in rows)
    assert "Predictions: the same to the bit." in output


@pytest.mark.slow
def test_qat_times_both_engines(tmp_path: Path) -> None:
    """A step of each engine is held against the float step of the same Keras."""
    rows = tables(output_of("qat.py", "steps", "--rounds", "1", folder=tmp_path))["Step time"]
    assert [row[0] for row in rows] == ["ours, keras / Keras 3", "TFMOT / tf_keras", "ours / TFMOT"]
    assert all(float(row[1].split()[0]) > 0 for row in rows)


@pytest.mark.slow
def test_kinds_of_layers(tmp_path: Path) -> None:
    """A dense layer becomes integer; a loop stays in float and is named."""
    output = output_of("applications.py", "--what", "layers", "--names", "Dense", "LSTM", folder=tmp_path)
    (rows,) = tables(output).values()
    assert {row[0]: row[1] for row in rows} == {"Dense": "all int8", "LSTM": "float: WHILE"}
    assert all(float(row[2]) < 0.05 for row in rows)


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    """A folder with a data set of the shape of the spoken digits: noise, louder in the bands of its class."""
    rng, folder = np.random.default_rng(0), tmp_path / "data"
    held = {}
    for side, count in (("train", 130), ("test", 30)):
        classes = np.arange(count) % 10
        x = rng.normal(-5, 2, (count, 61, 40))
        for sounds, kind in zip(x, classes, strict=True):
            sounds[:, 4 * kind : 4 * kind + 4] += 6
        held |= {f"x_{side}": x.astype("float16"), f"y_{side}": classes}
    folder.mkdir()
    np.savez(folder / "fsdd_logmel.npz", **held)
    return folder


@pytest.mark.slow
def test_toolchains(tmp_path: Path, spoken: Path) -> None:
    """Each runtime has its files, each with size, latency, speedup and agreement; a small device is told of, too."""
    for package in ("openvino", "tf2onnx", "tflite_micro", "ethosu.vela"):
        pytest.importorskip(package)
    sizes = ("--nets", "1-D CNN, spoken digits", "--samples", "20", "--epochs", "6", "--rounds", "2")
    where = ("--data", str(spoken), "--models", str(spoken), "--kept", str(tmp_path / "kept"))
    output = output_of("toolchains.py", *where, *sizes, folder=tmp_path)
    ((title, rows),) = tables(output).items()
    assert title.startswith("1-D CNN, spoken digits (46,794 parameters, 20 test samples)")
    runtimes = ["TFLite", "ONNX Runtime", "OpenVINO, f32 hint", "OpenVINO, NNCF", "OpenVINO, own hint"]
    plans = [
        (name, plan) for name in runtimes for plan in ("float32", "int8") if (name, plan) != (runtimes[3], "float32")
    ]
    assert [(row[0], row[1]) for row in rows] == plans
    assert (rows[0][4], rows[0][7]) == ("1.00x", "100.00%")
    assert all(float(row[2].split()[0].replace(",", "")) > 10 and row[3].endswith(" ms") for row in rows)
    assert re.search(r"TensorFlow Lite Micro, int8: arena \d{4,} bytes", output)
    assert re.search(r"'npu_inferences_per_second': \d+", output)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["accuracy", "equalization", "time", "memory"])
def test_ptq(what: str, tmp_path: Path, spoken: Path) -> None:
    """Each of its tables has a row for the net, and every figure in it was measured."""
    net = "DS-CNN, spoken digits"
    where = ("--data", str(spoken), "--models", str(spoken), "--kept", str(tmp_path / "kept"))
    sizes = ("--nets", net, "--samples", "16", "--rounds", "1", "--few", "10", "--many", "100", "--what", what)
    found = tables(output_of("ptq.py", *where, *sizes, folder=tmp_path))
    assert len(found) == (3 if what == "accuracy" else 1)
    for (row,) in found.values():
        assert row[0] == net
        assert all(re.match(r"[+-]?[\d.]+", cell) for cell in row[1:])
