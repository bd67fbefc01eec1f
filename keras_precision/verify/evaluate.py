"""evaluate: scores of a model or a file on labelled samples."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_precision._adapters.data.labels import Labels, joined, stream_labelled
from keras_precision._adapters.data.samples import is_in_memory, stream_samples
from keras_precision.core.channel_errors import ChannelErrors
from keras_precision.core.environment import usable_cores
from keras_precision.core.errors import DataError, ModelError
from keras_precision.core.model_inputs import Input, input_order, with_names_of
from keras_precision.core.result import Measurement, Result
from keras_precision.scoring.scores import agreement, is_probability, snr_db
from keras_precision.verify.metrics import Scorer, make_scorer, metrics_per_output
from keras_precision.verify.targets import Array, Predictor, Samples, Target, as_arrays, open_target

__all__ = ["evaluate"]


def evaluate(
    target: Target,
    x: Any,
    y: Any = None,
    metrics: Any = None,
    *,
    batch_size: int = 32,
    reference: Any = None,
    threads: int | None = None,
    unsafe: bool = False,
) -> Result:
    """Score a model, or a file, on labelled samples.

    Every target is scored on its predictions by the same code, so that the figures of a Keras
    model and of its file can be compared. Predictions of integer files are dequantized first. A
    ``.tflite`` file runs in several interpreters at once, with the same predictions, to the bit,
    as one call after the other.

    Args:
        target: A Keras model, or the path of a ``.keras``, ``.h5``, ``.hdf5`` or ``.tflite`` file.
        x: Samples: an array of shape (n, ...), one array per input as a tuple or dict, or anything
            that ``fit`` takes (``tf.data``, ``PyDataset``, torch ``DataLoader``, generator). They are in the
            order of the model where target or reference is one, and files get theirs by name.
        y: Labels, as the metrics take them; for several outputs, one array per output as a tuple, or as
            a dict by name. None: they come with ``x``; sample weights in it are not used.
        metrics: Names of metrics (``"accuracy"`` chooses the kind of accuracy by the shapes),
            functions, or metric objects of Keras, as a list; for several outputs, a dict by name.
            None: accuracy; of several outputs, and without labels, only the comparison with a
            ``reference``. An empty list or dict needs no labels.
        batch_size: Samples per call of a Keras model; a ``.tflite`` file has its own.
        reference: A target, or its predictions, to compare with: adds ``agreement`` and ``snr_db``, and of outputs that
            are no probabilities ``channel_snr_db`` and ``channel_spread``, whose subjects are ``"output[channel]"``;
            ``kp.diagnose`` names channels that are lost in the scale of others.
        threads: Interpreters of a ``.tflite`` file that run at once; None for one per core.
        unsafe: Whether Python code in a saved model (a Lambda) may run.

    Returns:
        A result with the metrics, ``samples``, and ``size_bytes`` of a file. Several outputs are
        subjects of their own, with the names of the model, of the reference, or of the file.

    Raises:
        InputError: A metric is unknown, or the target is neither a model nor such a file.
        FileFormatError: The file is damaged.
        FileNotFoundError: There is no such file.
        DataError: Samples or labels do not fit the model, or do not tell which is for which input.

    Example:
        >>> result = evaluate(model, x_test, y_test, reference=model)
        >>> result.value("agreement")
        1.0
    """
    scorers = None if metrics is None else _scorers(metrics)
    workers = usable_cores() if threads is None else threads
    opened = open_target(target, workers=workers, unsafe=unsafe)
    other = _reference(reference, workers, unsafe)
    _check_counts(x, y)
    if scorers is None and reference is not None and y is None and is_in_memory(x):
        scorers = {}  # nothing but the comparison can be told
    parties = _Parties.of([opened] if other is None else [opened, other])
    labelled = y is None and (scorers is None or _needs_labels(scorers))
    labels, (predictions, *others) = parties.predict(x, batch_size, labelled=labelled)
    labels, expected = labels if labelled else y, others[0] if others else []
    if reference is not None and other is None:
        expected = _as_predictions(reference, len(predictions))
    keyed = [value for value in (scorers, labels) if isinstance(value, Mapping)]
    names = _output_names(opened, other, len(predictions), keyed)
    rows = list(_rows(opened.name, names, scorers, labels, predictions, expected))
    rows.append(Measurement(opened.name, "samples", len(predictions[0])))
    return opened.result([*rows, *opened.static_rows()])


def _rows(
    target: str, names: Sequence[str], scorers: Any, labels: Labels, predictions: list[Array], expected: list[Array]
) -> Iterator[Measurement]:
    """Yield the scores of the outputs."""
    if scorers is None and len(names) == 1:
        scorers = make_scorer("accuracy")
    elif scorers is None and expected:
        scorers = {}
    for number, (name, requested) in enumerate(zip(names, metrics_per_output(scorers, names), strict=True)):
        subject = target if len(names) == 1 else name
        if requested:
            yield from _scored(subject, requested, _labels_of(labels, names, number), predictions[number])
        if expected:
            yield from _compared(subject, expected[number], predictions[number])
            yield from ChannelErrors.of(name, expected[number], predictions[number]).rows()


def _scorers(metrics: Any) -> Any:
    """Return scorers in the structure of the metrics, so that an unknown one raises before any work."""
    if isinstance(metrics, Mapping):
        return {name: _scorers(metric) for name, metric in metrics.items()}
    if isinstance(metrics, list | tuple):
        return [_scorers(metric) for metric in metrics]
    return make_scorer(metrics)


def _needs_labels(scorers: Any) -> bool:
    """Whether there is a scorer for any output."""
    if isinstance(scorers, Mapping | list | tuple):
        return any(map(_needs_labels, scorers.values() if isinstance(scorers, Mapping) else scorers))
    return True


def _reference(reference: Any, workers: int, unsafe: bool) -> Predictor | None:
    """Return the reference as a predictor; None where there is none, or it is an array of predictions."""
    if reference is None or isinstance(reference, np.ndarray | list | tuple | Mapping):
        return None
    return open_target(reference, workers=workers, unsafe=unsafe)


def _check_counts(x: Any, y: Any) -> None:
    if not (isinstance(x, np.ndarray) and isinstance(y, np.ndarray)) or not (x.ndim and y.ndim):
        return
    if len(x) != len(y):
        raise DataError(f"Expected as many labels as samples. Received: {len(y)} labels for {len(x)} samples.")


@dataclass(frozen=True)
class _Parties:
    """A target and its reference, which predict the same samples, each by the names of its own inputs.

    Attributes:
        predictors: Both, or the target alone.
        inputs: The inputs in the order of the samples: a model's, where there is one; None where they are unknown.
    """

    predictors: Sequence[Predictor]
    inputs: Sequence[Input] | None

    @classmethod
    def of(cls, predictors: Sequence[Predictor]) -> "_Parties":
        """Return them with the inputs by which samples are read; raise where theirs are not the same."""
        known = [(predictor.is_model, predictor.inputs()) for predictor in predictors]
        leading = next((inputs for is_model, inputs in known if is_model and inputs is not None), known[0][1])
        if leading is None or (len(leading) > 1 and any(inputs is None for _, inputs in known)):
            return cls(predictors, None)
        for _, inputs in known:
            leading = leading if inputs is None else with_names_of(leading, inputs)
        return cls(predictors, leading)

    def predict(self, x: Any, batch_size: int, *, labelled: bool) -> tuple[Labels, list[list[Array]]]:
        """Return the labels that come with the samples, and the predictions of all; the samples are read once."""
        labels: list[Labels] = []
        predictions: list[list[list[Array]]] = [[] for _ in self.predictors]
        for samples, batch_labels, whole in self._batches(x, labelled=labelled):
            labels.append(batch_labels)
            for predictor, batches in zip(self.predictors, predictions, strict=True):
                batches.append(predictor.predict(self._for(predictor, samples), batch_size if whole else None))
        pairs = zip(self.predictors, predictions, strict=True)
        return joined(labels) if labelled else None, [_concatenated(*pair) for pair in pairs]

    def _batches(self, x: Any, *, labelled: bool) -> Iterator[tuple[Samples, Labels | None, bool]]:
        """Yield samples, the labels if ``labelled``, and whether these are all samples at once."""
        if labelled:
            for samples, labels in stream_labelled(x, self.inputs):
                yield as_arrays(samples) if self.inputs is None else samples, labels, False
        elif self.inputs is not None:
            whole = is_in_memory(x)
            yield from ((batch, None, whole) for batch in stream_samples(x, self.inputs))
        elif is_in_memory(x):
            yield as_arrays(x), None, True
        else:
            raise DataError(
                f"Expected arrays, or a dataset with labels in it, for the subclassed model '{self.predictors[0].name}'. "
                f"Received: {type(x).__name__} and separate labels. Pass arrays."
            )

    def _for(self, predictor: Predictor, samples: Samples) -> Samples:
        """The samples by the names that a predictor has for its inputs."""
        inputs = predictor.inputs()
        if self.inputs is None or not isinstance(samples, Mapping):
            return samples
        if inputs is None:
            return list(samples.values())
        order = input_order(self.inputs, inputs)
        return {entry.name: samples[self.inputs[index].name] for entry, index in zip(inputs, order, strict=True)}


def _concatenated(predictor: Predictor, batches: Sequence[Sequence[Array]]) -> list[Array]:
    """Return the outputs for all samples; raise where a model has one number for a whole batch."""
    scalars = [number for number, output in enumerate(batches[0]) if not np.ndim(output)] if batches else []
    if scalars:
        raise ModelError(
            f"Expected outputs with values for each sample. Received: output {scalars[0]} of '{predictor.name}', which is one "
            "number for a whole batch. Reduce the other axes alone (axis=1, say), or pass predictions of single samples as reference=."
        )
    return [np.concatenate(output) for output in zip(*batches, strict=True)]


def _output_names(
    opened: Predictor, other: Predictor | None, count: int, keyed: Sequence[Mapping[str, Any]]
) -> tuple[str, ...]:
    """Return the names of the outputs: those of the exported model where it is the reference, else of the file."""
    numbered = tuple(f"output_{number}" for number in range(count))
    outputs = [predictor.outputs for predictor in (opened, other) if predictor is not None]
    known = [names for names in outputs if names and len(names) == count]
    candidates = sorted([*known, numbered], key=lambda names: names == numbered)
    requested = {key for mapping in keyed for key in mapping}
    return next((names for names in candidates if requested <= set(names)), candidates[0])


def _labels_of(labels: Labels, names: Sequence[str], number: int) -> Any:
    """Return the labels of one output."""
    if isinstance(labels, Mapping):
        if names[number] not in labels:
            raise DataError(f"Expected labels for the output '{names[number]}'. Received: {list(labels)}.")
        return labels[names[number]]
    if len(names) == 1:
        return labels
    if not isinstance(labels, list | tuple) or len(labels) != len(names):
        raise DataError(
            f"Expected labels for each of the outputs {', '.join(names)}, as a tuple or a dict. Received: {type(labels).__name__}"
            f"{f' of {len(labels)}' if isinstance(labels, list | tuple) else ''}."
        )
    return labels[number]


def _scored(subject: str, scorers: Sequence[Scorer], labels: Any, predictions: Array) -> Iterator[Measurement]:
    count = len(np.asarray(labels))
    if count != len(predictions):
        raise DataError(f"Expected as many labels as samples. Received: {count} labels for {len(predictions)} samples.")
    for scorer in scorers:
        yield from (Measurement(subject, name, value) for name, value in scorer(labels, predictions).items())


def _as_predictions(reference: Any, count: int) -> list[Array]:
    """Return the reference's predictions as one array per output."""
    if isinstance(reference, Mapping):
        reference = list(reference.values())
    listed = list(reference) if count > 1 else [reference]
    if count == 1 and isinstance(reference, list | tuple) and isinstance(reference[0], np.ndarray):
        listed = list(reference)
    if len(listed) != count:
        raise DataError(f"Expected predictions of {count} output(s) as the reference. Received: {len(listed)}.")
    return [np.asarray(output) for output in listed]


def _compared(subject: str, expected: Array, predictions: Array) -> Iterator[Measurement]:
    has_classes = is_probability(expected)  # else 0.5 separates no classes
    yield Measurement(subject, "agreement", agreement(expected, predictions) if has_classes else None)
    yield Measurement(subject, "snr_db", snr_db(expected, predictions))
