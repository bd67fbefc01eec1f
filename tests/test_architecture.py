"""The architecture: floors, public names, a light import, rooms for the frameworks, and the shape of functions."""

import ast
import graphlib
import importlib
import inspect
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import keras_precision

PACKAGE = "keras_precision"
ROOT = Path(keras_precision.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
CONTRIBUTING = ROOT.parent / "CONTRIBUTING.md"
FRAMEWORKS = {"keras", "tf_keras", "tensorflow", "jax", "torch"}
FACE = "__init__"


class Room(NamedTuple):
    """A folder or a file at the root of the package."""

    floor: int
    holds: str
    by_name: tuple[str, ...] = ()  # the frameworks that it loads by name, when a verb needs one


# A room imports from lower floors alone. This table is the one in CONTRIBUTING.md: ``python tests/test_architecture.py``
# writes it there.
ROOMS = {
    "cli": Room(8, "the command line: one short file per command", ("keras",)),
    FACE: Room(7, "the public names"),
    "search": Room(6, "plans chosen on KerasTuner"),
    "experiments": Room(5, "runs in processes of their own"),
    "explain": Room(5, "why a lower precision changes predictions"),
    "callbacks": Room(4, "callbacks of `fit`"),
    "export": Room(4, "one export pipeline, one toolchain a format"),
    "diagnosis": Room(3, "a model looked at, then judged"),
    "mixed_precision": Room(3, "the global policy, plans applied to models, what the machine accelerates", ("keras",)),
    "quantization": Room(3, "calibration, conversion, post-training and quantization-aware", ("tensorflow",)),
    "report": Room(3, "results shown, from values alone"),
    "verify": Room(3, "models and files asked for answers"),
    "edge": Room(3, "a file on a device, with NumPy and an interpreter alone"),
    "pytest_plugin": Room(3, "a fixture for the tests of other projects"),
    "_adapters": Room(2, "what differs between the frameworks"),
    "comparison": Room(2, "what the figures of two runs can show"),
    "findings": Room(2, "rules: what is concluded from results"),
    "runtimes": Room(2, "files of other runtimes, read and run"),
    "scoring": Room(2, "scores and divergences, from NumPy alone"),
    "core": Room(1, "values, number formats, files and processes: what everything may use"),
}

# Who has an import statement of a framework: files, and folders with all that is in them.
FRAMEWORK_ROOMS = ("_adapters", "quantization/qat/layers", "quantization/qat/tfmot", "search/evaluation/file_model.py")


class Import(NamedTuple):
    """What one statement, or one text, leads to: the name of a module or of something in it, and where that is said."""

    name: str
    line: int
    at_run_time: bool = True


@cache
def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def module_of(path: Path) -> str:
    """Return the module that a file is, below the package; a folder's own file is the folder."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(f".{FACE}")


MODULES = {module_of(path): path for path in FILES}


def label(path: Path) -> str:
    """Return how a file is called in what a test says."""
    return path.relative_to(ROOT).as_posix()


def room_of(module: str) -> str:
    """Return the room that a module is in."""
    return module.partition(".")[0]


def below(node: ast.AST, *, at_run_time: bool = True) -> Iterator[tuple[ast.AST, bool]]:
    """Yield every node below ``node``, and whether it is there when the program runs, or for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        for_checkers = isinstance(child, ast.If) and ast.unparse(child.test) in (
            "TYPE_CHECKING",
            "typing.TYPE_CHECKING",
        )
        if isinstance(child, ast.If) and for_checkers:
            for part, runs in ((child.body, False), (child.orelse, at_run_time)):
                for each in part:
                    yield each, runs
                    yield from below(each, at_run_time=runs)
        else:
            yield child, at_run_time
            yield from below(child, at_run_time=at_run_time)


def statements(tree: ast.AST) -> Iterator[Import]:
    """Yield what import statements load, at the top, in functions and for type checkers; ``from a import b`` gives ``a.b``."""
    for node, runs in below(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, runs) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            yield from (Import(f"{node.module}.{alias.name}", node.lineno, runs) for alias in node.names)


def texts(tree: ast.AST) -> Iterator[Import]:
    """Yield the modules of the package that texts name, docstrings apart: what is imported by name, or by a child process."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node, _ in below(tree)]
    docstrings = {
        id(node.body[0].value) for node in [tree, *nodes] if isinstance(node, documented) and is_text(node.body[0])
    }
    # A text below a constant is its documentation.
    for block in [tree, *nodes]:
        for before, after in (
            itertools.pairwise(getattr(block, "body", None) or []) if isinstance(block, documented) else ()
        ):
            if isinstance(before, ast.Assign | ast.AnnAssign) and is_text(after):
                docstrings.add(id(after.value))
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            for found in re.finditer(rf"\b{PACKAGE}((\.\w+)+)", node.value):
                if room_of(found[1][1:]) in ROOMS:  # else it is the format of a saved file
                    yield Import(found[0], node.lineno)


def is_text(node: ast.stmt) -> bool:
    """Tell whether a statement is a text and nothing else."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def imported(tree: ast.AST) -> Iterator[Import]:
    """Yield the modules of the package that a file imports in any way; the package itself is its face."""
    for name, line, runs in itertools.chain(statements(tree), texts(tree)):
        package, _, inner = name.partition(".")
        if package == PACKAGE:
            parts = inner.split(".") if inner else []
            known = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
            yield Import(next((each for each in known if each in MODULES), FACE), line, runs)


def violations(room: str, tree: ast.AST) -> list[str]:
    """Return each import of a file in ``room`` that its floor does not allow."""
    floor = ROOMS[room].floor
    return [
        f"line {line}: {room} (floor {floor}) imports {module} (floor {ROOMS[room_of(module)].floor})"
        for module, line, _ in imported(tree)
        if room_of(module) != room and ROOMS[room_of(module)].floor >= floor
    ]


def test_each_file_imports_from_lower_floors_only() -> None:
    """A file imports from its own room and from lower floors: at the top, in functions, for type checkers and by name."""
    found = {label(path): violations(room_of(module), parsed(path)) for module, path in MODULES.items()}
    assert {name: each for name, each in found.items() if each} == {}


@pytest.mark.parametrize(
    ("room", "source", "allowed"),
    [
        ("findings", "from keras_precision.core.errors import PlanError", True),
        ("findings", "from keras_precision.core import errors", True),
        ("findings", "from keras_precision.findings.finding import Finding", True),
        ("findings", "import keras_precision.mixed_precision.policy", False),
        ("findings", "from keras_precision import precision", False),
        ("findings", "import keras_precision as kp", False),
        ("findings", "from keras_precision.comparison.comparison import Comparison", False),
        ("findings", "def late():\n    from keras_precision.export import tflite", False),
        ("findings", "if TYPE_CHECKING:\n    from keras_precision.mixed_precision.policy import precision", False),
        ("findings", "if TYPE_CHECKING:\n    pass\nelse:\n    from keras_precision.verify import targets", False),
        ("findings", "PROGRAM = 'from keras_precision.export.tflite import main; main()'", False),
        ("findings", "require('keras_precision.export')", False),
        ("findings", "FORMAT = 'keras_precision.plan'", True),
        ("findings", "def documented():\n    '''See keras_precision.export.'''", True),
        ("findings", "NAME = 1\n'''See keras_precision.export.'''", True),
        ("report", "from keras_precision._adapters import adapter_of", True),
        ("report", "from keras_precision import edge", False),
        ("explain", "from keras_precision import edge", True),
        ("cli", "import keras_precision as kp", True),
    ],
)
def test_the_rule_of_the_floors(room: str, source: str, *, allowed: bool) -> None:
    """The rule sees every way to import, and tells what is imported from what is merely said."""
    assert (violations(room, ast.parse(source)) == []) == allowed


def test_no_circle_of_modules() -> None:
    """The modules of the package can be put in an order of import, that of lazy imports included."""
    graph = {
        module: {other for other, _, runs in imported(parsed(path)) if runs and other != module}
        for module, path in MODULES.items()
        if module != FACE  # it loads each name on first use
    }
    # A folder's own file may hand on what is in it, and what is in it is imported through it.
    for module, others in graph.items():
        if MODULES[module].name == f"{FACE}.py":
            graph[module] = {each for each in others if not each.startswith(f"{module}.")}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) >= len(graph) > 1


def test_the_root_holds_rooms_alone() -> None:
    """Beside the face and the mark of typed packages, the root has the rooms of the table, and each of them is there."""
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"}
    files = {path.name for path in ROOT.iterdir() if path.is_file()}
    assert files == {f"{FACE}.py", "edge.py", "pytest_plugin.py", "py.typed"}
    assert folders | {name.removesuffix(".py") for name in files - {"py.typed"}} == set(ROOMS)


def test_each_folder_says_what_it_holds() -> None:
    """Each folder with modules is a package, whose first line is a sentence."""
    folders = {path.parent for path in FILES}
    assert [label(folder) for folder in folders if not (folder / f"{FACE}.py").exists()] == []
    said = {folder: (ast.get_docstring(parsed(folder / f"{FACE}.py")) or "").partition("\n")[0] for folder in folders}
    assert [label(folder) for folder, text in said.items() if not text.endswith(".")] == []


def test_no_file_is_a_drawer() -> None:
    """A file is named after what it holds; nothing is kept in one that is called after nothing."""
    assert [label(path) for path in FILES if path.stem in ("utils", "util", "helpers", "common", "misc")] == []


def floors_table() -> str:
    """Return the table of the floors as Markdown, the highest first, and who may know a framework."""
    files = {FACE: "`__init__.py`", "edge": "`edge.py`", "pytest_plugin": "`pytest_plugin.py`"}
    lines = ["| floor | room | what is there |", "| :-- | :-- | :-- |"]
    lines += [f"| {room.floor} | {files.get(name, f'`{name}/`')} | {room.holds} |" for name, room in ROOMS.items()]
    *most, last = (f"`{each}`" if each.endswith(".py") else f"`{each}/`" for each in FRAMEWORK_ROOMS)
    by_name = ", ".join(f"`{name}/` ({', '.join(room.by_name)})" for name, room in ROOMS.items() if room.by_name)
    return "\n".join(
        [
            *lines,
            "",
            "Keras, tf_keras, TensorFlow, JAX and PyTorch are imported in",
            f"{', '.join(most)} and {last} alone.",
            f"Loaded by name, when a function needs one: {by_name}.",
        ]
    )


MARKS = ("<!-- written by: python tests/test_architecture.py -->\n", "\n<!-- end -->")


def test_contributing_has_the_table_of_the_floors() -> None:
    """``CONTRIBUTING.md`` explains the floors as they are held; ``python tests/test_architecture.py`` writes its table."""
    text = CONTRIBUTING.read_text(encoding="utf-8")
    assert text.partition(MARKS[0])[2].partition(MARKS[1])[0] == floors_table()


def test_all_names_what_can_be_loaded() -> None:
    """``__all__`` has each public name once, and ``dir`` shows them."""
    assert sorted(keras_precision.__all__) == sorted(keras_precision._WHERE)
    assert set(keras_precision.__all__) <= set(dir(keras_precision))


def test_editors_see_the_names_that_can_be_loaded() -> None:
    """What is imported for type checkers is what is loaded on first use, from the same module."""
    for_checkers = [node for node in parsed(ROOT / f"{FACE}.py").body if isinstance(node, ast.If)]
    seen = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for block in for_checkers
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for node in ast.walk(ast.Module([*for_checkers], [])):  # an alias under another name is exported by an assignment
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):
            seen[ast.unparse(node.targets[0])] = seen.pop(node.value.id)
    loaded = {
        name: f"{PACKAGE}.{where}" if name in keras_precision._MODULES else f"{PACKAGE}.{where}.{name}"
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


def in_a_framework_room(path: Path) -> bool:
    """Tell whether a file may have an import statement of a framework."""
    name = label(path)
    return any(name == each or name.startswith(f"{each}/") for each in FRAMEWORK_ROOMS)


def test_frameworks_are_imported_in_their_rooms() -> None:
    """Elsewhere no file has an import statement of a framework, not even for type checkers; each room has some."""
    found = {path: {each.name.partition(".")[0] for each in statements(parsed(path))} & FRAMEWORKS for path in FILES}
    assert {label(path): each for path, each in found.items() if each and not in_a_framework_room(path)} == {}
    users = [label(path) for path, each in found.items() if each]
    assert [room for room in FRAMEWORK_ROOMS if not any(user.startswith(room) for user in users)] == []


def test_frameworks_are_required_by_name_where_it_is_agreed() -> None:
    """Elsewhere a framework is loaded by its name only by the rooms that are listed for it."""
    found = {}
    for path in FILES:
        calls = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call) and node.args]
        loads = [call for call in calls if ast.unparse(call.func).endswith(("require", "import_module", "__import__"))]
        names = {ast.literal_eval(call.args[0]) for call in loads if isinstance(call.args[0], ast.Constant)}
        wrong = {str(name).partition(".")[0] for name in names} & FRAMEWORKS - {
            *ROOMS[room_of(module_of(path))].by_name
        }
        if wrong and not in_a_framework_room(path):
            found[label(path)] = wrong
    assert found == {}


def test_no_file_imports_a_star() -> None:
    """Each name that a file uses can be seen to come from somewhere."""
    found = [
        (label(path), each.line) for path in FILES for each in statements(parsed(path)) if each.name.endswith(".*")
    ]
    assert found == []


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


if __name__ == "__main__":
    written = CONTRIBUTING.read_text(encoding="utf-8")
    before, _, rest = written.partition(MARKS[0])
    after = rest.partition(MARKS[1].strip())[2]
    CONTRIBUTING.write_text(f"{before}{MARKS[0]}{floors_table()}{MARKS[1]}{after}", encoding="utf-8")
