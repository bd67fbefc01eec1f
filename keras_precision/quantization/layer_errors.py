"""quantization_report: what each layer of a quantized file puts out, against the float run on the same samples."""

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
from keras_precision.core.environment import Environment
from keras_precision.core.errors import FileFormatError
from keras_precision.core.result import Measurement, Result
from keras_precision.core.system.captured_output import captured
from keras_precision.quantization.calibration import calibrate
from keras_precision.quantization.layer_trace import Layers, layers_of
from keras_precision.quantization.paired_runs import Errors, paired_errors
from keras_precision.quantization.tensor_statistics import Seen
from keras_precision.runtimes.card import card
from keras_precision.runtimes.model_info import EdgeModel, Tensor
from keras_precision.runtimes.tflite.file import inspect
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

__all__ = ["quantization_report"]

Array = npt.NDArray[Any]

_SAMPLES = 128
_FAR = 8.0  # times the median reach of a tensor's channels: there, 3 of 8 bits of the others are lost
_BEFORE_EXP = ("SOFTMAX", "LOGISTIC", "LOG_SOFTMAX")


def quantization_report(
    model: Any, path: str | os.PathLike[str], x: Any, *, samples: int = _SAMPLES, verbose: bool | None = None
) -> Result:
    """Run a quantized file beside the float model, layer by layer, and say what each layer loses.

    Both see the same samples; every tensor is kept, and compared with its float counterpart. Errors
    of earlier layers are in those of later ones: ``snr_loss_db`` is what a layer adds.

    Args:
        model: The model that the file was made from, with the weights that it had.
        path: A ``.tflite`` file with integer activations, which ``kp.export_tflite`` wrote.
        x: Samples that the file was not calibrated on, in any form that ``kp.calibrate`` takes.
        samples: How many are run through both, evenly spread; ranges are taken on all of them.
        verbose: Whether to draw a progress bar; None: where it takes long, on a terminal.

    Returns:
        For each layer, in the order in which they run: ``snr_db``, ``snr_loss_db`` and ``cosine``;
        the range that the file represents (``range_low``, ``range_high``), what the data took
        (``seen_low``, ``seen_high``) and the ``clipped_share`` between both; ``channels``, and of
        these ``dead_channels`` and ``outlier_channels``; ``exp_input_step`` of a softmax or
        sigmoid. Of the file: ``calibration_samples``, where it tells them.
        ``quantization_findings`` judges it.

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
    given = read_samples(x, inputs)
    told = _told(path)
    measured = calibrate(
        model,
        tuple(given[each.name] for each in inputs),
        cross_layer_equalization="equalized_pairs" in told,
        verbose=verbose,
    )
    source, content = measured.float_file, Path(path).read_bytes()
    count = len(next(iter(given.values())))
    kept = np.linspace(0, count - 1, min(samples, count)).astype(int)
    with captured("interpreter"):
        errors = paired_errors(source.content, content, {name: array[kept] for name, array in given.items()})
    owners = layers_of(_read_back(source.content), source.trace)
    parts = _parts(Flatbuffer(source.content), owners)
    listed = [row for part in parts if part.output in errors for row in _layer_rows(part, errors, measured.seen)]
    known = [row for row in told.values() if row.metric == "calibration_samples"]
    environment = Environment.here(
        backend=inspect(path).runtime,
        sources={
            "snr_db": f"{len(kept)} samples, every tensor kept, without delegates",
            "clipped_share": f"{count} samples",
        },
    )
    return Result(f"layers of {Path(path).name}", (*known, *listed), environment)


@dataclass
class _Part:
    """The operators of one layer.

    Attributes:
        name: The layer's path; a tensor's name where no layer claims the operator.
        output: The tensor that the last of them writes.
        written: All that they write.
        reads: What they read, in order.
        before_exp: What a softmax or sigmoid among them reads; empty where there is none.
    """

    name: str
    output: str = ""
    written: set[str] = field(default_factory=set)
    reads: list[str] = field(default_factory=list)
    before_exp: str = ""


def _parts(graph: Flatbuffer, owners: Layers) -> list[_Part]:
    """The layers, in the order in which they begin."""
    found: dict[str, _Part] = {}
    for operator, layers in zip(graph.operators, owners, strict=True):
        output = graph.name(int(operator.outputs[0]))
        name = layers[-1] if layers else output
        part = found.setdefault(name, _Part(name))
        reads = [graph.name(int(number)) for number in operator.inputs if number >= 0]
        part.output = output
        part.written.add(output)
        part.reads += reads
        if graph.kernel(operator) in _BEFORE_EXP:
            part.before_exp = reads[0]
    return list(found.values())


def _told(path: str | os.PathLike[str]) -> dict[str, Measurement]:
    """What the file's card says of how it was made."""
    try:
        told = card(path)
    except FileFormatError:  # a file without a card, which another program wrote
        return {}
    return {row.metric: row for row in told.measurements if row.metric in ("calibration_samples", "equalized_pairs")}


def _range(tensor: Tensor) -> tuple[float, float]:
    """The smallest and the largest real number that a quantized tensor represents."""
    limits = np.iinfo(tensor.dtype)
    return (int(limits.min) - tensor.zero_point) * tensor.scale, (int(limits.max) - tensor.zero_point) * tensor.scale


def _read_back(content: bytes) -> EdgeModel:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(content)
        return inspect(path)


def _layer_rows(part: _Part, errors: Mapping[str, Errors], seen: Mapping[str, Seen]) -> Iterator[Measurement]:
    subject, own = part.name, errors[part.output]
    yield Measurement(subject, "snr_db", own.snr_db)
    before = [errors[name].snr_db for name in part.reads if name in errors and name not in part.written]
    if before:
        yield Measurement(subject, "snr_loss_db", min(before) - own.snr_db if np.isfinite(own.snr_db) else 0.0)
    yield Measurement(subject, "cosine", own.cosine)
    data = seen.get(part.output)
    if data is not None:
        yield Measurement(subject, "seen_low", data.values.minimum)
        yield Measurement(subject, "seen_high", data.values.maximum)
        yield from _channel_rows(subject, data)
    if own.tensor.scale:
        low, high = _range(own.tensor)
        yield Measurement(subject, "range_low", low)
        yield Measurement(subject, "range_high", high)
        if data is not None:
            half = own.tensor.scale / 2  # what lies so near is rounded, not clipped
            yield Measurement(subject, "clipped_share", data.values.outside(low - half, high + half))
    if part.before_exp in errors and errors[part.before_exp].tensor.scale:
        yield Measurement(subject, "exp_input_step", errors[part.before_exp].tensor.scale)


def _channel_rows(subject: str, data: Seen) -> Iterator[Measurement]:
    reach: Array = np.maximum(np.abs(data.low), np.abs(data.high))
    alive = reach[reach > 0]
    far = int(np.count_nonzero(reach > _FAR * np.median(alive))) if alive.size else 0
    yield Measurement(subject, "channels", int(reach.size))
    yield Measurement(subject, "dead_channels", int(reach.size - alive.size))
    yield Measurement(subject, "outlier_channels", far)
