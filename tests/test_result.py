"""Result: rows that are looked up, saved and loaded."""

import copy
import json
import math
import pickle
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_precision.core.environment import Environment
from keras_precision.core.errors import FileFormatError, NotMeasuredError
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Measurement, Result, Value

RESULT = Result(
    "run",
    (
        Measurement("fit", "skipped_steps", 1, step=10),
        Measurement("fit", "skipped_steps", 3, step=20),
        Measurement("fit", "loss_scale", 32768.0, step=10),
        Measurement("step", "step_time_ms", 12.5, step=10),
        Measurement("fit", "step_time_ms", 11.0),
        Measurement("step", "step_time_ms", 10.5, step=20),
        Measurement("fit", "peak_memory_mb", None),
        Measurement("input", "input_type", "int8"),
        Measurement("mask", "input_type", "bool"),
        Measurement("a", "norm", 1.0, step=1),
        Measurement("b", "norm", 2.0, step=1),
    ),
    Environment(processor="one", cores=2, sources={"peak_memory_mb": "none"}),
    PrecisionPlan.training("mixed_float16"),
    ("memory could not be measured",),
)


@pytest.mark.parametrize(
    ("metric", "subject", "expected"),
    [
        ("skipped_steps", None, 3),
        ("loss_scale", None, 32768.0),
        ("step_time_ms", None, 11.0),
        ("step_time_ms", "fit", 11.0),
        ("step_time_ms", "step", 10.5),
        ("peak_memory_mb", None, None),
        ("input_type", "mask", "bool"),
        ("norm", "a", 1.0),
    ],
)
def test_value_is_the_summary_or_the_last_step(metric: str, subject: str | None, expected: Value) -> None:
    """The figure of a metric is its summary, else that of its last step; None is unknown."""
    assert RESULT.value(metric, subject) == expected


@pytest.mark.parametrize(
    ("metric", "subject", "message"),
    [
        ("loss_scal", None, "that the result 'run' holds. Received: 'loss_scal'. Did you mean 'loss_scale'?"),
        ("loss_scale", "epoch", "Received: 'loss_scale' of 'epoch'."),
        ("xyz", None, "Received: 'xyz'. It holds: input_type, loss_scale, norm, peak_memory_mb, skipped_steps, step_"),
        (
            "input_type",
            None,
            "Received: 'input_type', which the result 'run' holds for 2 of them. Name one: input, mask.",
        ),
        ("norm", None, "Received: 'norm', which the result 'run' holds for 2 of them. Name one: a, b."),
    ],
)
def test_a_figure_that_is_not_there_is_refused(metric: str, subject: str | None, message: str) -> None:
    """An unknown metric offers the nearest, and a metric of several subjects their names."""
    with pytest.raises(NotMeasuredError, match=re.escape(message)):
        RESULT.value(metric, subject)


def test_an_empty_result_holds_nothing() -> None:
    """A result without rows says so."""
    with pytest.raises(NotMeasuredError, match=r"Received: 'loss'\. It holds: nothing\."):
        Result("run").value("loss")


@pytest.mark.parametrize(
    ("metric", "options", "expected"),
    [
        ("skipped_steps", {}, 3),
        ("peak_memory_mb", {"default": 7}, None),
        ("accuracy", {}, None),
        ("accuracy", {"default": 7}, 7),
    ],
)
def test_get_has_a_default(metric: str, options: dict[str, Any], expected: Value) -> None:
    """The default stands for what nobody measured, not for what is unknown."""
    assert RESULT.get(metric, **options) == expected


@pytest.mark.parametrize(
    ("metric", "subject", "expected"),
    [
        ("skipped_steps", None, ([10, 20], [1, 3])),
        ("step_time_ms", None, ([10, 20], [12.5, 10.5])),
        ("step_time_ms", "fit", ([], [])),
        ("norm", "b", ([1], [2.0])),
        ("accuracy", None, ([], [])),
    ],
)
def test_series_are_the_steps(metric: str, subject: str | None, expected: tuple[list[int], list[Any]]) -> None:
    """A series has the steps and their figures, without the summary."""
    assert RESULT.series(metric, subject) == expected


@pytest.mark.parametrize(
    ("metric", "subject", "indices"),
    [
        ("step_time_ms", None, [3, 4, 5]),
        ("step_time_ms", "step", [3, 5]),
        ("step_time_ms", "epoch", []),
        ("x", None, []),
    ],
)
def test_select_returns_rows_in_order(metric: str, subject: str | None, indices: list[int]) -> None:
    """Rows are selected by metric, and by subject if one is named."""
    rows = tuple(RESULT)
    assert RESULT.select(metric, subject) == tuple(rows[index] for index in indices)


def test_rows_are_added_to_a_copy() -> None:
    """``with_measurements`` leaves the result as it was."""
    row = Measurement("fit", "accuracy", 0.5)
    more = RESULT.with_measurements(iter([row]), notes=["a note"])
    assert more == replace(
        RESULT, measurements=(*RESULT.measurements, row), notes=("memory could not be measured", "a note")
    )
    assert len(RESULT.measurements) == len(more.measurements) - 1
    assert len(RESULT.notes) == 1


@pytest.mark.parametrize(("value", "name"), [(RESULT, "name"), (RESULT.measurements[0], "value")])
def test_results_and_rows_are_frozen(value: object, name: str) -> None:
    """A result cannot be changed, nor can a row of it."""
    with pytest.raises(FrozenInstanceError, match=f"cannot assign to field '{name}'"):
        setattr(value, name, None)


@pytest.mark.parametrize(
    "duplicate",
    [lambda result: pickle.loads(pickle.dumps(result)), copy.copy, copy.deepcopy],
    ids=["pickle", "copy", "deepcopy"],
)
def test_copies_are_equal(duplicate: Callable[[Result], Result]) -> None:
    """Each way to copy a result keeps everything."""
    twin = duplicate(RESULT)
    assert twin == RESULT
    assert hash(twin) == hash(RESULT)


@pytest.mark.parametrize("result", [RESULT, Result("bare")], ids=["full", "bare"])
def test_a_saved_result_loads(tmp_path: Path, result: Result) -> None:
    """What is saved comes back."""
    path = tmp_path / "result.json"
    assert result.save(path) == path
    assert Result.load(path) == result


def test_a_renamed_metric_loads_under_its_new_name() -> None:
    """A file that was saved with the old name of a metric has its row under the new one."""
    renamed = Result("drop", (Measurement("head", "divergence_only_layer_in_float", 0.25),))
    old = renamed.to_bytes().replace(b"divergence_only_layer_in_float", b"divergence_kept_alone")
    assert b"divergence_kept_alone" in old
    assert Result.from_bytes(old, "old.json").measurements == renamed.measurements


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, None, "int8", "nan", "", 0, -7, 2**60, 2.0, 0.1, 1e-300]
)
def test_every_value_survives_the_file(tmp_path: Path, value: Value) -> None:
    """Numbers that JSON does not have, texts and None come back with their type."""
    path = Result("run", (Measurement("fit", "loss", value),)).save(tmp_path / "result.json")
    assert "NaN" not in path.read_text()
    assert "Infinity" not in path.read_text()
    loaded = Result.load(path).value("loss")
    assert type(loaded) is type(value)
    assert loaded == value or (math.isnan(loaded) and math.isnan(value))


def changed(tmp_path: Path, **fields: Any) -> dict[str, Any]:
    """Return the document of a result in which some fields are other ones; ... removes a field."""
    document = json.loads(RESULT.save(tmp_path / "right.json").read_text()) | fields
    return {name: value for name, value in document.items() if value is not ...}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"format": "keras_precision.plan"},
            ": expected the field 'format' to be 'keras_precision.result'. Received: ",
        ),
        ({"version": 2}, ": expected the field 'version' to be between 1 and 1. Received: 2."),
        ({"name": ...}, ": expected the field 'name' (text). Received: no such field."),
        ({"name": 3}, ": expected the field 'name' to be text. Received: 3."),
        ({"score": 3}, ": expected only the fields format, version, name, environment, plan, notes, measurements. Rec"),
        ({"plan": ...}, ": expected the field 'plan' (an object or null). Received: no such field."),
        ({"plan": {}}, ": plan: expected the field 'kind' (text). Received: no such field."),
        ({"plan": {"kind": "training", "default": "int8", "layers": {}}}, ": plan: Expected the default to be one of"),
        ({"environment": ...}, ": expected the field 'environment' (an object). Received: no such field."),
        ({"environment": {}}, ": environment: expected the field 'python' (text). Received: no such field."),
        ({"notes": "slow"}, ": expected the field 'notes' to be a list. Received: 'slow'."),
        ({"notes": ["slow", 3]}, ": expected the field 'notes[1]' to be text. Received: 3."),
        ({"measurements": {}}, ": expected the field 'measurements' to be a list. Received: {}."),
        ({"measurements": [7]}, ": measurements[0]: expected [subject, metric, value, step]. Received: 7."),
        ({"measurements": [["a", "b", 1]]}, ": measurements[0]: expected [subject, metric, value, step]. Received: ["),
        ({"measurements": [["a", 1, 1, 1]]}, ": measurements[0]: expected [subject, metric, value, step]. Received: ["),
        (
            {"measurements": [["a", "b", 1, None], ["a", "b", 1, 1.5]]},
            ": measurements[1]: expected a step that is a whole number or null. Received: 1.5.",
        ),
        ({"measurements": [["a", "b", 1, True]]}, "expected a step that is a whole number or null. Received: True."),
        ({"measurements": [["a", "b", [], 1]]}, ": measurements[0]: expected a number, a text or null. Received: []."),
        ({"measurements": [["a", "b", {"float": "1"}, 1]]}, "expected a number, a text or null. Received: {'float'"),
        (
            {"measurements": [["a", "b", True, 1]]},
            ": measurements[0]: expected a number, a text or null. Received: True",
        ),
    ],
)
def test_a_file_that_is_no_result_is_refused(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    """The message names the file, the place, what was expected and what stands there."""
    path = tmp_path / "result.json"
    path.write_text(json.dumps(changed(tmp_path, **fields)))
    with pytest.raises(FileFormatError, match=f"^{re.escape(str(path))}.*{re.escape(message)}"):
        Result.load(path)


@pytest.mark.parametrize("content", ["", "step_time_ms: 12", '{"format": "keras_precision.result", "version"'])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, content: str) -> None:
    """A file that is no JSON is refused by its name."""
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(
        FileFormatError, match=r"result\.json: expected a JSON file of format 'keras_precision\.result'"
    ):
        Result.load(path)


@pytest.mark.parametrize(("given", "kept"), [(np.float32(1.5), 1.5), (np.int64(3), 3), (True, 1), (np.True_, 1)])
def test_numbers_of_numpy_become_pythons(tmp_path: Path, given: Any, kept: float) -> None:
    """Files hold Python's numbers alone: scalars of NumPy and truth values are turned into them."""
    result = Result("run", [Measurement("fit", "loss", given)])  # type: ignore[arg-type]
    assert type(result.value("loss")) is type(kept)
    assert Result.load(result.save(tmp_path / "run.json")) == result
    assert isinstance(result.measurements, tuple)


def test_looking_up_leaves_no_trace() -> None:
    """What a result remembers of its rows is not saved with it: neither pickled, nor compared."""
    looked, other = copy.copy(RESULT), copy.copy(RESULT)
    assert looked.select("loss") == tuple(row for row in RESULT if row.metric == "loss")
    assert looked == other
    assert pickle.dumps(looked) == pickle.dumps(other)
