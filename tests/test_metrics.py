"""METRICS: the table of what each figure means."""

import ast
from pathlib import Path

import pytest

import keras_precision
from keras_precision.core.metrics import METRICS, Metric, metric_of

SOURCES = {
    str(path.relative_to(Path(keras_precision.__file__).parent)): path
    for path in Path(keras_precision.__file__).parent.rglob("*.py")
}


@pytest.mark.parametrize("name", METRICS)
def test_each_metric_is_explained(name: str) -> None:
    """Each row has its own name, a direction or none, and a sentence."""
    metric = METRICS[name]
    assert metric.name == name
    assert metric.better in ("higher", "lower", None)
    assert metric.meaning.endswith(".")
    assert metric_of(name) == metric


@pytest.mark.parametrize("unit", ["ms", "us", "s", "bytes", "mb"])
def test_a_unit_in_the_name_is_the_unit(unit: str) -> None:
    """What a name ends in is the unit that tables print."""
    units = {"bytes": "B", "mb": "MB"}
    found = {metric.unit for metric in METRICS.values() if unit in metric.name.split("_")}
    assert found == {units.get(unit, unit)}


def test_the_table_cannot_be_changed() -> None:
    """Nobody adds a metric at run time."""
    with pytest.raises(TypeError, match="does not support item assignment"):
        METRICS["accuracy"] = Metric("accuracy", "%", "higher", "Mine.")


@pytest.mark.parametrize("name", ["loss", "accuracy", "mean_absolute_error"])
def test_the_validation_data_have_the_same_metrics(name: str) -> None:
    """``val_`` keeps unit and direction, and is said in the meaning."""
    known = METRICS[name]
    assert metric_of(f"val_{name}") == Metric(
        f"val_{name}", known.unit, known.better, f"On the validation data: {known.meaning}"
    )


@pytest.mark.parametrize("name", ["my_metric", "val_my_metric", "", "Accuracy", "loss_val_"])
def test_an_unknown_metric_is_the_users_own(name: str) -> None:
    """A metric that the table does not have is without unit and direction."""
    assert metric_of(name) == Metric(name, "", None, "A metric of the user's own.")


def test_each_figure_that_is_made_is_in_the_table() -> None:
    """Every metric that a source file writes by name into a measurement is explained."""
    found = {}
    for file, path in SOURCES.items():
        calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
        rows = [call.args for call in calls if ast.unparse(call.func) == "Measurement" and len(call.args) > 1]
        found[file] = {metric.value for _, metric, *_ in rows if isinstance(metric, ast.Constant)}
    assert len(set().union(*found.values())) > 1
    assert {file: names - set(METRICS) for file, names in found.items() if not names <= set(METRICS)} == {}
