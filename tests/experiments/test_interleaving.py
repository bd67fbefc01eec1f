"""Interleaving: order, length and end of blocks, with workers that return scripted times."""

import math
import time
from typing import Any

import numpy as np
import pytest

from keras_precision.core.errors import WorkerError
from keras_precision.experiments.interleaving import interleave, is_resolved


class ScriptedRun:
    """A worker with scripted step times, which records its requests."""

    def __init__(
        self, name: str, order: list[str], step_ms: float = 1.0, noise: float = 0.0, dies_after: float = math.inf
    ) -> None:
        self.name, self.order, self.step_ms, self.noise, self.left = name, order, step_ms, noise, dies_after
        self.rng = np.random.default_rng(0)
        self.requests: list[tuple[str, Any]] = []
        self.closed = False

    def ask(self, request: str, *args: Any, deadline: float | None = None) -> Any:
        self.requests.append((request, *args))
        if request == "stop":
            return None
        self.left -= 1
        if self.left < 0:
            raise WorkerError(f"'{self.name}' died")
        if request == "block":
            self.order.append(self.name)
        durations = np.full(args[0], self.step_ms) * np.exp(self.rng.normal(0, self.noise) if self.noise else 0)
        durations[0] *= 10  # cold caches
        return durations.tolist()

    def close(self) -> None:
        self.closed = True


def test_runs_are_interleaved() -> None:
    """A B C, C B A: in each pair of rounds, each run is as often early as late."""
    order: list[str] = []
    times = interleave({name: ScriptedRun(name, order) for name in "abc"}, resolution=0.02, seconds=60)
    assert "".join(order[:12]) == "abccbaabccba"
    assert len(order) == 3 * 12  # no noise: the least number of rounds is enough
    assert {name: len(rounds) for name, rounds in times.rounds.items()} == {"a": 12, "b": 12, "c": 12}


def test_the_first_step_of_a_block_does_not_count() -> None:
    """It finds cold caches; the figure of a round is a low quantile of the others."""
    times = interleave(
        {name: ScriptedRun(name, [], step) for name, step in (("a", 2.0), ("b", 3.0))}, resolution=0.02, seconds=60
    )
    assert set(times.rounds["a"]) == {2.0}
    assert set(times.steps["b"]) == {3.0}


def test_a_block_is_long_enough_but_not_longer() -> None:
    """Fast steps come in larger blocks than slow ones, and every block has some."""
    workers = {
        "fast": ScriptedRun("fast", [], 0.001),
        "usual": ScriptedRun("usual", [], 4.0),
        "slow": ScriptedRun("slow", [], 900.0),
    }
    interleave(workers, resolution=0.02, seconds=60)
    assert {name: run.requests[1] for name, run in workers.items()} == {
        "fast": ("block", 201), "usual": ("block", 11), "slow": ("block", 5),
    }  # fmt: skip


def test_noisy_runs_take_more_rounds() -> None:
    """They go on until the interval is narrow."""
    noisy = {name: ScriptedRun(name, [], noise=noise) for name, noise in (("a", 0.05), ("b", 0.001))}
    times = interleave(noisy, resolution=0.02, seconds=60)
    assert 12 < len(times.rounds["a"]) < 400
    assert is_resolved(times.rounds["a"], [times.rounds["b"]], 0.02)


def test_time_ends_it() -> None:
    """At the end of the seconds, or at the deadline, the pair of rounds that is needed is there, and no more."""
    for limits in ({"seconds": 0.0}, {"seconds": 60.0, "deadline": time.monotonic()}):
        workers = {name: ScriptedRun(name, [], noise=0.5) for name in "ab"}
        times = interleave(workers, resolution=0.001, **limits)
        assert len(times.rounds["a"]) == 4
        assert [run.requests[-1] for run in workers.values()] == [("stop",), ("stop",)]


def test_a_run_that_dies_is_left_out() -> None:
    """The others go on without it, and it is closed."""
    order: list[str] = []
    workers = {"a": ScriptedRun("a", order), "b": ScriptedRun("b", order, dies_after=3), "c": ScriptedRun("c", order)}
    times = interleave(workers, resolution=0.02, seconds=60)
    assert times.failed == {"b": "'b' died"}
    assert workers["b"].closed
    assert "".join(order[:10]) == "abccbaacca"
    assert len(times.rounds["a"]) == len(times.rounds["c"]) == 12


def test_nothing_is_compared_without_the_baseline() -> None:
    """Where the baseline dies, the timing ends."""
    workers = {"a": ScriptedRun("a", [], dies_after=4), "b": ScriptedRun("b", [])}
    times = interleave(workers, resolution=0.02, seconds=60)
    assert list(times.failed) == ["a"]
    assert workers["b"].requests[-1] == ("stop",)


@pytest.mark.parametrize(("spread", "narrow"), [(0.001, True), (0.2, False)])
def test_only_the_width_counts(spread: float, narrow: bool) -> None:
    """A large difference does not end the rounds sooner than none."""
    noise = np.exp(np.random.default_rng(0).normal(0, spread, 20))
    for factor in (1.0, 3.0):
        assert is_resolved([1.0] * 20, [(factor * noise).tolist()], 0.02) == narrow
