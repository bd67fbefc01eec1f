"""The architecture: floors, public names, a light import, one room for the frameworks, and the shape of functions."""

import ast
import graphlib
import importlib
import inspect
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import keras_precision

PACKAGE = "keras_precision"
ROOT = Path(keras_precision.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
ROOMS = {path.name.removesuffix(".py") for path in ROOT.iterdir() if path.suffix == ".py" or path.is_dir()}
FRAMEWORKS = {"keras", "tf_keras", "tensorflow", "jax", "torch"}

# A room is a file or a folder of the package. Those that do not exist yet have their floor already.
FLOORS = {
    8: ("cli", "pytest_plugin"),
    7: ("demo", "explain"),
    6: ("search",),
    5: ("diagnosis", "experiment"),
    4: ("callbacks", "deploy"),
    3: ("machine", "planned", "policy", "quantize", "verify"),
    2: ("_adapters", "report"),
    1: (
        "choice",
        "comparison",
        "comparison_table",
        "coreml_file",
        "contrast",
        "divergence",
        "edge",
        "edge_runtimes",
        "environment",
        "file_card",
        "findings",
        "formats",
        "gate",
        "integers",
        "number_format",
        "observed",
        "onnx_file",
        "onnx_operators",
        "operation_graph",
        "openvino_file",
        "operator_times",
        "histogram",
        "latency",
        "graph_findings",
        "layer_facts",
        "layer_findings",
        "metrics",
        "plan",
        "progress",
        "quantization_findings",
        "ranges",
        "result",
        "runtime_session",
        "runtimes",
        "saved",
        "scores",
        "statistics",
        "table",
        "run_findings",
        "suggestion",
        "tflite_child",
        "tflite_cut",
        "tflite_file",
        "tflite_operators",
        "tflite_runner",
        "tflite_session",
        "timing",
    ),
    0: ("chatter", "child_process", "errors", "files", "optional"),
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
BUILD_ON_ONE_ANOTHER = (0, 1)  # the floors whose rooms may import each other

# Who imports a framework by name when a verb needs one; everything else goes through the adapters.
REQUIRED = {"quantize": {"tensorflow"}, "policy": {"keras"}, "demo": {"keras"}}


class Import(NamedTuple):
    """One import statement: the module that it loads, and where it stands."""

    module: str
    line: int


def room_of(path: Path) -> str:
    """Return the room that a file is in."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def label(path: Path) -> str:
    """Return how a file is called in the report of a test."""
    return str(path.relative_to(ROOT))


def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """Yield every node below ``node`` that is not for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for other in child.orelse:
                yield other
                yield from at_run_time(other)
        else:
            yield child
            yield from at_run_time(child)


def imports(nodes: Iterator[ast.AST]) -> Iterator[Import]:
    """Yield what import statements load; ``from a import b`` gives ``a.b``."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            yield from (Import(f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def rooms_imported(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield each room of the package that a file imports from, and the line; the package itself is a room as well."""
    for module, line in imports(at_run_time(tree)):
        package, *names = module.split(".")
        if package == PACKAGE:
            name = names[0] if names else PACKAGE
            where = keras_precision._WHERE.get(name, PACKAGE).partition(".")[0]  # a public name, loaded on first use
            yield (name if name in ROOMS else where), line


def violations(room: str, tree: ast.Module) -> list[str]:
    """Return each import of a file in ``room`` that its floor does not allow."""
    floor = FLOOR[room]
    found = []
    for other, line in rooms_imported(tree):
        other_floor = FLOOR.get(other, max(FLOOR.values()) - 1)  # the package itself stands below its programs alone
        neighbour = floor == other_floor and floor in BUILD_ON_ONE_ANOTHER
        if not (other_floor < floor or other == room or neighbour):
            found.append(f"line {line}: {room} (floor {floor}) imports {other} (floor {other_floor})")
    return found


@pytest.mark.parametrize("path", FILES, ids=label)
def test_each_file_imports_from_lower_floors_only(path: Path) -> None:
    """A file imports from lower floors, from its own room, and on the lowest two floors from its neighbours."""
    room = room_of(path)
    if room == "__init__":
        return
    assert room in FLOOR, f"{room} has no floor: add it to FLOORS, and to the design"
    assert violations(room, parsed(path)) == []


@pytest.mark.parametrize(
    ("room", "source", "allowed"),
    [
        ("plan", "from keras_precision.core.errors import PlanError", True),
        ("plan", "from keras_precision import errors", True),
        ("plan", "from keras_precision.core.system.json_documents import Fields", True),
        ("plan", "import keras_precision.mixed_precision.policy", False),
        ("plan", "from keras_precision import precision", False),
        ("plan", "import keras_precision as kp", False),
        ("plan", "def late():\n    from keras_precision.export import tflite", False),
        ("plan", "if TYPE_CHECKING:\n    from keras_precision.mixed_precision.policy import plan_of", True),
        (
            "plan",
            "if TYPE_CHECKING:\n    pass\nelse:\n    from keras_precision.mixed_precision.policy import plan_of",
            False,
        ),
        ("report", "from keras_precision._adapters import adapter_of", False),
        ("report", "from keras_precision.report import text", True),
        ("cli", "import keras_precision as kp", True),
        ("demo", "from keras_precision.cli.main.main import main", False),
    ],
)
def test_the_rule_of_the_floors(room: str, source: str, *, allowed: bool) -> None:
    """The rule sees every way to import, at the top of a file and inside a function."""
    assert (violations(room, ast.parse(source)) == []) == allowed


@pytest.mark.parametrize("floor", BUILD_ON_ONE_ANOTHER)
def test_rooms_that_build_on_one_another_do_so_without_a_circle(floor: int) -> None:
    """The rooms of the two lowest floors can be put in an order of import."""
    graph: dict[str, set[str]] = {}
    for path in FILES:
        room = room_of(path)
        if FLOOR.get(room) == floor:
            neighbours = {other for other, _ in rooms_imported(parsed(path)) if FLOOR.get(other) == floor}
            graph.setdefault(room, set()).update(neighbours - {room})
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(graph) > 1


def test_all_names_what_can_be_loaded() -> None:
    """``__all__`` has each public name once, and ``dir`` shows them."""
    assert sorted(keras_precision.__all__) == sorted(keras_precision._WHERE)
    assert set(keras_precision.__all__) <= set(dir(keras_precision))


def test_editors_see_the_names_that_can_be_loaded() -> None:
    """What is imported for type checkers is what is loaded on first use, from the same module."""
    tree = parsed(ROOT / "__init__.py")
    for_checkers = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {module for block in for_checkers for module, _ in imports(ast.walk(block))}
    loaded = {
        f"{PACKAGE}.{where}" if where == name else f"{PACKAGE}.{where}.{name}"
        for name, where in keras_precision._WHERE.items()
    }
    assert seen == loaded


def documentation(name: str, value: Any) -> str:
    """Return the docstring of a public name; that of a constant stands below it in its file."""
    if isinstance(value, type | ModuleType) or callable(value):
        return inspect.cleandoc(value.__doc__ or "")
    module = importlib.import_module(f"{PACKAGE}.{keras_precision._WHERE[name]}")
    body = parsed(Path(module.__file__)).body
    for assignment, text in itertools.pairwise(body):
        targets = [assignment.target] if isinstance(assignment, ast.AnnAssign) else getattr(assignment, "targets", [])
        if name in map(ast.unparse, targets) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            return str(text.value.value)
    return ""


@pytest.mark.parametrize("name", keras_precision.__all__)
def test_each_public_name_resolves_and_is_documented(name: str) -> None:
    """A public name leads to a value with a docstring of its own."""
    text = documentation(name, getattr(keras_precision, name))
    assert text.partition("\n")[0].endswith(".")
    assert not text.startswith(f"{name}(")  # what dataclasses write by themselves


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    """A name that does not exist is refused as modules refuse it."""
    with pytest.raises(AttributeError, match="module 'keras_precision' has no attribute 'presicion'"):
        _ = keras_precision.presicion


def imported_in_a_child(module: str) -> tuple[float, set[str]]:
    """Import ``module`` in a fresh process; return the processor seconds, and the packages that were loaded."""
    script = (
        "import json, sys, time\n"
        "before, began = set(sys.modules), time.process_time()\n"
        f"import {module}\n"
        "took = time.process_time() - began\n"
        "packages = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(json.dumps([took, sorted(packages - sys.stdlib_module_names)]))\n"
    )
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    seconds, packages = json.loads(child.stdout)
    return seconds, set(packages)


def test_import_is_light() -> None:
    """Importing the package takes under 0.3 s of processor time and loads nothing but itself."""
    seconds, packages = imported_in_a_child(PACKAGE)
    assert packages == {PACKAGE}
    assert seconds < 0.3


def test_edge_needs_numpy_alone() -> None:
    """Importing the part for devices loads NumPy, and neither a framework nor a library that a device may lack."""
    _, packages = imported_in_a_child(f"{PACKAGE}.edge")
    assert packages == {PACKAGE, "numpy"}


@pytest.mark.parametrize("path", FILES, ids=label)
def test_frameworks_are_imported_in_one_room(path: Path) -> None:
    """Outside the adapters no file has an import statement of a framework, not even for type checkers."""
    found = {module.partition(".")[0] for module, _ in imports(ast.walk(parsed(path)))} & FRAMEWORKS
    assert not found or room_of(path) == "_adapters"


@pytest.mark.parametrize("path", FILES, ids=label)
def test_frameworks_are_required_by_name_where_it_is_agreed(path: Path) -> None:
    """Outside the adapters a framework is loaded by its name only by the rooms that are listed."""
    calls = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call) and node.args]
    loads = [call for call in calls if ast.unparse(call.func).endswith(("require", "import_module", "__import__"))]
    names = {ast.literal_eval(call.args[0]) for call in loads if isinstance(call.args[0], ast.Constant)}
    found = {str(name).partition(".")[0] for name in names} & FRAMEWORKS
    assert found <= REQUIRED.get(room_of(path), set()) or room_of(path) == "_adapters"


@pytest.mark.parametrize("path", FILES, ids=label)
def test_no_file_imports_a_star(path: Path) -> None:
    """Each name that a file uses can be seen to come from somewhere."""
    assert [line for module, line in imports(ast.walk(parsed(path))) if module.endswith(".*")] == []


def test_functions_are_short() -> None:
    """At least 85 % of the functions have 30 lines or fewer, docstring included, and none has over 80."""
    lengths = {
        f"{label(path)}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path in FILES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: length for name, length in lengths.items() if length > 80} == {}
    assert sum(length <= 30 for length in lengths.values()) >= 0.85 * len(lengths)
