"""SavedValue: a value with one file, to which it is saved and from which it is loaded."""

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

from keras_precision.core.system.files import check_exists, write_atomic
from keras_precision.core.system.json_documents import Fields, document_fields, dump_json, parse_json

__all__ = ["JsonValue", "SavedValue"]


class SavedValue(ABC):
    """A value that is saved as one file, whose format and version the file says first."""

    _format: ClassVar[str]
    _version: ClassVar[int]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the value to a file, whole or not at all.

        Args:
            path: The file; its folder must exist.

        Returns:
            The path.

        Raises:
            DestinationError: The path cannot be written.
        """
        return write_atomic(path, self.to_bytes())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a value that ``save`` wrote.

        Args:
            path: The file. Where a result has none, its log ``PATH.partial`` is read.

        Returns:
            The value.

        Raises:
            FileFormatError: The file is of another kind, is damaged, or has fields that this version does not know.
            FileNotFoundError: There is no such file.
        """
        file = cls._file_at(path)
        return cls.from_bytes(file.read_bytes(), file)

    @classmethod
    def _file_at(cls, path: str | os.PathLike[str]) -> Path:
        """Return the file to read."""
        return check_exists(path, f"a saved {cls.__name__}")

    @abstractmethod
    def to_bytes(self) -> bytes:
        """Return the content of the file that ``save`` writes."""

    @classmethod
    @abstractmethod
    def from_bytes(cls, content: bytes, path: str | os.PathLike[str]) -> Self:
        """Return the value with the content of a file; messages name its path.

        Args:
            content: What ``to_bytes`` returned.
            path: The file that it was read from.

        Returns:
            The value.

        Raises:
            FileFormatError: It is of another kind, is damaged, or has fields that this version does not know.
        """


class JsonValue(SavedValue):
    """A value that is saved as a JSON document."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return the fields of the value as JSON values."""

    @classmethod
    @abstractmethod
    def from_json(cls, fields: Fields) -> Self:
        """Return the value whose ``to_json`` returned these fields."""

    def to_document(self) -> dict[str, Any]:
        """Return the fields of the value, after its format and version.

        Returns:
            JSON values.
        """
        return {"format": self._format, "version": self._version, **self.to_json()}

    @classmethod
    def from_document(cls, document: object, source: str) -> Self:
        """Return the value whose ``to_document`` returned this object; messages name its source."""
        return cls.from_json(document_fields(document, source, cls._format, cls._version))

    def to_bytes(self) -> bytes:
        """Return the content of the file that ``save`` writes.

        Returns:
            JSON, as UTF-8.
        """
        return dump_json(self.to_document())

    @classmethod
    def from_bytes(cls, content: bytes, path: str | os.PathLike[str]) -> Self:
        """Return the value with the content of a file; messages name its path.

        Args:
            content: JSON.
            path: The file that it was read from.

        Returns:
            The value.

        Raises:
            FileFormatError: It is of another kind, is damaged, or has fields that this version does not know.
        """
        return cls.from_document(parse_json(content, path, cls._format), str(path))
