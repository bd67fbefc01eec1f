"""What the examples in docstrings find at hand: a small trained model, data, and a folder of their own."""

import os
from typing import Any

import pytest

os.environ.setdefault("KERAS_PRECISION_STACK", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(autouse=True)
def _docstrings(
    request: pytest.FixtureRequest, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, doctest_namespace: dict[str, Any]
) -> None:
    if isinstance(request.node, pytest.DoctestItem):
        import numpy as np

        monkeypatch.chdir(tmp_path)
        doctest_namespace["np"] = np
        doctest_namespace.update(_at_hand(np))
    return


def _at_hand(np: Any) -> dict[str, Any]:
    import keras

    generator = np.random.default_rng(0)
    classes = generator.integers(0, 2, 64)
    samples = (generator.normal(size=(64, 4)) + 4 * classes[:, np.newaxis]).astype("float32")
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2, "softmax")], name="small"
    )
    return {"model": model, "x_cal": samples[:32], "x_test": samples, "y_test": classes}
