"""Comparison: runs against a baseline, and what their figures can show."""

import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np

from keras_precision.comparison.effect import answers_test, effect, is_ratio
from keras_precision.comparison.intervals import Interval
from keras_precision.comparison.recommendation import choose
from keras_precision.comparison.table import comparison_table
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
from keras_precision.core.system.files import write_whole
from keras_precision.core.system.json_documents import document, load_document
from keras_precision.core.table import Table

__all__ = ["Comparison", "Verdict"]

Verdict = Literal["better", "worse", "no difference shown"]

_FORMAT, _VERSION = "keras_precision.comparison", 1
# Version 1 (2026-11): results, the first of them the baseline; metric, mode, margin, tolerance, notes.

_IDENTITY = ("initial_weights", "data_order", "configuration")
_HIGHER = ("acc", "auc", "precision", "recall", "f1", "iou", "dice", "agreement")
_P_VALUE = 0.05


@dataclass(frozen=True)
class Comparison:
    """Runs against a baseline, with a verdict for each figure that is no stronger than the data.

    Made by ``kp.compare_training`` and ``kp.compare_exports``, or from results of other days. Intervals
    (95 %, Student's t) of times are over pairs of processes that took turns; those of memory and of the
    task's metric are over seeds, those of the accuracy of deployed models over samples. Times of runs
    that did not take turns are allowed a drift of 10 % of the machine between them; times of two
    machines are not compared at all.

    Attributes:
        baseline: What the others are compared with.
        others: The other results; each has a name of its own.
        metric: The task's metric, such as ``"val_accuracy"``, that a recommendation must keep; None for none.
        mode: ``"max"`` where higher is better, ``"min"`` where lower is, ``"auto"`` by the metric's name.
        margin: How much worse the metric may be and still count as kept; None: 0.01 of a metric between 0
            and 1, else 1 % of the baseline's.
        tolerance: Ratios of times and memory that are nearer to 1 than this are never called a difference:
            two processes of one program differ by so much.
        notes: What a reader should know.

    Raises:
        InputError: Two results have one name, or an argument is out of range.
        NotComparableError: The results say that they are not of the same model, data or configuration.

    Example:
        >>> from keras_precision.core.result import Measurement
        >>> def run(name, *accuracies):
        ...     return Result(name, [Measurement("seed", "val_accuracy", each, seed) for seed, each in enumerate(accuracies)])
        >>> comparison = Comparison(run("float32", 0.91, 0.92, 0.93), [run("mixed_float16", 0.81, 0.82, 0.84)])
        >>> comparison.verdict("val_accuracy", "mixed_float16")
        'worse'
    """

    baseline: Result
    others: Sequence[Result] = ()
    metric: str | None = None
    mode: Literal["auto", "max", "min"] = "auto"
    margin: float | None = None
    tolerance: float = 0.01
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check names and identity, and warn where machines differ."""
        object.__setattr__(self, "others", tuple(self.others))
        object.__setattr__(self, "notes", tuple(self.notes))
        names = [result.name for result in self.results]
        if len(set(names)) < len(names):
            raise InputError(
                f"Expected results with names of their own. Received: {names}. Rename one: dataclasses.replace(result, name=...)."
            )
        if self.mode not in ("auto", "max", "min"):
            raise InputError(f"Expected mode to be 'auto', 'max' or 'min'. Received: {self.mode!r}.")
        if (self.margin is not None and self.margin < 0) or self.tolerance < 0:
            raise InputError(
                f"Expected margin and tolerance of at least 0. Received: {self.margin} and {self.tolerance}."
            )
        for other in self.others:
            _check_identity(self.baseline, other)
            if other.environment.machine != self.baseline.environment.machine:
                warnings.warn(
                    f"'{other.name}' was measured on another machine than '{self.baseline.name}': their times are not compared.",
                    PrecisionWarning,
                    stacklevel=3,
                )

    @property
    def results(self) -> tuple[Result, ...]:
        """The baseline, and the others."""
        return (self.baseline, *self.others)

    def result(self, run: str) -> Result:
        """Return the result of a run.

        Args:
            run: Its name.

        Returns:
            The result.

        Raises:
            InputError: There is no such run.
        """
        for each in self.results:
            if each.name == run:
                return each
        names = [each.name for each in self.results]
        hint = nearest(run, names)
        raise InputError(f"Expected one of the runs {', '.join(names)}. Received: {run!r}. {hint}".rstrip())

    def interval(self, metric: str, run: str) -> Interval:
        """Return how much a run's figure differs from the baseline's.

        Args:
            metric: The metric.
            run: The name of the run.

        Returns:
            The ratio to the baseline for times, rates, memory and sizes; the difference for the rest.

        Raises:
            InputError: There is no such run.
            NotComparableError: The figures were not got alike: times of two machines, memory of two sources.
            NotMeasuredError: There are too few of them.
        """
        return effect(self.baseline, self.result(run), metric)

    def verdict(self, metric: str, run: str) -> Verdict:
        """Say whether a run is better than the baseline in a figure.

        Args:
            metric: The metric.
            run: The name of the run.

        Returns:
            ``"better"``, ``"worse"``, or ``"no difference shown"``: there may be one, and these data cannot tell.

        Raises:
            InputError: There is no such run, or neither direction of the metric is better.
            NotComparableError: The figures were not got alike: times of two machines, memory of two sources.
            NotMeasuredError: There are too few of them.
        """
        higher = self.is_higher_better(metric)
        sign = self._sign(metric, run)
        if sign == 0:
            return "no difference shown"
        return "better" if (sign > 0) == higher else "worse"

    def is_higher_better(self, metric: str) -> bool:
        """Tell which direction of a metric is better.

        Args:
            metric: The metric.

        Returns:
            Whether the higher is.

        Raises:
            InputError: It has no better direction.
        """
        if metric == self.metric and self.mode != "auto":
            return self.mode == "max"
        known = metric_of(metric)
        if known.better is not None:
            return known.better == "higher"
        if known.meaning != metric_of("").meaning:
            raise InputError(
                f"Expected a metric of which one direction is better. Received: '{metric}'. See kp.METRICS."
            )
        return any(part in metric.lower() for part in _HIGHER)

    def keeps_metric(self, run: str) -> bool:
        """Tell whether a run is shown to lose no more of the task's metric than the margin.

        It is a test of non-inferiority at 5 %: the whole one-sided interval lies within the margin.

        Args:
            run: The name of the run.

        Returns:
            True if it is shown; False if it is not, or if there is too little to show it with.

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
        """Return how much worse the task's metric may be."""
        if self.margin is not None:
            return self.margin
        value = abs(float(self.baseline.get(self.metric or "") or 0.0))
        higher = self.metric is not None and self.is_higher_better(self.metric)
        return 0.01 if higher and value <= 1 else 0.01 * value

    @property
    def recommended(self) -> str:
        """The run to use: the fastest of those that are shown to be faster and to keep the metric, or the baseline."""
        return choose(self)[0]

    @property
    def reason(self) -> str:
        """Why that one is recommended."""
        return choose(self)[1]

    def class_changes(self, run: str) -> dict[str, float]:
        """Return how the accuracy of each class changed: a mean can hide the classes that suffer.

        Args:
            run: The name of the run.

        Returns:
            Class to change, the largest loss first; empty where it was not measured.

        Raises:
            InputError: There is no such run.
        """
        before, after = (_class_means(result) for result in (self.baseline, self.result(run)))
        changes = {kind: after[kind] - before[kind] for kind in before if kind in after}
        return dict(sorted(changes.items(), key=lambda each: each[1]))

    def table(self) -> Table:
        """Return the classic table, to be printed by ``rich``, shown in a notebook, or drawn by ``kp.render``.

        Returns:
            One row a run; the notes say what the figures show.
        """
        return comparison_table(self)

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the comparison as JSON.

        Args:
            path: Where it goes; its folder must exist.

        Returns:
            The path.

        Raises:
            DestinationError: The path cannot be written.
        """
        return write_whole(path, self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return what ``save`` writes.

        Returns:
            JSON, as UTF-8.
        """
        fields = {
            "results": [json.loads(result.to_bytes()) for result in self.results],
            "metric": self.metric, "mode": self.mode, "margin": self.margin, "tolerance": self.tolerance,
            "notes": list(self.notes),
        }  # fmt: skip
        return document(_FORMAT, _VERSION, fields)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a comparison that ``save`` wrote.

        Args:
            path: The file.

        Returns:
            The comparison.

        Raises:
            FileFormatError: The file is no comparison, or holds something that this version does not know.
            FileNotFoundError: There is no such file.
        """
        fields = load_document(path, _FORMAT, _VERSION)
        fields.refuse_others("format", "version", "results", "metric", "mode", "margin", "tolerance", "notes")
        results = [
            Result.from_bytes(json.dumps(each).encode(), f"{path}: results[{index}]")
            for index, each in enumerate(fields.get("results", list))
        ]
        if not results:
            raise FileFormatError(
                f"{path}: expected the field 'results' to hold the baseline. Received: an empty list."
            )
        settings = {
            "metric": fields.get("metric", (str, type(None))),
            "mode": fields.get("mode", str),
            "margin": fields.get("margin", (float, int, type(None))),
            "tolerance": fields.get("tolerance", (float, int)),
            "notes": fields.text_list("notes"),
        }
        try:
            return cls(results[0], results[1:], **settings)
        except InputError as error:
            raise FileFormatError(f"{path}: {error}") from error

    def _sign(self, metric: str, run: str) -> int:
        """1 where the figure is shown to be higher, -1 where lower, else 0."""
        other = self.result(run)
        interval = effect(self.baseline, other, metric)
        if metric == "accuracy" and self.baseline.select("answers_right") and other.select("answers_right"):
            test = answers_test(self.baseline, other)
            shown = test.p_value < _P_VALUE
            return int(np.sign(test.only_other - test.only_baseline)) if shown else 0
        slack = 1 + self.tolerance if interval.count > 1 else 1.0
        low, high = (1 / slack, slack) if is_ratio(metric) else (0.0, 0.0)
        return 1 if interval.lies_above(high) else -1 if interval.lies_below(low) else 0


def _check_identity(baseline: Result, other: Result) -> None:
    for what in _IDENTITY:
        before, after = ({row.step: row.value for row in result.select(what)} for result in (baseline, other))
        for step in before.keys() & after.keys():
            if before[step] != after[step]:
                raise NotComparableError(
                    f"Expected runs that are otherwise identical. Received: '{baseline.name}' and '{other.name}', whose "
                    f"'{what}' differs. Compare runs of one model, one data set and one configuration."
                )


def _class_means(result: Result) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for row in result.select("class_accuracy"):
        values.setdefault(row.subject.removeprefix("class "), []).append(float(row.value))  # type: ignore[arg-type]
    return {kind: float(np.mean(each)) for kind, each in values.items()}
