"""check_micro: whether a ``.tflite`` file runs on TensorFlow Lite Micro, and the memory that it needs there."""

import json
import os
import re
import tempfile
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.core.environment import Environment
from keras_precision.core.errors import FileFormatError, MissingExtraError
from keras_precision.core.result import Measurement, Result
from keras_precision.core.system.child_process import CompletedChild, run_python
from keras_precision.core.system.optional import available, require
from keras_precision.export.operator_layers import layers_on_card, origin
from keras_precision.runtimes.model_info import EdgeModel
from keras_precision.runtimes.tflite.file import inspect, interpreter
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["arena_bytes", "check_micro"]

Array = npt.NDArray[Any]

_CHILD = "import sys; from keras_precision.export.checks.tflm import main; main(*sys.argv[1:])"
_SAMPLES = 4
_TOLERANCE = 0.02  # of the range of an output, by which kernels may differ
_FIRST_ARENA, _LARGEST_ARENA, _ARENA_GROWTH = 2**20, 2**28, 4  # bytes, bytes, factor; no microcontroller has 256 MiB
_ARENA = re.compile(r"Arena allocation (total|head|tail) (\d+) bytes")
_HOST = (
    "TensorFlow Lite Micro's recording allocator on this 64-bit host; a 32-bit device needs somewhat less, since "
    "pointers are half as long"
)


def check_micro(path: str | os.PathLike[str]) -> Result:
    """Run a ``.tflite`` file on the TensorFlow Lite Micro interpreter, and measure the memory that it needs.

    The interpreter runs in a process of its own, so that a file that crashes it is a finding. The
    file is run on random samples, and its outputs are compared with LiteRT's reference kernels, where LiteRT runs the
    file. The arena grows until the file fits, up to 256 MiB.

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
        FileFormatError: The file is damaged: neither interpreter runs it.
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
    subject, refusal, model = Path(path).name, None, None
    try:
        model = inspect(path)
    except FileFormatError as error:  # LiteRT checks what TensorFlow Lite Micro does not
        refusal = error
    ended = _run(Path(path).resolve(), compare=model is not None)
    if refusal is not None and ended.code != 0:
        raise refusal
    sizes = {kind: int(size) for kind, size in _ARENA.findall(ended.errors)} if ended.code == 0 else {}
    compared = json.loads(ended.output.splitlines()[-1]) if ended.code == 0 else None
    difference, share = compared or (None, None)
    rows = (
        Measurement(subject, "runs", int(ended.code == 0)),
        Measurement(subject, "arena_bytes", sizes.get("total")),
        Measurement(subject, "arena_head_bytes", sizes.get("head")),
        Measurement(subject, "arena_tail_bytes", sizes.get("tail")),
        Measurement(subject, "max_difference", difference if difference is None or isfinite(difference) else None),
        Measurement(subject, "size_bytes", Path(path).stat().st_size),
    )
    environment = Environment.here(backend="tflite-micro", sources={"arena_bytes": _HOST})
    return Result(f"micro:{subject}", rows, environment, notes=tuple(_notes(subject, ended, model, share)))


def arena_bytes(content: bytes) -> int | None:
    """Return the arena that a file takes on TensorFlow Lite Micro; None where it does not run there."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(content)
        ended = _run(path, compare=False)
    return next((int(size) for kind, size in _ARENA.findall(ended.errors) if kind == "total" and ended.code == 0), None)


def _run(path: Path, *, compare: bool) -> CompletedChild:
    """Run a file in a child process, again with a larger arena where it did not fit into that."""
    arena = _FIRST_ARENA
    while True:
        with tempfile.TemporaryDirectory() as folder:
            ended = run_python(["-c", _CHILD, os.fspath(path), str(arena), str(int(compare))], folder=folder)
        # An arena that is too small can end the process by a signal, after this message.
        if ended.code == 0 or arena >= _LARGEST_ARENA or not re.search(r"missing: \d+", ended.errors):
            return ended
        arena *= _ARENA_GROWTH


def _notes(subject: str, ended: CompletedChild, model: EdgeModel | None, share: float | None) -> Iterator[str]:
    if model is None:
        yield f"LiteRT does not run '{subject}', so the outputs of TensorFlow Lite Micro were compared with none"
    elif ended.code != 0:
        yield f"TensorFlow Lite Micro cannot run '{subject}': {_reason(ended, model)}"
    elif share is not None and not share <= _TOLERANCE:
        how = f"off by {100 * share:.3g} % of their range" if isfinite(share) else "some of which are not finite"
        yield (
            f"TensorFlow Lite Micro computes other outputs of '{subject}' than LiteRT, {how}: do not deploy this file there; export it "
            "with runtime='tflm', or give the layers whose kernels differ another precision"
        )


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


def main(path: str, arena: str, compare: str) -> None:
    """Run a file, and print how far it is from LiteRT's outputs, or null; called in a child process."""
    micro = require("tflite_micro", extra="micro").runtime.Interpreter.from_file(path, arena_size=int(arena))
    lite = interpreter(path, delegates=False) if int(compare) else None
    inputs = [micro.get_input_details(number) for number in range(len(Flatbuffer(Path(path).read_bytes()).inputs))]
    random = np.random.default_rng(0)
    differences = []
    for _ in range(_SAMPLES):
        samples = [_sample(random, detail) for detail in inputs]
        micro.reset()
        for number, sample in enumerate(samples):
            micro.set_input(sample, number)
        micro.invoke()
        if lite is not None:
            differences += _differences(micro, lite, samples)
    micro.print_allocations()
    # Of numbers that are none the largest is none, too.
    largest = np.max(differences, axis=0).tolist() if differences else None
    print(json.dumps(largest))  # noqa: T201 - to the parent


def _differences(micro: Any, lite: Any, samples: list[Array]) -> list[tuple[float, float]]:
    """Return the largest difference of each output from LiteRT's for one sample, and its share of the output's range."""
    lite.reset_all_variables()
    for detail, sample in zip(lite.get_input_details(), samples, strict=True):
        lite.set_tensor(detail["index"], sample)
    lite.invoke()
    differences = []
    for number, detail in enumerate(lite.get_output_details()):
        expected, step = lite.get_tensor(detail["index"]), detail["quantization"][0] or 1.0
        difference = np.abs(micro.get_output(number).astype(np.float64) - expected).max() * step
        integers = np.iinfo(expected.dtype) if expected.dtype.kind in "iu" else None
        span = np.abs(expected).max() if integers is None else step * (integers.max - integers.min)
        differences.append((float(difference), float(difference / max(span, np.finfo(np.float32).tiny))))
    return differences


def _sample(random: np.random.Generator, detail: dict[str, Any]) -> Array:
    """Random numbers of an input's type; small whole ones where it takes integers that stand for themselves."""
    dtype, shape = np.dtype(detail["dtype"]), tuple(int(size) for size in detail["shape"])
    if dtype.kind == "f":
        return random.random(shape).astype(dtype)
    if not any(detail["quantization_parameters"]["scales"]):
        return random.integers(0, 2, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return random.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)
