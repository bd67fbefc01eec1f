"""The pytest plugin: ``precision_gate``, a fixture that fails a test if a new result is worse than an old one."""

import os
from collections.abc import Callable

import pytest

from keras_precision.comparison.regression_gate import Check, check_results
from keras_precision.core.result import Result

__all__ = ["precision_gate"]

Source = Result | str | os.PathLike[str]


@pytest.fixture
def precision_gate() -> Callable[..., tuple[Check, ...]]:
    """Return a function that compares a new result with an old one, and fails the test if it is worse.

    Call it as ``precision_gate(old, new, max_drop=0.005, max_slowdown=1.05)`` with results or their files, and the limits
    of ``kp.check_results``. ``allow_not_shown=True`` accepts inconclusive checks. It returns the checks.
    """
    return _gate


def _gate(
    old: Source, new: Source, *, allow_not_shown: bool = False, **limits: float | str | None
) -> tuple[Check, ...]:
    before, after = (source if isinstance(source, Result) else Result.load(source) for source in (old, new))
    checks = check_results(before, after, **limits)  # type: ignore[arg-type]
    failures = [
        f"{check.verdict}: {check.message}"
        for check in checks
        if check.verdict == "failed" or (check.verdict == "inconclusive" and not allow_not_shown)
    ]
    if failures:
        pytest.fail(
            "\n".join([f"'{after.name}' is not shown to be as good as '{before.name}':", *failures]), pytrace=False
        )
    return checks
