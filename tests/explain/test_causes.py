"""explain_drop: the cause that it names first, and a plan that was judged by the file which its export writes."""

from pathlib import Path
from typing import Any, NamedTuple

import litert
import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.result import Measurement, Result
from keras_precision.findings.quantization_rules import drop_findings, quantization_findings


class Explained(NamedTuple):
    """A file whose accuracy drop was explained."""

    model: Any
    x: np.ndarray
    calibration: Any
    result: Result


@pytest.fixture(scope="module")
def coarse(stack: Any, tmp_path_factory: pytest.TempPathFactory) -> Explained:
    """A classifier that an int8 input ruins."""
    stack.keras.utils.set_random_seed(3)
    model, x = nets.unlike_features(stack.keras, np.random.default_rng(3))
    calibration, path = kp.calibrate(model, x), tmp_path_factory.mktemp("coarse") / "int8.tflite"
    kp.export_tflite(model, path, "int8", calibration)
    labels = model.predict(x, verbose=0).argmax(-1)
    return Explained(model, x, calibration, kp.explain_drop(model, path, x, labels, calibration, verbose=False))


@pytest.mark.every_stack
def test_a_plan_is_judged_by_the_file_that_its_export_writes(coarse: Explained, tmp_path: Path) -> None:
    """LiteRT counts as many changed predictions in the exported file as the explanation does: far fewer than before."""
    path = tmp_path / "plan.tflite"
    plan = kp.PrecisionPlan.load(coarse.result.plan.save(tmp_path / "plan.json"))
    kp.export_tflite(coarse.model, path, plan, representative_dataset=coarse.calibration)
    predicted = litert.predict(path, {"raw": coarse.x})[0].argmax(-1)
    changed = int((predicted != coarse.model.predict(coarse.x, verbose=0).argmax(-1)).sum())
    assert coarse.result.value("changed_samples", "plan") == changed
    assert 4 * changed <= coarse.result.value("changed_samples", "all")
    assert coarse.result.value("size_bytes", "plan") == pytest.approx(path.stat().st_size, abs=64)


@pytest.mark.every_stack
def test_inputs_that_int8_ruins_are_named_before_any_layer(coarse: Explained) -> None:
    """The first step puts inputs and outputs in float, and the plan has them so."""
    steps = [row.subject for row in coarse.result.select("changed_share")]
    assert steps[:2] == ["whole plan", "keep 1: inputs and outputs"]
    assert coarse.result.plan.io == "float32"
    findings = {finding.code: finding for finding in drop_findings(coarse.result)}
    assert "Features of unlike scale in one input are a cause" in findings["io-coarse"].message


@pytest.fixture(scope="module")
def mismatched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, np.ndarray, np.ndarray]:
    """A net whose file was calibrated on samples that reach a hundred times too far, with samples and labels."""
    import keras

    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("mismatched") / "int8.tflite"
    keras.utils.set_random_seed(0)
    model = nets.mlp(keras)
    x = rng.normal(size=(200, 8)).astype("float32")
    kp.export_tflite(model, path, "int8", x * 100)
    return model, path, x, model.predict(x, verbose=0).argmax(-1)


@pytest.mark.parametrize("data", ["the samples", "the file's"])
def test_a_calibration_mismatch_is_the_only_cause(mismatched: Any, data: str) -> None:
    """Calibrated on its own samples, the plan recovers, so no layer is named, whatever calibration it was given."""
    model, path, x, labels = mismatched
    representative = None if data == "the samples" else x * 100
    explained = kp.explain_drop(model, path, x, labels, representative, verbose=False)
    assert explained.notes[0].startswith("calibration mismatch")
    assert len(explained.notes) == 1
    assert explained.plan == kp.PrecisionPlan.deployment("int8")
    assert not [row for row in explained.select("changed_share") if row.subject.startswith("keep")]
    assert 4 * explained.value("changed_samples", "plan") <= explained.value("changed_samples", "all")
    (finding,) = drop_findings(explained)
    assert finding.code == "calibration-mismatch"
    compile(finding.advice, "advice", "exec")


def test_the_command_names_a_calibration_mismatch_in_one_line(
    mismatched: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One warning, and none for each class that the same cause hurts."""
    from keras_precision.cli.main import main

    model, path, x, labels = mismatched
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "test.npz", x=x, y=labels)
    assert main(["explain", str(tmp_path / "model.keras"), str(path), "--data", str(tmp_path / "test.npz")]) == 0
    shown = capsys.readouterr().out
    assert shown.count("Warning:") == 1
    assert "the calibration samples of the file were different" in shown


def layer_rows(changed: float, whole: float, p_value: float | None) -> Result:
    """Return an explanation in which one layer in float changes a share of predictions instead of the whole's."""
    rows = [
        Measurement("whole plan", "changed_share", whole),
        Measurement("head", "changed_kept_alone", changed),
    ]
    rows += [] if p_value is None else [Measurement("head", "p_value", p_value)]
    return Result("drop", tuple(rows), plan=kp.PrecisionPlan.deployment("int4"))


def test_a_layer_is_blamed_beyond_chance_alone() -> None:
    """Two changed predictions instead of four may be chance, and so may any that were not tested, as in old results."""
    assert drop_findings(layer_rows(0.0025, 0.005, 0.5)) == ()
    assert drop_findings(layer_rows(0.0, 0.05, None)) == ()
    (finding,) = drop_findings(layer_rows(0.0, 0.05, 1e-6))
    assert finding.code == "sensitive-layer"
    assert finding.advice == "plan = kp.PrecisionPlan.deployment('int4', layers={'head': 'float32'})"


def test_advice_for_a_layer_starts_from_the_precision_of_the_file() -> None:
    """A file in int16x8 is not sent back to int8."""
    rows = (Measurement("head", "snr_db", 9.0), Measurement("head", "snr_loss_db", 20.0))
    (finding,) = quantization_findings(Result("layers", rows, plan=kp.PrecisionPlan.deployment("int16x8")))
    assert "deployment('int16x8'" in finding.advice
