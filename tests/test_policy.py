"""precision and set_precision: the global policy, set and put back."""

import importlib

import numpy as np
import pytest

import keras_precision as kp
from keras_precision._adapters import adapter_of
from keras_precision.core.errors import InputError, UnknownPrecisionError

pytestmark = pytest.mark.every_stack


def test_precision_holds_inside_and_is_put_back(stack):
    """Layers created inside have the policy; the global policy is as before, after an error too."""
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


def test_tf32_holds_inside_and_is_put_back(stack):
    """The switch of the backend says what was asked for, and afterwards what it said before."""
    before = tf32_switches(stack)
    for allowed in (True, False):
        with kp.precision("float32", tf32=allowed):
            assert set(tf32_switches(stack)) == (ON if allowed else OFF)[stack.name]
            with kp.precision("mixed_bfloat16"):
                assert set(tf32_switches(stack)) == (ON if allowed else OFF)[stack.name]
        assert tf32_switches(stack) == before


def test_products_are_rounded_as_the_switch_says(stack):
    """Where the machine has a device with TF32, products of float32 numbers have its error, or that of float32."""
    adapter = adapter_of(stack.keras.layers.Dense(1))
    if adapter.compute.tf32 is None:
        pytest.skip("this machine has no device with TF32")
    x = np.full((256, 256), 1 + 2.0**-12, np.float32)
    for allowed, exact in ((True, False), (False, True)):
        with kp.precision("float32", tf32=allowed):
            product = adapter.compute.compiled(lambda a: importlib.import_module("keras").ops.matmul(a, a))(x)
        assert (float(np.abs(np.asarray(product) - 256 * (1 + 2.0**-12) ** 2).max()) < 0.01) == exact


def test_set_precision_sets_tf32(stack):
    """It stays until it is set again."""
    before = tf32_switches(stack)
    with kp.precision("float32", tf32=True):
        kp.set_precision("float32", tf32=False)
        assert set(tf32_switches(stack)) == OFF[stack.name]
    assert tf32_switches(stack) == before


def test_tf32_is_a_truth_value(stack):
    """Anything else is refused, and changes nothing."""
    before = tf32_switches(stack)
    for call in (kp.set_precision, lambda *arguments, **more: kp.precision(*arguments, **more).__enter__()):
        with pytest.raises(InputError, match="Expected tf32 to be True, False, or None.*Received: 'yes'"):
            call("mixed_float16", tf32="yes")
    assert tf32_switches(stack) == before
    assert stack.keras.layers.Dense(2).compute_dtype == "float32"


ON = {"tensorflow": {True}, "tf_keras": {True}, "jax": {"tensorfloat32"}, "torch": {"tf32"}}
OFF = {"tensorflow": {False}, "tf_keras": {False}, "jax": {"highest"}, "torch": {"ieee"}}


def tf32_switches(stack):
    """What the backend itself says."""
    if stack.name == "torch":
        backends = importlib.import_module("torch").backends
        return [backend.fp32_precision for backend in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)]
    if stack.name == "jax":
        return [importlib.import_module("jax").config.jax_default_matmul_precision]
    return [importlib.import_module("tensorflow").config.experimental.tensor_float_32_execution_enabled()]
