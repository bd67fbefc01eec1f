"""Private attributes and patched methods of Keras, tf_keras and KerasTuner that the package relies on: these versions have them.

When a test of this file fails after an update, look for what replaced the attribute, in the file that a comment links
at the place that the message names; then change that place and the table below.
"""

import ast
import importlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import nets
import numpy as np
import pytest

import keras_precision

pytestmark = pytest.mark.every_stack

STACK = os.environ["KERAS_PRECISION_STACK"]
ROOT = Path(keras_precision.__file__).parent


class Use(NamedTuple):
    """An attribute that is no public API, or a method that is replaced.

    Attributes:
        owner: A name in ``OWNERS``, or the path of a module or class.
        attribute: Its name there.
        place: The file or folder of the package that uses it.
        purpose: What for.
        backend: The backend of Keras 3 that has it; empty for all.
    """

    owner: str
    attribute: str
    place: str
    purpose: str
    backend: str = ""


KERAS_3 = [
    # Layers and models
    Use("keras.layers.Layer", "__call__", "_adapters/adapter.py", "replaced, to watch the calls of layers"),
    Use("model", "_flatten_layers", "_adapters/adapter.py", "layers inside composite layers"),
    Use("model", "_inputs_struct", "_adapters/keras3/adapter.py", "names and structure of inputs"),
    Use("model", "_nodes_by_depth", "quantization/qat", "the graph of layers"),
    Use("sequential model", "_functional", "quantization/qat", "the graph of a sequential model"),
    Use("symbolic tensor", "_keras_history", "_adapters/layer_facts.py", "the layer that produced a tensor"),
    Use("layer", "_inbound_nodes", "quantization/qat", "the calls of a layer"),
    Use("layer", "_call_signature", "quantization/qat", "the arguments that a layer takes"),
    Use("embedding", "_embeddings", "quantization/qat", "the weight to be fake-quantized"),
    Use("attention", "_query_dense", "quantization/qat", "attention for TFMOT"),
    Use("attention", "_key_dense", "quantization/qat", "attention for TFMOT"),
    Use("attention", "_value_dense", "quantization/qat", "attention for TFMOT"),
    Use("attention", "_output_dense", "quantization/qat", "attention for TFMOT"),
    Use("attention", "_inverse_sqrt_key_dim", "quantization/qat", "attention for TFMOT"),
    Use("attention", "_dot_product_equation", "quantization/qat", "attention for TFMOT"),
    Use("attention", "_combine_equation", "quantization/qat", "attention for TFMOT"),
    Use("attention", "_softmax", "quantization/qat", "attention for TFMOT"),
    Use("keras.src.models.functional", "Functional", "_adapters/keras3/adapter.py", "the class of functional models"),
    Use("keras.src.applications.convnext", "LayerScale", "quantization/qat", "a layer without a public name"),
    Use("keras.src.applications.inception_resnet_v2", "CustomScaleLayer", "quantization/qat", "the same"),
    Use("keras.src.backend.common.masking", "get_keras_mask", "_adapters/keras3/training_state.py", "the mask of a tensor"),
    Use("keras.src.backend.common.masking", "set_keras_mask", "_adapters/keras3/training_state.py", "the mask of a tensor"),
    # Training
    Use("model", "_compile_config", "_adapters/rebuild.py", "the arguments of compile"),
    Use("model", "_loss_tracker", "_adapters/keras3/adapter.py", "the loss of a batch, samples of an epoch"),
    Use("model", "_compute_loss", "_adapters/keras3/training_state.py", "the loss as train_step computes it"),
    Use("model", "_call_has_training_arg", "_adapters/keras3/training_state.py", "the same"),
    Use("model", "train_function", "_adapters/training/train_function.py", "replaced, to wrap the training step"),
    Use("model", "make_train_function", "_adapters/training/train_function.py", "a new step after a change of policies"),
    Use("model", "reset_metrics", "_adapters/adapter.py", "replaced, to count the beginnings of means"),
    Use("keras.metrics.Mean", "update_state", "_adapters/training/batch_loss.py", "replaced, to read the loss of a batch"),
    Use("loss tracker", "total", "_adapters/training/restarted_loss.py", "restarting the mean of the loss"),
    Use("loss tracker", "count", "_adapters/training/restarted_loss.py", "the same, samples of an epoch"),
    Use("keras.callbacks.Callback.on_train_batch_end", "_is_default", "_adapters/training/callback.py", "asynchronous hooks"),
    Use("metric", "_direction", "search/objective", "whether more is better"),
    Use("model during fit", "_jax_state", "_adapters/keras3/training_state.py", "state outside the model", "jax"),
    Use("model", "_jax_state_synced", "_adapters/keras3/training_state.py", "the same", "jax"),
    Use("keras.src.backend.torch.trainer.TorchEpochIterator", "__next__", "_adapters/training/data_wait.py", "replaced, to time the pulls", "torch"),
    Use("keras.src.backend.tensorflow.trainer.TensorFlowTrainer", "make_train_function", "_adapters/keras3/adapter.py", "a step that takes batches from Python", "tensorflow"),
    # Loss scaling
    Use("optimizer", "_iterations", "_adapters/keras3/adapter.py", "the count of updates"),
    Use("keras.optimizers.LossScaleOptimizer", "_stateful_handle_finite_grads", "_adapters/training/loss_scale_optimizer.py", "overridden, for the bounds of the scale"),
    Use("keras.optimizers.LossScaleOptimizer", "_stateful_handle_non_finite_grads", "_adapters/training/loss_scale_optimizer.py", "the same"),
    Use("keras.optimizers.LossScaleOptimizer", "_stateless_handle_finite_grads", "_adapters/training/loss_scale_optimizer.py", "the same"),
    Use("keras.optimizers.LossScaleOptimizer", "_stateless_handle_non_finite_grads", "_adapters/training/loss_scale_optimizer.py", "the same"),
    # Saved models
    Use("keras.src.saving.serialization_lib", "SafeModeScope", "_adapters/rebuild.py", "Lambda layers of the caller"),
    Use("keras.src.api_export", "get_symbol_from_name", "_adapters/model_file/keras_objects.py", "names in model files"),
]  # fmt: skip

TF_KERAS = [
    # Layers and models
    Use("tf_keras.layers.Layer", "__call__", "_adapters/adapter.py", "replaced, to watch the calls of layers"),
    Use("model", "_flatten_layers", "_adapters/adapter.py", "layers inside composite layers"),
    Use("model", "_nested_inputs", "_adapters/tf_keras/adapter.py", "names and structure of inputs"),
    Use("symbolic tensor", "_keras_history", "_adapters/layer_facts.py", "the layer that produced a tensor"),
    Use("masked tensor", "_keras_mask", "_adapters/tf_keras/training_state.py", "the mask of a tensor"),
    Use("tf_keras.src.engine.functional", "Functional", "_adapters/tf_keras/adapter.py", "the class of functional models"),
    # Policies
    Use("layer", "_set_dtype_policy", "_adapters/tf_keras/adapter.py", "changing the policy"),
    Use("layer", "_autocast", "_adapters/tf_keras/adapter.py", "the same"),
    Use("layer", "_trainable_weights", "_adapters/tf_keras/adapter.py", "the same"),
    Use("layer", "_non_trainable_weights", "_adapters/tf_keras/adapter.py", "the same"),
    Use("layer without get_config", "_auto_config", "_adapters/tf_keras/adapter.py", "the saved policy"),
    Use("tf_keras.src.mixed_precision.autocast_variable", "create_autocast_variable", "_adapters/tf_keras/adapter.py", "changing the policy"),
    Use("variable of mixed precision", "_variable", "_adapters/tf_keras/adapter.py", "the variable itself"),
    # Training
    Use("model", "_compile_config", "_adapters/rebuild.py", "the arguments of compile"),
    Use("model", "_is_compiled", "_adapters/training/training_state.py", "whether there is a loss"),
    Use("model", "_train_counter", "_adapters/training/step_replay.py", "the count of steps"),
    Use("model", "_jit_compile", "_adapters/training/step_replay.py", "how the step is compiled"),
    Use("model", "_steps_per_execution", "_adapters/training/step_replay.py", "batches of one call"),
    Use("model", "train_function", "_adapters/training/train_function.py", "replaced, to wrap the training step"),
    Use("model", "make_train_function", "_adapters/training/train_function.py", "a new step after a change of policies"),
    Use("model", "reset_metrics", "_adapters/adapter.py", "replaced, to count the beginnings of means"),
    Use("losses", "_total_loss_mean", "_adapters/tf_keras/adapter.py", "the loss of a batch, samples of an epoch"),
    Use("loss tracker", "total", "_adapters/training/restarted_loss.py", "restarting the mean of the loss"),
    Use("loss tracker", "count", "_adapters/training/restarted_loss.py", "the same, samples of an epoch"),
    Use("tf_keras.callbacks.Callback", "_implements_train_batch_hooks", "_adapters/training/callback.py", "which hooks are called"),
    Use("tf_keras.callbacks.Callback", "_implements_test_batch_hooks", "_adapters/training/callback.py", "the same"),
    Use("tf_keras.callbacks.Callback", "_implements_predict_batch_hooks", "_adapters/training/callback.py", "the same"),
    # Loss scaling
    Use("loss scale optimizer", "_loss_scale", "_adapters/tf_keras/adapter.py", "counting skipped steps"),
    Use("scaled optimizer", "_is_wrapped_by_loss_scale_optimizer", "_adapters/tf_keras/adapter.py", "wrapping it again"),
    Use("loss scale", "update", "_adapters/tf_keras/adapter.py", "replaced, to count skipped steps"),
    Use("loss scale", "_current_loss_scale", "_adapters/tf_keras/adapter.py", "replaying steps"),
    Use("loss scale", "_counter", "_adapters/tf_keras/adapter.py", "replaying steps"),
    # Saved models
    Use("tf_keras.src.saving.serialization_lib", "SafeModeScope", "_adapters/rebuild.py", "Lambda layers of the caller"),
    Use("tensorflow.python.util.tf_export", "get_symbol_from_name", "_adapters/model_file/keras_objects.py", "names in model files"),
    Use("tensorflow.python.util.tf_export", "get_canonical_name_for_symbol", "_adapters/model_file/keras_objects.py", "the same"),
    Use("tf_keras.src.initializers", "populate_deserializable_objects", "_adapters/model_file/keras_objects.py", "the same"),
    Use("tf_keras.src.initializers", "LOCAL", "_adapters/model_file/keras_objects.py", "the same"),
    Use("tf_keras.src.layers.serialization", "populate_deserializable_objects", "_adapters/model_file/keras_objects.py", "the same"),
    Use("tf_keras.src.layers.serialization", "LOCAL", "_adapters/model_file/keras_objects.py", "the same"),
]  # fmt: skip

SUPERVISION = "search/distributed/supervision.py"

KERAS_TUNER = [
    # Writing files atomically
    Use("oracle", "save", SUPERVISION, "replaced, to write atomically"),
    Use("oracle", "_save_trial", SUPERVISION, "replaced, to write atomically"),
    Use("oracle", "_get_oracle_fname", SUPERVISION, "the path of the oracle's file"),
    Use("oracle", "_get_trial_dir", SUPERVISION, "the folder of a trial"),
    # Trials that fail, or whose worker is lost
    Use("oracle", "create_trial", SUPERVISION, "replaced, to stop workers after too many failures"),
    Use("oracle", "end_trial", SUPERVISION, "replaced, to end a trial once"),
    Use("oracle", "reload", SUPERVISION, "replaced, to reconcile files after a kill"),
    Use("oracle", "_check_consecutive_failures", SUPERVISION, "replaced, since its exception keeps the lock"),
    Use("oracle", "_retry_queue", SUPERVISION, "trials that run again"),
    Use("oracle", "_run_times", SUPERVISION, "the number of retries of a trial"),
    Use("oracle", "_record_values", SUPERVISION, "a trial that was started before a kill"),
    Use("oracle", "ongoing_trials", SUPERVISION, "the trial of a worker"),
    Use("oracle", "tuner_ids", SUPERVISION, "the workers that a chief waits for"),
    Use("oracle", "start_order", SUPERVISION, "trials in the order in which they started"),
    Use("oracle", "end_order", SUPERVISION, "trials in the order in which they ended"),
    # Grid searches that go on
    Use("grid oracle", "_compare", SUPERVISION, "the order of a grid"),
    Use("grid oracle", "_ordered_ids", SUPERVISION, "the same"),
    Use("grid oracle", "_populate_next", SUPERVISION, "the same"),
    # Chief and workers
    Use("keras_tuner.src.distribute.oracle_chief", "OracleServicer", SUPERVISION, "the service of a chief"),
    Use("servicer", "stop_triggered", SUPERVISION, "whether a worker was told to stop"),
    Use("keras_tuner.src.protos", "get_service_grpc", SUPERVISION, "the service of a chief"),
    Use("keras_tuner.src.distribute.utils", "has_chief_oracle", "search/distributed/role.py", "recognizes a distributed search"),
    Use("keras_tuner.Tuner", "_is_worker", "search/tuner.py", "overridden, since the address is optional"),
    Use("keras_tuner.Tuner", "_get_tuner_fname", "search/tuner.py", "overridden, so that a chief continues the search of one process"),
]  # fmt: skip

# Private attributes of others.
OTHERS = {
    "_trace": "of tracers of JAX, in _adapters/tensors.py: tests/adapters/test_step_observer.py fails without it",
    "_getframe": "of sys",
    "_fields": "of named tuples",
    "_replace": "of named tuples",
}

KERAS = TF_KERAS if STACK == "tf_keras" else [use for use in KERAS_3 if use.backend in ("", STACK)]
USES = [*KERAS, *KERAS_TUNER]


def compiled(keras: Any) -> Any:
    """Return a compiled functional model whose inputs are a dict."""
    image = keras.layers.Input((8,), name="image")
    model = keras.Model({"image": image}, keras.layers.Dense(1)(image))
    model.compile(keras.optimizers.SGD(), "mse")
    return model


def during_fit(keras: Any) -> SimpleNamespace:
    """Return the attributes that a model has after a batch of ``fit``."""
    model, seen = compiled(keras), {}
    note = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.update(vars(model)))
    model.fit({"image": np.ones((4, 8))}, np.ones((4, 1)), verbose=0, callbacks=[note])
    return SimpleNamespace(**seen)


def without_get_config(keras: Any) -> Any:
    """Return a layer whose class leaves its configuration to Keras."""

    class Own(keras.layers.Layer):
        def __init__(self, size: int = 2, **kwargs: Any) -> None:
            super().__init__(**kwargs)

    return Own(size=3)


def mixed_kernel(keras: Any) -> Any:
    """Return a weight of a layer in mixed precision."""
    layer = keras.layers.Dense(2, dtype="mixed_float16")
    layer.build((None, 3))
    return layer.kernel


def tracker(keras: Any) -> Any:
    """Return the metric that averages the loss."""
    model = compiled(keras)
    return model.compiled_loss._total_loss_mean if STACK == "tf_keras" else model._loss_tracker


OWNERS: dict[str, Callable[[Any], Any]] = {
    "model": compiled,
    "model during fit": during_fit,
    "sequential model": nets.mlp,
    "symbolic tensor": lambda keras: compiled(keras).outputs[0],
    "masked tensor": lambda keras: keras.layers.Masking()(np.ones((2, 3, 4), "float32")),
    "layer": lambda keras: compiled(keras).layers[-1],
    "layer without get_config": without_get_config,
    "embedding": lambda keras: called(keras, keras.layers.Embedding(4, 2), (3,)),
    "attention": lambda keras: called_attention(keras),
    "losses": lambda keras: compiled(keras).compiled_loss,
    "loss tracker": tracker,
    "metric": lambda keras: keras.metrics.BinaryAccuracy(),
    "optimizer": lambda keras: keras.optimizers.SGD(),
    "loss scale optimizer": lambda keras: keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD()),
    "scaled optimizer": lambda keras: keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD()).inner_optimizer,
    "loss scale": lambda keras: keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD())._loss_scale,
    "variable of mixed precision": mixed_kernel,
    "oracle": lambda keras: tuner().oracles.RandomSearchOracle("loss"),
    "grid oracle": lambda keras: tuner().oracles.GridSearchOracle("loss"),
    "servicer": lambda keras: importlib.import_module("keras_tuner.src.distribute.oracle_chief").OracleServicer(None),
}


def tuner() -> Any:
    """Return the module of KerasTuner."""
    return importlib.import_module("keras_tuner")


def called(keras: Any, layer: Any, shape: tuple[int, ...]) -> Any:
    """Return a layer after a call."""
    layer(keras.layers.Input(shape))
    return layer


def called_attention(keras: Any) -> Any:
    """Return an attention after a call."""
    layer, x = keras.layers.MultiHeadAttention(2, 4), keras.layers.Input((5, 8))
    layer(x, x)
    return layer


def owner_of(name: str, keras: Any) -> Any:
    """Return an object by its name in ``OWNERS``, or a module or class by its path."""
    if name in OWNERS:
        return OWNERS[name](keras)
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for part in parts[end:]:
            value = getattr(value, part)
        return value
    raise ImportError(name)


@pytest.mark.parametrize("use", USES, ids=lambda use: f"{use.owner}-{use.attribute}")
def test_this_keras_has_it(stack: Any, use: Use) -> None:
    """The attribute, or the method that is replaced, is where the package looks for it."""
    module = tuner() if use in KERAS_TUNER else stack.keras
    version = f"{module.__name__} {module.__version__}"
    remedy = f"See keras_precision/{use.place}, which uses it for: {use.purpose}."
    try:
        owner = owner_of(use.owner, stack.keras)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"Expected '{use.owner}' with '{use.attribute}' in {version}. Received: {error!r}. {remedy}")
    if not hasattr(owner, use.attribute):
        pytest.fail(f"Expected '{use.attribute}' of '{use.owner}' in {version}. Received: no such attribute. {remedy}")


def files_of(place: str) -> list[Path]:
    """Return the Python files of a file or a folder of the package."""
    path = ROOT / place
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


@pytest.mark.parametrize("use", [*KERAS_3, *TF_KERAS, *KERAS_TUNER], ids=lambda use: f"{use.owner}-{use.attribute}")
def test_the_table_names_the_place(use: Use) -> None:
    """The attribute is mentioned where the table says that it is used."""
    assert any(use.attribute in path.read_text(encoding="utf-8") for path in files_of(use.place))


def private_names(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Yield the private attributes in a file, and whether they are set or defined there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr, isinstance(node.ctx, ast.Store) and ast.unparse(node.value) in ("self", "cls")
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, True
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, True
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr") and len(node.args) > 1:
            yield ast.unparse(node.args[1]).strip("'"), False


def test_the_table_is_complete() -> None:
    """What the adapters, quantization-aware training and the search read of foreign objects is in the table."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in files_of(".")}
    ours = {name for tree in trees.values() for name, is_ours in private_names(tree) if is_ours}
    known = ours | {use.attribute for use in [*KERAS_3, *TF_KERAS, *KERAS_TUNER]} | set(OTHERS)
    foreign = {
        f"{path.relative_to(ROOT)}: {name}"
        for folder in ("_adapters", "quantization/qat", "search")
        for path in files_of(folder)
        for name, _ in private_names(trees[path])
        if name.startswith("_") and not name.startswith("__") and name not in known
    }
    assert foreign == set()
