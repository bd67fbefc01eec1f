"""The pytest plugin: ``precision_gate``, a fixture that fails a test where a new result is worse than an old one."""

import os
from collections.abc import Callable

import pytest

from keras_precision.comparison.regression_gate import Check, check_results
from keras_precision.core.result import Result

__all__ = ["precision_gate"]

Source = Result | str | os.PathLike[str]


@pytest.fixture
def precision_gate() -> Callable[..., tuple[Check, ...]]:
    """Return a function that holds a new result against an old one, and fails the test where that is worse.

    It is called as ``precision_gate(old, new, max_drop=0.005, max_slowdown=1.05)``: results or their files, and the
    limits of ``kp.check_results``. ``allow_not_shown=True`` lets through what the data can neither show nor rule out.
    It returns the checks.
    """
    return _gate


def _gate(
    old: Source, new: Source, *, allow_not_shown: bool = False, **limits: float | str | None
) -> tuple[Check, ...]:
    before, after = (each if isinstance(each, Result) else Result.load(each) for each in (old, new))
    checks = check_results(before, after, **limits)  # type: ignore[arg-type]
    bad = [
        f"{check.verdict}: {check.message}"
        for check in checks
        if check.verdict == "failed" or (check.verdict == "not shown" and not allow_not_shown)
    ]
    if bad:
        pytest.fail("\n".join([f"'{after.name}' is not shown to be as good as '{before.name}':", *bad]), pytrace=False)
    return checks
