"""load_model: files of older Keras versions, code in files, and the error when no Keras can load one."""

import zipfile

import h5py
import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision._adapters.model_file import load_model
from keras_precision.core.errors import FileFormatError, InputError


def same_predictions(model, loaded, x):
    """Tell whether two models predict the same."""
    return np.allclose(model.predict(x, verbose=0), loaded.predict(x, verbose=0), atol=1e-6)


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".hdf5"])
def test_each_form_is_loaded_by_keras_3(suffix, tmp_path, rng):
    """A file that Keras 3 wrote comes back as its model."""
    import keras

    model, (x, _) = nets.mlp(keras), nets.classes(rng, 8)
    path = tmp_path / f"model{suffix}"
    model.save(path) if suffix == ".keras" else keras.models.save_model(model, tmp_path / "model.h5")
    if suffix == ".hdf5":
        (tmp_path / "model.h5").rename(path)
    loaded = kp.load_model(path)
    assert type(loaded).__module__.startswith("keras.")
    assert same_predictions(model, loaded, x)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_what_keras_3_refuses_is_loaded_by_tf_keras(suffix, tmp_path, rng):
    """A file of tf_keras whose layer has an argument that Keras 3 does not know is loaded all the same."""
    import tf_keras

    layers = tf_keras.layers
    model = tf_keras.Sequential([layers.Input((6, 6, 1)), layers.LocallyConnected2D(2, 3), layers.Flatten()])
    model.save(tmp_path / f"model{suffix}")
    loaded = kp.load_model(tmp_path / f"model{suffix}")
    assert type(loaded).__module__.startswith("tf_keras.")
    assert same_predictions(model, loaded, rng.normal(size=(3, 6, 6, 1)))
    scored = kp.evaluate(tmp_path / f"model{suffix}", rng.normal(size=(4, 6, 6, 1)), np.zeros(4))
    assert scored.value("samples") == 4


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")
@pytest.mark.parametrize("name", ["keras", "tf_keras"])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_code_in_a_file_runs_only_if_it_may(name, suffix, tmp_path):
    """A Lambda is refused by its layer's name, whichever Keras wrote it and in whichever form; unsafe=True loads it."""
    keras = pytest.importorskip(name)
    layers = keras.layers
    model = keras.Sequential([layers.Input((3,)), layers.Lambda(lambda x: 2 * x, name="twice", output_shape=(3,))])
    path = tmp_path / f"model{suffix}"
    model.save(path) if suffix == ".keras" else keras.models.save_model(model, path)
    with pytest.raises(FileFormatError, match="Received: code of 'twice', which loading would run.*unsafe=True"):
        kp.load_model(path)
    assert kp.load_model(path, unsafe=True).predict(np.ones((1, 3)), verbose=0).tolist() == [[2, 2, 2]]


def test_the_message_has_the_errors_of_both(tmp_path, rng):
    """A file that neither Keras loads is refused with both errors, and a remedy."""
    import h5py
    import keras

    with h5py.File(tmp_path / "weights.h5", "w") as opened:
        opened.create_group("layer")
    (tmp_path / "foreign.h5").write_bytes(rng.bytes(300))

    class Unknown(keras.layers.Layer):
        """No Keras knows it by its name alone."""

    keras.Sequential([keras.layers.Input((3,)), Unknown()]).save(tmp_path / "unknown.keras")
    for name in ("weights.h5", "foreign.h5", "unknown.keras"):
        with pytest.raises(FileFormatError, match=r"(?s)keras 3.*tf_keras 2.*register them.*load_weights"):
            kp.load_model(tmp_path / name)


def test_without_tf_keras_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    """Where tf_keras is missing, the pip line is in the message."""
    (tmp_path / "old.h5").write_bytes(b"")
    monkeypatch.setattr(load_model, "available", lambda name: False)
    with pytest.raises(
        FileFormatError, match=r'tf_keras, which reads what Keras 2 wrote, is not installed: pip install "keras'
    ):
        kp.load_model(tmp_path / "old.h5")


def test_what_is_no_model_file(tmp_path):
    """Missing files, other suffixes and broken archives have their own messages."""
    (tmp_path / "model.onnx").write_bytes(b"")
    (tmp_path / "model.keras").write_bytes(b"PK")
    with pytest.raises(FileNotFoundError, match="which does not exist"):
        kp.load_model(tmp_path / "none.keras")
    with pytest.raises(InputError, match=r"Expected the path of a .keras, .h5, .hdf5 file. Received: '.*model.onnx'"):
        kp.load_model(tmp_path / "model.onnx")
    with pytest.raises(FileFormatError, match="empty, truncated or foreign"):
        kp.load_model(tmp_path / "model.keras")


def test_a_file_whose_configuration_is_cut_off_is_refused(tmp_path):
    """It cannot be checked for code, so Keras does not get it."""
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("config.json", '{"class_name": ')
    with pytest.raises(FileFormatError, match=r"expected a .keras file. Received: a damaged one \(.*Save it again"):
        kp.load_model(tmp_path / "model.keras")
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file.attrs["model_config"] = '{"class_name": '
    with pytest.raises(FileFormatError, match=r"expected a model file. Received: a damaged one \(.*Save it again"):
        kp.load_model(tmp_path / "model.h5")
