"""Comparison of runs with a baseline, with a verdict and an interval per metric."""

import operator
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np

from keras_precision.comparison.effect import effect, is_ratio, mcnemar_test
from keras_precision.comparison.intervals import Interval
from keras_precision.comparison.recommendation import recommend
from keras_precision.comparison.table import comparison_table
from keras_precision.core.display import text_of
from keras_precision.core.errors import (
    FileFormatError,
    InputError,
    NotComparableError,
    NotMeasuredError,
    PrecisionWarning,
    nearest,
)
from keras_precision.core.metrics import metric_of
from keras_precision.core.result import Result
from keras_precision.core.saved_value import JsonValue
from keras_precision.core.system.json_documents import Fields
from keras_precision.core.table import Table

__all__ = ["Comparison", "Verdict"]

Verdict = Literal["better", "worse", "inconclusive"]

_IDENTITY = ("initial_weights", "data_order", "configuration")
_HIGHER = ("acc", "auc", "precision", "recall", "f1", "iou", "dice", "agreement")
_P_VALUE = 0.05


@dataclass(frozen=True)
class Comparison(JsonValue):
    """Runs compared with a baseline: a verdict per metric, which the data support at 95 % confidence.

    ``kp.compare_training`` and ``kp.compare_exports`` return one; saved results can be compared, too. Intervals (95 %,
    Student's t) of times are over pairs of interleaved processes, those of memory and of the task's metric over seeds,
    and those of the accuracy of deployed models over samples. Intervals of times that were not interleaved allow for a
    drift of the machine of 10 %; times of two machines are not compared.

    Attributes:
        baseline: The result that the others are compared with.
        others: The other results, with distinct names.
        metric: The task's metric, such as ``"val_accuracy"``, which a recommended run must preserve; None for none.
        mode: ``"max"`` where higher is better, ``"min"`` where lower is, ``"auto"`` by the metric's name.
        margin: Acceptable loss of the metric; None: 0.01 of a metric between 0 and 1, else 1 % of the baseline's.
        tolerance: Ratios of times and memory within this distance of 1 are inconclusive: two processes of one program
            differ by as much.
        notes: Remarks for the reader.

    Raises:
        InputError: Two results have the same name, or an argument is out of range.
        NotComparableError: The results are of different models, data or configurations.

    Example:
        >>> from keras_precision.core.result import Measurement
        >>> def run(name, *accuracies):
        ...     return Result(name, [Measurement("seed", "val_accuracy", accuracy, seed) for seed, accuracy in enumerate(accuracies)])
        >>> comparison = Comparison(run("float32", 0.91, 0.92, 0.93), [run("mixed_float16", 0.81, 0.82, 0.84)])
        >>> comparison.verdict("val_accuracy", "mixed_float16")
        'worse'
    """

    _format: ClassVar[str] = "keras_precision.comparison"
    _version: ClassVar[int] = 1
    # Version 1 (2026-11): results, with the baseline first; metric, mode, margin, tolerance, notes.

    baseline: Result
    others: Sequence[Result] = ()
    metric: str | None = None
    mode: Literal["auto", "max", "min"] = "auto"
    margin: float | None = None
    tolerance: float = 0.01
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check arguments, names and identity, and warn of different machines."""
        object.__setattr__(self, "others", tuple(self.others))
        object.__setattr__(self, "notes", tuple(self.notes))
        names = [result.name for result in self.results]
        if len(set(names)) < len(names):
            raise InputError(
                f"Expected results with distinct names. Received: {names}. Rename one: dataclasses.replace(result, name=...)."
            )
        if self.mode not in ("auto", "max", "min"):
            raise InputError(f"Expected mode to be 'auto', 'max' or 'min'. Received: {self.mode!r}. Use one of these.")
        if (self.margin is not None and self.margin < 0) or self.tolerance < 0:
            raise InputError(
                f"Expected margin and tolerance of at least 0. Received: {self.margin} and {self.tolerance}. Use 0 or more."
            )
        for other in self.others:
            _check_identity(self.baseline, other)
            if other.environment.machine != self.baseline.environment.machine:
                warnings.warn(
                    f"'{other.name}' was measured on a different machine than '{self.baseline.name}': their times are not compared.",
                    PrecisionWarning,
                    stacklevel=3,
                )

    @property
    def results(self) -> tuple[Result, ...]:
        """The baseline, followed by the others."""
        return (self.baseline, *self.others)

    def result(self, run: str) -> Result:
        """Return the result of a run.

        Args:
            run: The name of the run.

        Returns:
            The result.

        Raises:
            InputError: There is no such run.
        """
        for result in self.results:
            if result.name == run:
                return result
        names = [result.name for result in self.results]
        hint = nearest(run, names)
        raise InputError(f"Expected one of the runs {', '.join(names)}. Received: {run!r}. {hint}".rstrip())

    def interval(self, metric: str, run: str) -> Interval:
        """Return the difference between a run and the baseline in a metric, with its 95 % interval.

        Args:
            metric: The metric.
            run: The name of the run.

        Returns:
            The ratio to the baseline for times, rates, memory and sizes; the difference for the rest.

        Raises:
            InputError: There is no such run.
            NotComparableError: The values were measured differently: on two machines, or by two sources of memory.
            NotMeasuredError: There are too few values.
        """
        return effect(self.baseline, self.result(run), metric)

    def verdict(self, metric: str, run: str) -> Verdict:
        """Return whether a run is better than the baseline in a metric.

        Args:
            metric: The metric.
            run: The name of the run.

        Returns:
            ``"better"``, ``"worse"``, or ``"inconclusive"``: there may be a difference, but these data do not show it.

        Raises:
            InputError: There is no such run, or the metric has no better direction.
            NotComparableError: The values were measured differently: on two machines, or by two sources of memory.
            NotMeasuredError: There are too few values.
        """
        higher = self.is_higher_better(metric)
        sign = self._sign(metric, run)
        if sign == 0:
            return "inconclusive"
        return "better" if (sign > 0) == higher else "worse"

    def is_higher_better(self, metric: str) -> bool:
        """Return whether higher values of a metric are better.

        Args:
            metric: The metric.

        Returns:
            True where higher is better, False where lower is.

        Raises:
            InputError: The metric has no better direction.
        """
        if metric == self.metric and self.mode != "auto":
            return self.mode == "max"
        known = metric_of(metric)
        if known.better is not None:
            return known.better == "higher"
        if known.meaning != metric_of("").meaning:
            raise InputError(f"Expected a metric with a better direction. Received: '{metric}'. See kp.METRICS.")
        return any(part in metric.lower() for part in _HIGHER)

    def keeps_metric(self, run: str) -> bool:
        """Return whether a run loses at most the margin of the task's metric, by a non-inferiority test at 5 %.

        The whole one-sided 95 % interval has to be within the margin.

        Args:
            run: The name of the run.

        Returns:
            True if the test passes; False if it does not, or if there are too few values for it.

        Raises:
            InputError: There is no such run.
        """
        if self.metric is None or run == self.baseline.name:
            return True
        try:
            interval = effect(self.baseline, self.result(run), self.metric, confidence=0.9)
        except (NotMeasuredError, NotComparableError):
            return False
        margin = self.margin_used()
        return interval.lies_above(-margin) if self.is_higher_better(self.metric) else interval.lies_below(margin)

    def margin_used(self) -> float:
        """Return the acceptable loss of the task's metric."""
        if self.margin is not None:
            return self.margin
        value = abs(float(self.baseline.get(self.metric or "") or 0.0))
        higher = self.metric is not None and self.is_higher_better(self.metric)
        return 0.01 if higher and value <= 1 else 0.01 * value

    @property
    def recommended(self) -> str:
        """The run to use: the fastest that is significantly faster and preserves the metric, or the baseline."""
        return recommend(self)[0]

    @property
    def reason(self) -> str:
        """The reason for the recommendation."""
        return recommend(self)[1]

    def class_changes(self, run: str) -> dict[str, float]:
        """Return the change of accuracy per class: a mean can hide classes that get worse.

        Args:
            run: The name of the run.

        Returns:
            Change by class, the largest loss first; empty where it was not measured.

        Raises:
            InputError: There is no such run.
        """
        before, after = (_class_means(result) for result in (self.baseline, self.result(run)))
        changes = {name: after[name] - before[name] for name in before if name in after}
        return dict(sorted(changes.items(), key=operator.itemgetter(1)))

    def table(self) -> Table:
        """Return the comparison as a table, for ``rich``, a notebook, or ``kp.render``.

        Returns:
            One row per run, with verdicts and the recommendation as notes.
        """
        return comparison_table(self)

    def __str__(self) -> str:
        """Return the table of ``kp.render(comparison)``, for ``print``."""
        return text_of(self)

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def to_json(self) -> dict[str, Any]:
        """Return the fields of the comparison as JSON values.

        Returns:
            The results, the baseline first, and the settings.
        """
        return {
            "results": [result.to_document() for result in self.results],
            "metric": self.metric, "mode": self.mode, "margin": self.margin, "tolerance": self.tolerance,
            "notes": list(self.notes),
        }  # fmt: skip

    @classmethod
    def from_json(cls, fields: Fields) -> Self:
        """Return the comparison whose ``to_json`` returned these fields.

        Args:
            fields: The fields of the JSON object.

        Returns:
            The comparison.

        Raises:
            FileFormatError: A field is missing or unknown, or its value is not valid.
        """
        fields.refuse_others("format", "version", "results", "metric", "mode", "margin", "tolerance", "notes")
        source = fields.source
        results = [
            Result.from_document(saved, f"{source}: results[{index}]")
            for index, saved in enumerate(fields.get("results", list))
        ]
        if not results:
            raise FileFormatError(
                f"{source}: expected the baseline in the field 'results'. Received: an empty list. Save the comparison again."
            )
        settings = {
            "metric": fields.get("metric", (str, type(None))),
            "mode": fields.get("mode", str),
            "margin": fields.get("margin", (float, int, type(None))),
            "tolerance": fields.get("tolerance", (float, int)),
            "notes": fields.text_list("notes"),
        }
        texts = [
            row.value
            for saved in results
            for row in saved.select(settings["metric"] or "")
            if isinstance(row.value, str)
        ]
        if texts:
            raise FileFormatError(
                f"{source}: expected numbers as values of '{settings['metric']}'. Received: {texts[0]!r}."
            )
        try:
            return cls(results[0], results[1:], **settings)
        except InputError as error:
            raise FileFormatError(f"{source}: {error}") from error

    def _sign(self, metric: str, run: str) -> int:
        """Return 1 where the metric is significantly higher, -1 where lower, else 0."""
        other = self.result(run)
        interval = effect(self.baseline, other, metric)
        if metric == "accuracy" and self.baseline.select("answers_right") and other.select("answers_right"):
            test = mcnemar_test(self.baseline, other)
            return int(np.sign(test.only_other - test.only_baseline)) if test.p_value < _P_VALUE else 0
        slack = 1 + self.tolerance if interval.count > 1 else 1.0
        low, high = (1 / slack, slack) if is_ratio(metric) else (0.0, 0.0)
        return 1 if interval.lies_above(high) else -1 if interval.lies_below(low) else 0


def _check_identity(baseline: Result, other: Result) -> None:
    for field in _IDENTITY:
        before, after = ({row.step: row.value for row in result.select(field)} for result in (baseline, other))
        for step in before.keys() & after.keys():
            if before[step] != after[step]:
                raise NotComparableError(
                    f"Expected runs that are otherwise identical. Received: '{baseline.name}' and '{other.name}', whose "
                    f"'{field}' differs. Compare runs of one model, one data set and one configuration."
                )


def _class_means(result: Result) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for row in result.select("class_accuracy"):
        values.setdefault(row.subject.removeprefix("class "), []).append(float(row.value))  # type: ignore[arg-type]
    return {name: float(np.mean(accuracies)) for name, accuracies in values.items()}
