"""Tensors: statistics and gradient taps on tensors of TensorFlow, JAX and PyTorch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from keras_precision._adapters.adapter import KerasAdapter
from keras_precision.core.observation import INITIAL_LOSS_SCALE, Statistics
from keras_precision.core.system.optional import require

__all__ = ["COUNT", "Tensors", "tensors_of"]

COUNT = len(Statistics._fields)

# Rounding overflows from halfway between the largest number and the next power of two; it gives 0 up to half the
# smallest subnormal number.
_FLOAT16_OVER, _FLOAT16_UNDER = 65520.0, 2.0**-25
_BFLOAT16_OVER, _BFLOAT16_UNDER = 3.3961775e38, 2.0**-134
_NEAR = 2.0**-11
# Per format: epsilon, smallest subnormal number, overflow threshold.
_ROUNDED = ((2.0**-10, 2.0**-24, _FLOAT16_OVER), (2.0**-7, 2.0**-133, _BFLOAT16_OVER))
# The rounding error is uniform within half a step of the format: step / sqrt(12) in root mean square. Relative to the
# number, a step is between epsilon / 2 and epsilon: sqrt(3/8 / ln 2) of epsilon in root mean square, for leading digits
# that follow Benford's law.
_STEP = 12.0**-0.5
_BENFORD = (0.375 / 0.6931471805599453) ** 0.5


class Tensors(ABC):
    """The tensors of one framework."""

    @abstractmethod
    def is_float(self, value: Any) -> bool:
        """Tell whether a value is a tensor of floats of this framework."""

    @abstractmethod
    def is_here(self, value: Any, reference: Any) -> bool:
        """Tell whether a tensor belongs to the trace of ``reference``, and not to a loop inside it."""

    @abstractmethod
    def statistics(self, value: Any) -> Any:
        """Return the statistics of a tensor as a float32 vector, in the order of ``Statistics``."""

    @abstractmethod
    def tap(self, value: Any, probe: Any) -> Any:
        """Return a tensor unchanged; the gradient of ``probe`` then is the statistics of its gradient."""

    @abstractmethod
    def all_finite(self, values: Sequence[Any]) -> bool:
        """Tell whether no tensor has NaN or infinity; it waits for the device."""

    def _all_statistics(self, xp: Any, value: Any, finite: Any, count: float) -> list[Any]:
        """Return the statistics of float32 values of which those that are not finite were set to 0."""
        size = xp.abs(value)

        def share(mask: Any) -> Any:
            return xp.total(mask) / count

        finite_count = xp.maximum(xp.total(finite), 1.0)
        mean = xp.sum(value) / finite_count
        around = xp.where(finite, value - mean, 0.0 * value)
        none = xp.total(finite) == 0
        low = xp.min(xp.where(finite, value, xp.full(value, float("inf"))))
        high = xp.max(xp.where(finite, value, xp.full(value, float("-inf"))))
        tiny = (size > 0) & (size <= _FLOAT16_UNDER)
        return [
            mean,
            xp.sqrt(xp.sum(around * around) / finite_count),
            xp.where(none, 0.0 * mean, low),
            xp.where(none, 0.0 * mean, high),
            xp.min(xp.where(size > 0, size, xp.full(value, float("inf")))),
            share(~finite),  # and not 1 minus the others, where rounding could turn 0 into something else
            share((size == 0) & finite),
            share(tiny),
            share(size >= _FLOAT16_OVER),
            share((size > 0) & (size <= _BFLOAT16_UNDER)),
            share(size >= _BFLOAT16_OVER),
            share((size > 0) & (size <= _FLOAT16_UNDER / INITIAL_LOSS_SCALE)),
            share((size <= _NEAR) & finite),
            share(size >= 1 - _NEAR),
            *(self._rounding_error(xp, size, *constants) for constants in _ROUNDED),
        ]

    def _rounding_error(self, xp: Any, size: Any, epsilon: float, smallest: float, over: float) -> Any:
        """Estimate the relative root-mean-square error of rounding; compilers remove a cast down and up again."""
        fits = xp.where(size < over, size, 0.0 * size)
        top = xp.maximum(xp.max(fits), 2.0**-126)  # the squares of small numbers underflow
        error = xp.maximum(fits * (epsilon * _BENFORD * _STEP), smallest * _STEP)
        error = xp.where(fits < error, fits, error) / top
        return xp.sqrt(xp.sum(error * error) / xp.maximum(xp.sum(fits / top * (fits / top)), 2.0**-126))


class _TensorFlowTensors(Tensors):
    def __init__(self) -> None:
        self._tf: Any = require("tensorflow", extra="tensorflow")
        tf = self._tf
        statistics = self.statistics

        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def tapped(value: Any, probe: Any) -> Any:  # noqa: ARG001 - its gradient is what counts
            return tf.identity(value), lambda gradient: (gradient, statistics(gradient))

        self._tapped = tapped
        # NaN and infinity times 0 are NaN. Flat, because a trace that serves a second model has shapes of no known rank,
        # over whose axes TensorFlow reduces as if they were those of the first.
        self._broken = tf.function(
            lambda values: tf.add_n(
                [tf.cast(tf.reduce_sum(tf.reshape(value, [-1]) * 0), tf.float32) for value in values] or [tf.zeros(())]
            ),
            autograph=False, reduce_retracing=True,
        )  # fmt: skip
        # Traced once for tensors of any shape, not for every tap.
        self._traced = tf.function(self._vector, input_signature=[tf.TensorSpec(None, tf.float32)], autograph=False)

    def is_float(self, value: Any) -> bool:
        return isinstance(value, self._tf.Tensor) and value.dtype.is_floating

    def is_here(self, value: Any, reference: Any) -> bool:
        return getattr(value, "graph", None) is getattr(reference, "graph", None) or not hasattr(value, "graph")

    def statistics(self, value: Any) -> Any:
        tf = self._tf
        if isinstance(value, tf.IndexedSlices):
            value = value.values
        return self._traced(tf.cast(tf.stop_gradient(value), tf.float32))

    def _vector(self, wide: Any) -> Any:
        tf = self._tf
        finite = tf.math.is_finite(wide)
        xp = _Namespace(
            abs=tf.abs, sum=tf.reduce_sum, min=tf.reduce_min, max=tf.reduce_max, sqrt=tf.sqrt, where=tf.where,
            maximum=tf.maximum, total=lambda mask: tf.reduce_sum(tf.cast(mask, tf.float32)),
            full=lambda like, number: tf.fill(tf.shape(like), number),
        )  # fmt: skip
        cleaned = tf.where(finite, wide, tf.zeros_like(wide))
        count = tf.maximum(tf.cast(tf.size(wide), tf.float32), 1.0)
        return tf.stack(self._all_statistics(xp, cleaned, finite, count))

    def tap(self, value: Any, probe: Any) -> Any:
        return self._tapped(value, probe)

    def all_finite(self, values: Sequence[Any]) -> bool:
        return bool(self._broken(list(values)).numpy() == 0)


class _JaxTensors(Tensors):
    def __init__(self) -> None:
        self._jax: Any = require("jax", extra="jax")
        jax, statistics = self._jax, self.statistics

        self._traced = jax.jit(self._vector)
        self._broken = jax.jit(lambda values: sum(jax.numpy.sum(value * 0) for value in values))

        @jax.custom_vjp  # type: ignore[untyped-decorator]
        def tapped(value: Any, probe: Any) -> Any:  # noqa: ARG001 - its gradient is what counts
            return value

        tapped.defvjp(lambda value, _: (value, None), lambda _, gradient: (gradient, statistics(gradient)))
        self._tapped = tapped

    def is_float(self, value: Any) -> bool:
        jnp = self._jax.numpy
        return isinstance(value, self._jax.Array) and jnp.issubdtype(value.dtype, jnp.floating)

    def is_here(self, value: Any, reference: Any) -> bool:
        # A tracer names the transformation that it belongs to, in private:
        # https://github.com/jax-ml/jax/blob/jax-v0.10.2/jax/_src/core.py (class Tracer)
        trace = getattr(value, "_trace", None)
        return trace is None or any(trace is getattr(tensor, "_trace", None) for tensor in reference)

    def statistics(self, value: Any) -> Any:
        return self._traced(self._jax.lax.stop_gradient(value))

    def _vector(self, value: Any) -> Any:
        jnp = self._jax.numpy
        wide = value.astype(jnp.float32)
        finite = jnp.isfinite(wide)
        xp = _Namespace(
            abs=jnp.abs, sum=jnp.sum, min=lambda values: jnp.min(values, initial=jnp.inf),
            max=lambda values: jnp.max(values, initial=-jnp.inf), sqrt=jnp.sqrt, where=jnp.where, maximum=jnp.maximum,
            total=lambda mask: jnp.sum(mask.astype(jnp.float32)), full=jnp.full_like,
        )  # fmt: skip
        return jnp.stack(self._all_statistics(xp, jnp.where(finite, wide, 0.0), finite, float(max(wide.size, 1))))

    def tap(self, value: Any, probe: Any) -> Any:
        return self._tapped(value, probe)

    def all_finite(self, values: Sequence[Any]) -> bool:
        return bool(self._broken(list(values)) == 0)


class _TorchTensors(Tensors):
    def __init__(self) -> None:
        self._torch: Any = require("torch", extra="torch")
        torch, statistics = self._torch, self.statistics

        class Tapped(torch.autograd.Function):  # type: ignore[misc, name-defined]
            @staticmethod
            def forward(context: Any, value: Any, probe: Any) -> Any:  # noqa: ARG004 - PyTorch's own signature
                return value.view_as(value)

            @staticmethod
            def backward(context: Any, gradient: Any) -> Any:  # noqa: ARG004 - PyTorch's own signature
                return gradient, statistics(gradient)

        self._tapped = Tapped

    def is_float(self, value: Any) -> bool:
        return isinstance(value, self._torch.Tensor) and value.is_floating_point()

    def is_here(self, value: Any, reference: Any) -> bool:
        return True

    def statistics(self, value: Any) -> Any:
        torch = self._torch
        wide = value.detach().to(torch.float32)
        if not wide.numel():
            wide = torch.zeros(1, device=wide.device)
        finite = torch.isfinite(wide)
        xp = _Namespace(
            abs=torch.abs, sum=torch.sum, min=torch.amin, max=torch.amax, sqrt=torch.sqrt, where=torch.where,
            maximum=lambda values, least: values.clamp(min=least), total=lambda mask: mask.to(torch.float32).sum(),
            full=torch.full_like,
        )  # fmt: skip
        cleaned = torch.where(finite, wide, torch.zeros_like(wide))
        return torch.stack(self._all_statistics(xp, cleaned, finite, float(wide.numel())))

    def tap(self, value: Any, probe: Any) -> Any:
        return self._tapped.apply(value, probe)

    def all_finite(self, values: Sequence[Any]) -> bool:
        sums = [(value.detach() * 0).sum().float() for value in values]
        return not sums or bool(self._torch.stack(sums).sum() == 0)


class _Namespace:
    """Functions of a framework under common names."""

    def __init__(self, **functions: Callable[..., Any]) -> None:
        vars(self).update(functions)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        raise AttributeError(name)  # pragma: no cover - type checkers alone ask for a name that is not there


_INSTANCES: dict[str, Tensors] = {}
_BY_NAME: dict[str, type[Tensors]] = {"tensorflow": _TensorFlowTensors, "jax": _JaxTensors, "torch": _TorchTensors}


def tensors_of(adapter: KerasAdapter) -> Tensors:
    """Return the tensor functions of the backend of an adapter."""
    name = adapter.compute.name
    if name not in _INSTANCES:
        _INSTANCES[name] = _BY_NAME[name]()
    return _INSTANCES[name]
