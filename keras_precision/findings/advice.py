"""Advice: the remedies of findings as Python that runs where ``model``, ``kp``, ``keras`` and ``np`` are known."""

__all__ = [
    "FINITE_DATA",
    "NEW_WEIGHTS",
    "NORMALIZED",
    "SCALED_WHERE_DUE",
    "WATCH_AGAIN",
    "in_float32",
    "in_policy",
    "slower",
    "with_clipped_outputs",
    "with_loss_scaling",
]

WATCH_AGAIN = "profiler = kp.PrecisionProfiler(layer_stats_every=100)  # fit again from the start: it names the layer"


def in_float32(*paths: str) -> str:
    """A copy of the model in which some layers are in float32, and the others as they are now."""
    layers = dict.fromkeys(paths, "float32")
    return f"model = kp.apply_plan(model, kp.plan_of(model).with_layers({layers}))"


def in_policy(policy: str) -> str:
    """A copy of the model in which layers in 16 bits have another policy; those in float32 stay."""
    return (
        "paths = kp.layer_paths(model)\n"
        "kept = {path: 'float32' for path in paths if paths[path].compute_dtype == 'float32'}\n"
        f"model = kp.apply_plan(model, kp.PrecisionPlan.training({policy!r}, layers=kept))"
    )


def with_loss_scaling(**options: str) -> str:
    """The model with loss scaling around the optimizer that it has."""
    arguments = "".join(f", {name}={value}" for name, value in options.items())
    return f"model = kp.recompile(model, loss_scaling=True{arguments})"


def slower(part: float) -> str:
    """A part of the learning rate, on new weights."""
    return f"{NEW_WEIGHTS}\nmodel.optimizer.learning_rate = {part:g} * float(model.optimizer.learning_rate)"


def with_clipped_outputs(high: str) -> str:
    """The loss computed from outputs of at least 1e-7 and at most ``high``."""
    return (
        "loss, clip = keras.losses.get(model.loss), getattr(keras, 'ops', keras.backend).clip\n"
        f"model = kp.recompile(model, loss=lambda y, outputs: loss(y, clip(outputs, 1e-7, {high})))"
    )


NEW_WEIGHTS = "model = kp.recompile(model, new_weights=True)  # these are lost"

FINITE_DATA = (
    "finite = [bool(np.isfinite(x[i]).all() and np.isfinite(y[i]).all()) for i in range(len(x))]\n"
    "x, y = x[np.array(finite)], y[np.array(finite)]"
)

SCALED_WHERE_DUE = "model = kp.apply_plan(model, kp.plan_of(model), in_place=True)  # which scales the loss where a layer is in float16"

NORMALIZED = (
    "normalization = keras.layers.Normalization(dtype='float32')\nnormalization.adapt(x)\n"
    "model = kp.recompile(keras.Sequential([keras.Input(x.shape[1:]), normalization, model]), like=model)"
)
