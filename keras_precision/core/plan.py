"""PrecisionPlan: the precision of every layer of a model, as a value."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

from keras_precision.core.errors import (
    FileFormatError,
    PlanError,
    PlanKindError,
    UnknownLayerError,
    UnknownPrecisionError,
    nearest,
)
from keras_precision.core.formats import deployment
from keras_precision.core.saved_value import JsonValue
from keras_precision.core.system.json_documents import Fields

__all__ = ["DEPLOYMENT_PRECISIONS", "TRAINING_PRECISIONS", "Kind", "PrecisionPlan"]

Kind = Literal["training", "deployment"]

TRAINING_PRECISIONS: tuple[str, ...] = ("float32", "mixed_bfloat16", "mixed_float16")
"""Names of Keras dtype policies that a training plan may have."""

DEPLOYMENT_PRECISIONS: tuple[str, ...] = tuple(deployment.DEPLOYMENT_PRECISIONS)
"""Number formats that a deployment plan may have.

``int16x8`` has 16-bit activations and 8-bit weights, ``int4`` 4-bit weights and 8-bit activations,
``int8_dynamic`` 8-bit weights and activations that are quantized while the model runs.
"""

_KNOWN: dict[str, tuple[str, ...]] = {"training": TRAINING_PRECISIONS, "deployment": DEPLOYMENT_PRECISIONS}
_FUNCTIONS: dict[str, str] = {
    "training": "kp.precision or kp.set_precision, before the model is built",
    "deployment": "kp.export_tflite",
}


@dataclass(frozen=True, eq=False)
class PrecisionPlan(JsonValue):
    """A precision for every layer of a model: immutable, hashable, picklable, saved as JSON.

    Create one with ``PrecisionPlan.training`` (Keras policy names), ``PrecisionPlan.deployment``
    (number formats) or ``PrecisionPlan.from_patterns``. Two plans are equal if they assign the same
    precisions, and inputs and outputs have the same type; their reasons may differ.

    Attributes:
        kind: ``"training"`` or ``"deployment"``.
        default: The precision of every layer that ``layers`` does not name.
        layers: Layer path (as ``kp.layer_paths`` gives them) to precision.
        reasons: Layer path to why, in words.
        io: Element type of the inputs and outputs of a ``.tflite`` file: ``"float32"``, or that of the default's
            activations; None: the latter. Files of other formats have float32 in any case.

    Example:
        >>> plan = PrecisionPlan.deployment("int8", layers={"stem": "float32"})
        >>> plan.precision_of("stem"), plan.precision_of("body/conv")
        ('float32', 'int8')
    """

    _format: ClassVar[str] = "keras_precision.plan"
    _version: ClassVar[int] = 1
    # Version 1 (2026-11): kind, default, layers, reasons; io, where a plan has it.

    kind: Kind
    default: str
    layers: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    io: str | None = None

    def __post_init__(self) -> None:
        """Check every precision, and make the mappings immutable."""
        if self.kind not in _KNOWN:
            raise PlanError(f"Expected the kind of a plan to be 'training' or 'deployment'. Received: {self.kind!r}.")
        check_precision(self.default, self.kind, "the default")
        for path, precision in self.layers.items():
            if not isinstance(path, str) or not path:
                raise PlanError(
                    f"Expected layer paths to be non-empty text. Received: {path!r}. See kp.layer_paths(model)."
                )
            check_precision(precision, self.kind, f"layer '{path}'")
        self._check_io()
        object.__setattr__(self, "layers", MappingProxyType(dict(self.layers)))
        object.__setattr__(self, "reasons", MappingProxyType(dict(self.reasons)))

    def _check_io(self) -> None:
        if self.io is None:
            return
        if self.kind == "training":
            raise PlanError(
                f"Expected no io in a training plan, whose inputs have the types of the model. Received: {self.io!r}."
            )
        own = _activation_type(self.default)
        allowed = list(dict.fromkeys([own, *(["uint8"] if own == "int8" else []), "float32"]))
        if self.io not in allowed:
            raise PlanError(
                f"Expected io to be {' or '.join(map(repr, allowed))} for a plan whose default is {self.default}. Received: {self.io!r}."
            )

    @property
    def io_type(self) -> str:
        """Element type of the inputs and outputs of a ``.tflite`` file: ``io``, or that of the default's activations."""
        return self.io or ("float32" if self.kind == "training" else _activation_type(self.default))

    def __eq__(self, other: object) -> bool:
        """Compare what a plan does: an ``io`` that the default has by itself makes no difference."""
        if not isinstance(other, PrecisionPlan):
            return NotImplemented
        return self._decisions() == other._decisions()

    def __hash__(self) -> int:
        """Hash what equality compares."""
        return hash(self._decisions())

    def _decisions(self) -> tuple[str, str, frozenset[tuple[str, str]], str]:
        return self.kind, self.default, frozenset(self.layers.items()), self.io_type

    def __reduce__(self) -> tuple[type[Self], tuple[str, str, dict[str, str], dict[str, str], str | None]]:
        """Pickle and copy through plain dictionaries (a mapping proxy can do neither)."""
        return type(self), (self.kind, self.default, dict(self.layers), dict(self.reasons), self.io)

    @classmethod
    def training(
        cls, default: str = "float32", layers: Mapping[str, str] | None = None, reasons: Mapping[str, str] | None = None
    ) -> Self:
        """Create a plan of Keras policies, for models that are to be trained.

        Args:
            default: ``"float32"``, ``"mixed_bfloat16"`` or ``"mixed_float16"``.
            layers: Layer path to policy name, for the layers that differ.
            reasons: Layer path to why.

        Returns:
            The plan.

        Raises:
            UnknownPrecisionError: A precision is none of these.

        Example:
            >>> PrecisionPlan.training("mixed_float16", layers={"head": "float32"}).default
            'mixed_float16'
        """
        return cls("training", default, layers or {}, reasons or {})

    @classmethod
    def deployment(
        cls,
        default: str = "int8",
        layers: Mapping[str, str] | None = None,
        reasons: Mapping[str, str] | None = None,
        io: str | None = None,
    ) -> Self:
        """Create a plan of number formats, for models that are to be exported.

        Args:
            default: One of ``DEPLOYMENT_PRECISIONS``.
            layers: Layer path to number format, for the layers that differ.
            reasons: Layer path to why.
            io: Element type of inputs and outputs, as the attribute says.

        Returns:
            The plan.

        Raises:
            UnknownPrecisionError: A precision is none of these.
            PlanError: ``io`` does not go with the default.

        Example:
            >>> PrecisionPlan.deployment("int8").precision_of("anything")
            'int8'
        """
        return cls("deployment", default, layers or {}, reasons or {}, io)

    @classmethod
    def from_patterns(cls, patterns: Mapping[str, str], paths: Iterable[str], *, kind: Kind, default: str) -> Self:
        """Create a plan from regular expressions, resolved once against the layer paths of a model.

        Args:
            patterns: Regular expression, matched against the whole path, to precision.
            paths: The layer paths of the model, as ``kp.layer_paths(model)`` gives them.
            kind: ``"training"`` or ``"deployment"``.
            default: The precision of every layer that no pattern matches.

        Returns:
            A plan of exact paths; the patterns are its reasons.

        Raises:
            PlanError: A pattern is no regular expression, matches no layer, or matches a layer
                that another pattern matches too.

        Example:
            >>> plan = PrecisionPlan.from_patterns(
            ...     {"block_./.*": "int8"}, ["stem", "block_1/conv"], kind="deployment", default="float32"
            ... )
            >>> dict(plan.layers)
            {'block_1/conv': 'int8'}
        """
        names = list(paths)
        layers: dict[str, str] = {}
        matched_by: dict[str, str] = {}
        for pattern, precision in patterns.items():
            for path in _matches(pattern, names):
                if path in matched_by:
                    raise PlanError(
                        f"Expected a layer to be matched by one pattern only. Received: '{path}' is matched by "
                        f"'{matched_by[path]}' and by '{pattern}'. Narrow one of them."
                    )
                matched_by[path], layers[path] = pattern, precision
        return cls(kind, default, layers, {path: f"matches '{pattern}'" for path, pattern in matched_by.items()})

    def precision_of(self, path: str) -> str:
        """Return the precision that the layer at ``path`` gets.

        Args:
            path: A layer path.

        Returns:
            Its own precision, or the default.
        """
        return self.layers.get(path, self.default)

    def resolve(self, paths: Iterable[str]) -> dict[str, str]:
        """Return the precision of every layer of a model.

        Args:
            paths: The layer paths of the model.

        Returns:
            Path to precision, in the order of ``paths``.

        Raises:
            UnknownLayerError: The plan names a layer that is not among ``paths``.

        Example:
            >>> PrecisionPlan.training(layers={"head": "float32"}).resolve(["stem", "head"])
            {'stem': 'float32', 'head': 'float32'}
        """
        known = list(paths)
        for path in self.layers:
            if path not in known:
                hint = nearest(path, known) or "kp.layer_paths(model) lists them."
                raise UnknownLayerError(
                    f"Expected layers of the model. Received: a plan that names '{path}', which it does not have. {hint}"
                )
        return {path: self.precision_of(path) for path in known}

    def expect(self, kind: Kind) -> Self:
        """Return this plan if it is of ``kind``.

        Args:
            kind: The kind that the calling function takes.

        Returns:
            The plan itself.

        Raises:
            PlanKindError: It is of the other kind; the message names the function that takes it.
        """
        if self.kind != kind:
            raise PlanKindError(
                f"Expected a {kind} plan. Received: a {self.kind} plan, which is for {_FUNCTIONS[self.kind]}."
            )
        return self

    def with_layers(self, layers: Mapping[str, str], reasons: Mapping[str, str] | None = None) -> Self:
        """Return a copy in which some layers have another precision.

        Args:
            layers: Layer path to precision.
            reasons: Layer path to why.

        Returns:
            The new plan.
        """
        return replace(self, layers={**self.layers, **layers}, reasons={**self.reasons, **(reasons or {})})

    def to_json(self) -> dict[str, Any]:
        """Return the fields of the plan as JSON values.

        Returns:
            ``kind``, ``default``, ``layers`` and ``reasons``, and ``io`` unless it is None.
        """
        fields = {
            "kind": self.kind,
            "default": self.default,
            "layers": dict(self.layers),
            "reasons": dict(self.reasons),
        }
        return fields if self.io is None else {**fields, "io": self.io}

    @classmethod
    def from_json(cls, fields: Fields) -> Self:
        """Return the plan whose ``to_json`` wrote these fields.

        Args:
            fields: The fields of the JSON object.

        Returns:
            The plan.

        Raises:
            FileFormatError: A field is missing or unknown, or its value is not valid.
        """
        fields.refuse_others("format", "version", "kind", "default", "layers", "reasons", "io")
        kind = fields.get("kind", str)
        try:
            default, io = fields.get("default", str), fields.get("io", (str, type(None)), None)
            return cls(kind, default, fields.texts("layers"), fields.texts("reasons", {}), io)
        except PlanError as error:
            raise FileFormatError(f"{fields.source}: {error}") from error


def _activation_type(precision: str) -> str:
    return deployment.DEPLOYMENT_PRECISIONS[precision].activation_type


def check_precision(precision: object, kind: Kind, what: str) -> None:
    """Raise ``UnknownPrecisionError`` unless plans of ``kind`` can have ``precision``; messages call it ``what``."""
    if precision in _KNOWN[kind]:
        return
    other: Kind = "deployment" if kind == "training" else "training"
    known = ", ".join(_KNOWN[kind])
    if precision in _KNOWN[other]:
        hint = f"'{precision}' is a {other} precision: it is for {_FUNCTIONS[other]}."
    else:
        hint = nearest(str(precision), _KNOWN[kind])
    raise UnknownPrecisionError(
        f"Expected {what} to be one of the {kind} precisions {known}. Received: {precision!r}. {hint}".rstrip()
    )


def training_plan(plan: object) -> PrecisionPlan:
    """Return a training plan from a plan or the policy of all layers; raise for any other."""
    if not isinstance(plan, PrecisionPlan):
        check_precision(plan, "training", "the plan")
        plan = PrecisionPlan.training(str(plan))
    return plan.expect("training")


def _matches(pattern: str, paths: list[str]) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise PlanError(f"Expected a regular expression. Received: '{pattern}' ({error}).") from error
    matches = [path for path in paths if compiled.fullmatch(path)]
    if not matches:
        hint = nearest(pattern, paths)
        raise PlanError(
            f"Expected every pattern to match a layer. Received: '{pattern}', which matches none of {len(paths)} layers. {hint}".rstrip()
        )
    return matches
