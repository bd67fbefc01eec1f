"""KerasAdapter: what Keras 3 and tf_keras have in common, and the methods in which they differ."""

import keyword
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision._adapters.backend import Compute
from keras_precision._adapters.training.batch_loss import BatchLoss
from keras_precision._adapters.training.data_wait import DataWait
from keras_precision._adapters.training.loss_scaling import LossScaling
from keras_precision.core.errors import ModelError
from keras_precision.core.model_inputs import Input

__all__ = ["KerasAdapter"]

_RESERVED = re.compile(r"self|output_\d+")
"""Names of an input that are taken: by the function that is exported, and by the outputs of files."""

# Layers that look up, hash or count, and compute nothing in a precision.
_LOOKUPS = (
    "CategoryEncoding",
    "Discretization",
    "HashedCrossing",
    "Hashing",
    "IntegerLookup",
    "StringLookup",
    "TextVectorization",
)


class KerasAdapter(ABC):
    """What this package needs from a Keras version; ``keras`` is the module ``keras`` or ``tf_keras``."""

    def __init__(self, keras: ModuleType) -> None:
        self.keras: Any = keras

    @property
    @abstractmethod
    def compute(self) -> Compute:
        """The backend."""

    @abstractmethod
    def children(self, model: Any) -> list[Any]:
        """Return the direct layers of a model, without inputs and without operations wrapped as layers."""

    @abstractmethod
    def auto_name(self, layer: Any) -> str | None:
        """Return a layer's automatic name without its number; None if the user named it."""

    @abstractmethod
    def input_names(self, model: Any) -> Sequence[Sequence[str]]:
        """Return the names of a built model's inputs, in its order: the name, then the key in a dict of inputs."""

    @abstractmethod
    def packed(self, model: Any, inputs: Sequence[Any]) -> Any:
        """Pack one tensor or array per input into the structure that the model was built with."""

    @abstractmethod
    def flat(self, structure: Any) -> list[Any]:
        """Return the leaves of a structure."""

    def recurrent_states(self, layer: Any) -> list[Any]:
        """Return the variables in which a stateful recurrent layer keeps its state between calls."""
        states = self.flat(getattr(layer, "states", None)) if getattr(layer, "stateful", False) else []
        return [state for state in states if hasattr(state, "assign")]

    @abstractmethod
    def call(self, model: Any, inputs: Sequence[Any]) -> list[Any]:
        """Call a model for inference on one tensor per input; return one tensor per output."""

    @abstractmethod
    def call_for_training(self, model: Any, inputs: Sequence[Any]) -> Any:
        """Call a model as in training, on one tensor per input, without changing its variables."""

    @abstractmethod
    def tensorflow_variables(self, model: Any) -> list[Any]:
        """Return the ``tf.Variable`` objects of a model's variables, on the TensorFlow backend."""

    @abstractmethod
    def loss_scaling(self, model: Any, optimizer: Any = None) -> LossScaling:
        """Return the reader of a model's loss scaling; ``optimizer`` is that of a custom training loop."""

    @abstractmethod
    def bound_loss_scale(self, model: Any, min_scale: float, max_scale: float) -> None:
        """Keep a compiled model's loss scale between two bounds from now on; without loss scaling, do nothing."""

    @abstractmethod
    def data_wait(self, model: Any) -> AbstractContextManager[DataWait]:
        """Measure, inside a ``with`` block, how long a running ``fit`` waits for its batches."""

    def batch_loss(self, model: Any) -> AbstractContextManager[BatchLoss]:
        """Read, inside a ``with`` block, the loss of single batches of a running ``fit``."""
        return nullcontext(BatchLoss())

    @abstractmethod
    def has_own_train_step(self, model: Any) -> bool:
        """Tell whether a model's class overrides Keras's training step."""

    @abstractmethod
    def samples_seen(self, model: Any) -> int | None:
        """Return the number of samples trained in the running epoch; None if the model does not count them."""

    @abstractmethod
    def set_policy(self, layer: Any, precision: str) -> None:
        """Set the policy of a layer, built or not; functions compiled before still compute in the old one."""

    def config_of(self, model: Any) -> dict[str, Any]:
        """Return a configuration from which the model can be rebuilt."""
        config: dict[str, Any] = model.get_config()
        return config

    @abstractmethod
    def is_loss_scaling(self, optimizer: Any) -> bool:
        """Tell whether an optimizer wraps an ``inner_optimizer`` in dynamic loss scaling."""

    @abstractmethod
    def scaled(self, optimizer: Any, **options: Any) -> Any:
        """Return an optimizer wrapped in dynamic loss scaling with bounds, and with these options of its class."""

    def unscaled(self, optimizer: Any) -> Any:
        """Return the optimizer inside loss scaling; the one itself where there is none."""
        return optimizer.inner_optimizer if self.is_loss_scaling(optimizer) else optimizer

    def bytes_by_kind(self, model: Any, optimizer: Any = None) -> dict[str, int]:
        """Return the bytes of ``weights``, ``gradients`` (one per trainable weight, in its dtype) and ``optimizer`` state."""
        used = optimizer or getattr(model, "optimizer", None)
        variables = getattr(used, "variables", None) or ()
        slots = variables() if callable(variables) else variables  # a method in older optimizers of tf_keras
        return {
            "weights": sum(map(_size, model.variables)),
            "gradients": sum(map(_size, model.trainable_variables)),
            "optimizer": sum(map(_size, slots)),
        }

    def is_model(self, layer: Any) -> bool:
        """Tell whether a layer is a model, whose layers have paths."""
        return isinstance(layer, self.keras.Model)

    def policy_name(self, layer: Any) -> str:
        """Return the name of a layer's dtype policy."""
        return str(layer.dtype_policy.name)

    def is_lookup(self, layer: Any) -> bool:
        """Tell whether a layer looks up, hashes or counts, in a type of its own."""
        return isinstance(layer, tuple(getattr(self.keras.layers, name) for name in _LOOKUPS))

    def adapted_arguments(self, layer: Any) -> dict[str, Any]:
        """Return the attributes of a lookup from which its configuration would contain what it was adapted to."""
        if not isinstance(layer, (self.keras.layers.StringLookup, self.keras.layers.IntegerLookup)):
            return {}
        # In tf_keras, input_vocabulary may also be the path of a file, which may be gone.
        is_in_config = layer.input_vocabulary is not None and not isinstance(layer.input_vocabulary, str)
        if is_in_config or not layer.get_vocabulary(include_special_tokens=False):
            return {}
        vocabulary = layer.get_vocabulary()
        arguments: dict[str, Any] = {"input_vocabulary": vocabulary}
        if layer.output_mode == "tf_idf":
            arguments["input_idf_weights"] = layer.idf_weights_const.numpy()[: len(vocabulary)].tolist()
        return arguments

    @abstractmethod
    def without_changes(self, model: Any) -> AbstractContextManager[Any]:
        """Undo what calls of a model assign to its variables, after a ``with`` block."""

    def inputs(self, model: Any) -> tuple[Input, ...]:
        """Return the inputs of a built functional or sequential model."""
        if not self.is_model(model):
            raise ModelError(
                f"Expected a Keras model. Received: the layer '{model.name}' of type {type(model).__name__}."
            )
        if not isinstance(model, self.functional_classes):
            raise ModelError(
                f"Expected a functional or sequential model. Received: the subclassed model '{model.name}' of type {type(model).__name__}. "
                "Wrap it: x = keras.Input(shape); model = keras.Model(x, subclassed(x))."
            )
        if not model.built or not getattr(model, "inputs", None):
            raise ModelError(
                f"Expected a built model. Received: '{model.name}', whose input shape is not known yet. "
                "Give it an Input first, or call model.build((None, ...)) with the shape of its input."
            )
        aliases = [tuple(map(str, names)) for names in self.input_names(model)]
        _refuse_strings(model, aliases)
        names = _unique(re.sub(r"\W", "_", names[-1], flags=re.ASCII) for names in aliases)
        return tuple(
            Input(name, tuple(tensor.shape)[1:], _element_type(tensor), alias)
            for name, tensor, alias in zip(names, model.inputs, aliases, strict=True)
        )

    @property
    @abstractmethod
    def functional_classes(self) -> tuple[Any, ...]:
        """The classes of functional and sequential models."""

    def walk(self, layer: Any) -> Iterator[Any]:
        """Yield a layer and all layers inside it, those of composite layers included."""
        # Model.layers stops at composite layers. The recursive walk is private in both Keras versions:
        # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/layers/layer.py,
        # https://github.com/keras-team/tf-keras/blob/v2.21.0/tf_keras/engine/base_layer.py
        yield layer
        yield from layer._flatten_layers(include_self=False)

    @contextmanager
    def counting_resets(self, model: Any) -> Iterator[list[None]]:
        """Yield a list that grows by one whenever the model's metrics are reset, which ``evaluate`` also does."""
        resets: list[None] = []
        original = model.reset_metrics

        def reset_metrics() -> None:
            resets.append(None)
            original()

        # fit and evaluate call reset_metrics at the start of an epoch, and Keras has no callback for it:
        # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/trainers/trainer.py. object.__setattr__ avoids the
        # tracking of attributes in Layer.__setattr__.
        object.__setattr__(model, "reset_metrics", reset_metrics)
        try:
            yield resets
        finally:
            if vars(model).get("reset_metrics") is reset_metrics:  # and not that of another profiler, around it
                object.__delattr__(model, "reset_metrics")

    @contextmanager
    def watching_calls(self, watch: Callable[[Any, Callable[[], Any]], Any]) -> Iterator[None]:
        """Pass all calls of layers through ``watch(layer, proceed)`` inside a ``with`` block.

        ``proceed`` makes the call; ``watch`` must return its result.
        """
        base = self.keras.layers.Layer
        original = base.__call__

        def watched(layer: Any, *args: Any, **kwargs: Any) -> Any:
            return watch(layer, lambda: original(layer, *args, **kwargs))

        # Keras has no hooks on layers, so Layer.__call__ of the base class is replaced:
        # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/layers/layer.py,
        # https://github.com/keras-team/tf-keras/blob/v2.21.0/tf_keras/engine/base_layer.py
        base.__call__ = watched
        try:
            yield
        finally:
            base.__call__ = original

    def convertible_operations(self) -> AbstractContextManager[None]:
        """Trace operations for TFLiteConverter inside a ``with`` block, where Keras's own have no kernel there."""
        return nullcontext()

    def operation_name(self, graph_operation: Any) -> str | None:
        """Return the function of Keras that added an operation to a TensorFlow graph; None if none did."""
        return None

    def answers(self, model: Any, inputs: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Return one array per output for one batch, with one array per input, without compiling anything."""
        return self.flat_arrays(self.call(model, inputs))

    def flat_arrays(self, outputs: Any) -> list[npt.NDArray[Any]]:
        """Return the tensors of a structure as arrays, in float32 where they are narrower."""
        convert = getattr(getattr(self.keras, "ops", None), "convert_to_numpy", np.asarray)  # tf_keras has no ops
        return [_as_arrays(convert(output)) for output in self.flat(outputs)]

    def predict(self, model: Any, inputs: Any, batch_size: int) -> Any:
        """Return a model's predictions as NumPy arrays, in float32 where it computes in lower precision."""
        predictions = model.predict(inputs, batch_size=batch_size, verbose=0)
        return _as_arrays(predictions)

    def predict_on_batch(self, model: Any, inputs: Any) -> Any:
        """Return a model's predictions for one batch, through its compiled function, as ``predict`` does."""
        return _as_arrays(model.predict_on_batch(inputs))

    def load(
        self,
        path: str,
        *,
        unsafe: bool = False,
        custom_objects: Mapping[str, Any] | None = None,
        compiled: bool = False,
    ) -> Any:
        """Load a model from a file that was checked; ``unsafe`` lets code in it run, ``compiled`` compiles it as it was."""
        return self.keras.models.load_model(
            path, custom_objects=dict(custom_objects or {}), compile=compiled, safe_mode=not unsafe
        )


def snake_case(name: str, words: str) -> str:
    """Return a class name as Keras turns it into a layer name; ``words`` is its regular expression for word starts."""
    spaced = re.sub(words, r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", spaced).lower()


def recompute_constants(adapter: KerasAdapter, layer: Any) -> None:
    """Let a built Normalization compute its mean and variance in the policy that it has now."""
    if not isinstance(layer, adapter.keras.layers.Normalization) or not layer.built:
        return
    if layer.input_mean is None:
        layer.finalize_state()
    else:
        layer.build(layer.get_build_config()["input_shape"])  # without weights


def is_numbered(name: str, stem: str) -> bool:
    """Tell whether ``name`` is ``stem``, or ``stem`` followed by a number."""
    return re.fullmatch(rf"{re.escape(stem)}(_\d+)?", name) is not None


def _size(variable: Any) -> int:
    """Return the bytes of a variable."""
    name = str(getattr(variable.dtype, "name", variable.dtype))
    width = 2 if name == "bfloat16" else np.dtype(name).itemsize
    return math.prod(int(size) for size in variable.shape) * width


def _refuse_strings(model: Any, aliases: Sequence[tuple[str, ...]]) -> None:
    for tensor, names in zip(model.inputs, aliases, strict=True):
        if str(getattr(tensor.dtype, "name", tensor.dtype)) == "string":
            raise ModelError(
                f"Expected inputs of numbers. Received: '{model.name}', whose input '{names[-1]}' takes strings, which no number "
                "format holds. Look them up before the model: keras.Model(lookup.output, model.outputs), with the layer that does "
                "so (StringLookup, TextVectorization, Hashing), is the model without strings."
            )


def _element_type(tensor: Any) -> str:
    name = str(getattr(tensor.dtype, "name", tensor.dtype))
    return "float32" if "float" in name else np.dtype(name).name  # Keras itself casts to 16 bits


def _unique(names: Iterable[str]) -> list[str]:
    """Turn names into Python identifiers that differ in more than case."""
    # They are arguments of a function, and names of a graph, which differ in more than case:
    # https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/python/framework/ops.py (``unique_name``).
    unique: list[str] = []
    taken: set[str] = set()
    for name in names:
        usable = name[:1].isalpha() and not _RESERVED.fullmatch(name) and not keyword.iskeyword(name)
        stem = name if usable else f"input_{name}"
        number, free = 1, stem
        while free.lower() in taken:
            number, free = number + 1, f"{stem}_{number}"
        taken.add(free.lower())
        unique.append(free)
    return unique


def _as_arrays(predictions: Any) -> Any:
    if isinstance(predictions, Mapping):
        return {key: _as_arrays(value) for key, value in predictions.items()}
    if isinstance(predictions, list | tuple):
        return [_as_arrays(value) for value in predictions]
    array: npt.NDArray[Any] = np.asarray(predictions)
    narrow = array.dtype == np.float16 or array.dtype.name == "bfloat16"
    return array.astype(np.float32) if narrow else array
