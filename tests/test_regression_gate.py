"""The gate: limits are tested for non-inferiority, by Python, by the command line, and by the pytest plugin."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_precision as kp
from keras_precision.cli.main import main
from keras_precision.comparison.comparison import Comparison
from keras_precision.comparison.effect import pack_correct
from keras_precision.core.errors import InputError

HERE = kp.Environment(processor="One", cores=2)


def run(name: str, time: float = 10.0, accuracies: tuple[float, ...] = (), session: str | None = "s") -> kp.Result:
    """Return a training run of three processes, and of as many seeds as there are accuracies."""
    rows = [kp.Measurement("fit", "step_time_ms", time)]
    rows += [kp.Measurement("fit", "session", session)] if session else []
    for number in range(3):
        times = [time * (1 + 0.002 * number) * drift for drift in (1.0, 1.1, 1.2, 1.3)]
        rows += [
            kp.Measurement(f"process {number}", "step_time_ms", step_time, index)
            for index, step_time in enumerate(times)
        ]
    for seed, accuracy in enumerate(accuracies):
        rows.append(kp.Measurement("seed", "val_accuracy", accuracy, seed))
    if accuracies:
        rows.append(kp.Measurement("fit", "val_accuracy", sum(accuracies) / len(accuracies)))
    return kp.Result(name, rows, HERE)


def file(name: str, accuracy: float, samples: int, size: int = 1000, **others: Any) -> kp.Result:
    """Return a file that was evaluated."""
    figures = {"accuracy": accuracy, "samples": samples, "size_bytes": size, **others}
    return kp.Result(name, [kp.Measurement(name, metric, value) for metric, value in figures.items()], HERE)


def verdicts(old: kp.Result, new: kp.Result, **limits: Any) -> list[str]:
    """Return the verdicts alone."""
    return [check.verdict for check in kp.check_results(old, new, **limits)]


@pytest.mark.parametrize(
    ("time", "limit", "verdict"),
    [(10.0, 1.05, "passed"), (10.4, 1.05, "passed"), (11.0, 1.05, "failed"), (5.0, 1.05, "passed"), (10.0, 0.9, "failed")],
)  # fmt: skip
def test_slowdowns_of_interleaved_runs_are_detected(time: float, limit: float, verdict: str) -> None:
    """A slowdown beyond the limit fails, one within it passes, however fast the machine was."""
    assert verdicts(run("old"), run("new", time), max_slowdown=limit) == [verdict]


def test_runs_of_other_days_show_less() -> None:
    """What a drift of the machine could explain is inconclusive, and the message says how to do better."""
    old, new = run("old", session=None), run("new", session=None)
    (check,) = kp.check_results(old, new, max_slowdown=1.05)
    assert check.verdict == "inconclusive"
    assert "these data allow both. Measure longer, or interleave both runs" in check.message
    assert verdicts(old, new, max_slowdown=1.3) == ["passed"]
    assert verdicts(old, run("new", 30.0, session=None), max_slowdown=1.3) == ["failed"]


def test_times_of_two_machines_are_inconclusive() -> None:
    """They are not compared, and the message has the reason."""
    elsewhere = kp.Result("new", run("new").measurements, kp.Environment(processor="Two"))
    (check,) = kp.check_results(run("old"), elsewhere, max_slowdown=1.05)
    assert (check.verdict, check.message[:44]) == ("inconclusive", "step_time_ms: inconclusive: Expected times o")


def test_a_figure_without_spread_is_inconclusive() -> None:
    """Of a metric that was measured once and is no share of samples, nobody knows how it varies."""
    old, new = (kp.Result(name, (kp.Measurement("fit", "val_loss", 0.5),)) for name in ("old", "new"))
    (check,) = kp.check_results(old, new, max_drop=0.1, metric="val_loss")
    assert check.verdict == "inconclusive"
    assert check.message.startswith("val_loss: inconclusive: Expected ")


@pytest.mark.parametrize(
    ("accuracies", "limit", "verdict"),
    [
        ((0.900, 0.910, 0.920), 0.0, "passed"),
        ((0.899, 0.910, 0.918), 0.005, "passed"),
        ((0.85, 0.92, 0.97), 0.005, "inconclusive"),
        ((0.800, 0.811, 0.819), 0.005, "failed"),
    ],
)
def test_a_drop_is_judged_over_seeds(accuracies: tuple[float, ...], limit: float, verdict: str) -> None:
    """The whole interval of the drop must lie within the limit."""
    old = run("old", accuracies=(0.90, 0.91, 0.92))
    assert verdicts(old, run("new", accuracies=accuracies), max_drop=limit) == [verdict]


def test_the_same_answers_pass_and_few_samples_do_not() -> None:
    """Answers to the same samples are compared one by one; without them, the number of samples decides."""
    right = [True] * 90 + [False] * 10
    old, new = (file(name, 0.9, 100, answers_right=pack_correct(np.array(right))) for name in ("a", "b"))
    assert verdicts(old, new, max_drop=0.005) == ["passed"]
    assert verdicts(file("a", 0.9, 100), file("b", 0.9, 100), max_drop=0.005) == ["inconclusive"]
    assert verdicts(file("a", 0.9, 10**6), file("b", 0.9, 10**6), max_drop=0.005) == ["passed"]
    assert verdicts(file("a", 0.9, 10**6), file("b", 0.8, 10**6), max_drop=0.005) == ["failed"]


def test_a_lower_metric_is_judged_the_other_way_round() -> None:
    """Of a loss, a rise is the drop."""
    old, better, worse = (
        kp.Result(name, [kp.Measurement("seed", "val_loss", loss + 0.001 * seed, seed) for seed in range(3)], HERE)
        for name, loss in (("old", 0.5), ("better", 0.4), ("worse", 0.6))
    )
    assert verdicts(old, better, max_drop=0.01, metric="val_loss") == ["passed"]
    assert verdicts(old, worse, max_drop=0.01, metric="val_loss") == ["failed"]


def test_sizes_are_exact() -> None:
    """A size has no spread: it is within the limit, or it is not."""
    assert verdicts(file("a", 0.9, 10), file("b", 0.9, 10, size=1100), max_growth=1.1) == ["passed"]
    assert verdicts(file("a", 0.9, 10), file("b", 0.9, 10, size=1101), max_growth=1.1) == ["failed"]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({}, r"Expected a limit\. Received: none\. Pass max_drop=0\.005"),
        ({"max_drop": -0.1}, r"Expected max_drop to be at least 0\. Received: -0\.1\."),
        ({"max_slowdown": 0.0}, r"Expected a ratio above 0\. Received: 0\.0\."),
        ({"max_growth": float("nan")}, r"Expected a ratio above 0\. Received: nan\."),
        ({"max_drop": 0.1}, r"Expected a metric that 'old' and 'new' share\. Received: none\. Use one of: session, step_time_ms\."),
        ({"max_drop": 0.1, "metric": "auc"}, r"Received: auc\."),
        ({"max_growth": 1.1}, r"Expected results with size_bytes or peak_memory_mb\. Received: 'old' and 'new', which share none"),
    ],
)  # fmt: skip
def test_misuse_is_refused(limits: dict[str, Any], message: str) -> None:
    """No limit, one out of range, and one about what was not measured."""
    with pytest.raises(InputError, match=message):
        kp.check_results(run("old"), run("new"), **limits)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with an old run, one as fast, and a slow one."""
    for name, time in (("old", 10.0), ("same", 10.0), ("slow", 20.0)):
        run(name, time).save(tmp_path / f"{name}.json")
    return tmp_path


@pytest.mark.parametrize(("name", "code", "verdict"), [("same", 0, "PASSED"), ("slow", 1, "FAILED")])
def test_the_exit_code_is_the_verdict(
    saved: Path, capsys: pytest.CaptureFixture[str], name: str, code: int, verdict: str
) -> None:
    """0 where nothing is worse, 1 where something is; JSON says the same."""
    line = ["check", str(saved / "old.json"), str(saved / f"{name}.json"), "--max-slowdown", "1.05"]
    assert main(line) == code
    assert f"{verdict}  {name}: step_time_ms: 10 ms -> " in capsys.readouterr().out
    assert main([*line, "--json"]) == code
    printed = json.loads(capsys.readouterr().out)
    assert (printed["result"] if code else printed)[0]["verdict"] == verdict.lower()


def test_inconclusive_fails_unless_allowed(saved: Path) -> None:
    """What the data can neither show nor rule out passes only on demand."""
    run("other", session=None).save(saved / "other.json")
    line = ["check", str(saved / "old.json"), str(saved / "other.json"), "--max-slowdown", "1.05"]
    assert main(line) == 1
    assert main([*line, "--allow-not-shown"]) == 0


def test_a_comparison_is_checked_by_itself(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All its runs are checked against its baseline; one result alone is misuse."""
    Comparison(run("old"), (run("same"), run("slow", 20.0))).save(saved / "comparison.json")
    assert main(["check", str(saved / "comparison.json"), "--max-slowdown", "1.05"]) == 1
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[:2]] == ["PASSED", "FAILED"]
    assert main(["check", str(saved / "old.json"), "--max-slowdown", "1.05"]) == 2
    assert "Expected two results, or one comparison. Received: 1 result." in capsys.readouterr().err


def test_the_fixture_fails_a_test(saved: Path) -> None:
    """In a project of its own, the fixture gives the same verdicts."""
    (saved / "test_theirs.py").write_text(
        "def test_as_fast(precision_gate):\n"
        "    (check,) = precision_gate('old.json', 'same.json', max_slowdown=1.05)\n"
        "    assert check.verdict == 'passed'\n\n"
        "def test_slower(precision_gate):\n"
        "    precision_gate('old.json', 'slow.json', max_slowdown=1.05)\n"
    )
    options = ("-p", "keras_precision.pytest_plugin", "-p", "no:cacheprovider", "-q", "--rootdir", ".")
    command = [sys.executable, "-m", "pytest", *options, "test_theirs.py"]
    done = subprocess.run(command, cwd=saved, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "1 failed, 1 passed" in done.stdout
    assert "'slow' is not shown to be as good as 'old':\nfailed: step_time_ms: 10 ms -> 20 ms" in done.stdout
