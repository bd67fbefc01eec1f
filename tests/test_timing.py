"""Timing: percentiles as NumPy has them, and calls counted under a clock that the test moves."""

from collections.abc import Callable, Iterable

import numpy as np
import pytest

from keras_precision.core.errors import DataError, InputError
from keras_precision.core.system import timing
from keras_precision.core.system.timing import Spread, spread, time_calls


class Clock:
    """A clock that stands still until somebody works."""

    def __init__(self) -> None:
        self.now_ns = 5_000_000_000

    def perf_counter(self) -> float:
        """Return the time in seconds."""
        return self.now_ns / 1e9

    def perf_counter_ns(self) -> int:
        """Return the time in nanoseconds."""
        return self.now_ns


class Work:
    """A call that takes some milliseconds of a clock and remembers what it was called with."""

    def __init__(self, clock: Clock, milliseconds: Callable[[int], float]) -> None:
        self._clock, self._milliseconds = clock, milliseconds
        self.numbers: list[int] = []

    def __call__(self, number: int) -> None:
        self._clock.now_ns += round(self._milliseconds(len(self.numbers)) * 1e6)
        self.numbers.append(number)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that timing looks at."""
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


@pytest.mark.parametrize("count", [1, 2, 3, 100, 1001])
def test_spread_is_that_of_numpy(rng: np.random.Generator, count: int) -> None:
    """Median and percentiles are NumPy's, in any order of the figures."""
    values = rng.lognormal(size=count)
    expected = Spread(count, np.median(values), np.percentile(values, 5), np.percentile(values, 95))
    found = spread(values)
    assert (found.count, found.median, found.p5, found.p95) == pytest.approx(
        (count, expected.median, expected.p5, expected.p95), rel=1e-12
    )
    assert all(type(figure) is float for figure in (found.median, found.p5, found.p95))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7], Spread(1, 7.0, 7.0, 7.0)),
        (range(21), Spread(21, 10.0, 1.0, 19.0)),
        (iter([3.0, 1.0]), Spread(2, 2.0, 1.1, 2.9)),
    ],
)
def test_spread_of_a_few_figures(values: Iterable[float], expected: Spread) -> None:
    """Percentiles are interpolated between the figures."""
    found = spread(values)
    assert found.count == expected.count
    assert (found.p5, found.median, found.p95) == pytest.approx((expected.p5, expected.median, expected.p95), rel=1e-12)


@pytest.mark.parametrize("values", [[], iter(()), np.empty(0)], ids=["list", "iterator", "array"])
def test_no_figure_has_no_spread(values: Iterable[float]) -> None:
    """Where there is nothing, no figure is made up."""
    with pytest.raises(DataError, match=r"Expected at least one figure\. Received: none\."):
        spread(values)


@pytest.mark.parametrize(
    ("warmup", "min_calls", "min_seconds", "calls"),
    [
        (0, 1, 0, 1),
        (0, 3, 0, 3),
        (2, 3, 0, 3),
        (2, 3, 0.01, 3),
        (2, 3, 0.08, 8),
        (0, 1, 0.075, 8),
        (5, 20, 0.08, 20),
    ],
)
def test_calls_go_on_until_both_minima_are_met(
    clock: Clock, warmup: int, min_calls: int, min_seconds: float, calls: int
) -> None:
    """Calls of 10 ms are timed until there are enough and long enough, the warm-up not counted."""
    work = Work(clock, lambda _: 10.0)
    times = time_calls(work, warmup=warmup, min_calls=min_calls, min_seconds=min_seconds)
    assert work.numbers == [*range(warmup), *range(calls)]
    assert times.tolist() == [10.0] * calls


def test_each_time_is_that_of_its_call(clock: Clock) -> None:
    """Times are in milliseconds and in order, without those of the warm-up."""
    work = Work(clock, lambda number: 1.5 * (number + 1))
    times = time_calls(work, warmup=2, min_calls=4, min_seconds=0)
    assert times.dtype == np.float64
    assert times.tolist() == [4.5, 6.0, 7.5, 9.0]


@pytest.mark.parametrize(
    ("warmup", "min_calls", "min_seconds"), [(-1, 1, 0), (0, 0, 0), (0, -3, 0), (0, 1, -0.5), (0, 0, 1.0)]
)
def test_bad_counts_are_refused(clock: Clock, warmup: int, min_calls: int, min_seconds: float) -> None:
    """A count that is out of range is refused before the first call."""
    work = Work(clock, lambda _: 1.0)
    with pytest.raises(InputError, match=rf"min_calls >= 1 .*Received: {warmup}, {min_calls} and {min_seconds}\."):
        time_calls(work, warmup=warmup, min_calls=min_calls, min_seconds=min_seconds)
    assert work.numbers == []
