"""foreseen_overflows: what a model in float32 would compute in float16, seen by computing it, also inside its layers."""

from collections.abc import Collection, Iterator

from keras_precision._adapters.model_view import ModelView
from keras_precision._adapters.rebuild import in_float16
from keras_precision._adapters.tracing.step_observer import Batch, StepObserver
from keras_precision.core.errors import ModelError
from keras_precision.core.observation import Observation, find_origin
from keras_precision.findings.finding import Finding
from keras_precision.findings.static_rules import overflow_inside

__all__ = ["foreseen_overflows"]

_MAX_LAYERS = 4  # each takes one more forward pass


def foreseen_overflows(
    view: ModelView, batch: Batch, observation: Observation, known: Collection[str]
) -> Iterator[Finding]:
    """Yield layers whose outputs are finite in float32, and not in float16: attention, recurrent cells, layers of one's own.

    The forward pass runs in a copy of the model in float16; each layer that overflows, and those ``known`` before, are put
    in float32 to find the next.
    """
    if not isinstance(view.model, view.adapter.functional_classes) or view.is_quantize_aware or view.is_tfmot:
        return
    largest = {call.path: max((each.largest for each in call.outputs), default=0.0) for call, _ in observation.outer()}
    lifted = [*known]
    for _ in range(_MAX_LAYERS):
        try:
            copy = in_float16(view.adapter, view.model, lifted)
            half = StepObserver(view.adapter, copy).observe(Batch(batch.x))
        except ModelError:  # a layer that cannot be copied, such as one with an unusual get_config
            return
        except (ValueError, TypeError, RuntimeError, NotImplementedError):
            # The backend has no float16 for an operation: JAX has none of attention on processors, "The precision
            # 'F16_F16_F32' is not supported by dot_general on CPU".
            return
        origin = find_origin(half)
        if origin is None or origin.path is None or origin.phase != "forward" or origin.path in lifted:
            return
        yield overflow_inside(origin, largest.get(origin.path, 0.0))
        lifted.append(origin.path)
