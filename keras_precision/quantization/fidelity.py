"""Check that a float file computes the outputs of its model, so that quantization is not mistaken for the cause."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision._adapters.model_view import ModelView
from keras_precision._adapters.rebuild import in_float32
from keras_precision.core.errors import ExportError
from keras_precision.core.system.captured_output import capture_output
from keras_precision.quantization.conversion import static_shape
from keras_precision.runtimes.tflite.file import input_details, interpreter, output_details

__all__ = ["check_equivalence", "check_outputs"]

Array = npt.NDArray[Any]

_SAMPLES = 4
_TOLERANCE = 0.02  # of the largest output: for kernels that approximate, and float16 weights


def check_equivalence(view: ModelView, content: bytes, samples: Mapping[str, Array] | None = None) -> None:
    """Raise ExportError unless a float file computes the outputs of its model, as ``check_answers`` compares them."""
    check_outputs(view, lambda inputs: _outputs(content, inputs), samples)


def check_outputs(
    view: ModelView,
    predict: Callable[[Mapping[str, Array]], Sequence[Array]],
    samples: Mapping[str, Array] | None = None,
) -> None:
    """Raise ExportError unless an unquantized file computes the outputs of its model for most samples.

    ``predict`` maps samples by input name to one array per output. Of ``samples``, of shape (n, ...), the first few
    are used; None: random numbers, and zeros and ones for integer inputs.
    """
    adapter, inputs = view.adapter, view.inputs
    if samples is None:
        random = np.random.default_rng(0)
        samples = {
            model_input.name: random.random((_SAMPLES, *static_shape(model_input))).round(
                0 if "int" in model_input.dtype else 6
            )
            for model_input in inputs
        }
    data = {model_input.name: samples[model_input.name][:_SAMPLES].astype(model_input.dtype) for model_input in inputs}
    with capture_output("Keras"):
        exact = in_float32(adapter, view.model)
        by_sample = [  # one by one, as the file takes them: a shape inside the model may be that of one sample
            adapter.answers(exact, [data[model_input.name][number : number + 1] for model_input in inputs])
            for number in range(len(data[inputs[0].name]))
        ]
    expected_outputs = [np.stack(output) for output in zip(*by_sample, strict=True)]
    for number, (expected, received) in enumerate(zip(expected_outputs, predict(data), strict=True)):
        axes = tuple(range(1, expected.ndim))
        with np.errstate(invalid="ignore"):  # infinity less infinity; calibration reports values that are not finite
            error = np.abs(received.reshape(expected.shape).astype(np.float64) - expected).max(axis=axes)
        limit = _TOLERANCE * np.abs(expected).max() + 1e-6
        if not np.median(error) <= limit and np.isfinite(expected).all():
            raise ExportError(
                f"Expected the float file of '{view.name}' to compute the outputs of the model. Received: output {number} is "
                f"off by {np.median(error):.3g}, where the largest value is {np.abs(expected).max():.3g}. A layer computes "
                "differently in a graph, or at random: check custom layers, and layers that are active only in training."
            )


def _outputs(content: bytes, samples: Mapping[str, Array]) -> list[Array]:
    """Return one array per output of a float file, which runs sample by sample."""
    with tempfile.TemporaryDirectory() as folder, capture_output("interpreter"):
        path = Path(folder) / "model.tflite"
        path.write_bytes(content)
        runner = interpreter(path)
    outputs = []
    for number in range(len(next(iter(samples.values())))):
        for name, detail in input_details(runner):
            runner.set_tensor(detail["index"], samples[name][number : number + 1])
        runner.reset_all_variables()
        runner.invoke()
        outputs.append([runner.get_tensor(detail["index"]) for _, detail in output_details(runner)])
    return [np.stack(output) for output in zip(*outputs, strict=True)]
