"""benchmark: the latency of a model or a file."""

from dataclasses import replace
from typing import Any

from keras_precision.core.errors import InputError
from keras_precision.core.result import Result
from keras_precision.core.system.timing import time_calls
from keras_precision.runtimes.registry import RUNTIME_FILES
from keras_precision.runtimes.tflite.operator_times import OPERATOR_SOURCE, operator_times
from keras_precision.scoring.latency import latency_rows, latency_source
from keras_precision.verify.targets import Target, has_suffix, open_target

__all__ = ["benchmark"]


def benchmark(
    target: Target,
    inputs: Any = None,
    *,
    batch_size: int = 1,
    threads: int = 1,
    warmup: int = 10,
    min_calls: int = 50,
    min_seconds: float = 1.0,
    per_operator: bool = False,
    unsafe: bool = False,
) -> Result:
    """Measure the latency of a model, or of a file.

    A Keras model is called with ``predict_on_batch``, its compiled path, which returns NumPy
    arrays and so waits for the device.

    Args:
        target: A Keras model, or the path of a ``.keras``, ``.h5``, ``.hdf5`` or ``.tflite`` file.
        inputs: Samples, as for ``evaluate``, that are run in turn; None: zeros, where the inputs of
            the target are known.
        batch_size: Samples per call; a ``.tflite`` file with a fixed batch size uses that.
        threads: Threads that one call of a ``.tflite`` file may use; Keras's backend has its own.
        warmup: Calls before timing begins.
        min_calls: The fewest calls that are timed.
        min_seconds: The shortest time of measurement.
        per_operator: Whether to time the operators of a ``.tflite`` file, too, in files of one operator.
        unsafe: Whether Python code in a saved model (a Lambda) may run.

    Returns:
        A result with ``latency_ms`` (median), ``latency_p95_ms``, ``latency_samples`` (calls
        timed), ``samples_per_second``, ``size_bytes`` of a file, and ``operator_ms`` of the
        operators on request; a note compares their sum with the whole.

    Raises:
        InputError: A count is out of range, the target is neither a model nor such a file, or has
            no threads or operators of its own.
        FileFormatError: The file is damaged.
        FileNotFoundError: There is no such file.
        DataError: The samples do not fit the model.

    Example:
        >>> result = benchmark(model, x_test, min_seconds=0.1)
        >>> result.value("latency_ms") > 0
        True
    """
    if batch_size < 1:
        raise InputError(f"Expected batch_size >= 1. Received: {batch_size}.")
    takes_threads = has_suffix(target, ".tflite", *RUNTIME_FILES)
    if (threads != 1 and not takes_threads) or (per_operator and not has_suffix(target, ".tflite")):
        raise InputError(
            f"Expected a .tflite file for threads and per_operator. Received: {type(target).__name__} {str(target)!r:.80}. "
            "Threads of a Keras model are those of its backend."
        )
    opened = open_target(target, threads=threads, unsafe=unsafe)
    call, per_call = opened.caller(inputs, batch_size)
    times = time_calls(call, warmup=warmup, min_calls=min_calls, min_seconds=min_seconds)
    rows = [*latency_rows(opened.name, times, per_call), *opened.static_rows()]
    how = latency_source(per_call, warmup) + (f" on {threads} threads" if threads > 1 else "")
    result = opened.result(rows, {"latency_ms": how})
    if not per_operator:
        return result
    operators = list(
        operator_times(target, threads=threads, warmup=warmup, min_calls=min_calls, min_seconds=min_seconds)
    )
    total = sum(row.value for row in operators if isinstance(row.value, float))
    note = f"the operators alone take {total:.3g} ms in all, the file {result.value('latency_ms'):.3g} ms a call"
    environment = result.environment.with_sources({"operator_ms": OPERATOR_SOURCE})
    return replace(result.with_measurements(operators, [note]), environment=environment)
