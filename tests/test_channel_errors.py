"""Channels of an output that share a scale: which are lost, and what says so."""

import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.channel_errors import ChannelErrors
from keras_precision.core.result import Result


def rounded(values: np.ndarray) -> np.ndarray:
    """Return values as one int8 scale over all of them represents them."""
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    scale = (high - low) / 255
    return np.round(values / scale) * scale


def prices_and_rooms(rng: np.random.Generator) -> np.ndarray:
    """Return prices with a spread of 50,000, rooms with one of 2, and a constant."""
    return np.stack([rng.normal(3e5, 5e4, 500), rng.normal(5, 2, 500), np.full(500, 7.0)], axis=-1)


def findings(expected: np.ndarray, actual: np.ndarray) -> list[tuple[str, str]]:
    """Return the findings of two outputs."""
    rows = tuple(ChannelErrors.of("head", expected, actual).rows())
    return [(finding.code, finding.message.partition(" of ")[0]) for finding in kp.diagnose(Result("file", rows))]


def test_the_ratio_of_a_channel_is_that_of_its_own_spread(rng: np.random.Generator) -> None:
    """It is NumPy's deviation against the root mean square error, at any rank; a constant channel has none."""
    expected = prices_and_rooms(rng).reshape(25, 20, 3)
    actual = rounded(expected)
    errors = ChannelErrors.of("head", expected, actual)
    for channel in (0, 1):
        noise = np.sqrt(np.mean((actual - expected)[..., channel] ** 2))
        assert errors.snr_db[channel] == pytest.approx(20 * np.log10(expected[..., channel].std() / noise))
    assert errors.snr_db[2] is None


def test_rooms_are_lost_in_the_scale_of_prices(rng: np.random.Generator) -> None:
    """The narrow channel is named, and neither the wide nor the constant one."""
    expected = prices_and_rooms(rng)
    assert findings(expected, rounded(expected)) == [("drowned-channels", "Channel 1")]


def test_many_lost_channels_are_counted(rng: np.random.Generator) -> None:
    """A message names six channels at most."""
    expected = np.concatenate([rng.normal(0, 640, (500, 1)), rng.normal(0, 0.1, (500, 9))], axis=-1)
    assert findings(expected, rounded(expected)) == [("drowned-channels", "Channels 1, 2, 3, 4, 5, 6 and 3 more")]
    assert findings(expected[:, :4], rounded(expected[:, :4])) == [("drowned-channels", "Channels 1, 2 and 3")]


def healthy(name: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return outputs that lose no channel, and what a file makes of them."""
    if name == "softmax with a class that is hardly ever predicted":
        logits = rng.normal(0, 3, (500, 10)) - [0, 0, 0, 0, 0, 0, 0, 0, 9, 30]
        odds = np.exp(logits)
        values = odds / odds.sum(axis=-1, keepdims=True)
        return values, np.round(values * 256) / 256
    if name == "labels that are hardly ever set":
        values = np.clip(rng.normal(0.5, 0.2, (500, 3)) * [1, 0.01, 0.001], 0, 1)
        return values, np.round(values * 255) / 255
    if name == "one channel":
        values = rng.normal(0, 5, (500, 1))
        return values, rounded(values)
    if name == "logits":
        values = rng.normal(0, 5, (500, 10)) * np.linspace(1, 3, 10)
        return values, rounded(values)
    if name == "channels that are noisy alike":
        values = rng.normal(0, 1, (500, 3)) * [1, 10, 100]
        return values, values + rng.normal(0, 0.5, (500, 3)) * [1, 10, 100]
    values = np.tile([3e5, 0.25, 0.0], (500, 1))  # constant channels
    return values, rounded(values)


@pytest.mark.parametrize(
    "name",
    [
        "softmax with a class that is hardly ever predicted", "labels that are hardly ever set", "one channel", "logits",
        "channels that are noisy alike", "constant channels",
    ],
)  # fmt: skip
def test_healthy_outputs_have_no_finding(name: str, rng: np.random.Generator) -> None:
    """Probabilities, channels of similar spread, equal noise and constants are no channels that are lost."""
    expected, actual = healthy(name, rng)
    assert findings(expected, actual) == []


def test_predictions_that_are_not_finite_are_no_channels_of_their_own() -> None:
    """A model that fails is another matter: no ratio is made up for it, and nothing is raised."""
    values = np.array([[1.0, 2.0], [3.0, np.nan]])
    assert list(ChannelErrors.of("head", values, values).rows()) == []
    assert findings(np.array([[1.0, 900.0], [3.0, 2.0]]), values) == []


@pytest.mark.every_stack
def test_evaluate_tells_the_channels_apart(stack, rng: np.random.Generator) -> None:
    """With a reference, every channel of an output has its ratio, and diagnose names the one that is lost."""
    layers = stack.keras.layers
    model = stack.keras.Sequential([layers.Input((4,)), layers.Dense(2, name="price_and_rooms")])
    model.set_weights([np.array([[5e4, 1], [0, 1], [0, 1], [0, 0]], "float32"), np.array([3e5, 5], "float32")])
    x = rng.normal(size=(200, 4)).astype("float32")
    reference = model.predict(x, verbose=0)
    reference[:, 1] += rng.normal(0, 100, 200)  # so that the model's own rooms are 100 off
    result = kp.evaluate(model, x, None, [], reference=reference)
    (subject,) = {row.subject.partition("[")[0] for row in result.select("channel_snr_db")}
    assert result.value("channel_snr_db", f"{subject}[0]") > 60
    assert result.value("channel_snr_db", f"{subject}[1]") == pytest.approx(0, abs=0.5)
    (finding,) = kp.diagnose(result)
    assert (finding.code, finding.subject, finding.severity) == ("drowned-channels", subject, "warning")
    same = kp.evaluate(model, x, None, [], reference=model)
    assert kp.diagnose(same) == ()
