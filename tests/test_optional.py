"""Optional packages: found without being imported, or named with the line that installs them."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

import keras_precision
from keras_precision.core.errors import MissingExtraError
from keras_precision.core.system.optional import available, require

ROOT = Path(keras_precision.__file__).parent
SETTINGS = Path(__file__).parent.parent / "pyproject.toml"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that is installed and cannot be imported, because what it needs is missing."""
    name = "an_installed_but_broken_package"
    (tmp_path / f"{name}.py").write_text("import a_package_that_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("json", True),
        ("json.decoder", True),
        ("a_package_that_nobody_has", False),
        ("a_package_that_nobody_has.part", False),
        ("json.a_part_that_nobody_has", False),
        ("json.decoder.not_in_a_file", False),
    ],
)
def test_available_tells_what_can_be_found(module: str, *, expected: bool) -> None:
    """A module is available if it is found, with its parents."""
    assert available(module) == expected


def test_available_imports_nothing(package: str) -> None:
    """To look for a package is not to load it."""
    assert available(package)
    assert package not in sys.modules


def test_a_blocked_module_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    """None in ``sys.modules`` blocks an import, and is no module."""
    monkeypatch.setitem(sys.modules, "a_blocked_package", None)
    assert not available("a_blocked_package")


def test_require_imports() -> None:
    """A package that is there is returned."""
    assert require("json.decoder", extra="tensorflow") is sys.modules["json.decoder"]


def test_require_names_the_line_that_installs() -> None:
    """The message names the package and the pip line, and the error the module."""
    expected = re.escape(
        "Expected the package 'a_package_that_nobody_has', which is not installed. "
        'Install it with: pip install "keras-precision[tflite]"'
    )
    with pytest.raises(MissingExtraError, match=f"^{expected}$") as caught:
        require("a_package_that_nobody_has.part", extra="tflite")
    assert caught.value.name == "a_package_that_nobody_has.part"
    assert isinstance(caught.value, ImportError)


def test_require_shows_why_a_package_is_broken(package: str) -> None:
    """A package that is installed but broken raises its own error."""
    with pytest.raises(ModuleNotFoundError, match="No module named 'a_package_that_nobody_has'") as caught:
        require(package, extra="tflite")
    assert not isinstance(caught.value, MissingExtraError)


def test_every_extra_that_is_named_exists() -> None:
    """Each extra that a message can name is one that pip can install."""
    extras = tomllib.loads(SETTINGS.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = set()
    for path in ROOT.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        named |= set(re.findall(r"keras-precision\[([\w-]+)\]", text))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.keyword) and node.arg == "extra" and isinstance(node.value, ast.Constant):
                named.add(node.value.value)
    assert len(named) > 1
    assert named <= set(extras)
