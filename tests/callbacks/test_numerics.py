"""NumericsProbe: the layer that broke is named from within a fit, which goes on as if nobody had looked."""

import warnings

import faulty
import numpy as np
import pytest

import keras_precision as kp
from keras_precision._adapters.training.step_replay import Capture
from keras_precision.core.errors import InputError

pytestmark = pytest.mark.every_stack


def planted(rng, bad=(), count=96):
    """Samples for batches of 8, those of the batches ``bad`` a million times as large; and targets."""
    x, y = rng.normal(size=(count, 8)).astype("float32"), rng.normal(size=(count, 1)).astype("float32")
    for batch in bad:
        x[8 * batch] *= 1e6
    return x, y


def fitted(model, profiler, data, **options):
    """Fit in order; return the history."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "invalid value encountered", RuntimeWarning)  # NaN in Keras's metrics
        callbacks = [] if profiler is None else [profiler]
        return model.fit(*data, **{"batch_size": 8, "shuffle": False, "verbose": 0, "callbacks": callbacks} | options)


def exploding(stack, policy="float32"):
    """A net with a custom layer that overflows on large samples."""
    stack.keras.utils.set_random_seed(5)
    with kp.precision(policy):
        return faulty.net(stack.keras, faulty.boom(stack.keras, name="boom"))


def test_the_step_and_the_layer_are_named(stack, rng):
    """Weights that broke in an earlier step do not hide the layer that broke them."""
    profiler = kp.PrecisionProfiler(probes=[kp.NumericsProbe()])
    fitted(exploding(stack), profiler, planted(rng, bad=[7]))
    (row,) = profiler.result.select("first_non_finite")
    assert (row.subject, row.value, row.step) == ("boom", "forward", 8)
    assert profiler.result.value("first_non_finite_to", "boom") > 88
    assert profiler.result.value("first_non_finite_layer", "boom") == "Boom"
    how = "eager" if stack.name == "torch" else "compiled"
    assert how in profiler.result.environment.sources["first_non_finite"]
    finding = profiler.findings[0]
    assert (finding.code, finding.severity, finding.subject) == ("non-finite", "error", "boom")
    assert "in step 8 in the forward pass of 'boom' (Boom)" in finding.message
    assert "'boom': 'float32'" in finding.advice


def test_a_gradient_that_breaks_behind_a_finite_loss(stack, rng):
    """The step whose update broke the weights is found, though its own loss was finite, across two windows."""
    model = faulty.net(stack.keras, faulty.backward_boom(stack.keras, name="root"))
    model.get_layer("first").set_weights([np.eye(8), np.ones(8)])
    x, y = np.abs(planted(rng)[0]), np.ones((96, 1), "float32")
    x[8 * 4] = -1  # batch 5: zeros go into the root, whose slope there is infinite
    profiler = kp.PrecisionProfiler(probes=[kp.NumericsProbe(window=5)])
    model.optimizer.learning_rate = 0.0
    fitted(model, profiler, (x, y))
    (row,) = profiler.result.select("first_non_finite")
    assert (row.subject, row.value, row.step) == ("root", "backward", 5)


def test_skipped_steps_are_traced_and_called_harmless(stack, rng):
    """Where loss scaling saved a step behind a finite loss, the layer is named, and nothing is called an error."""
    with kp.precision("mixed_float16"):
        model = faulty.net(stack.keras)
    profiler = kp.PrecisionProfiler(probes=[kp.PrecisionProfiler().probes[2], kp.NumericsProbe(window=4)])
    x, y = planted(rng)
    fitted(model, profiler, (x * 30, y * 1000))
    assert profiler.result.value("skipped_steps") > 0
    rows = profiler.result.select("first_non_finite")
    assert rows
    assert all(row.value.startswith("backward") for row in rows)
    assert {finding.severity for finding in profiler.findings} <= {"info", "warning"}


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_training_is_not_changed(stack, rng, policy):
    """With replays, and with looks at every layer, weights and history are those of a run without."""
    data = planted(rng, bad=[7] if policy == "mixed_float16" else [])
    layers = stack.keras.layers

    def run(profiler):
        stack.keras.utils.set_random_seed(5)
        with kp.precision(policy):
            middle = [layers.BatchNormalization(name="norm"), layers.Dropout(0.3, seed=1, name="drop")]
            model = faulty.net(stack.keras, *middle)
        history = fitted(model, profiler, data, epochs=2).history
        return model.get_weights(), history

    profiler = kp.PrecisionProfiler(layer_stats_every=5)
    (plain, told), (watched, heard) = run(None), run(profiler)
    assert profiler.result.notes == ()
    np.testing.assert_array_equal(told["loss"], heard["loss"])
    for one, other in zip(plain, watched, strict=True):
        np.testing.assert_array_equal(one, other)
    if policy == "mixed_float16":
        assert profiler.result.value("skipped_steps") > 0
        assert profiler.result.value("origins_found") > 0


def test_layer_statistics_come_at_their_cadence(stack, rng):
    """Each layer has figures of activations and gradients every so many steps, and nothing else is added."""
    profiler = kp.PrecisionProfiler(probes=[kp.NumericsProbe(layer_stats_every=5)])
    fitted(faulty.net(stack.keras), profiler, planted(rng))
    result = profiler.result
    assert result.series("activation_mean", "first")[0] == [5, 10]
    assert {row.subject for row in result.select("gradient_float16_underflow")} == {"first", "last"}
    assert result.value("origins_found") == 0
    assert result.environment.sources["first_non_finite"]


def test_where_batches_pass_nobody_by(stack, rng):
    """Several batches in one call, and loops of one's own, are said to be unknown."""
    profiler = kp.PrecisionProfiler(probes=[kp.NumericsProbe()])
    if stack.steps_per_execution > 1:
        model = exploding(stack)
        model.compile("sgd", "mse", steps_per_execution=3)
        fitted(model, profiler, planted(rng, bad=[7]))
        assert profiler.result.value("origins_found") is None
        assert "steps_per_execution" in profiler.result.environment.sources["first_non_finite"]
    profiler = kp.PrecisionProfiler(probes=[kp.NumericsProbe()], verbose=0)
    with profiler.watch(exploding(stack)), profiler.step(8):
        pass
    assert "kp.diagnose" in profiler.result.environment.sources["first_non_finite"]


@pytest.mark.parametrize(
    "options", [{"layer_stats_every": 0}, {"window": 0}, {"window": 2.5}, {"layer_stats_every": True}]
)
def test_wrong_arguments_are_refused(options):
    """Numbers of steps are whole, and above 0."""
    with pytest.raises(InputError, match=f"Expected {next(iter(options))} to be a whole number >= 1. Received"):
        kp.NumericsProbe(**options)


def test_waiting_for_data_is_told_as_without_the_probe(stack, rng):
    """What times the trainer's pulls sees them, though the probe stands between it and the step."""
    profiler = kp.PrecisionProfiler(layer_stats_every=50)
    fitted(faulty.net(stack.keras), profiler, planted(rng), epochs=3)
    source = profiler.result.environment.sources["data_wait_ms"]
    assert (profiler.result.value("data_wait_ms") is None) == source.startswith("unknown")
    if stack.name in ("jax", "torch"):
        assert profiler.result.value("data_wait_ms") > 0


def test_a_look_that_fails_within_a_step_ends_no_training(stack, rng, monkeypatch):
    """What goes wrong while a batch is trained switches the probe off with one warning; the fit ends as without it."""

    def fail(capture):
        raise RuntimeError("no such device")

    monkeypatch.setattr(Capture, "weights_are_finite", fail)
    x, y = rng.normal(size=(64, 8)).astype("float32"), rng.normal(size=(64, 1)).astype("float32")
    profiler = kp.PrecisionProfiler(verbose=0, probes=[kp.NumericsProbe(window=2)])
    model = faulty.net(stack.keras)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", kp.PrecisionWarning)
        history = model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[profiler])
    messages = [str(warning.message) for warning in caught if warning.category is kp.PrecisionWarning]
    assert len(messages) == 1
    assert "'numerics' failed and was switched off: RuntimeError: no such device" in messages[0]
    assert np.isfinite(history.history["loss"]).all()
    assert profiler.result.value("batches") == 16


def test_one_process_watches_models_of_other_shapes(stack, rng):
    """Weights of a second model, of other ranks than those of the first, are looked at as well."""
    layers = stack.keras.layers
    for shape, first in (((6, 6, 1), layers.Conv2D(4, 3)), ((6,), layers.Dense(4))):
        model = stack.keras.Sequential([layers.Input(shape), first, layers.Flatten(), layers.Dense(1)])
        model.compile("sgd", "mse")
        profiler = kp.PrecisionProfiler(verbose=0, probes=[kp.NumericsProbe(window=2)])
        x = rng.normal(size=(32, *shape)).astype("float32")
        model.fit(x, np.zeros((32, 1)), batch_size=8, verbose=0, callbacks=[profiler])
        assert profiler.result.value("origins_found", "fit") == 0
