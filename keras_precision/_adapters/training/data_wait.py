"""DataWait: how long a trainer waits for its next batch, measured where it pulls from its iterator."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter_ns as clock
from typing import Any

from keras_precision._adapters.training.train_function import TrainFunctionWrapper, unwrap, wrap

__all__ = [
    "DataWait",
    "UnknownDataWait",
    "sampled_pulls_in_steps",
    "timed_pulls_before_steps",
    "timed_pulls_in_steps",
]


class DataWait(ABC):
    """The time that a trainer waits for data in every step.

    Attributes:
        source: How it is measured, or why it cannot be.
        inside: Whether the trainer pulls between the begin and the end hook of a step.
        sampled: Whether it is known for a sample of the steps.
    """

    source: str
    inside: bool
    sampled = False

    @abstractmethod
    def step_begin(self) -> None:
        """Note that a step begins."""

    @abstractmethod
    def step_end(self) -> int | None:
        """Return the nanoseconds that this step waited for its batches; None if unknown."""


class UnknownDataWait(DataWait):
    """A trainer whose wait cannot be measured, and the reason."""

    inside = True

    def __init__(self, why: str) -> None:
        self.source = f"unknown: {why}"

    def step_begin(self) -> None:
        """Do nothing."""

    def step_end(self) -> int | None:
        """Return None."""
        return None


@contextmanager
def timed_pulls_in_steps(model: Any) -> Iterator[DataWait]:
    """Time a trainer whose train function takes the iterator and pulls from it in Python: Keras 3 on JAX."""
    wait = _PullsInSteps(model)
    try:
        yield wait
    finally:
        wait.remove()


class _PullsInSteps(DataWait):
    source = "time in the trainer's next(iterator), all batches of a step together"
    inside = True

    def __init__(self, model: Any) -> None:
        self._model, self._timed = model, _TimedIterator()
        self._function = self._wrapper()

    def _wrapper(self) -> "_TimedFunction":
        return _TimedFunction(self._timed)

    def step_begin(self) -> None:
        self._timed.nanoseconds = self._timed.pulls = 0
        wrap(self._model, self._function)

    def step_end(self) -> int | None:
        return self._timed.nanoseconds if self._timed.pulls else None

    def remove(self) -> None:
        unwrap(self._model, self._function)
        self._timed.source = iter(())


class _TimedFunction(TrainFunctionWrapper):
    """A train function that pulls from a timed iterator."""

    def __init__(self, timed: "_TimedIterator") -> None:
        super().__init__()
        self._timed = timed

    def __call__(self, state: Any, iterator: Any) -> Any:
        if not hasattr(iterator, "__next__"):
            return self.inner(state, iterator)
        self._timed.source = iterator
        return self.inner(state, self._timed)


class _SamplingFunction(_TimedFunction):
    """A train function that gets every fifth batch from Python."""

    def __init__(self, timed: "_TimedIterator", iterator_class: Any) -> None:
        super().__init__(timed)
        self._iterator_class = iterator_class
        self._calls = 0

    def __call__(self, iterator: Any) -> Any:  # type: ignore[override] # this trainer's state is in its variables
        self._calls += 1
        if isinstance(iterator, _Pulled):
            self._timed.nanoseconds, self._timed.pulls = iterator.nanoseconds, 1
        elif self._calls % _EVERY == 2 and isinstance(iterator, self._iterator_class):  # the first falls into warm-up
            self._timed.source = iterator
            iterator = _Pulled(next(self._timed), self._timed.nanoseconds)
        return self.inner(iterator)


@contextmanager
def sampled_pulls_in_steps(model: Any, iterator_class: Any) -> Iterator[DataWait]:
    """Time a trainer whose compiled step pulls from the iterator: Keras 3 on TensorFlow, one step per execution."""
    wait = _SampledPulls(model, iterator_class)
    try:
        yield wait
    finally:
        wait.remove()


# Where it gets no tf.data.Iterator, the train function takes batches from any iterable, and runs the same compiled
# one_step_on_data: https://github.com/keras-team/keras/blob/v3.15.1/keras/src/backend/tensorflow/trainer.py
# One step in five gets its batch in this way: not a power of two, as buffer sizes often are, so that the sample does not
# always meet the same place of a buffer.
_EVERY = 5


class _SampledPulls(_PullsInSteps):
    source = "time in next(iterator), which every fifth step makes in Python in place of the compiled step"
    sampled = True

    def __init__(self, model: Any, iterator_class: Any) -> None:
        self._iterator_class = iterator_class
        super().__init__(model)

    def _wrapper(self) -> "_TimedFunction":
        return _SamplingFunction(self._timed, self._iterator_class)


class _Pulled:
    """A batch that Python has pulled, and the time of the pull, which other profilers in the same fit read, too."""

    def __init__(self, batch: Any, nanoseconds: int) -> None:
        self._batches = iter([batch])
        self.nanoseconds = nanoseconds

    def __iter__(self) -> Iterator[Any]:
        return self._batches


class _TimedIterator:
    """An iterator that sums up the time of its pulls."""

    def __init__(self) -> None:
        self.source: Iterator[Any] = iter(())
        self.nanoseconds = self.pulls = 0

    def __iter__(self) -> "_TimedIterator":
        return self

    def __next__(self) -> Any:
        began = clock()
        try:
            batch = next(self.source)
        finally:
            self.nanoseconds += clock() - began
        self.pulls += 1
        return batch


@contextmanager
def timed_pulls_before_steps(iterator_class: Any) -> Iterator[DataWait]:
    """Time a trainer that pulls before the begin hook of a step: Keras 3 on PyTorch.

    The iterator is a local variable of ``fit``, so the method of its class is replaced while any profiler is active.
    """
    _PullsBeforeSteps.add(iterator_class)
    try:
        yield _PullsBeforeSteps()
    finally:
        _PullsBeforeSteps.remove(iterator_class)


class _PullsBeforeSteps(DataWait):
    source = "time in the trainer's next(epoch_iterator), before the begin hook of a step"
    inside = False

    _lock = threading.Lock()
    _users = 0
    _own: Any = None  # the method of the class itself, if it does not inherit it
    _last: dict[int, int] = {}  # noqa: RUF012 - shared by all instances: thread to nanoseconds of its last pull

    def __init__(self) -> None:
        self._waited: int | None = None

    def step_begin(self) -> None:
        # The last pull of this thread was for this step: fit makes it directly before the hook.
        self._waited = self._last.get(threading.get_ident())

    def step_end(self) -> int | None:
        return self._waited

    @classmethod
    def add(cls, iterator_class: Any) -> None:
        with cls._lock:
            cls._users += 1
            if cls._users > 1:
                return
            cls._own = vars(iterator_class).get("__next__")
            original, last = iterator_class.__next__, cls._last

            def timed(iterator: Any) -> Any:
                began = clock()
                batch = original(iterator)
                last[threading.get_ident()] = clock() - began
                return batch

            # TorchEpochIterator inherits __next__ from EpochIterator, and fit calls it directly before
            # on_train_batch_begin: https://github.com/keras-team/keras/blob/v3.15.1/keras/src/trainers/epoch_iterator.py
            iterator_class.__next__ = timed

    @classmethod
    def remove(cls, iterator_class: Any) -> None:
        with cls._lock:
            cls._users -= 1
            if cls._users:
                return
            if cls._own is None:
                del iterator_class.__next__
            else:
                iterator_class.__next__ = cls._own
            cls._last.clear()
