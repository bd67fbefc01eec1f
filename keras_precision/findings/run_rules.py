"""Rules for two training runs: a missing speedup, and a loss that diverges from the baseline."""

import math
from collections.abc import Iterator, Sequence

from keras_precision.core.formats.processor_flags import PROCESSOR_FLAGS, native_flags
from keras_precision.core.result import Result
from keras_precision.findings.advice import WATCH_AGAIN
from keras_precision.findings.finding import Finding, by_severity

__all__ = ["emulation", "run_findings"]

_MIN_SPEEDUP = 1.05  # a smaller one does not justify fewer digits
_SHORT_MS = 2.0  # most of so short a step is kernel launches, in any precision
_MAX_DIVERGENCE = 0.25  # of the baseline's loss at the same epoch, and of its decrease since the first epoch


def run_findings(results: Sequence[Result]) -> tuple[Finding, ...]:
    """Compare results of ``PrecisionProfiler`` with the first of them, the baseline; return findings by severity."""
    baseline, *others = results
    return by_severity(
        finding
        for other in others
        for rule in (_no_speedup, _diverges_from_baseline)
        for finding in rule(baseline, other)
    )


def _no_speedup(baseline: Result, other: Result) -> Iterator[Finding]:
    before, after = baseline.get("step_time_ms"), other.get("step_time_ms")
    if not before or not after or baseline.environment.machine != other.environment.machine:
        return
    ratio = float(before) / float(after)
    if ratio >= _MIN_SPEEDUP:
        return
    reasons = list(_reasons(other, float(after)))
    yield Finding(
        code="no-speedup",
        severity="warning" if ratio < 0.9 else "info",
        subject=other.name,
        message=(
            f"'{other.name}' takes {after:.3g} ms a step, '{baseline.name}' {before:.3g}: {ratio:.2f} times as fast. "
            + (" ".join(reasons) or "The results do not show why.")
        ),
        advice="figures = kp.hardware(measure=True)  # the formats that this machine accelerates with this backend",
    )


def _reasons(result: Result, step_ms: float) -> Iterator[str]:
    share = result.get("data_wait_share")
    if share is not None and share >= 0.3:
        yield f"It waits for data {share:.0%} of the time."
    if step_ms < _SHORT_MS:
        yield "Most of so short a step is kernel launches, not computation: a larger batch or model would gain more."
    if text := emulation(result):
        yield text


def emulation(result: Result) -> str:
    """Say that the processor of a run emulates the format of its plan; empty if it does not.

    Example:
        >>> emulation(Result("run"))
        ''
    """
    policy = result.plan.default if result.plan is not None else ""
    on_processor = not result.environment.device or result.environment.device == result.environment.processor
    flags = PROCESSOR_FLAGS.get(policy.removeprefix("mixed_"), ())
    if not flags or not on_processor or native_flags(policy, result.environment.cpu_flags):
        return ""
    return f"This processor has none of {', '.join(flags)}: it emulates the format of '{policy}'."


def _diverges_from_baseline(baseline: Result, other: Result) -> Iterator[Finding]:
    expected = {row.step: row.value for row in baseline.select("loss", "epoch") if row.value is not None}
    start = next((float(value) for value in expected.values() if isinstance(value, float | int)), None)
    for row in other.select("loss", "epoch"):
        target = expected.get(row.step)
        if target is None or row.value is None or start is None or not math.isfinite(float(target)):
            continue
        loss, target = float(row.value), float(target)
        tolerance = _MAX_DIVERGENCE * (abs(target) + abs(start - target) * 0.2) + 1e-6
        is_finite = math.isfinite(loss)
        if not is_finite or loss - target > tolerance:
            yield Finding(
                code="leaves-baseline",
                severity="warning" if is_finite else "error",
                subject=other.name,
                message=(
                    f"The loss of '{other.name}' diverges from that of '{baseline.name}' in epoch {int(row.step or 0) + 1}: "
                    f"{loss:.4g} against {target:.4g}."
                ),
                advice=f"{WATCH_AGAIN}; kp.find_unstable_layers(build, data) searches, too",
            )
            return
