"""One suite for every stack: KERAS_PRECISION_STACK says which one this process tests."""

import importlib
import os
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

STACK = os.environ.setdefault("KERAS_PRECISION_STACK", "tensorflow")
# Both must be set before a Keras is imported, which test modules do inside their tests.
os.environ["KERAS_BACKEND"] = "tensorflow" if STACK == "tf_keras" else STACK
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


class Stack(NamedTuple):
    """The Keras under test.

    Attributes:
        name: ``"tensorflow"``, ``"jax"``, ``"torch"`` or ``"tf_keras"``.
        keras: The module ``keras`` or ``tf_keras``.
    """

    name: str
    keras: ModuleType

    @property
    def exports(self) -> bool:
        """Whether models of this stack can be exported to TensorFlow Lite in this process."""
        return self.name in ("tensorflow", "tf_keras")

    @property
    def steps_per_execution(self) -> int:
        """More than one, where the stack has it."""
        return 1 if self.name == "torch" else 3


@pytest.fixture(scope="session")
def stack() -> Stack:
    """The Keras under test."""
    return Stack(STACK, importlib.import_module("tf_keras" if STACK == "tf_keras" else "keras"))


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Any:
    """No test, and no verb of ours, may change the environment or the global policy."""
    importlib.import_module("tensorflow")  # it sets variables of its own, when Keras first needs it
    before = dict(os.environ)
    keras = importlib.import_module("keras")
    policy = keras.config.dtype_policy().name
    yield
    after = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    assert after == {key: value for key, value in before.items() if not key.startswith("PYTEST_")}
    assert keras.config.dtype_policy().name == policy


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same each time."""
    return np.random.default_rng(20261123)
