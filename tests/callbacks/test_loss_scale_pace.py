"""How often the count of skipped steps is read, with a clock and a count of the test's own."""

from contextlib import ExitStack, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from keras_precision._adapters.training.batch_loss import BatchLoss
from keras_precision._adapters.training.loss_scaling import LossScaling
from keras_precision.callbacks.probes import loss_scale
from keras_precision.callbacks.probes.loss_scale import LossScaleProbe


class _Planned(LossScaling):
    """Skips the steps of its plan, and records when it was read."""

    source = "planned"

    def __init__(self, *skipped: int) -> None:
        self.planned, self.looks = skipped, []

    def begin(self) -> None:
        pass

    def scale(self) -> float | None:
        return 1.0

    def skipped(self, batches: int | None) -> int | None:
        self.looks.append(batches)
        return sum(step <= batches for step in self.planned)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still."""
    clock = SimpleNamespace(time=0.0)
    monkeypatch.setattr(loss_scale, "monotonic", lambda: clock.time)
    return clock


def run(probe: LossScaleProbe, scaling: _Planned, steps: int, clock: Any, seconds: float = 0.0) -> list[int]:
    """Train a fit that is not there; return after which batches the count was read."""
    adapter = SimpleNamespace(
        has_own_train_step=lambda model: False,
        loss_scaling=lambda model, optimizer: scaling,
        batch_loss=lambda model: nullcontext(BatchLoss()),
    )
    fit: Any = SimpleNamespace(
        model=None, optimizer=None, adapter=adapter, own_loop=False, batches=0, batches_exact=True, loss=1.0
    )
    with ExitStack() as fit.resources:
        probe.begin(fit)
        for _ in range(steps):
            clock.time += seconds
            fit.batches += 1
            probe.step_end(1)
    return scaling.looks


def test_looks_become_rarer_while_nothing_is_skipped(now: SimpleNamespace) -> None:
    """After 64 clean batches the next look is after 128, and never after more than 256."""
    assert run(LossScaleProbe(), _Planned(), 1000, now) == [64, 192, 448, 704, 960]


def test_a_skip_brings_the_looks_back(now: SimpleNamespace) -> None:
    """A look that shows a skipped step is followed by one after 64 batches."""
    probe = LossScaleProbe()
    assert run(probe, _Planned(200), 600, now) == [64, 192, 448, 512]
    assert [row.subject for row in probe.rows()] == ["steps 193 to 448"]


def test_slow_steps_are_looked_at_as_often_as_ever(now: SimpleNamespace) -> None:
    """A run that is killed loses 64 batches or half a second of the count, and no more."""
    assert run(LossScaleProbe(), _Planned(), 260, now, seconds=0.01) == [64, 128, 192, 256]
    assert run(LossScaleProbe(), _Planned(), 260, now, seconds=1 / 128) == [64, 128, 192, 256]


def test_a_number_of_batches_is_kept_to(now: SimpleNamespace) -> None:
    """With ``every``, looks are neither rarer nor brought on by the clock."""
    assert run(LossScaleProbe(every=100), _Planned(), 350, now, seconds=1.0) == [100, 200, 300]
    assert "every 100 batches" in probe_source(LossScaleProbe(every=100), now)


def test_the_source_says_how_often(now: SimpleNamespace) -> None:
    """The result tells between which numbers of batches the count was read."""
    assert "every 64 to 256 batches" in probe_source(LossScaleProbe(), now)


def probe_source(probe: LossScaleProbe, clock: Any) -> str:
    """What a probe says of the places of skipped steps."""
    run(probe, _Planned(), 1, clock)
    return probe.sources()["skipped_in_window"]
