"""Malicious model files: all are refused, none runs code, none writes outside its folder."""

import base64
import io
import json
import marshal
import stat
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import pytest

import keras_precision as kp
from keras_precision._adapters.model_file import archive as model_archive
from keras_precision._adapters.model_file import hdf5
from keras_precision._adapters.model_file.load_model import load_compiled_model
from keras_precision._adapters.model_file.tensor_functions import is_tensor_function
from keras_precision.core.errors import FileFormatError

pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")

FORMS = [f"{package}{suffix}" for package in ("keras", "tf_keras") for suffix in (".keras", ".h5")]
MODULE = "hostile_module"  # importing it leaves a trace


def sound_model(keras: Any) -> Any:
    """A model with a layer, wrappers, and a compiled model inside, for payloads to stand in."""
    layers = keras.layers
    core = keras.Sequential([layers.Input((4,)), layers.Dense(4, name="core_layer")], name="core")
    core.compile("sgd", "mse")
    series = layers.Input((4, 3), name="source")
    x = layers.TimeDistributed(layers.Dense(3, name="inner"), name="wrapper")(series)
    x = layers.Bidirectional(layers.LSTM(2, name="series"), name="both_ways")(x)
    x = layers.Activation("relu", name="activation")(core(x))
    model = keras.Model(series, layers.Dense(2, name="target")(x), name="sound")
    model.compile("sgd", "mse")
    return model


@pytest.fixture(scope="session")
def sound_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The model in every form, as Keras 3 and tf_keras save it."""
    import keras
    import tf_keras

    folder = tmp_path_factory.mktemp("sound")
    for package in (keras, tf_keras):
        model = sound_model(package)
        model.save(folder / f"{package.__name__}.keras")
        package.models.save_model(model, str(folder / f"{package.__name__}.h5"))
    return {form: folder / form for form in FORMS}


class Victim(NamedTuple):
    """A folder for hostile files.

    Attributes:
        folder: The folder.
        marker: The file that a payload creates if it runs.
        files: The sound files.
    """

    folder: Path
    marker: Path
    files: dict[str, Path]

    def with_config(self, form: str, change: Callable[[dict[str, Any]], object]) -> Path:
        """Return a sound file, its configuration changed."""
        path = self.folder / f"hostile{Path(form).suffix}"
        if path.suffix == ".keras":
            with zipfile.ZipFile(self.files[form]) as source, zipfile.ZipFile(path, "w") as target:
                for name in source.namelist():
                    content = source.read(name)
                    if name == "config.json":
                        config = json.loads(content)
                        change(config)
                        content = json.dumps(config).encode()
                    target.writestr(name, content)
        else:
            path.write_bytes(self.files[form].read_bytes())
            with h5py.File(path, "r+") as opened:
                config = json.loads(opened.attrs["model_config"])
                change(config)
                opened.attrs["model_config"] = json.dumps(config)
        return path

    def refuses(self, path: Path, match: str = r"(?s).+", load: Callable[[Path], Any] = kp.load_model) -> None:
        """Load a file, and see it refused, with nothing run, imported or written."""
        before = {*self.folder.parent.rglob("*")}
        with pytest.raises(kp.PrecisionError, match=match):
            load(path)
        assert not self.marker.exists()
        assert MODULE not in sys.modules
        assert {*self.folder.parent.rglob("*")} == before


@pytest.fixture
def victim(tmp_path: Path, sound_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Victim]:
    """A folder, and a module in the path of imports that leaves a marker as soon as it is imported."""
    folder, modules = tmp_path / "inside" / "folder", tmp_path / "modules"
    folder.mkdir(parents=True)
    modules.mkdir()
    marker = tmp_path / "marker"
    (modules / f"{MODULE}.py").write_text(
        f"open({str(marker)!r}, 'w').close()\n"
        "def payload(*args, **kwargs): return args[0] if args else None\n"
        "class Payload:\n    @classmethod\n    def from_config(cls, config): return cls()\n"
    )
    monkeypatch.syspath_prepend(modules)
    yield Victim(folder, marker, sound_files)
    sys.modules.pop(MODULE, None)


def layer(config: Any, name: str) -> dict[str, Any]:
    """Return the entry of a layer, wherever it is in a configuration."""
    pending = [config]
    while pending:
        value = pending.pop(0)
        if isinstance(value, dict):
            inner = value.get("config")
            if "class_name" in value and isinstance(inner, dict) and inner.get("name") == name:
                return value
        pending += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    raise KeyError(name)


def function_of_another_module(marker: Path) -> dict[str, Any]:
    """Return the reference to a function of any module."""
    return {"class_name": "function", "config": "payload", "module": MODULE, "registered_name": "payload"}


def class_of_another_module(marker: Path) -> dict[str, Any]:
    """Return the reference to a class of any module."""
    return {"class_name": "Payload", "config": {"name": "own"}, "module": MODULE, "registered_name": "Payload"}


def class_behind_a_name_of_keras(marker: Path) -> dict[str, Any]:
    """Return the reference to a class that is called like one of Keras."""
    return {"class_name": "Dense", "config": {"name": "own"}, "module": MODULE, "registered_name": None}


def value_with_a_module(marker: Path) -> dict[str, Any]:
    """Return what is a plain value to one Keras, and a class of any module to the other."""
    return {"class_name": "__slice__", "config": {"start": 0, "stop": 1, "step": 1}, "module": MODULE}


def marshalled(marker: Path) -> list[Any]:
    """Return the code of a function that makes the marker, as Keras dumps it."""
    payload = eval(f"lambda x: (open({str(marker)!r}, 'w').close(), x)[1]")
    return [base64.b64encode(marshal.dumps(payload.__code__)).decode(), None, None]


def code(marker: Path) -> dict[str, Any]:
    """Return marshalled code as Keras 3 writes it."""
    dumped, defaults, closure = marshalled(marker)
    return {"class_name": "__lambda__", "config": {"code": dumped, "defaults": defaults, "closure": closure}}


def code_of_keras_2(marker: Path) -> dict[str, Any]:
    """Return marshalled code as tf_keras writes it."""
    return {"class_name": "__lambda__", "config": {"value": marshalled(marker)}}


PAYLOADS = [
    function_of_another_module,
    class_of_another_module,
    class_behind_a_name_of_keras,
    value_with_a_module,
    code,
    code_of_keras_2,
]


def setting(name: str, key: str) -> Callable[[dict[str, Any], Any], None]:
    """Return what puts a payload into a setting of a layer."""

    def put(config: dict[str, Any], payload: Any) -> None:
        layer(config, name)["config"][key] = payload

    return put


def as_a_layer(config: dict[str, Any], payload: Any) -> None:
    """Put a payload in the place of a layer."""
    entry = layer(config, "activation")
    entry.pop("module", None)
    entry.update(
        payload, config={**(payload["config"] if isinstance(payload["config"], dict) else {}), "name": "activation"}
    )
    if not isinstance(payload["config"], dict):
        entry["config"] = payload["config"]


def as_an_argument(config: dict[str, Any], payload: Any) -> None:
    """Put a payload among the arguments of a call."""
    node = layer(config, "target")["inbound_nodes"][0]
    if isinstance(node, dict):
        node["kwargs"]["training"] = payload
    else:
        node[0][3:] = [{"training": payload}]


def into_the_build_configuration(config: dict[str, Any], payload: Any) -> None:
    """Put a payload into what a layer is built with."""
    layer(config, "target")["build_config"] = {"input_shape": payload}


def into_an_inner_models_compilation(config: dict[str, Any], payload: Any) -> None:
    """Put a payload into what an inner model is compiled with, which is loaded even with compile=False."""
    layer(config, "core")["compile_config"] = {"optimizer": "sgd", "loss": payload}


PLACES = {
    "activation": setting("target", "activation"),
    "initializer": setting("target", "kernel_initializer"),
    "regularizer": setting("target", "kernel_regularizer"),
    "activity regularizer": setting("target", "activity_regularizer"),
    "constraint": setting("target", "bias_constraint"),
    "policy": setting("target", "dtype"),
    "name of a function": setting("activation", "activation"),
    "layer of a wrapper": setting("wrapper", "layer"),
    "layer of Bidirectional": setting("both_ways", "layer"),
    "layer in a wrapper": setting("inner", "bias_initializer"),
    "layer in an inner model": setting("core_layer", "kernel_constraint"),
    "any other key": setting("target", "nobody_knows"),
    "layer": as_a_layer,
    "argument": as_an_argument,
    "build": into_the_build_configuration,
    "inner compilation": into_an_inner_models_compilation,
}


@pytest.mark.parametrize("form", FORMS)
def test_the_sound_file_is_loaded(form: str, victim: Victim) -> None:
    """The sound file is loaded, also after a change of nothing."""
    loaded = kp.load_model(victim.with_config(form, lambda config: None))
    assert loaded.name == "sound"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload.__name__)
def test_a_payload_is_refused_wherever_it_stands(payload: Any, place: str, form: str, victim: Victim) -> None:
    """A function, a class, marshalled code: refused in all places of a configuration, in all forms."""
    path = victim.with_config(form, lambda config: PLACES[place](config, payload(victim.marker)))
    victim.refuses(path, r"unsafe=True.*--unsafe|--unsafe")


def lambda_layer(function: Any, **settings: Any) -> dict[str, Any]:
    """Return the entry of a Lambda layer."""
    config = {"name": "activation", "trainable": True, "dtype": "float32", "function": function, **settings}
    return {"class_name": "Lambda", "module": "keras.layers", "registered_name": None, "config": config}


MKDIR = {"class_name": "function", "config": "mkdir", "module": "os", "registered_name": "mkdir"}
RAW = {"module": None, "output_shape": None, "output_shape_type": "raw", "output_shape_module": None}
LAMBDAS = {
    "a function": lambda marker: lambda_layer(MKDIR, function_type="function", **RAW),
    "a function of Keras": lambda marker: lambda_layer({**MKDIR, "module": "keras.ops", "config": "relu"}),
    "a name": lambda marker: lambda_layer("mkdir", function_type="function", module="os"),
    "marshalled": lambda marker: lambda_layer(marshalled(marker), function_type="lambda", module="builtins"),
    "marshalled without a type": lambda marker: lambda_layer(marshalled(marker)),
    "code": lambda marker: lambda_layer(code(marker)),
    "an output shape": lambda marker: lambda_layer(
        "relu", function_type="function", output_shape=marshalled(marker), output_shape_type="lambda"
    ),
    "a mask": lambda marker: lambda_layer(
        "relu", function_type="function", mask=marshalled(marker), mask_type="lambda"
    ),
    "a class of another module": lambda marker: {**lambda_layer("relu"), "module": MODULE},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", LAMBDAS)
def test_no_lambda_is_loaded(kind: str, form: str, victim: Victim) -> None:
    """A Lambda is refused with its name, whatever its function is and however it is written."""

    def put(config: dict[str, Any]) -> None:
        as_a_layer(config, LAMBDAS[kind](victim.marker))
        if form.startswith("tf_keras"):  # which calls a layer with constants: os.mkdir makes the marker
            layer(config, "activation")["inbound_nodes"] = [[["_CONSTANT_VALUE", -1, str(victim.marker), {}]]]

    path = victim.with_config(form, put)
    victim.refuses(path, "Received: (code of|a call of '.*' in layer) 'activation', which loading would run")


def operation(name: str, **settings: Any) -> Callable[[dict[str, Any]], None]:
    """Return what puts a layer of tf_keras into a model that calls it with the name of the marker."""

    def put(config: dict[str, Any], marker: str = "marker") -> None:
        entry = layer(config, "activation")
        entry.update(class_name=name, config={"name": "activation", "trainable": True, "dtype": "float32", **settings})
        if "module" in entry:
            entry.update(module="tf_keras.src.layers.core.tf_op_layer", registered_name=name)
        entry["inbound_nodes"] = [["_CONSTANT_VALUE", -1, marker, {"contents": "x"}]]

    return put


SYMBOLS = [
    "io.write_file",
    "io.read_file",
    "io.gfile.makedirs",
    "raw_ops.WriteFile",
    "py_function",
    "numpy_function",
    "load_library",
    "load_op_library",
    "saved_model.load",
    "print",
    "function",
    "data.Dataset.from_tensor_slices",
    "debugging.enable_dump_debug_info",
    "summary.write",
    "compat.v1.py_func",
    "compat.v1.gfile.DeleteRecursively",
    "nn.fixed_unigram_candidate_sampler",
    "keras.utils.get_file",
    "keras.models.load_model",
    "keras.activations.deserialize",
    "keras.backend.eval",
    "map_fn",
    "while_loop",
    "__operators__",
]


@pytest.mark.parametrize("form", ["tf_keras.keras", "tf_keras.h5"])
@pytest.mark.parametrize("symbol", SYMBOLS)
def test_tensorflow_is_called_for_tensors_alone(symbol: str, form: str, victim: Victim) -> None:
    """A TFOpLambda of anything that reads, writes or calls is refused."""
    path = victim.with_config(form, lambda config: operation("TFOpLambda", function=symbol)(config, str(victim.marker)))
    victim.refuses(path, f"a call of 'tf.{symbol}' in layer 'activation'")


OTHERS = {
    "SlicingOpLambda": {"function": "io.write_file"},
    "ClassMethod": {"cls_symbol": "io.gfile.GFile", "method_name": "write"},
    "InstanceMethod": {"attr_name": "tofile"},
    "InstanceProperty": {"attr_name": "__class__"},
    "TensorFlowOpLayer": {"node_def": {"name": "x", "op": "WriteFile"}, "constants": {}},
    "DenseFeatures": {"feature_columns": [{"class_name": "VocabularyFileCategoricalColumn", "config": {}}]},
}


@pytest.mark.parametrize("form", ["tf_keras.keras", "tf_keras.h5"])
@pytest.mark.parametrize("name", OTHERS)
def test_methods_and_operations_are_listed(name: str, form: str, victim: Victim) -> None:
    """Methods, properties and graph operations that are no computation on tensors are refused."""
    path = victim.with_config(form, lambda config: operation(name, **OTHERS[name])(config, str(victim.marker)))
    victim.refuses(path, "in layer 'activation'")


@pytest.mark.parametrize("form", ["tf_keras.keras", "tf_keras.h5"])
@pytest.mark.parametrize("constant", ["text", ["text"], {"a": ["text"]}, ["_COMPOSITE_TYPE", "{}"]], ids=str)
def test_no_text_is_an_input(constant: Any, form: str, victim: Victim) -> None:
    """A constant input that is or holds a text, such as a path, is refused; that of an einsum is its equation."""
    path = victim.with_config(form, lambda config: operation("TFOpLambda", function="identity")(config, constant))
    victim.refuses(path, "a call with a text in layer 'activation'")


def test_what_is_no_function_of_tensors() -> None:
    """Names that only begin or end like those on the list are not on it."""
    for name in (
        None,
        3,
        "",
        "nn",
        "math.",
        "io.math.add",
        "xmath.add",
        "math.add.x",
        "compat.v1.",
        "keras.losses.get",
    ):
        assert not is_tensor_function(name)
    for name in (
        "math.add",
        "nn.relu",
        "__operators__.getitem",
        "compat.v1.nn.relu",
        "image.resize",
        "keras.losses.mse",
    ):
        assert is_tensor_function(name)


OF_KERAS = [
    ("keras.config", "enable_unsafe_deserialization"),
    ("keras.utils", "get_file"),
    ("keras.src.utils.file_utils", "get_file"),
    ("keras.models", "load_model"),
    ("keras.saving", "deserialize_keras_object"),
    ("keras.src.saving.serialization_lib", "enable_unsafe_deserialization"),
    ("tf_keras.utils", "get_file"),
    ("tf_keras.src.utils.data_utils", "get_file"),
    ("tf_keras.src.saving.serialization_lib", "enable_unsafe_deserialization"),
    ("keras.applications", "MobileNet"),
    ("keras.backend", "clear_session"),
    ("keras.activations", "deserialize"),
    ("tensorflow.python.ops.io_ops", "write_file"),
    ("keras.evil", "payload"),
    ("keras_evil", "payload"),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("module", "name"), OF_KERAS)
def test_to_be_of_keras_is_not_enough(module: str, name: str, form: str, victim: Victim) -> None:
    """Functions of Keras that are no part of models are refused, as an activation and as a layer."""
    reference = {"class_name": "function", "config": name, "module": module, "registered_name": name}
    victim.refuses(victim.with_config(form, lambda config: PLACES["activation"](config, reference)), f"{module}.{name}")
    as_class = {"class_name": name, "config": {"name": "activation"}, "module": module, "registered_name": None}
    victim.refuses(victim.with_config(form, lambda config: as_a_layer(config, as_class)), name)


CLASSES = {
    "TFSMLayer": ("keras.layers", {"filepath": "folder"}),
    "TorchModuleWrapper": ("keras.layers", {"module": {"class_name": "__bytes__", "config": {"value": "x"}}}),
    "JaxLayer": ("keras.layers", {"call_fn": MKDIR}),
    "FlaxLayer": ("keras.layers", {"module": MKDIR}),
    "ReloadedLayer": ("tf_keras.src.export.export_lib", {"filepath": "folder"}),
    "ExportArchive": ("keras.export", {}),
    "CSVLogger": ("keras.callbacks", {"filename": "marker"}),
    "RevivedLayer": ("tf_keras.src.saving.legacy.saved_model.load", {}),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CLASSES)
def test_classes_of_keras_that_load_files_are_refused(name: str, form: str, victim: Victim) -> None:
    """Layers that read a SavedModel, a pickle or serialized code, and classes that are no part of a model."""
    module, settings = CLASSES[name]
    entry = {"class_name": name, "module": module, "registered_name": None, "config": settings}
    victim.refuses(victim.with_config(form, lambda config: as_a_layer(config, entry)), name)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", ["StringLookup", "IntegerLookup", "TextVectorization"])
def test_a_vocabulary_is_not_read_from_a_path(name: str, suffix: str, victim: Victim) -> None:
    """A lookup layer whose vocabulary is the path of a file of this machine is refused."""
    entry = {"class_name": name, "module": "keras.layers", "config": {"vocabulary": "/etc/hostname"}}
    path = victim.with_config(f"keras{suffix}", lambda config: as_a_layer(config, entry))
    victim.refuses(path, "the reading of '/etc/hostname' in layer 'activation'")


ODD = {
    "a typespec": {"class_name": "__typespec__", "spec_name": "Payload", "module": MODULE, "config": [], "registered_name": None},
    "a named typespec": {"class_name": "__typespec__", "spec_name": "TensorSpec", "module": MODULE, "config": []},
    "a type": {"class_name": "TypeSpec", "type_spec": "hostile.Spec", "serialized": []},
    "a class without a name": {"class_name": ["Dense"], "config": {}},
    "a module that is no text": {"class_name": "Dense", "config": {}, "module": {"a": 1}},
    "an empty module": {"class_name": "Dense", "config": {}, "module": []},
    "an empty second name": {"class_name": "Dense", "config": {}, "registered_name": {}},
    "a function without a name": {"class_name": "function", "config": ["mkdir"], "module": "os"},
    "code in an RNN's wrapper": {"class_name": "ResidualWrapper", "config": {"residual_fn": "x", "residual_fn_type": "lambda"}},
    "a second name": {**MKDIR, "config": "relu", "module": "keras.activations", "registered_name": "deserialize"},
    "a second name of a class": {"class_name": "Dense", "config": {}, "module": "keras.layers", "registered_name": "deserialize"},
    "a name with a dot": {**MKDIR, "config": "path.join", "module": "os"},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ODD)
def test_odd_references_are_refused(kind: str, form: str, victim: Victim) -> None:
    """Special names, malformed names and second names lead nowhere."""
    victim.refuses(victim.with_config(form, lambda config: PLACES["activation"](config, ODD[kind])))


@pytest.mark.parametrize("form", ["keras.keras", "tf_keras.keras"])
@pytest.mark.parametrize("payload", PAYLOADS[:4], ids=lambda payload: payload.__name__)
def test_what_a_model_was_compiled_with_is_checked_where_it_is_loaded(payload: Any, form: str, victim: Victim) -> None:
    """A loss by name is left out with compile=False and runs nothing; a trial, which loads it, refuses it."""

    def compiled_with(config: dict[str, Any]) -> None:
        config["compile_config"] = {"optimizer": "sgd", "loss": payload(victim.marker)}

    path = victim.with_config(form, compiled_with)
    assert kp.load_model(path).name == "sound"
    victim.refuses(path, load=load_compiled_model)


@pytest.mark.parametrize("form", FORMS)
def test_code_in_what_a_model_was_compiled_with_is_refused(form: str, victim: Victim) -> None:
    """Marshalled code is refused although it would not be loaded."""

    def compiled_with(config: dict[str, Any]) -> None:
        config["compile_config"] = {"optimizer": "sgd", "loss": code(victim.marker)}

    path = victim.with_config(form, compiled_with)
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as opened:
            opened.attrs["training_config"] = json.dumps({"loss": code(victim.marker), "optimizer_config": {}})
    victim.refuses(path, "Received: code of")


@pytest.mark.parametrize("form", ["keras.keras", "tf_keras.keras"])
def test_damaged_weights_do_not_hide_a_configuration(form: str, victim: Victim) -> None:
    """Weights whose tables cannot be read are refused before anything of the file runs, a call in a Lambda included."""
    calls = LAMBDAS["a function"] if form == "keras.keras" else LAMBDAS["marshalled"]
    path = victim.with_config(form, lambda config: as_a_layer(config, calls(victim.marker)))
    entries = {}
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    weights = bytearray(entries["model.weights.h5"])
    with h5py.File(io.BytesIO(weights)) as opened:
        places = []
        opened.visititems(lambda _, item: places.append(h5py.h5o.get_info(item.id).addr))
    weights[places[-1] : places[-1] + 16] = bytes(16)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, bytes(weights) if name == "model.weights.h5" else content)
    victim.refuses(path, "expected a .keras file. Received: a damaged one")


ENTRIES = {
    "above": ("../above", "leads out of its folder"),
    "below and above": ("assets/../../above", "leads out of its folder"),
    "absolute": ("/tmp/absolute", "leads out of its folder"),
    "a drive": ("C:/absolute", "leads out of its folder"),
    "backslashes": ("..\\above", "leads out of its folder"),
    "arrays": ("model.weights.npz", "which Keras does not write"),
    "twice": ("config.json", "two entries 'config.json'"),
    "twice in disguise": ("./config.json", "two entries 'config.json'"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("kind", ENTRIES)
def test_no_entry_leaves_the_folder(kind: str, victim: Victim) -> None:
    """An archive with an entry that leads elsewhere, or that two readers would read differently, is refused."""
    name, match = ENTRIES[kind]
    path = victim.with_config("keras.keras", lambda config: None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "{}")
    victim.refuses(path, match)


def test_no_entry_is_a_link(victim: Victim) -> None:
    """An archive with a symbolic link is refused."""
    path = victim.with_config("keras.keras", lambda config: None)
    entry = zipfile.ZipInfo("assets/link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(entry, "/etc/passwd")
    victim.refuses(path, "'assets/link', a symbolic link")


@pytest.mark.parametrize("name", ["config.json", "metadata.json", "model.weights.h5", "assets/words.txt"])
def test_no_entry_unpacks_to_more_than_it_may(name: str, victim: Victim) -> None:
    """An entry that packs very much into very little is refused before it is unpacked."""
    path = victim.folder / "hostile.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w") as entry:
        for _ in range(70):
            entry.write(bytes(1 << 20))
    victim.refuses(path, f"the entry '{name}', which declares 73,400,320 bytes and stores")


def test_entries_fit_into_the_memory(victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive that unpacks to more than the machine has memory is refused."""
    monkeypatch.setattr(model_archive, "_memory", lambda: 1000)
    victim.refuses(victim.with_config("keras.keras", lambda config: None), "entries of .* bytes in a file of")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_configuration_is_not_nested_for_ever(suffix: str, victim: Victim) -> None:
    """Brackets within brackets do not exhaust the stack."""
    text = "[" * 100_000 + "]" * 100_000
    path = victim.with_config(f"keras{suffix}", lambda config: None)
    if suffix == ".keras":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", text)
    else:
        with h5py.File(path, "r+") as opened:
            opened.attrs["model_config"] = text
    victim.refuses(path, "nested too deeply")


def test_a_configuration_has_a_size(victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration that is longer than any is not parsed."""
    monkeypatch.setattr(hdf5, "_CONFIG_BYTES", 1000)
    victim.refuses(victim.with_config("keras.h5", lambda config: None), "a configuration of [0-9,]+ bytes")


def external_link(opened: h5py.File, folder: Path) -> None:
    """Link to another file."""
    opened["elsewhere"] = h5py.ExternalLink(str(folder / "secret.h5"), "/secret")


def deep_external_link(opened: h5py.File, folder: Path) -> None:
    """Link to another file from a group in a group."""
    opened.create_group("a/b/c")["elsewhere"] = h5py.ExternalLink(str(folder / "secret.h5"), "/secret")


def soft_link(opened: h5py.File, folder: Path) -> None:
    """Link to a name."""
    opened["elsewhere"] = h5py.SoftLink("/nowhere")


def external_storage(opened: h5py.File, folder: Path) -> None:
    """Keep values in another file."""
    opened.create_dataset("values", (4,), "u1", external=[(str(folder / "secret.h5"), 0, 4)])


def virtual_dataset(opened: h5py.File, folder: Path) -> None:
    """Take values from another file."""
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "secret", (4,))
    opened.create_virtual_dataset("values", layout)


def declared_alone(opened: h5py.File, folder: Path) -> None:
    """Declare 4 TB, and store nothing."""
    opened.create_dataset("values", (1 << 40,), "f4")


def chunked_alone(opened: h5py.File, folder: Path) -> None:
    """Declare 4 TB in chunks, and store one."""
    dataset = opened.create_dataset("values", (1 << 40,), "f4", chunks=(1 << 16,), compression="gzip")
    dataset[:4] = 1


def many(opened: h5py.File, folder: Path) -> None:
    """Declare 60 MB so often that no memory holds it, and store nothing."""
    for number in range(40):
        opened.create_dataset(f"many/{number}", (15_000_000,), "f4")


TRICKS = {
    external_link: "a link to another file, 'elsewhere'",
    deep_external_link: "a link to another file, 'a/b/c/elsewhere'",
    soft_link: "a soft link, 'elsewhere'",
    external_storage: "'values', whose values are in another file",
    virtual_dataset: "'values', whose values are in another file",
    declared_alone: "'values', which declares 4,398,046,511,104 bytes and stores 0",
    chunked_alone: "'values', which declares 4,398,046,511,104 bytes and stores",
    many: "arrays of [0-9,]+ bytes in a file of",
}


@pytest.mark.parametrize("form", [*FORMS, "packed"])
@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.__name__)
def test_an_hdf5_file_holds_what_it_declares(
    trick: Any, form: str, victim: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links, storage and datasets that lead to other files, or to more than is stored, are refused, in archives, too."""
    monkeypatch.setattr(model_archive, "_memory", lambda: 1 << 30)
    path = victim.with_config("keras.keras" if form == "packed" else form, lambda config: None)
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as opened:
            trick(opened, victim.folder)
    else:
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        weights = io.BytesIO(entries["model.weights.h5"])
        with h5py.File(weights, "r+") as opened:
            trick(opened, victim.folder)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if form == "packed" else zipfile.ZIP_STORED) as archive:
            for name, content in {**entries, "model.weights.h5": weights.getvalue()}.items():
                archive.writestr(name, content)
    victim.refuses(path, TRICKS[trick])


def test_large_weights_are_checked_in_place(victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that are too large to be copied are read where they lie in the archive, and checked alike."""
    monkeypatch.setattr(model_archive, "_COPIED_BYTES", 0)
    test_an_hdf5_file_holds_what_it_declares(external_link, "keras.keras", victim, monkeypatch)
    assert kp.load_model(victim.with_config("keras.keras", lambda config: None)).name == "sound"


def test_a_folder_is_no_file(victim: Victim) -> None:
    """A folder that is called like a file is not opened: Keras 3 would take it for an unpacked model."""
    folder = victim.folder / "model.h5"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(lambda_layer(MKDIR)))
    victim.refuses(folder, "Received: a folder")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_damaged_files_are_refused(suffix: str, victim: Victim) -> None:
    """A file that is cut off, or whose bytes were changed, is refused as ours refuse, and never fails otherwise."""
    content = victim.files[f"keras{suffix}"].read_bytes()
    path = victim.folder / f"damaged{suffix}"
    for end in (0, 10, len(content) // 2, len(content) - 10):
        path.write_bytes(content[:end])
        victim.refuses(path)


def raising(error: str) -> str:
    """Return marshalled code that raises."""
    function = eval(f"lambda x: (_ for _ in ()).throw({error}('from inside'))")
    return base64.b64encode(marshal.dumps(function.__code__)).decode()


@pytest.mark.parametrize(
    "dumped", ["", "4wE=", raising("EOFError"), raising("KeyError"), raising("StopAsyncIteration")]
)
def test_what_a_trusted_lambda_raises_is_a_refusal(dumped: str, victim: Victim) -> None:
    """With unsafe=True code may be cut off, or raise anything: both Keras versions are tried, and the cause is chained."""
    function = {"class_name": "__lambda__", "config": {"code": dumped, "defaults": None, "closure": None}}
    path = victim.with_config("keras.keras", lambda config: as_a_layer(config, lambda_layer(function)))
    with pytest.raises(FileFormatError, match=r"(?s)keras 3.*tf_keras 2") as caught:
        kp.load_model(path, unsafe=True)
    assert caught.value.__cause__ is not None


def test_code_that_is_trusted_runs(victim: Victim) -> None:
    """The payload of these tests works: with unsafe=True it makes the marker, and the model is loaded."""
    path = victim.with_config("keras.keras", lambda config: as_a_layer(config, lambda_layer(code(victim.marker))))
    assert kp.load_model(path, unsafe=True).name == "sound"
    assert victim.marker.exists()
