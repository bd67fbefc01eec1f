"""Measurement and Result: what every function that measures something returns."""

import functools
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from keras_precision.core.display import html_of, text_of
from keras_precision.core.environment import Environment
from keras_precision.core.errors import FileFormatError, NotMeasuredError, nearest
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.printable import printable
from keras_precision.core.saved_value import JsonValue
from keras_precision.core.system.files import check_exists
from keras_precision.core.system.json_documents import Fields, decode_number, encode_number, parse_document

__all__ = ["Measurement", "Result", "Value", "log_path", "saved_at"]

Value = float | int | str | None
"""A measured value: a number, a text (such as an operator's type), or None for 'unknown'."""

_LOG_FORMAT, _LOG_VERSION = "keras_precision.result-log", 2
# Version 2 (2026-11): a line with name, environment, plan and notes; then a line for each row, with a tab and its checksum.
# Version 1 (2026-11): without checksums.
_RENAMED_METRICS = {"divergence_kept_alone": "divergence_only_layer_in_float"}  # old files load under the new name


@dataclass(frozen=True, slots=True)
class Measurement:
    """One tidy row.

    Attributes:
        subject: What was measured: ``"fit"``, a layer path, an operator, a file.
        metric: The name of the metric; ``METRICS`` has its unit and meaning.
        value: The figure; None if it is unknown.
        step: Its training step or epoch; None for a summary.
    """

    subject: str
    metric: str
    value: Value
    step: int | None = None

    def __post_init__(self) -> None:
        """Turn scalars of NumPy, and truth values, into Python's numbers: JSON has no others."""
        item = getattr(self.value, "item", None)
        value = self.value if item is None else item()
        object.__setattr__(self, "value", int(value) if isinstance(value, bool) else value)

    def to_json(self) -> list[Any]:
        """Return the row as JSON values.

        Returns:
            Subject, metric, value and step.
        """
        return [self.subject, self.metric, encode_number(self.value), self.step]

    def log_line(self) -> str:
        """Return the row as a line of a log.

        Returns:
            JSON, a tab, the CRC-32 of the JSON in eight hexadecimal digits, and the end of the line.
        """
        text = json.dumps(self.to_json(), allow_nan=False)
        return f"{text}\t{zlib.crc32(text.encode()):08x}\n"


@dataclass(frozen=True)
class Result(JsonValue):
    """What was measured, where, and under which plan: a value that can be saved and loaded.

    Attributes:
        name: Its name in tables.
        measurements: The rows, in the order in which they were measured.
        environment: Machine, versions, and how the figures were obtained.
        plan: The precision plan as it was applied; None if it is unknown.
        notes: What a reader should know: what could not be measured, what was relaxed.

    Example:
        >>> result = Result("run", (Measurement("fit", "skipped_steps", 2),))
        >>> result.value("skipped_steps")
        2
    """

    _format: ClassVar[str] = "keras_precision.result"
    _version: ClassVar[int] = 1
    # Version 1 (2026-11): name, environment, plan, measurements as rows, notes.

    name: str
    measurements: tuple[Measurement, ...] = ()
    environment: Environment = field(default_factory=Environment)
    plan: PrecisionPlan | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Make the sequences immutable."""
        object.__setattr__(self, "measurements", tuple(self.measurements))
        object.__setattr__(self, "notes", tuple(self.notes))

    def __iter__(self) -> Iterator[Measurement]:
        """Iterate over the measurements."""
        return iter(self.measurements)

    def __str__(self) -> str:
        """Return the tables of ``kp.render(result)`` and the notes, for ``print``."""
        return "\n".join([text_of(self), *(f"Note: {printable(note)}" for note in self.notes)])

    def _repr_html_(self) -> str:
        """Return the tables of ``kp.render(result, "html")``, for notebooks."""
        return html_of(self)

    @functools.cached_property
    def _by_metric(self) -> Mapping[str, tuple[Measurement, ...]]:
        """Metric to its rows: a report looks hundreds of them up, among those of 100,000 steps."""
        by_metric: dict[str, list[Measurement]] = {}
        for row in self.measurements:
            by_metric.setdefault(row.metric, []).append(row)
        return {metric: tuple(rows) for metric, rows in by_metric.items()}

    def __getstate__(self) -> dict[str, Any]:
        """Pickle and copy the fields only."""
        return {name: value for name, value in vars(self).items() if name != "_by_metric"}

    def select(self, metric: str, subject: str | None = None) -> tuple[Measurement, ...]:
        """Return the rows of one metric.

        Args:
            metric: The metric.
            subject: Only rows of this subject; None for all.

        Returns:
            The rows, in order.
        """
        rows = self._by_metric.get(metric, ())
        return rows if subject is None else tuple(row for row in rows if row.subject == subject)

    def value(self, metric: str, subject: str | None = None) -> Any:
        """Return the value of a metric: its summary, or else that of its last step.

        Args:
            metric: The metric, such as ``"skipped_steps"``.
            subject: Only of this subject; required if several were measured.

        Returns:
            The figure; None if it was measured, and is unknown.

        Raises:
            NotMeasuredError: It was not measured, or several subjects have it and none is named.

        Example:
            >>> Result("run", (Measurement("fit", "loss_scale", 32768.0, step=1),)).value("loss_scale")
            32768.0
        """
        rows = self.select(metric, subject)
        if not rows:
            known = sorted({row.metric for row in self.measurements})
            of = f" of '{subject}'" if subject else ""
            hint = nearest(metric, known) or f"It holds: {', '.join(known) or 'nothing'}."
            raise NotMeasuredError(
                f"Expected a metric that the result '{self.name}' holds. Received: '{metric}'{of}. {hint}"
            )
        summaries = [row for row in rows if row.step is None] or rows
        subjects = {row.subject for row in summaries}
        if len(subjects) > 1:
            raise NotMeasuredError(
                f"Expected one subject. Received: '{metric}', which the result '{self.name}' holds for "
                f"{len(subjects)} of them. Name one: {', '.join(sorted(subjects)[:5])}."
            )
        return summaries[-1].value

    def get(self, metric: str, default: Value = None) -> Any:
        """Return ``value(metric)``, or ``default`` if it was not measured.

        Args:
            metric: The metric.
            default: The value if it was not measured.

        Returns:
            The figure.
        """
        return self.value(metric) if self.select(metric) else default

    def series(self, metric: str, subject: str | None = None) -> tuple[list[int], list[Any]]:
        """Return the values of a metric over the steps.

        Args:
            metric: The metric.
            subject: Only of this subject.

        Returns:
            The steps, and the values at them: two lists of equal length.
        """
        rows = [row for row in self.select(metric, subject) if row.step is not None]
        return [row.step for row in rows if row.step is not None], [row.value for row in rows]

    def with_measurements(self, rows: Iterable[Measurement], notes: Iterable[str] = ()) -> Self:
        """Return a copy with more rows.

        Args:
            rows: The rows to add.
            notes: Notes to add.

        Returns:
            The new result.
        """
        return replace(self, measurements=(*self.measurements, *rows), notes=(*self.notes, *notes))

    def joined(self, other: "Result") -> Self:
        """Return a copy that also has the measurements of another result of the same subject.

        Args:
            other: The other result; of rows that both have, this result's stay.

        Returns:
            The new result, with this one's name and plan.
        """
        known = {(row.subject, row.metric, row.step) for row in self.measurements}
        rows = [row for row in other.measurements if (row.subject, row.metric, row.step) not in known]
        joined = self.with_measurements(rows, [note for note in other.notes if note not in self.notes])
        return replace(joined, environment=self.environment.with_sources(other.environment.sources))

    def to_json(self) -> dict[str, Any]:
        """Return the fields of the result as JSON values.

        Returns:
            Name, environment, plan and notes, and the measurements as rows.
        """
        return {**self._head(), "measurements": [row.to_json() for row in self.measurements]}

    def log_header(self) -> str:
        """Return the first line of a log: a file to which rows are appended while they are measured.

        Returns:
            JSON, and the end of the line; ``Measurement.log_line`` returns the lines that follow.
        """
        return json.dumps({"format": _LOG_FORMAT, "version": _LOG_VERSION, **self._head()}, allow_nan=False) + "\n"

    def _head(self) -> dict[str, Any]:
        plan = self.plan.to_json() if self.plan else None
        return {"name": self.name, "environment": self.environment.to_json(), "plan": plan, "notes": list(self.notes)}

    @classmethod
    def _file_at(cls, path: str | os.PathLike[str]) -> Path:
        """Return the file to read: where there is none, ``PATH.partial``, to which a run writes until it ends."""
        return saved_at(path, "a saved Result")

    @classmethod
    def from_bytes(cls, content: bytes, path: str | os.PathLike[str]) -> Self:
        """Return the result with the content of a file, or of the log of a run that did not end.

        Args:
            content: JSON.
            path: The file that it was read from, for messages.

        Returns:
            The result. That of a log has a note that says so, and no damaged row.

        Raises:
            FileFormatError: It is no result, or has fields that this version does not know.
        """
        head, _, rest = content.partition(b"\n")
        if _LOG_FORMAT.encode() not in head:
            return super().from_bytes(content, path)
        fields = parse_document(head, path, _LOG_FORMAT, _LOG_VERSION)
        rows, damaged = _logged_rows(rest, checked=fields.get("version", int) > 1)
        notes = ["the run did not end: this is what it had written"]
        notes += [f"{damaged} damaged row{'s' * (damaged > 1)} of its log could not be read"] * bool(damaged)
        return replace(cls._from_fields(fields, rows), notes=tuple(notes))

    @classmethod
    def from_json(cls, fields: Fields) -> Self:
        """Return the result whose ``to_json`` returned these fields.

        Args:
            fields: The fields of the JSON object.

        Returns:
            The result.

        Raises:
            FileFormatError: A field is missing or unknown, or its value is not valid.
        """
        return cls._from_fields(fields, fields.get("measurements", list))

    @classmethod
    def _from_fields(cls, fields: Fields, rows: list[Any]) -> Self:
        fields.refuse_others("format", "version", "name", "environment", "plan", "notes", "measurements")
        path, plan = fields.source, fields.get("plan", (dict, type(None)))
        return cls(
            name=fields.get("name", str),
            measurements=tuple(_row(row, f"{path}: measurements[{index}]") for index, row in enumerate(rows)),
            environment=Environment.from_json(Fields(fields.get("environment", dict), f"{path}: environment")),
            plan=None if plan is None else PrecisionPlan.from_json(Fields(plan, f"{path}: plan")),
            notes=fields.text_list("notes"),
        )


def log_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of the log that a run writes until its result is saved at ``path``."""
    return Path(f"{os.fspath(path)}.partial")


def saved_at(path: str | os.PathLike[str], what: str) -> Path:
    """Return the path of a finished result or, where there is none, of its log; otherwise raise as ``check_exists`` does."""
    log = log_path(path)
    return log if not os.path.exists(path) and os.path.exists(log) else check_exists(path, what)


def _logged_rows(lines: bytes, *, checked: bool) -> tuple[list[Any], int]:
    """The rows of a log, and how many were damaged; text after the last newline was truncated while it was written."""
    whole, _, _ = lines.rpartition(b"\n")
    rows = [_logged_row(line, checked=checked) for line in whole.splitlines() if line]
    intact = [row for row in rows if row is not None]
    return intact, len(rows) - len(intact)


def _logged_row(line: bytes, *, checked: bool) -> Any:
    """A row of a log; None if it is damaged."""
    text, _, checksum = line.rpartition(b"\t") if checked else (line, b"", b"")
    if checked and checksum != f"{zlib.crc32(text):08x}".encode():
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None


def _row(row: object, source: str) -> Measurement:
    if not (isinstance(row, list) and len(row) == 4 and isinstance(row[0], str) and isinstance(row[1], str)):
        raise FileFormatError(f"{source}: expected [subject, metric, value, step]. Received: {row!r}.")
    step = row[3]
    if step is not None and (not isinstance(step, int) or isinstance(step, bool)):
        raise FileFormatError(f"{source}: expected a step that is a whole number or null. Received: {step!r}.")
    return Measurement(row[0], _RENAMED_METRICS.get(row[1], row[1]), decode_number(row[2], source), step)
