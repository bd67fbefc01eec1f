"""PrecisionScheduler: precision by epoch, and a way back when a training breaks."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from keras_precision._adapters import adapter_of
from keras_precision._adapters.layer_paths import layer_paths, plan_of
from keras_precision._adapters.tracing.step_observer import Observer
from keras_precision._adapters.training.callback import Callback, Logs
from keras_precision._adapters.training.open_state import inside_of
from keras_precision._adapters.training.retracing import trained_anew
from keras_precision._adapters.training.step_replay import Capture, capture_of
from keras_precision.callbacks.first_failure import Broken, find_break
from keras_precision.core.errors import InputError, ModelError, NotMeasuredError
from keras_precision.core.observation import origin_rows
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Measurement, Result
from keras_precision.mixed_precision.apply_plan import apply_plan

__all__ = ["PrecisionScheduler"]

_MOST = 16  # times that a fit is put back: a training that breaks more often has another fault


class PrecisionScheduler(Callback):
    """Sets policies while a model trains, by epoch, and raises the layer to blame when the training breaks.

    With ``on_instability="raise_precision"``, the last steps are kept as ``kp.NumericsProbe`` keeps them. When a loss or a
    weight is no longer finite, the step that broke is found, weights, optimizer and random state go back to where they
    were before it, the layer to blame gets float32 (all layers, where no single one is to blame), and the training goes on.
    A batch that itself holds NaN is left out, and nothing is raised.

    Args:
        schedule: Epoch, from 0, to a policy or a training plan, which is applied when that epoch begins and holds until the next one.
        on_instability: ``"raise_precision"``, or None to do nothing.
        window: Batches that are kept.

    Attributes:
        actions: What it did in the last fit, as rows: ``precision_set`` by epoch, ``precision_raised`` by step with the layer
            as subject, and where the values that were not finite arose.

    Raises:
        InputError: An argument is of the wrong kind.
        UnknownPrecisionError: A policy is none that plans of a training carry.
        PlanKindError: A plan is for deployment.

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
        self._steps = self._returns = 0
        self._listens = True

    @property
    def result(self) -> Result:
        """What it did in the last ``fit``; its plan is the one that the model ended in.

        Raises:
            NotMeasuredError: No ``fit`` with it has ended yet.
        """
        if self._result is None:
            raise NotMeasuredError("Expected a fit that ended. Received: a scheduler that has not been used yet.")
        return self._result

    def on_train_begin(self, logs: Logs = None) -> None:
        """Check the plans against the model, before anything is trained."""
        self.actions, self._result, self._steps, self._returns = [], None, 0, 0
        paths = layer_paths(self.model)
        for plan in self.schedule.values():
            plan.resolve(paths)
        if self.on_instability is None:
            return
        inside = inside_of(adapter_of(self.model), self.model)
        capture = capture_of(inside, self.window)
        if isinstance(capture, str):
            raise ModelError(f"Expected a fit that can be put back. Received: {capture}. Pass on_instability=None.")
        self._capture = capture

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Apply what is due; a fit that begins later takes up what would hold by then."""
        self._listens = True
        due = [each for each in self.schedule if each <= epoch]
        latest = max(due, default=None)
        if latest is not None and (latest == epoch or not any(row.metric == "precision_set" for row in self.actions)):
            plan = self.schedule[latest]
            self._apply(plan)
            self.actions.append(Measurement("fit", "precision_set", plan.default, epoch))

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Keep what is trained."""
        if self._capture is not None:
            if self._capture.is_full:
                self._look()  # before what is kept is let go
            self._capture.step_begin()

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Look whether the loss is finite."""
        self._steps += 1
        loss = (logs or {}).get("loss")
        if self._capture is not None and self._listens and loss is not None and not math.isfinite(float(loss)):
            self._listens = False  # the mean of the epoch stays as it is, unless it is begun anew
            self._go_back(self._capture)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Look whether the weights are."""
        self._look()

    def _look(self) -> None:
        if self._capture is not None and self._capture.batches and not self._capture.weights_are_finite():
            self._go_back(self._capture)

    def on_train_end(self, logs: Logs = None) -> None:
        """Let go of the model, and make the result."""
        if self._capture is not None:
            self._capture.remove()
            self._capture = None
        environment = adapter_of(self.model).compute.environment()
        self._result = Result("schedule", tuple(self.actions), environment, plan_of(self.model))

    def _go_back(self, capture: Capture) -> None:
        """Put the training back before the step that broke, with the layer to blame in float32."""
        if self._returns >= _MOST:
            return
        adapter = capture.inside.adapter
        broken = find_break(capture, Observer(adapter, self.model), trained=self._steps)
        if broken is None:
            return
        phase = None if broken.origin is None else broken.origin.phase
        saved = broken.step.weights_after  # by loss scaling, which has skipped the step
        if saved and phase not in ("forward", "loss"):
            return
        self._returns += 1
        if not saved:
            capture.restore(broken.step)
            self._listens = True
        finite = broken.step.loss is None or math.isfinite(broken.step.loss)
        self.actions += origin_rows(broken.origin, broken.number, loss_is_finite=finite)
        self._raise(broken)

    def _raise(self, broken: Broken) -> None:
        origin, plan = broken.origin, plan_of(self.model)
        if origin is not None and origin.phase == "data":
            return
        path = None if origin is None else origin.path or origin.near or None
        if path is not None and plan.precision_of(path) != "float32":
            raised = plan.with_layers({path: "float32"}, {path: f"not finite in step {broken.number}"})
        else:
            path, raised = "fit", PrecisionPlan.training("float32")
        if raised != plan:
            self._apply(raised)
            self.model.reset_metrics()
            self._listens = True
            self.actions.append(Measurement(path, "precision_raised", "float32", broken.number))

    def _apply(self, plan: PrecisionPlan) -> None:
        with trained_anew(self.model):
            apply_plan(self.model, plan, in_place=True)


def _checked(schedule: Any) -> dict[int, PrecisionPlan]:
    if not isinstance(schedule, Mapping):
        raise InputError(f"Expected a mapping of epochs to policies or plans. Received: {type(schedule).__name__}.")
    checked = {}
    for epoch, wanted in schedule.items():
        if not isinstance(epoch, int) or isinstance(epoch, bool) or epoch < 0:
            raise InputError(f"Expected epochs to be whole numbers >= 0. Received: {epoch!r}.")
        checked[epoch] = (
            wanted.expect("training") if isinstance(wanted, PrecisionPlan) else PrecisionPlan.training(wanted)
        )
    return checked
