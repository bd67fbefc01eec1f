"""remarks: lines below the summary, on what the table has no column for."""

from collections.abc import Iterator, Sequence

from keras_precision.core.result import Measurement, Result

__all__ = ["remarks"]

_MOST = 8  # places that are named


def remarks(result: Result) -> list[str]:
    """Return where steps were skipped, and how long the trainer waited for data.

    Args:
        result: The result of a ``PrecisionProfiler``.

    Returns:
        At most two lines.

    Example:
        >>> remarks(Result("run", (Measurement("step", "skipped_in_window", 1, 7),)))
        ['Skipped: step 7.']
    """
    lines = []
    places = list(_places(result.select("skipped_in_window")))
    if places:
        more = [f"and at {len(places) - _MOST} more places"] if len(places) > _MOST else []
        lines.append(f"Skipped: {'; '.join(places[:_MOST] + more)}.")
    wait, share = result.get("data_wait_ms"), result.get("data_wait_share")
    if wait is not None and share is not None:
        lines.append(f"Waiting for data: {wait:.3g} ms a step, {100 * share:.0f} % of the time.")
    elif result.select("data_wait_ms") and result.get("step_time_ms") is not None:
        how = result.environment.sources.get("data_wait_ms", "unknown")
        lines.append(f"Waiting for data: {how}.")
    return lines


def _places(rows: Sequence[Measurement]) -> Iterator[str]:
    """Steps that are known, neighbours together, and windows with the count of each."""
    first = last = None
    for row in rows:
        if row.subject == "step" and last is not None and row.step == last + 1:
            last = row.step
            continue
        yield from _range(first, last)
        first = last = row.step if row.subject == "step" else None
        if first is None:
            yield f"{row.value} of {row.subject}"
    yield from _range(first, last)


def _range(first: int | None, last: int | None) -> Iterator[str]:
    if first is not None:
        yield f"step {first}" if first == last else f"steps {first} to {last}"
