"""Toolchain: what another runtime must be able to answer, and what an export to it is asked for."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_precision.core.errors import PlanError, UnknownPrecisionError
from keras_precision.core.formats.deployment import FILE_FORMATS, precisions_of
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Measurement
from keras_precision.core.system.optional import available, require
from keras_precision.export.card import operator_rows
from keras_precision.export.request import wanted_plan
from keras_precision.quantization.calibration import Calibration
from keras_precision.quantization.fidelity import check_answers
from keras_precision.quantization.float_model import FloatFile
from keras_precision.quantization.range_estimators import check_method
from keras_precision.runtimes.model_info import EdgeModel
from keras_precision.runtimes.session import RuntimeSession

__all__ = ["Job", "Order", "Toolchain", "check_session"]


@dataclass(frozen=True)
class Order:
    """What an export is asked for, apart from the model and its data.

    Attributes:
        plan: A deployment plan.
        calibration: How ranges are chosen.
        percentile: For the method of that name.
        strict: Whether operators under the plan's default must be honoured, too.
        target: What the file is to run on, where the toolchain knows several.
        asked: Whether the plan was asked for; else a quantization-aware model is exported as it was trained.
        reduce_range: Whether int8 weights have 7 bits.
    """

    plan: PrecisionPlan
    calibration: str = "mse"
    percentile: float = 99.99
    strict: bool = False
    target: str = ""
    asked: bool = True
    reduce_range: bool = False

    def __post_init__(self) -> None:
        """Check what the type of each field cannot say."""
        check_method(self.calibration, self.percentile, auto=True)

    @property
    def precisions(self) -> set[str]:
        """All precisions of the plan."""
        return {self.plan.default, *self.plan.layers.values()}


@dataclass(frozen=True)
class Job:
    """What a toolchain makes a file of.

    Attributes:
        model: The Keras model.
        order: What is asked for.
        source: The model's float file, with its trace.
        measured: The values of its activations; None where no layer needs them.
        data: The representative data, as given; None where there are none, or only a calibration.
    """

    model: Any
    order: Order
    source: FloatFile
    measured: Calibration | None
    data: Any = None


class Toolchain(ABC):
    """A format of files, with the runtime that runs them.

    A new one is a file beside the others: these attributes, and a method for each question.

    Attributes:
        name: One of ``FILE_FORMATS``.
        suffix: How its files end.
        extra: The extra of this package that brings what it needs.
        packages: Modules that must be there.
        companions: Endings of files that are written beside it.
        mixed: Whether layers may differ in their precision.
        calibrates: Whether its integers take their ranges from ``kp.calibrate``.
    """

    name: str
    suffix: str
    extra: str
    packages: tuple[str, ...]
    companions: tuple[str, ...] = ()
    mixed: bool = True
    calibrates: bool = True

    @abstractmethod
    def export(self, job: Job, path: Path) -> tuple[str, ...]:
        """Write the file, or folder, to a path that is free; return notes for its reader."""

    @abstractmethod
    def read_back(self, path: Path) -> EdgeModel:
        """Return what a file holds, after it was loaded, and run where this machine can run it."""

    @abstractmethod
    def run(self, path: str | os.PathLike[str], *, threads: int = 1) -> RuntimeSession | None:
        """Open a file, ready to answer; None where this machine cannot run it."""

    @abstractmethod
    def inscribe(self, path: Path, card: str) -> None:
        """Put the card into a file: text that its reader finds in ``EdgeModel.card``, and runtimes pass over."""

    def judged(self, model: EdgeModel, order: Order) -> EdgeModel:
        """Return what the plan is held against, where a runtime decides on some operators itself."""
        return model

    def describe(self, model: EdgeModel) -> Iterator[Measurement]:
        """Yield what a file is: its operators, and what each computes in."""
        yield from operator_rows(model)

    def require(self) -> None:
        """Raise unless all that it needs is installed.

        Raises:
            MissingExtraError: Something is not.
        """
        for package in self.packages:
            if not available(package):
                require(package, extra=self.extra)

    def decided(self, plan: str | PrecisionPlan) -> PrecisionPlan:
        """Return the plan that is meant, if this format can hold it.

        Args:
            plan: A plan, or the precision of every layer.

        Returns:
            The plan.

        Raises:
            UnknownPrecisionError: This format does not have one of its precisions.
            PlanError: It mixes precisions that cannot be in one file.
            PlanKindError: It is a training plan.
        """
        wanted = wanted_plan(plan)
        for precision in dict.fromkeys([wanted.default, *wanted.layers.values()]):
            if precision not in precisions_of(self.name):
                matrix = "; ".join(f"{name}: {', '.join(precisions_of(name))}" for name in FILE_FORMATS)
                raise UnknownPrecisionError(
                    f"Expected a precision that {self.name} files have. Received: {precision!r}. What each format has: {matrix}."
                )
        mix = {wanted.default, *wanted.layers.values()}
        if len(mix) > 1 and not (self.mixed and mix == {"int8", "float32"}):
            allowed = "int8 and float32, or one precision" if self.mixed else "one precision"
            raise PlanError(
                f"Expected {allowed} in a file of {self.name}. Received: {', '.join(sorted(mix))}. Export to .tflite for other mixes."
            )
        return wanted


def check_session(model: Any, session: RuntimeSession) -> None:
    """Raise where a file without integers does not answer as its model does.

    Args:
        model: The model.
        session: The file, opened.

    Raises:
        ExportError: Most samples have other answers.
    """

    def answer(samples: Mapping[str, Any]) -> list[Any]:
        found = session.predict({tensor.name: samples[tensor.name] for tensor in session.model.inputs})
        return found if isinstance(found, list) else [found]

    check_answers(model, answer)
