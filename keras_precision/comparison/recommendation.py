"""Choice: which of the compared runs to use, and why."""

from typing import TYPE_CHECKING

from keras_precision.comparison.intervals import Interval
from keras_precision.core.errors import NotComparableError, NotMeasuredError

if TYPE_CHECKING:
    from keras_precision.comparison.comparison import Comparison

__all__ = ["choose", "speedup", "time_metric"]


def time_metric(comparison: "Comparison") -> str:
    """Return what the speed of the runs is judged by.

    Args:
        comparison: The comparison.

    Returns:
        ``"step_time_ms"`` or ``"latency_ms"``.
    """
    return "latency_ms" if comparison.baseline.select("latency_ms") else "step_time_ms"


def speedup(comparison: "Comparison", run: str) -> Interval | None:
    """Return how many times as fast as the baseline a run is.

    Args:
        comparison: The comparison.
        run: The name of the run.

    Returns:
        The interval; None where these results cannot tell.
    """
    try:
        ratio = comparison.interval(time_metric(comparison), run)
    except (NotMeasuredError, NotComparableError):
        return None
    return Interval(1 / ratio.estimate, 1 / ratio.high, 1 / ratio.low, ratio.confidence, ratio.count)


def choose(comparison: "Comparison") -> tuple[str, str]:
    """Return the run to use: the fastest that is shown to be faster and to keep the metric; else the baseline.

    Where none is faster, one that is shown to need less memory, and not shown to be slower, will do.

    Args:
        comparison: The comparison.

    Returns:
        Its name, and the reason.
    """
    baseline, metric = comparison.baseline.name, time_metric(comparison)
    refused: list[str] = []
    sound = [run.name for run in comparison.others if _is_sound(comparison, run.name, refused)]
    verdicts = {run: _verdict(comparison, metric, run) for run in sound}
    faster = {run: speed for run in sound if verdicts[run] == "better" and (speed := speedup(comparison, run))}
    kept = f", and {comparison.metric} is kept within {comparison.margin_used():.3g}" if comparison.metric else ""
    if faster:
        run = max(faster, key=lambda each: faster[each].estimate)
        return run, f"{run} is {_times(faster[run])} as fast as {baseline}{kept}."
    lean = [
        run for run in sound
        if _verdict(comparison, "peak_memory_mb", run) == "better" and verdicts[run] not in ("worse", None)
    ]  # fmt: skip
    if lean:
        run = min(lean, key=lambda each: comparison.interval("peak_memory_mb", each).estimate)
        saved = 1 - comparison.interval("peak_memory_mb", run).estimate
        return run, f"{run} needs {100 * saved:.0f} % less memory than {baseline}, is not shown to be slower{kept}."
    shown = [f"{run}: {verdicts[run] or 'not comparable'} in {metric}" for run in sound]
    return (
        baseline,
        f"no other run is shown to be faster and sound ({'; '.join([*shown, *refused]) or 'there is none'}).",
    )


def _is_sound(comparison: "Comparison", run: str, refused: list[str]) -> bool:
    diverged = [float(comparison.result(name).get("diverged_share") or 0) for name in (comparison.baseline.name, run)]
    if diverged[1] > diverged[0]:
        refused.append(f"{run}: {100 * diverged[1]:.0f} % of its seeds diverge")
    elif not comparison.keeps_metric(run):
        refused.append(f"{run}: not shown to keep {comparison.metric} within {comparison.margin_used():.3g}")
    else:
        return True
    return False


def _verdict(comparison: "Comparison", metric: str, run: str) -> str | None:
    """The verdict; None where these results have none."""
    try:
        return comparison.verdict(metric, run)
    except (NotMeasuredError, NotComparableError):
        return None


def _times(speed: Interval) -> str:
    return f"{speed.estimate:.2f} times ({speed.low:.2f} to {speed.high:.2f})"
