"""tflite-runtime, the older interpreter, in an environment of its own: the same file gives the same answers there."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import nets
import numpy as np
import pytest

import keras_precision as kp

ROOT = Path(kp.__file__).parents[1]

PROGRAM = """
import json, sys
import numpy as np
from keras_precision import edge
answers = {}
x = np.load("x.npy")
for name in sys.argv[1:]:
    result = edge.benchmark(name, x, min_calls=5, min_seconds=0.01)
    answers[name] = edge.predict(name, x).tolist()
print(json.dumps({"answers": answers, "runtime": result.environment.backend, "numpy": np.__version__}))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter of Python with NumPy 1 and tflite-runtime, and nothing else."""
    folder = tmp_path_factory.mktemp("legacy")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    found = folder / "bin" / "python"
    packages = ["numpy==1.26.4", "tflite-runtime==2.14.0"]
    pip = [sys.executable, "-m", "pip", "--python", str(found)]
    subprocess.run([*pip, "install", "--quiet", "--disable-pip-version-check", *packages], check=True)
    return found


@pytest.mark.network
@pytest.mark.slow
def test_files_answer_on_tflite_runtime_as_on_litert(python: Path, tmp_path: Path) -> None:
    """Each precision that the older runtime has gives the same answers, to the last step of the output."""
    import keras

    keras.utils.set_random_seed(0)
    model = nets.conv(keras)
    x, _ = nets.images(np.random.default_rng(0), 32)
    calibration = kp.calibrate(model, x)
    np.save(tmp_path / "x.npy", x)
    tolerances = MappingProxyType({"float32": 1e-6, "float16": 1e-6, "int8": 1 / 256 + 1e-6, "int16x8": 1e-4})
    for plan in tolerances:
        kp.export_tflite(model, tmp_path / f"{plan}.tflite", plan, calibration, runtime="tflite-runtime")
    names = [f"{plan}.tflite" for plan in tolerances]
    # -P and this path alone: nothing of the environment that runs the tests is seen.
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    child = subprocess.run(
        [str(python), "-P", "-c", PROGRAM, *names],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(child.stdout.splitlines()[-1])
    assert told["runtime"].startswith("tflite-runtime")
    assert told["numpy"].startswith("1.")
    for plan, tolerance in tolerances.items():
        expected = kp.edge.predict(tmp_path / f"{plan}.tflite", x)
        np.testing.assert_allclose(np.array(told["answers"][f"{plan}.tflite"]), expected, atol=tolerance)
