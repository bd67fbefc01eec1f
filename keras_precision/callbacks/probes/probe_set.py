"""ProbeSet: the probes that watch a fit, of which one that fails is switched off."""

from collections.abc import Callable, Iterable

from keras_precision.callbacks.probes.probe import Probe

__all__ = ["ProbeSet"]


class ProbeSet:
    """Calls probes, and keeps what they raise away from the training.

    Args:
        probes: The probes.
        report: Told of each probe that fails.

    Example:
        >>> ProbeSet([Probe()], print).step_begin()
    """

    def __init__(self, probes: Iterable[Probe], report: Callable[[str], None]) -> None:
        self._report = report
        self._keep(probes)

    def _keep(self, probes: Iterable[Probe]) -> None:
        self._active = tuple(probes)
        # Only those that do something in a step are called in one: this is the hot path.
        self._at_begin = tuple(probe for probe in self._active if _overrides(probe, "step_begin"))
        self._at_end = tuple(probe for probe in self._active if _overrides(probe, "step_end"))

    def step_begin(self) -> None:
        """Let the probes see a step begin."""
        for probe in self._at_begin:
            try:
                probe.step_begin()
            except Exception as error:  # noqa: BLE001 - training must go on, whatever a probe does
                self._drop(probe, error)

    def step_end(self, batches: int) -> None:
        """Let the probes see a step end.

        Args:
            batches: Batches that it trained.
        """
        for probe in self._at_end:
            try:
                probe.step_end(batches)
            except Exception as error:  # noqa: BLE001 - training must go on, whatever a probe does
                self._drop(probe, error)

    def each(self, act: Callable[[Probe], None]) -> None:
        """Let each probe act.

        Args:
            act: Given the probe.
        """
        for probe in self._active:
            try:
                act(probe)
            except Exception as error:  # noqa: BLE001 - training must go on, whatever a probe does
                self._drop(probe, error)

    def _drop(self, probe: Probe, error: Exception) -> None:
        self._keep(other for other in self._active if other is not probe)
        self._report(f"the probe '{probe.name}' failed and was switched off: {type(error).__name__}: {error}")


def _overrides(probe: Probe, hook: str) -> bool:
    return getattr(getattr(probe, hook), "__func__", None) is not getattr(Probe, hook)
