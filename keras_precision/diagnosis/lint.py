"""lint: findings from the graph of a model, without data."""

from typing import Any

from keras_precision._adapters.layer_facts import facts_of
from keras_precision._adapters.model_view import ModelView
from keras_precision._adapters.tracing.operations import traced
from keras_precision.findings.finding import Finding, by_severity
from keras_precision.findings.graph_rules import graph_findings
from keras_precision.findings.static_rules import facts_findings

__all__ = ["lint", "lint_view"]


def lint(model: Any, input_signature: Any = None) -> tuple[Finding, ...]:
    """Find numerical problems of low precision in the graph of a model, without data.

    It detects what statistics on the outputs of layers cannot show: sums accumulated in half precision, softmax or exp
    without the maximum subtracted, ``log(softmax)``, a variance as a difference of squares, an epsilon that is 0 in
    float16, redundant casts to 16 bits and back, constants beyond the range of float16. For a model in float32, the
    findings have severity ``info``: they would matter in float16.

    Args:
        model: A built model of Keras 3 or tf_keras; a subclassed one must have been called. It is traced as for training,
            as a jaxpr, a TensorFlow graph, or the operations that PyTorch dispatches; the model is not changed.
        input_signature: The sizes of inputs that the model leaves free, as for ``kp.export_tflite``; None: 16.

    Returns:
        The findings, the most severe first, with the layer, and the source line if it is user code.

    Raises:
        ModelError: It is no Keras model, not built, cannot be called on symbolic inputs, or needs other sizes of inputs.
        InputError: The signature does not fit the inputs.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, dtype="float16", name="head")])
        >>> [(finding.code, finding.subject) for finding in lint(model)][0]
        ('plain-float16', 'head')
    """
    return lint_view(ModelView.callable(model, input_signature))


def lint_view(view: ModelView, batch_size: int | None = None) -> tuple[Finding, ...]:
    """Find what ``lint`` finds, in a model that was looked at before."""
    graph = traced(view, batch_size)
    facts = facts_findings(facts_of(view), on_accelerator=bool(view.adapter.compute.device))
    return by_severity((*facts, *graph_findings(graph)))
