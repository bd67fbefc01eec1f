"""The check that a quantized file predicts as its model does, and the plan that does where the file does not."""

import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision.core.channel_errors import ChannelErrors, channel_list
from keras_precision.core.errors import ExportError, FileFormatError, PlanError
from keras_precision.core.plan import PrecisionPlan
from keras_precision.export.conversion_check import model_outputs
from keras_precision.export.readback import WEIGHTED, read_back
from keras_precision.export.request import needs_ranges
from keras_precision.export.toolchain import ExportJob, Toolchain
from keras_precision.quantization.layer_trace import layers_of
from keras_precision.quantization.qat.trained_ranges import TrainedRanges
from keras_precision.runtimes.tflite.in_memory import predict_in_memory
from keras_precision.scoring.divergence import OutputKind, output_kind
from keras_precision.scoring.scores import predicted_classes

__all__ = ["disagreement"]

Array = npt.NDArray[Any]

_SAMPLES, _FEW = 100, 8
_MIN_AGREEMENT, _MIN_SNR_DB = 0.95, 15.0
_TIE_SNR_DB = 30.0  # where probabilities differ by less, classes change between near ties alone
_BELOW_FLOAT_DB = 10.0
_LEAST_SPREAD = 1 / 64  # of the largest value: what varies by less, as a constant does, is not told apart in 8 bits


@dataclass(frozen=True)
class _Fidelity:
    """How near an output of a file is to the float file's: agreement of classes where it has any, noise, and lost channels."""

    output: int
    agreement: float | None
    snr_db: float
    lost: tuple[int, ...] = ()

    @property
    def is_poor(self) -> bool:
        """Whether the output is not the model's any more."""
        if self.agreement is not None:
            return self.agreement < _MIN_AGREEMENT and self.snr_db < _TIE_SNR_DB
        return bool(self.lost) or self.snr_db < _MIN_SNR_DB

    def __str__(self) -> str:
        """What decides."""
        if self.lost:
            lost = channel_list(self.lost)
            return f"{lost[0].lower()}{lost[1:]} of output {self.output} {'is' if len(self.lost) == 1 else 'are'} lost in the scale of others"
        figure = (
            f"an SNR of {self.snr_db:.1f} dB" if self.agreement is None else f"an agreement of {self.agreement:.3f}"
        )
        return f"{figure} at output {self.output}"


def disagreement(toolchain: Toolchain, job: ExportJob, path: Path) -> str | None:
    """Return a warning where a quantized file predicts otherwise than its model, with a plan that was seen to cure it.

    The file is run on a hundred of the representative samples. None where there are none, where this machine cannot
    run the file, and where it predicts as the model does.
    """
    if job.request.plain or not job.samples:
        return None
    stride = math.ceil(len(next(iter(job.samples.values()))) / _SAMPLES)
    samples = {name: values[::stride] for name, values in job.samples.items()}
    reference = _float_outputs(job, slice(None, None, stride))
    poor = _poorest(toolchain.predict(path, samples), reference)
    if poor is None or not poor.is_poor or _float_is_poor(job, poor):
        return None
    count = len(next(iter(samples.values())))
    start = f"The {job.request.plan.default} file of '{job.model.name}' predicts otherwise than the model: {poor}, on {count} calibration samples. "
    return start + _cure(toolchain, job, path.name, lambda file: _poorest(toolchain.predict(file, samples), reference))


def _poorest(outputs: list[Array] | None, reference: list[Array]) -> _Fidelity | None:
    """The output that is least like the float file's; None where the file was not run, or values are not finite."""
    if outputs is None or not all(np.isfinite(values).all() for values in reference):
        return None
    fidelities = [
        _fidelity(number, *pair) for number, pair in enumerate(zip(reference, outputs, strict=True)) if pair[0].size
    ]
    return min(fidelities, key=lambda fidelity: (not fidelity.is_poor, fidelity.snr_db), default=None)


def _fidelity(number: int, reference: Array, output: Array) -> _Fidelity:
    kind, output = output_kind(reference), output.reshape(reference.shape)
    spread = max(float(reference.std()), float(np.abs(reference).max()) * _LEAST_SPREAD)
    noise = OutputKind("values", spread or 1.0).divergence(reference, output)
    snr = math.inf if noise == 0 else -10 * math.log10(noise)
    if np.issubdtype(reference.dtype, np.integer):  # classes already
        return _Fidelity(number, float(np.mean(reference == output)), snr)
    if kind.name == "values":
        return _Fidelity(number, None, snr, tuple(ChannelErrors.of(str(number), reference, output).drowned()))
    return _Fidelity(number, float(np.mean(predicted_classes(reference) == predicted_classes(output))), snr)


def _float_outputs(job: ExportJob, rows: slice) -> list[Array]:
    """Outputs of the float file for some of the samples; those in a calibration were run before."""
    if job.calibration is not None:
        return [output[rows] for output in job.calibration.predictions]
    return predict_in_memory(job.source.content, {name: values[rows] for name, values in job.samples.items()})


def _float_is_poor(job: ExportJob, poor: _Fidelity) -> bool:
    """Whether the float file itself is hardly nearer to the model: then quantization is not the cause."""
    expected = list(model_outputs(job, job.few_samples(_FEW)))
    of_float = _fidelity(poor.output, expected[poor.output], _float_outputs(job, slice(_FEW))[poor.output])
    return poor.snr_db > of_float.snr_db - _BELOW_FLOAT_DB


def _cure(toolchain: Toolchain, job: ExportJob, name: str, measure: Callable[[Path], _Fidelity | None]) -> str:
    """Name the first of some plans whose file, made and run here, predicts as the model does."""
    tried = []
    for plan in _plans(toolchain, job):
        with tempfile.TemporaryDirectory() as folder:
            other = replace(job, request=replace(job.request, plan=plan), data=job.samples)
            try:
                toolchain.export(other, Path(folder) / name)
                fidelity = measure(Path(folder) / name)
            except (ExportError, FileFormatError, PlanError):  # a format without a kernel for the model
                continue
        if fidelity is not None and not fidelity.is_poor:
            return f"This plan predicts as the model does, with {fidelity}: {_code(plan)}."
        tried.append(f"{_code(plan)} has {fidelity}")
    return f"Tried without success: {'; '.join(tried) or 'no other plan can be made'}. Export in float32."


def _plans(toolchain: Toolchain, job: ExportJob) -> Iterator[PrecisionPlan]:
    """Plans that keep more than the job's own, the smallest change first, as far as the format can hold them."""
    plan, (front, first, last) = job.request.plan, _outer_layers(job)
    edges = [plan.with_layers(dict.fromkeys(paths, "float32")) for paths in ((), front, first, last, (*first, *last))]
    whole = [PrecisionPlan.deployment(name) for name in ("int16x8", "int8_dynamic")]
    if isinstance(job.calibration, TrainedRanges):  # training has fixed the precision of every layer
        edges, whole = edges[:1], []
    candidates = [replace(edge, io="float32") for edge in edges] if toolchain.integer_io else edges
    for candidate in (*candidates, *whole):
        unmeasured = toolchain.calibrates and job.calibration is None and needs_ranges(candidate)
        if candidate != plan and not unmeasured and toolchain.has(candidate):
            yield candidate


def _outer_layers(job: ExportJob) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The layers in front of the first weights, the same with those, and from the last weights to the outputs."""
    model = read_back(job.source.content)
    operators, owners = model.operators, layers_of(model, job.source.trace)
    open_operators: set[int] = set()
    front: list[str] = []
    first: list[str] = []
    for number, operator in enumerate(operators):
        if open_operators.issuperset(operator.reads):
            first += owners[number]
            if operator.kernel not in WEIGHTED:
                front += owners[number]
                open_operators.add(number)
    closed = {
        read for number, operator in enumerate(operators) if operator.kernel in WEIGHTED for read in operator.reads
    }
    last: list[str] = []
    for number in reversed(range(len(operators))):
        if number in closed:
            closed.update(operators[number].reads)
        else:
            last += owners[number]
    weighted = {path for number, paths in enumerate(owners) if operators[number].kernel in WEIGHTED for path in paths}
    front = [path for path in front if path not in weighted]
    return tuple(dict.fromkeys(front)), tuple(dict.fromkeys(first)), tuple(dict.fromkeys(last))


def _code(plan: PrecisionPlan) -> str:
    """A plan as Python."""
    layers = f", layers={dict(plan.layers)}" if plan.layers else ""
    return f"kp.PrecisionPlan.deployment({plan.default!r}{layers}{f', io={plan.io!r}' if plan.io else ''})"
