"""evaluate: what a model, or a file, scores on labelled samples."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_precision._adapters.data.labels import Labels, joined
from keras_precision.core.environment import usable_cores
from keras_precision.core.errors import DataError
from keras_precision.core.result import Measurement, Result
from keras_precision.scoring.scores import agreement, is_probability, snr_db
from keras_precision.verify.metrics import Scorer, scorer, shared_out
from keras_precision.verify.targets import Array, Opened, Target, open_target

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
    model and of the file made from it can be compared. Predictions of integer files are
    dequantized first. A ``.tflite`` file answers through several interpreters at once, with the
    same predictions, to the bit, as one call after the other.

    Args:
        target: A Keras model, or the path of a ``.keras``, ``.h5``, ``.hdf5`` or ``.tflite`` file.
        x: Samples: an array of shape (n, ...), one array per input as a tuple or dict, or anything
            that ``fit`` takes (``tf.data``, ``PyDataset``, torch ``DataLoader``, generator).
        y: Labels, as the metrics take them; for several outputs, one array each as a tuple, or as a
            dict by name. None: they come with ``x``; weights that come, too, are not used.
        metrics: Names of metrics (``"accuracy"`` chooses the kind of accuracy by the shapes),
            functions, or metric objects of Keras, as a list; for several outputs, a dict by name.
            None: accuracy; of several outputs, only what a ``reference`` tells. An empty list
            needs no labels.
        batch_size: Samples per call of a Keras model; a ``.tflite`` file takes as many as it says.
        reference: A target, or its predictions, to compare with: adds ``agreement`` and ``snr_db``.
        threads: Interpreters of a ``.tflite`` file that run side by side; None for one a core.
        unsafe: Whether Python code in a saved model (a Lambda) may run.

    Returns:
        A result with each metric, ``samples``, and ``size_bytes`` of a file. Of several outputs,
        each is a subject: by the model's names, those of the reference, or the file's.

    Raises:
        InputError: A metric is unknown, or the target is neither a model nor such a file.
        FileFormatError: The file is damaged.
        FileNotFoundError: There is no such file.
        DataError: Samples or labels do not fit the model.

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
    labels, answers, expected = _answered(opened, other, x, y, batch_size, labelled=y is None and scorers != [])
    if reference is not None and other is None:
        expected = _as_answers(reference, len(answers))
    names = _names(opened, other, len(answers), [each for each in (scorers, labels) if isinstance(each, Mapping)])
    rows = list(_rows(opened.name, names, scorers, labels, answers, expected))
    rows.append(Measurement(opened.name, "samples", len(answers[0])))
    return opened.result([*rows, *opened.facts()])


def _rows(
    target: str, names: Sequence[str], scorers: Any, labels: Labels, answers: list[Array], expected: list[Array]
) -> Iterator[Measurement]:
    """The figures of each output."""
    if scorers is None and len(names) == 1:
        scorers = scorer("accuracy")
    elif scorers is None and expected:
        scorers = {}
    for number, (name, wanted) in enumerate(zip(names, shared_out(scorers, names), strict=True)):
        subject = target if len(names) == 1 else name
        if wanted:
            yield from _scored(subject, wanted, _labels_of(labels, names, number), answers[number])
        if expected:
            yield from _compared(subject, expected[number], answers[number])


def _scorers(metrics: Any) -> Any:
    """The metrics in their structure, each as its scorer: an unknown one is refused before any work."""
    if isinstance(metrics, Mapping):
        return {name: _scorers(each) for name, each in metrics.items()}
    if isinstance(metrics, list | tuple):
        return [_scorers(each) for each in metrics]
    return scorer(metrics)


def _reference(reference: Any, workers: int, unsafe: bool) -> Opened | None:
    """The reference as something that answers; None where there is none, or its answers are given."""
    if reference is None or isinstance(reference, np.ndarray | list | tuple | Mapping):
        return None
    return open_target(reference, workers=workers, unsafe=unsafe)


def _check_counts(x: Any, y: Any) -> None:
    if not (isinstance(x, np.ndarray) and isinstance(y, np.ndarray)) or not (x.ndim and y.ndim):
        return
    if len(x) != len(y):
        raise DataError(f"Expected as many labels as samples. Received: {len(y)} labels for {len(x)} samples.")


def _answered(
    opened: Opened, other: Opened | None, x: Any, y: Any, batch_size: int, *, labelled: bool
) -> tuple[Labels, list[Array], list[Array]]:
    """Labels, answers, and those of the reference, to all samples, which are read once."""
    labels: list[Labels] = []
    answers: list[list[Array]] = []
    expected: list[list[Array]] = []
    for arrays, found, whole in opened.pieces(x, labelled=labelled):
        labels.append(found)
        answers.append(opened.answers(arrays, batch_size if whole else None))
        if other is not None:
            expected.append(other.answers(arrays, batch_size if whole else None))
    return joined(labels) if labelled else y, _joined(answers), _joined(expected)


def _joined(pieces: Sequence[Sequence[Array]]) -> list[Array]:
    return [np.concatenate(each) for each in zip(*pieces, strict=True)]


def _names(opened: Opened, other: Opened | None, count: int, keyed: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What the outputs are called: by the model that the file was made from, where it is at hand, or by the file."""
    numbered = tuple(f"output_{number}" for number in range(count))
    known = [
        each.outputs for each in (opened, other) if each is not None and each.outputs and len(each.outputs) == count
    ]
    candidates = sorted([*known, numbered], key=lambda names: names == numbered)
    asked = {key for each in keyed for key in each}
    return next((names for names in candidates if asked <= set(names)), candidates[0])


def _labels_of(labels: Labels, names: Sequence[str], number: int) -> Any:
    """The labels of one output."""
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


def _scored(subject: str, scorers: Sequence[Scorer], labels: Any, answers: Array) -> Iterator[Measurement]:
    count = len(np.asarray(labels))
    if count != len(answers):
        raise DataError(f"Expected as many labels as samples. Received: {count} labels for {len(answers)} samples.")
    for each in scorers:
        yield from (Measurement(subject, name, value) for name, value in each(labels, answers).items())


def _as_answers(reference: Any, count: int) -> list[Array]:
    """Predictions that were given, one array for each output."""
    if isinstance(reference, Mapping):
        reference = list(reference.values())
    listed = list(reference) if count > 1 else [reference]
    if count == 1 and isinstance(reference, list | tuple) and isinstance(reference[0], np.ndarray):
        listed = list(reference)
    if len(listed) != count:
        raise DataError(f"Expected predictions of {count} output(s) as the reference. Received: {len(listed)}.")
    return [np.asarray(each) for each in listed]


def _compared(subject: str, expected: Array, answers: Array) -> Iterator[Measurement]:
    named = is_probability(expected)  # else 0.5 tells no classes apart
    yield Measurement(subject, "agreement", agreement(expected, answers) if named else None)
    yield Measurement(subject, "snr_db", snr_db(expected, answers))
