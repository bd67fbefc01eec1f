"""Keras 3 and tf_keras in one process: objects go to the adapter of their class."""

import sys

import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision._adapters import adapter_of
from keras_precision.core.errors import MissingExtraError


@pytest.fixture
def both():
    """The same architecture in Keras 3 and tf_keras."""
    import keras
    import tf_keras

    return nets.conv(keras), nets.conv(tf_keras)


def test_each_model_has_the_adapter_of_its_class(both):
    """The class of a model decides, in any order of use."""
    assert [adapter_of(model).keras.__name__ for model in (*both, *both)] == ["keras", "tf_keras"] * 2


def test_paths_and_plans_are_the_same(both):
    """Both give the same paths, and equal plans."""
    ours, legacy = both
    assert list(kp.layer_paths(ours)) == list(kp.layer_paths(legacy)) == nets.CONV_PATHS
    assert kp.plan_of(ours) == kp.plan_of(legacy)


def test_both_are_profiled_and_exported(both, rng, tmp_path):
    """One profiler and one exporter serve both, one after the other."""
    x, y = nets.images(rng, 32)
    profiler = kp.PrecisionProfiler()
    for name, model in zip(("ours", "legacy"), both, strict=True):
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(x, y, batch_size=8, verbose=0, callbacks=[profiler])
        assert profiler.result.value("samples") == 32
        path = tmp_path / f"{name}.tflite"
        kp.export_tflite(model, path, "float32")
        np.testing.assert_allclose(kp.edge.predict(path, x), model.predict(x, verbose=0), atol=1e-5)


def test_missing_tensorflow_is_named_before_any_work(both, tmp_path, monkeypatch):
    """Without TensorFlow, the export says what to install, and writes nothing."""
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(MissingExtraError, match=r"Expected the package 'tensorflow'.*keras-precision\[tensorflow\]"):
        kp.export_tflite(both[0], tmp_path / "model.tflite", "float32")
    assert not list(tmp_path.iterdir())
