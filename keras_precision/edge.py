"""Run, time and check a ``.tflite`` file with NumPy and an interpreter alone.

This file works where no Keras is: on a device with NumPy and ``ai-edge-litert`` (or the older
``tflite-runtime``), install this package with ``pip install --no-deps`` and use::

    python -m keras_precision.edge model.tflite

    from keras_precision import edge
    edge.evaluate("model.tflite", x_test, y_test).value("accuracy")
"""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.chatter import captured
from keras_precision.environment import Environment
from keras_precision.errors import DataError, FileFormatError, InputError, MissingExtraError
from keras_precision.latency import latency_rows, latency_source
from keras_precision.result import Measurement, Result
from keras_precision.scores import SCORES, agreement
from keras_precision.tflite_file import (
    EdgeModel,
    Operator,
    Tensor,
    input_details,
    inspect,
    interpreter,
    output_details,
    zeros,
)
from keras_precision.timing import time_calls

__all__ = ["EdgeModel", "Operator", "Session", "Tensor", "benchmark", "evaluate", "inspect", "main", "predict"]

Array = npt.NDArray[Any]
Inputs = Array | Sequence[Array] | Mapping[str, Array]


class Session:
    """An interpreter on one file, ready to answer.

    Args:
        path: A ``.tflite`` file; it is checked in a process of its own first, since a damaged
            file can crash the interpreter.
        threads: Threads that one call may use.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: The file is damaged, or needs what this interpreter lacks.
        MissingExtraError: No interpreter is installed.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int = 1) -> None:
        if threads < 1:
            raise InputError(f"Expected threads >= 1. Received: {threads}.")
        self.model = inspect(path)
        with captured("interpreter"):
            self._interpreter = interpreter(path, threads=threads)
        self._outputs = output_details(self._interpreter)
        self._inputs = input_details(self._interpreter)

    def run(self, sample: Sequence[Array]) -> list[Array]:
        """Run the model once.

        Args:
            sample: One array per input, of exactly the input's shape; real numbers are quantized
                where the input is an integer one.

        Returns:
            One array per output, as real numbers.
        """
        for (_, detail), tensor, values in zip(self._inputs, self.model.inputs, sample, strict=True):
            self._interpreter.set_tensor(detail["index"], tensor.quantize(values))
        self._interpreter.reset_all_variables()  # recurrent kernels carry their state from call to call
        self._interpreter.invoke()
        pairs = zip(self._outputs, self.model.outputs, strict=True)
        return [tensor.dequantize(self._interpreter.get_tensor(detail["index"])) for (_, detail), tensor in pairs]

    def samples(self, inputs: Inputs) -> Iterator[list[Array]]:
        """Cut inputs into the pieces that the file takes.

        Args:
            inputs: One array of shape (n, ...), or one per input as a sequence (in the order of
                ``model.inputs``) or a mapping by name.

        Yields:
            One array per input, of the input's shape; the last piece is filled up with zeros
            where the file takes more than one sample at a time.

        Raises:
            DataError: Their count, shape or type do not fit the file.
        """
        arrays = _arrays(inputs, self.model.inputs)
        size = max(1, self.model.inputs[0].shape[0])
        for start in range(0, len(arrays[0]), size):
            yield [_filled(array[start : start + size], size) for array in arrays]

    def predict(self, inputs: Inputs) -> Array | list[Array]:
        """Return the model's answers to all samples.

        Args:
            inputs: As for ``samples``.

        Returns:
            Array of shape (n, ...), or a list of them where the model has several outputs.

        Raises:
            DataError: The inputs do not fit the file.
        """
        count = len(_arrays(inputs, self.model.inputs)[0])
        answers = [self.run(sample) for sample in self.samples(inputs)]
        joined = [np.concatenate(parts)[:count] for parts in zip(*answers, strict=True)]
        return joined[0] if len(joined) == 1 else joined


def predict(path: str | os.PathLike[str], inputs: Inputs, *, threads: int = 1) -> Array | list[Array]:
    """Return the answers of a ``.tflite`` file to all samples.

    Args:
        path: The file.
        inputs: One array of shape (n, ...), or one per input, as a sequence in the order of
            ``inspect(path).inputs`` or a mapping by name.
        threads: Threads that one call may use.

    Returns:
        Real numbers of shape (n, ...), or a list of them where the model has several outputs.

    Raises:
        FileFormatError: The file is damaged.
        DataError: The inputs do not fit it.
    """
    return Session(path, threads=threads).predict(inputs)


def evaluate(
    path: str | os.PathLike[str],
    x: Inputs,
    y: npt.ArrayLike,
    metrics: Sequence[str] = ("accuracy",),
    *,
    reference: npt.ArrayLike | None = None,
) -> Result:
    """Score a ``.tflite`` file on labelled samples.

    Args:
        path: The file.
        x: Samples, as for ``predict``.
        y: Labels.
        metrics: Names in ``keras_precision.scores.SCORES``.
        reference: Predictions of the model that the file was made from; adds ``agreement``.

    Returns:
        A result with each metric, ``samples`` and ``size_bytes``.

    Raises:
        InputError: A metric is unknown.
        FileFormatError: The file is damaged.
        DataError: Samples or labels do not fit.
    """
    for name in metrics:
        if name not in SCORES:
            raise InputError(
                f"Expected metrics among {', '.join(sorted(SCORES))}. Received: {name!r}. kp.evaluate takes any metric of Keras."
            )
    session = Session(path)
    predictions = session.predict(x)
    if isinstance(predictions, list):
        raise DataError(
            f"Expected a file with one output. Received: '{path}' with {len(predictions)}. Use predict and score each one."
        )
    subject = Path(path).name
    rows = [Measurement(subject, SCORES[name].__name__, SCORES[name](y, predictions)) for name in metrics]
    if reference is not None:
        rows.append(Measurement(subject, "agreement", agreement(reference, predictions)))
    rows += [
        Measurement(subject, "samples", len(predictions)),
        Measurement(subject, "size_bytes", session.model.size_bytes),
    ]
    return Result(subject, tuple(rows), Environment.here(backend=session.model.runtime))


def benchmark(
    path: str | os.PathLike[str],
    inputs: Inputs | None = None,
    *,
    threads: int = 1,
    warmup: int = 10,
    min_calls: int = 50,
    min_seconds: float = 1.0,
) -> Result:
    """Time a ``.tflite`` file, one call after the other.

    Args:
        path: The file.
        inputs: Samples to run in turn, as for ``predict``; zeros where None.
        threads: Threads that one call may use.
        warmup: Calls before timing begins.
        min_calls: Calls timed at the least.
        min_seconds: Seconds timed at the least.

    Returns:
        A result with ``latency_ms``, ``latency_p95_ms``, ``latency_samples``,
        ``samples_per_second`` and ``size_bytes``.

    Raises:
        InputError: A count is out of range.
        FileFormatError: The file is damaged.
        DataError: The inputs do not fit it.
    """
    session = Session(path, threads=threads)
    samples = list(session.samples(inputs)) if inputs is not None else [zeros(session.model)]
    times = time_calls(
        lambda n: session.run(samples[n % len(samples)]), warmup=warmup, min_calls=min_calls, min_seconds=min_seconds
    )
    subject, per_call = Path(path).name, len(samples[0][0])
    rows = (*latency_rows(subject, times, per_call), Measurement(subject, "size_bytes", session.model.size_bytes))
    how = f"{latency_source(per_call, warmup)} on {threads} thread(s)"
    return Result(subject, rows, Environment.here(backend=session.model.runtime, sources={"latency_ms": how}))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print inputs, outputs, operators and latency of a file: ``python -m keras_precision.edge FILE``.

    Args:
        arguments: The command line; None for the process's own.

    Returns:
        The exit code: 0, or 2 where the file cannot be used.
    """
    parser = argparse.ArgumentParser(
        prog="python -m keras_precision.edge", description="Describe and time a .tflite file."
    )
    parser.add_argument("path", metavar="FILE", help="a .tflite file")
    parser.add_argument("--threads", type=int, default=1, help="threads that one call may use (default 1)")
    options = parser.parse_args(arguments)
    try:
        timed = benchmark(options.path, threads=options.threads)
        print(_description(inspect(options.path), timed))
    except FileNotFoundError:
        print(f"Expected a .tflite file. Received: '{options.path}', which does not exist.", file=sys.stderr)
        return 2
    except (OSError, FileFormatError, InputError, MissingExtraError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _description(model: EdgeModel, timed: Result) -> str:
    lines = [f"{model.path}: {model.size_bytes:,} bytes, read by {model.runtime}"]
    for title, tensors in (("inputs", model.inputs), ("outputs", model.outputs)):
        lines += [f"{title}:", *(f"  {tensor.name}  {list(tensor.shape)}  {tensor.described}" for tensor in tensors)]
    lines += [
        f"operators: {len(model.operators)}",
        *(f"  {count:4d}  {name}" for name, count in model.operator_counts.items()),
    ]
    how = f"{timed.value('latency_samples')} calls, {timed.environment.sources['latency_ms']}"
    lines.append(
        f"latency: {timed.value('latency_ms'):.3f} ms median, {timed.value('latency_p95_ms'):.3f} ms p95 ({how})"
    )
    return "\n".join(lines)


def _arrays(inputs: Inputs, wanted: Sequence[Tensor]) -> list[Array]:
    """One array per input, checked against the file."""
    if isinstance(inputs, Mapping):
        missing = [tensor.name for tensor in wanted if tensor.name not in inputs]
        if missing:
            raise DataError(
                f"Expected arrays for the inputs {[tensor.name for tensor in wanted]}. Received: {list(inputs)}, without {missing}."
            )
        arrays = [np.asarray(inputs[tensor.name]) for tensor in wanted]
    elif isinstance(inputs, np.ndarray):
        arrays = [inputs]
    else:
        arrays = [np.asarray(array) for array in inputs]
    if len(arrays) != len(wanted):
        raise DataError(
            f"Expected {len(wanted)} input(s): {[tensor.name for tensor in wanted]}. Received: {len(arrays)}."
        )
    for tensor, array in zip(wanted, arrays, strict=True):
        _check_array(tensor, array)
    if len({len(array) for array in arrays}) > 1:
        raise DataError(f"Expected as many samples for each input. Received: {[len(array) for array in arrays]}.")
    return arrays


def _check_array(tensor: Tensor, array: Array) -> None:
    expected = f"(n, {', '.join('any' if size < 0 else str(size) for size in tensor.shape[1:])})"
    fits = array.ndim == len(tensor.shape) and all(
        size in (-1, got) for size, got in zip(tensor.shape[1:], array.shape[1:], strict=True)
    )
    if not fits or len(array) == 0:
        raise DataError(f"Expected samples of shape {expected} for the input '{tensor.name}'. Received: {array.shape}.")
    if array.dtype.kind not in "biuf":
        raise DataError(f"Expected numbers for the input '{tensor.name}'. Received: dtype {array.dtype}.")


def _filled(part: Array, size: int) -> Array:
    short = size - len(part)
    return np.concatenate([part, np.zeros((short, *part.shape[1:]), part.dtype)]) if short else part


if __name__ == "__main__":
    sys.exit(main())
