"""The table of machine and software."""

from collections.abc import Sequence

from keras_precision.core.result import Result
from keras_precision.report.tables.runs import UNKNOWN, Table

__all__ = ["machine_table"]


def machine_table(results: Sequence[Result]) -> Table:
    """Return the environment of results of one machine, one row per field, with result names where values differ.

    Example:
        >>> from keras_precision.core.environment import Environment
        >>> machine_table([Result("run", (), Environment(python="3.11.2"))]).rows
        (('python', '3.11.2'),)
    """
    fields: dict[str, dict[str, list[str]]] = {}
    for result in results:
        environment = result.environment
        values = {
            "processor": environment.processor,
            "cores": str(environment.cores or ""),
            "number formats of the processor": ", ".join(environment.cpu_flags),
            "system": environment.system,
            "device": environment.device,
            "backend": environment.backend,
            "TF32": {True: "float32 products may be rounded to it", False: "off", None: ""}[environment.tf32],
            "python": environment.python,
            **environment.versions,
        }
        for name, value in values.items():
            fields.setdefault(name, {}).setdefault(value or UNKNOWN, []).append(result.name)
    rows = [(name, _joined(values)) for name, values in fields.items() if set(values) != {UNKNOWN}]
    return Table("Machine and software", ("Field", "Value"), tuple(rows))


def _joined(values: dict[str, list[str]]) -> str:
    if len(values) == 1:
        return next(iter(values))
    return "; ".join(f"{value} ({', '.join(names)})" for value, names in values.items())
