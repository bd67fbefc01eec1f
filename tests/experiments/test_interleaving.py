"""Turns: who trains when, and when there was enough of it, with workers that only say that they train."""

import math
import time
from typing import Any

import numpy as np
import pytest

from keras_precision.core.errors import WorkerError
from keras_precision.experiments.interleaving import settled, take_turns


class Told:
    """A worker that makes up its step times, and notes when it is asked."""

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
        if request == "turn":
            self.order.append(self.name)
        times = np.full(args[0], self.step_ms) * np.exp(self.rng.normal(0, self.noise) if self.noise else 0)
        times[0] *= 10  # cold caches
        return times.tolist()

    def close(self) -> None:
        self.closed = True


def test_runs_go_forth_and_back() -> None:
    """A B C, C B A: in each pair of rounds, each run is as often early as late."""
    order: list[str] = []
    turns = take_turns({name: Told(name, order) for name in "abc"}, resolution=0.02, seconds=60)
    assert "".join(order[:12]) == "abccbaabccba"
    assert len(order) == 3 * 12  # no noise: the least number of rounds is enough
    assert {name: len(rounds) for name, rounds in turns.rounds.items()} == {"a": 12, "b": 12, "c": 12}


def test_the_first_step_of_a_turn_does_not_count() -> None:
    """It finds cold caches; the figure of a round is a low quantile of the others."""
    turns = take_turns(
        {name: Told(name, [], step) for name, step in (("a", 2.0), ("b", 3.0))}, resolution=0.02, seconds=60
    )
    assert set(turns.rounds["a"]) == {2.0}
    assert set(turns.steps["b"]) == {3.0}


def test_a_turn_is_long_enough_but_not_longer() -> None:
    """Fast steps come in larger turns than slow ones, and each turn has some."""
    workers = {"fast": Told("fast", [], 0.001), "usual": Told("usual", [], 4.0), "slow": Told("slow", [], 900.0)}
    take_turns(workers, resolution=0.02, seconds=60)
    assert {name: each.requests[1] for name, each in workers.items()} == {
        "fast": ("turn", 201), "usual": ("turn", 11), "slow": ("turn", 5),
    }  # fmt: skip


def test_noisy_runs_take_more_rounds() -> None:
    """They go on until the interval is narrow."""
    noisy = {name: Told(name, [], noise=noise) for name, noise in (("a", 0.05), ("b", 0.001))}
    turns = take_turns(noisy, resolution=0.02, seconds=60)
    assert 12 < len(turns.rounds["a"]) < 400
    assert settled(turns.rounds["a"], [turns.rounds["b"]], 0.02)


def test_time_ends_it() -> None:
    """At the end of the seconds, or at the deadline, the pair of rounds that is needed is there, and no more."""
    for limits in ({"seconds": 0.0}, {"seconds": 60.0, "deadline": time.monotonic()}):
        workers = {name: Told(name, [], noise=0.5) for name in "ab"}
        turns = take_turns(workers, resolution=0.001, **limits)
        assert len(turns.rounds["a"]) == 4
        assert [each.requests[-1] for each in workers.values()] == [("stop",), ("stop",)]


def test_a_run_that_dies_is_left_out() -> None:
    """The others go on without it, and it is closed."""
    order: list[str] = []
    workers = {"a": Told("a", order), "b": Told("b", order, dies_after=3), "c": Told("c", order)}
    turns = take_turns(workers, resolution=0.02, seconds=60)
    assert turns.failed == {"b": "'b' died"}
    assert workers["b"].closed
    assert "".join(order[:10]) == "abccbaacca"
    assert len(turns.rounds["a"]) == len(turns.rounds["c"]) == 12


def test_nothing_is_compared_without_the_baseline() -> None:
    """Where the baseline dies, the turns end."""
    workers = {"a": Told("a", [], dies_after=4), "b": Told("b", [])}
    turns = take_turns(workers, resolution=0.02, seconds=60)
    assert list(turns.failed) == ["a"]
    assert workers["b"].requests[-1] == ("stop",)


@pytest.mark.parametrize(("spread", "narrow"), [(0.001, True), (0.2, False)])
def test_only_the_width_counts(spread: float, narrow: bool) -> None:
    """A large difference does not end the rounds sooner than none."""
    noise = np.exp(np.random.default_rng(0).normal(0, spread, 20))
    for factor in (1.0, 3.0):
        assert settled([1.0] * 20, [(factor * noise).tolist()], 0.02) == narrow
