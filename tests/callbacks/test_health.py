"""The plain profiler: a run that breaks says so, with the layer and the cure where the next steps show them."""

import faulty
import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.callbacks.summary_notes import summary_notes
from keras_precision.core.environment import Environment
from keras_precision.core.errors import InputError
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Measurement, Result
from keras_precision.findings.loss_scale_rules import training_findings

pytestmark = pytest.mark.every_stack


def codes(findings):
    """The codes of findings by severity error or warning."""
    return [finding.code for finding in findings if finding.severity != "info"]


def trained(stack, model, data, **options):
    """The profiler after a fit without shuffling; examinations take the time that they need."""
    profiler = kp.PrecisionProfiler(verbose=0, examination_limit_s=600.0)
    model.fit(*data, batch_size=16, shuffle=False, verbose=0, callbacks=[profiler], **options)
    return profiler


def mse_net(stack, policy="float32", *, rate=0.01, middle=()):
    """A small compiled net."""
    stack.keras.utils.set_random_seed(0)
    with kp.precision(policy):
        model = faulty.net(stack.keras, *(make(stack.keras) for make in middle))
    model.compile(stack.keras.optimizers.SGD(rate), "mse")
    return model


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_loss_that_is_not_finite_is_an_error(stack, rng, policy):
    """In any precision, from the plain profiler and from its saved result, in one finding."""
    data = rng.normal(size=(96, 8)).astype("float32"), rng.normal(size=(96, 1)).astype("float32")
    profiler = trained(stack, mse_net(stack, policy, rate=1e20), data, epochs=2)
    for findings in (profiler.findings, kp.diagnose(profiler.result)):
        (error,) = [finding for finding in findings if finding.severity == "error"]
        assert error.code == "non-finite"
        assert "Tried: 1e-05 of the learning rate" in error.message


def test_weights_that_are_lost_in_the_last_step_are_an_error(stack, rng):
    """The mean of the losses is finite, and the model is unusable."""
    x, y = rng.normal(size=(32, 8)).astype("float32"), rng.normal(size=(32, 1)).astype("float32")
    y[-1] = 3e38
    profiler = trained(stack, mse_net(stack, rate=1e3), (x, y), epochs=1)
    assert "non-finite-weights" in codes(profiler.findings) or "non-finite-loss" in codes(profiler.findings)
    assert profiler.result.select("non_finite_weights")


@pytest.mark.filterwarnings(
    "ignore:overflow encountered in cast:RuntimeWarning"
)  # of JAX, on the constant of the layer
def test_the_layer_that_overflows_is_named_and_cured(stack, rng):
    """Every step is skipped; the finding names the layer once, and its advice leaves the float32 head alone."""
    data = rng.normal(size=(96, 8)).astype("float32"), rng.normal(size=(96, 1)).astype("float32")
    scaled = [
        lambda keras: keras.layers.Rescaling(3e5, name="boom"),
        lambda keras: keras.layers.LayerNormalization(name="norm"),
    ]
    model = mse_net(stack, "mixed_float16", middle=scaled)
    before = [np.array(weight) for weight in model.get_weights()]
    profiler = trained(stack, model, data, epochs=2)
    (finding,) = [finding for finding in profiler.findings if "boom" in finding.subject]
    assert (finding.code, finding.severity) == ("non-finite", "error")
    assert "float32, the same step is finite" in finding.message
    for mine, earlier in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, earlier)
    scope = {"kp": kp, "keras": stack.keras, "model": model}
    exec(finding.advice, scope)
    cured = scope["model"]
    assert kp.plan_of(cured).precision_of("boom") == "float32"
    history = cured.fit(*data, batch_size=16, epochs=2, verbose=0).history["loss"]
    assert np.isfinite(history).all()


def test_a_step_that_breaks_in_float32_too_blames_no_precision(stack, rng):
    """The loss itself produces the NaN; a plan is not proposed."""
    data = rng.normal(size=(96, 8)).astype("float32"), np.full((96, 1), np.nan, "float32")
    profiler = trained(stack, mse_net(stack, "mixed_float16"), data, epochs=1)
    errors = [finding for finding in profiler.findings if finding.severity == "error"]
    assert any("contains NaN" in finding.message for finding in errors)
    assert not any("apply_plan" in finding.advice for finding in errors)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_a_broken_fit_is_not_changed(stack, rng, policy):
    """Weights after a broken fit are those without the profiler, bit by bit."""
    data = rng.normal(size=(96, 8)).astype("float32"), rng.normal(size=(96, 1)).astype("float32")
    data[0][20] = 6e4

    def weights(callbacks):
        model = mse_net(
            stack, policy, middle=[lambda keras: keras.layers.Dropout(0.5), lambda keras: faulty.boom(keras)]
        )
        model.fit(*data, batch_size=16, epochs=2, verbose=0, callbacks=callbacks)
        return model.get_weights()

    for mine, plain in zip(
        weights([kp.PrecisionProfiler(verbose=0, examination_limit_s=600.0)]), weights([]), strict=True
    ):
        np.testing.assert_array_equal(mine, plain)


def test_a_healthy_fit_has_no_findings(stack, rng):
    """And nothing was examined."""
    model = nets.mlp(stack.keras)
    model.compile("sgd", "sparse_categorical_crossentropy")
    x, y = nets.classes(rng, 96)
    profiler = trained(stack, model, (x, y), epochs=3)
    assert profiler.findings == ()
    assert not profiler.result.select("first_non_finite")


def test_a_few_skipped_steps_are_no_lost_loss():
    """Loss scaling is there to survive a batch whose loss is not finite, which its mean is from then on."""

    def run(skipped, *more):
        figures = {"skipped_steps": skipped, "batches": 60}
        rows = [Measurement("fit", name, value) for name, value in figures.items()]
        return Result("run", (*rows, Measurement("fit", "non_finite_loss", "nan", 7), *more))

    assert codes(training_findings(run(4))) == []
    assert codes(training_findings(run(31))) == ["non-finite-loss"]
    assert codes(training_findings(run(0))) == ["non-finite-loss"]
    assert codes(training_findings(run(None))) == ["non-finite-loss"]
    assert codes(training_findings(run(4, Measurement("fit", "non_finite_weights", 1, 60)))) == ["non-finite-loss"]


def of_losses(*losses):
    """A result with these losses of epochs."""
    return Result("run", tuple(Measurement("epoch", "loss", loss, epoch) for epoch, loss in enumerate(losses)))


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ((0.5, 1.0, 80.0), ["loss-explodes"]),
        ((0.5, 1.0, 40.0), []),
        ((0.5, 80.0, 0.4), []),
        ((2.3, 2.3, 2.3), ["loss-stuck"]),
        ((2.3, 2.3), []),
        ((0.0, 0.0, 0.0), []),
        ((2.3, 2.2999, 2.2998), []),
        ((1.0, float("inf")), ["non-finite-loss"]),
        ((1.0, float("nan"), 1.0), ["non-finite-loss"]),
        ((), []),
    ],
)
def test_rules_for_the_losses_of_epochs(losses, expected):
    """What explodes, what stands still, and what is neither."""
    assert codes(training_findings(of_losses(*losses))) == expected


@pytest.mark.parametrize("limit", [-1, float("inf"), "5", None])
def test_a_wrong_limit_is_refused(limit):
    """It is a time in seconds."""
    with pytest.raises(InputError, match="examination_limit_s to be a time in seconds"):
        kp.PrecisionProfiler(examination_limit_s=limit)


def test_epochs_without_an_update_are_an_error(stack, rng):
    """The loss stays finite and the gradients do not, at any scale; an early scale that is too high is no error."""
    root = [lambda keras: faulty.backward_boom(keras)]
    model = mse_net(stack, "mixed_float16", middle=root)
    data = np.zeros((320, 8), "float32"), np.ones((320, 1), "float32")
    profiler = trained(stack, model, data, epochs=1)
    assert profiler.result.value("skipped_steps") == 20
    assert "no-updates" in codes(profiler.findings)


@pytest.mark.parametrize(
    ("policy", "gains", "subject", "part"),
    [
        ("mixed_float16", (1e-5, 1e-5, 1e4, 1e4), "second", "With 'second', 'third' in float32 they differ"),
        ("float32", (0.0,), "first_gain", "No layer in float32 changes it"),
        ("float32", (), "batch/inputs", "So are its inputs"),
        ("mixed_float16", (1.0,), None, ""),
    ],
)
def test_constant_outputs_are_noticed(stack, rng, policy, gains, subject, part):
    """The loss does not fall: the first layer whose outputs are one number is named, and lifted where float32 cures it."""
    if stack.name == "jax" and subject == "second":
        pytest.skip("XLA keeps the products between these layers in float32")
    names = ("first_gain", "second", "third", "fourth")
    middle = [
        lambda keras, gain=gain, name=name: keras.layers.Rescaling(gain, name=name)
        for gain, name in zip(gains, names, strict=False)
    ]
    model = mse_net(stack, policy, rate=1e-5, middle=middle)
    x = rng.normal(size=(96, 8)).astype("float32") if gains else np.ones((96, 8), "float32")
    profiler = trained(stack, model, (x, rng.normal(size=(96, 1)).astype("float32")), epochs=5)
    findings = [finding for finding in profiler.findings if finding.code == "constant-outputs"]
    assert [finding.subject for finding in findings] == ([subject] if subject else [])
    for finding in findings:
        assert part in finding.message
        if finding.has_code:
            again = trained(stack, finding.apply(model), (x, rng.normal(size=(96, 1)).astype("float32")), epochs=5)
            assert "constant-outputs" not in codes(again.findings)


def test_health_is_among_the_keys_of_an_epoch(stack, rng):
    """1 while all is finite, 0 from the epoch on in which it is not."""
    data = rng.normal(size=(96, 8)).astype("float32"), rng.normal(size=(96, 1)).astype("float32")
    for rate, expected in ((0.01, [1, 1]), (1e20, [0, 0])):
        profiler = kp.PrecisionProfiler(verbose=0, log_metrics=True, examination_limit_s=0)
        history = mse_net(stack, rate=rate).fit(*data, batch_size=16, epochs=2, verbose=0, callbacks=[profiler]).history
        assert history["finite"] == expected


def test_an_emulated_format_is_said_in_the_same_run():
    """The summary of one run says what a comparison of two would."""
    plan = PrecisionPlan.training("mixed_float16")
    machine = Environment(processor="p", cpu_flags=("avx2",))
    assert any(
        "it emulates the format of 'mixed_float16'" in line for line in summary_notes(Result("run", (), machine, plan))
    )
    assert not summary_notes(Result("run", (), machine, PrecisionPlan.training("float32")))
