"""diagnose: findings from results, or from a model and a little data."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from keras_precision._adapters import KerasAdapter
from keras_precision._adapters.data.samples import inputs_of
from keras_precision._adapters.functional_form import functional_form
from keras_precision._adapters.layer_facts import facts_of, first_batch, loss_types
from keras_precision._adapters.layer_paths import plan_of
from keras_precision._adapters.model_view import ModelView
from keras_precision._adapters.rebuild import in_float32
from keras_precision._adapters.tracing.step_observer import Batch, StepObserver
from keras_precision.core.errors import DataError, InputError, ModelError, PlanError
from keras_precision.core.layer_facts import LayerFacts
from keras_precision.core.observation import Observation, find_origin, origin_rows, statistics_rows
from keras_precision.core.result import Measurement, Result
from keras_precision.diagnosis.foreseen import foreseen_overflows
from keras_precision.diagnosis.lint import lint_view
from keras_precision.findings.finding import Finding, apply_rules, by_severity
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

_CONSEQUENCES = ("non-finite", "non-finite-harmless", "float16-overflow", "variance-explodes", "variance-collapses")


def diagnose(model_or_results: Any, data: Any = None) -> tuple[Finding, ...]:
    """Find the precision problems of a run or a model, with advice for every problem.

    A model is examined in its current precision: in float32, the findings describe what float16 would lose, and a copy in
    float16 is run forward, which shows what overflows inside of attention and layers of your own. One training
    step is run on a batch of the data, forward, and backward if the model is compiled and there are labels, compiled or
    eager as in training; the model is not changed. A model that computes in 16 bits is compared with a float32 copy.

    Args:
        model_or_results: A Keras model; or a result of ``PrecisionProfiler``, ``kp.quantization_report``,
            ``kp.explain_drop``, or ``kp.evaluate`` with a reference; or several results, of which the first is the baseline in float32.
        data: For a model: ``(x, y)`` or ``x``, as arrays (the first 256 samples are used) or an iterable of batches.
            None examines the graph alone, as ``kp.lint`` does.

    Returns:
        The findings, the most severe first; empty if there are none.

    Raises:
        InputError: It is neither a model nor results; or data were passed with results.
        DataError: The data contain no batch, or one that the model does not accept.
        ModelError: The model is not built, or, without data, cannot be called on symbolic inputs.

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])
        >>> [(finding.code, finding.subject) for finding in diagnose(model, np.full((8, 4), 1e6, "float32"))]
        [('float16-overflow-ahead', 'head')]
    """
    results = [model_or_results] if isinstance(model_or_results, Result) else model_or_results
    if isinstance(results, list | tuple):
        return _diagnose_results(results, data)
    view = ModelView.of(model_or_results)
    if data is None:
        return lint_view(ModelView.callable(model_or_results))
    return _diagnose_model(view, first_batch(data, view.batch_size))


def _diagnose_results(results: Sequence[Any], data: Any) -> tuple[Finding, ...]:
    if not results or not all(isinstance(result, Result) for result in results):
        raise InputError(
            "Expected a Keras model, or results of kp.PrecisionProfiler. "
            f"Received: {[type(result).__name__ for result in results]}. Pass a built model, or profiler.result."
        )
    if data is not None:
        raise InputError(
            "Expected data only with a model. Received: results and data. Pass the model instead of the results."
        )
    rules = (lambda result: apply_rules(result, LAYER_RULES), training_findings, quantization_findings, drop_findings)
    findings = [finding for result in results for rule in rules for finding in rule(result)]
    return by_severity((*findings, *run_findings(results)))


def _diagnose_model(view: ModelView, batch: Batch) -> tuple[Finding, ...]:
    adapter, model, layers = view.adapter, view.model, facts_of(view)
    observation = _observe(adapter, model, batch)
    result = _result_of(adapter, model, observation)
    findings = [
        *input_findings(observation, layers),
        *apply_rules(result, LAYER_RULES),
        *saturation_findings(observation, layers),
    ]
    findings += loss_findings(loss_types(adapter, model))
    is_finite, is_half = find_origin(observation) is None, any(layer.is_half for layer in layers)
    if is_finite and is_half:
        findings += _compare_with_float32(adapter, model, batch, observation, layers)
    elif is_finite:
        known = {finding.subject for finding in findings if finding.code == "float16-overflow-ahead"}
        findings += foreseen_overflows(view, batch, observation, known)
    findings += _graph_findings(view, batch)
    return by_severity(_one_per_cause(findings))


def _graph_findings(view: ModelView, batch: Batch) -> tuple[Finding, ...]:
    """Lint the model with the sizes of a batch; only its layers, where it cannot be called on symbolic inputs."""
    adapter = view.adapter
    try:
        if not (isinstance(view.model, adapter.functional_classes) and getattr(view.model, "inputs", None)):
            view = ModelView(functional_form(adapter, view.model, batch.x), adapter)
        shapes = [tuple(map(int, array.shape)) for array in inputs_of(batch.x, view.inputs)]
    except (ModelError, DataError):
        return facts_findings(facts_of(view), on_accelerator=bool(adapter.compute.device))
    sizes = {entry.name: shape[1:] for entry, shape in zip(view.inputs, shapes, strict=True)}
    return lint_view(view.with_shapes(sizes), shapes[0][0])


def _one_per_cause(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Yield each finding once, and no consequence of inputs that are too large for the layer."""
    explained = {finding.subject for finding in findings if finding.code == "input-scale"}
    for finding in dict.fromkeys(findings):
        if finding.subject not in explained or finding.code not in _CONSEQUENCES:
            yield finding


def _observe(adapter: KerasAdapter, model: Any, batch: Batch) -> Observation:
    if not model.built:
        raise ModelError(
            f"Expected a built model. Received: '{model.name}', whose input shape is not known yet. "
            "Call model.build((None, ...)) first."
        )
    scale = adapter.loss_scaling(model).scale() if getattr(model, "optimizer", None) is not None else None
    try:
        return StepObserver(adapter, model).observe(batch, scale=scale or 1.0)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"Expected a batch that the model accepts. Received: one for which Keras reports: {error}. "
            "Pass (x, y) or x with the shapes and dtypes that model.fit takes."
        ) from error


def _result_of(adapter: KerasAdapter, model: Any, observation: Observation) -> Result:
    """Return an observation as a result, the input of the layer rules."""
    try:
        plan = plan_of(model)
    except PlanError:  # A model in plain float16, which is no plan, but gets a finding.
        plan = None
    origin = find_origin(observation)
    finite = observation.loss is None or math.isfinite(observation.loss)
    origins = origin_rows(origin, None, loss_is_finite=finite) if origin is not None else ()
    rows = (*origins, *statistics_rows(observation), *_loss_scale_row(observation))
    return Result(str(model.name), rows, adapter.compute.environment(), plan)


def _loss_scale_row(observation: Observation) -> Iterator[Measurement]:
    if observation.scale != 1:
        yield Measurement("fit", "loss_scale", observation.scale)


def _compare_with_float32(
    adapter: KerasAdapter, model: Any, batch: Batch, observation: Observation, layers: Sequence[LayerFacts]
) -> tuple[Finding, ...]:
    if not isinstance(model, adapter.functional_classes):
        return ()
    try:
        baseline = in_float32(adapter, model)
    except ModelError:  # a layer that cannot be copied, such as one with an unusual get_config
        return ()
    return variance_findings(observation, StepObserver(adapter, baseline).observe(Batch(batch.x)), layers)
