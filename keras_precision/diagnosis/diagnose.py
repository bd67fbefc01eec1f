"""diagnose: findings from results, or from a model and a little data."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from keras_precision._adapters import KerasAdapter, adapter_of
from keras_precision._adapters.layer_facts import facts_of, first_batch, loss_types
from keras_precision._adapters.layer_paths import plan_of
from keras_precision._adapters.tracing.step_observer import Batch, Observer
from keras_precision.core.errors import DataError, InputError, ModelError, PlanError
from keras_precision.core.layer_facts import LayerFacts
from keras_precision.core.observation import Observation, blame, origin_rows, rows_of
from keras_precision.core.result import Measurement, Result
from keras_precision.diagnosis.lint import lint
from keras_precision.findings.finding import Finding, in_order, judge
from keras_precision.findings.layer_rules import LAYER_RULES
from keras_precision.findings.loss_scale_rules import training_findings
from keras_precision.findings.quantization_rules import drop_findings, quantization_findings
from keras_precision.findings.run_rules import run_findings
from keras_precision.findings.static_rules import (
    facts_findings,
    input_findings,
    loss_findings,
    saturation_findings,
    variance_findings,
)

__all__ = ["diagnose"]


def diagnose(model_or_results: Any, data: Any = None) -> tuple[Finding, ...]:
    """Say what is wrong with a run or a model, in terms of precision, and what to do about it.

    A model is looked at as it is: in float32, the findings tell what float16 would lose. One training step is run on a
    batch of the data, forward and backward where the model is compiled and there are labels, on the path that training
    uses; nothing of the model is changed. A model that computes in 16 bits is compared with itself in float32.

    Args:
        model_or_results: A Keras model; or a result of ``PrecisionProfiler``, ``kp.quantization_report`` or
            ``kp.explain_drop``; or several, of which the first is the
            baseline, in float32.
        data: For a model: ``(x, y)`` or ``x``, as arrays (the first 256 samples are used) or anything that yields batches.
            None reads its graph alone, as ``kp.lint`` does.

    Returns:
        The findings, the worst first; empty where nothing was found.

    Raises:
        InputError: It is neither; or data were given with results.
        DataError: The data hold no batch, or not one that the model takes.
        ModelError: The model is not built, and there are no data.

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])
        >>> [(each.code, each.subject) for each in diagnose(model, np.full((8, 4), 1e6, "float32"))]
        [('float16-overflow-ahead', 'head')]
    """
    results = [model_or_results] if isinstance(model_or_results, Result) else model_or_results
    if isinstance(results, list | tuple):
        return _of_results(results, data)
    adapter = adapter_of(model_or_results)
    if data is None:
        return lint(model_or_results)
    return _of_model(adapter, model_or_results, first_batch(data))


def _of_results(results: Sequence[Any], data: Any) -> tuple[Finding, ...]:
    if not results or not all(isinstance(each, Result) for each in results):
        raise InputError(
            f"Expected a Keras model, or results of kp.PrecisionProfiler. Received: {[type(each).__name__ for each in results]}."
        )
    if data is not None:
        raise InputError("Expected data with a model alone. Received: results and data. Pass the model in their place.")
    rules = (training_findings, quantization_findings, drop_findings, lambda result: judge(result, LAYER_RULES))
    each = [finding for result in results for rule in rules for finding in rule(result)]
    return in_order((*each, *run_findings(results)))


def _of_model(adapter: KerasAdapter, model: Any, batch: Batch) -> tuple[Finding, ...]:
    layers = facts_of(adapter, model)
    observation = _observed(adapter, model, batch)
    result = _as_result(adapter, model, observation)
    found = [
        *judge(result, LAYER_RULES),
        *input_findings(observation, layers),
        *saturation_findings(observation, layers),
    ]
    found += loss_findings(loss_types(adapter, model))
    if any(layer.is_half for layer in layers) and blame(observation) is None:
        found += _against_float32(adapter, model, batch, observation, layers)
    if isinstance(model, adapter.functional_classes) and getattr(model, "inputs", None):
        found += lint(model)
    else:
        found += facts_findings(layers, on_accelerator=bool(adapter.compute.device))
    return in_order(dict.fromkeys(found))


def _observed(adapter: KerasAdapter, model: Any, batch: Batch) -> Observation:
    if not model.built:
        raise ModelError(
            f"Expected a built model. Received: '{model.name}', whose input shape is not known yet. Call model.build((None, ...)) first."
        )
    scale = adapter.loss_scaling(model).scale() if getattr(model, "optimizer", None) is not None else None
    try:
        return Observer(adapter, model).observe(batch, scale=scale or 1.0)
    except (ValueError, TypeError) as error:
        raise DataError(f"Expected a batch that the model takes. Received: one of which Keras says: {error}") from error


def _as_result(adapter: KerasAdapter, model: Any, observation: Observation) -> Result:
    """What was seen as a result, on which the rules of layers work."""
    try:
        plan = plan_of(model)
    except PlanError:  # plain float16, which is a finding, too
        plan = None
    origin = blame(observation)
    finite = observation.loss is None or math.isfinite(observation.loss)
    origins = origin_rows(origin, None, loss_is_finite=finite) if origin is not None else ()
    rows = (*origins, *rows_of(observation), *_scale(observation))
    return Result(str(model.name), rows, adapter.compute.environment(), plan)


def _scale(observation: Observation) -> Iterator[Measurement]:
    if observation.scale != 1:
        yield Measurement("fit", "loss_scale", observation.scale)


def _against_float32(
    adapter: KerasAdapter, model: Any, batch: Batch, observation: Observation, layers: Sequence[LayerFacts]
) -> tuple[Finding, ...]:
    if not isinstance(model, adapter.functional_classes):
        return ()
    wide = adapter.in_float32(model)
    return variance_findings(observation, Observer(adapter, wide).observe(Batch(batch.x)), layers)
