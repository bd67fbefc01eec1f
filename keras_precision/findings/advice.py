"""Advice: the remedies of findings as Python that runs where ``model``, ``kp``, ``keras`` and ``np`` are known."""

__all__ = ["WATCH_AGAIN", "in_float32", "in_policy", "with_loss_scaling"]

WATCH_AGAIN = "profiler = kp.PrecisionProfiler(layer_stats_every=100)  # fit again from the start: it names the layer"


def in_float32(*paths: str) -> str:
    """A copy of the model in which some layers are in float32, and the others as they are now."""
    layers = dict.fromkeys(paths, "float32")
    return f"model = kp.apply_plan(model, kp.plan_of(model).with_layers({layers}))"


def in_policy(policy: str) -> str:
    """A copy of the model in which all layers have a policy."""
    return f"model = kp.apply_plan(model, kp.PrecisionPlan.training('{policy}'))"


def with_loss_scaling(**options: str) -> str:
    """The model compiled with loss scaling around the optimizer that it has."""
    arguments = "".join(f", {name}={value}" for name, value in options.items())
    inner = "getattr(model.optimizer, 'inner_optimizer', model.optimizer)"
    return f"model.compile(kp.LossScaleOptimizer({inner}{arguments}), loss=model.loss)  # and your metrics"
