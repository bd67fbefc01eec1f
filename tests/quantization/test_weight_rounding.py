"""Weights that are rounded by the second order: against the algorithm as its paper has it, LiteRT, and fresh samples."""

import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import InputError
from keras_precision.export.plan_compiler import PlanCompiler
from keras_precision.quantization.layer_inputs import grouped_weights, input_rows, weighted_operators
from keras_precision.quantization.second_order_rounding import clipped_scales, compensating_weights, round_weights
from keras_precision.quantization.tensor_recorder import TensorRecorder
from keras_precision.quantization.weight_rounding import Layer
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer
from keras_precision.runtimes.tflite.in_memory import predict_in_memory

pytest.importorskip("ai_edge_quantizer", reason='pip install "keras-precision[tflite]"')


def mixed_inputs(count, inputs, seed):
    """Samples whose inputs go together, as those of real layers do."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(max(2, inputs // 4), inputs))
    return (random.normal(size=(count, len(mixing))) @ mixing + random.normal(size=(count, inputs)) / 4).astype(
        "float32"
    )


def rounded_one_by_one(weights, scales, moments, largest):
    """Optimal brain quantization in a fixed order: each step inverts what is left (https://arxiv.org/abs/2208.11580)."""
    left, result = weights.astype(float), np.zeros(weights.shape)
    order = list(np.argsort(-np.diag(moments), kind="stable"))
    while order:
        first, rest = order[0], order[1:]
        inverse = np.linalg.inv(moments[np.ix_(order, order)])
        result[:, first] = np.clip(np.rint(left[:, first] / scales), -largest, largest)
        error = (left[:, first] - result[:, first] * scales) / inverse[0, 0]
        left[:, rest] -= np.outer(error, inverse[0, 1:])
        order = rest
    return result


def test_each_step_is_that_of_the_paper():
    """For groups with inputs of their own, and for more inputs than a block has."""
    random = np.random.default_rng(1)
    for groups, outputs, inputs in ((3, 2, 9), (1, 4, 150)):
        weights = random.normal(size=(groups, outputs, inputs))
        rows = [mixed_inputs(400, inputs, seed) for seed in range(groups)]
        moments = np.stack([table.T @ table / 400 + 0.01 * np.eye(inputs) for table in rows]).astype(float)
        scales = np.abs(weights).max(axis=2) / 7
        expected = [rounded_one_by_one(*group, 7) for group in zip(weights, scales, moments, strict=True)]
        np.testing.assert_array_equal(round_weights(weights, scales, moments, 7), expected)


def test_scales_and_compensation_lower_the_error_that_they_are_for():
    """Both against the error of the outputs on the very rows; an output without weights has scale 1."""
    random = np.random.default_rng(2)
    rows, weights = mixed_inputs(500, 12, 3), random.normal(size=(1, 5, 12))
    weights[0, 0, 0], weights[0, 1] = 9.0, 0.0
    moments = (rows.T @ rows / 500).astype(float)[None]
    scales = clipped_scales(weights, [moments], 7)
    assert scales[0, 1] == 1.0

    def error(steps):
        steps = steps[..., None]
        return np.square(rows @ (np.clip(np.rint(weights / steps), -7, 7) * steps - weights)[0].T).mean(axis=0)

    whole = np.where(np.abs(weights).max(axis=2) > 0, np.abs(weights).max(axis=2), 7) / 7
    assert (error(scales) <= error(whole) + 1e-12).all()
    assert (error(scales) < error(whole)).any()

    changed = rows + 0.2 * random.normal(size=rows.shape).astype("float32")
    crossed, second = (rows.T @ changed / 500).astype(float)[None], (changed.T @ changed / 500).astype(float)[None]
    exact = rows @ weights[0].T
    before, after = (
        np.square(changed @ table[0].T - exact).mean()
        for table in (weights, compensating_weights(weights, crossed, second))
    )
    assert after < before


@pytest.fixture(scope="module")
def kernels(stack):
    """A model with a layer for each way in which weights meet their inputs, with samples and its calibration."""
    stack.keras.utils.set_random_seed(3)
    layers = stack.keras.layers
    image = layers.Input((6, 7, 4), name="image")
    twice = layers.Dense(3, bias_initializer="ones", name="twice")
    outputs = [
        layers.Conv2D(3, (3, 2), name="valid")(image),
        layers.Conv2D(3, 3, strides=(2, 1), padding="same", name="same")(image),
        layers.Conv2D(3, 2, dilation_rate=2, padding="same", name="dilated")(image),
        layers.Conv2D(4, 3, groups=2, name="grouped")(image),
        layers.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2, name="depthwise")(image),
        layers.Dense(5, name="flat")(layers.Flatten()(image)),
        layers.Dense(5, name="of_rows")(image),
        twice(image),
        twice(layers.ReLU()(image)),
    ]
    model = stack.keras.Model(image, outputs)
    samples = mixed_inputs(40, 6 * 7 * 4, 5).reshape(40, 6, 7, 4)
    return model, samples, kp.calibrate(model, samples)


def test_rows_times_weights_are_what_the_runtime_computes(kernels):
    """For each kernel, stride, padding, dilation and grouping, against LiteRT's own outputs, also of a part of the file."""
    _, samples, calibration = kernels
    graph = Flatbuffer(calibration.float_file.content)
    given = dict.fromkeys(calibration.held, samples[:4])
    tried = [operator for group in weighted_operators(graph) for operator in group]
    assert {operator.kernel for operator in tried} == {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}
    for operator, rows in zip(tried, input_rows(graph, tried, given), strict=True):
        described = graph.operators[operator.number]
        weights, bias = (graph.constant(int(number)) for number in described.inputs[1:3])
        weights = grouped_weights(operator.kernel, weights, len(rows))
        products = np.einsum("gri,goi->rgo", rows, weights).reshape(rows.shape[1], -1)
        expected = []
        recorder = TensorRecorder(graph.content(), [int(described.outputs[0])])
        list(
            recorder.run([given], lambda _, values, to=expected: to.append(values.reshape(-1, values.shape[-1]).copy()))
        )
        np.testing.assert_allclose(products + (0 if bias is None else bias), np.concatenate(expected), atol=1e-4)
        (part,) = input_rows(graph.before(operator.number, operator.source), [operator], given)
        np.testing.assert_array_equal(part, rows)


def test_calls_of_a_shared_layer_have_one_set_of_weights(kernels):
    """Both calls give the integers that the file has once, and the outputs come nearer on fresh samples."""
    model, _, calibration = kernels
    rounding = PlanCompiler(calibration, "minmax", rounding="gptq").rounding.weights("int4")
    graph = Flatbuffer(calibration.float_file.content)
    (calls,) = [group for group in weighted_operators(graph) if len(group) > 1]
    first, second = (rounding.chained[operator.number].constant for operator in calls)
    assert first is second
    fresh = mixed_inputs(64, 6 * 7 * 4, 6).reshape(64, 6, 7, 4)
    exact = [np.asarray(output) for output in model(fresh)]
    errors = []
    for way in ("nearest", "gptq"):
        content = PlanCompiler(calibration, "minmax", rounding=way)(kp.PrecisionPlan.deployment("int4"))
        outputs = predict_in_memory(content, dict.fromkeys(calibration.held, fresh), 1)
        errors.append([np.square(got - value).mean() for got, value in zip(outputs, exact, strict=True)])
    assert (np.array(errors[1]) < 1.1 * np.array(errors[0])).all()
    assert np.mean(errors[1]) < 0.9 * np.mean(errors[0])


def test_small_changes_of_large_inputs_and_constant_ones_are_rounded():
    """Their second moments have an inverse: rounding errors of sums are no variances, and no variance is no reason to fail."""
    random = np.random.default_rng(6)
    rows = (1e3 + 1e-2 * random.normal(size=(1, 200, 12))).astype("float32")
    rows[..., 3:6] = 7.0
    weights = random.normal(size=(4, 12)).astype("float32")
    for table in (rows, np.full_like(rows, 3.0), np.zeros_like(rows)):
        rounded = Layer("FULLY_CONNECTED", weights, 7).rounded(table, table)
        assert np.isfinite(rounded.constant.scales).all()
        assert np.abs(rounded.constant.reals() - weights).max() < np.abs(weights).max()


@pytest.fixture(scope="module")
def dense(stack):
    """A net of three dense layers on inputs that go together, with samples, and its calibration."""
    layers = stack.keras.layers
    hidden = [layers.Dense(units, activation="relu") for units in (24, 16)]
    model = stack.keras.Sequential([layers.Input((32,)), *hidden, layers.Dense(4)])
    random = np.random.default_rng(0)  # the same weights on each stack
    model.set_weights([random.normal(size=array.shape) / np.sqrt(len(array)) for array in model.get_weights()])
    samples = mixed_inputs(256, 32, 7)
    return model, samples, kp.calibrate(model, samples)


def signal_to_noise(model, path):
    """How far the answers of a file are from the model's, on samples that no calibration has seen."""
    fresh = mixed_inputs(300, 32, 8)
    exact, outputs = np.asarray(model.predict(fresh, verbose=0)), kp.edge.predict(path, fresh)
    return 10 * np.log10(np.square(exact).sum() / np.square(outputs - exact).sum())


@pytest.mark.every_stack
def test_files_with_weights_of_four_bits_come_nearer_to_the_model(dense, tmp_path):
    """By default, by at least 3 dB; with the integers that are said, and biases in the steps of their scales."""
    model, _, calibration = dense
    found = {}
    for way in ("nearest", "auto"):
        path = tmp_path / f"{way}.tflite"
        result = kp.export_tflite(model, path, "int4", calibration, rounding=way, io="float32")
        found[way] = signal_to_noise(model, path)
        assert any("GPTQ" in note for note in result.notes) == (way == "auto")
    assert found["auto"] > found["nearest"] + 3
    graph = Flatbuffer(path.read_bytes())
    rounded = PlanCompiler(calibration).rounding.weights("int4").chained
    written = [operator for operator in graph.operators if graph.kernel(operator) == "FULLY_CONNECTED"]
    for operator, expected in zip(written, rounded.values(), strict=True):
        source, weights, bias = map(int, operator.inputs)
        constant = graph.quantized_constant(weights)
        np.testing.assert_array_equal(constant.values, expected.constant.values)
        np.testing.assert_allclose(
            graph.quantized_constant(bias).scales, graph.scale(source) * constant.scales, rtol=1e-6
        )


def test_weights_of_eight_bits_are_rounded_where_that_is_asked_for(dense, tmp_path):
    """By both engines; by default they are rounded to the nearest, and the file is the same as when that is asked for."""
    model, _, calibration = dense

    def exported(**options):
        kp.export_tflite(model, tmp_path / "model.tflite", "int8", calibration, calibration="minmax", **options)
        return PlanCompiler(calibration, "minmax", **options), Flatbuffer((tmp_path / "model.tflite").read_bytes())

    def weights(graph):
        operators = [operator for operator in graph.operators if graph.kernel(operator) == "FULLY_CONNECTED"]
        return [graph.quantized_constant(int(operator.inputs[1])).values for operator in operators]

    plain, nearest = weights(exported()[1]), weights(exported(rounding="nearest")[1])
    assert all(np.array_equal(*pair) for pair in zip(plain, nearest, strict=True))
    compiler, graph = exported(rounding="gptq")
    expected = [rounded.constant.values for rounded in compiler.rounding.weights("int8").chained.values()]
    kp.export_tflite(
        model, tmp_path / "model.tflite", "int8", calibration, calibration="minmax", rounding="gptq", engine="converter"
    )
    by_converter = Flatbuffer((tmp_path / "model.tflite").read_bytes())
    for written in (weights(graph), weights(by_converter)):
        assert all(np.array_equal(*pair) for pair in zip(written, expected, strict=True))
    assert not all(np.array_equal(*pair) for pair in zip(plain, expected, strict=True))


def test_the_errors_of_layers_before_are_made_up_for_where_those_are_there(dense):
    """A layer has other weights behind layers that are rounded, too, than behind one that is not."""
    *_, calibration = dense
    rounding = PlanCompiler(calibration).rounding.weights("int4")
    first, second, third = sorted(rounding.alone)
    assert rounding.of([True, True, True]) == dict(rounding.chained)
    assert rounding.of([True, True, False]) == {number: rounding.chained[number] for number in (first, second)}
    assert rounding.of([False, True, True]) == {number: rounding.alone[number] for number in (second, third)}
    assert not np.array_equal(rounding.alone[third].constant.values, rounding.chained[third].constant.values)


def test_auto_takes_what_is_better_on_samples_that_had_no_part(dense):
    """Weights are rounded on three samples of four; the fourth decides, and weights of the worse way are not written."""
    *_, calibration = dense
    plan = kp.PrecisionPlan.deployment("int4")
    compiler = PlanCompiler(calibration, "minmax")
    by_second_order, nearest = (
        compiler.divergence("int4", corrected=True, rounded=rounded) for rounded in (True, False)
    )
    assert by_second_order < nearest
    assert compiler.job(plan).weights
    (key,) = [key for key, value in calibration.divergences.items() if value == by_second_order]
    assert key[3] == len(next(iter(calibration.held.values()))) // 4
    calibration.divergences[key] = 2 * nearest
    assert not compiler.job(plan).weights
    calibration.divergences[key] = by_second_order


def test_too_few_samples_leave_weights_at_the_nearest(stack, tmp_path):
    """A note says how many it takes, and how many there are; an unknown way of rounding is an error."""
    model = stack.keras.Sequential([stack.keras.layers.Input((32,)), stack.keras.layers.Dense(4)])
    result = kp.export_tflite(model, tmp_path / "few.tflite", "int4", mixed_inputs(8, 32, 9))
    assert [note for note in result.notes if "needs 16 samples" in note and "stores 8" in note]
    with pytest.raises(InputError, match="rounding to be one of auto, nearest, gptq"):
        kp.export_tflite(model, tmp_path / "few.tflite", "int4", mixed_inputs(8, 32, 9), rounding="up")
