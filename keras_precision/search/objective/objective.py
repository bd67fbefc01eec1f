"""Wishes: what a search is asked for, in KerasTuner's words and ours, checked before any work is done."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keras_precision._adapters import adapter_of
from keras_precision._adapters.rebuild import compile_argument
from keras_precision.core.errors import InputError, nearest
from keras_precision.search.objective.budget import Budget
from keras_precision.search.objective.goal import Goal
from keras_precision.search.objective.score import Score, score_of

__all__ = ["Wishes", "wishes_of"]

_COSTS = ("size_bytes", "latency_ms", "bit_operations")
_OWN = (*_COSTS, "divergence", "front")
_OF_TRAINING = ("step_time_ratio", "peak_memory_ratio")


@dataclass(frozen=True)
class Wishes:
    """What a search is asked for.

    Attributes:
        figure: What is to be made as good as possible, or ``"front"``.
        direction: ``"min"`` or ``"max"``.
        budget: What must be kept.
        score: The metric of labels; None where none is needed.
        latency: Whether files must be timed.
    """

    figure: str
    direction: str
    budget: Budget
    score: Score | None
    latency: bool

    def goal(self, reference: dict[str, float]) -> Goal:
        """Return which of two plans is the better one.

        Args:
            reference: The figures of the float model.

        Returns:
            The goal, in the unit of those figures.
        """
        scale = max(1e-6, abs(reference.get(self.figure, 1.0)) or 1.0)
        return Goal(self.figure, self.direction, self.budget, scale)

    def described(self) -> dict[str, str]:
        """Return the wishes as text, to tell searches apart.

        Returns:
            Objective, budget and metric.
        """
        return {
            "objective": f"{self.figure}:{self.direction}",
            "budget": str(self.budget),
            "metric": self.score.name if self.score else "none",
        }


def wishes_of(model: Any, budget: Budget | None, objective: Any, metric: Any, *, training: bool = False) -> Wishes:
    """Return what is asked for.

    Args:
        model: The model.
        budget: What must be kept; None for no limit.
        objective: One of our figures, ``"front"``, the name of a compiled metric (with or without ``val_``), or a
            ``keras_tuner.Objective``; None: the smallest file where quality is limited, the best quality where costs
            are, and the whole front where nothing is.
        metric: The metric of labels; None for that of the objective, or the first compiled one where it is needed.
        training: Whether plans are of training, whose own figures are ratios of time and memory to the baseline.

    Returns:
        The wishes.

    Raises:
        InputError: The budget, the objective or the metric cannot be used, or they contradict one another.
    """
    adapter_of(model)
    kept = Budget() if budget is None else budget
    if not isinstance(kept, Budget):
        raise InputError(f"Expected a budget such as kp.Budget(max_size_bytes=50_000). Received: {budget!r}.")
    name, direction = _named(objective)
    own = _OF_TRAINING if training else _OWN
    score = None
    if metric is not None or (name is not None and name not in own):
        asked = name if metric is None else metric
        score = score_of(model, asked, direction if name not in own else None)
    elif training or kept.max_metric_drop is not None:
        score = score_of(model, _first_compiled(model, or_loss=training))
    figure = score.name if score is not None and _is_of(score, name, metric, own) else name
    if figure is None:
        figure = own[0] if training else _usual(kept, score)
    if score is not None and figure == score.name:
        direction = score.direction
    elif figure in own and direction not in (None, "min"):
        raise InputError(f"Expected the direction 'min' for the objective '{figure}'. Received: {direction!r}.")
    elif figure not in own:
        raise InputError(
            f"Expected the objective to be the metric, or one of {', '.join(own)}. Received: '{figure}', with the metric "
            f"'{score.name if score else None}'. {nearest(figure, own)}".rstrip()
        )
    if training and set(kept.limits()) - {"metric_drop"}:
        raise InputError(
            f"Expected a budget of max_metric_drop, where plans are of training. Received: {kept}. Sizes and latencies are of files."
        )
    latency = figure == "latency_ms" or kept.max_latency_ms is not None
    return Wishes(figure, direction or "min", kept, score, latency)


def _named(objective: Any) -> tuple[str | None, str | None]:
    """Name and direction; that of KerasTuner's own objective."""
    if objective is None:
        return None, None
    name = objective if isinstance(objective, str) else getattr(objective, "name", None)
    if not isinstance(name, str) or isinstance(objective, list | tuple):
        raise InputError(
            f"Expected one objective: its name, or a keras_tuner.Objective. Received: {objective!r}. "
            "For several at once, ask for objective='front'."
        )
    bare = name.removeprefix("val_")
    return bare, None if isinstance(objective, str) else str(objective.direction)


def _is_of(score: Score, name: str | None, metric: Any, own: Sequence[str]) -> bool:
    """Whether the name of an objective is that of the metric: the score was made from it, or is called so."""
    if name is None or name in own:
        return False
    return metric is None or name in (score.name, score.logged, metric if isinstance(metric, str) else score.name)


def _usual(budget: Budget, score: Score | None) -> str:
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
