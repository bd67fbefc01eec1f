"""The grammar of descriptions, as Hypothesis strategies."""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from generated.description import Description, Input, Node
from generated.samples import TOKENS

__all__ = ["descriptions", "first_descriptions"]

Draw = Callable[[st.SearchStrategy[Any]], Any]
Shape = tuple[int, ...]

VECTOR, SERIES, IMAGE, VOLUME = 1, 2, 3, 4
"""Ranks of values, without the batch axis."""

STEPS = 6
"""The length of every series that a mask may belong to."""

NAMES = (
    "b",
    "a",
    "B",
    "x.y",
    "a-b",
    "input_1",
    "output_0",
    "serving_default",
    "args_0",
    "left right",
    "größe",
    "class",
    None,
)

ACTIVATIONS = (
    None, "relu", "relu", "relu6", "sigmoid", "tanh", "softmax", "elu", "selu", "softplus", "softsign", "silu", "gelu",
    "leaky_relu", "hard_sigmoid",
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A kind of layer: the ranks that it takes, its options, and the shape of its output."""

    layer: str
    ranks: tuple[int, ...]
    options: Callable[[Draw, Shape], dict[str, Any]]
    shape: Callable[[Shape, dict[str, Any]], Shape]
    weighted: bool = False


def _same(shape: Shape, options: dict[str, Any]) -> Shape:
    return shape


def _none(draw: Draw, shape: Shape) -> dict[str, Any]:
    return {}


def _kind(layer: str, ranks: Sequence[int], options: Any = _none, shape: Any = _same, **more: Any) -> Kind:
    return Kind(layer, tuple(ranks), options, shape, **more)


def _fixed(**options: Any) -> Callable[[Draw, Shape], dict[str, Any]]:
    return lambda draw, shape: dict(options)


# Convolutions


def _convolution(*, transposed: bool = False, depthwise: bool = False) -> Callable[[Draw, Shape], dict[str, Any]]:
    def options(draw: Draw, shape: Shape) -> dict[str, Any]:
        side = min(shape[:-1])
        chosen: dict[str, Any] = {
            "kernel_size": draw(st.integers(1, min(3, side))),
            "strides": draw(st.sampled_from((1, 1, 2))),
            "padding": draw(st.sampled_from(("same", "valid"))),
            "use_bias": draw(st.sampled_from((True, True, False))),
            "activation": draw(st.sampled_from(ACTIVATIONS)),
        }
        if depthwise:
            return chosen | {"depth_multiplier": draw(st.sampled_from((1, 1, 2)))}
        return chosen | {"filters": draw(st.integers(2, 6))}

    return options


def _convolved(shape: Shape, options: dict[str, Any]) -> Shape:
    size, stride = options["kernel_size"], options["strides"]
    if options["padding"] == "same":
        space = [math.ceil(side / stride) for side in shape[:-1]]
    else:
        space = [(side - size) // stride + 1 for side in shape[:-1]]
    return (*space, options.get("filters", shape[-1] * options.get("depth_multiplier", 1)))


def _spread(shape: Shape, options: dict[str, Any]) -> Shape:
    size, stride = options["kernel_size"], options["strides"]
    more = 0 if options["padding"] == "same" else max(size - stride, 0)
    return (*(side * stride + more for side in shape[:-1]), options["filters"])


# Pooling, padding, cropping


def _pooled(shape: Shape, options: dict[str, Any]) -> Shape:
    return (*(side // 2 for side in shape[:-1]), shape[-1])


def _around(change: int) -> Callable[[Shape, dict[str, Any]], Shape]:
    return lambda shape, options: (*(side + change for side in shape[:-1]), shape[-1])


def _doubled(shape: Shape, options: dict[str, Any]) -> Shape:
    return (*(side * 2 for side in shape[:-1]), shape[-1])


def _last(shape: Shape, options: dict[str, Any]) -> Shape:
    return shape[-1:]


def _flat(shape: Shape, options: dict[str, Any]) -> Shape:
    return (math.prod(shape),)


# Dense and recurrent layers


def _dense(draw: Draw, shape: Shape) -> dict[str, Any]:
    return {
        "units": draw(st.integers(2, 8)),
        "activation": draw(st.sampled_from(ACTIVATIONS)),
        "use_bias": draw(st.sampled_from((True, True, False))),
    }


def _einsum(draw: Draw, shape: Shape) -> dict[str, Any]:
    units = draw(st.integers(2, 5))
    return {"equation": "abc,cd->abd", "output_shape": [None, units], "bias_axes": draw(st.sampled_from(("d", None)))}


def _recurrent(draw: Draw, shape: Shape) -> dict[str, Any]:
    return {
        "units": draw(st.integers(2, 5)),
        "return_sequences": draw(st.booleans()),
        "unroll": draw(st.booleans()),
        "go_backwards": draw(st.sampled_from((False, False, True))),
    }


def _recurred(shape: Shape, options: dict[str, Any]) -> Shape:
    return (shape[0], options["units"]) if options["return_sequences"] else (options["units"],)


def _both_ways(draw: Draw, shape: Shape) -> dict[str, Any]:
    return {
        "kind": draw(st.sampled_from(("LSTM", "GRU", "SimpleRNN"))),
        "units": draw(st.integers(2, 4)),
        "unroll": draw(st.booleans()),
    }


def _reshaped(draw: Draw, shape: Shape) -> dict[str, Any]:
    size = math.prod(shape)
    divisors = [number for number in range(1, size + 1) if size % number == 0]
    first = draw(st.sampled_from(divisors))
    return {"target_shape": [first, size // first]}


def _permuted(draw: Draw, shape: Shape) -> dict[str, Any]:
    return {"dims": draw(st.permutations(range(1, len(shape) + 1)))}


ANY = (VECTOR, SERIES, IMAGE)
_NUMBERED = {SERIES: "1D", IMAGE: "2D", VOLUME: "3D"}


def _by_rank(
    prefix: str, options: Any, shape: Any, ranks: Sequence[int] = (SERIES, IMAGE, VOLUME), suffix: str = "", **more: Any
) -> list[Kind]:
    """Return the kinds of a family with a class per rank."""
    return [_kind(f"{prefix}{_NUMBERED[rank]}{suffix}", (rank,), options, shape, **more) for rank in ranks]


KINDS: tuple[Kind, ...] = (
    _kind("Dense", ANY, _dense, lambda shape, options: (*shape[:-1], options["units"]), weighted=True),
    _kind("EinsumDense", (SERIES,), _einsum, lambda shape, options: (shape[0], options["output_shape"][1]), weighted=True),
    *_by_rank("Conv", _convolution(), _convolved, weighted=True),
    *_by_rank("Conv", _convolution(), _spread, suffix="Transpose", weighted=True),
    *_by_rank("DepthwiseConv", _convolution(depthwise=True), _convolved, (SERIES, IMAGE), weighted=True),
    *_by_rank("SeparableConv", _convolution(), _convolved, (SERIES, IMAGE)),
    *_by_rank("MaxPooling", _fixed(pool_size=2), _pooled),
    *_by_rank("AveragePooling", _fixed(pool_size=2), _pooled),
    *_by_rank("GlobalMaxPooling", _none, _last),
    *_by_rank("GlobalAveragePooling", _none, _last),
    *_by_rank("UpSampling", _none, _doubled),
    _kind("UpSampling2D", (IMAGE,), _fixed(interpolation="bilinear"), _doubled),
    *_by_rank("ZeroPadding", _none, _around(2)),
    *_by_rank("Cropping", _none, _around(-2)),
    _kind("LSTM", (SERIES,), _recurrent, _recurred, weighted=True),
    _kind("GRU", (SERIES,), _recurrent, _recurred, weighted=True),
    _kind("SimpleRNN", (SERIES,), _recurrent, _recurred, weighted=True),
    _kind("bidirectional", (SERIES,), _both_ways, lambda shape, options: (2 * options["units"],)),
    _kind("time_distributed", (SERIES,), _fixed(units=3), lambda shape, options: (shape[0], 3)),
    _kind("self_attention", (SERIES,)),
    _kind("causal_attention", (SERIES,)),
    _kind("nested", (VECTOR, SERIES), lambda draw, shape: {"depth": draw(st.integers(1, 2)), "twice": draw(st.booleans())}),
    _kind("BatchNormalization", ANY),
    _kind("LayerNormalization", ANY),
    _kind("GroupNormalization", (IMAGE,), _fixed(groups=1)),
    _kind("Rescaling", ANY, lambda draw, shape: {"scale": draw(st.sampled_from((0.1, 2.0))), "offset": draw(st.sampled_from((0.0, -1.0)))}),
    _kind("Activation", ANY, lambda draw, shape: {"activation": draw(st.sampled_from((*ACTIVATIONS[1:], "exponential")))}),
    _kind("ReLU", ANY, lambda draw, shape: draw(st.sampled_from(({}, {"max_value": 6.0}, {"negative_slope": 0.1}, {"threshold": 0.2})))),
    _kind("LeakyReLU", ANY),
    _kind("PReLU", ANY),
    _kind("ELU", ANY),
    _kind("Softmax", ANY),
    _kind("Flatten", (SERIES, IMAGE), _none, _flat),
    _kind("Reshape", ANY, _reshaped, lambda shape, options: tuple(options["target_shape"])),
    _kind("Permute", (SERIES, IMAGE), _permuted, lambda shape, options: tuple(shape[number - 1] for number in options["dims"])),
    _kind("RepeatVector", (VECTOR,), _fixed(n=3), lambda shape, options: (3, *shape)),
    _kind("Dropout", ANY, _fixed(rate=0.3)),
    _kind("GaussianNoise", ANY, _fixed(stddev=0.3)),
    *_by_rank("SpatialDropout", _fixed(rate=0.3), _same),
    _kind("AlphaDropout", ANY, _fixed(rate=0.3)),
    _kind("GaussianDropout", ANY, _fixed(rate=0.3)),
    _kind("Identity", ANY),
    _kind("ActivityRegularization", ANY),
)  # fmt: skip

MERGES = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate")


@dataclass
class Draft:
    """A description in the making: the nodes, and the shape of every value."""

    inputs: list[Input]
    shapes: list[Shape]
    nodes: list[Node] = field(default_factory=list)

    def add(self, layer: str, of: Sequence[int], shape: Shape, **more: Any) -> int:
        """Append a node; return the number of its value."""
        node: Node = {"layer": layer, "of": list(of), **{key: value for key, value in more.items() if value}}  # type: ignore[typeddict-item]
        self.nodes.append(node)
        self.shapes.append(shape)
        return len(self.shapes) - 1


@st.composite
def descriptions(draw: Draw) -> Description:
    """Draw a description."""
    inputs = draw(_inputs())
    draft = Draft(inputs, [tuple(entry["shape"]) for entry in inputs])
    streams = [_stem(draw, draft, number) for number in range(len(inputs))]
    streams = _attended(draw, draft, streams)
    for _ in range(draw(st.integers(1, 6))):
        _step(draw, draft, streams)
    outputs = _outputs(draw, draft, streams)
    return {"seed": draw(st.integers(0, 999)), "inputs": inputs, "nodes": draft.nodes, "outputs": outputs}


INPUT_KINDS = (
    ("normal", "float32", (5,)), ("unit", "float32", (8, 8, 3)), ("normal", "float32", (STEPS, 4)), ("unlike", "float32", (6,)),
    ("padded", "float32", (STEPS, 4)), ("tokens", "int32", (STEPS,)), ("bytes", "uint8", (8, 8, 3)), ("offset", "float32", (5,)),
    ("normal", "float32", (8, 8, 2)), ("padded_tokens", "int32", (STEPS,)), ("bytes", "float32", (8, 8, 1)),
    ("tokens", "float32", (STEPS,)), ("normal", "float32", (4, 4, 4, 2)), ("normal", "float16", (5,)), ("normal", "float32", (STEPS, 4)),
)  # fmt: skip


@st.composite
def _inputs(draw: Draw) -> list[Input]:
    """Draw one to four inputs, of equal shape more often than not."""
    count = draw(st.sampled_from((1, 1, 1, 2, 2, 3, 4)))
    names = (
        draw(st.lists(st.sampled_from(NAMES), min_size=count, max_size=count, unique=True))
        if count > 1
        else [draw(st.sampled_from(NAMES))]
    )
    first = draw(st.sampled_from(INPUT_KINDS))
    kinds = [first, *(first if draw(st.booleans()) else draw(st.sampled_from(INPUT_KINDS)) for _ in names[1:])]
    if count > 1 and any(shape[0] == STEPS for _, _, shape in kinds[:-1]) and draw(st.booleans()):
        kinds[-1] = ("mask", "float32", (STEPS,))
    return [
        {"name": name, "shape": list(shape), "dtype": dtype, "values": values}
        for name, (values, dtype, shape) in zip(names, kinds, strict=True)
    ]


def _stem(draw: Draw, draft: Draft, number: int) -> int:
    """Make floats that layers take of an input, with or without a stateful layer of preprocessing."""
    entry, shape = draft.inputs[number], draft.shapes[number]
    values, dtype = entry["values"], entry["dtype"]
    if "tokens" in values:
        if draw(st.integers(0, 7)):
            options = {"input_dim": TOKENS, "output_dim": 4, "mask_zero": values == "padded_tokens"}
            return draft.add("Embedding", [number], (*shape, 4), options=options)
        return draft.add(
            "CategoryEncoding", [number], (TOKENS,), options={"num_tokens": TOKENS, "output_mode": "multi_hot"}
        )
    if values == "padded":
        return draft.add("Masking", [number], shape)
    if dtype == "uint8":
        return draft.add("Rescaling", [number], shape, options={"scale": 1 / 127.5, "offset": -1.0})
    if values in ("offset", "unlike", "bytes"):
        return _preprocessing(draw, draft, number)
    return number


def _preprocessing(draw: Draw, draft: Draft, number: int) -> int:
    shape = draft.shapes[number]
    kind = draw(st.sampled_from(("adapted", "fixed", "Discretization", "none", "adapted", "inverted")))
    if kind == "adapted":
        return draft.add("Normalization", [number], shape, adapt=True)
    if kind == "fixed":
        return draft.add("Normalization", [number], shape, options={"axis": None, "mean": 3.0, "variance": 9.0})
    if kind == "inverted":
        options = {"axis": None, "mean": 3.0, "variance": 9.0, "invert": True}
        return draft.add("Normalization", [number], shape, options=options)
    if kind == "Discretization" and len(shape) == VECTOR:
        bins = draft.add("Discretization", [number], shape, options={"num_bins": TOKENS}, adapt=True)
        return draft.add("Embedding", [bins], (*shape, 3), options={"input_dim": TOKENS, "output_dim": 3})
    return number


def _step(draw: Draw, draft: Draft, streams: list[int]) -> None:
    """Extend one stream by a layer, a residual, or what another stream has."""
    number = draw(st.integers(0, len(streams) - 1))
    value = streams[number]
    step = draw(st.sampled_from(("layer", "layer", "layer", "layer", "residual", "merge", "shared", "fork", "attend")))
    alike = [other for other in streams if other != value and draft.shapes[other] == draft.shapes[value]]
    if step == "merge" and alike:
        streams[number] = _merged(draw, draft, value, draw(st.sampled_from(alike)))
    elif step == "attend" and (keys := _keys(draft, streams, value)):
        of = [value, draw(st.sampled_from(keys))]
        streams[number] = draft.add("cross_attention", of, draft.shapes[value])
    elif step == "residual":
        streams[number] = _residual(draw, draft, value)
    elif step == "shared" and _sharable(draft, value):
        streams[number] = _shared(draw, draft, value)
    elif step == "fork" and len(streams) < 4:
        streams.append(_layer(draw, draft, value))
    else:
        streams[number] = _layer(draw, draft, value)


def _layer(draw: Draw, draft: Draft, value: int) -> int:
    shape = draft.shapes[value]
    kinds = [kind for kind in KINDS if len(shape) in kind.ranks and _is_small(kind, shape)]
    if not kinds:
        return draft.add("Flatten", [value], _flat(shape, {}))
    kind = draw(st.sampled_from([kind for kind in kinds for _ in range(2 + kind.weighted)]))
    options = kind.options(draw, shape)
    special = draw(st.sampled_from((None, None, None, "dead", "huge", "tiny"))) if kind.weighted else None
    policy = draw(st.sampled_from((None,) * 15 + ("mixed_bfloat16", "mixed_float16")))
    if policy and kind.layer[0].isupper():
        options["dtype"] = policy
    return draft.add(kind.layer, [value], kind.shape(shape, options), options=options, weights=special)


def _is_small(kind: Kind, shape: Shape) -> bool:
    """Return whether a layer leaves something, and not too much, of a shape."""
    if kind.layer.startswith("Cropping"):
        return min(shape[:-1]) > 2
    if "Pooling" in kind.layer and not kind.layer.startswith("Global"):
        return min(shape[:-1]) > 1
    grows = kind.layer.startswith(("UpSampling", "ZeroPadding", "RepeatVector")) or kind.layer.endswith("Transpose")
    return not grows or math.prod(shape) < 256


def _residual(draw: Draw, draft: Draft, value: int) -> int:
    """Add what a dense layer or a convolution makes of a value to the value."""
    shape = draft.shapes[value]
    options = {"units": shape[-1], "activation": draw(st.sampled_from(("relu", None)))}
    branch = draft.add("Dense", [value], shape, options=options)
    return draft.add("Add", [value, branch], shape)


def _merged(draw: Draw, draft: Draft, value: int, other: int) -> int:
    layer, shape = draw(st.sampled_from(MERGES)), draft.shapes[value]
    merged = (*shape[:-1], 2 * shape[-1]) if layer == "Concatenate" else shape
    return draft.add(layer, [value, other], merged)


def _keys(draft: Draft, streams: Sequence[int], value: int) -> list[int]:
    """Return the other streams that are series, where the value is one."""
    ranks = {other: len(draft.shapes[other]) for other in (*streams, value)}
    return [other for other in streams if other != value and ranks[other] == ranks[value] == SERIES]


def _sharable(draft: Draft, value: int) -> list[int]:
    """Return the values of dense layers that were made of a value of the same shape."""
    offset = len(draft.inputs)
    return [
        number
        for number, node in enumerate(draft.nodes, offset)
        if node["layer"] == "Dense" and draft.shapes[node["of"][0]] == draft.shapes[value]
    ]


def _shared(draw: Draw, draft: Draft, value: int) -> int:
    first = draw(st.sampled_from(_sharable(draft, value)))
    return draft.add("Dense", [value], draft.shapes[first], shared=first)


def _attended(draw: Draw, draft: Draft, streams: Sequence[int]) -> list[int]:
    """Apply a mask that is an input to a series, by attention; return the streams without the mask's."""
    masks = [number for number, entry in enumerate(draft.inputs) if entry["values"] == "mask"]
    series = [value for value in streams if len(draft.shapes[value]) == SERIES and draft.shapes[value][0] == STEPS]
    if not masks or not series:
        return list(streams)
    magnitude = draw(st.sampled_from((-1e9, -1e4, -100.0)))
    attended = draft.add(
        "masked_attention", [series[0], masks[0]], draft.shapes[series[0]], options={"magnitude": magnitude}
    )
    return [attended if value == series[0] else value for value in streams if value != masks[0]]


def _outputs(draw: Draw, draft: Draft, streams: Sequence[int]) -> list[int]:
    """Choose one to three outputs, such that every stream reaches one."""
    count = min(len(streams), draw(st.integers(1, 3)))
    kept, rest = list(streams[:count]), [_flattened(draft, value) for value in streams[count:]]
    if rest:
        parts = [_flattened(draft, kept[-1]), *rest]
        kept[-1] = draft.add("Concatenate", parts, (sum(draft.shapes[part][0] for part in parts),))
    heads = [_head(draw, draft, value) for value in kept]
    return list(dict.fromkeys(heads))


def _flattened(draft: Draft, value: int) -> int:
    shape = draft.shapes[value]
    return value if len(shape) == VECTOR else draft.add("Flatten", [value], _flat(shape, {}))


def _head(draw: Draw, draft: Draft, value: int) -> int:
    """End a stream in a head, or as it is; an input itself is no output."""
    head = draw(st.sampled_from(("softmax", "sigmoid", "linear", None)))
    if head is None and value >= len(draft.inputs):
        return value
    shape = draft.shapes[value]
    options = {"units": draw(st.integers(1, 4)) if head != "softmax" else 4, "activation": head or "linear"}
    return draft.add("Dense", [value], (*shape[:-1], options["units"]), options=options)


class _Enough(Exception):  # noqa: N818 - it names what happened
    """As many descriptions as were asked for are there."""


def first_descriptions(count: int, start: int = 0) -> list[Description]:
    """Return descriptions, no two of the same structure: the first of a sequence that a number and a version of Hypothesis fix."""
    found: dict[str, Description] = {}

    @seed(start)
    @settings(
        max_examples=1_000_000,  # the same for every count, as the sequence depends on it
        database=None,
        phases=[Phase.generate],
        deadline=None,
        report_multiple_bugs=False,  # stop at the first exception, which is the one below
        suppress_health_check=list(HealthCheck),
    )
    @given(descriptions())
    def collect(description: Description) -> None:
        found.setdefault(_structure(description), description)
        if len(found) >= count:
            raise _Enough

    with contextlib.suppress(_Enough):
        collect()
    return list(found.values())[:count]


def _structure(description: Description) -> str:
    """Return what Hypothesis's variations of one example have in common: the layers and the kinds of the inputs."""
    layers = [node["layer"] for node in description["nodes"]]
    return f"{[entry['values'] for entry in description['inputs']]} {layers}"
