"""FloatFile: the float ``.tflite`` file of a model, from any backend, that ranges are measured on."""

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np

from keras_precision._adapters import KerasAdapter, adapter_of
from keras_precision.chatter import captured
from keras_precision.child_process import run_python
from keras_precision.errors import ExportError, MissingExtraError
from keras_precision.files import write_private
from keras_precision.optional import available
from keras_precision.quantize.converter import Converted, FloatFormat, convert, static_shape
from keras_precision.quantize.equalization import equalized
from keras_precision.quantize.trace import Trace

__all__ = ["FloatFile", "convert_anywhere", "float_file", "weights_digest"]


@dataclass(frozen=True)
class FloatFile:
    """A model in float32, as a file for one sample at a time.

    Attributes:
        content: The file's content.
        trace: The graph that it was made from.
        digest: What identifies the weights that the model holds.
        equalized_pairs: Between how many pairs of layers channels were scaled; None: the weights are
            those of the model.
    """

    content: bytes
    trace: Trace
    digest: str
    equalized_pairs: int | None = None


def float_file(model: Any, *, equalize: bool = False) -> FloatFile:
    """Return the float file of a model.

    Args:
        model: A built functional or sequential model, of tf_keras or of Keras 3 on any backend.
        equalize: Whether to equalize its weights across layers; the model stays as it is.

    Returns:
        The file.

    Raises:
        ModelError: The model is subclassed or not built, or an input has a free size.
        MissingExtraError: TensorFlow is not installed.
        ExportError: The conversion failed.
    """
    converted = convert_anywhere(model)
    content, pairs = equalized(converted.content) if equalize else (converted.content, None)
    return FloatFile(content, converted.trace, weights_digest(model), pairs)


def convert_anywhere(model: Any, precision: FloatFormat = "float32") -> Converted:
    """Convert a model of any backend, in a process of its own where the backend is not TensorFlow.

    Args:
        model: As for ``float_file``.
        precision: As for ``convert``.

    Returns:
        The file, and the graph that it was made from.

    Raises:
        ModelError: The model cannot be exported.
        MissingExtraError: TensorFlow is not installed.
        ExportError: The conversion failed.
    """
    adapter = adapter_of(model)
    for each in adapter.inputs(model):
        static_shape(each)
    if not available("tensorflow"):
        raise MissingExtraError(
            "Expected the package 'tensorflow', whose converter writes .tflite files of any backend. Install it with: pip install \"keras-precision[tensorflow]\""
        )
    if adapter.compute.name == "tensorflow":
        return convert(model, precision)
    return _in_a_child(adapter, model, precision)


def weights_digest(model: Any) -> str:
    """Return what tells a model's weights, and its number of layers, from others.

    Args:
        model: A built model.

    Returns:
        A hash, as hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=16)
    for array in model.get_weights():
        values = np.ascontiguousarray(array)
        digest.update(f"{values.shape}{values.dtype}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


_CHILD = "import sys; from keras_precision.quantize.float_file import main; main(sys.argv[1])"
_CHILD_S = 1800.0


def _in_a_child(adapter: KerasAdapter, model: Any, precision: FloatFormat) -> Converted:
    """Hand a model of JAX or PyTorch to a process with the TensorFlow backend, through its ``.keras`` file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with captured("Keras"):
            model.save(folder / "model.keras")
        classes = {type(layer).__name__: type(layer) for layer in adapter.walk(model)}
        own = {key: value for key, value in classes.items() if not value.__module__.startswith("keras.")}
        write_private(folder / "job", cloudpickle.dumps({"precision": precision, "custom_objects": own}))
        _run(name, model.name)
        trace = Trace.from_json(json.loads((folder / "trace.json").read_text(encoding="utf-8")))
        return Converted((folder / "model.tflite").read_bytes(), trace)


def _run(folder: str, name: str) -> None:
    """Run the child to its end, on the model that lies in a folder."""
    # The accelerator is the parent's.
    variables = {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    outcome = run_python(["-c", _CHILD, folder], timeout_s=_CHILD_S, variables=variables)
    if outcome.code is None:
        raise ExportError(
            f"Expected the model '{name}' to be converted within {_CHILD_S:g} s. Received: no end of it. "
            "Save it, and export it from a process with KERAS_BACKEND=tensorflow."
        )
    if outcome.code != 0:
        last = (outcome.errors.strip().splitlines() or [f"exit code {outcome.code}"])[-1]
        raise ExportError(
            f"Expected the model '{name}' to be converted in a process with the TensorFlow backend. Received: {last}"
        )


def main(folder: str) -> None:
    """Convert the model that lies in a folder; called in a child with the TensorFlow backend.

    Args:
        folder: Holds ``model.keras`` and the job, and receives ``model.tflite`` and ``trace.json``.
    """
    place = Path(folder)
    job = cloudpickle.loads((place / "job").read_bytes())
    from keras_precision._adapters import adapter_for_file

    with captured("Keras"):
        keras = adapter_for_file().keras
        # Its own file, written a moment ago: a Lambda in it is the user's own, too.
        model = keras.models.load_model(
            place / "model.keras", compile=False, safe_mode=False, custom_objects=job["custom_objects"]
        )
    converted = convert(model, job["precision"])
    (place / "model.tflite").write_bytes(converted.content)
    (place / "trace.json").write_text(json.dumps(converted.trace.to_json()), encoding="utf-8")
