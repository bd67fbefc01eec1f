"""compare_paths: one compute path is turned off at a time, in its own process."""

import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import DataError, InputError, UnknownPrecisionError
from keras_precision.experiments.compare_paths import _verdict


def test_the_responsible_path_is_the_one_without_which_losses_agree():
    """The verdict names it; where none brings the losses back, it says so, and unknown paths are excluded."""
    assert _verdict({"run": 0.4, "without jit": 0.01, "without oneDNN": 0.4, "without TF32": None}).startswith(
        "jit makes"
    )
    assert _verdict({"run": 0.4, "without jit": 0.39}).startswith("No single compute path")
    assert _verdict({"run": 0.0, "without jit": 0.0}).startswith("No single compute path")


@pytest.mark.slow
def test_every_path_in_a_process(rng):
    """Every path of this backend has a difference, or is unknown; the run in float32 has next to none."""

    def build():
        import keras

        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        return model

    data = rng.normal(size=(16, 8)).astype("float32"), rng.normal(size=(16, 1)).astype("float32")
    result = kp.compare_paths(build, data, "float32", steps=2, batch_size=8)
    assert result.value("loss_difference", "run") < 1e-3
    assert result.value("loss_difference", "without oneDNN") < 1e-3
    assert result.value("loss_difference", "without TF32") is None
    assert result.notes[0].startswith(("No single compute path", "jit makes", "oneDNN makes"))


@pytest.mark.parametrize(
    ("data", "options", "error"),
    [
        (None, {}, DataError),
        ((np.ones(2), np.ones(2)), {"precision": "int8"}, UnknownPrecisionError),
        ((np.ones(2), np.ones(2)), {"steps": 0}, InputError),
    ],
)
def test_wrong_arguments_are_refused(data, options, error):
    """What cannot be run starts no process."""
    with pytest.raises(error, match="Expected"):
        kp.compare_paths(lambda: None, data, **options)
