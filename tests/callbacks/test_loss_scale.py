"""Bounds on the loss scale, and the findings when it fails, on every stack."""

import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision._adapters import adapter_of
from keras_precision.core.errors import InputError, LossScaleCollapse

pytestmark = pytest.mark.every_stack


def compiled(stack, optimizer="adam", *, grouped=False, policy="mixed_float16"):
    """A small net in mixed_float16 with a head in float32."""
    stack.keras.utils.set_random_seed(3)
    with kp.precision(policy):
        model = nets.mlp(stack.keras, head="float32")
    steps = stack.steps_per_execution if grouped else 1
    model.compile(optimizer, "sparse_categorical_crossentropy", steps_per_execution=steps)
    return model


def storm(model, rng, *callbacks, bad, good=0):
    """Train on ``bad`` batches of infinities, then on ``good`` clean ones."""
    x, y = nets.classes(rng, 4 * (bad + good))
    x[: 4 * bad] = np.inf
    with np.errstate(all="ignore"):
        model.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=list(callbacks))


def has_nan(model):
    """Whether any weight is NaN."""
    return any(np.isnan(weight).any() for weight in model.get_weights())


def test_storm_without_bounds_ruins_the_model(stack, rng):
    """Keras 3 has no floor: the plain optimizer ends with NaN in its weights, and the profiler says so."""
    if stack.name == "tf_keras":
        pytest.skip("tf_keras has a floor")
    model, profiler = compiled(stack), kp.PrecisionProfiler()
    storm(model, rng, profiler, bad=180, good=3)
    assert has_nan(model)
    findings = [finding for finding in profiler.findings if finding.code != "input-bound"]  # as a machine in use may be
    assert [finding.code for finding in findings] == ["non-finite", "loss-scale-collapsed"]
    assert findings[0].severity == "error"


@pytest.mark.parametrize(
    ("trained_before", "grouped"), [(False, False), (True, False), (True, True)], ids=["fresh", "trained", "grouped"]
)
def test_guard_saves_the_model(stack, rng, trained_before, grouped):
    """With the guard, clean batches after a storm train on, and every skipped step is counted."""
    if grouped and stack.steps_per_execution == 1:
        pytest.skip("has no groups of batches")
    model, profiler = compiled(stack, grouped=grouped), kp.PrecisionProfiler()
    if trained_before:
        storm(model, rng, bad=0, good=3)
    storm(model, rng, kp.LossScaleGuard(patience=1000), profiler, bad=180, good=30)
    assert not has_nan(model)
    assert profiler.result.value("skipped_steps") == 180
    assert profiler.result.value("loss_scale") == 1.0


def test_guard_keeps_the_state_of_the_optimizer(stack, rng):
    """Momentum and counters of the inner optimizer are the same objects as before."""
    if stack.name == "tf_keras":
        pytest.skip("tf_keras keeps its own optimizer")
    model = compiled(stack, stack.keras.optimizers.SGD(0.1, momentum=0.9))
    storm(model, rng, bad=0, good=4)
    inner, slots = model.optimizer.inner_optimizer, list(model.optimizer.inner_optimizer.variables)
    storm(model, rng, kp.LossScaleGuard(), bad=0, good=4)
    assert model.optimizer.inner_optimizer is inner
    assert [id(slot) for slot in inner.variables] == [id(slot) for slot in slots]
    assert int(inner.iterations) == 8


def test_guard_raises_when_no_scale_helps(stack, rng):
    """After its patience, the guard ends the training with the evidence; the model is unharmed."""
    model = compiled(stack)
    guard = kp.LossScaleGuard(patience=40, check_every=10)
    # 15 halvings from 2**15 to the floor, then the patience, at looks every 10 batches.
    with pytest.raises(LossScaleCollapse, match=r"Received: 40 skipped steps in a row at a scale of 1, up to batch 60"):
        storm(model, rng, guard, bad=100)
    assert not has_nan(model)


def test_guard_leaves_other_models_alone(stack, rng):
    """A model without loss scaling trains as it would, with the optimizer that it has."""
    model = compiled(stack, policy="float32")
    optimizer = model.optimizer
    storm(model, rng, kp.LossScaleGuard(), bad=0, good=3)
    assert model.optimizer is optimizer


def test_optimizer_holds_its_bounds(stack, rng):
    """The floor and the ceiling hold inside the step, under steps_per_execution too."""
    if stack.name == "tf_keras":
        pytest.skip("the optimizer is one of Keras 3")
    adam = stack.keras.optimizers.Adam
    floor = kp.LossScaleOptimizer(adam(), initial_scale=64.0, min_scale=4.0)
    model = compiled(stack, floor, grouped=True)
    storm(model, rng, bad=12)
    assert (float(floor.dynamic_scale), int(floor.overflows_at_floor), int(floor.iterations)) == (4.0, 8, 0)
    storm(model, rng, bad=0, good=3)
    assert (int(floor.overflows_at_floor), int(floor.iterations)) == (0, 3)
    ceiling = kp.LossScaleOptimizer(adam(), initial_scale=64.0, dynamic_growth_steps=1, max_scale=256.0)
    storm(compiled(stack, ceiling, grouped=True), rng, bad=0, good=9)
    assert float(ceiling.dynamic_scale) == 256.0


def test_optimizer_trains_like_keras_own(stack, rng):
    """Within the bounds, weights are bit by bit those of Keras's own optimizer."""
    if stack.name == "tf_keras":
        pytest.skip("the optimizer is one of Keras 3")
    optimizers = stack.keras.optimizers
    weights = []
    for wrap in (optimizers.LossScaleOptimizer, kp.LossScaleOptimizer):
        model = compiled(stack, wrap(optimizers.Adam(0.01)))
        storm(model, np.random.default_rng(1), bad=2, good=10)
        weights.append(model.get_weights())
    for plain, bounded in zip(*weights, strict=True):
        np.testing.assert_array_equal(plain, bounded)


def test_optimizer_survives_saving(stack, rng, tmp_path):
    """A reloaded model has the bounds, the scale and the iterations, under another global policy too."""
    if stack.name == "tf_keras":
        pytest.skip("the optimizer is one of Keras 3")
    model = compiled(stack, kp.LossScaleOptimizer(stack.keras.optimizers.Adam(), min_scale=0.5, max_scale=2.0**20))
    storm(model, rng, bad=3, good=2)
    model.save(tmp_path / "model.keras")
    reloaded = stack.keras.models.load_model(tmp_path / "model.keras").optimizer
    assert type(reloaded) is kp.LossScaleOptimizer
    assert (reloaded.min_scale, reloaded.max_scale) == (0.5, 2.0**20)
    assert (float(reloaded.dynamic_scale), int(reloaded.iterations)) == (2.0**12, 2)


def kinds(profiler):
    """Skipped steps: with a finite loss, and without."""
    return tuple(profiler.result.value(f"skipped_loss_{kind}") for kind in ("finite", "not_finite"))


def test_harmless_overflows_are_told_from_real_ones(stack, rng):
    """A scale that is too high skips steps with a finite loss; bad data skip them without one."""
    profiler = kp.PrecisionProfiler()
    storm(compiled(stack), rng, profiler, bad=1, good=5)
    assert kinds(profiler) == (0, 1)
    storm(compiled(stack), rng, profiler, bad=3, good=5)  # one NaN hides in Keras's mean how many there were
    assert kinds(profiler) == (0, 3)
    assert profiler.result.value("skipped_loss_unknown") == 0
    inner = stack.keras.optimizers.SGD(0.01)
    if stack.name == "tf_keras":
        optimizer = stack.keras.mixed_precision.LossScaleOptimizer(inner, initial_scale=2.0**26)
    else:
        optimizer = stack.keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**26)
    storm(compiled(stack, optimizer), rng, profiler, bad=0, good=25)
    skipped = profiler.result.value("skipped_steps")
    assert skipped > 0
    assert kinds(profiler) == (skipped, 0)


def test_the_mean_that_is_begun_anew_changes_nothing_of_the_training(stack, rng):
    """History, logs of every batch, samples of the mean and weights are those of a fit without the profiler, over two epochs."""
    x, y = nets.classes(rng, 40)
    x[8:12], x[20:24] = np.inf, np.nan
    seen = []
    for callbacks in ([], [kp.PrecisionProfiler()]):
        model, losses = compiled(stack), []
        watch = stack.keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs, losses=losses: losses.append(logs["loss"])
        )
        with np.errstate(all="ignore"):
            fitted = model.fit(x, y, batch_size=4, shuffle=False, epochs=2, verbose=0, callbacks=[*callbacks, watch])
        seen.append((fitted.history["loss"], losses, *model.get_weights()))
        profiler = callbacks[0] if callbacks else None
    assert np.isnan(seen[0][0]).all()
    for one, other in zip(*seen, strict=True):
        np.testing.assert_array_equal(one, other)
    assert kinds(profiler) == (0, 4)
    assert profiler.result.value("skipped_steps") == 4


@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras 3 says so of all data of unknown length
def test_an_epoch_of_unknown_length_stays_nan(stack, rng):
    """Where the data end with an error inside the step, the mean behind it is that of a fit without the profiler."""
    x, y = nets.classes(rng, 24)
    x[4:8] = np.nan

    def batches():
        for _ in range(2):
            for start in range(0, 24, 4):
                yield x[start : start + 4], y[start : start + 4]

    if stack.name in ("tensorflow", "tf_keras"):
        import tensorflow as tf

        specs = tuple(tf.TensorSpec((4, *array.shape[1:]), array.dtype) for array in (x, y))
        data, options = tf.data.Dataset.from_generator(batches, output_signature=specs), {"epochs": 2}
    else:
        data, options = batches(), {"epochs": 1}
    with np.errstate(all="ignore"):
        fitted = compiled(stack).fit(data, shuffle=False, verbose=0, callbacks=[kp.PrecisionProfiler()], **options)
    assert np.isnan(fitted.history["loss"]).all()


def test_a_step_that_raises_leaves_the_train_function_alone(stack, rng):
    """Data that fail behind the first NaN: nothing of ours is left around the step, and the next fit is as ever."""
    from keras_precision._adapters.training.restarted_loss import _Restarted

    x, y = nets.classes(rng, 12)
    x[:4] = np.nan
    rows = [(x[start : start + 4], y[start : start + 4]) for start in range(0, 12, 4)]

    class Sequence(stack.keras.utils.PyDataset if stack.name != "tf_keras" else stack.keras.utils.Sequence):
        def __len__(self):
            return 6

        def __getitem__(self, number):
            if number == 3:
                raise ValueError("a row is damaged")
            return rows[number]

    model, profiler = compiled(stack), kp.PrecisionProfiler()
    with np.errstate(all="ignore"), pytest.raises(Exception, match="a row is damaged"):
        model.fit(Sequence(), shuffle=False, verbose=0, callbacks=[profiler])
    function = getattr(model, "train_function", None)
    while function is not None:
        assert not isinstance(function, _Restarted)
        function = getattr(function, "inner", None)


def test_missing_scaling_is_found(stack, rng):
    """Layers that were set to float16 one by one get no scaling from Keras: the profiler warns."""
    layers = stack.keras.layers
    model = stack.keras.Sequential(
        [layers.Input((8,)), layers.Dense(4, dtype="mixed_float16"), layers.Dense(3, activation="softmax")]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    profiler = kp.PrecisionProfiler(verbose=0)
    storm(model, rng, profiler, bad=0, good=3)
    assert [finding.code for finding in profiler.findings] == ["loss-scale-missing"]


def test_summary_shows_findings(stack, rng, capsys):
    """Findings and advice stand below the table."""
    profiler = kp.PrecisionProfiler(verbose=1)
    storm(compiled(stack), rng, profiler, bad=20)
    assert ("Warning: The loss scale fell" in capsys.readouterr().out) == (stack.name != "tf_keras")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_scale": 0}, "Expected 0 < min_scale"),
        ({"min_scale": 8.0, "max_scale": 4.0}, "Received: min_scale=8.0, max_scale=4.0"),
        ({"max_scale": float("inf")}, "max_scale=inf"),
        ({"patience": 0}, "Expected patience >= 1"),
        ({"check_every": 0}, "check_every >= 1"),
    ],
)
def test_impossible_bounds_are_refused(arguments, message):
    """Bounds out of order and counts below one are refused when the guard is created."""
    with pytest.raises(InputError, match=message):
        kp.LossScaleGuard(**arguments)


def test_impossible_bounds_of_the_optimizer_are_refused():
    """The initial scale must lie between the bounds."""
    import keras

    with pytest.raises(InputError, match=r"Received: min_scale=1.0, initial_scale=0.5, max_scale=16777216.0"):
        kp.LossScaleOptimizer(keras.optimizers.Adam(), initial_scale=0.5)


def test_floor_of_tf_keras_is_its_own(stack, rng):
    """tf_keras cannot go below or stay above 1: another floor is refused before the first step."""
    if stack.name != "tf_keras":
        pytest.skip("Keras 3 takes any floor")
    with pytest.raises(InputError, match="Expected min_scale=1 for a tf_keras model"):
        storm(compiled(stack), rng, kp.LossScaleGuard(min_scale=2.0), bad=0, good=1)
    model = compiled(stack)
    with pytest.raises(InputError, match="Omit min_scale, or use Keras 3"):
        adapter_of(model).bound_loss_scale(model, 2.0, 4.0)


def test_fixed_scaling_is_no_finding(stack, rng):
    """An optimizer that scales the loss by a fixed factor is reported as such, without a finding."""
    if stack.name == "tf_keras":
        pytest.skip("its fixed scaling is that of its LossScaleOptimizer")
    layers = stack.keras.layers
    narrow = layers.Dense(4, dtype="mixed_float16")
    model = stack.keras.Sequential([layers.Input((8,)), narrow, layers.Dense(3, activation="softmax")])
    model.compile(stack.keras.optimizers.SGD(0.01, loss_scale_factor=1024.0), "sparse_categorical_crossentropy")
    profiler = kp.PrecisionProfiler()
    storm(model, rng, profiler, bad=0, good=3)
    assert profiler.result.value("loss_scale") == 1024.0
    assert profiler.findings == ()
