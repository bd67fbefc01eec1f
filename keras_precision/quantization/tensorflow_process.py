"""on_tensorflow: call a function of a model on the TensorFlow backend, in a child process for other backends."""

import os
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import cloudpickle

from keras_precision._adapters import adapter_for_file
from keras_precision._adapters.model_view import ModelView
from keras_precision.core.errors import ExportError, PrecisionError
from keras_precision.core.system.captured_output import capture_output
from keras_precision.core.system.files import write_private
from keras_precision.core.system.fork_server import ForkServer

__all__ = ["call_in_process", "on_tensorflow"]

Value = TypeVar("Value")

_TIMEOUT_S = 1800.0
_TENSORFLOW = ForkServer(
    ("tensorflow", __name__),
    {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"},  # this process uses the accelerator
)


def on_tensorflow(function: Callable[..., Value], view: ModelView, *arguments: Any) -> Value:
    """Return ``function(view, *arguments)``, computed by TensorFlow.

    A model of JAX or PyTorch is saved as a ``.keras`` file for a child process, to which the function and its
    result are pickled. Default names of Keras differ between processes, so names must be passed as arguments.
    Raises the function's PrecisionError, or ExportError where the model cannot be saved or the process fails.
    """
    if view.adapter.compute.name == "tensorflow":
        return function(view, *arguments)
    return call_in_process(function, view, *arguments)


def call_in_process(function: Callable[..., Value], view: ModelView, *arguments: Any) -> Value:
    """Call a function of a model as ``on_tensorflow`` does, in a child process for every backend."""
    with tempfile.TemporaryDirectory() as name:  # readable by this user alone
        folder = Path(name)
        _save(view, folder, (function, arguments))
        _run(folder, view.name)
        outcome: Value | PrecisionError = pickle.loads((folder / "outcome").read_bytes())  # noqa: S301 - of the child
    if isinstance(outcome, PrecisionError):
        raise outcome
    return outcome


def _save(view: ModelView, folder: Path, call: tuple[Callable[..., Any], tuple[Any, ...]]) -> None:
    classes = {type(layer).__name__: type(layer) for layer in view.adapter.walk(view.model)}
    custom_objects = {name: kind for name, kind in classes.items() if not kind.__module__.startswith("keras.")}
    try:
        with capture_output("Keras"):
            view.model.save(folder / "model.keras")
        packed = cloudpickle.dumps((custom_objects, *call))
    except Exception as error:  # custom layers raise errors of any class; it stays as the cause
        raise ExportError(
            f"Expected a model that can be saved, since a child process converts it with TensorFlow. Received: '{view.name}', "
            f"of which saving failed ({type(error).__name__}: {' '.join(str(error).split())[:200]}). Add a get_config() to "
            "custom layers that returns the arguments of their __init__."
        ) from error
    write_private(folder / "call", packed)


def _run(folder: Path, name: str) -> None:
    outcome = _TENSORFLOW.call(f"{__name__}:main", os.fspath(folder), _TIMEOUT_S)
    if outcome.code is None:
        raise ExportError(
            f"Expected the model '{name}' to be converted within {_TIMEOUT_S:g} s. Received: a conversion that takes longer. "
            "Save it, and export it from a process with KERAS_BACKEND=tensorflow."
        )
    if outcome.code != 0:
        last = (outcome.errors.strip().splitlines() or [f"exit code {outcome.code}"])[-1]
        raise ExportError(
            f"Expected the model '{name}' to be converted in a process with the TensorFlow backend. Received: {last}"
        )


def main(folder: str) -> None:
    """Run the call in a folder, and write its outcome there; the child process begins here."""
    directory = Path(folder)
    custom_objects, function, arguments = pickle.loads((directory / "call").read_bytes())  # noqa: S301 - of the parent
    with capture_output("Keras"):
        # safe_mode=False: the parent has just written the file, so a Lambda in it is the user's own code.
        model = adapter_for_file().keras.models.load_model(
            directory / "model.keras", compile=False, safe_mode=False, custom_objects=custom_objects
        )
    try:
        outcome = function(ModelView.of(model), *arguments)
    except PrecisionError as error:
        outcome = error
    write_private(directory / "outcome", pickle.dumps(outcome))
