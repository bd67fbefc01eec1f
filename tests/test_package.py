"""The package as it is shipped: the wheel, its metadata, and its extras."""

import importlib.metadata
import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import keras_precision as kp

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from the tree with the build tools at hand."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    done = subprocess.run([*command, "-q"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_wheel_holds_the_package_and_its_types(wheel):
    """Every module, the mark of typed packages and the licence are inside; tests are not."""
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "keras_precision").rglob("*.py")}
    assert modules <= names
    assert "keras_precision/py.typed" in names
    assert any(name.endswith("LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests", "examples", "benchmarks"))]


@pytest.mark.slow
def test_wheel_installs_and_imports_in_an_empty_environment(wheel, tmp_path):
    """Without a single dependency, the package imports, plans work, and what is missing is named."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*arguments):
        return subprocess.run([python, *arguments], capture_output=True, text=True, env=environment, check=False)

    installed = run("-m", "pip", "install", "-q", "--no-deps", "--no-index", str(wheel))
    assert installed.returncode == 0, installed.stderr
    code = (
        "import keras_precision as kp; plan = kp.PrecisionPlan.deployment('int8'); print(plan.default, kp.__version__)"
    )
    assert run("-c", code).stdout.split() == ["int8", kp.__version__]
    missing = run("-c", "import keras_precision as kp; kp.set_precision('float32')")
    assert "MissingExtraError" in missing.stderr
    assert "pip install" in missing.stderr


def test_version_is_told_once():
    """The version of the code is that of the metadata."""
    assert PROJECT["version"] == kp.__version__ == importlib.metadata.version("keras-precision")


def test_constraints_pin_what_the_extras_install():
    """Every package that the extras name has a pinned version, in plain name==version lines."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    assert all(line.count("==") == 1 and " " not in line for line in lines)
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *(need for extra in ("demo", "dev", "all") for need in extras[extra])]
    for extra in ("tensorflow", "jax", "torch", "tflite"):
        wanted += extras[extra]
    names = {need.partition(">")[0].partition("[")[0].lower() for need in wanted} - {"keras-precision"}
    assert names <= pinned
