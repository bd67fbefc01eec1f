"""KerasAdapter: what both Kerases have in common, and the questions that they answer differently."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision._adapters.backend import Compute
from keras_precision._adapters.training.batch_loss import BatchLoss
from keras_precision._adapters.training.data_wait import DataWait
from keras_precision._adapters.training.loss_scaling import LossScaling
from keras_precision.core.errors import ModelError

__all__ = ["Input", "KerasAdapter"]

_NARROW_FLOATS = ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16")


@dataclass(frozen=True)
class Input:
    """One input of a model.

    Attributes:
        name: Its name in exported files: letters, digits and underscores, unlike any other input's.
        shape: Its shape without the batch axis; None where a size is free.
        dtype: NumPy's name of its element type; float32 for every float.
        aliases: What data may call it, too: its name in the model, its key in a dict of inputs.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    aliases: tuple[str, ...] = ()


class KerasAdapter(ABC):
    """One Keras, seen through the questions that this package asks.

    Args:
        keras: The module: ``keras`` or ``tf_keras``.
    """

    def __init__(self, keras: ModuleType) -> None:
        self.keras: Any = keras

    @property
    @abstractmethod
    def compute(self) -> Compute:
        """The framework that computes."""

    @abstractmethod
    def children(self, model: Any) -> list[Any]:
        """Return the layers of a model, one level down, without inputs and operations that are no layers."""

    @abstractmethod
    def auto_name(self, layer: Any) -> str | None:
        """Return the stem of the name that Keras gave a layer by itself; None if a person named it."""

    @abstractmethod
    def input_names(self, model: Any) -> Sequence[Sequence[str]]:
        """Return what a built model's inputs are called, in its order: the name, then the key in a dict of inputs."""

    @abstractmethod
    def packed(self, model: Any, inputs: Sequence[Any]) -> Any:
        """Return one tensor or array per input in the structure that the model was built with."""

    @abstractmethod
    def call(self, model: Any, inputs: Sequence[Any]) -> list[Any]:
        """Call a model for inference on one tensor per input; return one tensor per output."""

    @abstractmethod
    def trained_call(self, model: Any, inputs: Sequence[Any]) -> Any:
        """Call a model as for training, on one tensor per input, and change nothing of it."""

    @abstractmethod
    def tensorflow_variables(self, model: Any) -> list[Any]:
        """Return the ``tf.Variable`` behind each variable of a model of the TensorFlow backend."""

    @abstractmethod
    def loss_scaling(self, model: Any, optimizer: Any = None) -> LossScaling:
        """Return the reader of a model's loss scaling.

        Args:
            model: The model.
            optimizer: What a training loop of the user's own updates it with; None where it is
                compiled, and trained by ``fit``.
        """

    @abstractmethod
    def bound_loss_scale(self, model: Any, min_scale: float, max_scale: float) -> None:
        """Keep a compiled model's loss scale between two bounds, in every step from now on.

        A model without loss scaling is left as it is.

        Raises:
            InputError: This Keras has bounds of its own, and these are others.
        """

    @abstractmethod
    def data_wait(self, model: Any) -> AbstractContextManager[DataWait]:
        """Time, for a while, how long ``fit`` waits for its batches.

        Args:
            model: The model, in a ``fit`` that has begun.
        """

    def batch_loss(self, model: Any) -> AbstractContextManager[BatchLoss]:
        """Listen, for a while, to the loss of each batch that ``fit`` trains.

        Args:
            model: The model, in a ``fit`` that has begun.
        """
        return nullcontext(BatchLoss())

    @abstractmethod
    def has_own_train_step(self, model: Any) -> bool:
        """Tell whether a model's class overrides Keras's training step."""

    @abstractmethod
    def samples_seen(self, model: Any) -> int | None:
        """Return how many samples the running epoch has trained; None if the model does not count them."""

    @abstractmethod
    def set_policy(self, layer: Any, precision: str) -> None:
        """Give a layer, built or not, a policy; what was compiled before still computes in the old one."""

    def config_of(self, model: Any) -> dict[str, Any]:
        """Return what a model can be made from."""
        config: dict[str, Any] = model.get_config()
        return config

    @abstractmethod
    def is_loss_scaling(self, optimizer: Any) -> bool:
        """Tell whether an optimizer scales the loss of another one, which is its ``inner_optimizer``."""

    @abstractmethod
    def scaled(self, optimizer: Any) -> Any:
        """Return an optimizer of this Keras, wrapped in dynamic loss scaling with bounds."""

    def bytes_by_kind(self, model: Any, optimizer: Any = None) -> dict[str, int]:
        """Return the bytes that training holds from step to step, by the types of the variables.

        Args:
            model: A built model.
            optimizer: What trains it; None for the one that it was compiled with.

        Returns:
            ``weights``, ``gradients`` (one per trainable weight, in its type: mixed precision keeps
            both in float32) and ``optimizer`` (slots and counters).
        """
        used = optimizer or getattr(model, "optimizer", None)
        variables = getattr(used, "variables", None) or ()
        slots = variables() if callable(variables) else variables  # a method in older optimizers of tf_keras
        return {
            "weights": sum(map(_size, model.variables)),
            "gradients": sum(map(_size, model.trainable_variables)),
            "optimizer": sum(map(_size, slots)),
        }

    def is_model(self, layer: Any) -> bool:
        """Tell whether a layer is a model, whose own layers have paths of their own."""
        return isinstance(layer, self.keras.Model)

    def policy_name(self, layer: Any) -> str:
        """Return the name of a layer's dtype policy."""
        return str(layer.dtype_policy.name)

    def inputs(self, model: Any) -> tuple[Input, ...]:
        """Return the inputs of a built functional or sequential model.

        Raises:
            ModelError: The model is subclassed, or not built.
        """
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
        names = _unique(re.sub(r"\W", "_", names[-1], flags=re.ASCII) for names in aliases)
        return tuple(
            Input(name, tuple(tensor.shape)[1:], _element_type(tensor), alias)
            for name, tensor, alias in zip(names, model.inputs, aliases, strict=True)
        )

    @property
    @abstractmethod
    def functional_classes(self) -> tuple[Any, ...]:
        """The classes of models whose graph of layers is known."""

    def in_float32(self, model: Any) -> Any:
        """Return a model that computes everything in float32, with the same weights.

        Args:
            model: A built functional or sequential model.

        Returns:
            The model itself if it is in float32 already, else a copy.
        """
        layers = list(self.walk(model))
        if all(self.policy_name(layer) not in _NARROW_FLOATS for layer in layers):
            return model
        classes = {type(layer).__name__: type(layer) for layer in layers}
        with self.keras.utils.custom_object_scope(classes):
            copy = self.keras.models.clone_model(
                model, clone_function=lambda layer: type(layer).from_config(_widened(layer.get_config()))
            )
        copy.set_weights(model.get_weights())
        for layer in self.walk(copy):
            # Normalization keeps constants that it computes from its weights.
            finalize = getattr(layer, "finalize_state", None)
            if finalize is not None:
                finalize()
        return copy

    def walk(self, layer: Any) -> Iterator[Any]:
        """Yield a layer and every layer inside it, those of composite layers too."""
        yield layer
        yield from layer._flatten_layers(include_self=False)

    @contextmanager
    def counting_resets(self, model: Any) -> Iterator[list[None]]:
        """Note each time that a model's metrics are reset, as ``evaluate`` does, too.

        Yields:
            A list that grows by one with each reset.
        """
        resets: list[None] = []
        original = model.reset_metrics

        def reset_metrics() -> None:
            resets.append(None)
            original()

        object.__setattr__(model, "reset_metrics", reset_metrics)  # past Keras's tracking of attributes
        try:
            yield resets
        finally:
            if vars(model).get("reset_metrics") is reset_metrics:  # and not that of another profiler, around it
                object.__delattr__(model, "reset_metrics")

    @contextmanager
    def watching_calls(self, watch: Callable[[Any, Callable[[], Any]], Any]) -> Iterator[None]:
        """Pass every call of a layer through ``watch(layer, proceed)`` for a while.

        Keras has no hooks on layers, so the method of the base class is replaced, and put back.

        Args:
            watch: Given the layer and a function that makes the call; must return what that returns.
        """
        base = self.keras.layers.Layer
        original = base.__call__

        def watched(layer: Any, *args: Any, **kwargs: Any) -> Any:
            return watch(layer, lambda: original(layer, *args, **kwargs))

        base.__call__ = watched
        try:
            yield
        finally:
            base.__call__ = original

    def answers(self, model: Any, inputs: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Return a model's answers to one batch without compiling anything.

        Args:
            model: A built functional or sequential model.
            inputs: One array per input.

        Returns:
            One array per output.
        """
        convert = getattr(getattr(self.keras, "ops", None), "convert_to_numpy", np.asarray)  # tf_keras has no ops
        return [_as_arrays(convert(output)) for output in self.call(model, inputs)]

    def predict(self, model: Any, inputs: Any, batch_size: int) -> Any:
        """Return a model's answers as NumPy arrays, in float32 where it computes in less."""
        predictions = model.predict(inputs, batch_size=batch_size, verbose=0)
        return _as_arrays(predictions)

    def predict_on_batch(self, model: Any, inputs: Any) -> Any:
        """Return a model's answers to one batch, through its compiled function, as ``predict`` does."""
        return _as_arrays(model.predict_on_batch(inputs))

    def load(
        self,
        path: str,
        *,
        unsafe: bool = False,
        custom_objects: Mapping[str, Any] | None = None,
        compiled: bool = False,
    ) -> Any:
        """Load a model from a file, which the caller has checked.

        Args:
            path: The file.
            unsafe: Whether code that it carries may run.
            custom_objects: Classes and functions that it names.
            compiled: Whether to compile it as it was.
        """
        return self.keras.models.load_model(
            path, custom_objects=dict(custom_objects or {}), compile=compiled, safe_mode=not unsafe
        )


def snake_case(name: str, words: str) -> str:
    """Return a class name as Keras turns it into a layer name.

    Args:
        name: The class name.
        words: The regular expression by which this Keras finds the beginning of a word.
    """
    spaced = re.sub(words, r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", spaced).lower()


def is_numbered(name: str, stem: str) -> bool:
    """Tell whether ``name`` is ``stem``, or ``stem`` with a number behind it."""
    return re.fullmatch(rf"{re.escape(stem)}(_\d+)?", name) is not None


def _size(variable: Any) -> int:
    """Bytes of a variable."""
    name = str(getattr(variable.dtype, "name", variable.dtype))
    width = 2 if name == "bfloat16" else np.dtype(name).itemsize
    return math.prod(int(size) for size in variable.shape) * width


def _element_type(tensor: Any) -> str:
    name = str(getattr(tensor.dtype, "name", tensor.dtype))
    return "float32" if "float" in name else np.dtype(name).name  # Keras casts to 16 bits by itself


def _unique(names: Iterable[str]) -> list[str]:
    """The names, each made a Python identifier that no other has."""
    taken: list[str] = []
    for name in names:
        stem = name if name[:1].isalpha() and name != "self" else f"input_{name}"
        number, free = 1, stem
        while free in taken:
            number, free = number + 1, f"{stem}_{number}"
        taken.append(free)
    return taken


def _widened(config: Any) -> Any:
    """A layer's configuration with every 16-bit policy replaced by float32, nested ones too."""
    if isinstance(config, Mapping):
        if config.get("class_name") in ("DTypePolicy", "Policy", "DTypePolicyMap"):
            return "float32"
        return {
            key: "float32" if key == "dtype" and value in _NARROW_FLOATS else _widened(value)
            for key, value in config.items()
        }
    if isinstance(config, tuple):
        return tuple(_widened(value) for value in config)
    if isinstance(config, Sequence) and not isinstance(config, str | bytes):  # tf_keras has wrapped lists, too
        return [_widened(value) for value in config]
    return config


def _as_arrays(predictions: Any) -> Any:
    if isinstance(predictions, Mapping):
        return {key: _as_arrays(value) for key, value in predictions.items()}
    if isinstance(predictions, list | tuple):
        return [_as_arrays(value) for value in predictions]
    array: npt.NDArray[Any] = np.asarray(predictions)
    narrow = array.dtype == np.float16 or array.dtype.name == "bfloat16"
    return array.astype(np.float32) if narrow else array
