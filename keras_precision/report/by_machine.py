"""Results grouped by machine, because times of two machines are not comparable."""

from collections.abc import Sequence
from dataclasses import dataclass

from keras_precision.core.environment import Environment
from keras_precision.core.result import Result

__all__ = ["Host", "by_host"]


@dataclass(frozen=True)
class Host:
    """A machine, named by processor, cores and system, and its results."""

    name: str
    results: tuple[Result, ...]


def by_host(results: Sequence[Result]) -> tuple[Host, ...]:
    """Group results by machine, in order of appearance.

    Devices of one machine stay together, because their times are worth comparing.

    Example:
        >>> [host.name for host in by_host([Result("a"), Result("b", (), Environment(processor="M4", cores=8))])]
        ['an unknown machine', 'M4, 8 cores']
    """
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(_name(result.environment), []).append(result)
    return tuple(Host(name, tuple(members)) for name, members in groups.items())


def _name(environment: Environment) -> str:
    cores = f"{environment.cores} core{'s' if environment.cores > 1 else ''}" if environment.cores else ""
    return ", ".join(filter(None, (environment.processor, cores, environment.system))) or "an unknown machine"
