"""The range before a softmax, and the rows that it is chosen from."""

import keras
import numpy as np
import pytest
from scipy.special import rel_entr, softmax

import keras_precision as kp
from keras_precision.quantization.row_sample import RowSample
from keras_precision.quantization.softmax_range import softmax_input_range


def divergence(rows, low, high):
    """Return how far the answers of rows in 8 bits are from those in full, as 8 bits show them."""
    step = (high - low) / 255
    held = np.clip(np.round(rows / step) * step, low, high)
    shown = [np.maximum(softmax(values, axis=1), 1 / 512) for values in (rows, held)]
    exact, got = (values / values.sum(axis=1, keepdims=True) for values in shown)
    return rel_entr(exact, got).sum(axis=1).mean()


def confident(rng, count):
    """Return confident answers with a long tail of values that are far below, as trained nets have them."""
    rows = rng.normal(-8, 6, size=(count, 10))
    rows[np.arange(count), rng.integers(0, 10, count)] = rng.gamma(3, 5, size=count)
    return rows


def test_answers_change_less_than_in_the_full_range(rng):
    """For rows that were not seen, the range is better than the full one by far, and than most of a coarse grid."""
    rows, fresh = confident(rng, 400), confident(rng, 4000)
    full = (rows.min(), rows.max())
    found = divergence(fresh, *softmax_input_range(rows, full))
    assert found < 0.3 * divergence(fresh, *full)
    grid = [(full[0] * a, full[1] * b) for a in (0.2, 0.4, 0.6, 0.8, 1) for b in (0.2, 0.4, 0.6, 0.8, 1)]
    assert sum(divergence(fresh, *pair) < found for pair in grid) <= 3


@pytest.mark.parametrize("count", [2, 16, 48, 100])
def test_few_rows_leave_room_for_others(count):
    """Rows that were not seen lie beyond few that were: the range costs them no more than a tenth over the full one."""
    ratios = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        weights, bias = rng.normal(size=(20, 4)) * 15 / np.sqrt(20), rng.normal(size=4) * 5
        rows, fresh = (rng.normal(size=(number, 20)) @ weights + bias for number in (count, 2000))
        full = (min(0, rows.min()), max(0, rows.max()))
        ratios.append(divergence(fresh, *softmax_input_range(rows, full)) / divergence(fresh, *full))
    assert max(ratios) < 1.1


def test_no_two_classes_are_cut_off_to_a_tie(rng):
    """Two classes that are both far up keep apart, though it costs steps."""
    rows = rng.normal(size=(300, 4))
    rows[0] = [30, 29, 0, 0]
    _, high = softmax_input_range(rows, (rows.min(), 30.0))
    assert high >= 29


def test_a_mask_does_not_take_the_steps_away(rng):
    """Where attention is masked with -1e9, the range is that of the values that can be seen."""
    rows = rng.normal(size=(200, 8)) * 3
    rows[:, 5:] = -1e9
    low, high = softmax_input_range(rows, (-1e9, rows.max()))
    assert -20 < low < 0
    assert divergence(rows, low, high) < 1e-3


@pytest.mark.parametrize("rows", [np.full((5, 3), 2.0), -np.arange(12.0).reshape(4, 3), np.arange(4.0).reshape(4, 1)])
def test_ranges_hold_zero(rows):
    """One-sided values, equal ones, and a softmax over one class have a range with zero in it."""
    full = (min(rows.min(), 0), max(rows.max(), 0))
    low, high = softmax_input_range(rows, full)
    assert full[0] <= low <= 0 <= high <= full[1]
    assert low < high


def test_rows_are_spread_evenly_whatever_the_pieces(rng):
    """What is kept is every n-th row of all that passed, in a space that does not grow."""
    table = rng.normal(size=(10_000, 7)).astype("float32")
    whole, pieces = RowSample(), RowSample()
    whole.update(table)
    for part in np.array_split(table, 123):
        pieces.update(part)
    np.testing.assert_array_equal(pieces.rows, whole.rows)
    np.testing.assert_array_equal(whole.rows, table[:: whole.stride])
    assert 512 <= len(whole.rows) <= 1024


def test_a_calibration_keeps_the_rows_before_a_softmax(rng, tmp_path):
    """The default range of a softmax's input is the one for its answers, after saving as well; minmax is the full one."""
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5), keras.layers.Softmax()])
    model.layers[0].set_weights([rng.normal(size=(6, 5)) * 8, np.zeros(5)])
    x = rng.normal(size=(200, 6)).astype("float32")
    calibration = kp.calibrate(model, x)
    rows = [name for name, seen in calibration.seen.items() if seen.samples is not None]
    assert len(rows) == 1
    logits = calibration.seen[rows[0]].samples.rows
    np.testing.assert_allclose(logits, x @ model.layers[0].get_weights()[0], rtol=1e-3, atol=1e-3)
    full = calibration.ranges("minmax")[rows[0]]
    assert calibration.ranges()[rows[0]] == softmax_input_range(logits, full) != full
    assert kp.Calibration.load(calibration.save(tmp_path / "kept")).ranges() == calibration.ranges()
