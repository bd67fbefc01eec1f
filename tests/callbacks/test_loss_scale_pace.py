"""When skipped steps are counted, and how their losses classify them, with a clock and losses of the test's own."""

from contextlib import ExitStack, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from keras_precision._adapters.training.batch_loss import BatchLoss
from keras_precision._adapters.training.loss_scaling import LossScaling
from keras_precision.callbacks.probes import loss_scale
from keras_precision.callbacks.probes.loss_scale import LossScaleProbe, _SkipWindow
from keras_precision.core.errors import InputError


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
    clock = SimpleNamespace(time=100.0)
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


class _Losses(BatchLoss):
    """The losses of single batches, one for each time that it is asked."""

    source = "given"

    def __init__(self, *losses: float | None) -> None:
        self.losses, self.rests = list(losses), 0

    def take(self) -> float | None:
        return self.losses.pop(0) if self.losses else None

    def rest(self) -> None:
        self.rests += 1


class _Fit:
    """A fit that is not there: its batches, the mean that Keras reports, and the steps that are skipped."""

    def __init__(
        self, probe: LossScaleProbe, *skipped: int, losses: tuple[float | None, ...] = (), **own: bool
    ) -> None:
        self.probe, self.scaling, self.losses = probe, _Planned(*skipped), _Losses(*losses)
        adapter = SimpleNamespace(
            has_own_train_step=lambda model: own.get("train_step", False),
            loss_scaling=lambda model, optimizer: self.scaling,
            batch_loss=lambda model: nullcontext(self.losses),
        )
        self.state: Any = SimpleNamespace(
            model=None, optimizer=None, adapter=adapter, own_loop=own.get("loop", False), batches=0,
            batches_exact=True, loss=None, resources=ExitStack(),
        )  # fmt: skip
        probe.begin(self.state)

    def step(self, mean: float | None = 1.0, batches: int = 1) -> None:
        self.state.loss, self.state.batches = mean, self.state.batches + batches
        self.probe.step_end(batches)

    def counts(self) -> tuple[Any, ...]:
        """End the epoch; return the skipped steps, and those with a finite, a non-finite and an unknown loss."""
        self.probe.epoch_end(0)
        values = self.probe.values()
        return tuple(values[f"skipped_{kind}"] for kind in ("steps", "loss_finite", "loss_not_finite", "loss_unknown"))


def windows(probe: LossScaleProbe) -> list[tuple[str, Any, int | None]]:
    """Return where steps were skipped."""
    return [(row.subject, row.value, row.step) for row in probe.rows() if row.metric == "skipped_in_window"]


@pytest.mark.parametrize(
    ("window", "skipped", "expected"),
    [
        # steps, NaN, infinite, unknown losses; skipped; those with a finite, a non-finite, an unknown loss
        ((4, 0, 0, 0), 2, (2, 0, 0)),
        ((4, 2, 0, 0), 2, (0, 2, 0)),
        ((4, 1, 0, 0), 3, (2, 1, 0)),
        ((4, 3, 0, 0), 2, (0, 0, 2)),  # more NaN losses than skipped steps: the count is not that of these steps
        ((4, 1, 1, 0), 2, (0, 1, 1)),  # the second may have the infinite loss, or not
        ((4, 1, 1, 0), 4, (2, 2, 0)),  # every step was skipped, that of the infinite loss with them
        ((4, 1, 0, 1), 4, (0, 1, 3)),
        ((4, 1, 0, 1), 1, (0, 1, 0)),
    ],
)
def test_skipped_steps_are_classified_as_far_as_the_losses_tell(window, skipped, expected) -> None:
    """Counted by hand: what a window determines, and what it leaves unknown."""
    steps, nan, infinite, unknown = window
    found = _SkipWindow(1, steps, nan, infinite, unknown).by_loss(skipped)
    assert (found.finite, found.not_finite, found.unknown) == expected


def test_every_skipped_step_is_named_where_each_is_read(now: SimpleNamespace) -> None:
    """With ``every=1``, rows have the numbers of the steps, from the first on."""
    fit = _Fit(probe := LossScaleProbe(every=1), 1, 3)
    assert fit.probe.values()["skipped_steps"] is None
    for _ in range(4):
        fit.step()
    assert windows(probe) == [("step", 1, 1), ("step", 1, 3)]
    assert fit.counts() == (2, 2, 0, 0)
    ends = [(row.metric, row.value, row.step) for row in probe.rows() if row.subject == "fit"]
    assert ends == [("loss_scale", 1.0, 4), ("skipped_steps", 2, 4)]
    assert fit.losses.rests == 1


def test_the_first_loss_that_is_not_finite_ends_a_window(now: SimpleNamespace) -> None:
    """All losses before it were finite; behind it, the losses of single batches tell, in each epoch anew."""
    fit = _Fit(probe := LossScaleProbe(), 1, 2, 4, 7, losses=(None, 0.5, float("nan")))
    for mean in (1.0, float("nan"), float("nan"), float("nan")):
        fit.step(mean)
    assert windows(probe) == [("step", 1, 1), ("step", 1, 2)]
    assert fit.counts() == (3, 1, 2, 0)
    for mean in (1.0, 1.0, float("nan")):
        fit.step(mean)
    assert windows(probe)[2:] == [("steps 3 to 4", 1, 4), ("steps 5 to 7", 1, 7)]
    assert fit.counts() == (4, 1, 3, 0)


def test_an_infinite_loss_whose_step_is_skipped_is_not_finite(now: SimpleNamespace) -> None:
    """It is counted once."""
    fit = _Fit(LossScaleProbe(), 1)
    fit.step(float("inf"))
    assert fit.counts() == (1, 0, 1, 0)


def test_a_value_that_is_finite_again_is_no_running_mean(now: SimpleNamespace) -> None:
    """It is the loss of its batch; a NaN behind the first one tells nothing."""
    fit = _Fit(LossScaleProbe(), 1, 2)
    fit.step(float("nan"))
    fit.step(2.0)
    assert fit.counts() == (2, 1, 1, 0)
    fit = _Fit(LossScaleProbe(), 1, 2)
    fit.step(float("nan"))
    fit.step(float("nan"))
    assert fit.counts() == (2, None, None, 1)


def test_without_a_mean_the_losses_of_batches_tell(now: SimpleNamespace) -> None:
    """A trainer whose logs have no loss may still give that of a batch."""
    fit = _Fit(LossScaleProbe(), 1, losses=(float("nan"), 1.0))
    fit.step(None)
    fit.step(None)
    assert fit.counts() == (1, 0, 1, 0)
    fit = _Fit(LossScaleProbe(), 1)
    fit.step(None)
    assert fit.counts() == (1, None, None, 1)


@pytest.mark.parametrize("batches", [2, 3])
def test_steps_of_several_batches_share_a_mean(batches: int, now: SimpleNamespace) -> None:
    """Keras's mean has all of them; that of another train_step, or loop, may be the loss of the last batch alone."""
    for own, expected in (
        ({}, (1, 1, 0, 0)),
        ({"train_step": True}, (1, None, None, 1)),
        ({"loop": True}, (1, None, None, 1)),
    ):
        fit = _Fit(LossScaleProbe(), 1, **own)
        fit.step(1.0, batches)
        assert fit.counts() == expected
    single = _Fit(LossScaleProbe(), 1, train_step=True)
    single.step(1.0)
    assert single.counts() == (1, 1, 0, 0)
    broken = _Fit(LossScaleProbe(), *range(1, batches + 1), losses=(5.0,))
    broken.step(float("nan"), batches)
    assert broken.counts() == (batches, None, None, batches - 1)
    earlier = _Fit(LossScaleProbe(), *range(1, 2 * batches + 1), train_step=True)
    earlier.step(1.0, batches)  # what is unknown of an earlier step adds up with that of the broken one
    earlier.step(float("nan"), batches)
    assert earlier.counts() == (2 * batches, None, None, 2 * batches - 1)
    silent = _Fit(LossScaleProbe(), *range(1, batches + 1))
    silent.step(None, batches)
    assert silent.counts() == (batches, None, None, batches)


def test_a_loop_of_the_users_own_has_no_losses_of_batches(now: SimpleNamespace) -> None:
    """Only the trainer of ``fit`` is listened to."""
    fit = _Fit(LossScaleProbe(), 1, losses=(float("nan"),), loop=True)
    fit.step(None)
    assert fit.counts() == (1, None, None, 1)
    assert fit.losses.losses


def test_a_count_that_is_unknown_or_impossible_tells_no_losses(now: SimpleNamespace, monkeypatch) -> None:
    """Neither an optimizer that does not tell, nor more skipped updates than steps, is classified."""
    fit = _Fit(LossScaleProbe(), 1)
    monkeypatch.setattr(fit.scaling, "skipped", lambda batches: None)
    fit.step()
    assert fit.counts() == (None, None, None, None)
    monkeypatch.setattr(fit.scaling, "skipped", lambda batches: 1)
    fit.step()
    assert fit.counts() == (1, None, None, None)
    fit = _Fit(LossScaleProbe(), 1, 1, 1)
    fit.step()
    assert fit.counts() == (3, None, None, None)


def test_a_probe_outside_a_fit_counts_nothing(now: SimpleNamespace) -> None:
    """Before a fit, and after it, there is neither a row nor an error."""
    probe = LossScaleProbe()
    probe.step_end(1)
    probe.epoch_end(0)
    assert (list(probe.rows()), probe.sources()) == ([], {})
    fit = _Fit(probe, 1)
    fit.step()
    probe.end()
    probe.step_end(1)
    probe.epoch_end(0)
    assert list(probe.rows()) == []


@pytest.mark.parametrize("every", [0, -1, True, 1.5, "2"])
def test_a_pace_that_is_no_count_is_refused(every: Any) -> None:
    """Only whole numbers above 0 are."""
    with pytest.raises(InputError, match=f"Expected every to be a whole number >= 1. Received: {every!r}"):
        LossScaleProbe(every=every)
