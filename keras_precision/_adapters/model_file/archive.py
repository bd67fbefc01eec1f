"""Checks of a model file before Keras reads it, and its configuration."""

import contextlib
import functools
import io
import json
import mmap
import posixpath
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from keras_precision._adapters.model_file.config import ModelConfig
from keras_precision._adapters.model_file.hdf5 import check_hdf5, config_text
from keras_precision.core.errors import FileFormatError
from keras_precision.core.system.optional import require

__all__ = ["check_archive"]

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_CONFIG_BYTES = 64 << 20  # a model of 10,000 layers has 10 MB of JSON
_UNPACKED_BYTES = 64 << 20  # what an entry may declare, however little it stores
_COPIED_BYTES = 32 << 20  # up to this size, a copy is faster than many reads through Python
_DAMAGE = (OSError, KeyError, ValueError, RuntimeError, TypeError, OverflowError)  # what h5py raises for broken tables
_EXPANSION = 100  # Keras stores its entries as they are, and weights pack to a third at best


def check_archive(file: Path) -> ModelConfig:
    """Check the sizes and links in a model file, and return its configuration, empty where the file has none."""
    if not file.is_file():
        raise FileFormatError(f"{file}: expected a model file. Received: a folder. Save the model as .keras.")
    try:
        return _of_keras_file(file) if file.suffix == ".keras" else _of_hdf5_file(file)
    except RecursionError as error:
        raise FileFormatError(
            f"{file}: expected the configuration of a model. Received: one that is nested too deeply for any model."
        ) from error


def _of_keras_file(file: Path) -> ModelConfig:
    if not zipfile.is_zipfile(file):
        raise FileFormatError(f"{file}: expected a .keras file. Received: an empty, truncated or foreign file.")
    try:
        with open(file, "rb") as raw, zipfile.ZipFile(raw) as archive:
            _check_entries(archive, file)
            if _WEIGHTS in archive.NameToInfo:
                _check_weights(archive, raw, file)
            if _CONFIG not in archive.NameToInfo:
                return ModelConfig(None)
            config = json.loads(archive.read(_CONFIG))
    except RecursionError:
        raise
    except (*_DAMAGE, zipfile.BadZipFile, zlib.error, struct.error) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(
            f"{file}: expected a .keras file. Received: a damaged one ({error}). Save it again."
        ) from error
    if not isinstance(config, dict):
        return ModelConfig(config)
    # Only the compile_config of the model itself is optional; that of an inner model is always loaded.
    return ModelConfig({**config, "compile_config": None}, config.get("compile_config"))


def _of_hdf5_file(file: Path) -> ModelConfig:
    h5py = require("h5py", extra="tensorflow")
    try:
        opened = h5py.File(file, "r")
    except OSError:
        return ModelConfig(None)  # Keras opens it in the same way, and reports why it cannot
    try:
        with opened:
            check_hdf5(opened, str(file), file.stat().st_size, _memory())
            texts = [config_text(opened, key, str(file)) for key in ("model_config", "training_config")]
        return ModelConfig(*(None if text is None else json.loads(text) for text in texts))
    except RecursionError:
        raise
    except _DAMAGE as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(
            f"{file}: expected a model file. Received: a damaged one ({error}). Save it again."
        ) from error


def _check_entries(archive: zipfile.ZipFile, file: Path) -> None:
    entries = archive.infolist()
    names = [posixpath.normpath(entry.filename) for entry in entries]
    repeated = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if repeated is not None:  # other readers would take the other one
        raise _refusal(file, f"two entries '{repeated}'")
    for entry in entries:
        _check_entry(entry, file)
    stored, declared = sum(entry.compress_size for entry in entries), sum(entry.file_size for entry in entries)
    if stored > file.stat().st_size or declared > _memory():
        raise _refusal(file, f"entries of {declared:,} bytes in a file of {file.stat().st_size:,} bytes")


def _check_entry(entry: zipfile.ZipInfo, file: Path) -> None:
    """Check path and size of an entry (CVE-2025-12060, CVE-2026-0897)."""
    name = entry.filename
    parts = re.split(r"[/\\]", name)
    if name != entry.orig_filename or ".." in parts or name[:1] in ("/", "\\") or re.match(r"[A-Za-z]:", name):
        raise _refusal(file, f"the entry {entry.orig_filename!r}, which leads out of its folder")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise _refusal(file, f"the entry '{name}', a symbolic link")
    if name.endswith(".npz"):  # Keras writes .h5; arrays in it would need checks of their own
        raise _refusal(file, f"the entry '{name}', which Keras does not write")
    is_text = name in (_CONFIG, "metadata.json")
    largest = _CONFIG_BYTES if is_text else max(_UNPACKED_BYTES, _EXPANSION * entry.compress_size)
    if entry.file_size > largest:
        raise _refusal(
            file, f"the entry '{name}', which declares {entry.file_size:,} bytes and stores {entry.compress_size:,}"
        )


def _check_weights(archive: zipfile.ZipFile, raw: BinaryIO, file: Path) -> None:
    entry = archive.getinfo(_WEIGHTS)
    h5py = require("h5py", extra="tensorflow")
    with _opened(archive, raw, entry) as content, h5py.File(content, "r") as opened:
        check_hdf5(opened, f"{file}: {_WEIGHTS}", entry.file_size, _memory())


@contextlib.contextmanager
def _opened(archive: zipfile.ZipFile, raw: BinaryIO, entry: zipfile.ZipInfo) -> Iterator[Any]:
    """Open an entry for random access: in place where it is stored uncompressed, else unpacked."""
    if entry.compress_type != zipfile.ZIP_STORED:
        yield io.BytesIO(archive.read(entry))
        return
    raw.seek(entry.header_offset + 26)
    name, extra = struct.unpack("<HH", raw.read(4))  # the header in front of the content, 4.3.7 of APPNOTE.TXT
    start = entry.header_offset + 30 + name + extra
    with mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as content:
        size = min(entry.file_size, len(content) - start)
        yield io.BytesIO(content[start : start + size]) if size < _COPIED_BYTES else _Window(content, start, size)


class _Window(io.RawIOBase):
    """A part of a file as a file; ``ZipExtFile.seek`` would read all data before the new position."""

    def __init__(self, content: mmap.mmap, start: int, size: int) -> None:
        super().__init__()
        self._content, self._start, self._size, self._at = content, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._size - self._at))
        begin = self._start + self._at
        buffer[:count] = self._content[begin : begin + count]
        self._at += count
        return count


@functools.cache
def _memory() -> int:
    return int(psutil.virtual_memory().total)


def _refusal(file: Path, what: str) -> FileFormatError:
    return FileFormatError(
        f"{file}: expected a .keras file as Keras writes it. Received: {what}. It is damaged or malicious: get it again from "
        "its author."
    )
