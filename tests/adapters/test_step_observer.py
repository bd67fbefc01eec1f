"""Statistics of one training step: the same on every stack, and the model stays unchanged."""

import faulty
import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision._adapters import adapter_of
from keras_precision._adapters.tracing.step_observer import Batch, StepObserver
from keras_precision.core.observation import Statistics, find_origin

pytestmark = pytest.mark.every_stack


def observed(model, x, y=None, scale=1.0):
    """Return the observation of one step."""
    return StepObserver(adapter_of(model), model).observe(Batch(x, y), scale=scale)


def test_figures_are_those_of_numpy(stack, rng):
    """Statistics of inputs and outputs are those of the arrays, for a float16 layer, too."""
    with kp.precision("mixed_float16"):
        model = faulty.net(stack.keras)
    x = rng.normal(size=(16, 8)).astype("float32")
    x[0, :4] = [0, 1e-9, 2.0**-25, 2.0**-24]
    x[1, 0] = 7e4
    seen = observed(model, x, np.ones((16, 1), "float32"))
    figures = seen.inputs[0]
    fit = kp.formats.fit(x, "float16")
    assert figures.float16_underflow == pytest.approx(fit.underflow)
    assert figures.float16_overflow == pytest.approx(fit.overflow)
    assert figures.zero == pytest.approx(1 / 128)
    assert (figures.mean, figures.deviation) == (pytest.approx(x.mean(), rel=1e-4), pytest.approx(x.std(), rel=1e-4))
    assert (figures.minimum, figures.maximum, figures.non_finite) == (x.min(), x.max(), 0)
    assert figures.smallest == np.float32(1e-9)
    assert [(call.path, call.kind) for call in seen.calls] == [("first", "Dense"), ("last", "Dense")]


@pytest.mark.parametrize("size", [1e-30, 1e-6, 1e-3, 1.0, 1e4])
def test_the_error_of_rounding_is_foretold(stack, rng, size):
    """In and below the normal range, the estimated rounding error is correct within a tenth."""
    x = (rng.normal(size=(64, 8)) * size).astype("float32")
    (figures,) = observed(faulty.net(stack.keras), x, np.ones((64, 1), "float32")).inputs
    for name in ("float16", "bfloat16"):
        expected = 10 ** (-kp.formats.fit(x, name).snr_db / 20)
        assert getattr(figures, f"{name}_error") == pytest.approx(expected, rel=0.1)
    if size > 1e-20:  # squares of less are 0
        step = (x.max() - x.min()) / 255
        rounded = np.round(x / step) * step
        expected = float(np.sqrt(np.mean((rounded - x) ** 2) / np.mean(x**2)))
        assert figures.int8_error == pytest.approx(expected, rel=0.1)


def test_gradients_are_those_of_training(stack, rng):
    """Gradients of outputs and weights are those of the chain rule, times the loss scale."""
    model = faulty.net(stack.keras)
    x, y = rng.normal(size=(4, 8)).astype("float32"), np.zeros((4, 1), "float32")
    seen = observed(model, x, y, scale=8.0)
    predicted = model.predict(x, verbose=0)
    assert seen.loss == pytest.approx(float(np.mean(predicted**2)), rel=1e-4)
    expected = 8.0 * 2 * predicted / 4
    (after_last,) = seen.calls[-1].output_gradients
    assert after_last.maximum == pytest.approx(expected.max(), rel=1e-3)
    assert after_last.minimum == pytest.approx(expected.min(), rel=1e-3)
    (kernel, bias) = seen.weight_gradients["last"]
    assert bias.mean == pytest.approx(expected.sum(), rel=1e-3)
    assert kernel.deviation > 0


def test_nothing_is_changed(stack, rng):
    """Weights, moving averages, metrics, random state and predictions stay unchanged; no gradient remains."""
    layers = stack.keras.layers
    model = faulty.net(stack.keras, layers.BatchNormalization(name="norm"), layers.Dropout(0.5, name="drop"))
    x, y = rng.normal(size=(16, 8)).astype("float32"), np.ones((16, 1), "float32")
    model.fit(x, y, verbose=0)
    before = [np.copy(value) for value in model.get_weights()]
    drawn = np.random.get_state()[1].copy()
    observed(model, x, y)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(drawn, np.random.get_state()[1])


def test_layers_inside_layers_are_seen(stack, rng):
    """A nested model's layers have their paths, an attention's inner layers their names below its path."""
    model = nets.composite(stack.keras)
    shape = adapter_of(model).inputs(model)[0].shape
    seen = observed(model, rng.normal(size=(2, *shape)).astype("float32"))
    paths = list(kp.layer_paths(model))
    assert list(dict.fromkeys(call.path for call in seen.calls if not call.within)) == paths
    assert any(call.within.startswith("query") for call in seen.calls)
    assert find_origin(seen) is None
    assert seen.loss is None


FAULTS = {
    "custom layer": (lambda keras: [faulty.boom(keras, name="boom")], "forward", "boom", ""),
    "inside a layer": (
        lambda keras: [faulty.holder(keras, faulty.boom(keras, name="deep"), name="holder")],
        "forward",
        "holder",
        "deep",
    ),
    "backward": (
        lambda keras: [keras.layers.ReLU(name="relu"), faulty.backward_boom(keras, name="root")],
        "backward",
        "root",
        "",
    ),
}


@pytest.mark.parametrize(("middle", "phase", "path", "within"), FAULTS.values(), ids=FAULTS)
def test_the_layer_to_blame_is_named(stack, rng, middle, phase, path, within):
    """The first layer that produces NaN or infinity is named, with its input range; a healthy net has none."""
    model = faulty.net(stack.keras, *middle(stack.keras))
    x = rng.normal(size=(8, 8)).astype("float32")
    fine = observed(model, np.zeros_like(x) + 1e-3 if phase == "forward" else np.abs(x), np.ones((8, 1), "float32"))
    origin = find_origin(observed(model, x * 1e4 if phase == "forward" else x, np.ones((8, 1), "float32")))
    assert (origin.phase, origin.path, origin.within) == (phase, path, within)
    assert origin.minimum < origin.maximum
    if phase == "forward":
        assert origin.maximum > 88  # where exp overflows float32
        assert find_origin(fine) is None


def test_broken_data_and_weights_are_told_from_layers(stack, rng):
    """NaN in inputs, labels or weights is attributed to no layer."""
    model = faulty.net(stack.keras)
    x, y = rng.normal(size=(4, 8)).astype("float32"), np.ones((4, 1), "float32")
    broken = x.copy()
    broken[2, 3] = np.nan
    assert find_origin(observed(model, broken, y)).within == "inputs"
    assert find_origin(observed(model, x, y * np.nan)).within == "labels"
    model.layers[-1].set_weights([np.full((8, 1), np.inf), np.zeros(1)])
    origin = find_origin(observed(model, x, y))
    assert (origin.phase, origin.path) == ("weights", "last")


def test_an_empty_tensor_has_no_figures_that_are_not_numbers(stack):
    """A batch without samples does not count as broken."""
    model = faulty.net(stack.keras)
    seen = observed(model, np.zeros((0, 8), "float32"))
    assert seen.inputs[0].non_finite == 0
    assert isinstance(seen.inputs[0], Statistics)
