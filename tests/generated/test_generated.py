"""Fixed generated models, on every stack: what holds for each of them, judged by runtimes driven by hand."""

import os

import pytest

from generated.description import identity, stored
from generated.grammar import first_descriptions
from generated.invariants import checks_on
from generated.shrink import shrunk
from generated.worker import PROCESS, Worker

STACK = os.environ.setdefault("KERAS_PRECISION_STACK", "tensorflow")
CASES = stored(STACK)


@pytest.fixture(scope="module")
def worker():
    """A process that checks models one after the other."""
    with Worker(STACK) as started:
        yield started


@pytest.mark.every_stack
@pytest.mark.parametrize("name", CASES)
def test_every_invariant_holds(worker, name):
    """A model of the grammar breaks no invariant that its case names: all of its stack's, where it names none."""
    case = CASES[name]
    checks = case.get("checks", checks_on(STACK))
    answer = worker.check(case["description"], checks)
    assert "invalid" not in answer, answer["invalid"]
    broken = {key: row["reason"] for key, row in answer["verdicts"].items() if row["verdict"] == "violated"}
    assert not broken
    assert {*checks, PROCESS} == set(answer["verdicts"])


def test_descriptions_are_the_same_each_time():
    """The same numbers give the same models, no two of them alike."""
    first, again = first_descriptions(20, 3), first_descriptions(20, 3)
    assert first == again
    assert len({identity(description) for description in first}) == 20


def test_what_is_left_out_is_not_needed():
    """A failure of one layer is shrunk to that layer, with the inputs that it needs."""
    description = next(
        description
        for description in first_descriptions(40)
        if len(description["inputs"]) > 1 and any(node["layer"] == "Normalization" for node in description["nodes"])
    )
    small = shrunk(description, lambda candidate: any(node["layer"] == "Normalization" for node in candidate["nodes"]))
    assert [node["layer"] for node in small["nodes"]] == ["Normalization"]
    assert (len(small["inputs"]), small["outputs"]) == (1, [1])


def test_a_process_that_ends_is_a_verdict(monkeypatch):
    """A check that ends the process is named, and the next model gets a new process."""
    with Worker(STACK) as started:
        started.check(first_descriptions(1)[0], [])
        started._child.kill()
        started._child.wait()  # until then it may still take a request, and end with that
        answer = started.check(first_descriptions(1)[0], [])
        assert answer["verdicts"][PROCESS]["verdict"] == "holds"
