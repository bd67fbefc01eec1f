"""summary_notes: lines below the summary of a run, for results that have no column in its table."""

from collections.abc import Iterator, Sequence

from keras_precision.core.result import Measurement, Result
from keras_precision.findings.run_rules import emulation

__all__ = ["summary_notes"]

_MAX_PLACES = 8


def summary_notes(result: Result) -> list[str]:
    """Return at most three lines: where steps were skipped, the wait for data, and that the format of the run is emulated.

    Example:
        >>> summary_notes(Result("run", (Measurement("step", "skipped_in_window", 1, 7),)))
        ['Skipped: step 7.']
    """
    lines = []
    places = list(_skipped_places(result.select("skipped_in_window")))
    if places:
        more = [f"and at {len(places) - _MAX_PLACES} more places"] if len(places) > _MAX_PLACES else []
        lines.append(f"Skipped: {'; '.join(places[:_MAX_PLACES] + more)}.")
    wait, share = result.get("data_wait_ms"), result.get("data_wait_share")
    if wait is not None and share is not None:
        lines.append(f"Waiting for data: {wait:.3g} ms a step, {100 * share:.0f} % of the time.")
    elif result.select("data_wait_ms") and result.get("step_time_ms") is not None:
        source = result.environment.sources.get("data_wait_ms", "unknown")
        lines.append(f"Waiting for data: {source}.")
    if text := emulation(result):
        lines.append(text)
    return lines


def _skipped_places(rows: Sequence[Measurement]) -> Iterator[str]:
    """Yield ranges of consecutive skipped steps, and a count for windows whose steps are not known."""
    first = last = None
    for row in rows:
        if row.subject == "step" and last is not None and row.step == last + 1:
            last = row.step
            continue
        yield from _step_range(first, last)
        first = last = row.step if row.subject == "step" else None
        if first is None:
            yield f"{row.value} of {row.subject}"
    yield from _step_range(first, last)


def _step_range(first: int | None, last: int | None) -> Iterator[str]:
    if first is not None:
        yield f"step {first}" if first == last else f"steps {first} to {last}"
