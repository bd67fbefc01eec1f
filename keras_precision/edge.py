"""Run, time and evaluate a ``.tflite`` file with NumPy and an interpreter only.

This module needs no Keras: on a device with NumPy and ``ai-edge-litert`` (or the older
``tflite-runtime``), install this package with ``pip install --no-deps`` and use::

    python -m keras_precision.edge model.tflite

    from keras_precision import edge
    edge.evaluate("model.tflite", x_test, y_test).value("accuracy")
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from keras_precision.core.environment import Environment
from keras_precision.core.errors import DataError, FileFormatError, InputError, MissingExtraError
from keras_precision.core.result import Measurement, Result
from keras_precision.core.system.timing import time_calls
from keras_precision.runtimes.model_info import EdgeModel, Tensor
from keras_precision.runtimes.tflite.file import Operator, inspect
from keras_precision.runtimes.tflite.operator_times import OPERATOR_SOURCE, operator_times
from keras_precision.runtimes.tflite.session import Inputs, Session
from keras_precision.scoring.latency import latency_rows, latency_source
from keras_precision.scoring.scores import SCORES, agreement

__all__ = ["EdgeModel", "Operator", "Session", "Tensor", "benchmark", "evaluate", "inspect", "main", "predict"]


def predict(
    path: str | os.PathLike[str], inputs: Inputs, *, threads: int = 1
) -> npt.NDArray[Any] | list[npt.NDArray[Any]]:
    """Return the predictions of a ``.tflite`` file for all samples.

    Args:
        path: The file.
        inputs: One array of shape (n, ...), or one per input, as a mapping by name or a sequence. Of a file that
            this package wrote, a sequence is in the order of the model's inputs; of another, in the order that the
            shapes tell, since TFLiteConverter's own is arbitrary.
        threads: Interpreters that run in parallel, with tensors of their own; the predictions are
            bit-identical.

    Returns:
        Real numbers of shape (n, ...), or a list of them if the model has several outputs. An output without a batch
        axis, such as ten boxes of one image, gets one.

    Raises:
        FileFormatError: The file is damaged.
        DataError: The inputs do not fit it, or do not tell which is which.
    """
    return Session(path, workers=threads).predict(inputs)


def evaluate(
    path: str | os.PathLike[str],
    x: Inputs,
    y: npt.ArrayLike,
    metrics: Sequence[str] = ("accuracy",),
    *,
    reference: npt.ArrayLike | None = None,
    threads: int = 1,
) -> Result:
    """Evaluate a ``.tflite`` file on labelled samples.

    Args:
        path: The file.
        x: Samples, as for ``predict``.
        y: Labels.
        metrics: Names in ``keras_precision.scoring.scores.SCORES``.
        reference: Predictions of the model that the file was exported from; adds ``agreement``.
        threads: As for ``predict``.

    Returns:
        A result with the metrics, ``samples`` and ``size_bytes``.

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
    session = Session(path, workers=threads)
    predictions = session.predict(x)
    if isinstance(predictions, list):
        raise DataError(
            f"Expected a file with one output. Received: '{path}' with {len(predictions)}. Use predict, and score every output."
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
    per_operator: bool = False,
) -> Result:
    """Measure the latency of a ``.tflite`` file, one call after the other.

    Args:
        path: The file.
        inputs: Samples that the calls run one after the other, as for ``predict``; if None, zeros, or ones where the
            file does not take zeros.
        threads: Threads that one call may use.
        warmup: Calls before timing begins.
        min_calls: The minimum number of timed calls.
        min_seconds: The minimum total time of them, in seconds.
        per_operator: Time the operators, too: one by one, in files of their own.

    Returns:
        A result with ``latency_ms``, ``latency_p95_ms``, ``latency_samples``,
        ``samples_per_second``, ``size_bytes``, and with ``per_operator`` the ``operator_ms`` of all operators.

    Raises:
        InputError: A count is out of range.
        FileFormatError: The file is damaged.
        DataError: The inputs do not fit it.
    """
    session = Session(path, threads=threads)
    samples = list(session.samples(inputs)) if inputs is not None else [session.runnable_sample()]
    times = time_calls(
        lambda n: session.run(samples[n % len(samples)]), warmup=warmup, min_calls=min_calls, min_seconds=min_seconds
    )
    subject, per_call = Path(path).name, session.model.batch_size
    rows = (*latency_rows(subject, times, per_call), Measurement(subject, "size_bytes", session.model.size_bytes))
    sources = {"latency_ms": f"{latency_source(per_call, warmup)} on {threads} thread(s)"}
    if per_operator:
        rows += tuple(
            operator_times(path, threads=threads, warmup=warmup, min_calls=min_calls, min_seconds=min_seconds)
        )
        sources["operator_ms"] = OPERATOR_SOURCE
    return Result(subject, rows, Environment.here(backend=session.model.runtime, sources=sources))


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


if __name__ == "__main__":
    sys.exit(main())
