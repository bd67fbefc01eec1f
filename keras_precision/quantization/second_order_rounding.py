"""Second-order rounding: weights rounded one by one, and those that follow make up for the error of each."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["clipped_scales", "compensating_weights", "round_weights"]

Array = npt.NDArray[Any]

_BLOCK = 128  # inputs whose errors are passed on to all later ones at once
_SHRINKAGES = np.linspace(1.0, 0.5, 26)


def round_weights(weights: Array, scales: Array, moments: Array, largest: int) -> Array:
    """Return the integers whose multiples of the scales change a layer's outputs least.

    The weights of an input are rounded to the nearest multiple; the weights of the inputs that come later are moved by
    the error times the inverse of the inputs' second moments, which makes up for it best in the sense of least squares
    (E. Frantar and others, GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers, 2022,
    https://arxiv.org/abs/2210.17323, algorithm 1). Inputs with large second moments come first, while many weights are
    left that can make up for them.

    Args:
        weights: Of shape (groups, outputs, inputs); groups of outputs have inputs of their own.
        scales: The step of the weights of an output, of shape (groups, outputs).
        moments: The second moments of the inputs, of shape (groups, inputs, inputs), positive definite.
        largest: The largest magnitude of an integer.

    Returns:
        Integers of the shape of the weights.

    Example:
        >>> moments = np.array([[[1.0, 0.9], [0.9, 1.0]]])  # two inputs that are nearly the same
        >>> round_weights(np.array([[[0.4, 0.4]]]), np.array([[1.0]]), moments, 7).tolist()  # of a sum of 0.8
        [[[0.0, 1.0]]]
    """
    order = np.argsort(-np.diagonal(moments, axis1=1, axis2=2), axis=1, kind="stable")
    group = np.arange(len(order))[:, None]
    factor = _inverse_factor(moments[group[..., None], order[:, :, None], order[:, None, :]])
    left = weights.transpose(0, 2, 1)[group, order].astype(np.float64)  # (groups, inputs, outputs)
    integers = np.empty_like(left)
    for start in range(0, left.shape[1], _BLOCK):
        end = min(start + _BLOCK, left.shape[1])
        errors = np.empty_like(left[:, start:end])
        for number in range(start, end):
            integers[:, number] = np.clip(np.rint(left[:, number] / scales), -largest, largest)
            error = (left[:, number] - integers[:, number] * scales) / factor[:, number, number, None]
            left[:, number + 1 : end] -= factor[:, number, number + 1 : end, None] * error[:, None]
            errors[:, number - start] = error
        left[:, end:] -= factor[:, start:end, end:].transpose(0, 2, 1) @ errors
    result = np.empty_like(integers)
    result[group, order] = integers
    return result.transpose(0, 2, 1)


def compensating_weights(weights: Array, crossed: Array, moments: Array) -> Array:
    """Return the weights whose outputs for changed inputs come nearest to those of ``weights`` for the exact inputs.

    With exact inputs x and changed ones z, they are the solution of least squares, W E[x z'] E[z z']^-1. Both factors
    have the same damping, so that the weights stay as they are where inputs are unchanged (in the manner of Y. Li and
    others, GPTAQ: Efficient Finetuning-Free Quantization for Asymmetric Calibration, 2025,
    https://arxiv.org/abs/2504.02692).

    Args:
        weights: Of shape (groups, outputs, inputs).
        crossed: The second moments of exact with changed inputs, of shape (groups, inputs, inputs), damped.
        moments: Those of changed inputs, damped.

    Returns:
        Weights of the same shape.
    """
    return np.asarray(np.linalg.solve(moments, (weights @ crossed).transpose(0, 2, 1)).transpose(0, 2, 1))


def clipped_scales(weights: Array, moments: Sequence[Array], largest: int) -> Array:
    """Return the scale of each output at which rounding to the nearest changes the layer's outputs least.

    A scale below the one of the largest weight clips that weight, and makes all steps finer.

    Args:
        weights: Of shape (groups, outputs, inputs).
        moments: As for ``round_weights``, of successive inputs.
        largest: The largest magnitude of an integer.

    Returns:
        Scales of shape (groups, outputs); 1 for an output without weights.
    """
    whole = np.abs(weights).max(axis=2) / largest
    whole = np.where(whole > 0, whole, 1.0)
    best, least = whole, np.full(whole.shape, np.inf)
    bounds = np.cumsum([matrix.shape[1] for matrix in moments])[:-1]
    for shrinkage in _SHRINKAGES:
        scales = (whole * shrinkage)[..., None]
        errors = np.clip(np.rint(weights / scales), -largest, largest) * scales - weights
        parts = zip(np.split(errors, bounds, axis=2), moments, strict=True)
        loss = np.sum([((part @ matrix) * part).sum(axis=2) for part, matrix in parts], axis=0)
        best = np.where(loss < least, scales[..., 0], best)
        least = np.minimum(loss, least)
    return np.asarray(best)


def _inverse_factor(matrices: Array) -> Array:
    """Return upper triangular U with U'U the inverses of positive definite matrices.

    In reversed order the Cholesky factor is the inverse of U, so that the inverses of the matrices are never computed.
    """
    upper = np.linalg.cholesky(matrices[:, ::-1, ::-1])[:, ::-1, ::-1]
    return np.asarray(np.linalg.inv(upper))
