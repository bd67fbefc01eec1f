"""Compositions: what takes several layers, wired from layers of the Keras under test alone."""

from collections.abc import Callable
from typing import Any

__all__ = ["COMPOSITIONS"]


def masked_attention(keras: Any, series: Any, mask: Any, *, magnitude: float = -1e9) -> Any:
    """Attention by hand, with an additive mask of a large negative magnitude where the mask is 0."""
    layers = keras.layers
    steps = series.shape[1]
    scores = layers.Dot(axes=2)([series, series])
    penalty = layers.Rescaling(-magnitude, offset=magnitude)(mask)  # 0 where the mask is 1
    weights = layers.Softmax()(layers.Add()([scores, layers.RepeatVector(steps)(penalty)]))
    return layers.Dot(axes=(2, 1))([weights, series])


def causal_attention(keras: Any, series: Any, *, heads: int = 2, size: int = 3) -> Any:
    """Self-attention in which no step sees a later one."""
    return keras.layers.MultiHeadAttention(heads, size)(series, series, use_causal_mask=True)


def self_attention(keras: Any, series: Any, *, heads: int = 2, size: int = 3) -> Any:
    """Self-attention over all steps."""
    return keras.layers.MultiHeadAttention(heads, size)(series, series)


def cross_attention(keras: Any, queries: Any, keys: Any, *, heads: int = 2, size: int = 3) -> Any:
    """Attention of one series to another."""
    return keras.layers.MultiHeadAttention(heads, size)(queries, keys)


def nested(keras: Any, value: Any, *, units: int = 4, depth: int = 1, twice: bool = False) -> Any:
    """A model in a model, as deep as asked for, and called twice if asked for."""
    layers = keras.layers
    inner = keras.Sequential(
        [layers.Input(value.shape[1:]), layers.Dense(units, activation="relu"), layers.Dense(value.shape[-1])]
    )
    for _ in range(depth - 1):
        outer = layers.Input(value.shape[1:])
        inner = keras.Model(outer, layers.Add()([outer, inner(outer)]))
    return inner(inner(value)) if twice else inner(value)


def bidirectional(keras: Any, series: Any, *, kind: str = "LSTM", units: int = 3, **options: Any) -> Any:
    """A recurrent layer in both directions."""
    return keras.layers.Bidirectional(getattr(keras.layers, kind)(units, **options))(series)


def time_distributed(keras: Any, series: Any, *, units: int = 3) -> Any:
    """A dense layer on every step."""
    return keras.layers.TimeDistributed(keras.layers.Dense(units))(series)


COMPOSITIONS: dict[str, Callable[..., Any]] = {
    "masked_attention": masked_attention,
    "causal_attention": causal_attention,
    "self_attention": self_attention,
    "cross_attention": cross_attention,
    "nested": nested,
    "bidirectional": bidirectional,
    "time_distributed": time_distributed,
}
