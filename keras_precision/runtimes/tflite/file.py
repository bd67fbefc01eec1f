"""The inputs, outputs and operators of a ``.tflite`` file, read with an interpreter only."""

import importlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.core.errors import FileFormatError, InputError, MissingExtraError
from keras_precision.core.system.files import check_exists
from keras_precision.core.system.optional import available
from keras_precision.runtimes.model_info import CARD, EdgeModel, Tensor, runnable_sample
from keras_precision.runtimes.tflite.metadata import metadata
from keras_precision.runtimes.tflite.operators import Operator, operators, writers
from keras_precision.runtimes.tflite.sandbox import ChildError, FileChild

__all__ = ["Operator", "input_details", "inspect", "interpreter", "output_details", "runtime", "tensor_of"]

# In the order of preference. TensorFlow's own is deprecated since 2.20.
_RUNTIMES = (
    ("ai_edge_litert.interpreter", "litert"),
    ("tflite_runtime.interpreter", "tflite-runtime"),
    ("tensorflow.lite", "tensorflow"),
)


def inspect(path: str | os.PathLike[str], *, limit_s: float = 120.0) -> EdgeModel:
    """Read the inputs, outputs and operators of a ``.tflite`` file, and check that it loads and runs.

    The file is loaded, and run once, in a process of its own: the interpreter does not
    verify files, and a damaged one can end the process.

    Args:
        path: The file.
        limit_s: Seconds for one file. A file that has reached this limit is refused at once from then on, in every
            function, until it changes or a longer limit is passed here.

    Returns:
        Its inputs, outputs and operators.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: The file is empty, truncated, foreign, or does not run, or not within the limit.
        InputError: The limit is not above 0.
        MissingExtraError: No interpreter is installed.

    Example:
        >>> import keras_precision as kp
        >>> written = kp.export_tflite(model, "model.tflite", "float32")
        >>> inspect("model.tflite").operator_counts
        {'FULLY_CONNECTED float32': 2, 'SOFTMAX float32': 1}
    """
    if not limit_s > 0:
        raise InputError(f"Expected limit_s above 0, in seconds. Received: {limit_s!r}.")
    file = check_exists(path, "a TensorFlow Lite file")
    if file.is_dir():
        raise FileFormatError(f"{file}: expected a TensorFlow Lite file. Received: a folder.")
    with file.open("rb") as opened:
        head = opened.read(8)
    if len(head) < 8 or head[4:8] != b"TFL3":
        content = f"a file that begins with {head!r}" if head else "an empty file"
        raise FileFormatError(
            f"{file}: expected a TensorFlow Lite file (bytes 4 to 7 are 'TFL3'). Received: {content}."
        )
    runtime()
    try:
        return replace(_from_json(_CHILD.read(file, limit_s)), path=str(path))
    except ChildError as error:
        raise _refusal(file, str(error)) from error


def interpreter(path: str | os.PathLike[str], *, threads: int = 1, delegates: bool = True, keep: bool = False) -> Any:
    """Open a file that ``inspect`` has checked, with its tensors allocated.

    Without ``delegates``, none such as XNNPACK replaces operators; with ``keep``, all tensors can be read after a run.
    """
    module, name = runtime()
    options: dict[str, Any] = {"model_path": os.fspath(path), "num_threads": threads}
    if keep:
        options["experimental_preserve_all_tensors"] = True
    if not delegates:
        resolvers = module.experimental.OpResolverType if name == "tensorflow" else module.OpResolverType
        options["experimental_op_resolver_type"] = resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    opened = module.Interpreter(**options)
    opened.allocate_tensors()
    return opened


def input_details(opened: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return name (in the signature) and details of the inputs of an interpreter, in the file's order."""
    details = opened.get_input_details()
    runner = _signature_runner(opened)
    names = {} if runner is None else {detail["index"]: name for name, detail in runner.get_input_details().items()}
    return _named("input", [(names.get(detail["index"], detail["name"]), detail) for detail in details])


def output_details(opened: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return name and details of the outputs, in the order of their names in the signature: the file's is arbitrary."""
    runner = _signature_runner(opened)
    if runner is None:
        return _named("output", [(detail["name"], detail) for detail in opened.get_output_details()])
    return sorted(runner.get_output_details().items(), key=lambda item: _natural(item[0]))


def _named(kind: str, details: Sequence[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """Details with a name each: numbers where the tensors of a file have none, or share one."""
    names = [name for name, _ in details]
    if "" in names or len({*names}) < len(names):
        names = [f"{kind}_{number}" for number in range(len(names))]
    return [(name, detail) for name, (_, detail) in zip(names, details, strict=True)]


def describe(path: str) -> dict[str, Any]:
    """Load and run a file, and return the fields of its ``EdgeModel``; called in a child, which may not survive it."""
    plain = interpreter(path, delegates=False)  # delegates would replace operators of the file
    content = Path(path).read_bytes()
    packed = _packed(content)
    model = EdgeModel(
        path=path,
        size_bytes=Path(path).stat().st_size,
        runtime=_runtime_name(),
        inputs=tuple(tensor_of(name, detail) for name, detail in input_details(plain)),
        outputs=tuple(tensor_of(name, detail) for name, detail in output_details(plain)),
        operators=tuple(operators(plain, packed)),
        writers=tuple(writers(plain, [detail["index"] for _, detail in output_details(plain)])),
        card=metadata(content).get(CARD, b"").decode(),
    )
    running = interpreter(path)
    indices = [detail["index"] for _, detail in input_details(running)]

    def run(sample: Sequence[npt.NDArray[Any]]) -> None:
        for index, values in zip(indices, sample, strict=True):
            running.set_tensor(index, values)
        running.invoke()

    runnable_sample(model, run)
    return asdict(model)


def _packed(content: bytes) -> dict[int, str]:
    """The dtypes of packed tensors, which interpreters do not expose; empty if the schema is not installed."""
    if not available("ai_edge_litert.schema_py_generated"):
        return {}
    schema = importlib.import_module("ai_edge_litert.schema_py_generated")
    graph = schema.Model.GetRootAs(content, 0).Subgraphs(0)
    numbers = range(graph.TensorsLength())
    return {number: "int4" for number in numbers if graph.Tensors(number).Type() == schema.TensorType.INT4}


_PROGRAM = "from keras_precision.runtimes.tflite.sandbox import serve; from keras_precision.runtimes.tflite.file import describe; serve(describe)"
_CHILD = FileChild(_PROGRAM)


def _refusal(path: Path, reason: str) -> FileFormatError:
    return FileFormatError(
        f"{path}: expected a TensorFlow Lite file that loads and runs. Received: a damaged file, or one that {_runtime_name()} cannot run ({reason})."
    )


def _from_json(values: dict[str, Any]) -> EdgeModel:
    tensors = {
        name: tuple(Tensor(**{**tensor, "shape": tuple(tensor["shape"])}) for tensor in values[name])
        for name in ("inputs", "outputs")
    }
    rows = tuple(
        Operator(
            **{**row, "tensors": tuple(row["tensors"]), "reads": tuple(row["reads"]), "weights": tuple(row["weights"])}
        )
        for row in values["operators"]
    )
    return EdgeModel(**{**values, **tensors, "operators": rows, "writers": tuple(values["writers"])})


def runtime() -> tuple[Any, str]:
    """Return the module of the installed interpreter, and ``"litert"``, ``"tflite-runtime"`` or ``"tensorflow"``."""
    for module, name in _RUNTIMES:
        if available(module.partition(".")[0]):
            return importlib.import_module(module), name
    raise MissingExtraError(
        'Expected an interpreter for TensorFlow Lite. Received: none is installed. Install one with: pip install "keras-precision[edge]"'
    )


def _runtime_name() -> str:
    module, name = runtime()
    package = importlib.import_module(module.__name__.partition(".")[0])
    return f"{name} {getattr(package, '__version__', '')}".rstrip()


def _signature_runner(opened: Any) -> Any:
    """The signature of the main graph, which is the one that runs; None where a file has none."""
    tensors = _places(opened.get_input_details()), _places(opened.get_output_details())
    for key in opened.get_signature_list():
        runner = opened.get_signature_runner(key)
        own = _places(runner.get_input_details().values()), _places(runner.get_output_details().values())
        if own[0] <= tensors[0] and own[1] <= tensors[1]:
            return runner
    return None


def _places(details: Iterable[dict[str, Any]]) -> set[tuple[int, str]]:
    return {(int(detail["index"]), str(detail["name"])) for detail in details}


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts output_2 before output_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def tensor_of(name: str, detail: dict[str, Any]) -> Tensor:
    """Return the ``Tensor`` that an interpreter's details describe."""
    shape = detail.get("shape_signature")
    if shape is None or len(shape) == 0:
        shape = detail["shape"]
    scale, zero_point = detail["quantization"]
    return Tensor(
        name, tuple(int(size) for size in shape), np.dtype(detail["dtype"]).name, float(scale), int(zero_point)
    )
