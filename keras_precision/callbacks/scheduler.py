"""PrecisionScheduler: precision by epoch, and recovery when a training becomes unstable."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from keras_precision._adapters import adapter_of
from keras_precision._adapters.layer_paths import layer_paths, plan_of
from keras_precision._adapters.tracing.step_observer import StepObserver
from keras_precision._adapters.training.callback import Callback, Logs
from keras_precision._adapters.training.open_state import training_state_of
from keras_precision._adapters.training.step_replay import Capture, capture_of
from keras_precision._adapters.training.train_function import rebuild_train_function
from keras_precision.callbacks.first_failure import FailedStep, first_failure
from keras_precision.core.errors import InputError, ModelError, NotMeasuredError
from keras_precision.core.observation import origin_rows
from keras_precision.core.plan import PrecisionPlan, training_plan
from keras_precision.core.result import Measurement, Result
from keras_precision.mixed_precision.apply_plan import apply_plan

__all__ = ["PrecisionScheduler"]

_MAX_RESTORES = 16  # in one fit: a training that fails more often has another problem


class PrecisionScheduler(Callback):
    """Sets policies by epoch while a model trains, and raises the precision of a layer in which training fails.

    With ``on_instability="raise_precision"``, the last steps are stored, as by ``kp.NumericsProbe``. When a loss or a
    weight is no longer finite, the step that failed is identified, weights, optimizer and random state are restored to before
    it, the layer where the first non-finite value arose gets float32 (all layers, if it arose in no layer), and the
    training continues. A batch that itself contains NaN is skipped, and no precision is changed.

    Args:
        schedule: Epoch, from 0, to a policy or a training plan, which is applied when that epoch begins and until the next entry.
        on_instability: ``"raise_precision"``, or None to do nothing.
        window: Number of batches that are stored.

    Attributes:
        actions: The changes of the last fit, as rows: ``precision_set`` by epoch, ``precision_raised`` by step with the layer
            as subject, and where non-finite values arose.

    Raises:
        InputError: An argument has the wrong type or value.
        UnknownPrecisionError: A policy is not one of a training plan.
        PlanKindError: A plan is for deployment.
        PlanError: In ``fit``, before the first step: a layer has a policy that no plan can have, such as plain ``float16``.

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name="head")])
        >>> model.compile("sgd", "mse")
        >>> scheduler = PrecisionScheduler({0: "float32", 1: "mixed_bfloat16"})
        >>> history = model.fit(np.ones((8, 4)), np.ones(8), epochs=2, verbose=0, callbacks=[scheduler])
        >>> [(row.value, row.step) for row in scheduler.actions], model.layers[0].compute_dtype
        ([('float32', 0), ('mixed_bfloat16', 1)], 'bfloat16')
    """

    def __init__(
        self,
        schedule: Mapping[int, str | PrecisionPlan] | None = None,
        *,
        on_instability: Literal["raise_precision"] | None = None,
        window: int = 32,
    ) -> None:
        super().__init__()
        if on_instability not in (None, "raise_precision"):
            raise InputError(f"Expected on_instability to be 'raise_precision' or None. Received: {on_instability!r}.")
        if not isinstance(window, int) or isinstance(window, bool) or window < 1:
            raise InputError(f"Expected window to be a whole number >= 1. Received: {window!r}.")
        self.schedule = _checked(schedule or {})
        self.on_instability = on_instability
        self.window = window
        self.actions: list[Measurement] = []
        self._result: Result | None = None
        self._capture: Capture | None = None
        self._steps = self._restores = 0
        self._watches_loss = True

    @property
    def result(self) -> Result:
        """The actions of the last ``fit``, with the plan that the model has after it.

        Raises:
            NotMeasuredError: No ``fit`` with this scheduler has ended yet.
        """
        if self._result is None:
            raise NotMeasuredError(
                "Expected a fit that ended. Received: a scheduler that has not been used yet. Pass it to fit(callbacks=[scheduler]) first."
            )
        return self._result

    def on_train_begin(self, logs: Logs = None) -> None:
        """Check the plans against the model, and that its own plan can be read, before the first step."""
        self.actions, self._result, self._steps, self._restores = [], None, 0, 0
        plan_of(self.model)  # raises here what would else end the fit after its last epoch
        paths = layer_paths(self.model)
        for plan in self.schedule.values():
            plan.resolve(paths)
        if self.on_instability is None:
            return
        inside = training_state_of(adapter_of(self.model), self.model)
        capture = capture_of(inside, self.window)
        if isinstance(capture, str):
            raise ModelError(
                f"Expected a fit whose state can be restored. Received: {capture}. Pass on_instability=None."
            )
        self._capture = capture

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Apply the plan of this epoch; a fit with a later initial epoch begins with the latest plan before it."""
        self._watches_loss = True
        latest = max((start for start in self.schedule if start <= epoch), default=None)
        if latest is not None and (latest == epoch or not any(row.metric == "precision_set" for row in self.actions)):
            plan = self.schedule[latest]
            self._apply(plan)
            self.actions.append(Measurement("fit", "precision_set", plan.default, epoch))

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Store the batch, and check the weights before the stored steps are dropped."""
        if self._capture is not None:
            if self._capture.is_full:
                self._check_weights()
            self._capture.step_begin()

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Recover if the loss is not finite."""
        self._steps += 1
        loss = (logs or {}).get("loss")
        if self._capture is not None and self._watches_loss and loss is not None and not math.isfinite(float(loss)):
            self._watches_loss = False  # Keras's mean stays non-finite until the metrics are reset.
            self._recover(self._capture)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Recover if the weights are not finite."""
        self._check_weights()

    def _check_weights(self) -> None:
        if self._capture is not None and self._capture.batches and not self._capture.weights_are_finite():
            self._recover(self._capture)

    def on_train_end(self, logs: Logs = None) -> None:
        """Release the stored state, and build the result."""
        if self._capture is not None:
            self._capture.remove()
            self._capture = None
        environment = adapter_of(self.model).compute.environment()
        self._result = Result("schedule", tuple(self.actions), environment, plan_of(self.model))

    def _recover(self, capture: Capture) -> None:
        """Restore the state before the step that failed, and raise the precision of the layer where it failed."""
        if self._restores >= _MAX_RESTORES:
            return
        adapter = capture.inside.adapter
        failed = first_failure(capture, StepObserver(adapter, self.model), trained=self._steps)
        if failed is None:
            return
        phase = None if failed.origin is None else failed.origin.phase
        was_skipped = failed.step.weights_after  # The weights are finite because loss scaling has skipped the step.
        if was_skipped and phase not in ("forward", "loss"):
            return
        self._restores += 1
        if not was_skipped:
            capture.restore(failed.step)
            self._watches_loss = True
        finite = failed.step.loss is None or math.isfinite(failed.step.loss)
        self.actions += origin_rows(failed.origin, failed.number, loss_is_finite=finite)
        self._raise_precision(failed)

    def _raise_precision(self, failed: FailedStep) -> None:
        origin, plan = failed.origin, plan_of(self.model)
        if origin is not None and origin.phase == "data":
            return
        path = None if origin is None else origin.path or origin.near or None
        if path is not None and plan.precision_of(path) != "float32":
            raised = plan.with_layers({path: "float32"}, {path: f"not finite in step {failed.number}"})
        else:
            path, raised = "fit", PrecisionPlan.training("float32")
        if raised != plan:
            self._apply(raised)
            self.model.reset_metrics()
            self._watches_loss = True
            self.actions.append(Measurement(path, "precision_raised", "float32", failed.number))

    def _apply(self, plan: PrecisionPlan) -> None:
        with rebuild_train_function(self.model):
            apply_plan(self.model, plan, in_place=True)


def _checked(schedule: Any) -> dict[int, PrecisionPlan]:
    if not isinstance(schedule, Mapping):
        raise InputError(f"Expected a mapping of epochs to policies or plans. Received: {type(schedule).__name__}.")
    checked = {}
    for epoch, plan in schedule.items():
        if not isinstance(epoch, int) or isinstance(epoch, bool) or epoch < 0:
            raise InputError(f"Expected epochs to be whole numbers >= 0. Received: {epoch!r}.")
        checked[epoch] = training_plan(plan)
    return checked
