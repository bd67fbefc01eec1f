"""The public functions on models as users build them: names that Keras gives, one and two inputs, on every stack."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import ModelError

pytestmark = [
    pytest.mark.every_stack,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of KerasTuner, in its locks
]

COUNT = 24


def sequential(keras: Any) -> Any:
    """Images through a convolution."""
    layers = keras.layers
    return keras.Sequential(
        [layers.Input((8, 8, 1)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(3)]
    )


def built_later(keras: Any) -> Any:
    """A model without an Input, which learned its shape when it was built."""
    model = keras.Sequential([keras.layers.Dense(8, activation="relu"), keras.layers.Dense(3)])
    model.build((None, 6))
    return model


def two_inputs(keras: Any) -> Any:
    """Two inputs of different shapes, two branches of layers of one kind."""
    layers = keras.layers
    image, table = layers.Input((8, 8, 1)), layers.Input((5,))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(image))
    x = layers.Concatenate()([x, layers.Dense(4, activation="relu")(table)])
    return keras.Model([image, table], layers.Dense(3)(x))


def nested(keras: Any) -> Any:
    """A model inside a model, and a layer that is called twice."""
    layers = keras.layers
    inner = keras.Sequential([layers.Input((6,)), layers.Dense(6, activation="relu"), layers.Dense(6)])
    shared = layers.Dense(6)
    features = layers.Input((6,))
    return keras.Model(features, layers.Dense(3)(shared(inner(shared(features)))))


def wrapped(keras: Any) -> Any:
    """A subclassed model, wrapped in a functional one."""

    class Written(keras.Model):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.first = keras.layers.Dense(8, activation="relu", dtype=self.dtype_policy)
            self.last = keras.layers.Dense(3, dtype=self.dtype_policy)

        def call(self, inputs: Any) -> Any:
            return self.last(self.first(inputs))

        def get_config(self) -> dict[str, Any]:
            return {"name": self.name, "dtype": self.dtype_policy}

        def build(self, shape: Any) -> None:
            self.first.build(shape)
            self.last.build((None, 8))
            self.built = True

    features = keras.layers.Input((6,))
    return keras.Model(features, Written()(features))


MODELS = (sequential, built_later, two_inputs, nested, wrapped)


class Case:
    """A model, its data, and what the model itself predicts for them."""

    def __init__(self, keras: Any, make: Callable[[Any], Any], folder: Path) -> None:
        self.keras, self.make, self.folder = keras, make, folder
        self.model = self.build()
        random = np.random.default_rng(7)
        shapes = [tuple(tensor.shape)[1:] for tensor in self.model.inputs]
        arrays = [random.uniform(-1, 1, (COUNT, *shape)).astype("float32") for shape in shapes]
        self.x = arrays if len(arrays) > 1 else arrays[0]
        self.first = [array[:1] for array in arrays] if len(arrays) > 1 else arrays[0][:1]
        self.expected = np.asarray(self.model.predict(self.x, verbose=0))
        self.y = self.expected.argmax(axis=1)

    def build(self) -> Any:
        """Return a new compiled model with the same weights."""
        return self.builder()

    @property
    def builder(self) -> Callable[[], Any]:
        """What builds it, in a process of its own too."""
        name, make = self.keras.__name__, self.make

        def build() -> Any:
            import importlib

            keras = importlib.import_module(name)
            keras.utils.set_random_seed(3)
            model = make(keras)
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(keras.optimizers.SGD(1e-3), loss, metrics=["accuracy"])
            return model

        return build

    @cached_property
    def calibration(self) -> Any:
        """What the activations take, measured once for all exports."""
        return kp.calibrate(self.model, self.x)

    @cached_property
    def file(self) -> Path:
        """The int8 file of the model."""
        path = self.folder / "shared.tflite"
        kp.export_tflite(self.model, path, "int8", self.calibration)
        return path

    def check(self, target: Any, *, tolerance: float = 0.05) -> None:
        """Assert that a model or a file predicts what the model predicts."""
        got = target.predict(self.x, verbose=0) if hasattr(target, "fit") else None
        if got is None:
            scored = kp.evaluate(target, self.x, self.y, reference=self.model)
            assert scored.value("agreement") > 0.9
        else:
            np.testing.assert_allclose(got, self.expected, atol=tolerance * np.abs(self.expected).max())


def fitted(case: Case, *callbacks: Any) -> Any:
    """Return a new model after one epoch with callbacks."""
    model = case.build()
    model.fit(case.x, case.y, batch_size=8, verbose=0, callbacks=list(callbacks))
    return model


def layer_paths(case: Case, path: Path) -> None:
    """Each layer with weights has one path, the same in a second model."""
    paths = list(kp.layer_paths(case.model))
    assert paths == list(kp.layer_paths(case.build()))
    assert len(set(paths)) == len(paths) >= 1


def plan_of(case: Case, path: Path) -> None:
    """A model that was built under no policy is in float32."""
    assert kp.plan_of(case.model).default == "float32"


def apply_plan(case: Case, path: Path) -> None:
    """A copy in bfloat16 predicts nearly the same."""
    copy = kp.apply_plan(case.model, kp.PrecisionPlan.training("mixed_bfloat16"))
    case.check(copy)


def recompile(case: Case, path: Path) -> None:
    """The model itself, with the loss that it has and another optimizer."""
    loss = case.model.loss
    assert kp.recompile(case.model, optimizer="sgd").loss == loss
    assert type(case.model.optimizer).__name__ == "SGD"


def load_model(case: Case, path: Path) -> None:
    """A saved model comes back; one with a class of the user's own where that is registered."""
    if case.make is wrapped:
        pytest.skip("its class is not registered, which Keras refuses; see tests/test_model_file.py")
    case.model.save(path / "model.keras")
    case.check(kp.load_model(path / "model.keras"), tolerance=1e-5)


def lint(case: Case, path: Path) -> None:
    """A sound graph has no error in it."""
    assert [finding for finding in kp.lint(case.model) if finding.severity == "error"] == []


def diagnose(case: Case, path: Path) -> None:
    """A sound model has no error in it, and stays as it was."""
    assert [finding for finding in kp.diagnose(case.model, (case.x, case.y)) if finding.severity == "error"] == []
    case.check(case.model, tolerance=0)


def suggest_plan(case: Case, path: Path) -> None:
    """What is found in a model becomes a plan of its layers."""
    plan = kp.suggest_plan(kp.diagnose(case.model, (case.x, case.y)))
    assert set(plan.layers) <= set(kp.layer_paths(case.model))


def profiler(case: Case, path: Path) -> None:
    """The profiler counts the steps of a fit, and leaves its weights alone."""
    watcher = kp.PrecisionProfiler(verbose=0)
    plain, watched = fitted(case), fitted(case, watcher)
    assert watcher.result.value("batches") == COUNT / 8
    for one, other in zip(plain.get_weights(), watched.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def numerics_probe(case: Case, path: Path) -> None:
    """No layer of a sound model breaks."""
    watcher = kp.PrecisionProfiler(verbose=0, probes=[kp.NumericsProbe()])
    fitted(case, watcher)
    assert watcher.result.value("batches") == COUNT / 8


def loss_scale_guard(case: Case, path: Path) -> None:
    """A model without loss scaling trains as it would."""
    for one, other in zip(fitted(case, kp.LossScaleGuard()).get_weights(), fitted(case).get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def scheduler(case: Case, path: Path) -> None:
    """The precision of an epoch is the one that was scheduled."""
    model = fitted(case, kp.PrecisionScheduler({0: "mixed_bfloat16"}))
    assert kp.plan_of(model).default == "mixed_bfloat16"


def evaluate(case: Case, path: Path) -> None:
    """The model and its file score alike."""
    assert kp.evaluate(case.model, case.x, case.y).value("accuracy") == 1
    case.check(case.file)


def benchmark(case: Case, path: Path) -> None:
    """Both are timed on an input of theirs."""
    for target in (case.model, case.file):
        timed = kp.benchmark(target, case.first, warmup=1, min_calls=3, min_seconds=0)
        assert timed.value("latency_ms") > 0


def export_tflite(case: Case, path: Path) -> None:
    """The float file and the integer file predict as the model does."""
    kp.export_tflite(case.model, path / "float.tflite", "float32")
    case.check(path / "float.tflite")
    assert kp.export_tflite(case.model, path / "int8.tflite", "int8", case.calibration).value("size_bytes") > 0
    case.check(path / "int8.tflite")


def export_onnx(case: Case, path: Path) -> None:
    """The integer file predicts as the model does."""
    pytest.importorskip("tf2onnx")
    kp.export_onnx(case.model, path / "model.onnx", "int8", case.calibration)
    case.check(path / "model.onnx")


def export_openvino(case: Case, path: Path) -> None:
    """The integer file predicts as the model does."""
    pytest.importorskip("openvino")
    kp.export_openvino(case.model, path / "model.xml", "int8", case.calibration)
    case.check(path / "model.xml")


def export_coreml(case: Case, path: Path) -> None:
    """The package has as many inputs as the model, under names of the model's."""
    pytest.importorskip("coremltools")
    result = kp.export_coreml(case.model, path / "model.mlpackage", "float16")
    assert len(result.select("input_type")) == len(case.model.inputs)


def check_tensorrt(case: Case, path: Path) -> None:
    """The integer file is one that TensorRT takes."""
    pytest.importorskip("tf2onnx")
    kp.export_onnx(case.model, path / "model.onnx", "int8", case.calibration)
    assert kp.check_tensorrt(path / "model.onnx").name


def check_micro(case: Case, path: Path) -> None:
    """The file runs on TensorFlow Lite Micro."""
    pytest.importorskip("tflite_micro")
    assert kp.check_micro(case.file).value("runs") == 1


def check_ethos_u(case: Case, path: Path) -> None:
    """The file can be compiled."""
    pytest.importorskip("ethosu")
    assert kp.check_ethos_u(case.file).measurements


def edge(case: Case, path: Path) -> None:
    """The part for devices runs the file on inputs in the model's order."""
    names = [tensor.name for tensor in kp.edge.inspect(case.file).inputs]
    assert len(names) == len(case.model.inputs)


def quantization_report(case: Case, path: Path) -> None:
    """Layers of the file follow those of the float model."""
    report = kp.quantization_report(case.model, case.file, case.x)
    assert min(row.value for row in report.select("snr_db")) > 10


def explain_drop(case: Case, path: Path) -> None:
    """What changes between the model and its file is counted."""
    told = kp.explain_drop(case.model, case.file, case.x, case.y, case.calibration, verbose=False)
    assert told.value("samples", "all") == COUNT


def sensitivity(case: Case, path: Path) -> None:
    """Every layer alone is run in four bits."""
    swept = kp.sensitivity(case.model, case.calibration, validation_data=case.x)
    assert swept.value("divergence", "float model") == 0
    assert len(swept.select("divergence")) > 2


def tuner(case: Case, path: Path) -> None:
    """A search ends with a plan whose file predicts as it was judged."""
    search = kp.PrecisionTuner(
        case.model, case.calibration, (case.x, case.y), choices=("int8", "int4"), max_trials=3,
        objective="accuracy", directory=path, project_name="search", verbose=False,
    )  # fmt: skip
    search.search()
    judged = next(result for result in search.results() if result.plan == search.best_plan)
    search.export_best(path / "best.tflite")
    assert kp.evaluate(path / "best.tflite", case.x, case.y).value("accuracy") == judged.value("accuracy")


def aware_of(case: Case) -> Any:
    """Return the quantization-aware model; skip where it is refused, with the reason of the error."""
    by_tfmot = case.keras.__name__ == "tf_keras"
    if case.make is wrapped or (by_tfmot and case.make is nested):
        reason = "Model Optimization supports" if by_tfmot else "inside a subclassed model"
        with pytest.raises(ModelError, match=reason):
            kp.quantize_aware(case.model, representative_dataset=case.calibration)
        pytest.skip(reason)
    return kp.quantize_aware(case.model, representative_dataset=case.calibration)


def quantize_aware(case: Case, path: Path) -> None:
    """A model that trains as its file will compute is exported as it was trained."""
    aware = aware_of(case)
    result = kp.export_tflite(aware, path / "aware.tflite", None, case.x)
    assert {row.value.split()[1] for row in result.select("operator")} == {"int8"}
    if case.keras.__name__ == "keras":  # ranges of TFMOT settle in training
        case.check(path / "aware.tflite")


def from_quantize_aware(case: Case, path: Path) -> None:
    """The plain model behind it predicts as the model did."""
    case.check(kp.from_quantize_aware(aware_of(case)))


def compare_exports(case: Case, path: Path) -> None:
    """Deployed forms are compared on the model's own samples."""
    compared = kp.compare_exports(
        case.model, case.x, case.y, ("float32", "int8"), representative_dataset=case.x, openings=2,
        timing_seconds=0.5, folder=path, verbose=False,
    )  # fmt: skip
    assert len(compared.results) == 2


def compare_training(case: Case, path: Path) -> None:
    """Two precisions are trained in processes of their own, from the same weights."""
    data = (tuple(case.x) if isinstance(case.x, list) else case.x, case.y)
    compared = kp.compare_training(
        case.builder, data, data, ("float32", "mixed_bfloat16"), seeds=(1,), batch_size=8, processes=1,
        timing_seconds=0.1, verbose=False,
    )  # fmt: skip
    assert compared.result("mixed_bfloat16").value("step_time_ms", "fit") > 0


def compare_paths(case: Case, path: Path) -> None:
    """A float32 run differs from itself by nothing to speak of."""
    data = (tuple(case.x) if isinstance(case.x, list) else case.x, case.y)
    compared = kp.compare_paths(case.builder, data, "float32", steps=2, batch_size=8)
    assert compared.value("loss_difference", "run") < 1e-3


def find_unstable_layers(case: Case, path: Path) -> None:
    """A sound model may be lowered as a whole."""
    data = (tuple(case.x) if isinstance(case.x, list) else case.x, case.y)
    assert kp.find_unstable_layers(case.build, data, "mixed_bfloat16", batch_size=8).plan.layers == {}


def find_max_batch_size(case: Case, path: Path) -> None:
    """The largest batch of a small model is the limit that was given."""
    shapes = [tuple(tensor.shape)[1:] for tensor in case.model.inputs]

    def make_batch(count: int) -> Any:
        import numpy as np

        arrays = tuple(np.zeros((count, *shape), "float32") for shape in shapes)
        return (arrays if len(arrays) > 1 else arrays[0]), np.zeros(count, "int64")

    result = kp.find_max_batch_size(case.builder, make_batch, ("float32",), max_batch=16, verbose=False)
    assert result.value("largest_batch") == 16


def hypermodel(case: Case, path: Path) -> None:
    """Precision is a hyperparameter of a model that a function builds."""
    keras_tuner = pytest.importorskip("keras_tuner")
    parameters = keras_tuner.HyperParameters()
    hypermodel = kp.PrecisionHyperModel(lambda hp: case.build(), ("mixed_bfloat16", "float32"), groups="layer")
    hypermodel.build(parameters)
    assert len(parameters.values) >= 1


def reports(case: Case, path: Path) -> None:
    """What was measured can be shown and saved."""
    scored = kp.evaluate(case.file, case.x, case.y, reference=case.model)
    assert case.file.name in kp.render(scored)
    kp.save_report(scored, path / "report.html")
    assert (path / "report.html").stat().st_size > 1000


FUNCTIONS: dict[str, Callable[[Case, Path], None]] = {
    "PrecisionProfiler": profiler,
    "NumericsProbe": numerics_probe,
    "LossScaleGuard": loss_scale_guard,
    "PrecisionHyperModel": hypermodel,
    "PrecisionScheduler": scheduler,
    "PrecisionTuner": tuner,
    "apply_plan": apply_plan,
    "recompile": recompile,
    "benchmark": benchmark,
    "calibrate": lambda case, path: case.check(case.file),
    "check_ethos_u": check_ethos_u,
    "check_micro": check_micro,
    "check_tensorrt": check_tensorrt,
    "compare_exports": compare_exports,
    "compare_paths": compare_paths,
    "compare_training": compare_training,
    "diagnose": diagnose,
    "edge": edge,
    "evaluate": evaluate,
    "explain_drop": explain_drop,
    "export_coreml": export_coreml,
    "export_onnx": export_onnx,
    "export_openvino": export_openvino,
    "export_tflite": export_tflite,
    "find_max_batch_size": find_max_batch_size,
    "find_unstable_layers": find_unstable_layers,
    "from_quantize_aware": from_quantize_aware,
    "layer_paths": layer_paths,
    "lint": lint,
    "load_model": load_model,
    "plan_of": plan_of,
    "quantization_report": quantization_report,
    "quantize_aware": quantize_aware,
    "save_report": reports,
    "sensitivity": sensitivity,
    "suggest_plan": suggest_plan,
}

OF_NO_MODEL = {
    "METRICS", "Budget", "Calibration", "Comparison", "Environment", "Finding", "Measurement", "PrecisionError",
    "PrecisionPlan", "PrecisionWarning", "Probe", "QuantizeRule", "Result", "check_results", "formats", "hardware",
    "register_quantize_rule", "register_tfmot_config", "render",
}  # fmt: skip
"""Values, registries, and what is given results."""

OF_A_LAYER = {"LossScaleOptimizer", "PrecisionWrapper", "QuantizeWrapper", "precision", "set_precision"}
"""What a model is made with; tests of their own run on every stack."""

SLOW = {
    "compare_exports": (two_inputs,),
    "compare_paths": (two_inputs,),
    "compare_training": (two_inputs,),
    "export_coreml": (two_inputs,),
    "find_max_batch_size": (two_inputs,),
    "PrecisionTuner": (two_inputs, nested),
}
"""Functions that start several processes, or convert again and again, are tried on some of the models."""


@pytest.fixture(scope="module", params=MODELS, ids=lambda make: make.__name__)
def case(request: pytest.FixtureRequest, stack: Any, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A model of the stack under test."""
    return Case(stack.keras, request.param, tmp_path_factory.mktemp(request.param.__name__))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_takes_models_as_users_build_them(case: Case, name: str, tmp_path: Path) -> None:
    """Names that Keras gives by default, one and two inputs: it works, and agrees with the model's own prediction."""
    if case.make not in SLOW.get(name, MODELS):
        pytest.skip("it starts several processes, and is tried on other models")
    FUNCTIONS[name](case, tmp_path)


def test_each_public_name_is_tried_or_takes_no_model() -> None:
    """A new public function is called here with a model, or named as one that takes none."""
    assert sorted([*FUNCTIONS, *OF_NO_MODEL, *OF_A_LAYER]) == sorted(kp.__all__)
