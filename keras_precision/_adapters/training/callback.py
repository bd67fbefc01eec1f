"""Callback: a base class that Keras 3 and tf_keras both accept, without importing either."""

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

__all__ = ["Callback"]

Logs = MutableMapping[str, Any] | None


def _default(method: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a hook as not overridden."""
    # As keras/src/utils/python_utils.py does. Keras 3 runs batch hooks asynchronously only where all are marked:
    # https://github.com/keras-team/keras/blob/v3.15.1/keras/src/callbacks/callback_list.py
    method._is_default = True  # type: ignore[attr-defined]
    return method


class Callback:
    """A callback of ``fit`` in Keras 3 and tf_keras.

    Neither checks the class of a callback. Inheriting from ``keras.callbacks.Callback`` would import Keras with this
    package, and exclude tf_keras.
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

    # tf_keras asks for these three methods instead of marks, and skips the batch hooks where they return False:
    # https://github.com/keras-team/tf-keras/blob/v2.21.0/tf_keras/callbacks.py (CallbackList.__init__).
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
        """Run when ``evaluate``, or the validation of ``fit``, ends."""

    def on_predict_begin(self, logs: Logs = None) -> None:
        """Run when ``predict`` begins."""

    def on_predict_end(self, logs: Logs = None) -> None:
        """Run when ``predict`` ends."""

    @_default
    def on_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Do nothing: the older name of ``on_train_batch_begin``."""

    @_default
    def on_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Do nothing: the older name of ``on_train_batch_end``."""

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
