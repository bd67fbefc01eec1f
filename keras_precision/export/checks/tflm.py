"""check_micro: whether a ``.tflite`` file runs on TensorFlow Lite Micro, and the memory that it needs there."""

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.core.environment import Environment
from keras_precision.core.errors import MissingExtraError
from keras_precision.core.result import Measurement, Result
from keras_precision.core.system.child_process import CompletedChild, run_python
from keras_precision.core.system.optional import available, require
from keras_precision.export.operator_layers import layers_on_card, origin
from keras_precision.runtimes.model_info import EdgeModel
from keras_precision.runtimes.tflite.file import inspect, interpreter

__all__ = ["check_micro"]

Array = npt.NDArray[Any]

_CHILD = "import sys; from keras_precision.export.checks.tflm import main; main(sys.argv[1])"
_SAMPLES = 4
_ARENA = re.compile(r"Arena allocation (total|head|tail) (\d+) bytes")
_HOST = (
    "TensorFlow Lite Micro's recording allocator on this 64-bit host; a 32-bit device needs somewhat less, since "
    "pointers are half as long"
)


def check_micro(path: str | os.PathLike[str]) -> Result:
    """Run a ``.tflite`` file on the TensorFlow Lite Micro interpreter, and measure the memory that it needs.

    The interpreter runs in a process of its own, so that a file that crashes it is a finding. The
    file is run on random samples, and its outputs are compared with LiteRT's reference kernels.

    Args:
        path: A ``.tflite`` file.

    Returns:
        A result with ``runs`` (1 or 0), ``arena_bytes``, ``arena_head_bytes`` (activations, which
        operators share), ``arena_tail_bytes`` (what stays), ``max_difference`` from LiteRT's
        outputs, and ``size_bytes``. What a file that does not run would need is unknown, and the
        notes say why it does not, with the operator that is refused and the Keras layer that it
        computes, where the file has the card of ``kp.export_tflite``.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: The file is damaged.
        MissingExtraError: ``tflite-micro`` is not installed.

    Example:
        >>> import keras_precision as kp
        >>> written = kp.export_tflite(model, "model.tflite", "int8", x_cal)
        >>> kp.check_micro("model.tflite").value("runs")
        1
    """
    if not available("tflite_micro"):
        raise MissingExtraError(
            "Expected the package 'tflite-micro', which has the interpreter of microcontrollers. "
            'Install it with: pip install "keras-precision[micro]"'
        )
    model = inspect(path)
    with tempfile.TemporaryDirectory() as folder:
        ended = run_python(["-c", _CHILD, os.fspath(Path(path).resolve())], folder=folder)
    subject = Path(path).name
    sizes = {kind: int(size) for kind, size in _ARENA.findall(ended.errors)} if ended.code == 0 else {}
    difference = float(json.loads(ended.output.splitlines()[-1])) if ended.code == 0 else None
    rows = (
        Measurement(subject, "runs", int(ended.code == 0)),
        Measurement(subject, "arena_bytes", sizes.get("total")),
        Measurement(subject, "arena_head_bytes", sizes.get("head")),
        Measurement(subject, "arena_tail_bytes", sizes.get("tail")),
        Measurement(subject, "max_difference", difference),
        Measurement(subject, "size_bytes", model.size_bytes),
    )
    notes = () if ended.code == 0 else (f"TensorFlow Lite Micro cannot run '{subject}': {_reason(ended, model)}",)
    environment = Environment.here(backend="tflite-micro", sources={"arena_bytes": _HOST})
    return Result(f"micro:{subject}", rows, environment, notes=notes)


def _reason(ended: CompletedChild, model: EdgeModel) -> str:
    """The interpreter's message on the operator that it refused, and the origin of that."""
    said = [line for line in ended.errors.splitlines() if line and not line.startswith(("[", " ", "Traceback"))]
    reasons = [line for line in said if not line.startswith("RuntimeError")] or said
    layers = layers_on_card(model)
    refused = [
        f"{model.operators[number].kernel} of {origin(model, layers, number)}" for number in _refused(ended, model)
    ]
    return "; ".join([*dict.fromkeys(refused), *reasons[-2:], f"the process {ended.ended_by}"])


def _refused(ended: CompletedChild, model: EdgeModel) -> list[int]:
    """The operators that the interpreter named: by number, or all that need a kernel that it does not have."""
    numbers = [int(number) for number in re.findall(r"^Node \w+ \(number (\d+)", ended.errors, re.MULTILINE)]
    lacking = set(re.findall(r"builtin opcode '(\w+)'", ended.errors))
    numbers += [number for number, operator in enumerate(model.operators) if operator.kernel in lacking]
    return [number for number in numbers if number < len(model.operators)]


def main(path: str) -> None:
    """Run a file on both interpreters, and print the largest difference of their outputs; called in a child process."""
    micro = require("tflite_micro", extra="micro").runtime.Interpreter.from_file(path)
    lite = interpreter(path, delegates=False)
    inputs, outputs = lite.get_input_details(), lite.get_output_details()
    random = np.random.default_rng(0)
    largest = 0.0
    for _ in range(_SAMPLES):
        micro.reset()
        lite.reset_all_variables()
        for number, detail in enumerate(inputs):
            sample = _sample(random, detail)
            micro.set_input(sample, number)
            lite.set_tensor(detail["index"], sample)
        micro.invoke()
        lite.invoke()
        for number, detail in enumerate(outputs):
            off = micro.get_output(number).astype(np.float64) - lite.get_tensor(detail["index"])
            largest = max(largest, float(np.abs(off).max()) * (detail["quantization"][0] or 1.0))
    micro.print_allocations()
    print(json.dumps(largest))  # noqa: T201 - to the parent


def _sample(random: np.random.Generator, detail: dict[str, Any]) -> Array:
    """Random numbers of an input's type; small whole ones where it takes integers that stand for themselves."""
    dtype, shape = np.dtype(detail["dtype"]), tuple(int(size) for size in detail["shape"])
    if dtype.kind == "f":
        return random.random(shape).astype(dtype)
    if not detail["quantization"][0]:
        return random.integers(0, 2, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return random.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)
