"""The range of a tensor by each method, against the plainest code that finds it from the values themselves."""

import numpy as np
import pytest

from keras_precision.core.errors import InputError
from keras_precision.quantization.histogram import Histogram
from keras_precision.quantization.range_estimators import FIXED_RANGES, METHODS, check_method, estimate_range

KINDS = {
    "both sides": lambda rng: rng.normal(size=20_000) * [1.0],
    "one side": lambda rng: np.maximum(rng.normal(size=20_000), 0),
    "heavy tail": lambda rng: rng.standard_t(3, size=20_000),
    "outlier": lambda rng: np.append(rng.normal(size=20_000), 200.0),
    "negative": lambda rng: -rng.gamma(2.0, size=20_000),
    "far from zero": lambda rng: rng.normal(14, 0.1, size=20_000),
}


@pytest.fixture(params=KINDS)
def values(request, rng):
    """Values of one kind."""
    return KINDS[request.param](rng).astype("float32")


def seen_of(values):
    """Return the histogram of values."""
    seen = Histogram()
    seen.update(values)
    return seen


def error_of(values, low, high):
    """Return the mean squared error of values as int8 in a range holds them, zeros not counted."""
    step = (high - low) / 255
    rounded = np.clip(np.round((values - low) / step), 0, 255) * step + low
    return float(np.mean(np.where(values == 0, 0, (rounded - values) ** 2)))


def test_minmax_is_exact(values):
    """The ends are the smallest and the largest value, zero between them."""
    assert estimate_range(seen_of(values), "minmax") == (min(values.min(), 0), max(values.max(), 0))


@pytest.mark.parametrize("percentile", [99.0, 99.9, 100])
def test_percentile_gives_up_its_share_at_each_end(values, percentile):
    """Beyond each end lie at most as many values as the percentile says, and a bin less would be too little."""
    seen = seen_of(values)
    low, high = estimate_range(seen, "percentile", percentile)
    allowed = (1 - percentile / 100) * len(values)
    for outward, end in ((values, high), (-values, -low)):
        assert np.sum(outward > end) <= allowed + 1e-6
        if 0 < end < outward.max() - seen.width:
            assert np.sum(outward >= end - seen.width) > allowed


def test_mse_finds_the_least_error(values):
    """No range of a fine grid has an error that is smaller by more than a few percent."""
    low, high = estimate_range(seen_of(values), "mse")
    full_low, full_high = min(values.min(), 0), max(values.max(), 0)
    ends = [(full_low * a, full_high * b) for a in np.geomspace(0.02, 1, 40) for b in np.geomspace(0.02, 1, 40)]
    least = min(error_of(values, *pair) for pair in ends if pair[1] > pair[0])
    assert error_of(values, low, high) <= 1.05 * least


def test_entropy_gives_up_an_outlier_and_keeps_a_bell(rng):
    """A bell keeps nearly all of its values; one far value does not widen the range."""
    bell = rng.normal(size=20_000).astype("float32")
    low, high = estimate_range(seen_of(bell), "entropy")
    assert np.mean((bell >= low) & (bell <= high)) > 0.99
    _, high = estimate_range(seen_of(np.append(bell, np.float32(200))), "entropy")
    assert high < 20


def divergence_of(counts, stop, levels):
    """Return the divergence of the first bins, with all beyond them in the last, from the same in a few levels."""
    exact = [*counts[: stop - 1], sum(counts[stop - 1 :])]
    merged = {}
    for number, count in enumerate(counts[:stop]):
        if count:
            merged.setdefault(number * levels // stop, []).append(count)
    coarse = [
        sum(merged[number * levels // stop]) / len(merged[number * levels // stop]) if count else 0
        for number, count in enumerate(counts[:stop])
    ]
    total, count_of_all = sum(coarse), sum(exact)
    if not total:  # nothing below the cut-off but the values beyond it
        return float("inf")
    coarse = [value or 1e-9 * total * bool(count) for value, count in zip(coarse, exact, strict=True)]
    lost = np.log(count_of_all / sum(coarse)) if sum(coarse) < count_of_all else 0.0  # by the coarse, of all values
    total = sum(coarse)
    divergence = sum(
        p / count_of_all * np.log(p / count_of_all / (q / total)) for p, q in zip(exact, coarse, strict=True) if p
    )
    return divergence + lost - 1 + total / count_of_all


@pytest.mark.parametrize("kind", ["both sides", "above", "below"])
def test_entropy_takes_the_least_divergence(rng, kind):
    """Of 128 cut-offs, with 128 levels for their bins, or 256 where all values are on one side of zero."""
    values = rng.standard_t(4, size=600).astype("float32")
    values = {"both sides": values, "above": np.abs(values), "below": -np.abs(values)}[kind]
    seen, levels = seen_of(values), 128 if kind == "both sides" else 256
    bins = (np.abs(values[values != 0]) / seen.width).astype(int)
    counts = np.bincount(bins).tolist()
    cutoffs = np.linspace(min(levels, len(counts)), len(counts), 128).astype(int)
    best = min(cutoffs, key=lambda stop: divergence_of(counts, stop, levels)) * seen.width
    expected = max(min(values.min(), 0), -best), min(max(values.max(), 0), best)
    assert estimate_range(seen, "entropy") == pytest.approx(expected)


@pytest.mark.parametrize("inside", [[], [0.5]], ids=["one bin", "two bins"])
@pytest.mark.parametrize("sides", [(1,), (-1,), (1, -1)], ids=["above", "below", "both sides"])
def test_entropy_clips_no_bulk_of_values(rng, sides, inside):
    """A cut-off whose last bin has nearly all values below it does not hide that most lie beyond."""
    first_cutoff = 16 / len(sides)  # 256 bins of 1/16, or 128 on each side
    outward = np.concatenate([inside, np.full(500, first_cutoff - 0.03), rng.uniform(20, 100, 5000)])
    seen = seen_of(np.concatenate([side * outward for side in sides]).astype("float32"))
    assert seen.width == 1 / 16
    low, high = estimate_range(seen, "entropy")
    assert max(-low, high) > 90


@pytest.mark.parametrize(
    ("kernel", "scale", "zero_point"), [("SOFTMAX", 1 / 256, -128), ("LOGISTIC", 1 / 256, -128), ("TANH", 1 / 128, 0)]
)
def test_fixed_ranges_are_those_of_the_kernels(kernel, scale, zero_point):
    """Scale and zero point in 8 bits are what TensorFlow Lite's specification fixes."""
    low, high = FIXED_RANGES[kernel]
    assert (high - low) / 255 == scale
    assert -128 - low / scale == zero_point


@pytest.mark.parametrize("method", METHODS)
def test_every_range_holds_zero_and_lies_within_the_values(values, method):
    """Integer arithmetic pads with zero; nothing is gained beyond what was seen."""
    low, high = estimate_range(seen_of(values), method)
    assert min(values.min(), 0) <= low <= 0 <= high <= max(values.max(), 0)
    assert low < high


@pytest.mark.parametrize("method", METHODS)
def test_nothing_and_zeros_have_a_range(method):
    """A tensor that was empty or always zero gets one, and no division fails."""
    assert estimate_range(Histogram(), method) == (0.0, 0.0)
    assert estimate_range(seen_of(np.zeros(5, np.float32)), method) == (0.0, 0.0)
    low, high = estimate_range(seen_of(np.full(5, -3.0, np.float32)), method)
    assert (low, high) == pytest.approx((-3.0, 0.0), rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("minmx", 99.9), "Received: 'minmx'. Did you mean 'minmax'"),
        (("percentile", 50), "above 50 and up to 100. Received: 50"),
        (("percentile", 101), "above 50 and up to 100. Received: 101"),
    ],
)
def test_methods_that_do_not_exist(arguments, message):
    """A wrong method or percentile is refused with what is known."""
    with pytest.raises(InputError, match=message):
        check_method(*arguments)
