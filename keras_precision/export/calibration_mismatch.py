"""The check that calibration data are what the first layers of a model expect, and like the validation data."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision._adapters.adapter import KerasAdapter
from keras_precision._adapters.data.labels import stream_labelled
from keras_precision._adapters.data.samples import is_in_memory, read_samples
from keras_precision._adapters.layer_paths import paths_of
from keras_precision._adapters.rebuild import in_float32
from keras_precision.core.system.captured_output import capture_output
from keras_precision.export.request import needs_ranges
from keras_precision.export.toolchain import ExportJob
from keras_precision.quantization.qat.trained_ranges import TrainedRanges

__all__ = ["calibration_mismatch"]

Array = npt.NDArray[Any]

_DECIDED = "calibration mismatch"  # the key of what was found, in Calibration.decided
_SAMPLES, _FEW, _MANY_NUMBERS = 32, 8, 4096  # fewer of large samples
_MANY_PER_CHANNEL = 256  # and of images, whose channels have many values each
_COMPARED = 256
_NORMS = 4  # batch normalizations from the front; what is behind them was normalized before
# By Chebyshev's inequality, at most 1 of 64 values is more than 8 deviations from the mean of its own distribution.
_FAR, _FAR_SHARE, _FAR_COUNT = 8.0, 0.05, 10
_NARROW = 1 / 8
# Rescaling gives about -1 to 1. Pixels that were scaled before, or not, are off by 127 or more.
_WIDE_RESCALED, _NARROW_RESCALED, _SHRINKING = 16.0, 1 / 32, 1 / 16
_CONVERGED = 0.5  # the share of their initial values that is left in moving statistics

_REMEDY = "Pass samples with the preprocessing of training as representative_dataset=, or to kp.calibrate."


def calibration_mismatch(job: ExportJob, validation: Any) -> str | None:
    """Return a warning where the samples that ranges come from are not what the model was made for; None if not known.

    ``validation`` are samples without labels, or batches with them; an iterator, which can be read once, is left alone.
    """
    if not needs_ranges(job.request.plan) or isinstance(job.calibration, TrainedRanges) or not job.samples:
        return None
    text = _against_layers(job) or _against_validation(job, validation)
    return f"The calibration data of '{job.model.name}' are not what it expects: {text}. {_REMEDY}" if text else None


def _against_layers(job: ExportJob) -> str:
    """Compare with the first layers, once per calibration; the first that does not fit, else no text."""
    decided = {} if job.calibration is None else job.calibration.decided
    if _DECIDED not in decided:
        decided[_DECIDED] = next(_layer_mismatches(job), "")
    return decided[_DECIDED]


def _layer_mismatches(job: ExportJob) -> Iterator[str]:
    adapter = job.view.adapter
    layers = adapter.keras.layers
    known: dict[type, Callable[[Any, Array], str | None]] = {
        layers.Rescaling: _rescaling_mismatch,
        layers.Normalization: _normalization_mismatch,
        layers.BatchNormalization: _moving_statistics_mismatch,
    }
    if not any(isinstance(layer, tuple(known)) for layer in job.view.layers.values()):
        return
    with capture_output("Keras"):
        exact = in_float32(adapter, job.model)
    paths = {id(layer): path for path, layer in paths_of(adapter, exact).items()}
    iterations = _training_steps(job.model)
    for layer, outputs in _first_outputs(adapter, exact, tuple(known), [*map(job.samples.__getitem__, _names(job))]):
        kind = next(kind for kind in known if isinstance(layer, kind))
        if kind is layers.BatchNormalization and iterations and layer.momentum**iterations > _CONVERGED:
            continue
        text = known[kind](layer, outputs)
        if text:
            yield f"{text} '{paths.get(id(layer), layer.name)}'"


def _names(job: ExportJob) -> list[str]:
    return [model_input.name for model_input in job.view.inputs]


def _training_steps(model: Any) -> int:
    """Steps that were trained since the model was compiled; 0 where that is not known."""
    optimizer = getattr(model, "optimizer", None)
    return 0 if optimizer is None else int(optimizer.iterations)


def _first_outputs(
    adapter: KerasAdapter, model: Any, kinds: tuple[type, ...], inputs: list[Array]
) -> list[tuple[Any, Array]]:
    """Run samples, and return the first normalizing layers with their outputs, in the order of the calls.

    ``Rescaling`` and ``Normalization`` count in front of the first weights alone: behind them, as in residual branches,
    nothing is known of their inputs. Samples run one by one: a shape inside the model may be that of one sample.
    """
    outputs: dict[int, tuple[Any, list[Array]]] = {}
    norm = adapter.keras.layers.BatchNormalization
    in_front = True

    def watch(layer: Any, proceed: Callable[[], Any]) -> Any:
        nonlocal in_front
        result = proceed()
        if isinstance(layer, norm) or (isinstance(layer, kinds) and in_front):
            outputs.setdefault(id(layer), (layer, []))[1].extend(adapter.flat_arrays(result))
        elif layer.weights and not adapter.is_model(layer):
            in_front = False
        return result

    numbers = sum(values[0].size for values in inputs)
    per_channel = min(values[0].size / values.shape[-1] if values.ndim > 1 else 1 for values in inputs)
    count = _FEW if numbers > _MANY_NUMBERS or per_channel >= _MANY_PER_CHANNEL else _SAMPLES
    steps = [max(1, len(values) // count) for values in inputs]
    few = [values[::step][:count] for values, step in zip(inputs, steps, strict=True)]
    with adapter.watching_calls(watch), np.errstate(all="ignore"):
        for number in range(len(few[0])):
            in_front = True
            adapter.answers(model, [values[number : number + 1] for values in few])
    observed = [(layer, np.concatenate(parts).astype(np.float64)) for layer, parts in outputs.values()]
    norms = [pair for pair in observed if isinstance(pair[0], norm)]
    return [*(pair for pair in observed if not isinstance(pair[0], norm)), *norms[:_NORMS]]


def _weights(layer: Any) -> dict[str, Array]:
    """The weights of a layer by their own names: tf_keras puts that of the layer before them."""
    names = (str(weight.name).partition(":")[0].rpartition("/")[2] for weight in layer.weights)
    return dict(zip(names, layer.get_weights(), strict=True))


def _is_untouched(mean: Array, variance: Array) -> bool:
    """Whether statistics are those from before any training or adaption."""
    return bool(np.all(mean == 0) and np.all(variance == 1))


def _rescaling_mismatch(layer: Any, outputs: Array) -> str | None:
    """Outputs far beyond -1 to 1, or hardly different; of a layer that enlarges, its inputs."""
    scale, offset = np.asarray(layer.scale, np.float64), np.asarray(layer.offset, np.float64)
    shrinks = np.abs(scale).max() <= 1
    values = outputs if shrinks else (outputs - offset) / np.where(scale == 0, 1, scale)
    largest, span, side = np.abs(values).max(), np.ptp(values), "output" if shrinks else "input"
    if largest > _WIDE_RESCALED:
        return f"they are too wide, with values up to {largest:.3g}, where about -1 to 1 is usual, in the {side} of the Rescaling"
    if 0 < span < _NARROW_RESCALED and np.abs(scale).max() <= _SHRINKING:
        return f"they are too narrow, with values within {span:.2g}, where about 1 or 2 is usual, in the output of the Rescaling"
    return None


def _normalization_mismatch(layer: Any, outputs: Array) -> str | None:
    if getattr(layer, "invert", False):
        return None
    weights = _weights(layer)
    if "mean" in weights and _is_untouched(weights["mean"], weights["variance"]):  # never adapted
        return None
    axes = layer.axis if isinstance(layer.axis, tuple | list) else () if layer.axis is None else (layer.axis,)
    kept = sorted({axis % outputs.ndim for axis in axes} - {0})
    deviations = np.moveaxis(outputs, kept, range(-len(kept), 0)) if kept else outputs
    width = int(np.prod([outputs.shape[axis] for axis in kept])) if kept else 1
    return _misfit(deviations.reshape(-1, width), np.max, "mean and variance of the Normalization")


def _moving_statistics_mismatch(layer: Any, outputs: Array) -> str | None:
    axis = layer.axis[0] if isinstance(layer.axis, tuple | list) else layer.axis
    table = np.moveaxis(outputs, axis, -1).reshape(-1, outputs.shape[axis])
    weights, width = _weights(layer), table.shape[1]
    gamma, beta = weights.get("gamma", np.ones(width)), weights.get("beta", np.zeros(width))
    if _is_untouched(weights["moving_mean"], weights["moving_variance"]):
        return None
    alive = np.abs(gamma) > 1e-3 * np.abs(gamma).max()
    if not alive.any():
        return None
    deviations = (table[:, alive] - beta[alive]) / gamma[alive]
    return _misfit(deviations, np.median, "moving statistics of the BatchNormalization")


def _misfit(deviations: Array, typical: Callable[[Array], Any], source: str) -> str | None:
    """Judge values of shape (rows, channels) in deviations from the mean that was learned for them.

    ``typical`` reduces channels: any of them, where the statistics are exact, or most.
    """
    rows = len(deviations)
    share = typical(np.mean(np.abs(deviations) > _FAR, axis=0))
    if share >= max(_FAR_SHARE, _FAR_COUNT / rows):
        return f"{100 * share:.0f} % of the values are more than {_FAR:.0f} standard deviations off, where 2 % can be, by the {source}"
    spread = typical(deviations.std(axis=0))
    if rows >= _FEW and 0 < spread < _NARROW:
        return f"they are too narrow, with {spread:.2g} of the standard deviation that was seen in training, by the {source}"
    return None


def _against_validation(job: ExportJob, validation: Any) -> str:
    """Compare inputs of real numbers with those of the validation data; no text where they are alike."""
    other = _validation_samples(job, validation)
    for name, values in job.samples.items():
        if name in other and np.issubdtype(values.dtype, np.floating):
            text = _unlike(_table(values), _table(other[name]))
            if text:
                return f"{text} of the validation data, at the input '{name}'"
    return ""


def _validation_samples(job: ExportJob, data: Any) -> Mapping[str, Array]:
    """Return some samples by input; none of what can be read once."""
    if data is None or hasattr(data, "__next__"):
        return {}
    if is_in_memory(data):
        return {name: _spaced(values) for name, values in read_samples(data, job.view.inputs).items()}
    samples, _ = next(stream_labelled(data, job.view.inputs))
    return {name: _spaced(values) for name, values in samples.items()}


def _spaced(values: Array) -> Array:
    return values[:: max(1, len(values) // _COMPARED)]


def _table(values: Array) -> Array:
    """Values of shape (rows, channels): the last axis of a sample is that of its channels."""
    spaced = _spaced(values)
    return spaced.reshape(-1, spaced.shape[-1] if spaced.ndim > 1 else 1).astype(np.float64)


def _unlike(samples: Array, others: Array) -> str | None:
    wide, narrow = _far_share(samples, others), _far_share(others, samples)
    if wide >= _FAR_SHARE:
        return (
            f"{100 * wide:.0f} % of the values of a channel are more than {_FAR:.0f} standard deviations off the mean"
        )
    if narrow >= _FAR_SHARE:
        return f"they are too narrow, since {100 * narrow:.0f} % of the values lie more than {_FAR:.0f} of their standard deviations off,"
    return None


def _far_share(values: Array, reference: Array) -> float:
    """The largest share of values of a channel that the reference's spread does not explain; 0 where that is chance."""
    mean, spread = reference.mean(axis=0), reference.std(axis=0)
    varies = spread > 0
    if not varies.any() or min(len(values), len(reference)) < _SAMPLES:
        return 0.0
    far = np.abs(values[:, varies] - mean[varies]) > _FAR * spread[varies]
    share = float(far.mean(axis=0).max())
    return share if share >= _FAR_COUNT / len(values) else 0.0
