"""The examples: each runs as its docstring says, in a process of its own, and prints what it is there for."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import keras_precision as kp

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))


def output_of(name: str, *arguments: str, folder: Path, backend: str = "tensorflow") -> str:
    """Run an example in ``folder`` and return what it printed; it may not warn of anything that we could not do."""
    child = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=folder, env={**os.environ, "KERAS_BACKEND": backend}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    assert kp.PrecisionWarning.__name__ not in child.stderr
    return child.stdout


def table(output: str) -> dict[str, list[str]]:
    """Return the rows of the tables that were printed: first cell to the others."""
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in output.splitlines() if "│" in line]
    return {row[0]: row[1:] for row in cells}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_an_example_says_how_to_run_it_and_fits_a_screen(script: Path) -> None:
    """Each example has 60 lines at most, and its docstring has the command."""
    source = script.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 60
    assert f"python examples/{script.name}" in str(ast.get_docstring(ast.parse(source)))


@pytest.mark.slow
def test_quickstart(tmp_path: Path) -> None:
    """The three runs stand in one table, the first the baseline, loss scaling in the last alone."""
    rows = table(output_of("quickstart.py", "--epochs", "1", folder=tmp_path))
    assert list(rows) == ["float32", "mixed_bfloat16", "mixed_float16"]
    assert rows["float32"][3] == "1.00x"
    assert [cells[6] != "-" for cells in rows.values()] == [False, False, True]


@pytest.mark.slow
def test_compare_training(tmp_path: Path) -> None:
    """Two runs stand against each other, the recommendation has a reason, and the file is the comparison."""
    once = ("--epochs", "1", "--seeds", "1", "--processes", "1", "--seconds", "2")
    sizes = (*once, "--precisions", "float32", "mixed_bfloat16")
    output = output_of("compare_training.py", *sizes, folder=tmp_path, backend="jax")
    assert list(table(output)) == ["float32", "mixed_bfloat16"]
    assert "Recommended: " in output
    assert [run.name for run in kp.Comparison.load(tmp_path / "comparison.json").results] == [
        "float32",
        "mixed_bfloat16",
    ]


@pytest.mark.slow
def test_compare_exports(tmp_path: Path) -> None:
    """Three files stand in the table, the first the baseline, and one is recommended."""
    sizes = ("--epochs", "1", "--seconds", "0.2", "--openings", "2", "--targets", "tflite")
    output = output_of("compare_exports.py", *sizes, folder=tmp_path)
    assert list(table(output)) == ["tflite:float32", "tflite:float16", "tflite:int8"]
    assert re.search(r"^Use tflite:\w+: ", output, re.MULTILINE)


@pytest.mark.slow
def test_toolchains(tmp_path: Path) -> None:
    """Each runtime has two rows with size, speedup, accuracy and agreement, int8 the smaller; the comparison is saved."""
    pytest.importorskip("openvino", reason='pip install "keras-precision[openvino]"')
    pytest.importorskip("tf2onnx", reason='pip install "keras-precision[onnx]"')
    sizes = ("--epochs", "1", "--seconds", "0.2", "--openings", "2")
    output = output_of("toolchains.py", *sizes, folder=tmp_path)
    rows = table(output)
    names = [f"{runtime}:{plan}" for runtime in ("tflite", "onnx", "openvino") for plan in ("float32", "int8")]
    assert list(rows) == names
    assert rows["tflite:float32"][2] == "1.00x"
    for name in names:
        assert all(cell != "-" for cell in rows[name]), name
        assert float(rows[name][-2].removesuffix(" %")) > 95
    kilobytes = {name: float(cells[0].split()[0]) for name, cells in rows.items()}
    assert all(kilobytes[f"{each}:int8"] < kilobytes[f"{each}:float32"] for each in ("tflite", "onnx", "openvino"))
    assert re.search(r"^Use \w+:\w+: ", output, re.MULTILINE)
    assert [run.name for run in kp.Comparison.load(tmp_path / "toolchains.json").results] == names


@pytest.mark.slow
def test_max_batch_size(tmp_path: Path) -> None:
    """A batch of the size at which the search ends fits, and a note says that memory was not what ended it."""
    sizes = ("--memory-limit", "4000", "--max-batch", "16", "--precisions", "float32")
    output = output_of("max_batch_size.py", *sizes, folder=tmp_path, backend="jax")
    assert "float32: largest batch 16, predicted 16" in output
    assert "the search ended at max_batch" in output


@pytest.mark.slow
def test_int8_inference(tmp_path: Path) -> None:
    """Three files are written and checked: each is smaller than the one before, and none is far from the model."""
    rows = table(output_of("int8_inference.py", "--epochs", "2", "--seconds", "0.05", folder=tmp_path))
    assert list(rows) == ["tflite:float32", "tflite:float16", "tflite:int8"]
    sizes = [(tmp_path / f"digits.{name}.tflite").stat().st_size for name in ("float32", "float16", "int8")]
    assert sizes == sorted(sizes, reverse=True)
    agreements = [float(cells[-1].removesuffix(" %")) for cells in rows.values()]
    assert agreements[0] == 100
    assert min(agreements) > 90


@pytest.mark.slow
def test_precision_per_layer(tmp_path: Path) -> None:
    """The plan on disk is the one that was trained, and the model is in it, layer by layer."""
    output = output_of("precision_per_layer.py", "--epochs", "1", folder=tmp_path)
    plan = kp.PrecisionPlan.load(tmp_path / "plan.json")
    assert set(plan.layers) == {"block_1/conv", "block_2/conv"}
    printed = dict(re.findall(r"^  (\S+) +(\w+)$", output, re.MULTILINE))
    assert printed == {
        "stem": "float32", "block_1/conv": "mixed_bfloat16", "block_2/conv": "mixed_bfloat16", "pool": "float32",
        "head": "float32",
    }  # fmt: skip
    assert list(table(output)) == ["float32", "as planned"]


def test_edge_device(tmp_path: Path) -> None:
    """It describes, checks and times a file, with nothing but NumPy and the interpreter loaded."""
    import keras

    model = keras.Sequential([keras.Input((4,), name="features"), keras.layers.Dense(2, name="head")])
    samples = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
    kp.export_tflite(model, tmp_path / "tiny.tflite", "int8", representative_dataset=samples)
    np.savez(tmp_path / "test.npz", x=samples, y=model.predict(samples, verbose=0).argmax(-1))
    output = output_of("edge_device.py", "tiny.tflite", "--data", "test.npz", "--seconds", "0.05", folder=tmp_path)
    assert "FULLY_CONNECTED int8" in output
    assert float(re.search(r"^accuracy +([\d.]+) %", output, re.MULTILINE)[1]) > 80
    assert float(re.search(r"^latency +([\d.]+) ms", output, re.MULTILINE)[1]) > 0
    assert re.search(r"^frameworks loaded: none$", output, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_jax_and_torch(backend: str, tmp_path: Path) -> None:
    """The same script measures on either backend, and says which one it was."""
    output = output_of("jax_and_torch.py", "--epochs", "1", folder=tmp_path, backend=backend)
    assert f"backend: {backend}" in output
    rows = table(output)
    assert list(rows) == ["float32", "mixed_bfloat16"]
    assert all(cells[0].endswith(" ms") for cells in rows.values())


@pytest.mark.slow
def test_report(tmp_path: Path) -> None:
    """Both tables are printed, and the page holds the runs and the files."""
    output = output_of("report.py", "--epochs", "1", "--output", "page.html", folder=tmp_path)
    names = ["float32", "mixed_bfloat16", "mixed_float16", "tflite:float32", "tflite:int8"]
    assert list(table(output)) == names
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert [name for name in names if f'<th scope="row">{name}</th>' not in page] == []


@pytest.mark.slow
def test_precision_search(tmp_path: Path) -> None:
    """The example shows its front and its best plan, and the best file is smaller than the INT8 one."""
    output = output_of("precision_search.py", "--epochs", "3", "--max-drop", "0.1", folder=tmp_path)
    assert "best plan: {" in output
    sizes = [int(size.replace(",", "")) for size in re.findall(r"^\w+\.tflite ([\d,]+) bytes", output, re.MULTILINE)]
    assert sizes[1] < sizes[0]


@pytest.mark.slow
def test_qat(tmp_path: Path) -> None:
    """FP32, PTQ and QAT stand in one table; trained with the rounding, the files answer as their models do."""
    rows = table(output_of("qat.py", "--epochs", "4", folder=tmp_path))
    assert list(rows) == ["tflite:float32", "PTQ int8", "QAT int8", "PTQ int4", "QAT int4"]
    accuracy, agreement = (
        {name: float(cells[at].removesuffix(" %")) for name, cells in rows.items()} for at in (-2, -1)
    )
    assert accuracy["QAT int4"] > accuracy["PTQ int4"] - 1
    assert min(agreement["QAT int8"], agreement["QAT int4"]) > 95


def test_explain_drop(tmp_path: Path) -> None:
    """The tables name every class and layer, and the mended file agrees more often than the first."""
    output = output_of("explain_drop.py", "--epochs", "2", folder=tmp_path)
    rows = table(output)
    assert {f"class {number}" for number in range(10)} | {"all", "slice thick", "conv_1", "conv_2", "head"} <= set(rows)
    first, mended = (float(share) for share in re.findall(r"agreement ([\d.]+) %", output))
    assert mended >= first


@pytest.mark.slow
def test_precision_config(tmp_path: Path) -> None:
    """The same script computes as the file says, and as a changed file says."""
    output = output_of("precision_config.py", "--epochs", "1", folder=tmp_path)
    assert re.findall(r"^  (\S+) +(\w+)$", output, re.MULTILINE) == [
        ("conv", "mixed_bfloat16"), ("flat", "mixed_bfloat16"), ("head", "float32"),
    ]  # fmt: skip
    assert list(table(output)) == ["mixed_bfloat16", "tflite:int8"]
    changed = {"precision": "float32", "tf32": None, "plan": None, "export": "float16"}
    (tmp_path / "changed.json").write_text(json.dumps(changed))
    output = output_of("precision_config.py", "changed.json", "--epochs", "1", folder=tmp_path)
    assert list(table(output)) == ["float32", "tflite:float16"]
    assert "bfloat16" not in output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "backend"),
    [("custom_loop.py", "tensorflow"), ("custom_loop.py", "torch"), ("custom_loop_jax.py", "jax")],
)
def test_custom_loop(script: str, backend: str, tmp_path: Path) -> None:
    """The batch that overflows is skipped, each time that it comes, and the scale halves with it."""
    output = output_of(script, "--steps", "60", folder=tmp_path, backend=backend)
    cells = table(output)["own loop"]
    assert {"2", "8,192"} <= set(cells)
    assert "Skipped 2 of 60 steps" in output
    assert float(re.search(r"the last loss is (\d+\.\d+)", output)[1]) < 2.3


def test_custom_loop_names_the_one_for_jax(tmp_path: Path) -> None:
    """On JAX it says which example is for JAX."""
    with pytest.raises(AssertionError, match="custom_loop_jax.py"):
        output_of("custom_loop.py", folder=tmp_path, backend="jax")


@pytest.mark.slow
def test_tabular_regression(tmp_path: Path) -> None:
    """Four files stand in the table with the error of each; 16 bits answer as float does."""
    rows = table(output_of("tabular_regression.py", "--epochs", "30", "--seconds", "0.02", folder=tmp_path))
    errors = {name: float(cells[4]) for name, cells in rows.items()}
    assert list(errors) == ["tflite:float32", "tflite:float16", "tflite:int16x8", "tflite:int8"]
    assert errors["tflite:float16"] == pytest.approx(errors["tflite:float32"], rel=0.01)
    assert errors["tflite:int8"] == pytest.approx(errors["tflite:float32"], rel=0.2)


@pytest.mark.slow
def test_text_model(tmp_path: Path) -> None:
    """The INT8 file is about a quarter of the float one, and answers as it does."""
    rows = table(output_of("text_model.py", "--epochs", "2", folder=tmp_path))
    assert list(rows) == ["tflite:float32", "tflite:float16", "tflite:int8_dynamic", "tflite:int8"]
    sizes = {name: float(cells[0].removesuffix(" kB").replace(",", "")) for name, cells in rows.items()}
    assert sizes["tflite:int8"] < 0.3 * sizes["tflite:float32"]
    assert float(rows["tflite:int8"][-1].removesuffix(" %")) > 97


@pytest.mark.slow
def test_numerics_transformer(tmp_path: Path) -> None:
    """FP16 breaks the net, the findings name the layer, and the plan that follows from them mends it."""
    output = output_of("numerics_transformer.py", "--steps", "10", folder=tmp_path)
    runs = dict(re.findall(r"^(.+?) +((?: +(?:nan|[\d.]+)){5})$", output, re.MULTILINE))
    assert "nan" in runs["mixed_float16"]
    assert "nan" not in runs["float32: ['attention']"]
    assert (tmp_path / "numerics.html").exists()
