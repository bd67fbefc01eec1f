"""ChannelErrors: how well each channel of an output is represented, by its own spread."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from keras_precision.core.result import Measurement, Result

__all__ = ["CHANNEL_METRICS", "ChannelErrors", "channel_list", "channel_spreads"]

CHANNEL_METRICS = ("channel_snr_db", "channel_spread", "channel_snr_with_plan_db")
"""The metrics of rows whose subjects are ``output[channel]``."""

_SUBJECT = re.compile(r"(.*)\[(\d+)\]")
_MAX_CHANNELS = 256  # an output with more is an embedding, which is compared as a whole
# Noise of a third of the spread (10 dB): what varies in the channel is hardly to be seen.
_MIN_SNR_DB = 10.0
# A step of a range that eight times the spread fills is 3 of 8 bits too coarse, and other noise is not.
_MIN_RATIO, _MIN_LOSS_DB = 8.0, 6.0
_MAX_NAMED = 6


def channel_spreads(reference: npt.ArrayLike) -> npt.NDArray[np.float64] | None:
    """Return the standard deviation of each channel of an output of shape (n, ..., channels), 0 of a constant one.

    None where no channels are told apart: in outputs with a single one, or more than 256, and in those that are all between
    0 and 1. Probabilities have one unit, and a class that is hardly ever predicted is no channel that lost its values.
    """
    values = np.asarray(reference, dtype=np.float64)
    if values.ndim < 2 or not 1 < values.shape[-1] <= _MAX_CHANNELS or not np.isfinite(values).all():
        return None
    if not values.size or (values.min() >= 0 and values.max() <= 1):
        return None
    table = values.reshape(-1, values.shape[-1])
    spreads = table.std(axis=0)
    return np.where(spreads > 1e-6 * np.abs(table).max(axis=0), spreads, 0.0)  # what is less is the rounding of float32


def channel_list(channels: Sequence[int]) -> str:
    """Return the numbers of channels as the start of a sentence, of which six are named.

    Example:
        >>> channel_list([4, 5, 6])
        'Channels 4, 5 and 6'
    """
    if len(channels) == 1:
        return f"Channel {channels[0]}"
    rest = len(channels) - _MAX_NAMED
    *first, last = [*map(str, channels[:_MAX_NAMED]), *([f"{rest} more"] if rest > 0 else [])]
    return f"Channels {', '.join(first)} and {last}"


@dataclass(frozen=True)
class ChannelErrors:
    """The channels of one output: how much each varies, and the noise in it.

    Channels that share a scale share its step, however little one of them varies: boxes in pixels and scores between
    0 and 1 in one tensor (https://github.com/ultralytics/ultralytics/pull/1695).

    Attributes:
        output: The name of the output.
        spreads: Standard deviation of each channel in the reference, by its index.
        snr_db: ``20 log10(spread / root mean square error)`` of each channel; None of a constant one.
    """

    output: str
    spreads: dict[int, float]
    snr_db: dict[int, float | None]

    @classmethod
    def of(cls, output: str, reference: npt.ArrayLike, predictions: npt.ArrayLike) -> "ChannelErrors":
        """Compare outputs of shape (n, ..., channels) with those of a reference; ``channel_spreads`` says which have channels."""
        spread = channel_spreads(reference)
        if spread is None:
            return cls(output, {}, {})
        tables = (np.asarray(values, dtype=np.float64).reshape(-1, len(spread)) for values in (reference, predictions))
        with np.errstate(divide="ignore", invalid="ignore"):
            snr = 20 * np.log10(spread / np.sqrt(np.mean(np.square(np.subtract(*tables)), axis=0)))
        ratios = {channel: float(snr[channel]) if value else None for channel, value in enumerate(spread)}
        return cls(output, dict(enumerate(spread.tolist())), ratios)

    @classmethod
    def from_result(cls, result: Result, metric: str = "channel_snr_db") -> list["ChannelErrors"]:
        """Return the channels that a result has, one object per output."""
        outputs: dict[str, ChannelErrors] = {}
        for row in result.select("channel_spread"):
            match = _SUBJECT.fullmatch(row.subject)
            if match and isinstance(row.value, int | float):
                name, channel = match[1], int(match[2])
                errors = outputs.setdefault(name, cls(name, {}, {}))
                errors.spreads[channel] = float(row.value)
                errors.snr_db[channel] = (
                    result.value(metric, row.subject) if result.select(metric, row.subject) else None
                )
        return list(outputs.values())

    def rows(self) -> Iterator[Measurement]:
        """Yield the rows of a result, whose subjects are ``output[channel]``."""
        for channel, spread in self.spreads.items():
            yield Measurement(f"{self.output}[{channel}]", "channel_snr_db", self.snr_db[channel])
            yield Measurement(f"{self.output}[{channel}]", "channel_spread", spread)

    @property
    def widest(self) -> int:
        """The channel that varies most."""
        return max(self.spreads, key=lambda channel: self.spreads[channel])

    def drowned(self) -> list[int]:
        """Return the channels whose values are lost in the steps of a wider one.

        Each varies by less than an eighth of the widest, has less than 10 dB, and at least 6 dB less than the widest.
        """
        known = {channel: value for channel, value in self.snr_db.items() if value is not None}
        if not known:
            return []
        spread, limit = self.spreads[self.widest], min(_MIN_SNR_DB, known.get(self.widest, 0.0) - _MIN_LOSS_DB)
        return [channel for channel in known if known[channel] < limit and self.spreads[channel] * _MIN_RATIO <= spread]
