"""PrecisionHyperModel: training precisions as hyperparameters of a user's own model."""

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
from keras_precision.search.groups import GROUPINGS, Grouping, grouped

__all__ = ["PrecisionHyperModel"]

_tuner: Any = require("keras_tuner", extra="search")


class PrecisionHyperModel(_tuner.HyperModel):
    """Adds a training precision for the model, or for each group of its layers, to a hypermodel.

    Any tuner of KerasTuner then chooses precision together with everything else. The policies are set in ``build``:
    KerasTuner resets the global one between trials. Each trial is watched by ``kp.PrecisionProfiler``, whose figures
    (``step_time_ms``, ``skipped_steps`` and so on) are metrics of the trial; a trial whose loss becomes NaN or infinite
    is a failed trial, and its message says what was found.

    Args:
        build: A function of ``hp`` that returns a compiled model, or a ``keras_tuner.HyperModel``.
        precisions: Names of policies to choose from.
        groups: ``"model"`` (one choice for all), ``"layer"`` (each layer with weights), ``"block"``, ``"repeated"``, or
            the name of each group to a regular expression for whole layer paths; see docs/search.md.
        default: The policy of layers in no group, and the value that oracles begin with.
        name: As in KerasTuner.
        tunable: As in KerasTuner.

    Raises:
        InputError: An argument cannot be used.
        UnknownPrecisionError: A precision is no training precision.
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
        for each in (*precisions, default):
            check_precision(each, "training", "a precision")
        if isinstance(precisions, str) or len(set(precisions)) < 2:
            raise InputError(f"Expected two or more precisions to choose from. Received: {precisions!r}.")
        if isinstance(groups, str) and groups not in GROUPINGS:
            grouped({}, groups)  # raises
        if not callable(build) and not hasattr(build, "build"):
            raise InputError(f"Expected a function of hp, or a keras_tuner.HyperModel. Received: {build!r}.")
        self._inner: Any = build if hasattr(build, "build") else None
        self._function: Any = build
        self._precisions, self._groups, self._default = tuple(precisions), groups, default

    def build(self, hp: Any) -> Any:
        """Build the user's model in float32, and apply the plan that the hyperparameters stand for.

        Args:
            hp: KerasTuner's hyperparameters; each group adds ``precision/NAME``.

        Returns:
            The model in the plan.

        Raises:
            ModelError: The model cannot be made from its configuration.
            PlanNotHonouredError: A layer does not take its precision.
        """
        with precision("float32"):
            model = self._inner.build(hp) if self._inner is not None else self._function(hp)
        layers = {}
        usual = self._default if self._default in self._precisions else self._precisions[0]
        for group, paths in grouped(layer_paths(model), self._groups).items():
            chosen = hp.Choice(f"precision/{group}", list(self._precisions), default=usual)
            layers.update(dict.fromkeys(paths, chosen))
        whole = set(layers.values())
        if self._groups == "model":
            return apply_plan(model, PrecisionPlan.training(whole.pop()))
        return apply_plan(model, PrecisionPlan.training(self._default, layers=layers))

    def fit(self, hp: Any, model: Any, *args: Any, **options: Any) -> Any:
        """Train a trial's model, and watch it.

        Args:
            hp: KerasTuner's hyperparameters.
            model: What ``build`` returned.
            *args: As for ``fit``.
            **options: As for ``fit``.

        Returns:
            What the user's own ``fit`` returns, or Keras's.

        Raises:
            FailedTrialError: The loss became NaN or infinite.
        """
        profiler = PrecisionProfiler("trial", log_metrics=True, verbose=0)
        stop = adapter_of(model).keras.callbacks.TerminateOnNaN()
        options["callbacks"] = [stop, profiler, *(options.get("callbacks") or [])]
        train = self._inner.fit if self._inner is not None else super().fit
        history = train(hp, model, *args, **options)
        losses = getattr(history, "history", {}).get("loss", [])
        if losses and not math.isfinite(float(losses[-1])):
            told = "; ".join(f"{each.message} {each.advice}" for each in profiler.findings)
            raise _tuner.errors.FailedTrialError(
                f"Expected a loss that stays finite. Received: {losses[-1]} in epoch {len(losses)}. {told}".rstrip()
            )
        return history
