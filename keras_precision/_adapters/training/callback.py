"""Callback: one base class that Keras 3 and tf_keras both accept, without importing either."""

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

__all__ = ["Callback"]

Logs = MutableMapping[str, Any] | None


def _default(method: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a hook as not overridden, as ``keras.src.utils.python_utils.default`` does.

    Keras 3 sends batches to callbacks asynchronously only if it finds this mark.
    """
    method._is_default = True  # type: ignore[attr-defined]
    return method


class Callback:
    """What ``fit`` of both Kerases calls.

    Neither Keras asks a callback for its class; they call its hooks, and look at marks that tell
    which hooks are overridden. Inheriting from ``keras.callbacks.Callback`` would import Keras with
    this package, and shut tf_keras out.
    """

    def __init__(self) -> None:
        self.params: Mapping[str, Any] = {}
        self.model: Any = None

    def set_params(self, params: Mapping[str, Any]) -> None:
        """Take verbose, epochs and steps from ``fit``."""
        self.params = params

    def set_model(self, model: Any) -> None:
        """Take the model from ``fit``."""
        self.model = model

    def _implements_train_batch_hooks(self) -> bool:
        return self._overrides("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")

    def _implements_test_batch_hooks(self) -> bool:
        return self._overrides("on_test_batch_begin", "on_test_batch_end")

    def _implements_predict_batch_hooks(self) -> bool:
        return self._overrides("on_predict_batch_begin", "on_predict_batch_end")

    def _overrides(self, *hooks: str) -> bool:
        return any(not getattr(getattr(self, hook), "_is_default", False) for hook in hooks)

    def on_train_begin(self, logs: Logs = None) -> None:
        """Run when ``fit`` begins."""

    def on_train_end(self, logs: Logs = None) -> None:
        """Run when ``fit`` ends."""

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Run when an epoch begins."""

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Run when an epoch ends, validation included."""

    def on_test_begin(self, logs: Logs = None) -> None:
        """Run when ``evaluate``, or the validation of ``fit``, begins."""

    def on_test_end(self, logs: Logs = None) -> None:
        """Run when it ends."""

    def on_predict_begin(self, logs: Logs = None) -> None:
        """Run when ``predict`` begins."""

    def on_predict_end(self, logs: Logs = None) -> None:
        """Run when it ends."""

    @_default
    def on_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Never used: the older name of ``on_train_batch_begin``."""

    @_default
    def on_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Never used: the older name of ``on_train_batch_end``."""

    @_default
    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Run before a training batch."""

    @_default
    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Run after a training batch."""

    @_default
    def on_test_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Run before a test batch."""

    @_default
    def on_test_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Run after a test batch."""

    @_default
    def on_predict_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Run before a predict batch."""

    @_default
    def on_predict_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Run after a predict batch."""
