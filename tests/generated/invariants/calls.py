"""Calls that raised: whether the error helps."""

import re

import keras_precision as kp
from generated.trial import Call, Trial, Violation

__all__ = ["check_refusals"]


def check_refusals(trial: Trial) -> None:
    """Every refusal is a PrecisionError that names a layer, an input or an argument."""
    names = _names(trial)
    for call in trial.failures:
        problem = _problem(call, names)
        if problem:
            raise Violation(f"{call.function} raised {problem}: {type(call.error).__name__}: {str(call.error)[:400]}")


def _problem(call: Call, names: set[str]) -> str:
    if not isinstance(call.error, kp.PrecisionError):
        return "what is no PrecisionError"
    words = set(re.findall(r"[^\s'\"`,;()\[\]]+", str(call.error)))
    plain = {word.strip(".:") for word in words}
    mentioned = plain | {part for word in plain for part in word.replace("=", "/").split("/")}
    return (
        ""
        if mentioned & (names | set(call.arguments) - {"model", "path", "plan", "x", "y"})
        else "what names no layer or argument"
    )


def _names(trial: Trial) -> set[str]:
    """Return the names that a message may give: of layers, their classes, inputs and outputs."""
    try:
        layers = list(trial.model._flatten_layers(include_self=False))
    except AttributeError:
        layers = list(trial.model.layers)
    names = {layer.name for layer in layers} | {type(layer).__name__ for layer in layers}
    return names | set(trial.subject.names)
