"""on_tensorflow: a function of a model, called where Keras computes with TensorFlow, whatever the model's backend."""

import os
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import cloudpickle

from keras_precision._adapters import KerasAdapter, adapter_for_file, adapter_of
from keras_precision.core.errors import ExportError, PrecisionError
from keras_precision.core.system.captured_output import captured
from keras_precision.core.system.child_process import run_python
from keras_precision.core.system.files import write_private

__all__ = ["call_in_process", "on_tensorflow"]

Value = TypeVar("Value")

_PROGRAM = "import sys; from keras_precision.quantization.tensorflow_process import main; main(sys.argv[1])"
_TIMEOUT_S = 1800.0


def on_tensorflow(function: Callable[..., Value], model: Any, *arguments: Any) -> Value:
    """Return ``function(model, *arguments)``, computed by TensorFlow.

    A model of JAX or PyTorch is handed to a process of its own through its ``.keras`` file. Names that
    Keras gives by default come from counters of the process: what depends on names must be an argument.

    Args:
        function: A function of a module. What it returns must be picklable.
        model: A built functional or sequential model.
        *arguments: More arguments.

    Returns:
        What the function returned.

    Raises:
        PrecisionError: The function raised it.
        ExportError: The model cannot be saved or loaded, or the process ended early.
    """
    if adapter_of(model).compute.name == "tensorflow":
        return function(model, *arguments)
    return call_in_process(function, model, *arguments)


def call_in_process(function: Callable[..., Value], model: Any, *arguments: Any) -> Value:
    """Call a function of a model as ``on_tensorflow`` does, in a process of its own whatever the backend."""
    with tempfile.TemporaryDirectory() as name:  # nobody but this user can look into it
        folder = Path(name)
        _save(adapter_of(model), model, folder, (function, arguments))
        _run(folder, model.name)
        outcome: Value | PrecisionError = pickle.loads((folder / "outcome").read_bytes())  # noqa: S301 - of that child
    if isinstance(outcome, PrecisionError):
        raise outcome
    return outcome


def _save(adapter: KerasAdapter, model: Any, folder: Path, call: tuple[Callable[..., Any], tuple[Any, ...]]) -> None:
    classes = {type(layer).__name__: type(layer) for layer in adapter.walk(model)}
    custom_objects = {name: kind for name, kind in classes.items() if not kind.__module__.startswith("keras.")}
    try:
        with captured("Keras"):
            model.save(folder / "model.keras")
        packed = cloudpickle.dumps((custom_objects, *call))
    except Exception as error:  # layers and functions of the user's own raise what they like; the cause is kept
        raise ExportError(
            f"Expected a model that can be saved: TensorFlow converts it in a process of its own. Received: '{model.name}', "
            f"of which saving failed ({type(error).__name__}: {' '.join(str(error).split())[:200]}). Give layers of your own a get_config() that "
            "returns the arguments of their __init__."
        ) from error
    write_private(folder / "call", packed)


def _run(folder: Path, name: str) -> None:
    # The accelerator is the parent's.
    variables = {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    outcome = run_python(["-c", _PROGRAM, os.fspath(folder)], timeout_s=_TIMEOUT_S, variables=variables)
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
    """Make the call that lies in a folder, and leave its outcome there; runs in the child."""
    place = Path(folder)
    custom_objects, function, arguments = pickle.loads((place / "call").read_bytes())  # noqa: S301 - of the parent
    with captured("Keras"):
        # Written by the parent a moment ago: a Lambda in it is the user's own, too.
        model = adapter_for_file().keras.models.load_model(
            place / "model.keras", compile=False, safe_mode=False, custom_objects=custom_objects
        )
    try:
        outcome = function(model, *arguments)
    except PrecisionError as error:
        outcome = error
    write_private(place / "outcome", pickle.dumps(outcome))
