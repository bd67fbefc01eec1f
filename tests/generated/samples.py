"""Samples of an input, by kind."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

__all__ = ["KINDS", "TOKENS", "draw"]

Array = np.ndarray[Any, np.dtype[Any]]

TOKENS = 11
"""The size of every vocabulary."""


def _padded(rng: np.random.Generator, shape: Sequence[int]) -> Array:
    """Return series whose last steps are zeros, which Masking skips."""
    values = rng.normal(size=shape)
    steps = rng.integers(1, shape[1] + 1, shape[0])
    values[np.arange(shape[1]) >= steps[:, np.newaxis]] = 0
    return values


def _padded_tokens(rng: np.random.Generator, shape: Sequence[int]) -> Array:
    tokens = rng.integers(1, TOKENS, shape)
    steps = rng.integers(1, shape[1] + 1, shape[0])
    tokens[np.arange(shape[1]) >= steps[:, np.newaxis]] = 0
    return tokens


def _mask(rng: np.random.Generator, shape: Sequence[int]) -> Array:
    """Return 1 for the steps that count, of which there is at least one, and 0 for the others."""
    return (np.arange(shape[1]) < rng.integers(1, shape[1] + 1, shape[0])[:, np.newaxis]).astype(float)


def _unlike(rng: np.random.Generator, shape: Sequence[int]) -> Array:
    """Return features of unlike scale: from a tenth to a hundred."""
    return np.asarray(rng.normal(size=shape) * np.geomspace(0.1, 100, shape[-1]))


KINDS: dict[str, Callable[[np.random.Generator, Sequence[int]], Array]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "unit": lambda rng, shape: rng.random(shape),
    "bytes": lambda rng, shape: rng.integers(0, 256, shape),
    "offset": lambda rng, shape: rng.normal(size=shape) * 3 + 40,
    "unlike": _unlike,
    "padded": _padded,
    "tokens": lambda rng, shape: rng.integers(0, TOKENS, shape),
    "padded_tokens": _padded_tokens,
    "mask": _mask,
}


def draw(kind: str, count: int, shape: Sequence[int], dtype: str, seed: int) -> Array:
    """Return ``count`` samples of a kind."""
    values = KINDS[kind](np.random.default_rng(seed), (count, *shape))
    return values.astype("float32").astype(dtype)
