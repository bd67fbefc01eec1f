"""load_model: a saved model, by whichever Keras can read it, and only after it was checked."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_precision._adapters import KerasAdapter, adapter_for_file, legacy_adapter
from keras_precision._adapters.model_file.archive import check_archive
from keras_precision._adapters.model_file.config import Finding
from keras_precision._adapters.model_file.keras_objects import KerasObjects
from keras_precision.core.errors import FileFormatError, InputError
from keras_precision.core.system.captured_output import captured
from keras_precision.core.system.files import check_exists
from keras_precision.core.system.optional import available

__all__ = ["SUFFIXES", "load_compiled_model", "load_model"]

SUFFIXES = (".keras", ".h5", ".hdf5")
_NAMED = 5  # at most so many findings are in a message


def load_model(
    path: str | os.PathLike[str], *, unsafe: bool = False, custom_objects: Mapping[str, Any] | None = None
) -> Any:
    """Load a model file with Keras 3, or with tf_keras where Keras 3 cannot.

    Keras 3 does not read every file that Keras 2 wrote. Before either gets a file, it is checked: nothing in it may
    name code but the classes and tensor functions of Keras and what you registered or pass here; sizes that it
    declares must be those that it holds; and nothing may lead out of it. Damaged and oversized files are refused with
    ``unsafe=True``, too.

    Args:
        path: A ``.keras``, ``.h5`` or ``.hdf5`` file.
        unsafe: Whether code that the file carries or names may run. Only for files that you trust.
        custom_objects: Classes and functions of your own that the file names: name to object, as in Keras.

    Returns:
        The model, of Keras 3 or of tf_keras, not compiled.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: The path ends in something else.
        FileFormatError: No Keras can load it, and the message has what each said; or it would run code.

    Example:
        >>> model.save("model.keras")
        >>> load_model("model.keras").name
        'small'
    """
    return _load(path, unsafe=unsafe, custom_objects=custom_objects or {}, compiled=False)


def load_compiled_model(path: str | os.PathLike[str]) -> Any:
    """Load a model file as ``load_model`` does, with what the model was compiled with.

    Args:
        path: A ``.keras``, ``.h5`` or ``.hdf5`` file.

    Returns:
        The model, compiled where it was when it was saved.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: The path ends in something else.
        FileFormatError: As for ``load_model``.
    """
    return _load(path, unsafe=False, custom_objects={}, compiled=True)


def _load(path: str | os.PathLike[str], *, unsafe: bool, custom_objects: Mapping[str, Any], compiled: bool) -> Any:
    """Check a file, then load it with the first Keras that can and may."""
    file = check_exists(path, "a model file")
    if file.suffix not in SUFFIXES:
        raise InputError(f"Expected the path of a {', '.join(SUFFIXES)} file. Received: '{file}'.")
    config = check_archive(file)
    with captured("Keras"):  # TensorFlow talks while it is imported
        adapters = list(_adapters())
    refusals: list[str] = []
    running: list[Finding] = []
    cause: Exception | None = None
    for adapter in adapters:
        label = f"{adapter.keras.__name__} {adapter.keras.__version__}"
        objects = KerasObjects(adapter.keras, custom_objects)
        findings = [] if unsafe else config.findings(objects, compiled=compiled)
        if findings:  # this Keras must not look for them: tf_keras imports whatever module a file names
            running += [finding for finding in findings if finding.kind != "unknown" and finding not in running]
            refusals.append(f"{label} does not know {_listed(findings)}")
            continue
        try:
            with captured("Keras"):
                return adapter.load(str(file), unsafe=unsafe, custom_objects=custom_objects, compiled=compiled)
        except Exception as error:  # noqa: BLE001 - layers may raise anything, and the other Keras is still to be asked
            refusals.append(f"{label}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
            cause = error
    if running and cause is None:
        raise _unsafe_file(file, running)
    raise _unloadable(file, refusals) from cause


def _adapters() -> Iterator[KerasAdapter]:
    yield adapter_for_file()
    if available("tf_keras"):
        yield legacy_adapter()


def _listed(findings: Sequence[Finding]) -> str:
    named = [finding.what for finding in findings[:_NAMED]]
    return ", ".join([*named, f"and {len(findings) - _NAMED} more"] if len(findings) > _NAMED else named)


def _unsafe_file(file: Path, findings: Sequence[Finding]) -> FileFormatError:
    return FileFormatError(
        f"{file}: expected a model without Python code inside. Received: {_listed(findings)}, which loading would run. "
        "If you trust the file: unsafe=True, or --unsafe on the command line. If these are classes or functions of your "
        "own: register them (@keras.saving.register_keras_serializable()) and import them first, or pass custom_objects."
    )


def _unloadable(file: Path, refusals: Sequence[str]) -> FileFormatError:
    missing = (
        []
        if available("tf_keras")
        else ['tf_keras, which reads what Keras 2 wrote, is not installed: pip install "keras-precision[tensorflow]"']
    )
    return FileFormatError(
        f"{file}: expected a model that Keras loads. Received: {'; '.join([*refusals, *missing])}. If it needs classes of "
        "your own, register them (@keras.saving.register_keras_serializable()) and import them first, or pass "
        "custom_objects (or, if you trust the file: unsafe=True, --unsafe on the command line); if it holds weights alone, build the model and call model.load_weights; else load it "
        "with the Keras that wrote it, and save it as .keras."
    )
