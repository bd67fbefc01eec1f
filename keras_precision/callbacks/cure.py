"""Cure: the layers that must leave 16 bits for a training step to be finite, found by trials on a copy of the model."""

import time
from collections.abc import Iterator

from keras_precision._adapters.layer_paths import plan_of
from keras_precision._adapters.tracing.step_observer import StepObserver
from keras_precision.callbacks.first_failure import FailedStep
from keras_precision.callbacks.probes.probe import FitState
from keras_precision.core.errors import PrecisionError
from keras_precision.core.observation import NonFiniteOrigin, find_origin
from keras_precision.core.plan import PrecisionPlan
from keras_precision.core.result import Measurement
from keras_precision.mixed_precision.apply_plan import apply_plan

__all__ = ["cure_rows"]

_MAX_LAYERS = 8  # lifted to float32: a model that needs more of them is better trained in another policy


def cure_rows(fit: FitState, failed: FailedStep, deadline: float) -> Iterator[Measurement]:
    """Yield the layers that must be in float32 for a failed step to be finite, or that float32 does not help.

    The layer that breaks is lifted, then the one that breaks next, until none does. Nothing is yielded where the step
    cannot be repeated on a copy, or the time is over; ``deadline`` is one of ``time.monotonic``.
    """
    if not failed.step.weights_after:  # copies have the weights of now, with which every step fails
        return
    lifted: list[str] = []
    try:
        plan, origin = plan_of(fit.model), failed.origin
        while origin is not None and (path := origin.path or origin.near) and path not in lifted:
            if len(lifted) == _MAX_LAYERS or time.monotonic() > deadline:
                return
            lifted.append(path)
            origin = _origin_under(plan.with_layers(dict.fromkeys(lifted, "float32")), fit, failed)
        if origin is None:
            yield from (Measurement(path, "cured_in", "float32", failed.number) for path in lifted)
        elif time.monotonic() <= deadline and _origin_under(PrecisionPlan.training("float32"), fit, failed) is not None:
            yield Measurement("fit", "breaks_in_float32", 1, failed.number)
    except PrecisionError:  # the model cannot be copied, or not in such a plan
        return


def _origin_under(plan: PrecisionPlan, fit: FitState, failed: FailedStep) -> NonFiniteOrigin | None:
    """Repeat a failed step on a copy of the model in another plan."""
    copy = apply_plan(fit.model, plan)
    return find_origin(StepObserver(fit.adapter, copy).observe(failed.step.batch, scale=failed.step.scale or 1.0))
