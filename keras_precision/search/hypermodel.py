"""PrecisionHyperModel: training precisions as hyperparameters of the user's model."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from keras_precision._adapters import adapter_of
from keras_precision._adapters.layer_paths import layer_paths
from keras_precision.callbacks.profiler import PrecisionProfiler
from keras_precision.core.errors import InputError
from keras_precision.core.plan import TRAINING_PRECISIONS, PrecisionPlan, check_precision
from keras_precision.core.system.optional import require
from keras_precision.mixed_precision.apply_plan import apply_plan
from keras_precision.mixed_precision.policy import precision
from keras_precision.search.groups import GROUPINGS, Grouping, group_layers

__all__ = ["PrecisionHyperModel"]

_tuner: Any = require("keras_tuner", extra="search")


class PrecisionHyperModel(_tuner.HyperModel):
    """Adds a training precision for the model, or for every group of its layers, to a hypermodel.

    Any tuner of KerasTuner then chooses the precision together with all other hyperparameters. The policies are set in
    ``build``, because KerasTuner resets the global policy between trials. ``kp.PrecisionProfiler`` watches every trial;
    its metrics (``step_time_ms``, ``skipped_steps`` and so on) are metrics of the trial. A trial whose loss becomes NaN
    or infinite is a failed trial, and its message lists the profiler's findings.

    Args:
        build: A function of ``hp`` that returns a compiled model, or a ``keras_tuner.HyperModel``.
        precisions: Names of policies to choose from.
        groups: ``"model"`` (one choice for all layers), ``"layer"`` (one per layer with weights), ``"block"``,
            ``"repeated"``, or a dict of group name to a regular expression for whole layer paths; see docs/search.md.
        default: The policy of layers outside all groups, and the value that oracles start with.
        name: As in KerasTuner.
        tunable: As in KerasTuner.

    Raises:
        InputError: An argument cannot be used.
        UnknownPrecisionError: A precision is not a training precision.
        MissingExtraError: KerasTuner is not installed.

    Example:
        >>> import keras, keras_tuner
        >>> def build(hp):
        ...     layers = [keras.Input((4,)), keras.layers.Dense(hp.Int("units", 4, 8), name="body"), keras.layers.Dense(2, name="head")]
        ...     model = keras.Sequential(layers)
        ...     model.compile("sgd", "mse")
        ...     return model
        >>> hp = keras_tuner.HyperParameters()
        >>> built = PrecisionHyperModel(build, ("float32", "mixed_bfloat16"), groups={"body": "body"}).build(hp)
        >>> sorted(hp.values.items())
        [('precision/body', 'float32'), ('units', 4)]
    """

    def __init__(
        self,
        build: Callable[[Any], Any] | Any,
        precisions: Sequence[str] = TRAINING_PRECISIONS,
        *,
        groups: Grouping = "model",
        default: str = "float32",
        name: str | None = None,
        tunable: bool = True,
    ) -> None:
        super().__init__(name=name, tunable=tunable)
        for policy in (*precisions, default):
            check_precision(policy, "training", "a precision")
        if isinstance(precisions, str) or len(set(precisions)) < 2:
            raise InputError(f"Expected two or more precisions to choose from. Received: {precisions!r}.")
        if isinstance(groups, str) and groups not in GROUPINGS:
            group_layers({}, groups)  # raises the error that lists the groupings
        if not callable(build) and not hasattr(build, "build"):
            raise InputError(f"Expected a function of hp, or a keras_tuner.HyperModel. Received: {build!r}.")
        self._hypermodel: Any = build if hasattr(build, "build") else None
        self._build_function: Any = build
        self._precisions, self._groups, self._default = tuple(precisions), groups, default

    def build(self, hp: Any) -> Any:
        """Build the user's model in float32, and apply the plan that the hyperparameters describe.

        Every group adds the hyperparameter ``precision/NAME``.

        Raises:
            ModelError: The model cannot be rebuilt from its configuration.
            PlanNotHonouredError: A layer ignores its precision.
        """
        with precision("float32"):
            model = self._hypermodel.build(hp) if self._hypermodel is not None else self._build_function(hp)
        layers = {}
        default = self._default if self._default in self._precisions else self._precisions[0]
        for group, paths in group_layers(layer_paths(model), self._groups).items():
            chosen = hp.Choice(f"precision/{group}", list(self._precisions), default=default)
            layers.update(dict.fromkeys(paths, chosen))
        if self._groups == "model":
            return apply_plan(model, PrecisionPlan.training(set(layers.values()).pop()))
        return apply_plan(model, PrecisionPlan.training(self._default, layers=layers))

    def fit(self, hp: Any, model: Any, *args: Any, **options: Any) -> Any:
        """Train the model of a trial under the profiler; return what the user's ``fit`` returns, or Keras's history.

        Raises:
            FailedTrialError: The loss became NaN or infinite.
        """
        profiler = PrecisionProfiler("trial", log_metrics=True, verbose=0)
        stop = adapter_of(model).keras.callbacks.TerminateOnNaN()
        options["callbacks"] = [stop, profiler, *(options.get("callbacks") or [])]
        train = self._hypermodel.fit if self._hypermodel is not None else super().fit
        history = train(hp, model, *args, **options)
        losses = getattr(history, "history", {}).get("loss", [])
        if losses and not math.isfinite(float(losses[-1])):
            findings = "; ".join(f"{finding.message} {finding.advice}" for finding in profiler.findings)
            raise _tuner.errors.FailedTrialError(
                f"Expected a loss that stays finite. Received: {losses[-1]} in epoch {len(losses)}. {findings}".rstrip()
            )
        return history
