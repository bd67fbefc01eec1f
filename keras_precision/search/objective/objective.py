"""SearchObjective: the validated objective, metric and budget of a search."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keras_precision._adapters import adapter_of
from keras_precision._adapters.rebuild import compile_argument
from keras_precision.core.errors import InputError, nearest
from keras_precision.search.objective.budget import Budget
from keras_precision.search.objective.goal import Goal
from keras_precision.search.objective.score import Score, score_of

__all__ = ["SearchObjective", "search_objective"]

_COSTS = ("size_bytes", "latency_ms", "bit_operations")
_DEPLOYMENT_FIGURES = (*_COSTS, "divergence", "front")
_TRAINING_FIGURES = ("step_time_ratio", "peak_memory_ratio")


@dataclass(frozen=True)
class SearchObjective:
    """What a search optimizes: a figure (or ``"front"``) within a budget; ``latency`` says whether files must be timed."""

    figure: str
    direction: str
    budget: Budget
    score: Score | None
    latency: bool

    def goal(self, reference: dict[str, float]) -> Goal:
        """Return the goal in the unit of the float model's figures."""
        scale = max(1e-6, abs(reference.get(self.figure, 1.0)) or 1.0)
        return Goal(self.figure, self.direction, self.budget, scale)

    def described(self) -> dict[str, str]:
        """Return objective, budget and metric as text, as part of a search's identity."""
        return {
            "objective": f"{self.figure}:{self.direction}",
            "budget": str(self.budget),
            "metric": self.score.name if self.score else "none",
        }


def search_objective(
    model: Any, budget: Budget | None, objective: Any, metric: Any, *, training: bool = False
) -> SearchObjective:
    """Validate budget, objective and metric of a search, and return them with defaults.

    The objective is a figure, ``"front"``, the name of a compiled metric (with or without ``val_``), or a
    ``keras_tuner.Objective``. None is the smallest file if the budget limits quality, the best quality if it limits
    costs, and the front if it limits nothing. A metric of None is that of the objective, or the first compiled one.
    The figures of training plans are ratios of time and memory to the baseline.
    """
    adapter_of(model)
    limits = Budget() if budget is None else budget
    if not isinstance(limits, Budget):
        raise InputError(f"Expected a budget such as kp.Budget(max_size_bytes=50_000). Received: {budget!r}.")
    name, direction = _name_and_direction(objective)
    known = _TRAINING_FIGURES if training else _DEPLOYMENT_FIGURES
    score = None
    if metric is not None or (name is not None and name not in known):
        score = score_of(model, name if metric is None else metric, direction if name not in known else None)
    elif training or limits.max_metric_drop is not None:
        score = score_of(model, _first_compiled(model, or_loss=training))
    figure = score.name if score is not None and _is_name_of(score, name, metric, known) else name
    if figure is None:
        figure = known[0] if training else _default_figure(limits, score)
    if score is not None and figure == score.name:
        direction = score.direction
    elif figure in known and direction not in (None, "min"):
        raise InputError(
            f"Expected the direction 'min' for the objective '{figure}'. Received: {direction!r}. Leave the direction out."
        )
    elif figure not in known:
        raise InputError(
            f"Expected the objective to be the metric, or one of {', '.join(known)}. Received: '{figure}', with the metric "
            f"'{score.name if score else None}'. {nearest(figure, known)}".rstrip()
        )
    if training and set(limits.limits()) - {"metric_drop"}:
        raise InputError(
            f"Expected a budget of max_metric_drop for training plans. Received: {limits}. Sizes and latencies are those of files; "
            "leave them out, or search for deployment plans."
        )
    latency = figure == "latency_ms" or limits.max_latency_ms is not None
    return SearchObjective(figure, direction or "min", limits, score, latency)


def _name_and_direction(objective: Any) -> tuple[str | None, str | None]:
    """Return the name without ``val_``, and the direction if it is an objective of KerasTuner."""
    if objective is None:
        return None, None
    name = objective if isinstance(objective, str) else getattr(objective, "name", None)
    if not isinstance(name, str) or isinstance(objective, list | tuple):
        raise InputError(
            f"Expected one objective: its name, or a keras_tuner.Objective. Received: {objective!r}. "
            "For several at once, pass objective='front'."
        )
    return name.removeprefix("val_"), None if isinstance(objective, str) else str(objective.direction)


def _is_name_of(score: Score, name: str | None, metric: Any, figures: Sequence[str]) -> bool:
    """Whether the name of an objective means the metric and not a figure of the search."""
    if name is None or name in figures:
        return False
    return metric is None or name in (score.name, score.logged, metric if isinstance(metric, str) else score.name)


def _default_figure(budget: Budget, score: Score | None) -> str:
    if budget.max_metric_drop is not None or budget.max_divergence is not None:
        return "size_bytes"
    if budget.max_size_bytes is not None or budget.max_latency_ms is not None:
        return score.name if score is not None else "divergence"
    return "front"


def _first_compiled(model: Any, *, or_loss: bool = False) -> Any:
    metrics = compile_argument(model, "metrics")
    if isinstance(metrics, list | tuple) and metrics and not isinstance(metrics[0], list | tuple | dict):
        return metrics[0]
    if or_loss:
        return "loss"
    raise InputError(
        f"Expected a metric for max_metric_drop. Received: the model '{model.name}', which is compiled with none. Compile it "
        "with metrics=[...], or pass metric='loss' or a metric of Keras. Without labels, limit max_divergence."
    )
