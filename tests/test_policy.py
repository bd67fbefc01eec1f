"""precision and set_precision: the global policy, set and put back."""

import importlib

import pytest

import keras_precision as kp
from keras_precision.errors import UnknownPrecisionError

pytestmark = pytest.mark.every_stack


def test_precision_holds_inside_and_is_put_back(stack):
    """Layers made inside have the policy; the global policy is as before, after an error too."""
    with kp.precision("mixed_bfloat16"):
        assert stack.keras.layers.Dense(2).compute_dtype == "bfloat16"
        with pytest.raises(ZeroDivisionError), kp.precision("mixed_float16"):
            assert stack.keras.layers.Dense(2).compute_dtype == "float16"
            raise ZeroDivisionError
        assert stack.keras.layers.Dense(2).compute_dtype == "bfloat16"
    assert stack.keras.layers.Dense(2).compute_dtype == "float32"


def test_set_precision_lasts(stack):
    """The policy stays until it is set again."""
    kp.set_precision("mixed_float16")
    try:
        assert stack.keras.layers.Dense(2).dtype_policy.name == "mixed_float16"
    finally:
        kp.set_precision("float32")


def test_both_kerases_are_set(stack):
    """Where both are loaded, both have the policy, and both get their own back."""
    legacy = importlib.import_module("tf_keras")
    keras = importlib.import_module("keras")
    legacy.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        with kp.precision("mixed_float16"):
            assert keras.config.dtype_policy().name == legacy.mixed_precision.global_policy().name == "mixed_float16"
        assert legacy.mixed_precision.global_policy().name == "mixed_bfloat16"
    finally:
        legacy.mixed_precision.set_global_policy("float32")


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("float16", r"Received: 'float16'. 'float16' is a deployment precision: it is for kp.export_tflite"),
        ("mixed_float15", "Did you mean 'mixed_float16'"),
        (None, "Received: None"),
    ],
)
def test_unknown_policies_change_nothing(stack, policy, message):
    """A policy that is not known is refused with the known ones, and the global policy stays."""
    with pytest.raises(UnknownPrecisionError, match=message):
        kp.set_precision(policy)
    with pytest.raises(UnknownPrecisionError, match="float32, mixed_bfloat16, mixed_float16"), kp.precision(policy):
        pass
    assert stack.keras.layers.Dense(2).compute_dtype == "float32"
