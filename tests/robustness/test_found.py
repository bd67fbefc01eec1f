"""What bulk runs and coverage-guided runs have found, alone and small."""

import json
import struct
from pathlib import Path

import pytest

import keras_precision as kp
from keras_precision.core.errors import FileFormatError
from keras_precision.runtimes.tflite.metadata import metadata

SAVED = Path(__file__).parents[1] / "golden" / "saved"


def test_a_text_as_the_metric_of_a_comparison_is_refused(tmp_path: Path) -> None:
    """Whose margin was a share of it."""
    document = json.loads((SAVED / "comparison.json").read_text())
    document["metric"] = document["metric"] or "accuracy"
    document["results"][0]["measurements"].append(["fit", document["metric"], "float32", None])
    (tmp_path / "comparison.json").write_text(json.dumps(document))
    with pytest.raises(FileFormatError, match=r"expected numbers as values of '.*'\. Received: 'float32'"):
        kp.Comparison.load(tmp_path / "comparison.json")


def test_a_vector_of_billions_of_tables_takes_no_memory() -> None:
    """A file that says so is not believed."""
    model = bytearray(64)
    struct.pack_into("<I", model, 0, 24)  # the place of the model, whose fields are 20 bytes before it
    struct.pack_into("<i", model, 24, 20)
    struct.pack_into("<HH", model, 4, 18, 8)
    struct.pack_into("<H", model, 4 + 4 + 2 * 4, 4)  # its buffers are a vector
    struct.pack_into("<I", model, 28, 8)
    struct.pack_into("<I", model, 36, 2**32 - 1)
    with pytest.raises(struct.error, match="a vector of 4294967295 tables in a file of 64 bytes"):
        metadata(bytes(model))
