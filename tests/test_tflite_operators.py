"""The number format of an operator, from the types that it reads and writes."""

import pytest

from keras_precision.runtimes.tflite.operators import precision_of

CASES = {
    "float": ("CONV_2D", {"float32"}, {"float32"}, ["float32"], "float32"),
    "without weights": ("ADD", {"float32"}, {"float32"}, [], "float32"),
    "float16 weights": ("CONV_2D", {"float32"}, {"float32"}, ["float16", "float32"], "float16"),
    "float16 throughout": ("ADD", {"float16"}, {"float16"}, [], "float16"),
    "integer": ("CONV_2D", {"int8"}, {"int8", "int32"}, ["int8"], "int8"),
    "unsigned": ("CONV_2D", {"uint8"}, {"uint8"}, ["uint8"], "int8"),
    "wide activations": ("CONV_2D", {"int16"}, {"int16", "int64"}, ["int8"], "int16x8"),
    "weights alone": ("FULLY_CONNECTED", {"float32"}, {"float32"}, ["int8"], "int8_dynamic"),
    "cast in": ("QUANTIZE", {"int8"}, {"float32"}, [], "cast"),
    "cast out": ("DEQUANTIZE", {"float32"}, {"int8"}, [], "cast"),
    "shape": ("SHAPE", {"int32"}, {"int32"}, [], "index"),
    "float comparison": ("GREATER", {"bool"}, {"float32"}, [], "float32"),
    "integer position": ("ARG_MAX", {"int32"}, {"int8", "int32"}, [], "int8"),
    "loop": ("WHILE", {"float32"}, {"float32"}, [], "opaque"),
}


@pytest.mark.parametrize(("kernel", "written", "read", "weights", "expected"), CASES.values(), ids=CASES)
def test_precision_is_told_from_types(kernel, written, read, weights, expected):
    """Each combination of types has one name, that of deployment plans where it computes."""
    assert precision_of(kernel, written, read, weights) == expected
