"""Files of NumPy: read as NumPy does, and refused with one kind of error."""

import io
import zipfile
from typing import Any

import numpy as np
import pytest

from keras_precision.core.system.array_files import read_arrays

ARRAYS: dict[str, Any] = {
    "table": np.arange(6.0).reshape(2, 3),
    "columns": np.asfortranarray(np.arange(6, dtype=np.int8).reshape(2, 3)),
    "number": np.float32(1.5),
    "empty": np.zeros((0, 3)),
    "texts": np.array(["a", "bc"]),
}


def packed(**arrays: Any) -> bytes:
    """The content of an .npz file."""
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def single(array: Any, **options: Any) -> bytes:
    """The content of an .npy file."""
    content = io.BytesIO()
    np.save(content, array, **options)
    return content.getvalue()


def with_entry(name: str, content: bytes) -> bytes:
    """A zip file of one entry."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr(name, content)
    return archive.getvalue()


def test_arrays_are_those_that_were_saved() -> None:
    """All of them, or those that are asked for; an .npy file has one, x."""
    arrays, names = read_arrays(packed(**ARRAYS))
    assert names == list(arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == np.asarray(array).dtype
        assert arrays[name].flags.writeable
    assert list(read_arrays(packed(**ARRAYS), ["texts", "absent"])[0]) == ["texts"]
    assert read_arrays(single(np.ones(3)))[0]["x"].tolist() == [1.0, 1.0, 1.0]


SOUND = single(np.ones(3))
DAMAGED = {
    "nothing": b"",
    "another file": b"PK nothing",
    "an archive cut off": packed(x=np.ones(100))[:-30],
    "an array cut off": SOUND[:-1],
    "more than the array": SOUND + b"0",
    "a shape that the file does not fill": SOUND.replace(b"(3,)", b"(3000000000000,)".ljust(4)),
    "a negative shape": SOUND.replace(b"(3,)", b"(-3)"),
    "a header that ends in its midst": SOUND.replace(b"'shape'", b"'''sha'"),
    "an entry that is no array": with_entry("figures.npy", b"{}"),
    "a later format": SOUND[:6] + b"\x03" + SOUND[7:],
    "pickled objects": single(np.array([{}, []], object), allow_pickle=True),
    "a wrong checksum": with_entry("x.npy", SOUND).replace(np.ones(3).tobytes(), np.zeros(3).tobytes()),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_files_raise_one_error(kind: str) -> None:
    """Nothing is allocated that a file only declares, and no error of zip files or of the tokenizer gets out."""
    with pytest.raises(ValueError, match=r".+"):
        read_arrays(DAMAGED[kind])
