"""Observer: one training step of a model, run outside the training, with taps on every layer."""

import random
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_precision._adapters.adapter import KerasAdapter
from keras_precision._adapters.layer_paths import layer_paths
from keras_precision._adapters.tensors import COUNT, Tensors, tensors_of
from keras_precision._adapters.tracing.layer_taps import Taps
from keras_precision._adapters.training.open_state import training_state_of
from keras_precision._adapters.training.training_state import TrainingState
from keras_precision.core.observation import LayerCall, Observation, Statistics

__all__ = ["Batch", "StepObserver", "random_state_preserved"]


@dataclass(frozen=True)
class Batch:
    """The data of a training step.

    Attributes:
        x: Inputs, in the structure that the model takes.
        y: Labels; None where there are none.
        sample_weight: Weights of the samples, or None.
    """

    x: Any
    y: Any = None
    sample_weight: Any = None


class StepObserver:
    """Runs the forward and the backward pass of a model on one batch, and records statistics of every layer.

    Weights, random state, optimizer and metrics of the model stay unchanged. It runs compiled where the model trains
    compiled.
    """

    def __init__(self, adapter: KerasAdapter, model: Any) -> None:
        self.state = training_state_of(adapter, model)
        self._taps = Taps(self.state, layer_paths(model))
        self._backend: _Backend = _BACKENDS[adapter.compute.name](tensors_of(adapter), self._taps, self.state)

    def observe(self, batch: Batch, values: Sequence[Any] | None = None, scale: float = 1.0) -> Observation:
        """Run one step, on ``values`` of the state's variables, or their current ones, with the loss times ``scale``."""
        with random_state_preserved():
            results = self._backend.run(batch, self.state.values() if values is None else values, scale)
        forward, backward, weights, weight_gradients, data, loss = results
        calls = [
            LayerCall(
                call.path, call.within, call.kind,
                _picked(forward, call.inputs), _picked(forward, call.outputs),
                _picked(backward, call.inputs), _picked(backward, call.outputs),
            )
            for call in self._taps.calls
        ]  # fmt: skip
        layout = self.state.weights_by_path(layer_paths(self.state.model))
        return Observation(
            calls=tuple(calls),
            loss=None if loss is None else float(loss),
            scale=scale,
            inputs=tuple(_statistics(row) for row in data[: self._backend.inputs]),
            labels=tuple(_statistics(row) for row in data[self._backend.inputs :]),
            weights={path: tuple(_statistics(weights[place]) for place in places) for path, places in layout.items()},
            weight_gradients={
                path: tuple(_statistics(weight_gradients[place]) for place in places if weight_gradients is not None)
                for path, places in layout.items()
            },
            how=self._backend.how,
        )


def _statistics(row: Any) -> Statistics:
    return Statistics(*map(float, row))


def _picked(rows: Any, indices: Sequence[int]) -> tuple[Any, ...]:
    """Return the statistics of some taps; None for those that no gradient reached."""
    if rows is None:
        return ()
    return tuple(_statistics(rows[index]) if np.any(rows[index]) else None for index in indices)


class _Backend(ABC):
    """How a framework runs the forward and backward pass.

    Attributes:
        how: In words.
        inputs: How many of the data statistics are of inputs; the others are of labels.
    """

    how = ""
    inputs = 0

    def __init__(self, tensors: Tensors, taps: Taps, state: TrainingState) -> None:
        self.tensors, self.taps, self.state, self.model = tensors, taps, state, state.model

    @abstractmethod
    def run(self, batch: Batch, values: Sequence[Any], scale: float) -> tuple[Any, ...]:
        """Return statistics of taps, of their gradients, of weights, of their gradients, of data; and the loss."""

    def data(self, batch: Batch) -> list[Any]:
        """Return the statistics of the float tensors in a batch."""
        inputs = list(filter(self.tensors.is_float, self.state.flatten(batch.x)))
        self.inputs = len(inputs)
        labels = list(filter(self.tensors.is_float, self.state.flatten((batch.y, batch.sample_weight))))
        return [self.tensors.statistics(tensor) for tensor in inputs + labels]

    def objective(self, batch: Batch, values: Sequence[Any], scale: Any) -> tuple[Any, Any]:
        """Run the model; return the scaled loss and the loss, None where there is none."""
        loss = self.state.loss(batch.x, batch.y, batch.sample_weight, values)
        return (None, None) if loss is None else (loss * scale, loss)


@contextmanager
def random_state_preserved() -> Iterator[None]:
    """Restore the global random states of Python, NumPy and PyTorch, from which layers and shuffling may draw."""
    before, arrays, torch = random.getstate(), np.random.get_state(), sys.modules.get("torch")
    devices = [torch.cuda.current_device()] if torch is not None and torch.cuda.is_initialized() else []
    try:
        with nullcontext() if torch is None else torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(before)
        np.random.set_state(arrays)


class _TensorFlow(_Backend):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._tf = self.tensors._tf  # type: ignore[attr-defined]
        self._sources: Sequence[Any] = ()  # what gradients are taken with respect to
        self._compiled: Callable[..., Any] = self._step
        eager, jit = bool(self.model.run_eagerly), bool(getattr(self.model, "jit_compile", False))
        if not eager:
            self._compiled = self._tf.function(
                self._step, autograph=False, reduce_retracing=True, jit_compile=jit or None
            )
        self.how = "eager TensorFlow" if eager else f"compiled by tf.function{', jit_compile=True' if jit else ''}"

    def run(self, batch: Batch, values: Sequence[Any], scale: float) -> tuple[Any, ...]:
        tf = self._tf
        x, y, weight = self.state.map_leaves(
            lambda array: None if array is None else tf.convert_to_tensor(array),
            (batch.x, batch.y, batch.sample_weight),
        )
        with self.state.substitute(values) as self._sources:
            # The function closes over variables, whose number may grow with metrics; values are arguments.
            arguments = list(values) if self._sources is values else []
            results = self._compiled(arguments, tf.constant(scale, tf.float32), x, y, weight)
        return tuple(None if result is None else result.numpy() for result in results)

    def objective(self, batch: Batch, values: Sequence[Any], scale: Any) -> tuple[Any, Any]:
        """Scale a loss in 16 bits as the optimizer does: tf_keras in its own type, Keras 3 in float32."""
        # https://github.com/keras-team/tf-keras/blob/v2.21.0/tf_keras/mixed_precision/loss_scale_optimizer.py (get_scaled_loss)
        loss = self.state.loss(batch.x, batch.y, batch.sample_weight, values)
        if loss is None:
            return None, None
        dtype = loss.dtype if self.state.adapter.keras.__name__ == "tf_keras" else self._tf.float32
        return self._tf.cast(loss, dtype) * self._tf.cast(scale, dtype), loss

    def _step(self, values: list[Any], scale: Any, x: Any, y: Any, weight: Any) -> tuple[Any, ...]:
        tf, statistics = self._tf, self.tensors.statistics
        batch = Batch(x, y, weight)
        values = values or list(self._sources)
        trained = [values[place] for place in self.state.trainable_indices()]
        with tf.GradientTape() as tape:
            tape.watch(trained)

            def probe(_: int) -> Any:
                new = tf.zeros(COUNT)
                tape.watch(new)
                return new

            with self.taps.listening(scale, probe):
                scaled, loss = self.objective(batch, values, scale)
        weights, backward = _stack(tf, list(map(statistics, trained))), None
        gradients = None
        if scaled is not None:
            results = tape.gradient(scaled, [*self.taps.probes, *trained], unconnected_gradients="zero")
            count = len(self.taps.probes)
            backward = _stack(tf, results[:count])
            gradients = _stack(tf, list(map(statistics, results[count:])))
        return _stack(tf, self.taps.forward), backward, weights, gradients, _stack(tf, self.data(batch)), loss


def _stack(tf: Any, rows: Sequence[Any]) -> Any:
    return tf.stack(rows) if rows else tf.zeros((0, COUNT))


class _Jax(_Backend):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._jax = self.tensors._jax  # type: ignore[attr-defined]
        eager = bool(self.model.run_eagerly) or not self.model.jit_compile
        self._compiled = self._step if eager else self._jax.jit(self._step, static_argnums=(0,))
        self._counts: dict[str, int] = {}
        self.how = "eager JAX" if eager else "compiled by jax.jit"

    def run(self, batch: Batch, values: Sequence[Any], scale: float) -> tuple[Any, ...]:
        x, y, weight = self.state.map_leaves(
            lambda array: None if array is None else self._jax.numpy.asarray(array),
            (batch.x, batch.y, batch.sample_weight),
        )
        scale = np.float32(scale)  # type: ignore[assignment]
        shapes = str(self._jax.tree.map(lambda array: (array.shape, array.dtype), (x, y, weight)))
        if shapes not in self._counts:
            self._counts[shapes] = self._counted(list(values), scale, x, y, weight)
        count = self._counts[shapes]
        return tuple(self._jax.device_get(self._compiled(count, list(values), scale, x, y, weight)))

    def _counted(self, *arguments: Any) -> int:
        """Count the taps: their probes are arguments of the differentiated function, and must exist before it runs."""

        def forward(values: Any, scale: Any, x: Any, y: Any, weight: Any) -> Any:
            with self.taps.listening(self._jax.tree.leaves((values, scale, x)), lambda _: None):
                self.objective(Batch(x, y, weight), values, scale)
            return self.taps.forward

        self._jax.eval_shape(forward, *arguments)
        return len(self.taps.forward)

    def _step(self, count: int, values: list[Any], scale: Any, x: Any, y: Any, weight: Any) -> tuple[Any, ...]:
        jax, statistics, batch = self._jax, self.tensors.statistics, Batch(x, y, weight)
        places = self.state.trainable_indices()
        outer = jax.tree.leaves((values, scale, x, y, weight))

        def run(trained: list[Any], probes: Any) -> Any:
            full = list(values)
            for place, value in zip(places, trained, strict=True):
                full[place] = value
            with self.taps.listening([*outer, *trained, probes], lambda index: probes[index]):
                scaled, loss = self.objective(batch, full, scale)
            forward = list(self.taps.forward)
            return (jax.numpy.zeros(()) if scaled is None else scaled.astype("float32")), (forward, loss)

        trained = [values[place] for place in places]
        probes = jax.numpy.zeros((count, COUNT))
        gradients, (forward, loss) = jax.grad(run, argnums=(0, 1), has_aux=True)(trained, probes)
        weights = list(map(statistics, trained))
        if loss is None:
            return forward, None, weights, None, self.data(batch), None
        return forward, gradients[1], weights, list(map(statistics, gradients[0])), self.data(batch), loss


class _Torch(_Backend):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._torch = self.tensors._torch  # type: ignore[attr-defined]
        self.how = "eager PyTorch" + (", where training is compiled by torch.compile" if self.model.jit_compile else "")

    def run(self, batch: Batch, values: Sequence[Any], scale: float) -> tuple[Any, ...]:
        torch, statistics = self._torch, self.tensors.statistics
        convert = self.state.adapter.keras.ops.convert_to_tensor
        tensors = self.state.map_leaves(
            lambda array: None if array is None else convert(array), (batch.x, batch.y, batch.sample_weight)
        )
        batch, places = Batch(*tensors), self.state.trainable_indices()
        full = [value.detach() for value in values]
        trained = [full[place].requires_grad_() for place in places]
        with torch.enable_grad(), self.taps.listening(None, self._probe):
            scaled, loss = self.objective(batch, full, scale)
        backward = gradients = None
        if scaled is not None and scaled.requires_grad:
            probes = self.taps.probes
            results = torch.autograd.grad(scaled, [*probes, *trained], allow_unused=True)
            backward = [np.zeros(COUNT) if row is None else self._array(row) for row in results[: len(probes)]]
            nothing = torch.zeros(1)
            gradients = [
                self._array(statistics(nothing if gradient is None else gradient))
                for gradient in results[len(probes) :]
            ]
        forward, weights = map(self._array, self.taps.forward), [self._array(statistics(weight)) for weight in trained]
        data = list(map(self._array, self.data(batch)))
        return list(forward), backward, weights, gradients, data, None if loss is None else float(loss.detach())

    def _probe(self, index: int) -> Any:
        like = self.state.adapter.keras.ops.zeros(COUNT, dtype="float32")
        return like.requires_grad_()

    def _array(self, row: Any) -> Any:
        return row.detach().cpu().numpy()


_BACKENDS: dict[str, type[_Backend]] = {"tensorflow": _TensorFlow, "jax": _Jax, "torch": _Torch}
