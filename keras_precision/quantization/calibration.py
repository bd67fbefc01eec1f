"""Calibration: statistics of a model's activations on representative data, and the ranges estimated from them."""

import io
import itertools
import json
import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from keras_precision._adapters.data.samples import stream_samples
from keras_precision._adapters.model_view import ModelView
from keras_precision.core.environment import usable_cores
from keras_precision.core.errors import DataError, FileFormatError, InputError, ModelError
from keras_precision.core.formats.affine_integers import Range
from keras_precision.core.model_inputs import Input
from keras_precision.core.saved_value import SavedValue
from keras_precision.core.system.array_files import read_arrays
from keras_precision.core.system.json_documents import Fields, parse_document
from keras_precision.core.system.progress import progress
from keras_precision.quantization.equalization import check_equalization
from keras_precision.quantization.fidelity import check_equivalence
from keras_precision.quantization.float_model import FloatFile, float_file, weights_digest
from keras_precision.quantization.histogram import BINS, Histogram
from keras_precision.quantization.layer_trace import Trace
from keras_precision.quantization.range_estimators import check_method
from keras_precision.quantization.row_sample import RowSample
from keras_precision.quantization.tensor_recorder import TensorRecorder
from keras_precision.quantization.tensor_statistics import TensorStatistics
from keras_precision.quantization.weight_rounding import WeightRounding
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer, parse_flatbuffer
from keras_precision.runtimes.tflite.in_memory import predict_in_memory

__all__ = ["Calibration", "calibrate", "calibrate_view"]

Array = npt.NDArray[Any]

_SAMPLE_LIMITS = (256, 2**22)
"""How many samples, and numbers in all of them, a calibration stores at most."""


@dataclass(frozen=True)
class Calibration(SavedValue):
    """The result of ``calibrate``, for any number of exports of the same weights by any method.

    Attributes:
        float_file: The model in float32, on which the statistics were measured.
        samples: The number of samples.
        seen: Name of a tensor of the float file to the statistics of its values.
        held: A subset of the samples, by the name of the input: at most 256, evenly spaced.
        decided: Choices from running files on these samples, cached for the next plan.
        divergences: Precision, method, percentile, the number of samples, and whether biases are corrected and weights
            rounded by the second order, and dense layers have one scale for each output, to the divergence of such a file on these samples.
        rounded: Precision to the weights that were rounded for it on some of these samples.

    Example:
        >>> import keras_precision as kp
        >>> calibration = kp.calibrate(model, x_cal)
        >>> calibration.samples
        32
        >>> kp.export_tflite(model, "model.tflite", "int8", calibration).value("calibration_samples")
        32
    """

    _format: ClassVar[str] = "keras_precision.calibration"
    _version: ClassVar[int] = 3
    # Version 1 (2026-11): a zip archive: header.json, model.tflite, and NumPy arrays of all tensors.
    # Version 2 (2026-11): some of the samples, too.
    # Version 3 (2026-11): whether the float file was equalized.

    float_file: FloatFile = field(repr=False)
    samples: int
    seen: Mapping[str, TensorStatistics] = field(repr=False)
    held: Mapping[str, Array] = field(default_factory=dict, repr=False)
    decided: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    divergences: dict[tuple[str, str, float, int, bool, bool, bool], float | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    rounded: dict[str, WeightRounding] = field(default_factory=dict, init=False, repr=False, compare=False)
    _estimated: dict[tuple[str, float], dict[str, Range]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @cached_property
    def predictions(self) -> list[Array]:
        """The float file's outputs for the samples in the calibration, one array per output."""
        return predict_in_memory(self.float_file.content, self.held, usable_cores())

    def ranges(self, method: str = "mse", *, percentile: float = 99.99) -> dict[str, Range]:
        """Return the range in which every activation is to be quantized.

        Args:
            method: ``"mse"`` (the least mean squared error of rounding and clipping; before a softmax,
                the least change of its outputs), ``"minmax"``, ``"percentile"`` or ``"entropy"``.
            percentile: For that method: the share of values, in percent, within either end.

        Returns:
            Name of a tensor of the float file to the lower and the upper end of its range.

        Raises:
            InputError: The method is unknown, or the percentile out of range.
        """
        check_method(method, percentile)
        if (method, percentile) not in self._estimated:  # every plan asks for the same ranges
            ranges = {name: statistics.range(method, percentile) for name, statistics in self.seen.items()}
            self._estimated[method, percentile] = ranges
        return dict(self._estimated[method, percentile])

    def inputs(self) -> dict[str, TensorStatistics]:
        """Return the statistics of the representative data.

        Returns:
            Name of an input of the model to the statistics of its values; integer inputs are left out.
        """
        graph = parse_flatbuffer(self.float_file.content)
        names = {graph.name(number): name for name, number in graph.named_inputs().items()}
        return {names[tensor]: statistics for tensor, statistics in self.seen.items() if tensor in names}

    def expect(self, model: Any) -> Self:
        """Return this calibration if it was measured on the current weights of a model.

        Args:
            model: The model to export.

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
        """Return this calibration if its ranges are those of the model itself, not of an equalized file.

        Args:
            model: The model whose tensors get these ranges.

        Returns:
            The calibration itself.

        Raises:
            ModelError: It was measured on other weights.
            InputError: It was measured with cross-layer equalization, which scales tensors.
        """
        if self.float_file.equalized_pairs is not None:
            raise InputError(
                "Expected a calibration without cross_layer_equalization, which only TensorFlow Lite files support. "
                f"Received: one with it. Calibrate '{model.name}' again: kp.calibrate(model, representative_dataset)."
            )
        return self.expect(model)

    def to_bytes(self) -> bytes:
        """Return the content of the file that ``save`` writes, the float file included.

        Returns:
            A zip archive.
        """
        arrays: dict[str, Array] = {}
        rows = []
        for index, (name, statistics) in enumerate(self.seen.items()):
            values = statistics.values
            rows.append([name, values.minimum, values.maximum, values.exponent, values.zeros, statistics.rows])
            arrays[f"{index}_bins"] = np.stack([values.above, values.below])
            arrays[f"{index}_channels"] = np.stack([statistics.low, statistics.high, statistics.total])
            if statistics.samples is not None:
                arrays[f"{index}_rows"] = statistics.samples.rows
        arrays |= {f"held_{number}": values for number, values in enumerate(self.held.values())}
        header = {
            "format": self._format,
            "version": self._version,
            "samples": self.samples,
            "digest": self.float_file.digest,
            "trace": self.float_file.trace.to_json(),
            "tensors": rows,
            "held": list(self.held),
            "equalized_pairs": self.float_file.equalized_pairs,
        }
        content, packed = io.BytesIO(), io.BytesIO()
        np.savez_compressed(packed, **arrays)  # type: ignore[arg-type] # its stub reads every keyword as an option
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("header.json", json.dumps(header))
            archive.writestr("model.tflite", self.float_file.content)
            archive.writestr("arrays.npz", packed.getvalue(), zipfile.ZIP_STORED)
        return content.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, path: str | os.PathLike[str]) -> Self:
        """Return the calibration with the content of a file, as ``SavedValue`` says."""
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                header, model = archive.read("header.json"), archive.read("model.tflite")
                arrays, _ = read_arrays(archive.read("arrays.npz"))
        except (zipfile.BadZipFile, zlib.error, LookupError, ValueError, EOFError, OSError, RuntimeError) as error:
            raise FileFormatError(
                f"{path}: expected a calibration that save wrote. Received: a damaged or foreign file ({error})."
            ) from error
        fields = parse_document(header, path, cls._format, cls._version)
        try:
            return cls._from_parts(fields, model, arrays)
        except (LookupError, ValueError, TypeError, OverflowError) as error:
            raise FileFormatError(
                f"{path}: expected the tensors of a calibration. Received: damaged ones ({error})."
            ) from error

    @classmethod
    def _from_parts(cls, fields: Fields, model: bytes, arrays: Mapping[str, Array]) -> Self:
        graph, version = parse_flatbuffer(model), fields.get("version", int)
        graph.check()
        statistics = dict(_read_statistics(fields, arrays))
        unknown = statistics.keys() - {graph.name(number) for number in graph.activations()}
        if unknown:
            raise ValueError(f"a tensor '{unknown.pop()}' that its model does not have")
        names = fields.text_list("held") if version > 1 else ()
        samples = {name: arrays[f"held_{number}"] for number, name in enumerate(names)}
        if any(values.dtype.kind not in "biuf" for values in samples.values()):
            raise ValueError("samples that are no numbers")
        pairs = fields.get("equalized_pairs", (int, type(None))) if version > 2 else None
        source = FloatFile(
            model,
            Trace.from_json(Fields(fields.get("trace", dict), f"{fields.source}: trace")),
            fields.get("digest", str),
            pairs,
        )
        return cls(source, fields.get("samples", int), statistics, samples)


def calibrate(
    model: Any,
    representative_dataset: Any,
    *,
    cross_layer_equalization: bool = False,
    input_signature: Any = None,
    verbose: bool | None = None,
) -> Calibration:
    """Run a model once on representative data, and record the statistics of its activations.

    The data are read in pieces, and values are counted in histograms, so that memory does not grow
    with the number of samples. An export estimates the ranges later, by any method.

    Args:
        model: A built model of tf_keras, or of Keras 3 on any backend; a subclassed one must have been called.
        representative_dataset: Samples as the inputs of the model: an array of shape (n, ...), one
            per input as a tuple or dict, or anything that ``fit`` takes (``tf.data``,
            ``PyDataset``, torch ``DataLoader``, generator; labels are dropped), or a function
            that yields lists of arrays.
        cross_layer_equalization: Scale channels between layers so that the weights on both sides have
            equal magnitudes; files that are exported from the calibration have these weights.
        input_signature: The sizes of inputs that the model leaves free, as for ``kp.export_tflite``; None: those of the data.
        verbose: Whether to draw a progress bar; None: only for long runs on a terminal.

    Returns:
        The calibration.

    Raises:
        InputError: ``cross_layer_equalization`` is neither True nor False.
        DataError: The data are missing or empty, or do not fit the model; or an activation is not finite.
        ModelError: The model is not built, or cannot be called on symbolic inputs.
        ExportError: The model cannot be converted, or its float file computes other outputs.
        MissingExtraError: TensorFlow or the interpreter is not installed.

    Example:
        >>> calibration = calibrate(model, x_cal)
        >>> low, high = list(calibration.ranges("minmax").values())[0]  # of the input
        >>> bool(low == x_cal.min() and high == x_cal.max())
        True
    """
    return calibrate_view(
        ModelView.callable(model, input_signature),
        representative_dataset,
        cross_layer_equalization=cross_layer_equalization,
        verbose=verbose,
    )


def calibrate_view(
    view: ModelView, representative_dataset: Any, *, cross_layer_equalization: bool = False, verbose: bool | None = None
) -> Calibration:
    """Calibrate a model that was looked at before, as ``calibrate`` does."""
    check_equalization(cross_layer_equalization)
    batches = stream_samples(representative_dataset, view.inputs)
    first = next(batches)  # data that do not fit are refused before the conversion
    view = view.with_shapes({name: array.shape[1:] for name, array in first.items()})
    source = float_file(view, equalize=cross_layer_equalization)
    check_equivalence(view, source.content, first)
    return _measure(source, itertools.chain([first], map(partial(_expect_sizes, view.inputs), batches)), verbose)


def _expect_sizes(inputs: Sequence[Input], batch: dict[str, Array]) -> dict[str, Array]:
    """Return a batch whose samples have the sizes of the file."""
    for model_input in inputs:
        sizes = batch[model_input.name].shape[1:]
        if sizes != model_input.shape:
            raise DataError(
                f"Expected samples of one size, {model_input.shape}, for '{model_input.name}', since a file has fixed sizes. "
                f"Received: {sizes}. Pad or cut them to one length."
            )
    return batch


def _measure(source: FloatFile, batches: Iterator[dict[str, Array]], verbose: bool | None) -> Calibration:
    graph = Flatbuffer(source.content)
    read = graph.read()  # the interpreter does not preserve outputs of loops that no operator reads
    names = {number: graph.name(number) for number in graph.activations() if number in read}
    recorder = TensorRecorder(source.content, list(names))
    softmax_inputs = {int(operator.inputs[0]) for operator in graph.operators if graph.kernel(operator) == "SOFTMAX"}
    statistics = {
        name: TensorStatistics(samples=RowSample() if number in softmax_inputs else None)
        for number, name in names.items()
    }
    count, subset = 0, _SampleSubset()

    def record(number: int, values: Array) -> None:
        try:
            statistics[names[number]].update(values)
        except DataError as error:
            raise _not_finite(source, names[number]) from error

    with progress("calibrating", "samples", verbose=verbose) as advance:
        for size in recorder.run(map(subset.pass_through, batches), record):
            count += size
            advance(size)
    return Calibration(source, count, statistics, subset.samples())


class _SampleSubset:
    """An evenly spaced subset of a stream of samples, the same samples for every input."""

    def __init__(self) -> None:
        self._rows: dict[str, RowSample] = {}
        self._templates: dict[str, Array] = {}

    def pass_through(self, batch: dict[str, Array]) -> dict[str, Array]:
        """Store some samples of a batch, and return the batch."""
        tables = {name: values.reshape(len(values), -1) for name, values in batch.items()}
        if not self._rows:
            numbers = sum(table.shape[1] for table in tables.values())
            count = max(2, min(_SAMPLE_LIMITS[0], _SAMPLE_LIMITS[1] // max(1, numbers)))
            self._rows = {name: RowSample(limits=(count, count * table.shape[1])) for name, table in tables.items()}
            self._templates = {name: values[:0] for name, values in batch.items()}
        for name, table in tables.items():
            self._rows[name].update(table)
        return batch

    def samples(self) -> dict[str, Array]:
        """Return the subset in the original shape and type."""
        return {
            name: self._rows[name].rows.reshape(-1, *template.shape[1:]).astype(template.dtype)
            for name, template in self._templates.items()
        }


def _not_finite(source: FloatFile, tensor: str) -> DataError:
    layer = next((path for part in tensor.split(";") if (path := source.trace.path_of(part))), tensor)
    return DataError(
        f"Expected finite activations. Received: NaN or infinity from the layer '{layer}', in float32, on the representative data. "
        "The model fails before any quantization: check its weights, and these samples."
    )


def _read_statistics(fields: Fields, arrays: Mapping[str, Array]) -> Iterator[tuple[str, TensorStatistics]]:
    for index, (name, minimum, maximum, exponent, zeros, count) in enumerate(fields.get("tensors", list)):
        bins = _numbers(arrays, f"{index}_bins", (2, BINS)).astype(np.int64)
        channels = _numbers(arrays, f"{index}_channels", (3, None))
        values = Histogram(float(minimum), float(maximum), int(exponent), bins[0], bins[1], int(zeros))
        ends = (values.minimum, values.maximum)
        is_counted = all(map(math.isfinite, ends)) and (bins.any() or ends == (0.0, 0.0))
        if bins.min() < 0 or not math.isfinite(values.width) or (values.count and not is_counted):
            raise ValueError(f"the range [{minimum}, {maximum}] of '{name}'")
        samples = RowSample(_numbers(arrays, f"{index}_rows", (None, None))) if f"{index}_rows" in arrays else None
        low, high = channels[:2].astype(np.float32)
        yield str(name), TensorStatistics(values, low, high, channels[2], int(count), samples)


def _numbers(arrays: Mapping[str, Array], name: str, shape: tuple[int | None, ...]) -> Array:
    """Return an array of finite numbers; None is any size."""
    array = arrays[name]
    sizes = zip(array.shape, shape, strict=True)
    if (
        array.dtype.kind not in "iuf"
        or any(expected not in (None, size) for size, expected in sizes)
        or not np.isfinite(array).all()
    ):
        raise ValueError(f"an array '{name}' of shape {array.shape} and {array.dtype}")
    return array
