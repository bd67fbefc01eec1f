"""Time waiting for data: where the trainer pulls from its iterator, measured separately from the step."""

import itertools
import warnings

import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision._adapters import adapter_of
from keras_precision._adapters.training import data_wait
from keras_precision.callbacks.probes import step_time
from keras_precision.callbacks.probes.step_time import StepTimeProbe

pytestmark = pytest.mark.every_stack
MS = 1_000_000
KNOWN = ("tensorflow", "jax", "torch")


class Clock:
    """Nanoseconds that pass only when somebody says so, and a microsecond at every look."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        self.now += 1000
        return self.now

    def passes(self, milliseconds):
        self.now += milliseconds * MS


@pytest.fixture
def clock(monkeypatch):
    """The clock of the step time and of the data wait."""
    fake = Clock()
    monkeypatch.setattr(step_time, "clock", fake)
    monkeypatch.setattr(data_wait, "clock", fake)
    return fake


def slow_data(stack, clock, rng, *, batches, wait, size=8):
    """Data whose every batch takes ``wait`` ms to fetch, or as long as the next of ``wait``."""
    waits = iter(wait) if hasattr(wait, "__iter__") else itertools.repeat(wait)
    x, y = nets.classes(rng, size * batches)

    class Slow(stack.keras.utils.PyDataset):
        def __len__(self):
            return batches

        def __getitem__(self, index):
            clock.passes(next(waits))
            part = slice(index * size, (index + 1) * size)
            return x[part], y[part]

    return Slow() if stack.name != "tensorflow" else unbuffered(Slow())


def unbuffered(data):
    """The same as a tf.data pipeline that fetches a batch when it is asked for, and no sooner."""
    import tensorflow as tf

    first = data[0]
    signature = tuple(tf.TensorSpec(part.shape, part.dtype) for part in first)
    dataset = tf.data.Dataset.from_generator(
        lambda: (data[index] for index in range(len(data))), output_signature=signature
    )
    options = tf.data.Options()
    options.experimental_optimization.inject_prefetch = False
    return dataset.with_options(options).apply(tf.data.experimental.assert_cardinality(len(data)))


def working(stack, clock, milliseconds):
    """A callback that takes time within a step, before the profiler's end hook."""

    class Working(stack.keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            clock.passes(milliseconds)

    return Working()


def fitted(stack, data, *callbacks, grouped=False, **options):
    """Fit a small net; return the model."""
    model = nets.mlp(stack.keras, head="float32")
    steps = stack.steps_per_execution if grouped else 1
    model.compile("sgd", "sparse_categorical_crossentropy", steps_per_execution=steps)
    model.fit(data, verbose=0, shuffle=False, callbacks=list(callbacks), **options)
    return model


def skip_unless_known(stack):
    """On TensorFlow, the compiled step pulls."""
    if stack.name not in KNOWN:
        pytest.skip("unknown on this stack")


@pytest.mark.parametrize("grouped", [False, True], ids=["single", "grouped"])
def test_wait_is_told_apart_from_the_step(stack, rng, clock, grouped):
    """A fetch of 20 ms beside 10 ms of work is two thirds of the time, in groups of steps too."""
    skip_unless_known(stack)
    if grouped and stack.name == "tensorflow":
        pytest.skip("the compiled step pulls several batches at once")
    if grouped and stack.steps_per_execution == 1:
        pytest.skip("has no groups of batches")
    profiler = kp.PrecisionProfiler(verbose=0)
    group = stack.steps_per_execution if grouped else 1
    data = slow_data(stack, clock, rng, batches=18, wait=20)
    fitted(stack, data, working(stack, clock, 10 * group), profiler, epochs=2, grouped=grouped)
    assert profiler.result.value("data_wait_ms") == pytest.approx(20, abs=0.1)
    assert profiler.result.value("data_wait_share") == pytest.approx(2 / 3, abs=0.01)
    assert [finding.code for finding in profiler.findings] == ["input-bound"]
    step = profiler.result.value("step_time_ms")
    assert step == pytest.approx(10 if stack.name == "torch" else 30, abs=0.1)  # as ever, from hook to hook


def test_quick_data_give_no_finding(stack, rng, clock):
    """A fetch of 1 ms beside 20 ms of work is no matter; it is measured all the same."""
    skip_unless_known(stack)
    profiler = kp.PrecisionProfiler(verbose=0)
    fitted(stack, slow_data(stack, clock, rng, batches=20, wait=1), working(stack, clock, 20), profiler)
    assert profiler.result.value("data_wait_share") == pytest.approx(1 / 21, abs=0.01)
    assert profiler.findings == ()


def test_waits_of_warm_up_are_left_out(stack, rng, clock):
    """A pipeline that is slow to start, and then quick, is not called slow."""
    skip_unless_known(stack)
    profiler = kp.PrecisionProfiler(verbose=0)
    # One look at the data comes before the training: a batch for its shapes.
    slow_to_start = itertools.chain([5000, 5000, 3000], itertools.repeat(1))
    data = slow_data(stack, clock, rng, batches=20, wait=slow_to_start)
    fitted(stack, data, working(stack, clock, 20), profiler)
    assert profiler.result.value("data_wait_ms") == pytest.approx(1, abs=0.1)


def test_validation_is_no_wait(stack, rng, clock):
    """What validation fetches, slowly, is not counted."""
    skip_unless_known(stack)
    profiler = kp.PrecisionProfiler(verbose=0)
    data, slow = (slow_data(stack, clock, rng, batches=12, wait=wait) for wait in (1, 500))
    fitted(stack, data, working(stack, clock, 20), profiler, epochs=3, validation_data=slow)
    assert profiler.result.value("data_wait_ms") == pytest.approx(1, abs=0.1)


def test_two_profilers_in_one_fit_see_the_same(stack, rng, clock):
    """Neither takes the wait from the other, and both leave the trainer as it was."""
    skip_unless_known(stack)
    profilers = [kp.PrecisionProfiler(verbose=0) for _ in range(2)]
    fitted(stack, slow_data(stack, clock, rng, batches=20, wait=20), *profilers)
    for profiler in profilers:
        assert profiler.result.value("data_wait_ms") == pytest.approx(20, abs=0.1)


def test_trainer_is_left_as_it_was(stack, rng, clock):
    """After a fit, and after one that was interrupted and another, nothing of ours is left in Keras."""
    skip_unless_known(stack)
    profiler = kp.PrecisionProfiler(verbose=0)

    class Interrupting(stack.keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    data = slow_data(stack, clock, rng, batches=4, wait=1)
    with pytest.raises(KeyboardInterrupt):
        fitted(stack, data, profiler, Interrupting())
    model = fitted(stack, data, profiler)
    assert type(model.train_function).__module__ != data_wait.__name__
    if stack.name == "torch":
        from keras.src.backend.torch.trainer import TorchEpochIterator

        assert "__next__" not in vars(TorchEpochIterator)


def test_guard_after_the_profiler_hides_nothing(stack, rng, clock):
    """A callback that makes the train function anew does not end the timing."""
    skip_unless_known(stack)
    profiler = kp.PrecisionProfiler(verbose=0)
    with kp.precision("mixed_float16"):
        model = nets.mlp(stack.keras, head="float32")
    model.compile("sgd", "sparse_categorical_crossentropy")
    data = slow_data(stack, clock, rng, batches=20, wait=20)
    model.fit(data, verbose=0, shuffle=False, callbacks=[profiler, kp.LossScaleGuard()])
    assert profiler.result.value("data_wait_ms") == pytest.approx(20, abs=0.1)


def test_unknown_is_said_once(stack, rng, capsys):
    """Where the compiled step pulls, the wait is unknown, with the reason; nothing is concluded."""
    if stack.name in ("jax", "torch"):
        pytest.skip("known on this stack")
    profiler = kp.PrecisionProfiler(verbose=1)
    model = nets.mlp(stack.keras, head="float32")
    model.compile("sgd", "sparse_categorical_crossentropy", steps_per_execution=stack.steps_per_execution)
    model.fit(*nets.classes(rng, 160), batch_size=8, verbose=0, callbacks=[profiler])
    assert profiler.result.value("data_wait_ms") is None
    assert profiler.result.value("data_wait_share") is None
    assert profiler.result.environment.sources["data_wait_ms"].startswith("unknown: the compiled step")
    assert profiler.findings == ()
    assert capsys.readouterr().out.count("Waiting for data: unknown") == 1


def test_summary_tells_the_wait(stack, rng, clock, capsys):
    """The wait and its share have a line below the table."""
    skip_unless_known(stack)
    fitted(stack, slow_data(stack, clock, rng, batches=20, wait=20), kp.PrecisionProfiler(verbose=1))
    assert "Waiting for data: 20 ms a step, 100 % of the time." in capsys.readouterr().out


def test_a_loop_of_ones_own_has_time_between_steps(stack, clock):
    """What a loop does between two steps is reported as that, and not called waiting for data."""
    profiler = kp.PrecisionProfiler(probes=[StepTimeProbe(warmup_steps=2)], verbose=0)
    with profiler.watch(nets.mlp(stack.keras)):
        for _ in range(12):
            clock.passes(30)
            with profiler.step(8):
                clock.passes(10)
    assert profiler.result.value("between_steps_ms") == pytest.approx(30, abs=0.1)
    assert profiler.result.value("step_time_ms") == pytest.approx(10, abs=0.1)
    assert not profiler.result.select("data_wait_ms")
    assert profiler.findings == ()


def test_data_are_passed_on_unchanged(stack, rng):
    """A timed fit of a generator that ends early trains on the same batches as one that is not timed."""
    weights = []
    for callbacks in ([], [kp.PrecisionProfiler(verbose=0)]):
        stack.keras.utils.set_random_seed(1)
        x, y = nets.classes(np.random.default_rng(3), 40)
        batches = ((x[start : start + 8], y[start : start + 8]) for start in range(0, 40, 8))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Your input ran out of data", UserWarning)
            weights.append(fitted(stack, batches, *callbacks).get_weights())
    for plain, timed in zip(*weights, strict=True):
        np.testing.assert_array_equal(plain, timed)


def test_adapter_times_only_while_it_is_asked(stack):
    """Outside the context, the model's train function is Keras's own."""
    model = nets.mlp(stack.keras)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.make_train_function()
    before = model.train_function
    with adapter_of(model).data_wait(model) as wait:
        wait.step_begin()
        assert wait.step_end() is None  # nothing was pulled
    assert model.train_function is before


def test_sampled_batches_train_as_the_others(stack, rng):
    """On TensorFlow, the steps whose batch Python pulls are the compiled ones: nothing is traced for them."""
    if stack.name != "tensorflow":
        pytest.skip("samples no steps")
    model = nets.mlp(stack.keras, head="float32")
    model.compile("sgd", "sparse_categorical_crossentropy")
    traced = []
    original = model.train_step
    model.train_step = lambda data: traced.append(1) or original(data)
    x, y = nets.classes(rng, 160)
    profiler = kp.PrecisionProfiler(verbose=0)
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[profiler])
    assert len(traced) == 1
    assert profiler.result.value("data_wait_ms") > 0
    assert profiler.result.environment.sources["data_wait_ms"].startswith("time in next(iterator), which every fifth")


def test_a_train_function_of_ones_own_is_not_touched(stack, rng):
    """Where a model makes its train function itself, nobody knows what it does with an iterator."""
    if stack.name != "tensorflow":
        pytest.skip("samples no steps")

    class Own(stack.keras.Sequential):
        def make_train_function(self, force=False):
            return super().make_train_function(force)

    model = Own([stack.keras.Input((8,)), stack.keras.layers.Dense(3, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    x, y = nets.classes(rng, 160)
    profiler = kp.PrecisionProfiler(verbose=0)
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[profiler])
    assert profiler.result.value("data_wait_ms") is None
