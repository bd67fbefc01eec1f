"""The tables of a TensorFlow Lite file and of a calibration: what refers to nothing is seen before an interpreter is."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import FileFormatError
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

SAVED = Path(__file__).parents[1] / "golden" / "saved"


def table(kind: str, number: int, name: str, value: Any) -> Callable[[Any], None]:
    """Return what sets a field of one of the objects of the first graph."""
    return lambda model: setattr(getattr(model.subgraphs[0], kind)[number], name, value)


def signature(name: str, value: Any, *, of_input: bool = True) -> Callable[[Any], None]:
    """Return what sets a field of the signature, or of its first input."""
    return lambda model: setattr(model.signatureDefs[0].inputs[0] if of_input else model.signatureDefs[0], name, value)


BROKEN = {
    "a buffer of number 99": table("tensors", 0, "buffer", 99),
    "a tensor without a name or a dtype": table("tensors", 0, "name", None),
    "a kernel of number 9": table("operators", 0, "opcodeIndex", 9),
    "a tensor of number 77": table("operators", 0, "inputs", [77]),
    "a tensor of number -1": table("operators", 0, "outputs", [-1]),
    "a graph of number 3": signature("subgraphIndex", 3, of_input=False),
    "a tensor of number 88": signature("tensorIndex", 88),
    "a signature with a tensor that has no name": signature("name", None),
    r"a constant of shape \(9, 9\) and int32": table("tensors", 1, "shape", [9, 9]),
}


@pytest.mark.parametrize("message", BROKEN)
def test_tables_that_refer_to_nothing_are_named(message: str) -> None:
    """Each reference to what the file does not have; the sound file passes."""
    graph = Flatbuffer((SAVED / "int8.tflite").read_bytes())
    graph.check()
    BROKEN[message](graph._model)
    with pytest.raises(FileFormatError, match=f"Received: damaged ones .*{message}"):
        graph.check()


def test_tables_that_cannot_be_read_are_refused() -> None:
    """Whatever the schema's own reader raises for them."""
    with pytest.raises(FileFormatError, match="Expected the tables of a TensorFlow Lite file. Received: damaged ones"):
        Flatbuffer(b"\xff\xff\xff\x0fTFL3" + bytes(40))


def changed(header: Callable[[dict[str, Any]], object] = lambda header: None, **arrays: Any) -> bytes:
    """The saved calibration with another header, or other arrays."""
    with zipfile.ZipFile(SAVED / "calibration.npz") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    fields = json.loads(entries["header.json"])
    header(fields)
    packed, content = io.BytesIO(), io.BytesIO()
    with np.load(io.BytesIO(entries["arrays.npz"])) as saved:
        np.savez(packed, **{**saved, **arrays})
    with zipfile.ZipFile(content, "w") as archive:
        for name, value in (entries | {"header.json": json.dumps(fields), "arrays.npz": packed.getvalue()}).items():
            archive.writestr(name, value)
    return content.getvalue()


CALIBRATIONS: dict[str, Callable[[], bytes]] = {
    "a tensor 'other' that its model does not have": lambda: changed(lambda header: header["tensors"][0].__setitem__(0, "other")),
    "samples that are no numbers": lambda: changed(held_0=np.array(["a"])),
    r"the range \[nan, ": lambda: changed(lambda header: header["tensors"][0].__setitem__(1, float("nan"))),
    r"an array '0_bins' of shape \(2, 4\)": lambda: changed(**{"0_bins": np.zeros((2, 4), np.int64)}),
    "an array '0_channels' of shape": lambda: changed(**{"0_channels": np.full((3, 4), np.nan)}),
    "expected the field 'outputs' to be texts and nulls": lambda: changed(lambda header: header["trace"].update(outputs=[3])),
}  # fmt: skip


@pytest.mark.parametrize("message", CALIBRATIONS)
def test_calibrations_with_values_that_cannot_be_are_refused(message: str, tmp_path: Path) -> None:
    """With the name of the file; the sound calibration, packed in the same way, is read."""
    path = tmp_path / "calibration.npz"
    path.write_bytes(changed())
    assert kp.Calibration.load(path).samples == 32
    path.write_bytes(CALIBRATIONS[message]())
    with pytest.raises(FileFormatError, match=rf"calibration\.npz: expected .*{message}"):
        kp.Calibration.load(path)
