"""Core ML packages: read, and run on macOS."""

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.core.errors import FileFormatError
from keras_precision.core.system.captured_output import capture_output
from keras_precision.core.system.files import check_exists
from keras_precision.core.system.optional import require
from keras_precision.runtimes.model_info import CARD, EdgeModel, Tensor
from keras_precision.runtimes.session import RuntimeSession
from keras_precision.runtimes.tflite.operators import Operator

__all__ = ["CoremlSession", "coremltools", "inspect_coreml", "open_coreml"]

Array = npt.NDArray[Any]

_TYPES = {10: "float16", 11: "float32", 21: "int8", 22: "int16", 23: "int32", 24: "int64", 1: "bool"}
"""Element types of a program, by their numbers in MIL.proto."""
_FEATURES = {65568: "float32", 65552: "float16", 131104: "int32", 65600: "float64"}
"""Element types of inputs and outputs, by their numbers in FeatureTypes.proto."""
_WEIGHTED = ("conv", "conv_transpose", "linear", "matmul", "gather")
_PACKED = {"constexpr_affine_dequantize": "int8 linear", "constexpr_lut_to_dense": "int8 palettized"}
"""The operators that decompress weights, and how those are stored."""


def coremltools() -> Any:
    """Return the package, imported without its output and warnings."""
    with capture_output("coremltools"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that it imports, and of versions that it was not tested with
        return require("coremltools", extra="coreml")


def open_coreml(path: str | os.PathLike[str], *, load: bool = False) -> Any:
    """Open a ``.mlpackage`` folder with ``coremltools``; with ``load``, which needs macOS, it can be run."""
    tools = coremltools()
    check_exists(path, "a Core ML package")
    with capture_output("coremltools"):
        try:
            return tools.models.MLModel(os.fspath(path), skip_model_load=not load)
        except Exception as error:  # coremltools documents no types of errors
            raise FileFormatError(
                f"{path}: expected a Core ML package. Received: {type(error).__name__}: {error}"
            ) from error


def inspect_coreml(path: str | os.PathLike[str]) -> EdgeModel:
    """Read inputs, outputs, operators and card of a package, without running it.

    Example:
        >>> import keras_precision as kp
        >>> written = kp.export_coreml(model, "model.mlpackage", "float16")
        >>> inspect_coreml("model.mlpackage").operator_counts["matmul float16"]
        2
    """
    spec = open_coreml(path).get_spec()
    block = next(iter(spec.mlProgram.functions["main"].block_specializations.values()), None)
    if block is None:
        raise FileFormatError(f"{path}: expected a Core ML program. Received: a package with a model of another kind.")
    return EdgeModel(
        path=str(path),
        size_bytes=sum(file.stat().st_size for file in Path(path).rglob("*") if file.is_file()),
        runtime=f"coremltools {coremltools().__version__}",
        inputs=tuple(map(_tensor, spec.description.input)),
        outputs=tuple(map(_tensor, spec.description.output)),
        operators=tuple(_operators(block)),
        writers=(-1,) * len(spec.description.output),
        card=spec.description.metadata.userDefined.get(CARD, ""),
    )


class CoremlSession(RuntimeSession):
    """Core ML with one package, on macOS."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(inspect_coreml(path))
        self._opened = open_coreml(path, load=True)

    def run(self, sample: Sequence[Array]) -> list[Array]:
        """Run the model once, on one array per input."""
        pairs = zip(self.model.inputs, sample, strict=True)
        outputs = self._opened.predict({tensor.name: np.asarray(values, tensor.dtype) for tensor, values in pairs})
        return [np.asarray(outputs[tensor.name]) for tensor in self.model.outputs]


def _operators(block: Any) -> Iterator[Operator]:
    """The operators of a program, without constants and casts."""
    kinds: dict[str, str] = {}
    stored: dict[str, str] = {}
    writers: dict[str, int] = {}
    number = 0
    for operation in block.operations:
        outputs = [output.name for output in operation.outputs]
        kinds.update({out.name: _TYPES.get(out.type.tensorType.dataType, "other") for out in operation.outputs})
        arguments = [argument.arguments for argument in operation.inputs.values()]
        read = [binding.name for bindings in arguments for binding in bindings if binding.name]
        if operation.type == "const" or operation.type.startswith("constexpr"):
            stored.update(dict.fromkeys(outputs, _PACKED.get(operation.type, kinds[outputs[0]])))
            continue
        if operation.type == "cast":
            writers.update({name: writers[source] for name in outputs for source in read if source in writers})
            continue
        yield _operator(operation, read, kinds, stored, writers)
        writers.update(dict.fromkeys(outputs, number))
        number += 1


def _operator(
    operation: Any, read: Sequence[str], kinds: dict[str, str], stored: dict[str, str], writers: dict[str, int]
) -> Operator:
    constants = [stored[name] for name in read if stored.get(name) in (*_PACKED.values(), "float16", "float32")]
    weights = tuple(constants) if operation.type in _WEIGHTED else ()
    packed = [kind for kind in weights if kind in _PACKED.values()]
    written = kinds[operation.outputs[0].name]
    precision = "int8" if packed else written
    activations = [kinds.get(name, "?") for name in read if name not in stored]
    return Operator(
        kernel=operation.type,
        precision=precision if precision in ("int8", "float16", "float32") else "index",
        tensors=tuple(output.name for output in operation.outputs),
        reads=tuple(sorted({writers[name] for name in read if name in writers})),
        weights=weights,
        types=f"{','.join([*activations, *packed])}->{written}",
    )


def _tensor(feature: Any) -> Tensor:
    kind = feature.type.multiArrayType
    return Tensor(feature.name, tuple(int(size) for size in kind.shape), _FEATURES.get(kind.dataType, "float32"))
