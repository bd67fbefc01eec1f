"""The check that a toolchain's float32 graph computes the outputs of its model, before it is written or quantized."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision._adapters.rebuild import in_float32
from keras_precision.core.errors import ExportError
from keras_precision.core.system.captured_output import capture_output
from keras_precision.export.toolchain import ExportJob
from keras_precision.runtimes.session import RuntimeSession
from keras_precision.runtimes.tflite.in_memory import predict_in_memory

__all__ = ["check_conversion", "model_outputs"]

Array = npt.NDArray[Any]

_SAMPLES = 8
_TOLERANCE = 1e-5  # of the largest output: float32 sums in another order differ by a few 1e-7
_NOISE = 4.0


def check_conversion(job: ExportJob, session: RuntimeSession, converters: str) -> None:
    """Raise where a float32 graph does not give the outputs of its model; ``converters`` wrote it from the float file.

    Where the model itself amplifies rounding, so does the float file: what that differs from the model by, several
    times over, is rounding in the graph, too.

    Raises:
        ExportError: An output is off by more.
    """
    samples = job.few_samples(_SAMPLES)
    expected = list(model_outputs(job, samples))
    from_file = predict_in_memory(job.source.content, samples)
    received = session.predict({tensor.name: samples[tensor.name] for tensor in session.model.inputs})
    from_graph = received if isinstance(received, list) else [received]
    for number, (exact, by_file, by_graph) in enumerate(zip(expected, from_file, from_graph, strict=True)):
        if not np.isfinite(exact).all():  # calibration reports values that are not finite
            continue
        largest, error, noise = float(np.abs(exact).max()), _error(by_graph, exact), _error(by_file, exact)
        if not error <= max(_TOLERANCE * largest, _NOISE * noise):
            raise ExportError(
                f"Expected {converters} to convert '{job.model.name}' within {_TOLERANCE:g} of its largest output. Received: output {number} "
                f"is off by {error:.3g}, where the largest value is {largest:.3g}; the float file that was converted is off by {noise:.3g}. "
                "A layer is converted wrongly: replace it, or export with kp.export_tflite."
            )


def model_outputs(job: ExportJob, samples: Mapping[str, Array]) -> Iterator[Array]:
    """Yield the model's outputs, computed sample by sample: a shape inside the model may be that of one sample."""
    adapter = job.view.adapter
    with capture_output("Keras"):
        exact = in_float32(adapter, job.model)
        by_sample = [
            adapter.answers(exact, [samples[model_input.name][number : number + 1] for model_input in job.view.inputs])
            for number in range(len(next(iter(samples.values()))))
        ]
    for outputs in zip(*by_sample, strict=True):
        yield np.concatenate(outputs)


def _error(received: Array, exact: Array) -> float:
    return float(np.abs(received.reshape(exact.shape).astype(np.float64) - exact).max())
