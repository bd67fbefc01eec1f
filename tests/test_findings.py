"""Findings on loss scaling: every failure is reported, and healthy runs give none."""

import ast
import math

import pytest

from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Measurement, Result
from keras_precision.findings.finding import Finding, apply_rules
from keras_precision.findings.loss_scale_rules import loss_scale_findings, training_findings

HALF = PrecisionPlan.training("mixed_float16", layers={"head": "float32"})


def run(*history, plan=HALF):
    """A result whose epochs have these batches, scales and counts of skipped steps."""
    rows = []
    for batches, scale, skipped in history:
        rows.append(Measurement("fit", "loss_scale", scale, batches))
        rows.append(Measurement("fit", "skipped_steps", skipped, batches))
    return Result("run", tuple(rows), plan=plan)


PLANTED = {
    "zero": (run((200, 0.0, 200)), "loss-scale-collapsed", "error", "divides 0 by 0"),
    "tiny": (run((200, 2.0**-20, 160)), "loss-scale-collapsed", "error", "fell to 9.54e-07"),
    "tiny, count unknown": (run((200, 2.0**-20, None)), "loss-scale-collapsed", "error", "fell to 9.54e-07"),
    "low, count unknown": (run((200, 0.25, None)), "loss-scale-collapsed", "warning", "fell to 0.25"),
    "low, and starving": (run((100, 0.5, 90), (200, 0.25, 170)), "loss-scale-collapsed", "error", "fell to 0.25"),
    "a floor that starves": (run((100, 1024.0, 90), (200, 1024.0, 190)), "loss-scale-stuck", "error", "lower bound of 1024"),
    "stuck in one epoch": (run((100, 1.0, 90)), "loss-scale-stuck", "error", "66 of the last 76 steps"),
    "infinite": (run((500, math.inf, 20)), "loss-scale-infinite", "error", "every step is skipped"),
    "stuck": (run((100, 2.0, 14), (200, 1.0, 114)), "loss-scale-stuck", "error", "100 of the last 100 steps"),
    "still stuck": (run((100, 1.0, 20), (200, 1.0, 120)), "loss-scale-stuck", "error", "100 of the last 100 steps"),
    "missing": (run((100, None, 0)), "loss-scale-missing", "warning", "the optimizer scales no loss"),
    "missing in one layer": (
        run((100, None, 0), plan=PrecisionPlan.training("float32", layers={"body": "mixed_float16"})),
        "loss-scale-missing",
        "warning",
        "not for policies of single layers",
    ),
    "idle in bfloat16": (run((100, 2.0**15, 0), plan=PrecisionPlan.training("mixed_bfloat16")), "loss-scale-idle", "warning", "no layer computes in float16"),
    "ever growing": (run((100, 2.0**30, 0), plan=None), "loss-scale-idle", "warning", "grew to 1.07e+09"),
}  # fmt: skip


@pytest.mark.parametrize(("result", "code", "severity", "part"), PLANTED.values(), ids=PLANTED)
def test_every_failure_is_reported(result, code, severity, part):
    """A planted failure gives one finding, with its numbers and advice in code."""
    (finding,) = loss_scale_findings(result)
    assert (finding.code, finding.severity, finding.subject) == (code, severity, "run")
    assert part in finding.message
    assert ast.parse(finding.advice).body


HEALTHY = {
    "float32": run((100, None, 0), plan=PrecisionPlan.training("float32")),
    "searching": run((100, 2.0**12, 3), (200, 2.0**12, 3)),
    "at 1 after a storm, and training on": run((100, 1.0, 60), (200, 1.0, 60)),
    "large losses": run((100, 2.0**-6, 21), (200, 2.0**-6, 22)),
    "large losses in one epoch": run((200, 2.0**-20, 60)),
    "all skips on the way down": run((30, 1.0, 20)),
    "falling": run((10, 2.0**6, 9), (20, 2.0**5, 10)),
    "unknown plan": run((100, 2.0**15, 0), plan=None),
    "unknown count": run((100, 1.0, None), plan=None),
    "nothing measured": Result("run", plan=HALF),
}


@pytest.mark.parametrize("result", HEALTHY.values(), ids=HEALTHY)
def test_healthy_runs_give_no_finding(result):
    """What is well, or not known, is not accused."""
    assert loss_scale_findings(result) == ()


def test_findings_are_ordered_by_severity():
    """Errors come before warnings, and these before remarks."""
    finding = {name: Finding(name, name, "run", "seen", "do") for name in ("info", "error", "warning")}
    rules = [lambda result, finding=finding: iter([finding]) for finding in finding.values()]
    assert [finding.severity for finding in apply_rules(run(), rules)] == ["error", "warning", "info"]


def fed(**figures):
    """A result with figures on waiting for data."""
    figures = {"data_wait_ms": 5.0, "data_wait_share": 0.5, "steps_measured": 100} | figures
    return Result("run", tuple(Measurement("fit", name, value) for name, value in figures.items()))


def test_a_run_that_waits_for_data_is_found():
    """A large share of a step gives one warning, with the share, the limit that it sets, and advice in code."""
    (finding,) = training_findings(fed())
    assert (finding.code, finding.severity, finding.subject) == ("input-bound", "warning", "run")
    assert "50 % of the time, 5 ms a step" in finding.message
    assert "more than 2.0 times as fast" in finding.message
    for advice in ("prefetch", "num_parallel_calls", "cache", "workers"):
        assert advice in finding.advice


@pytest.mark.parametrize(
    "figures",
    [
        {"data_wait_share": 0.29},
        {"data_wait_ms": 0.9},  # a loop over arrays in memory, beside very short steps
        {"data_wait_ms": None, "data_wait_share": None},
        {"steps_measured": 9},
    ],
    ids=str,
)
def test_a_run_that_is_fed_well_gives_no_finding(figures):
    """Small shares, short waits, unknown waits and short runs are not accused."""
    assert training_findings(fed(**figures)) == ()
