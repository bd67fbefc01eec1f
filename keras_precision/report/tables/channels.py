"""The table of the channels of a model's outputs, those with the lowest ratio first."""

from collections.abc import Iterator, Sequence

from keras_precision.core.channel_errors import CHANNEL_METRICS, ChannelErrors
from keras_precision.core.result import Measurement, Result
from keras_precision.report.tables.runs import UNKNOWN, Table, format_value

__all__ = ["channel_tables", "without_channels"]

_MAX_ROWS = 16


def channel_tables(results: Sequence[Result]) -> Iterator[Table]:
    """Yield a table per output whose channels were compared, with at most 16 rows.

    Example:
        >>> errors = ChannelErrors("head", spreads={0: 5e4, 1: 1.5}, snr_db={0: 35.0, 1: -30.0})
        >>> next(channel_tables([Result("int8", tuple(errors.rows()))])).rows
        (('head[1]', '1.5', '-30 dB'), ('head[0]', '50,000', '35 dB'))
    """
    for result in results:
        planned = {errors.output: errors for errors in ChannelErrors.from_result(result, "channel_snr_with_plan_db")}
        for errors in ChannelErrors.from_result(result):
            yield _table(result, errors, planned.get(errors.output))


def without_channels(result: Result) -> list[Measurement]:
    """Return the rows of a result that the tables of its channels do not have."""
    return [row for row in result if row.metric not in CHANNEL_METRICS]


def _table(result: Result, errors: ChannelErrors, planned: ChannelErrors | None) -> Table:
    known = {channel: ratio for channel, ratio in errors.snr_db.items() if ratio is not None}
    shown = sorted(known, key=lambda channel: known[channel])[:_MAX_ROWS]
    with_plan = {} if planned is None else {c: ratio for c, ratio in planned.snr_db.items() if ratio is not None}
    rows = []
    for channel in shown:
        cells = [f"{errors.output}[{channel}]", format_value("channel_spread", errors.spreads[channel])]
        cells.append(format_value("channel_snr_db", known[channel]))
        if with_plan:
            ratio = with_plan.get(channel)
            cells.append(UNKNOWN if ratio is None else format_value("channel_snr_with_plan_db", ratio))
        rows.append(tuple(cells))
    header = ("Channel", "Spread", "SNR", *(["SNR with the plan"] if with_plan else []))
    rest = len(errors.snr_db) - len(shown)
    notes = [f"{rest} channels with a higher ratio, or without any spread, are left out."] * bool(rest)
    return Table(f"Channels of '{errors.output}': {result.name}", header, tuple(rows), tuple(notes))
