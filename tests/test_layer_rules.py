"""Rules over layers, runs and plans: a rule reports its kind of problem, and nothing otherwise."""

import ast
import math

import pytest

import keras_precision as kp
from keras_precision.core.errors import InputError, PlanKindError
from keras_precision.core.layer_facts import LayerFacts
from keras_precision.core.observation import (
    LayerCall,
    NonFiniteOrigin,
    Observation,
    Statistics,
    find_origin,
    origin_rows,
)
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Measurement, Result
from keras_precision.findings.finding import Finding, apply_rules
from keras_precision.findings.layer_rules import LAYER_RULES
from keras_precision.findings.quantization_rules import quantization_findings
from keras_precision.findings.run_rules import run_findings
from keras_precision.findings.static_rules import facts_findings, input_findings, variance_findings

FINE = Statistics(0, 1, -3, 3, 0.1, 0, 0, 0, 0, 0, 0, 0)
BROKEN = FINE._replace(non_finite=0.5)
HALF = PrecisionPlan.training("mixed_float16")
BFLOAT = PrecisionPlan.training("mixed_bfloat16")


def figures(path="body", plan=None, **metrics):
    """A result with figures of one layer."""
    return Result("run", tuple(Measurement(path, name, value, 1) for name, value in metrics.items()), plan=plan)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (
            figures(activation_float16_overflow=0.1, activation_maximum=1e6, activation_minimum=0.0),
            ("float16-overflow-ahead", "warning"),
        ),
        (figures(activation_float16_overflow=0.1, activation_maximum=1e6, plan=HALF), ("float16-overflow", "error")),
        (figures(activation_float16_overflow=0.0, activation_non_finite=0.2, plan=HALF), ("float16-overflow", "error")),
        (
            figures(gradient_float16_underflow=0.5, gradient_maximum=1e-7, gradient_scaled_underflow=0.0),
            ("gradient-underflow", "info"),
        ),
        (
            figures(gradient_float16_underflow=0.5, gradient_maximum=1e-13, gradient_scaled_underflow=0.5),
            ("gradient-underflow", "warning"),
        ),
        (figures(activation_float16_overflow=0.1, activation_maximum=1e6, plan=BFLOAT), None),
        (
            figures(gradient_float16_underflow=0.5, gradient_maximum=1e-13, gradient_scaled_underflow=0.5, plan=BFLOAT),
            None,
        ),
        (figures(activation_zero=1.0), ("dead-units", "warning")),
        (
            figures(
                activation_float16_overflow=0.0,
                activation_zero=0.5,
                gradient_float16_underflow=0.01,
                activation_maximum=60000.0,
            ),
            None,
        ),
    ],
)
def test_figures_of_layers(result, expected):
    """One figure out of range gives one finding about that layer; figures within give none."""
    findings = apply_rules(result, LAYER_RULES)
    assert [(finding.code, finding.severity, finding.subject) for finding in findings] == (
        [] if expected is None else [(*expected, "body")]
    )


def gradients(first, last, plan=HALF, **more):
    """A result with the gradients of two layers: the share of zeros, and the greatest."""
    rows = [
        Measurement(path, f"gradient_{name}", value, 1)
        for path, figures in (("first", first), ("last", last))
        for name, value in zip(("zero", "maximum"), figures, strict=True)
    ]
    return Result("run", (*rows, *(Measurement("fit", name, value) for name, value in more.items())), plan=plan)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (gradients((1.0, 0.0), (0.0, 1e-13)), "mixed_bfloat16"),
        (gradients((1.0, 0.0), (0.0, 1e-7)), "initial_scale=2.0**24"),
        (gradients((1.0, 0.0), (0.0, 1e-2)), None),  # a dead unit: what comes back is large enough
        (gradients((1.0, 0.0), (0.0, 1e-7), loss_scale=2.0**15), None),
        (gradients((0.5, 1e-7), (0.0, 1e-7)), None),
        (gradients((1.0, 0.0), (1.0, 0.0)), None),  # nothing came back at all: the loss is constant
        (gradients((1.0, 0.0), (0.0, 1e-13), plan=PrecisionPlan.training("mixed_bfloat16")), None),
    ],
)
def test_gradients_that_are_gone_already(result, expected):
    """The first layer, going back, at which float16 has nothing left of gradients that were too small for it."""
    findings = [finding for finding in apply_rules(result, LAYER_RULES) if finding.code == "gradient-vanished"]
    assert [finding.subject for finding in findings] == ([] if expected is None else ["first"])
    assert all(expected in finding.advice for finding in findings)


def test_the_scale_that_cures_is_named():
    """The scale lifts the largest gradient to a quarter of float16's range, and is a power of two."""
    (finding,) = apply_rules(
        figures(gradient_float16_underflow=0.5, gradient_maximum=2.0**-20, gradient_scaled_underflow=0.2), LAYER_RULES
    )
    assert "2.0**33" not in finding.message
    assert "2.0**24" in finding.message
    (finding,) = apply_rules(
        figures(gradient_float16_underflow=0.5, gradient_maximum=2.0**-5, gradient_scaled_underflow=0.0), LAYER_RULES
    )
    assert "initial_scale=2.0**18" in finding.advice


def test_one_loss_scale_for_all_layers():
    """Five layers whose gradients are small to different degrees: one finding, with the scale that suits the largest."""
    rows = [
        Measurement(f"layer{number}", f"gradient_{name}", value)
        for number in range(5)
        for name, value in {
            "float16_underflow": 0.2 + number / 10,
            "scaled_underflow": 0.0,
            "maximum": 2.0 ** -(5 + 3 * number),
        }.items()
    ]
    (finding,) = apply_rules(
        Result("run", (*rows, Measurement("layer4", "weight_gradient_maximum", 1e-9))), LAYER_RULES
    )
    assert (finding.subject, finding.severity) == ("layer4", "info")
    assert "4 other layers likewise: 'layer0', 'layer1'" in finding.message
    assert "initial_scale=2.0**18" in finding.advice


@pytest.mark.parametrize(
    ("metric", "words"), [("weight_gradient_maximum", "its weights"), ("activation_mean", "the layers before it")]
)
def test_only_layers_with_weights_stop_learning(metric, words):
    """A layer without weights passes small gradients back to the layers before it."""
    lost = figures(gradient_float16_underflow=0.5, gradient_maximum=1e-7, **{metric: 1e-7})
    (finding,) = apply_rules(lost, LAYER_RULES)
    assert f"where {words} stop learning" in finding.message


def call(path, before=FINE, after=FINE, within="", kind="Dense", back_in=FINE, back_out=FINE):
    """A call of a layer with one input and one output."""
    return LayerCall(path, within, kind, (before,), (after,), (back_in,), (back_out,))


@pytest.mark.parametrize(
    ("observation", "expected"),
    [
        (Observation((call("a"), call("b")), 1.0), None),
        (Observation((call("a"), call("b")), math.nan), ("loss", None, "")),
        (Observation((call("a", after=BROKEN), call("b", BROKEN, BROKEN)), math.nan), ("forward", "a", "")),
        (
            Observation((call("b", after=BROKEN, within="x", kind="Boom"), call("b", after=BROKEN)), math.nan),
            ("forward", "b", "x"),
        ),
        (
            Observation((call("b", after=BROKEN, within="masked"), call("b"), call("c", after=BROKEN)), math.nan),
            ("forward", "c", ""),
        ),
        (Observation((call("a"), call("b", before=BROKEN, after=BROKEN)), math.nan), ("forward", None, "")),
        (Observation((call("a", back_out=BROKEN), call("b", back_in=BROKEN)), 1.0), ("backward", "b", "")),
        (Observation((call("a"), call("b", back_out=BROKEN)), 1.0), ("backward", None, "")),
        (Observation((call("a"), call("b")), 1.0, weight_gradients={"a": (BROKEN,)}), ("backward", "a", "")),
        (Observation((call("b", within="x", back_in=BROKEN), call("b", back_in=BROKEN)), 1.0), ("backward", "b", "x")),
        (Observation((call("a"),), math.nan, inputs=(BROKEN,)), ("data", None, "inputs")),
        (Observation((call("a"),), math.nan, weights={"a": (BROKEN,)}), ("weights", "a", "")),
    ],
)
def test_origin_of_the_first_non_finite_value(observation, expected):
    """The origin is the first layer that turns finite numbers into non-finite ones."""
    origin = find_origin(observation)
    assert (None if origin is None else (origin.phase, origin.path, origin.within)) == expected


def test_an_origin_that_cannot_be_reproduced_is_no_finding():
    """A step that could not be reproduced is a row, and no finding."""
    rows = tuple(origin_rows(None, 7, loss_is_finite=False))
    assert [(row.value, row.step) for row in rows] == [("not found again", 7)]
    assert apply_rules(Result("run", rows), LAYER_RULES) == ()


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        (NonFiniteOrigin("data", None, within="labels"), "in the labels of the batch"),
        (NonFiniteOrigin("weights", "a"), "in the weights of 'a'"),
        (NonFiniteOrigin("loss", None), "in the loss"),
        (NonFiniteOrigin("backward", None), "in the gradient of the loss"),
        (NonFiniteOrigin("forward", None, near="b"), "in the forward pass, in an operation before 'b'"),
        (
            NonFiniteOrigin("forward", "b", within="deep", kind="Boom", minimum=1.0, maximum=2.0),
            "of 'b' (deep: Boom). Input range: [1, 2].",
        ),
    ],
)
def test_the_finding_describes_the_origin(origin, words):
    """The finding says where, in words, and is an error where no loss scaling was there to catch it."""
    (finding,) = apply_rules(Result("run", tuple(origin_rows(origin, 3, loss_is_finite=False))), LAYER_RULES)
    assert words in finding.message
    assert (finding.code, finding.severity) == ("non-finite", "error")
    assert ast.parse(finding.advice).body


def test_facts_of_layers():
    """A tiny epsilon counts in a user's own float16 layer alone, odd widths on an accelerator alone."""
    own = LayerFacts("norm", "MyNorm", "mixed_float16", "float16", epsilon=1e-9, is_own=True)
    assert [finding.code for finding in facts_findings([own])] == ["tiny-epsilon"]
    assert not facts_findings([LayerFacts("norm", "LayerNormalization", "mixed_float16", "float16", epsilon=1e-9)])
    odd = LayerFacts("head", "Dense", "mixed_bfloat16", "bfloat16", width=1000 + 1)
    assert [finding.code for finding in facts_findings([odd], on_accelerator=True)] == ["odd-width"]
    assert not facts_findings([odd])


def test_spreads_against_float32():
    """A layer in 16 bits whose deviation is far from that in float32 is named; the first, and no layer in float32."""
    layers = [LayerFacts("a", "Dense", "float32", "float32"), LayerFacts("b", "Dense", "mixed_float16", "float16")]
    usual = Observation((call("a"), call("b")), None)
    for spread, word in ((9.0, "explodes"), (0.1, "collapses")):
        changed = FINE._replace(deviation=spread)
        (finding,) = variance_findings(
            Observation((call("a", after=changed), call("b", after=changed)), None), usual, layers
        )
        assert (finding.code, finding.subject) == (f"variance-{word}", "b")
    assert not variance_findings(usual, usual, layers)
    assert not input_findings(Observation((), None, inputs=(FINE,)), layers)


def run(name, losses, step_ms=None, plan=None, **more):
    """A run with a loss for every epoch."""
    rows = [Measurement("epoch", "loss", loss, epoch) for epoch, loss in enumerate(losses)]
    rows += [] if step_ms is None else [Measurement("fit", "step_time_ms", step_ms)]
    rows += [Measurement("fit", key, value) for key, value in more.items()]
    return Result(name, tuple(rows), plan=plan)


def test_runs_against_their_baseline():
    """A loss that leaves its baseline is dated; a speedup that is not there is explained; good runs give nothing."""
    base = run("float32", [1.0, 0.5, 0.25], 20.0)
    (finding,) = run_findings([base, run("half", [1.0, 0.9, 0.9])])
    assert (finding.code, finding.severity, finding.subject) == ("leaves-baseline", "warning", "half")
    assert "in epoch 2: 0.9 against 0.5" in finding.message
    assert run_findings([base, run("half", [1.0, math.nan])])[0].severity == "error"
    (slow,) = run_findings([base, run("half", [1.0, 0.5, 0.26], 21.0, HALF, data_wait_share=0.5)])
    assert (slow.code, slow.severity) == ("no-speedup", "info")
    assert "waits for data 50%" in slow.message
    assert "emulates" in slow.message
    assert run_findings([base, run("half", [1.0, 0.51, 0.24], 9.0)]) == ()
    assert [finding.code for finding in kp.diagnose([base, run("half", [1.0, 0.9])])] == ["leaves-baseline"]


def test_plans_from_findings():
    """Layers at fault get float32, with the reason; infos, runs and batches change nothing."""
    findings = [
        Finding("float16-overflow", "error", "a", "Too large.", ""),
        Finding("half-output", "warning", "a", "Output.", ""),
        Finding("gradient-underflow", "info", "b", "Small.", ""),
        Finding("non-finite", "error", "batch/inputs", "NaN.", ""),
        Finding("input-bound", "warning", "run", "Waits.", ""),
    ]
    plan = kp.suggest_plan(findings, PrecisionPlan.training("mixed_float16", layers={"c": "float32"}))
    assert dict(plan.layers) == {"a": "float32", "c": "float32"}
    assert plan.reasons["a"] == "float16-overflow: Too large."
    assert kp.suggest_plan([], "mixed_bfloat16") == PrecisionPlan.training("mixed_bfloat16")
    with pytest.raises(InputError, match="Expected findings, as kp.diagnose returns them. Received: 'a'"):
        kp.suggest_plan(["a"])
    with pytest.raises(PlanKindError):
        kp.suggest_plan([], PrecisionPlan.deployment("int8"))


@pytest.mark.parametrize("size", [float("nan"), float("inf"), 0.0, 5e-324, 1e-320, 3e38, 1e308])
def test_figures_of_any_size_make_a_message(size):
    """Statistics of a run that broke have no bounds, and the arithmetic of a message must not end it."""
    broken = figures(
        gradient_float16_underflow=0.5,
        gradient_maximum=size,
        gradient_scaled_underflow=0.5,
        activation_float16_overflow=0.5,
        activation_maximum=size,
        activation_minimum=-size,
    )
    assert {finding.code for finding in apply_rules(broken, LAYER_RULES)} >= {"gradient-underflow"}
    apply_rules(gradients((1.0, 0.0), (0.0, size)), LAYER_RULES)


@pytest.mark.parametrize(
    ("step", "factor"), [(0.5, "1.65 in"), (709.0, "to the power of 709"), (1e300, "1e+300"), (float("inf"), "inf")]
)
def test_a_step_of_any_size_makes_a_message(step, factor):
    """The exponential of a step is written as a number only where that is one a reader can use."""
    report = Result("file", (Measurement("softmax", "exp_input_step", step),))
    (finding,) = (finding for finding in quantization_findings(report) if finding.code == "softmax-input-coarse")
    assert factor in finding.message
