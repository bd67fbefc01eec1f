"""load_model: a saved model, loaded by Keras 3 or tf_keras after it was checked."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_precision._adapters import KerasAdapter, adapter_for_file, legacy_adapter
from keras_precision._adapters.model_file.archive import check_archive
from keras_precision._adapters.model_file.config import ConfigIssue
from keras_precision._adapters.model_file.keras_objects import KerasObjects
from keras_precision.core.errors import FileFormatError, InputError
from keras_precision.core.system.captured_output import capture_output
from keras_precision.core.system.files import check_exists
from keras_precision.core.system.optional import available

__all__ = ["SUFFIXES", "load_compiled_model", "load_model"]

SUFFIXES = (".keras", ".h5", ".hdf5")
_MAX_LISTED = 5  # issues in a message


def load_model(
    path: str | os.PathLike[str], *, unsafe: bool = False, custom_objects: Mapping[str, Any] | None = None
) -> Any:
    """Load a model file with Keras 3, or with tf_keras where Keras 3 cannot.

    Keras 3 does not read all files of Keras 2. Before either loads a file, it is checked: it may refer only to
    classes and tensor functions of Keras, and to what you registered or pass here; it must store the sizes that it
    declares; and nothing may refer to other files. Damaged and oversized files are also refused with
    ``unsafe=True``.

    Args:
        path: A ``.keras``, ``.h5`` or ``.hdf5`` file.
        unsafe: Whether code in the file, or that it refers to, may run. Only for files that you trust.
        custom_objects: Your own classes and functions in the file: name to object, as in Keras.

    Returns:
        The model, of Keras 3 or of tf_keras, not compiled.

    Raises:
        FileNotFoundError: The file does not exist.
        InputError: The path has another suffix.
        FileFormatError: Neither Keras 3 nor tf_keras can load it (the message has both errors), or it would run code.

    Example:
        >>> model.save("model.keras")
        >>> load_model("model.keras").name
        'small'
    """
    return _load(path, unsafe=unsafe, custom_objects=custom_objects or {}, compiled=False)


def load_compiled_model(path: str | os.PathLike[str]) -> Any:
    """Load a model file as ``load_model`` does, and compile it where it was compiled when it was saved."""
    return _load(path, unsafe=False, custom_objects={}, compiled=True)


def _load(path: str | os.PathLike[str], *, unsafe: bool, custom_objects: Mapping[str, Any], compiled: bool) -> Any:
    """Check a file, then load it with Keras 3 or, where that fails, with tf_keras."""
    file = check_exists(path, "a model file")
    if file.suffix not in SUFFIXES:
        raise InputError(
            f"Expected the path of a {', '.join(SUFFIXES)} file. Received: '{file}'. Save the model as .keras."
        )
    config = check_archive(file)
    with capture_output("Keras"):  # TensorFlow prints while it is imported
        adapters = list(_adapters())
    refusals: list[str] = []
    running: list[ConfigIssue] = []
    cause: Exception | None = None
    for adapter in adapters:
        label = f"{adapter.keras.__name__} {adapter.keras.__version__}"
        objects = KerasObjects(adapter.keras, custom_objects)
        issues = [] if unsafe else config.findings(objects, compiled=compiled)
        if issues:  # they must not be looked up: tf_keras imports any module that a file names
            running += [issue for issue in issues if issue.kind != "unknown" and issue not in running]
            refusals.append(f"{label} does not know {_listed(issues)}")
            continue
        try:
            with capture_output("Keras"):
                return adapter.load(str(file), unsafe=unsafe, custom_objects=custom_objects, compiled=compiled)
        except Exception as error:  # noqa: BLE001 - layers may raise anything, and tf_keras is still to be tried
            refusals.append(f"{label}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
            cause = error
    if running and cause is None:
        raise _unsafe_file(file, running)
    raise _unloadable(file, refusals) from cause


def _adapters() -> Iterator[KerasAdapter]:
    yield adapter_for_file()
    if available("tf_keras"):
        yield legacy_adapter()


def _listed(issues: Sequence[ConfigIssue]) -> str:
    listed = [issue.what for issue in issues[:_MAX_LISTED]]
    return ", ".join([*listed, f"and {len(issues) - _MAX_LISTED} more"] if len(issues) > _MAX_LISTED else listed)


def _unsafe_file(file: Path, issues: Sequence[ConfigIssue]) -> FileFormatError:
    return FileFormatError(
        f"{file}: expected a model without Python code inside. Received: {_listed(issues)}, which loading would run. "
        "If you trust the file: unsafe=True, or --unsafe on the command line. If these are your own classes or "
        "functions: register them (@keras.saving.register_keras_serializable()) and import them first, or pass custom_objects."
    )


def _unloadable(file: Path, refusals: Sequence[str]) -> FileFormatError:
    missing = (
        []
        if available("tf_keras")
        else ['tf_keras, which reads what Keras 2 wrote, is not installed: pip install "keras-precision[tensorflow]"']
    )
    return FileFormatError(
        f"{file}: expected a model that Keras can load. Received: {'; '.join([*refusals, *missing])}. If it needs your "
        "own classes, register them (@keras.saving.register_keras_serializable()) and import them first, or pass "
        "custom_objects (or, if you trust the file: unsafe=True, --unsafe on the command line); if it has only weights, build the model and call model.load_weights; else load it "
        "with the Keras that wrote it, and save it as .keras."
    )
