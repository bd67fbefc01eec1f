"""ProbeSet: the probes of a fit; a probe that raises an exception is disabled."""

from collections.abc import Callable, Iterable

from keras_precision.callbacks.probes.probe import Probe

__all__ = ["ProbeSet"]


class ProbeSet:
    """Calls the hooks of probes; an exception in a probe is passed to ``report`` as text and never reaches the training.

    Example:
        >>> ProbeSet([Probe()], print).step_begin()
    """

    def __init__(self, probes: Iterable[Probe], report: Callable[[str], None]) -> None:
        self._report = report
        self._activate(probes)

    def _activate(self, probes: Iterable[Probe]) -> None:
        self._active = tuple(probes)
        # The step hooks are the hot path: only probes that override them are called.
        self._at_begin = tuple(probe for probe in self._active if _overrides(probe, "step_begin"))
        self._at_end = tuple(probe for probe in self._active if _overrides(probe, "step_end"))

    def step_begin(self) -> None:
        """Call ``step_begin`` of the probes."""
        for probe in self._at_begin:
            try:
                probe.step_begin()
            except Exception as error:  # noqa: BLE001 - training must go on, whatever a probe does
                self._disable(probe, error)

    def step_end(self, batches: int) -> None:
        """Call ``step_end`` of the probes with the number of batches of the step."""
        for probe in self._at_end:
            try:
                probe.step_end(batches)
            except Exception as error:  # noqa: BLE001 - training must go on, whatever a probe does
                self._disable(probe, error)

    def apply(self, action: Callable[[Probe], None]) -> None:
        """Call ``action`` with every active probe."""
        for probe in self._active:
            try:
                action(probe)
            except Exception as error:  # noqa: BLE001 - training must go on, whatever a probe does
                self._disable(probe, error)

    def _disable(self, probe: Probe, error: Exception) -> None:
        self._activate(other for other in self._active if other is not probe)
        self._report(f"the probe '{probe.name}' failed and was switched off: {type(error).__name__}: {error}")


def _overrides(probe: Probe, hook: str) -> bool:
    return getattr(getattr(probe, hook), "__func__", None) is not getattr(Probe, hook)
