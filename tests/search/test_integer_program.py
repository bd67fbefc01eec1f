"""The integer program, compared with all possible choices."""

import itertools

import numpy as np
import pytest

from keras_precision.search.strategy.integer_program import Program

UNITS, CHOICES = 5, 3


@pytest.fixture
def program(rng):
    """Five units with three columns per unit, whose errors pile up and cancel."""
    errors = rng.normal(size=(UNITS * CHOICES, 6))
    errors[::CHOICES] = 0  # the first column of every unit is the start
    start = rng.normal(size=6)
    costs = rng.uniform(1, 5, size=(2, UNITS * CHOICES))
    numbers = np.repeat(np.arange(UNITS), CHOICES)
    return Program(numbers, errors @ errors.T, errors @ start, float(start @ start), costs)


def everything():
    """Yield all choices of one column per unit."""
    return itertools.product(*(range(unit * CHOICES, (unit + 1) * CHOICES) for unit in range(UNITS)))


@pytest.mark.parametrize("share", [0.5, 0.6, 0.8, np.inf])
def test_the_optimum_within_limits_is_reached(program, share):
    """No choice within the limits has less, and the bound says so."""
    costs = np.array([program.cost(picked) for picked in everything()])
    limits = costs.min(axis=0) + share * np.ptp(costs, axis=0) if np.isfinite(share) else np.array([np.inf, np.inf])
    allowed = [picked for picked, cost in zip(everything(), costs, strict=True) if np.all(cost <= limits)]
    best = min(map(program.value, allowed))
    solution = program.solve(limits)
    assert solution.value == pytest.approx(best)
    assert solution.bound == pytest.approx(best, abs=1e-6)
    assert np.all(program.cost(solution.picked) <= limits + 1e-9)


def test_limits_that_nothing_meets_have_no_solution(program):
    """Where no choice keeps within the limits, there is none."""
    assert program.solve([0.0, 0.0]) is None


def test_neighbours_differ_in_one_unit_or_two_and_are_valued_right(program):
    """The values of neighbours are those of the quadratic form, and no neighbour occurs twice."""
    start = tuple(range(0, UNITS * CHOICES, CHOICES))
    neighbours = program.neighbours(start)
    assert len(neighbours) == len({picked for picked, _ in neighbours}) == 10 + 10 * 4
    for picked, value in neighbours:
        assert 1 <= sum(one != other for one, other in zip(picked, start, strict=True)) <= 2
        assert value == pytest.approx(program.value(picked))


def test_many_products_are_solved_by_moves(rng):
    """A program of forty units with products of all of them ends where no move of one or two units helps."""
    errors = rng.normal(size=(80, 10))
    errors[::2] = 0
    costs = np.where(np.arange(80) % 2, 1.0, 2.0)
    program = Program(np.repeat(np.arange(40), 2), errors @ errors.T, np.zeros(80), 0.0, costs)
    solution = program.solve([60.0])
    assert solution.bound == -np.inf
    assert program.cost(solution.picked)[0] <= 60
    for picked, value in program.neighbours(solution.picked):
        assert value >= solution.value - 1e-9 or program.cost(picked)[0] > 60
