"""Calibration: the values that a model's activations take on representative data, and the ranges chosen from them."""

import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from keras_precision._adapters import adapter_of
from keras_precision._adapters.data.samples import stream_samples
from keras_precision.core.errors import DataError, FileFormatError, InputError, ModelError
from keras_precision.core.formats.affine_integers import Range
from keras_precision.core.system.files import write_whole
from keras_precision.core.system.json_documents import Fields, parse_document
from keras_precision.core.system.progress import progress
from keras_precision.quantization.equalization import check_equalization
from keras_precision.quantization.fidelity import check_faithful
from keras_precision.quantization.float_model import FloatFile, float_file, weights_digest
from keras_precision.quantization.histogram import Histogram
from keras_precision.quantization.layer_trace import Trace
from keras_precision.quantization.range_estimators import check_method
from keras_precision.quantization.row_sample import Rows
from keras_precision.quantization.tensor_recorder import Observer
from keras_precision.quantization.tensor_statistics import Seen
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer, parsed

__all__ = ["Calibration", "calibrate"]

Array = npt.NDArray[Any]

_HELD = (256, 2**22)
"""Samples, and numbers in all of them, that are kept."""

_FORMAT, _VERSION = "keras_precision.calibration", 3
# Version 1 (2026-11): a zip archive: header.json, model.tflite, and NumPy arrays of all tensors.
# Version 2 (2026-11): some of the samples, too.
# Version 3 (2026-11): whether the float file was equalized.


@dataclass(frozen=True)
class Calibration:
    """Made by ``calibrate``: serves any number of exports of the same weights, and any method.

    Attributes:
        float_file: The model in float32, on which the values were measured.
        samples: How many samples were seen.
        seen: Name of a tensor of the float file to what it held.
        held: Some of the samples, by the name of the input: at most 256, spread evenly over all.
        decided: What was found out by running files on them, so that the next plan need not.

    Example:
        >>> import keras_precision as kp
        >>> calibration = kp.calibrate(model, x_cal)
        >>> calibration.samples
        32
        >>> kp.export_tflite(model, "model.tflite", "int8", calibration).value("calibration_samples")
        32
    """

    float_file: FloatFile = field(repr=False)
    samples: int
    seen: Mapping[str, Seen] = field(repr=False)
    held: Mapping[str, Array] = field(default_factory=dict, repr=False)
    decided: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    _chosen: dict[tuple[str, float], dict[str, Range]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def ranges(self, method: str = "mse", *, percentile: float = 99.99) -> dict[str, Range]:
        """Return the range in which each activation is to be quantized.

        Args:
            method: ``"mse"`` (the least mean squared error of rounding and clipping; before a softmax,
                the least change of its answers), ``"minmax"``, ``"percentile"`` or ``"entropy"``.
            percentile: For that method: the share of values, in percent, that each end keeps.

        Returns:
            Name of a tensor of the float file to the smallest and the largest value of its range.

        Raises:
            InputError: The method is unknown, or the percentile out of range.
        """
        check_method(method, percentile)
        if (method, percentile) not in self._chosen:  # the next plan asks for the same
            found = {name: each.range(method, percentile) for name, each in self.seen.items()}
            self._chosen[method, percentile] = found
        return dict(self._chosen[method, percentile])

    def inputs(self) -> dict[str, Seen]:
        """Return what was fed.

        Returns:
            Name of an input of the model to what it held; inputs that take integers are left out.
        """
        graph = parsed(self.float_file.content)
        names = {graph.name(number): name for name, number in graph.named_inputs().items()}
        return {names[tensor]: seen for tensor, seen in self.seen.items() if tensor in names}

    def expect(self, model: Any) -> Self:
        """Return this calibration if it was measured on a model's present weights.

        Args:
            model: The model that is to be exported.

        Returns:
            The calibration itself.

        Raises:
            ModelError: It was measured on other weights.
        """
        if weights_digest(model) != self.float_file.digest:
            raise ModelError(
                f"Expected a calibration of the present weights of '{model.name}'. Received: one of other weights. "
                "Calibrate again after training: kp.calibrate(model, representative_dataset)."
            )
        return self

    def expect_own_weights(self, model: Any) -> Self:
        """Return this calibration if its ranges hold for the model itself, not for an equalized file alone.

        Args:
            model: The model whose tensors are to have these ranges.

        Returns:
            The calibration itself.

        Raises:
            ModelError: It was measured on other weights.
            InputError: It was measured with cross-layer equalization, which scales tensors.
        """
        if self.float_file.equalized_pairs is not None:
            raise InputError(
                "Expected a calibration without cross_layer_equalization, which TensorFlow Lite files alone take. "
                f"Received: one with it. Calibrate anew: kp.calibrate('{model.name}', representative_dataset)."
            )
        return self.expect(model)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the calibration, and the float file that it belongs to.

        Args:
            path: Where it goes; its folder must exist.

        Returns:
            The path.

        Raises:
            DestinationError: The path cannot be written.
        """
        arrays: dict[str, Array] = {}
        rows = []
        for index, (name, each) in enumerate(self.seen.items()):
            values = each.values
            rows.append([name, values.minimum, values.maximum, values.exponent, values.zeros, each.rows])
            arrays[f"{index}_bins"] = np.stack([values.above, values.below])
            arrays[f"{index}_channels"] = np.stack([each.low, each.high, each.total])
            if each.samples is not None:
                arrays[f"{index}_rows"] = each.samples.kept
        arrays |= {f"held_{number}": values for number, values in enumerate(self.held.values())}
        header = {
            "format": _FORMAT,
            "version": _VERSION,
            "samples": self.samples,
            "digest": self.float_file.digest,
            "trace": self.float_file.trace.to_json(),
            "tensors": rows,
            "held": list(self.held),
            "equalized_pairs": self.float_file.equalized_pairs,
        }
        content, packed = io.BytesIO(), io.BytesIO()
        np.savez_compressed(packed, **arrays)  # type: ignore[arg-type] # its stub takes every keyword for an option
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("header.json", json.dumps(header))
            archive.writestr("model.tflite", self.float_file.content)
            archive.writestr("arrays.npz", packed.getvalue(), zipfile.ZIP_STORED)
        return write_whole(path, content.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a calibration that ``save`` wrote.

        Args:
            path: The file.

        Returns:
            The calibration.

        Raises:
            FileFormatError: The file is no calibration, or damaged.
            FileNotFoundError: There is no such file.
        """
        packed = io.BytesIO(Path(path).read_bytes())
        try:
            with zipfile.ZipFile(packed) as archive:
                header, content = archive.read("header.json"), archive.read("model.tflite")
                arrays = dict(np.load(io.BytesIO(archive.read("arrays.npz")), allow_pickle=False))
        except (zipfile.BadZipFile, zlib.error, LookupError, ValueError, EOFError, OSError, RuntimeError) as error:
            raise FileFormatError(
                f"{path}: expected a calibration that save wrote. Received: a damaged or foreign file ({error})."
            ) from error
        fields = parse_document(header, path, _FORMAT, _VERSION)
        try:
            seen = dict(_tensors(fields, arrays))
            trace = Trace.from_json(fields.get("trace", dict))
            names = fields.get("held", list) if fields.get("version", int) > 1 else []
            held = {str(name): arrays[f"held_{number}"] for number, name in enumerate(names)}
            pairs = fields.get("equalized_pairs", (int, type(None))) if fields.get("version", int) > 2 else None
        except (KeyError, ValueError, TypeError) as error:
            raise FileFormatError(
                f"{path}: expected the tensors of a calibration. Received: damaged ones ({error})."
            ) from error
        source = FloatFile(content, trace, fields.get("digest", str), pairs)
        return cls(source, fields.get("samples", int), seen, held)


def calibrate(
    model: Any, representative_dataset: Any, *, cross_layer_equalization: bool = False, verbose: bool | None = None
) -> Calibration:
    """Run a model on representative data, once, and keep what each of its activations takes.

    The data are read piece by piece, and values are counted in histograms, so that memory does
    not grow with the number of samples. The ranges are chosen later, by whichever method an
    export asks for.

    Args:
        model: A built functional or sequential model of tf_keras, or of Keras 3 on any backend.
        representative_dataset: Samples as the model is given them: an array of shape (n, ...), one
            per input as a tuple or dict, or anything that ``fit`` takes (``tf.data``,
            ``PyDataset``, torch ``DataLoader``, generator; labels are dropped), or a function
            that yields lists of arrays.
        cross_layer_equalization: Scale channels between layers so that their weights reach alike on
            both sides; the files that are exported from the calibration have these weights.
        verbose: Whether to draw a progress bar; None: where it takes long, on a terminal.

    Returns:
        The calibration.

    Raises:
        InputError: ``cross_layer_equalization`` is neither True nor False.
        DataError: The data are missing or empty, or do not fit the model; or it computes values that are not finite.
        ModelError: The model is subclassed or not built, or an input has a free size.
        ExportError: The model cannot be converted, or its float file does not answer as it does.
        MissingExtraError: TensorFlow or the interpreter is not installed.

    Example:
        >>> calibration = calibrate(model, x_cal)
        >>> low, high = list(calibration.ranges("minmax").values())[0]  # of the input
        >>> bool(low == x_cal.min() and high == x_cal.max())
        True
    """
    check_equalization(cross_layer_equalization)
    inputs = adapter_of(model).inputs(model)
    pieces = stream_samples(representative_dataset, inputs)
    first = next(pieces)  # data that do not fit are refused before any work is done
    source = float_file(model, equalize=cross_layer_equalization)
    check_faithful(model, source.content, first)
    return _measured(source, _again(first, pieces), verbose)


def _measured(source: FloatFile, pieces: Iterator[dict[str, Array]], verbose: bool | None) -> Calibration:
    graph = Flatbuffer(source.content)
    read = graph.read()  # what a loop leaves and nobody reads is not kept by the interpreter
    names = {number: graph.name(number) for number in graph.activations() if number in read}
    observer = Observer(source.content, list(names))
    before_softmax = {int(each.inputs[0]) for each in graph.operators if graph.kernel(each) == "SOFTMAX"}
    seen = {name: Seen(samples=Rows() if number in before_softmax else None) for number, name in names.items()}
    samples, held = 0, _Held()

    def look(number: int, values: Array) -> None:
        try:
            seen[names[number]].update(values)
        except DataError as error:
            raise _not_finite(source, names[number]) from error

    with progress("calibrating", "samples", verbose=verbose) as advance:
        for count in observer.run(map(held.passing, pieces), look):
            samples += count
            advance(count)
    return Calibration(source, samples, seen, held.samples())


class _Held:
    """Some of the samples that pass by, the same of each input."""

    def __init__(self) -> None:
        self._rows: dict[str, Rows] = {}
        self._like: dict[str, Array] = {}

    def passing(self, piece: dict[str, Array]) -> dict[str, Array]:
        """Keep some of a piece, and hand it on."""
        tables = {name: values.reshape(len(values), -1) for name, values in piece.items()}
        if not self._rows:
            numbers = sum(table.shape[1] for table in tables.values())
            count = max(2, min(_HELD[0], _HELD[1] // max(1, numbers)))
            self._rows = {name: Rows(most=(count, count * table.shape[1])) for name, table in tables.items()}
            self._like = {name: values[:0] for name, values in piece.items()}
        for name, table in tables.items():
            self._rows[name].update(table)
        return piece

    def samples(self) -> dict[str, Array]:
        """Return them in the shape and the type that they had."""
        return {
            name: self._rows[name].kept.reshape(-1, *like.shape[1:]).astype(like.dtype)
            for name, like in self._like.items()
        }


def _not_finite(source: FloatFile, tensor: str) -> DataError:
    layer = next((path for part in tensor.split(";") if (path := source.trace.path_of(part))), tensor)
    return DataError(
        f"Expected finite activations. Received: NaN or infinity from the layer '{layer}', in float32, on the representative data. "
        "The model is broken before any quantization: look at its weights, and at these samples."
    )


def _again(first: dict[str, Array], rest: Iterator[dict[str, Array]]) -> Iterator[dict[str, Array]]:
    yield first
    yield from rest


def _tensors(fields: Fields, arrays: Mapping[str, Array]) -> Iterator[tuple[str, Seen]]:
    for index, (name, minimum, maximum, exponent, zeros, rows) in enumerate(fields.get("tensors", list)):
        (above, below), (low, high, total) = arrays[f"{index}_bins"], arrays[f"{index}_channels"]
        values = Histogram(float(minimum), float(maximum), int(exponent), above, below, int(zeros))
        samples = Rows(arrays[f"{index}_rows"]) if f"{index}_rows" in arrays else None
        yield str(name), Seen(values, low.astype(np.float32), high.astype(np.float32), total, int(rows), samples)
