"""What two training runs say together: a speedup that is not there, a loss that leaves its baseline."""

import math
from collections.abc import Iterator, Sequence

from keras_precision.core.formats.processor_flags import PROCESSOR_FLAGS, native_flags
from keras_precision.core.result import Result
from keras_precision.findings.finding import Finding, in_order

__all__ = ["run_findings"]

_NO_GAIN = 1.05  # times as fast: less than that is not worth the digits
_SHORT_MS = 2.0  # of such a step, most is calling kernels, whatever they compute in
_LEAVES = 0.25  # of the baseline's loss at the same epoch, and of how far it has come


def run_findings(results: Sequence[Result]) -> tuple[Finding, ...]:
    """Judge runs against the first of them.

    Args:
        results: Results of ``PrecisionProfiler``, the baseline first.

    Returns:
        The findings, the worst first.
    """
    baseline, *others = results
    return in_order(
        finding for other in others for rule in (_no_speedup, _leaves_baseline) for finding in rule(baseline, other)
    )


def _no_speedup(baseline: Result, other: Result) -> Iterator[Finding]:
    before, after = baseline.get("step_time_ms"), other.get("step_time_ms")
    if not before or not after or baseline.environment.machine != other.environment.machine:
        return
    ratio = float(before) / float(after)
    if ratio >= _NO_GAIN:
        return
    reasons = list(_reasons(other, float(after)))
    yield Finding(
        code="no-speedup",
        severity="warning" if ratio < 0.9 else "info",
        subject=other.name,
        message=(
            f"'{other.name}' takes {after:.3g} ms a step, '{baseline.name}' {before:.3g}: {ratio:.2f} times as fast. "
            + (" ".join(reasons) or "Nothing in the results says why.")
        ),
        advice="kp.hardware(measure=True) tells what this machine computes fast, on this backend",
    )


def _reasons(result: Result, step_ms: float) -> Iterator[str]:
    share = result.get("data_wait_share")
    if share is not None and share >= 0.3:
        yield f"It waits for data {share:.0%} of the time."
    if step_ms < _SHORT_MS:
        yield "Such short steps are calls of kernels more than computing: a larger batch or model would gain more."
    policy = result.plan.default if result.plan is not None else ""
    on_processor = not result.environment.device or result.environment.device == result.environment.processor
    flags = PROCESSOR_FLAGS.get(policy.removeprefix("mixed_"), ())
    if flags and on_processor and not native_flags(policy, result.environment.cpu_flags):
        yield f"This processor has none of {', '.join(flags)}: it emulates what '{policy}' computes in."


def _leaves_baseline(baseline: Result, other: Result) -> Iterator[Finding]:
    expected = {row.step: row.value for row in baseline.select("loss", "epoch") if row.value is not None}
    start = next((float(value) for value in expected.values() if isinstance(value, float | int)), None)
    for row in other.select("loss", "epoch"):
        usual = expected.get(row.step)
        if usual is None or row.value is None or start is None or not math.isfinite(float(usual)):
            continue
        loss, usual = float(row.value), float(usual)
        gone = _LEAVES * (abs(usual) + abs(start - usual) * 0.2) + 1e-6
        if not math.isfinite(loss) or loss - usual > gone:
            broken = not math.isfinite(loss)
            yield Finding(
                code="leaves-baseline",
                severity="error" if broken else "warning",
                subject=other.name,
                message=(
                    f"The loss of '{other.name}' leaves that of '{baseline.name}' in epoch {int(row.step or 0) + 1}: {loss:.4g} against {usual:.4g}."
                ),
                advice="kp.PrecisionProfiler(layer_stats_every=100), or kp.find_unstable_layers(build, data)",
            )
            return
