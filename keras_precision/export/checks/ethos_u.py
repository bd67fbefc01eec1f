"""check_ethos_u: how an Arm Ethos-U would run a ``.tflite`` file, by Arm's compiler Vela."""

import csv
import math
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from keras_precision.core.environment import Environment
from keras_precision.core.errors import FileFormatError, InputError, MissingExtraError, nearest
from keras_precision.core.result import Measurement, Result
from keras_precision.core.system.child_process import CompletedChild, run_python
from keras_precision.core.system.files import write_atomic
from keras_precision.core.system.optional import available
from keras_precision.export.operator_layers import layers_on_card, origin
from keras_precision.runtimes.model_info import EdgeModel
from keras_precision.runtimes.tflite.file import inspect

__all__ = ["ACCELERATORS", "check_ethos_u"]

ACCELERATORS = (
    *(f"ethos-u55-{size}" for size in (32, 64, 128, 256)),
    *(f"ethos-u65-{size}" for size in (256, 512)),
    *(f"ethos-u85-{size}" for size in (128, 256, 512, 1024, 2048)),
)
"""The accelerators that Vela 5 compiles for; the number is that of multiply-accumulates in a cycle."""

_FIGURES = (
    ("npu_inferences_per_second", ("inferences_per_second",), 1),
    ("npu_sram_bytes", ("sram_memory_used",), 1024),
    ("npu_dram_bytes", ("dram_memory_used",), 1024),
    ("npu_flash_bytes", ("on_chip_flash_memory_used", "off_chip_flash_memory_used"), 1024),
    ("npu_macs", ("nn_macs",), 1),
)
"""Metric, the columns of Vela's summary that it is the sum of, and the unit of those (KiB)."""


def check_ethos_u(path: str | os.PathLike[str], accelerator: str = "ethos-u55-128") -> Result:
    """Compile a ``.tflite`` file for an Arm Ethos-U accelerator, and report what it does there.

    Vela runs in a process of its own, so that a file that crashes it is a finding. Its figures
    are those of its own model of the accelerator, with its default clock and memories. A file that
    LiteRT does not run is compiled, too.

    Args:
        path: A ``.tflite`` file.
        accelerator: One of ``ACCELERATORS``.

    Returns:
        A result with ``runs`` (1 where something of the file runs on the accelerator),
        ``npu_inferences_per_second`` (of the accelerator's part), ``npu_sram_bytes``,
        ``npu_dram_bytes``, ``npu_flash_bytes``, ``npu_macs``, ``npu_operators`` and
        ``cpu_operators`` (Vela's own count, of the operators that it lowers the file's to), and
        ``cpu_operator`` with the reason for every one that falls back to the processor, and the Keras
        layer that it computes, where the file has the card of ``kp.export_tflite``. What could not
        be known is unknown, and the notes say why.

    Raises:
        InputError: The accelerator is unknown.
        FileNotFoundError: There is no such file.
        FileFormatError: The file is damaged: neither LiteRT nor Vela reads it.
        MissingExtraError: ``ethos-u-vela`` is not installed.

    Example:
        >>> import keras_precision as kp
        >>> written = kp.export_tflite(model, "model.tflite", "int8", x_cal)
        >>> kp.check_ethos_u("model.tflite").value("cpu_operators")
        0
    """
    if accelerator not in ACCELERATORS:
        raise InputError(
            f"Expected accelerator to be one of {', '.join(ACCELERATORS)}. Received: {accelerator!r}. {nearest(str(accelerator), ACCELERATORS)}".rstrip()
        )
    if not available("ethosu.vela"):
        raise MissingExtraError(
            "Expected the package 'ethos-u-vela', Arm's compiler. Install it with: pip install \"keras-precision[micro]\""
        )
    refusal, model = None, None
    try:
        model = inspect(path)
    except FileFormatError as error:  # LiteRT checks what Vela does not
        refusal = error
    content = Path(path).read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        write_atomic(Path(folder) / "model.tflite", content)
        command = ["-m", "ethosu.vela", "model.tflite", "--accelerator-config", accelerator, "--output-dir", "out"]
        ended = run_python(command, folder=folder)
        if refusal is not None and ended.code != 0:
            raise refusal
        summary = next(Path(folder).glob("out/*_summary_*.csv"), None) if ended.code == 0 else None
        columns = {} if summary is None else next(csv.DictReader(summary.open(encoding="utf-8", newline="")))
    subject = Path(path).name
    fallen = tuple(_fallen(ended, model))
    rows = (*_rows(subject, ended, columns), *(operator.row(number) for number, operator in enumerate(fallen)))
    where = f"{columns.get('system_config', '')}, {columns.get('memory_mode', '')}".strip(", ")
    source = f"Vela's model of {accelerator} ({where})" if where else f"Vela, for {accelerator}"
    environment = Environment.here(backend="ethos-u-vela", sources=dict.fromkeys(["npu_inferences_per_second"], source))
    notes = _notes(subject, accelerator, ended, fallen)
    if model is None:
        notes = (f"LiteRT does not run '{subject}'", *notes)
    return Result(f"{accelerator}:{subject}", rows, environment, notes=notes)


def _rows(subject: str, ended: CompletedChild, columns: dict[str, str]) -> Iterator[Measurement]:
    counts = {side.lower(): int(count) for side, count in re.findall(r"(CPU|NPU) operators = (\d+)", ended.output)}
    used = counts.get("npu", 0) > 0
    yield Measurement(subject, "runs", int(used))
    for metric, names, unit in _FIGURES:
        figures = [float(columns[name]) * unit for name in names if used and name in columns]
        known = bool(figures) and all(map(math.isfinite, figures))
        value = sum(figures) if known else None
        yield Measurement(subject, metric, value if value is None or "per_second" in metric else round(value))
    yield Measurement(subject, "npu_operators", counts.get("npu"))
    yield Measurement(subject, "cpu_operators", counts.get("cpu"))


_FALLBACK = re.compile(r"operator: (\w+), \w+: '([^']*)'\nReason: (.*)")


class _Fallen(NamedTuple):
    """An operator that falls back to the processor: its kernel, where it comes from, and why."""

    kernel: str
    tensor: str
    origin: str
    reason: str

    def row(self, number: int) -> Measurement:
        """Its row in the result."""
        where = f"tensor '{self.tensor}'" if self.origin.startswith("tensor") else f"{self.origin}, {self.tensor}"
        return Measurement(f"{number}:{self.kernel}", "cpu_operator", f"{where}: {self.reason}")


def _fallen(ended: CompletedChild, model: EdgeModel | None) -> Iterator[_Fallen]:
    """The operators that Vela leaves to the processor, among its own, which may differ from those of the file."""
    layers = [] if model is None else layers_on_card(model)
    operators = () if model is None else model.operators
    writers = {operator.tensors[0].partition(";")[0]: number for number, operator in enumerate(operators)}
    for kernel, tensor, reason in _FALLBACK.findall(ended.output):
        first = tensor.partition(";")[0]
        source = f"tensor '{first}'"
        if model is not None and first in writers:
            source = origin(model, layers, writers[first])
        yield _Fallen(kernel, first, source, reason)


def _notes(subject: str, accelerator: str, ended: CompletedChild, fallen: tuple[_Fallen, ...]) -> tuple[str, ...]:
    if ended.ended_by:
        last = (ended.errors.strip().splitlines() or [""])[-1]
        return (f"Vela cannot compile '{subject}' for {accelerator}: it {ended.ended_by}. {last}".rstrip(),)
    if not fallen:
        return ()
    named = sorted({f"{operator.kernel} of {operator.origin}" for operator in fallen})
    return (
        f"{', '.join(named)} fall back to the processor: the accelerator computes in int8 and int16 alone, and not every operator.",
    )
