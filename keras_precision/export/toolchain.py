"""Toolchain: a file format with the runtime that runs it, as the export pipeline uses it."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_precision._adapters.data.samples import stream_samples
from keras_precision._adapters.model_view import ModelView
from keras_precision.core.errors import PlanError, UnknownPrecisionError
from keras_precision.core.formats.deployment import FILE_FORMATS, supported_precisions
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Measurement
from keras_precision.core.system.files import replace_folder, write_atomic
from keras_precision.core.system.optional import available, require
from keras_precision.export.card import calibration_rows, operator_rows, sides
from keras_precision.export.request import ExportRequest, deployment_plan
from keras_precision.quantization.calibration import Calibration
from keras_precision.quantization.conversion import static_shape
from keras_precision.quantization.fidelity import check_outputs
from keras_precision.quantization.float_model import FloatFile, float_file
from keras_precision.quantization.layer_trace import OperatorLayers
from keras_precision.runtimes.model_info import EdgeModel
from keras_precision.runtimes.session import RuntimeSession

__all__ = ["ExportJob", "ExportedFile", "Toolchain", "check_session"]

Array = npt.NDArray[Any]

_MOST_SAMPLES = 300  # as many as NNCF takes by default


@dataclass(frozen=True)
class ExportJob:
    """All that a toolchain makes a file from.

    Attributes:
        view: The model.
        request: The arguments of the export.
        source: The model's float file, with its trace.
        calibration: The values of its activations; None where no layer needs them.
        data: The representative data; None where there are none, or only a calibration.
    """

    view: ModelView
    request: ExportRequest
    source: FloatFile
    calibration: Calibration | None
    data: Any = None

    @property
    def model(self) -> Any:
        """The Keras model."""
        return self.view.model

    @cached_property
    def samples(self) -> Mapping[str, Array]:
        """Real samples by input, at most 300; empty where only ranges are known. Data may be readable once."""
        if self.calibration is not None or self.data is None or isinstance(self.data, Calibration):
            return self.calibration.held if self.calibration is not None else {}
        pieces, count = [], 0
        for piece in stream_samples(self.data, self.view.inputs):
            pieces.append(piece)
            count += len(next(iter(piece.values())))
            if count >= _MOST_SAMPLES:
                break
        return {name: np.concatenate([piece[name] for piece in pieces])[:_MOST_SAMPLES] for name in pieces[0]}

    def few_samples(self, count: int) -> dict[str, Array]:
        """Return some samples by input; random ones of a fixed seed, within known ranges, where there are no real ones."""
        if self.samples:
            return {name: values[:count] for name, values in self.samples.items()}
        random, samples = np.random.default_rng(0), {}
        seen = {} if self.calibration is None else self.calibration.inputs()
        for entry in self.view.inputs:
            low, high = (
                (seen[entry.name].values.minimum, seen[entry.name].values.maximum) if entry.name in seen else (0, 1)
            )
            values = random.uniform(low, max(high, low + 1e-3), (count, *static_shape(entry)))
            samples[entry.name] = (values.round() if "int" in entry.dtype else _short(values)).astype(entry.dtype)
        return samples


def _short(values: Array) -> Array:
    """Return numbers of 8 significant bits, which a model with an input in 16 bits does not round."""
    mantissas, exponents = np.frexp(values)
    return np.asarray(np.ldexp(np.round(mantissas * 256) / 256, exponents))


@dataclass(frozen=True)
class ExportedFile:
    """What a toolchain alone knows of a file that it wrote.

    Attributes:
        notes: What a reader of the result should know.
        engine: The quantizer or converter that wrote it, where the toolchain has several.
        foreign_ranges: Number of activations whose range is none of the requested ones.
    """

    notes: tuple[str, ...] = ()
    engine: str = ""
    foreign_ranges: int = 0


class Toolchain(ABC):
    """A format of files, with the runtime that runs them.

    A new one is a file beside the others: these attributes, and the four abstract methods.

    Attributes:
        name: The name of the format.
        suffix: How its files end.
        extra: The extra of this package that installs what it needs.
        packages: Modules that must be installed.
        companions: Endings of further files that are written with it.
        mixed: Whether layers may differ in their precision.
        calibrates: Whether its integers take their ranges from ``kp.calibrate``.
        equalizes: Whether it takes calibrations of equalized weights.
        exports_tfmot: Whether it takes quantization-aware models of TensorFlow Model Optimization.
        writes_folders: Whether its files are folders.
        integer_io: Whether inputs and outputs of its files may be integers.
    """

    name: str
    suffix: str
    extra: str = ""
    packages: tuple[str, ...] = ()
    companions: tuple[str, ...] = ()
    mixed: bool = True
    calibrates: bool = True
    equalizes: bool = False
    exports_tfmot: bool = False
    writes_folders: bool = False
    integer_io: bool = False

    @abstractmethod
    def export(self, job: ExportJob, path: Path) -> ExportedFile:
        """Write the file, or folder, to a path that is free."""

    @abstractmethod
    def read_back(self, path: Path) -> EdgeModel:
        """Return a file's inputs, outputs and operators, after it was loaded, and run where this machine can run it."""

    @abstractmethod
    def run(self, path: str | os.PathLike[str], *, threads: int = 1) -> RuntimeSession | None:
        """Open a file, ready to predict; None where this machine cannot run it."""

    @abstractmethod
    def inscribe(self, path: Path, card: str) -> None:
        """Put the card into a file: text that its reader finds in ``EdgeModel.card``, and runtimes ignore."""

    def place(self, folder: Path, destination: Path) -> None:
        """Put what stands in a folder beside the destination into its place: at each moment the old files are there, or the new."""
        if self.writes_folders:
            replace_folder(folder / destination.name, destination)
        else:  # through a link, and with the permissions of an older file
            write_atomic(destination, (folder / destination.name).read_bytes())

    @property
    def precisions(self) -> tuple[str, ...]:
        """The deployment precisions that its files can hold."""
        return supported_precisions(self.name)

    def decided(self, plan: str | PrecisionPlan) -> PrecisionPlan:
        """Return a plan, or that of one precision for all layers, if a file of this format can hold it.

        Raises:
            UnknownPrecisionError: This format does not have one of its precisions.
            PlanError: It mixes precisions that cannot be in one file.
            PlanKindError: It is a training plan.
        """
        plan = deployment_plan(plan)
        for precision in dict.fromkeys([plan.default, *plan.layers.values()]):
            if precision not in self.precisions:
                matrix = "; ".join(f"{name}: {', '.join(supported_precisions(name))}" for name in FILE_FORMATS)
                raise UnknownPrecisionError(
                    f"Expected a precision that {self.name} files have. Received: {precision!r}. What each format has: {matrix}."
                )
        if plan.io == "uint8" and not self.integer_io:
            raise PlanError(
                f"Expected a plan without io='uint8', which only .tflite files have. Received: it for {self.name}. Leave io out."
            )
        mix = {plan.default, *plan.layers.values()}
        if len(mix) > 1 and not self.mixes(mix):
            allowed = "int8 and float32, or one precision" if self.mixed else "one precision"
            raise PlanError(
                f"Expected {allowed} in a file of {self.name}. Received: {', '.join(sorted(mix))}. Export to .tflite for other mixes."
            )
        return plan

    def has(self, plan: PrecisionPlan) -> bool:
        """Whether a file of this format can hold a plan."""
        try:
            self.decided(plan)
        except PlanError:
            return False
        return True

    def predict(self, path: Path, samples: Mapping[str, Array]) -> list[Array] | None:
        """Return a file's outputs for samples by input; None where this machine cannot run it."""
        session = self.run(path)
        if session is None:
            return None
        outputs = session.predict({tensor.name: samples[tensor.name] for tensor in session.model.inputs})
        return outputs if isinstance(outputs, list) else [outputs]

    def mixes(self, precisions: set[str]) -> bool:
        """Whether several precisions may be in one file."""
        return self.mixed and precisions == {"int8", "float32"}

    def require(self) -> None:
        """Raise unless all that it needs is installed."""
        for package in self.packages:
            if not available(package):
                require(package, extra=self.extra)

    def uses_calibration(self, view: ModelView, request: ExportRequest) -> bool:
        """Whether a calibration that the caller gives has a part in the file."""
        return True

    def float_source(self, view: ModelView, request: ExportRequest) -> FloatFile:
        """Return the float file of a model that is not calibrated."""
        return float_file(view)

    def judged(self, model: EdgeModel, request: ExportRequest) -> EdgeModel:
        """Return what is compared with the plan, where a runtime decides on some operators itself."""
        return model

    def rows(
        self, subject: str, job: ExportJob, file: ExportedFile, model: EdgeModel, layers: OperatorLayers
    ) -> list[Measurement]:
        """Return how a file was produced, and its inputs and outputs."""
        return [*calibration_rows(subject, job.calibration, job.request.calibration), *sides(model)]

    def same_file(self, before: EdgeModel, after: EdgeModel) -> bool:
        """Whether a file is the same with a card inside, by kinds: OpenVINO renames operators whenever it reads a file."""
        counts_agree = after.operator_counts == before.operator_counts
        return counts_agree and after.outputs == before.outputs and bool(after.card)

    def describe(self, model: EdgeModel) -> Iterator[Measurement]:
        """Yield the operators of a file, and their precisions."""
        yield from operator_rows(model)


def check_session(view: ModelView, session: RuntimeSession) -> None:
    """Raise where the predictions of an opened file without integers are not those of its model."""

    def predictions(samples: Mapping[str, Any]) -> list[Any]:
        outputs = session.predict({tensor.name: samples[tensor.name] for tensor in session.model.inputs})
        return outputs if isinstance(outputs, list) else [outputs]

    check_outputs(view, predictions)
