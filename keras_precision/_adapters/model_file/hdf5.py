"""Checks of an HDF5 file before any of it is read into memory."""

import math
from typing import Any

from keras_precision.core.errors import FileFormatError
from keras_precision.core.system.optional import require

__all__ = ["check_hdf5", "config_text"]

_CONFIG_BYTES = 64 << 20  # a model of 10,000 layers has 10 MB of JSON
_UNSTORED_BYTES = 64 << 20  # what a dataset may declare without storing it
_EXPANSION = 1100  # DEFLATE packs at most 1032 bytes into one: https://zlib.net/zlib_tech.html


def check_hdf5(opened: Any, name: str, size: int, memory: int) -> None:
    """Check all links, storage layouts and sizes in an HDF5 file of ``size`` bytes.

    Keras 3 checks the datasets that it reads (CVE-2026-0897, CVE-2026-1669); tf_keras checks none.
    """
    h5py = require("h5py", extra="tensorflow")
    hard, soft, open_object = h5py.h5l.TYPE_HARD, h5py.h5l.TYPE_SOFT, h5py.h5o.open
    file, dataset_type = opened.id, h5py.h5d.DatasetID
    declared = contiguous = 0

    # A result of the visitor ends the visit; h5py would discard an exception.
    def visit(path: bytes, link: Any) -> Exception | None:
        nonlocal declared, contiguous
        try:
            if link.type != hard:  # Keras 3 also rejects soft links, and writes none
                kind = "a soft link" if link.type == soft else "a link to another file"
                return _refusal(name, f"{kind}, '{path.decode(errors='replace')}'")
            item = open_object(file, path)
            if isinstance(item, dataset_type):
                count, stored = _dataset_bytes(h5py.h5d, item, path, name)
                declared, contiguous = declared + count, contiguous + stored
        except (FileFormatError, OSError, ValueError, RuntimeError, KeyError) as error:
            return error
        return None

    refusal = file.links.visit(visit, info=True)
    if refusal is not None:
        raise refusal
    if declared > memory or contiguous > size:
        raise _refusal(name, f"arrays of {declared:,} bytes in a file of {size:,} bytes")


def config_text(opened: Any, key: str, name: str) -> str | bytes | None:
    """Return an attribute of an HDF5 file that is JSON; None where there is none."""
    text = opened.attrs.get(key)  # no attribute can be longer than the file: HDF5 stores all in full
    if not isinstance(text, str | bytes):
        return None
    if len(text) > _CONFIG_BYTES:
        raise _refusal(name, f"a configuration of {len(text):,} bytes")
    return text


def _dataset_bytes(h5d: Any, dataset: Any, path: bytes, name: str) -> tuple[int, int]:
    """Return the bytes that a dataset declares, and those that it stores contiguously."""
    count = math.prod(dataset.shape) * dataset.get_type().get_size()
    stored = dataset.get_storage_size()
    if dataset.get_offset() is not None and count <= stored:
        return count, stored  # contiguous and in this file, as Keras writes all datasets
    created = dataset.get_create_plist()
    layout = created.get_layout()
    if layout == h5d.VIRTUAL or created.get_external_count():
        raise _refusal(name, f"the dataset '{path.decode(errors='replace')}', whose values are in another file")
    if count > max(stored * (_EXPANSION if layout == h5d.CHUNKED else 1), _UNSTORED_BYTES):
        label = path.decode(errors="replace")
        raise _refusal(name, f"the dataset '{label}', which declares {count:,} bytes and stores {stored:,}")
    return count, 0 if layout == h5d.CHUNKED else stored


def _refusal(name: str, what: str) -> FileFormatError:
    return FileFormatError(
        f"{name}: expected an HDF5 file that stores what it declares. Received: {what}. It is damaged or malicious: get it "
        "again from its author."
    )
