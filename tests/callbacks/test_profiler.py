"""PrecisionProfiler in fit, on every stack."""

import copy
import csv
import warnings

import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.callbacks.probes.loss_scale import LossScaleProbe
from keras_precision.callbacks.probes.step_time import StepTimeProbe
from keras_precision.core.errors import InputError, NotMeasuredError, PrecisionWarning

pytestmark = pytest.mark.every_stack
LOGGED = ["step_time_ms", "samples_per_second", "skipped_steps", "finite"]


def compiled(stack, policy="float32", *, optimizer="adam", **options):
    """A small net, compiled, in a policy."""
    stack.keras.utils.set_random_seed(3)
    with kp.precision(policy):
        model = nets.mlp(stack.keras, head="float32")
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], **options)
    return model


def fitted(model, profiler, rng, *, count=90, spoiled=(), epochs=2, **options):
    """Fit on batches of 8, in order, with an infinity in the batches ``spoiled``; return the history."""
    x, y = nets.classes(rng, count)
    for batch in spoiled:
        x[8 * batch] = np.inf
    options = {"verbose": 0, "shuffle": False, "batch_size": 8, "callbacks": [profiler]} | options
    with np.errstate(all="ignore"), warnings.catch_warnings():
        # NaN in Keras's own metrics, after a batch that was spoiled on purpose
        warnings.filterwarnings("ignore", "invalid value encountered", RuntimeWarning)
        return model.fit(x, y, epochs=epochs, **options)


@pytest.fixture(scope="module")
def trained(stack):
    """A small net whose train function is traced already, for tests of what happens around the steps."""
    model = compiled(stack)
    fitted(model, kp.PrecisionProfiler(verbose=0), np.random.default_rng(0), epochs=1)
    return model


def test_result_holds_what_was_asked_for(stack, rng):
    """Times, throughput, counts and plan are in the result, with how they were measured."""
    profiler = kp.PrecisionProfiler()
    model = compiled(stack, steps_per_execution=stack.steps_per_execution)
    fitted(model, profiler, rng, validation_data=nets.classes(rng, 16))
    result = profiler.result
    assert result.value("batches") == 24
    assert result.value("samples") == 180
    assert result.value("steps_measured") + result.value("warmup_steps") == 24
    low, middle, high = (result.value(name) for name in ("step_time_p5_ms", "step_time_ms", "step_time_p95_ms"))
    assert 0 < low <= middle <= high
    times = result.series("step_time_ms", "step")[1]
    assert result.value("samples_per_second") == pytest.approx(180 / 24 * 1e3 / np.mean(times))
    assert middle == pytest.approx(np.median(times))
    assert result.value("skipped_steps") == 0
    assert result.value("loss_scale") is None
    assert result.value("profiler_us_per_step") > 0
    assert result.name == "float32"
    assert result.plan == kp.plan_of(model)
    assert {"step_time_ms", "peak_memory_mb", "skipped_steps"} <= set(result.environment.sources)
    assert result.series("val_accuracy", "epoch")[0] == [0, 1]
    every = len(times) + len(result.series("step_time_ms", "warm-up step")[0])
    assert every == 24 / stack.steps_per_execution


def test_memory_is_measured_or_unknown_but_never_nothing(stack, rng):
    """A large batch shows in peak memory; what the source cannot see is unknown, not zero."""
    layers = stack.keras.layers
    model = stack.keras.Sequential([layers.Input((1000,)), layers.Dense(2000), layers.Dense(1)])
    model.compile("sgd", "mse")
    profiler = kp.PrecisionProfiler()
    model.fit(np.ones((2000, 1000), "float32"), np.ones(2000), batch_size=1000, verbose=0, callbacks=[profiler])
    source = profiler.result.environment.sources["peak_memory_mb"]
    # 1000 x 2000 activations alone are 8 MB; a process may have such a piece left over from before.
    least = 0 if "resident set" in source else 8
    assert profiler.result.value("peak_memory_mb") >= least


def test_memory_by_kind_shows_what_mixed_precision_cannot_save(stack, rng):
    """Weights, gradients and slots are reported by their types: the same under mixed precision."""
    sizes = []
    for policy in ("float32", "mixed_bfloat16"):
        profiler = kp.PrecisionProfiler()
        model = compiled(stack, policy)
        fitted(model, profiler, rng, count=16)
        sizes.append([profiler.result.value(f"{kind}_mb") for kind in ("weights", "gradients", "optimizer")])
    # 8 x 16 + 16 + 16 x 3 + 3 weights of 4 bytes; Adam has two slots per weight.
    weights = (8 * 16 + 16 + 16 * 3 + 3) * 4e-6
    assert sizes[0] == sizes[1]
    assert sizes[0][:2] == pytest.approx([weights, weights])
    assert sizes[0][2] == pytest.approx(2 * weights, abs=2e-5)
    assert profiler.result.value("activations_mb") is None  # on a processor


@pytest.mark.parametrize("grouped", [False, True], ids=["single", "grouped"])
@pytest.mark.parametrize("spoiled", [(), (0,), (2, 3, 9)], ids=str)
def test_skipped_steps_are_counted_exactly(stack, rng, spoiled, grouped):
    """As many steps are skipped as batches were spoiled, and the scale is halved as often."""
    if grouped and stack.steps_per_execution == 1:
        pytest.skip("has no groups of batches")
    model = compiled(stack, "mixed_float16", steps_per_execution=stack.steps_per_execution if grouped else 1)
    profiler = kp.PrecisionProfiler()
    fitted(model, profiler, rng, spoiled=spoiled, epochs=2)
    assert profiler.result.value("skipped_steps") == 2 * len(spoiled)
    assert profiler.result.value("loss_scale") == 2.0 ** (15 - 2 * len(spoiled))
    assert profiler.result.series("skipped_steps", "fit") == ([12, 24], [len(spoiled), 2 * len(spoiled)])
    assert profiler.result.name == "mixed_float16"


def test_skipped_steps_of_a_model_that_was_trained_before(stack, rng):
    """A step that was compiled before the profiler came, or by another one, is counted all the same."""
    model = compiled(stack, "mixed_float16")
    x, y = nets.classes(rng, 32)
    model.fit(x, y, verbose=0)
    for count in (1, 2):
        profiler = kp.PrecisionProfiler()
        fitted(model, profiler, rng, spoiled=range(count), epochs=1)
        assert profiler.result.value("skipped_steps") == count


def test_skipped_steps_under_gradient_accumulation(stack, rng):
    """Batches whose gradients are only accumulated are no skipped steps."""
    if stack.name == "tf_keras":
        pytest.skip("tf_keras has no gradient accumulation")
    adam = stack.keras.optimizers.Adam(gradient_accumulation_steps=4)
    model = compiled(stack, "mixed_float16", optimizer=adam)
    profiler = kp.PrecisionProfiler()
    fitted(model, profiler, rng, spoiled=(2, 7), epochs=1)
    assert profiler.result.value("skipped_steps") == 2


def test_skipped_steps_of_a_train_step_of_ones_own(stack, rng):
    """A train_step of one's own is counted where the scale bears the count out."""
    keras = stack.keras

    class Own(keras.Model):
        def train_step(self, *arguments):
            return super().train_step(*arguments)

    with kp.precision("mixed_float16"):
        inputs = keras.layers.Input((8,))
        model = Own(inputs, keras.layers.Dense(3, activation="softmax", dtype="float32")(inputs))
    model.compile("adam", "sparse_categorical_crossentropy")
    profiler = kp.PrecisionProfiler()
    fitted(model, profiler, rng, spoiled=(1,), epochs=1)
    assert profiler.result.value("skipped_steps") == 1


def test_training_is_not_changed(stack, rng):
    """Weights after a fit are the same, bit by bit, with and without the profiler."""
    weights = []
    for callbacks in ([], [kp.PrecisionProfiler()]):
        model = compiled(stack, "mixed_float16")
        fitted(model, None, np.random.default_rng(1), spoiled=(3,), callbacks=callbacks, shuffle=True)
        weights.append(model.get_weights())
    for plain, watched in zip(*weights, strict=True):
        np.testing.assert_array_equal(plain, watched)


def test_log_metrics_reach_history_and_csv(stack, rng, tmp_path):
    """The keys land in the epoch's logs, where History and a CSVLogger behind the profiler find them."""
    table = tmp_path / "log.csv"
    profiler = kp.PrecisionProfiler(log_metrics=True)
    callbacks = [profiler, stack.keras.callbacks.CSVLogger(str(table)), stack.keras.callbacks.TerminateOnNaN()]
    history = fitted(compiled(stack, "mixed_float16"), profiler, rng, callbacks=callbacks)
    assert {*LOGGED, "loss_scale"} <= set(history.history)
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert {*LOGGED, "loss_scale"} <= set(rows[0])
    assert float(rows[-1]["skipped_steps"]) == profiler.result.value("skipped_steps") == 0


def test_logs_are_left_alone_unless_asked(trained, rng):
    """By default, the history holds the model's own metrics alone."""
    history = fitted(trained, kp.PrecisionProfiler(), rng)
    assert sorted(history.history) == ["accuracy", "loss"]


def test_profiler_is_used_again(stack, rng):
    """A second fit makes a result of its own, of another model too."""
    profiler = kp.PrecisionProfiler()
    fitted(compiled(stack), profiler, rng, count=80)
    first = profiler.result
    fitted(compiled(stack, "mixed_bfloat16"), profiler, rng, count=40, epochs=1)
    assert (first.value("batches"), profiler.result.value("batches")) == (20, 5)
    assert (first.name, profiler.result.name) == ("float32", "mixed_bfloat16")


def test_profiler_is_copied_before_and_after_use(trained, rng):
    """KerasTuner copies callbacks for every trial: a copy has the settings, and measures by itself."""
    profiler = kp.PrecisionProfiler("mine", log_metrics=True)
    twin = copy.deepcopy(profiler)
    fitted(trained, twin, rng, count=16)
    assert twin.result.name == "mine"
    assert copy.deepcopy(twin).result == twin.result
    with pytest.raises(NotMeasuredError, match=r"Pass it to fit\(callbacks=\[profiler\]\) first"):
        _ = profiler.result


def test_dataset_of_unknown_length(stack, rng):
    """Batches and samples are counted where fit does not know how many there will be."""
    x, y = nets.classes(rng, 20)

    def batches():
        for start in range(0, 20, 8):
            yield x[start : start + 8], y[start : start + 8]

    profiler = kp.PrecisionProfiler(log_metrics=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Your input ran out of data", UserWarning)
        compiled(stack).fit(batches(), epochs=1, verbose=0, shuffle=False, callbacks=[profiler])
    assert (profiler.result.value("batches"), profiler.result.value("samples")) == (3, 20)


def test_groups_of_batches_from_data_of_unknown_length(stack, rng):
    """Where the last group of batches may be shorter than it says, counts that rest on it are unknown."""
    if stack.name in ("torch", "tf_keras"):
        pytest.skip("this stack refuses such data in groups")
    x, y = nets.classes(rng, 32)
    batches = ((x[start : start + 8], y[start : start + 8]) for start in range(0, 32, 8))
    profiler = kp.PrecisionProfiler()
    model = compiled(stack, "mixed_float16", steps_per_execution=3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Your input ran out of data", UserWarning)
        model.fit(batches, epochs=1, verbose=0, shuffle=False, callbacks=[profiler])
    assert profiler.result.value("batches") is None
    assert profiler.result.value("skipped_steps") is None


def test_steps_that_compile_are_left_out(stack, rng):
    """A step that compiles is no measured step, whenever it comes: JAX compiles for the partial batch."""
    profiler = kp.PrecisionProfiler()
    fitted(compiled(stack), profiler, rng, count=60)  # 7 whole batches and one of 4, twice
    assert profiler.result.value("warmup_steps") == (4 if stack.name == "jax" else 3)
    assert profiler.result.value("steps_measured") == 16 - profiler.result.value("warmup_steps")


def test_a_step_that_is_traced_in_the_midst_is_left_out(stack, rng):
    """Another callback makes the train function anew, and the step after that is traced, on TensorFlow too."""
    if stack.name == "torch":
        pytest.skip("runs eagerly")

    class Renewing(stack.keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 7:
                self.model.make_train_function(force=True)

    profiler = kp.PrecisionProfiler(verbose=0)
    x, y = nets.classes(rng, 128)
    model = compiled(stack)
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[profiler, Renewing()])
    left_out = [row.step for row in profiler.result.select("step_time_ms", "warm-up step")]
    assert left_out == [1, 2, 3, 9]


def test_evaluate_in_another_callback_makes_samples_unknown(stack, rng):
    """A count that was reset in the midst of an epoch is not taken for the epoch's."""
    x, y = nets.classes(rng, 16)

    class Evaluating(stack.keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.evaluate(x, y, verbose=0)

    profiler = kp.PrecisionProfiler()
    fitted(compiled(stack), profiler, rng, callbacks=[Evaluating(), profiler])
    assert profiler.result.value("samples") is None
    assert profiler.result.value("samples_per_second") is None
    fitted(compiled(stack), profiler, rng, callbacks=[profiler, Evaluating()])
    assert profiler.result.value("samples") == 180


def test_interrupted_fit_leaves_no_old_result(stack, rng):
    """After an interruption, there is no result, and the profiler can be copied and used again."""
    profiler = kp.PrecisionProfiler()
    model = compiled(stack)
    fitted(model, profiler, rng, epochs=1)

    class Interrupting(stack.keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(model, profiler, rng, callbacks=[profiler, Interrupting()])
    with pytest.raises(NotMeasuredError):
        _ = profiler.result
    fitted(model, copy.deepcopy(profiler), rng)
    fitted(model, profiler, rng)
    assert profiler.result.value("batches") == 24
    assert "reset_metrics" not in vars(model)


class Picky:
    """A standard output that takes ASCII alone."""

    encoding = "ascii"

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text.encode("ascii").decode()

    def flush(self):
        pass


def test_summary_never_ends_a_fit(trained, rng, monkeypatch):
    """Where there is no standard output, or one of few characters, the fit ends as it should."""
    profiler = kp.PrecisionProfiler(verbose=1)
    monkeypatch.setattr("sys.stdout", None)
    fitted(trained, profiler, rng, count=16)
    picky = Picky()
    monkeypatch.setattr("sys.stdout", picky)
    fitted(trained, profiler, rng, count=16)
    assert "Samples/s" in picky.text


def test_short_fit_has_no_step_time(stack, rng):
    """A fit of warm-up steps alone has a step time that is unknown, and still a summary."""
    profiler = kp.PrecisionProfiler(verbose=1)
    fitted(compiled(stack), profiler, rng, count=16, epochs=1)
    assert profiler.result.value("step_time_ms") is None
    assert profiler.result.value("warmup_steps") == 2


class Failing(kp.Probe):
    """A probe that fails in one of its hooks."""

    name = "failing"

    def __init__(self, hook):
        setattr(self, hook, self._fail)

    def _fail(self, *arguments):
        raise RuntimeError("out of order")


@pytest.mark.parametrize("hook", ["begin", "step_begin", "step_end", "epoch_end", "values", "rows", "sources", "end"])
def test_failing_probe_is_switched_off_with_one_warning(trained, rng, hook):
    """Training and the other probes go on; the result says what is missing."""
    profiler = kp.PrecisionProfiler(probes=[Failing(hook), StepTimeProbe()], log_metrics=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PrecisionWarning)
        fitted(trained, profiler, rng)
    ours = [str(warning.message) for warning in caught if warning.category is PrecisionWarning]
    assert ours == ["PrecisionProfiler: the probe 'failing' failed and was switched off: RuntimeError: out of order"]
    assert profiler.result.value("step_time_ms") > 0
    assert "failing" in profiler.result.notes[0]


@pytest.mark.parametrize(
    ("verbose", "fit_verbose", "shown"), [("auto", 2, True), ("auto", 0, False), (1, 0, True), (0, 2, False)]
)
def test_summary_is_printed_once_when_wanted(trained, rng, capsys, verbose, fit_verbose, shown):
    """The summary follows fit's own verbosity unless it has its own."""
    fitted(trained, kp.PrecisionProfiler(verbose=verbose), rng, verbose=fit_verbose)
    assert capsys.readouterr().out.count("Samples/s") == int(shown)


def test_wrong_arguments_are_refused_at_once():
    """Arguments of the wrong type are named before any training."""
    with pytest.raises(InputError, match="Expected probes to be instances of kp.Probe. Received: 'step time'"):
        kp.PrecisionProfiler(probes=["step time"])
    with pytest.raises(InputError, match="Expected probes to be instances of kp.Probe. Received: 3"):
        kp.PrecisionProfiler(probes=3)
    with pytest.raises(InputError, match="Expected name to be a text or None. Received: 3. Probes go into probes="):
        kp.PrecisionProfiler(3)
    with pytest.raises(InputError, match="Expected every to be a whole number >= 1. Received: 0"):
        LossScaleProbe(every=0)
    with pytest.raises(InputError, match="Expected verbose to be 'auto', 0 or 1. Received: 3"):
        kp.PrecisionProfiler(verbose=3)
    with pytest.raises(InputError, match="Expected warmup_steps to be a whole number >= 0. Received: -1"):
        StepTimeProbe(warmup_steps=-1)


def test_plain_float16_is_reported_not_refused(stack, rng):
    """A model in a policy that no plan carries is measured; the note says what was probably meant."""
    layers = stack.keras.layers
    model = stack.keras.Sequential(
        [layers.Input((8,)), layers.Dense(3, dtype="float16"), layers.Softmax(dtype="float32")]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    profiler = kp.PrecisionProfiler()
    fitted(model, profiler, rng)
    assert profiler.result.plan is None
    assert "mixed_float16" in profiler.result.notes[0]


def test_result_survives_saving(stack, rng, tmp_path):
    """A result with a diverged loss is the same after saving and loading."""
    profiler = kp.PrecisionProfiler()
    fitted(compiled(stack), profiler, rng, spoiled=(1,))
    loaded = kp.Result.load(profiler.result.save(tmp_path / "run.json"))
    assert repr(loaded) == repr(profiler.result)  # NaN is not equal to itself
    assert np.isnan(loaded.value("loss", "epoch"))
