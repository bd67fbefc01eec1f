"""PrecisionPlan: a value that cannot change, made from exact paths, and read back as it was written."""

import copy
import json
import pickle
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from keras_precision.core.errors import (
    FileFormatError,
    PlanError,
    PlanKindError,
    UnknownLayerError,
    UnknownPrecisionError,
)
from keras_precision.core.plan import DEPLOYMENT_PRECISIONS, TRAINING_PRECISIONS, PrecisionPlan
from keras_precision.core.system.json_documents import Fields

PATHS = ["stem", "block_1/conv", "block_1/norm", "block_2/conv", "head"]
PLANS = {
    "training": PrecisionPlan.training("mixed_float16", {"head": "float32"}, {"head": "its logits overflow"}),
    "deployment": PrecisionPlan.deployment("int8", {"stem": "float32", "block_1/conv": "int16x8"}),
    "float inputs": PrecisionPlan.deployment("int8", {"stem": "int16x8"}, io="float32"),
    "bare": PrecisionPlan.training(),
}


def through_json(plan: PrecisionPlan) -> PrecisionPlan:
    """Return what JSON makes of a plan."""
    return PrecisionPlan.from_json(Fields(json.loads(json.dumps(plan.to_json())), "text"))


@pytest.mark.parametrize("name", ["kind", "default", "layers", "reasons", "io"])
def test_fields_cannot_be_set(name: str) -> None:
    """A plan is frozen."""
    with pytest.raises(FrozenInstanceError, match=f"cannot assign to field '{name}'"):
        setattr(PLANS["training"], name, {})


@pytest.mark.parametrize("name", ["layers", "reasons"])
def test_mappings_cannot_be_changed(name: str) -> None:
    """The mappings of a plan are frozen, and do not follow those that it was made from."""
    given = {"head": "float32"}
    plan = PrecisionPlan.training(**{name: given})
    with pytest.raises(TypeError, match="does not support item assignment"):
        getattr(plan, name)["stem"] = "float32"
    given["stem"] = "float32"
    assert getattr(plan, name) == {"head": "float32"}


@pytest.mark.parametrize(
    ("other", "equal"),
    [
        (PrecisionPlan.training("mixed_float16", {"head": "float32"}), True),
        (PrecisionPlan.training("mixed_float16", {"head": "float32"}, {"head": "another reason"}), True),
        (PrecisionPlan("training", "mixed_float16", {"head": "float32"}), True),
        (PrecisionPlan.training("mixed_bfloat16", {"head": "float32"}), False),
        (PrecisionPlan.training("mixed_float16"), False),
        (PrecisionPlan.training("mixed_float16", {"head": "mixed_bfloat16"}), False),
    ],
)
def test_plans_are_equal_if_they_decide_the_same(other: PrecisionPlan, *, equal: bool) -> None:
    """Equality and hash look at kind, default and layers, not at the reasons."""
    plan = PLANS["training"]
    assert (plan == other) == equal
    assert len({plan, other}) == (1 if equal else 2)


def test_the_kind_is_part_of_equality() -> None:
    """A training plan of float32 is no deployment plan of float32."""
    assert PrecisionPlan.training("float32") != PrecisionPlan.deployment("float32")


@pytest.mark.parametrize(
    ("default", "io", "io_type", "equal"),
    [
        ("int8", None, "int8", True),
        ("int8", "int8", "int8", True),
        ("int8", "float32", "float32", False),
        ("int16x8", "int16", "int16", True),
        ("int4", "int8", "int8", True),
        ("float16", "float32", "float32", True),
    ],
)
def test_the_type_of_inputs_and_outputs_is_part_of_equality(
    default: str, io: str | None, io_type: str, *, equal: bool
) -> None:
    """A type that the default has by itself makes no difference; another one makes another file."""
    plan, plain = PrecisionPlan.deployment(default, io=io), PrecisionPlan.deployment(default)
    assert (plan.io, plan.io_type) == (io, io_type)
    assert (plan == plain) == equal
    assert len({plan, plain}) == (1 if equal else 2)
    assert through_json(plan).io == io
    assert plan.with_layers({"head": "float32"}).io == io


def test_the_order_of_layers_is_no_part_of_equality() -> None:
    """Two plans that name the same layers in another order are the same."""
    layers = {"stem": "float32", "head": "float16"}
    first, second = (
        PrecisionPlan.deployment("int8", dict(items)) for items in (layers.items(), [*layers.items()][::-1])
    )
    assert first == second
    assert hash(first) == hash(second)


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize(
    "duplicate",
    [lambda plan: pickle.loads(pickle.dumps(plan)), copy.copy, copy.deepcopy, through_json],
    ids=["pickle", "copy", "deepcopy", "json"],
)
def test_copies_are_equal(duplicate: Callable[[PrecisionPlan], PrecisionPlan], name: str) -> None:
    """Each way to copy a plan keeps everything, the reasons and the frozen mappings included."""
    plan = PLANS[name]
    twin = duplicate(plan)
    assert (twin, hash(twin), twin.reasons) == (plan, hash(plan), plan.reasons)
    assert type(twin.layers) is type(plan.layers)


@pytest.mark.parametrize("name", PLANS)
def test_a_saved_plan_loads(tmp_path: Path, name: str) -> None:
    """What is saved comes back, with its reasons."""
    path = tmp_path / "plan.json"
    assert PLANS[name].save(path) == path
    loaded = PrecisionPlan.load(path)
    assert (loaded, loaded.reasons) == (PLANS[name], PLANS[name].reasons)


def test_a_copy_with_other_layers() -> None:
    """``with_layers`` adds and replaces, and leaves the plan as it was."""
    plan = PrecisionPlan.deployment("int8", {"stem": "float32", "head": "float16"}, {"stem": "first layer"})
    other = plan.with_layers({"head": "int8", "body": "int4"}, {"body": "large"})
    assert other == PrecisionPlan.deployment("int8", {"stem": "float32", "head": "int8", "body": "int4"})
    assert other.reasons == {"stem": "first layer", "body": "large"}
    assert plan.layers == {"stem": "float32", "head": "float16"}


def test_patterns_become_exact_paths() -> None:
    """A pattern is matched against whole paths, once; it is the reason that the plan gives."""
    patterns = {"block_./conv": "int16x8", "head": "float32"}
    plan = PrecisionPlan.from_patterns(patterns, iter(PATHS), kind="deployment", default="int8")
    assert plan.layers == {"block_1/conv": "int16x8", "block_2/conv": "int16x8", "head": "float32"}
    assert plan.reasons["block_2/conv"] == "matches 'block_./conv'"
    assert (plan.kind, plan.default) == ("deployment", "int8")


@pytest.mark.parametrize(
    ("patterns", "error", "message"),
    [
        ({"tail": "int8"}, PlanError, "Received: 'tail', which matches none of 5 layers"),
        ({"hed": "int8"}, PlanError, "'hed', which matches none of 5 layers. Did you mean 'head'?"),
        ({"block_1": "int8"}, PlanError, "'block_1', which matches none of 5 layers. Did you mean 'block_1/norm'"),
        ({"block_1/.*": "int8", ".*/conv": "float32"}, PlanError, "'block_1/conv' is matched by 'block_1/.*' and by"),
        ({"block_(1": "int8"}, PlanError, "Expected a regular expression. Received: 'block_(1' (missing )"),
        ({"head": "int7"}, UnknownPrecisionError, "Expected layer 'head' to be one of the deployment precisions"),
    ],
)
def test_bad_patterns_are_refused(patterns: dict[str, str], error: type[PlanError], message: str) -> None:
    """A pattern must be valid, match a layer, and share none with another pattern."""
    with pytest.raises(error, match=re.escape(message)):
        PrecisionPlan.from_patterns(patterns, PATHS, kind="deployment", default="float32")


def test_each_layer_gets_a_precision() -> None:
    """``resolve`` keeps the order of the model, and gives the default where the plan is silent."""
    plan = PrecisionPlan.deployment("int8", {"head": "float32", "stem": "float16"})
    resolved = plan.resolve(iter(["stem", "body", "head"]))
    assert list(resolved.items()) == [("stem", "float16"), ("body", "int8"), ("head", "float32")]
    assert {path: plan.precision_of(path) for path in resolved} == resolved


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("block_1/convolution", r"Did you mean 'block_1/conv'"),
        ("xyz", r"kp\.layer_paths\(model\) lists them\."),
    ],
)
def test_an_unknown_layer_is_refused(path: str, hint: str) -> None:
    """A plan that names a layer which the model does not have is refused, with the nearest names."""
    with pytest.raises(UnknownLayerError, match=rf"names '{path}', which it does not have\. {hint}"):
        PrecisionPlan.deployment("int8", {path: "float32"}).resolve(PATHS)


@pytest.mark.parametrize(
    ("name", "kind", "verb"),
    [("training", "deployment", "kp.precision"), ("deployment", "training", "kp.export_tflite")],
)
def test_a_plan_of_the_other_kind_is_refused(name: str, kind: Any, verb: str) -> None:
    """A verb that takes plans of one kind names the verb that takes the other."""
    plan = PLANS[name]
    assert plan.expect(plan.kind) is plan
    message = f"Expected a {kind} plan. Received: a {name} plan, which is for {verb}"
    with pytest.raises(PlanKindError, match=re.escape(message)):
        plan.expect(kind)


@pytest.mark.parametrize(
    ("make", "precision", "known", "hint"),
    [
        (PrecisionPlan.training, "mixed_float61", TRAINING_PRECISIONS, "Did you mean 'mixed_float16'"),
        (PrecisionPlan.training, "int8", TRAINING_PRECISIONS, "deployment precision: it is for kp.export_tflite."),
        (PrecisionPlan.deployment, "int88", DEPLOYMENT_PRECISIONS, "Did you mean 'int8'"),
        (
            PrecisionPlan.deployment,
            "mixed_float16",
            DEPLOYMENT_PRECISIONS,
            "training precision: it is for kp.precision",
        ),
        (PrecisionPlan.deployment, "xyz", DEPLOYMENT_PRECISIONS, ""),
        (PrecisionPlan.deployment, None, DEPLOYMENT_PRECISIONS, ""),
    ],
)
@pytest.mark.parametrize(
    ("place", "what"),
    [(lambda value: (value,), "the default"), (lambda value: ("float32", {"head": value}), "layer 'head'")],
    ids=["default", "layer"],
)
def test_an_unknown_precision_is_refused(
    make: Callable[..., PrecisionPlan],
    precision: Any,
    known: tuple[str, ...],
    hint: str,
    place: Callable[[Any], tuple[Any, ...]],
    what: str,
) -> None:
    """The message says where it stands, lists what is known, and names the verb or the nearest names."""
    kind = "training" if make == PrecisionPlan.training else "deployment"
    start = f"Expected {what} to be one of the {kind} precisions {', '.join(known)}. Received: {precision!r}."
    with pytest.raises(UnknownPrecisionError, match=f"^{re.escape(start)}.*{re.escape(hint)}"):
        make(*place(precision))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("serving", "int8"), r"kind of a plan to be 'training' or 'deployment'\. Received: 'serving'"),
        (("training", "float32", {"": "float32"}), r"layer paths to be non-empty text\. Received: ''"),
        (("training", "float32", {3: "float32"}), r"layer paths to be non-empty text\. Received: 3\. See kp\.layer"),
        (("training", "float32", {}, {}, "float32"), r"Expected no io in a training plan.*Received: 'float32'"),
        (
            ("deployment", "int8", {}, {}, "int16"),
            r"io to be 'int8' or 'uint8' or 'float32' for a plan whose default is int8\. Rec",
        ),
        (
            ("deployment", "float32", {}, {}, "int8"),
            r"io to be 'float32' for a plan whose default is float32\. Received",
        ),
    ],
)
def test_a_wrong_plan_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    """A kind that does not exist and a path that is none are refused at once."""
    with pytest.raises(PlanError, match=message):
        PrecisionPlan(*arguments)


def changed(**fields: Any) -> str:
    """Return the file of a plan in which some fields are other ones; None removes a field."""
    document = {"format": "keras_precision.plan", "version": 1, **PLANS["training"].to_json(), **fields}
    return json.dumps({name: value for name, value in document.items() if value is not None})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("default: int8", "expected a JSON file of format 'keras_precision.plan'. Received: no valid JSON"),
        (changed()[:-20], "Is it damaged or cut off?"),
        ("", "Received: no valid JSON"),
        ("[" * 200_000, "Received: no valid JSON"),
        (changed().replace("1", "1" * 5000, 1), "Received: no valid JSON"),
        (changed().encode().replace(b"head", b"\x80"), "Received: no valid JSON"),
        ("[]", "expected a JSON object. Received: []."),
        (
            changed(format="keras_precision.result"),
            "'format' to be 'keras_precision.plan'. Received: 'keras_precision.r",
        ),
        (changed(format=None), "expected the field 'format' (text). Received: no such field."),
        (changed(version=2), "'version' to be between 1 and 1. Received: 2. A newer keras_precision may read it."),
        (changed(version=0), "'version' to be between 1 and 1. Received: 0."),
        (changed(version=True), "'version' to be a whole number. Received: True."),
        (changed(version="1"), "'version' to be a whole number. Received: '1'."),
        (changed(version=None), "expected the field 'version' (a whole number). Received: no such field."),
        (changed(default=None), "expected the field 'default' (text). Received: no such field."),
        (changed(kind=None), "expected the field 'kind' (text). Received: no such field."),
        (changed(layers=None), "expected the field 'layers' (an object). Received: no such field."),
        (
            changed(patterns={}),
            "expected only the fields format, version, kind, default, layers, reasons, io. Received: the ",
        ),
        (changed(default=8), "expected the field 'default' to be text. Received: 8."),
        (changed(layers=["head"]), "expected the field 'layers' to be an object. Received: ['head']."),
        (changed(layers={"head": 8}), "expected the field 'layers.head' to be text. Received: 8."),
        (changed(reasons={"head": []}), "expected the field 'reasons.head' to be text. Received: []."),
        (changed(kind="serving"), "kind of a plan to be 'training' or 'deployment'. Received: 'serving'."),
        (changed(default="int8"), "Expected the default to be one of the training precisions"),
        (changed(layers={"head": "int3"}), "Expected layer 'head' to be one of the training precisions"),
        (changed(default=["x" * 99]), f"'default' to be text. Received: ['{'x' * 55}...."),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_file_that_is_no_plan_is_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    """The message names the file, the field, what was expected and what stands there."""
    path = tmp_path / "plan.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(FileFormatError, match=f"^{re.escape(str(path))}: .*{re.escape(message)}"):
        PrecisionPlan.load(path)


def test_reasons_may_be_absent(tmp_path: Path) -> None:
    """A plan written by hand needs no reasons."""
    path = tmp_path / "plan.json"
    path.write_text(changed(reasons=None))
    assert PrecisionPlan.load(path) == PLANS["training"]


def test_a_file_that_does_not_exist_is_not_found(tmp_path: Path) -> None:
    """A missing file is a missing file, not a damaged one."""
    with pytest.raises(FileNotFoundError, match=r"plan\.json"):
        PrecisionPlan.load(tmp_path / "plan.json")
