"""The recommended run of a comparison, and the reason."""

from typing import TYPE_CHECKING

from keras_precision.comparison.intervals import Interval
from keras_precision.core.errors import NotComparableError, NotMeasuredError

if TYPE_CHECKING:
    from keras_precision.comparison.comparison import Comparison

__all__ = ["recommend", "speedup", "time_metric"]


def time_metric(comparison: "Comparison") -> str:
    """Return the metric of speed: ``"step_time_ms"`` or ``"latency_ms"``."""
    return "latency_ms" if comparison.baseline.select("latency_ms") else "step_time_ms"


def speedup(comparison: "Comparison", run: str) -> Interval | None:
    """Return a run's speedup over the baseline; None where the results are not comparable."""
    try:
        return comparison.interval(time_metric(comparison), run).inverse()
    except (NotMeasuredError, NotComparableError):
        return None


def recommend(comparison: "Comparison") -> tuple[str, str]:
    """Return the name of the run to use, and the reason.

    It is the fastest run that is significantly faster and preserves the metric; else one that needs significantly less
    memory and is not significantly slower; else the baseline.
    """
    baseline, metric = comparison.baseline.name, time_metric(comparison)
    rejected: list[str] = []
    sound = [run.name for run in comparison.others if _is_sound(comparison, run.name, rejected)]
    verdicts = {run: _verdict(comparison, metric, run) for run in sound}
    faster = {run: speed for run in sound if verdicts[run] == "better" and (speed := speedup(comparison, run))}
    within = f", and {comparison.metric} is kept within {comparison.margin_used():.3g}" if comparison.metric else ""
    if faster:
        run, speed = max(faster.items(), key=lambda item: item[1].estimate)
        return run, f"{run} is {_times(speed)} as fast as {baseline}{within}."
    lean = {
        run: comparison.interval("peak_memory_mb", run).estimate for run in sound
        if _verdict(comparison, "peak_memory_mb", run) == "better" and verdicts[run] not in ("worse", None)
    }  # fmt: skip
    if lean:
        run, share = min(lean.items(), key=lambda item: item[1])
        return (
            run,
            f"{run} needs {100 * (1 - share):.0f} % less memory than {baseline}, is not shown to be slower{within}.",
        )
    others = [*(f"{run}: {verdicts[run] or 'not comparable'} in {metric}" for run in sound), *rejected]
    return baseline, f"no other run is shown to be faster and sound ({'; '.join(others) or 'there is none'})."


def _is_sound(comparison: "Comparison", run: str, rejected: list[str]) -> bool:
    """Return whether a run diverges no more often than the baseline and preserves the metric; else add the reason."""
    before, after = (
        float(comparison.result(name).get("diverged_share") or 0) for name in (comparison.baseline.name, run)
    )
    if after > before:
        rejected.append(f"{run}: {100 * after:.0f} % of its seeds diverge")
    elif not comparison.keeps_metric(run):
        rejected.append(f"{run}: not shown to keep {comparison.metric} within {comparison.margin_used():.3g}")
    else:
        return True
    return False


def _verdict(comparison: "Comparison", metric: str, run: str) -> str | None:
    """Return the verdict; None where the results are not comparable."""
    try:
        return comparison.verdict(metric, run)
    except (NotMeasuredError, NotComparableError):
        return None


def _times(speed: Interval) -> str:
    return f"{speed.estimate:.2f} times ({speed.low:.2f} to {speed.high:.2f})"
