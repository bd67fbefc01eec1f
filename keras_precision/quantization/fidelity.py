"""Whether a float file answers as Keras does: what is wrong before quantization is not blamed on it."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision._adapters import adapter_of
from keras_precision.core.errors import ExportError
from keras_precision.core.system.captured_output import captured
from keras_precision.quantization.conversion import static_shape
from keras_precision.runtimes.tflite.file import input_details, interpreter, output_details

__all__ = ["check_answers", "check_faithful"]

Array = npt.NDArray[Any]

_SAMPLES = 4
_TOLERANCE = 0.02  # of the largest answer: kernels that approximate, float16 weights


def check_faithful(model: Any, content: bytes, samples: Mapping[str, Array] | None = None) -> None:
    """Raise where a float file's answers are not those of its model.

    Args:
        model: The model.
        content: The float file that was made of it.
        samples: Input name to samples, of shape (n, ...), of which the first few are run; None for
            random numbers, and ones where an input takes integers.

    Raises:
        ExportError: Most samples have other answers.
    """
    check_answers(model, lambda few: _answers(content, few), samples)


def check_answers(
    model: Any, answer: Callable[[Mapping[str, Array]], Sequence[Array]], samples: Mapping[str, Array] | None = None
) -> None:
    """Raise where what was made of a model without quantizing it does not answer as the model does.

    Args:
        model: The model.
        answer: Given samples by input name, returns one array per output.
        samples: As for ``check_faithful``.

    Raises:
        ExportError: Most samples have other answers.
    """
    adapter = adapter_of(model)
    inputs = adapter.inputs(model)
    if samples is None:
        random = np.random.default_rng(0)
        samples = {
            each.name: random.random((_SAMPLES, *static_shape(each))).round(0 if "int" in each.dtype else 6)
            for each in inputs
        }
    few = {each.name: samples[each.name][:_SAMPLES].astype(each.dtype) for each in inputs}
    with captured("Keras"):
        exact = adapter.in_float32(model)
        alone = [  # as the file takes them: a shape inside the model may be that of one sample
            adapter.answers(exact, [few[each.name][number : number + 1] for each in inputs])
            for number in range(len(few[inputs[0].name]))
        ]
    expected = [np.concatenate(output) for output in zip(*alone, strict=True)]
    for number, (wanted, got) in enumerate(zip(expected, answer(few), strict=True)):
        axes = tuple(range(1, wanted.ndim))
        with np.errstate(invalid="ignore"):  # infinity less infinity: what is not finite is told behind this
            off = np.abs(got.reshape(wanted.shape).astype(np.float64) - wanted).max(axis=axes)
        limit = _TOLERANCE * np.abs(wanted).max() + 1e-6
        if not np.median(off) <= limit and np.isfinite(wanted).all():
            raise ExportError(
                f"Expected the float file of '{model.name}' to answer as the model does. Received: output {number} is off by "
                f"{np.median(off):.3g}, where the largest answer is {np.abs(wanted).max():.3g}. A layer of it computes "
                "otherwise in a graph, or at random: look at custom layers, and at those that act in training alone."
            )


def _answers(content: bytes, samples: Mapping[str, Array]) -> list[Array]:
    """One array per output, of the float file's answers."""
    with tempfile.TemporaryDirectory() as folder, captured("interpreter"):
        path = Path(folder) / "model.tflite"
        path.write_bytes(content)
        opened = interpreter(path)
    answers = []
    for number in range(len(next(iter(samples.values())))):
        for name, detail in input_details(opened):
            opened.set_tensor(detail["index"], samples[name][number : number + 1])
        opened.reset_all_variables()
        opened.invoke()
        answers.append([opened.get_tensor(detail["index"]) for _, detail in output_details(opened)])
    return [np.stack(output) for output in zip(*answers, strict=True)]
