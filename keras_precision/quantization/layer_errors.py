"""quantization_report: the error of every layer of a quantized file, against the float file on the same samples."""

import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision._adapters import adapter_of
from keras_precision._adapters.data.samples import read_samples
from keras_precision.core.channel_errors import ChannelErrors
from keras_precision.core.environment import Environment
from keras_precision.core.errors import FileFormatError
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Measurement, Result
from keras_precision.core.system.captured_output import capture_output
from keras_precision.quantization.calibration import calibrate
from keras_precision.quantization.layer_trace import OperatorLayers, layers_of
from keras_precision.quantization.range_estimators import FIXED_RANGES
from keras_precision.quantization.tensor_statistics import TensorStatistics
from keras_precision.runtimes.card import card
from keras_precision.runtimes.model_info import EdgeModel, Tensor
from keras_precision.runtimes.tflite.file import input_details, inspect, interpreter, tensor_of
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["quantization_report"]

Array = npt.NDArray[Any]

_SAMPLES = 128
_OUTLIER = 8.0  # times the median magnitude of a tensor's channels, which costs the others 3 of 8 bits
_BEFORE_EXP = ("SOFTMAX", "LOGISTIC", "LOG_SOFTMAX")
_FIXED_OUTPUTS = (*FIXED_RANGES, "LOG_SOFTMAX", "L2_NORMALIZATION")


def quantization_report(
    model: Any, path: str | os.PathLike[str], x: Any, *, samples: int = _SAMPLES, verbose: bool | None = None
) -> Result:
    """Compare a quantized file with the float model, layer by layer, on the same samples.

    Every tensor is compared with its float counterpart. The error of a layer includes those of
    earlier layers: ``snr_loss_db`` is what the layer itself adds.

    Args:
        model: The model that the file was exported from, with the weights that it had.
        path: A ``.tflite`` file with integer activations, which ``kp.export_tflite`` wrote.
        x: Samples that the file was not calibrated on, in any form that ``kp.calibrate`` takes.
        samples: The number of samples, evenly spaced, on which both are compared; ranges are measured on all.
        verbose: Whether to draw a progress bar; None: only for long runs on a terminal.

    Returns:
        Per layer, in the order in which they run: ``snr_db``, ``snr_loss_db`` and ``cosine``;
        the range that the file represents (``range_low``, ``range_high``), the range of the data
        (``seen_low``, ``seen_high``), the ``clipped_share`` of the data outside the range, and the ``filled_share`` of
        the range, by all tensors that have the same scale because an operator needs it; ``channels``, and of
        these ``dead_channels`` and ``outlier_channels``; ``exp_input_step`` of a softmax or
        sigmoid. Of each channel of an output, as ``"layer[channel]"``: ``channel_snr_db`` and
        ``channel_spread``. Of the file: ``calibration_samples``, where its card has the number.
        ``quantization_findings`` judges the result. The plan is that of the file's card, if it has one.

    Raises:
        FileFormatError: The file is damaged.
        DataError: The samples do not fit the model.
        ModelError: The model is subclassed or not built.
        ExportError: The model cannot be converted.
        MissingExtraError: TensorFlow, the interpreter or its tools are not installed.

    Example:
        >>> import keras_precision as kp
        >>> written = kp.export_tflite(model, "model.tflite", "int8", x_cal)
        >>> report = quantization_report(model, "model.tflite", x_test)
        >>> report.value("snr_db", "dense") > 20
        True
    """
    inspect(path)
    inputs = adapter_of(model).inputs(model)
    data = read_samples(x, inputs)
    recorded, plan = _card_rows(path)
    calibration = calibrate(
        model,
        tuple(data[model_input.name] for model_input in inputs),
        cross_layer_equalization="equalized_pairs" in recorded,
        verbose=verbose,
    )
    source, content = calibration.float_file, Path(path).read_bytes()
    count = len(next(iter(data.values())))
    indices = np.linspace(0, count - 1, min(samples, count)).astype(int)
    with capture_output("interpreter"):
        errors = _tensor_errors(source.content, content, {name: array[indices] for name, array in data.items()})
    parts = _layer_parts(Flatbuffer(source.content), layers_of(_inspected(source.content), source.trace))
    filled = _filled_shares(Flatbuffer(content), {name: each.tensor for name, each in errors.items()}, calibration.seen)
    rows = [
        row for part in parts if part.output in errors for row in _layer_rows(part, errors, calibration.seen, filled)
    ]
    rows += [row for name in errors for row in _output_rows(name, errors[name], parts)]
    file_rows = [row for row in recorded.values() if row.metric == "calibration_samples"]
    environment = Environment.here(
        backend=inspect(path).runtime,
        sources={
            "snr_db": f"{len(indices)} samples, all tensors, without delegates",
            "clipped_share": f"{count} samples",
        },
    )
    return Result(f"layers of {Path(path).name}", (*file_rows, *rows), environment, plan)


@dataclass
class _LayerPart:
    """The operators of one layer.

    Attributes:
        name: The layer's path; the name of a tensor where the operator belongs to no layer.
        output: The output of the last operator.
        written: The outputs of all operators.
        reads: The inputs of all operators, in order.
        before_exp: The input of a softmax or sigmoid among them; empty where there is none.
    """

    name: str
    output: str = ""
    written: set[str] = field(default_factory=set)
    reads: list[str] = field(default_factory=list)
    before_exp: str = ""


def _layer_parts(graph: Flatbuffer, operator_layers: OperatorLayers) -> list[_LayerPart]:
    """Return the layers, in the order of their first operators."""
    parts: dict[str, _LayerPart] = {}
    for operator, layers in zip(graph.operators, operator_layers, strict=True):
        output = graph.name(int(operator.outputs[0]))
        name = layers[-1] if layers else output
        part = parts.setdefault(name, _LayerPart(name))
        reads = [graph.name(int(number)) for number in operator.inputs if number >= 0]
        part.output = output
        part.written.add(output)
        part.reads += reads
        if graph.kernel(operator) in _BEFORE_EXP:
            part.before_exp = reads[0]
    return list(parts.values())


def _card_rows(path: str | os.PathLike[str]) -> tuple[dict[str, Measurement], PrecisionPlan | None]:
    """Return what the card of a file records of its calibration, by metric, and its plan."""
    try:
        result = card(path)
    except FileFormatError:  # another program wrote the file
        return {}, None
    kinds = ("calibration_samples", "equalized_pairs")
    return {row.metric: row for row in result.measurements if row.metric in kinds}, result.plan


def _range(tensor: Tensor) -> tuple[float, float]:
    """Return the smallest and the largest real number that a quantized tensor represents."""
    limits = np.iinfo(tensor.dtype)
    return (int(limits.min) - tensor.zero_point) * tensor.scale, (int(limits.max) - tensor.zero_point) * tensor.scale


def _inspected(content: bytes) -> EdgeModel:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(content)
        return inspect(path)


@dataclass
class _TensorErrors:
    """Sums over all values of one tensor: r of the float run, q of the quantized run, as real numbers.

    Attributes:
        tensor: Its form in the quantized file.
        reference: The sum of r^2.
        quantized: The sum of q^2.
        product: The sum of r q.
        noise: The sum of (r - q)^2.
        values: Of an output, both in full; None of other tensors.
    """

    tensor: Tensor
    reference: float = 0.0
    quantized: float = 0.0
    product: float = 0.0
    noise: float = 0.0
    values: tuple[list[Array], list[Array]] | None = None

    def update(self, reference: Array, quantized: Array) -> None:
        """Add the values of one sample in both runs."""
        if self.values is not None:
            self.values[0].append(reference)
            self.values[1].append(quantized)
        r, q = reference.astype(np.float64).ravel(), quantized.astype(np.float64).ravel()
        self.reference += float(r @ r)
        self.quantized += float(q @ q)
        self.product += float(r @ q)
        self.noise += float(np.square(r - q).sum())

    @property
    def snr_db(self) -> float:
        """``10 log10(sum r^2 / sum (r - q)^2)``."""
        if self.noise == 0:
            return math.inf
        return 10 * math.log10(self.reference / self.noise) if self.reference else -math.inf

    @property
    def cosine(self) -> float:
        """``sum r q / sqrt(sum r^2 sum q^2)``; 1 where both are all zeros."""
        if self.reference == self.quantized == 0:
            return 1.0
        if not self.reference or not self.quantized:
            return 0.0
        return self.product / math.sqrt(self.reference * self.quantized)


def _tensor_errors(plain: bytes, quantized: bytes, samples: Mapping[str, Array]) -> dict[str, _TensorErrors]:
    """Run both files sample by sample, and return the errors of all tensors that both compute, by name."""
    first, second = _interpreter(plain), _interpreter(quantized)
    float_tensors = {str(detail["name"]): detail for detail in _computed(first)}
    tensors = {str(detail["name"]): detail for detail in _computed(second)}
    pairs = [
        (name, detail, tensors[name])
        for name, detail in float_tensors.items()
        if name in tensors and _comparable(detail, tensors[name])
    ]
    outputs = {str(detail["name"]) for detail in first.get_output_details()}
    errors = {
        name: _TensorErrors(tensor_of(name, other), values=([], []) if name in outputs else None)
        for name, _, other in pairs
    }
    for number in range(len(next(iter(samples.values())))):
        for runner in (first, second):
            for name, detail in input_details(runner):
                values = samples[name][number : number + 1]
                runner.set_tensor(detail["index"], tensor_of(name, detail).quantize(values))
            runner.reset_all_variables()
            runner.invoke()
        for name, one, other in pairs:
            dequantized = errors[name].tensor.dequantize(second.get_tensor(other["index"]))
            errors[name].update(first.get_tensor(one["index"]), dequantized)
    return errors


def _interpreter(content: bytes) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(content)
        return interpreter(path, delegates=False, keep=True)


def _computed(runner: Any) -> list[Any]:
    """Return the details of the inputs, and of the tensors that an operator of the main graph writes."""
    # The interpreter lists its operators only in a private method:
    # https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/lite/python/interpreter.py.
    written = {int(index) for operator in runner._get_ops_details() for index in operator["outputs"]}
    written |= {detail["index"] for detail in runner.get_input_details()}
    return [detail for detail in runner.get_tensor_details() if detail["index"] in written]


def _comparable(one: Any, other: Any) -> bool:
    real = np.dtype(other["dtype"]).kind == "f" or other["quantization"][0] > 0
    same_size = math.prod(map(int, one["shape"])) == math.prod(map(int, other["shape"]))
    return np.dtype(one["dtype"]).kind == "f" and bool(real) and same_size


def _filled_shares(
    graph: Flatbuffer, tensors: Mapping[str, Tensor], statistics: Mapping[str, TensorStatistics]
) -> dict[str, float]:
    """Return the share of its range that the data fill, by tensor; tensors of one scale, as pooling has, fill it together.

    Tensors whose operator fixes the range are left out.
    """
    scaled = {name: tensor for name, tensor in tensors.items() if tensor.scale and name in statistics}
    groups = {name: {name} for name in scaled}
    fixed: set[str] = set()
    for operator in graph.operators:
        *inputs, output = [graph.name(int(number)) for number in (*operator.inputs, operator.outputs[0]) if number >= 0]
        fixed |= {output} if graph.kernel(operator) in _FIXED_OUTPUTS else set()
        for name in {output, *inputs} & scaled.keys():
            if output in scaled and _same_scale(scaled[name], scaled[output]):
                joined = groups[name] | groups[output]
                groups |= dict.fromkeys(joined, joined)
    shares = {}
    for name, tensor in scaled.items():
        values = [statistics[member].values for member in groups[name]]
        low, high = _range(tensor)
        filled = max(0.0, *(each.maximum for each in values)) - min(0.0, *(each.minimum for each in values))
        if not groups[name] & fixed and high > low:
            shares[name] = filled / (high - low)
    return shares


def _same_scale(one: Tensor, other: Tensor) -> bool:
    return (one.scale, one.zero_point, one.dtype) == (other.scale, other.zero_point, other.dtype)


def _layer_rows(
    part: _LayerPart,
    errors: Mapping[str, _TensorErrors],
    statistics: Mapping[str, TensorStatistics],
    filled: Mapping[str, float],
) -> Iterator[Measurement]:
    subject, own = part.name, errors[part.output]
    yield Measurement(subject, "snr_db", own.snr_db)
    before = [errors[name].snr_db for name in part.reads if name in errors and name not in part.written]
    if before:
        yield Measurement(subject, "snr_loss_db", min(before) - own.snr_db if np.isfinite(own.snr_db) else 0.0)
    yield Measurement(subject, "cosine", own.cosine)
    data = statistics.get(part.output)
    if data is not None:
        yield Measurement(subject, "seen_low", data.values.minimum)
        yield Measurement(subject, "seen_high", data.values.maximum)
        yield from _channel_rows(subject, data)
    if own.tensor.scale:
        low, high = _range(own.tensor)
        yield Measurement(subject, "range_low", low)
        yield Measurement(subject, "range_high", high)
        if data is not None:
            half = own.tensor.scale / 2  # values this close are rounded, not clipped
            yield Measurement(subject, "clipped_share", data.values.outside(low - half, high + half))
        if part.output in filled:
            yield Measurement(subject, "filled_share", filled[part.output])
    if part.before_exp in errors and errors[part.before_exp].tensor.scale:
        yield Measurement(subject, "exp_input_step", errors[part.before_exp].tensor.scale)


def _output_rows(name: str, errors: _TensorErrors, parts: list[_LayerPart]) -> Iterator[Measurement]:
    """Yield the error of each channel of an output, under the name of the layer that writes it."""
    if errors.values is not None:
        layer = next((part.name for part in parts if name in part.written), name)
        yield from ChannelErrors.of(layer, *map(np.concatenate, errors.values)).rows()


def _channel_rows(subject: str, data: TensorStatistics) -> Iterator[Measurement]:
    magnitudes: Array = np.maximum(np.abs(data.low), np.abs(data.high))
    alive = magnitudes[magnitudes > 0]
    outliers = int(np.count_nonzero(magnitudes > _OUTLIER * np.median(alive))) if alive.size else 0
    yield Measurement(subject, "channels", int(magnitudes.size))
    yield Measurement(subject, "dead_channels", int(magnitudes.size - alive.size))
    yield Measurement(subject, "outlier_channels", outliers)
