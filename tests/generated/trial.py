"""Trial: one model in a process, the calls of the package for it, and what came of them."""

import functools
import inspect
import keyword
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import keras_precision as kp
from generated.builder import Subject, build, names_of
from generated.description import Description

__all__ = ["Call", "Refused", "Skipped", "Trial", "Violation", "file_names"]

Array = np.ndarray[Any, np.dtype[Any]]


class Violation(Exception):  # noqa: N818 - it names what happened
    """An invariant that does not hold."""


class Refused(Exception):  # noqa: N818 - the same
    """A call that raised; whether it may is an invariant of its own."""


class Skipped(Exception):  # noqa: N818 - the same
    """An invariant that says nothing about this model."""


@dataclass(frozen=True)
class Call:
    """A call of the package that raised: its name, its arguments' names, and the error."""

    function: str
    arguments: tuple[str, ...]
    error: Exception


@dataclass
class Trial:
    """A model under test.

    Attributes:
        keras: The Keras under test.
        stack: Its name, as in ``tests/conftest.py``.
        description: What the model is built from.
        folder: For files.
        announce: Told what runs next, where that may end the process.
        failures: The calls that raised.
    """

    keras: Any
    stack: str
    description: Description
    folder: Path
    announce: Callable[[str], None]
    failures: list[Call] = field(default_factory=list)

    @functools.cached_property
    def subject(self) -> Subject:
        """The model, with its samples."""
        return build(self.keras, self.description)

    @property
    def model(self) -> Any:
        """The model."""
        return self.subject.model

    @functools.cached_property
    def is_mixed(self) -> bool:
        """Whether a layer computes in another precision than float32."""
        return any("dtype" in node.get("options", {}) for node in self.description["nodes"])

    @functools.cached_property
    def exact(self) -> Any:
        """The same model in float32."""
        if not self.is_mixed:
            return self.model
        plain: Any = {**self.description, "nodes": [_in_float32(node) for node in self.description["nodes"]]}
        names = [value.name for value in self.model.inputs]
        plain["inputs"] = [{**entry, "name": name} for entry, name in zip(plain["inputs"], names, strict=True)]
        return build(self.keras, plain).model

    @functools.cached_property
    def expected(self) -> list[Array]:
        """The outputs of the float32 model for the samples."""
        outputs = Subject.predict(self._exact_subject, self.subject.samples)
        if not all(np.isfinite(output).all() for output in outputs):
            raise Skipped("outputs that are not finite")
        return outputs

    @property
    def _exact_subject(self) -> Subject:
        subject = self.subject
        return Subject(subject.keras, self.exact, subject.calibration, subject.samples, subject.names)

    @functools.cached_property
    def by_name(self) -> dict[str, Array]:
        """The samples by the name of the model's input."""
        return dict(zip(self.subject.names, self.subject.samples, strict=True))

    @functools.cached_property
    def file_inputs(self) -> dict[str, Array]:
        """The samples by the name of a file's input."""
        return dict(zip(file_names(self.model), self.subject.samples, strict=True))

    @property
    def packed_calibration(self) -> Any:
        """The samples for calibration, as the package takes them."""
        arrays = self.subject.calibration
        return tuple(arrays) if len(arrays) > 1 else arrays[0]

    @functools.cached_property
    def calibration(self) -> Any:
        """The calibration that all files share."""
        return self.call(kp.calibrate, self.model, self.packed_calibration)

    @functools.cached_property
    def _files(self) -> dict[Any, Path | Refused]:
        return {}

    def tflite(self, plan: str, **options: Any) -> Path:
        """Return the ``.tflite`` file of a plan, exported once."""
        data = () if plan in ("float32", "float16") else (self.calibration,)
        return self.file(kp.export_tflite, ".tflite", plan, *data, **options)

    def file(self, export: Callable[..., Any], suffix: str, plan: Any, *data: Any, **options: Any) -> Path:
        """Return the file that a function exports, once per plan and options."""
        key = (export.__name__, str(plan), tuple(sorted(options.items())))
        if key not in self._files:
            path = self.folder / f"{len(self._files)}{suffix}"
            try:
                self.call(export, self.model, path, plan, *data, **options)
                self._files[key] = path
            except Refused as refused:
                self._files[key] = refused
        file = self._files[key]
        if isinstance(file, Refused):
            raise file
        return file

    def call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call a function of the package; raise ``Refused`` where it raised."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return function(*arguments, **options)
        except Exception as error:
            names = tuple(inspect.signature(function).parameters)
            self.failures.append(Call(function.__name__, names, error))
            raise Refused(f"{function.__name__}: {type(error).__name__}: {error}") from error


def _in_float32(node: Any) -> Any:
    options = {name: value for name, value in node.get("options", {}).items() if name != "dtype"}
    return {**node, "options": options}


def file_names(model: Any) -> list[str]:
    """Return the names of a model's inputs in files: letters, digits and underscores, none taken, and more apart than in case."""
    names: list[str] = []
    for name in names_of(model):
        plain = re.sub(r"\W", "_", name, flags=re.ASCII)
        if keyword.iskeyword(plain) or re.fullmatch(r"self|output_\d+|[^A-Za-z].*", plain):
            plain = f"input_{plain}"
        alike = sum(re.fullmatch(rf"{plain}(_\d+)?", other, flags=re.IGNORECASE) is not None for other in names)
        names.append(f"{plain}_{alike}" if alike else plain)
    return names
