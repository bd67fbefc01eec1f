"""The JSON files of this package: their format and version, and the errors for invalid ones."""

import json
import math
import os
from collections.abc import Mapping
from typing import Any

from keras_precision.core.errors import FileFormatError

__all__ = [
    "Fields",
    "decode_number",
    "document",
    "document_fields",
    "dump_json",
    "encode_number",
    "parse_document",
    "parse_json",
]

# JSON has no such numbers, and a run that diverged has many.
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class Fields:
    """The fields of one JSON object of ``source``, read with messages that name that file and the field."""

    def __init__(self, values: object, source: str) -> None:
        if not isinstance(values, Mapping):
            raise FileFormatError(f"{source}: expected a JSON object. Received: {_shown(values)}.")
        self.values = values
        self.source = source

    def get(self, name: str, kind: type | tuple[type, ...], default: Any = ...) -> Any:
        """Return the field ``name`` of a Python type, or of one of several; without a default, it is required."""
        value = self.values.get(name, default)
        kinds = kind if isinstance(kind, tuple) else (kind,)
        expected = " or ".join(_JSON_NAMES[k] for k in kinds)
        if value is ...:
            raise FileFormatError(f"{self.source}: expected the field '{name}' ({expected}). Received: no such field.")
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise FileFormatError(
                f"{self.source}: expected the field '{name}' to be {expected}. Received: {_shown(value)}."
            )
        return value

    def texts(self, name: str, default: Any = ...) -> dict[str, str]:
        """Return the field ``name``, an object whose values are all text."""
        values = self.get(name, dict, default)
        for key, value in values.items():
            if not isinstance(value, str):
                raise FileFormatError(
                    f"{self.source}: expected the field '{name}.{key}' to be text. Received: {_shown(value)}."
                )
        return dict(values)

    def text_list(self, name: str) -> tuple[str, ...]:
        """Return the field ``name``, a list whose items are all text."""
        values = self.get(name, list)
        for index, value in enumerate(values):
            if not isinstance(value, str):
                raise FileFormatError(
                    f"{self.source}: expected the field '{name}[{index}]' to be text. Received: {_shown(value)}."
                )
        return tuple(values)

    def refuse_others(self, *known: str) -> None:
        """Raise for any field that is not named in ``known``."""
        for name in self.values:
            if name not in known:
                raise FileFormatError(
                    f"{self.source}: expected only the fields {', '.join(known)}. Received: the field '{name}'. "
                    "Was it written by a newer version of keras_precision, or by hand?"
                )


_JSON_NAMES: dict[type, str] = {
    str: "text",
    dict: "an object",
    list: "a list",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def document(format_name: str, version: int, fields: Mapping[str, Any]) -> bytes:
    """Return a JSON document, in UTF-8, whose first fields are its format and version."""
    return dump_json({"format": format_name, "version": version, **fields})


def parse_document(content: bytes, path: str | os.PathLike[str], format_name: str, version: int) -> Fields:
    """Return the fields of a JSON document of a format, in at most that version; messages name ``path``."""
    return document_fields(parse_json(content, path, format_name), str(path), format_name, version)


def document_fields(values: object, source: str, format_name: str, version: int) -> Fields:
    """Return the fields of an object of a format, in at most that version; messages name ``source``."""
    fields = Fields(values, source)
    actual_format, actual_version = fields.get("format", str), fields.get("version", int)
    if actual_format != format_name:
        raise FileFormatError(
            f"{source}: expected the field 'format' to be '{format_name}'. Received: '{actual_format}'."
        )
    if not 1 <= actual_version <= version:
        raise FileFormatError(
            f"{source}: expected the field 'version' to be between 1 and {version}. Received: {actual_version}. A newer keras_precision may read it."
        )
    return fields


def dump_json(values: object) -> bytes:
    """Return JSON, in UTF-8, as the files of this package have it."""
    return (json.dumps(values, indent=1, allow_nan=False) + "\n").encode()


def parse_json(content: bytes, path: str | os.PathLike[str], format_name: str) -> Any:
    """Return the values of JSON; messages name ``path`` and the format that it should have."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or a number or nesting that is too large
        raise FileFormatError(
            f"{path}: expected a JSON file of format '{format_name}'. Received: no valid JSON ({error}). Is it damaged or cut off?"
        ) from error


def encode_number(value: float | int | str | None) -> float | int | str | dict[str, str] | None:
    """Return ``value`` as a JSON value: numbers that are not finite become ``{"float": "nan"}`` and the like.

    Example:
        >>> encode_number(float("inf"))
        {'float': 'inf'}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value


def decode_number(value: Any, source: str) -> float | int | str | None:
    """Return the value that ``encode_number`` encoded; messages name ``source``."""
    if isinstance(value, dict) and value.get("float") in _NOT_FINITE:
        return _NOT_FINITE[value["float"]]
    if value is None or (isinstance(value, int | float | str) and not isinstance(value, bool)):
        return value
    raise FileFormatError(f"{source}: expected a number, a text or null. Received: {_shown(value)}.")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
