"""load_model: a saved model, by whichever Keras can read it."""

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_precision._adapters import KerasAdapter, adapter_for_file, legacy_adapter
from keras_precision.chatter import captured
from keras_precision.errors import FileFormatError, InputError
from keras_precision.files import check_exists
from keras_precision.optional import available, require

__all__ = ["SUFFIXES", "load_model"]

SUFFIXES = (".keras", ".h5", ".hdf5")

# What Keras and h5py raise for files that they cannot read, or that other versions wrote.
_REFUSALS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ImportError,
    NotImplementedError,
    OSError,
    RuntimeError,
    zipfile.BadZipFile,
)


def load_model(path: str | os.PathLike[str], *, unsafe: bool = False) -> Any:
    """Load a model file with Keras 3, or with tf_keras where Keras 3 cannot.

    Keras 3 does not read every file that Keras 2 wrote. A Lambda layer carries Python code, which
    loading would run: such a file is refused, whichever Keras would load it.

    Args:
        path: A ``.keras``, ``.h5`` or ``.hdf5`` file.
        unsafe: Whether code that the file carries may run. Only for files that you trust.

    Returns:
        The model, of Keras 3 or of tf_keras, not compiled.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: The path ends in something else.
        FileFormatError: No Keras can load it; the message has what each said.

    Example:
        >>> model.save("model.keras")
        >>> load_model("model.keras").name
        'small'
    """
    file = check_exists(path, "a model file")
    if file.suffix not in SUFFIXES:
        raise InputError(f"Expected the path of a {', '.join(SUFFIXES)} file. Received: '{file}'.")
    if file.suffix == ".keras" and not zipfile.is_zipfile(file):
        raise FileFormatError(f"{file}: expected a .keras file. Received: an empty, truncated or foreign file.")
    code = sorted(set(_with_code(_config(file))))
    if code and not unsafe:
        raise FileFormatError(
            f"{file}: expected a model without Python code inside. Received: code of {', '.join(map(repr, code))}, which "
            "loading would run. If you trust the file: unsafe=True, or --unsafe on the command line."
        )
    return _by_whichever(file, unsafe)


def _by_whichever(file: Path, unsafe: bool) -> Any:
    said = []
    with captured("Keras"):  # TensorFlow talks while it is imported
        adapters = list(_adapters())
    for adapter in adapters:
        try:
            with captured("Keras"):
                return adapter.load(str(file), unsafe=unsafe)
        except _REFUSALS as error:
            first = " ".join(str(error).split())[:300]
            said.append(f"{adapter.keras.__name__} {adapter.keras.__version__}: {type(error).__name__}: {first}")
    if not available("tf_keras"):
        said.append(
            'tf_keras, which reads what Keras 2 wrote, is not installed: pip install "keras-precision[tensorflow]"'
        )
    raise FileFormatError(
        f"{file}: expected a model that Keras loads. Received: {'; '.join(said)}. If it needs classes of your own, "
        "register them (@keras.saving.register_keras_serializable()) and import them first; if it holds weights alone, "
        "build the model and call model.load_weights; else load it with the Keras that wrote it, and save it as .keras."
    )


def _adapters() -> Iterator[KerasAdapter]:
    yield adapter_for_file()
    if available("tf_keras"):
        yield legacy_adapter()


def _config(file: Path) -> Any:
    """The configuration of the model as JSON holds it; None where there is none: Keras will say so."""
    try:
        if file.suffix == ".keras":
            with zipfile.ZipFile(file) as archive:
                return json.loads(archive.read("config.json"))
        with require("h5py", extra="tensorflow").File(file, "r") as opened:
            text = opened.attrs.get("model_config")
            return None if text is None else json.loads(text)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None


def _with_code(config: Any, name: str = "?") -> Iterator[str]:
    """The layers of a configuration that carry Python code."""
    if isinstance(config, list):
        for each in config:
            yield from _with_code(each, name)
    elif isinstance(config, dict):
        name = config.get("name", name) if isinstance(config.get("name"), str) else name
        marks = {config.get("class_name"), config.get("function_type"), config.get("output_shape_type")}
        if marks & {"__lambda__", "lambda"}:
            yield name
        for each in config.values():
            yield from _with_code(each, name)
