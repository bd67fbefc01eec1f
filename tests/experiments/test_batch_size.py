"""find_max_batch_size: how it searches, with a memory that is made up; and single steps in earnest."""

import math
from typing import Any

import nets
import numpy as np
import pytest

from keras_precision.core.errors import DataError, InputError, UnknownPrecisionError, WorkerError
from keras_precision.experiments import batch_size
from keras_precision.experiments.batch_size import find_max_batch_size
from keras_precision.experiments.batch_trial import Trial

PLAN = {
    "weights": 100,
    "gradients": 100,
    "optimizer": 200,
    "activations": 7,
    "source": "made up",
    "on_processor": True,
    "resident": 0,
}


class Memory:
    """A machine with so many bytes, on which steps take what a function says."""

    def __init__(self, peak: Any, limit: float = math.inf) -> None:
        self.peak, self.limit = peak, limit
        self.tried: list[int] = []
        self.started = 0
        self.failure = WorkerError("its process ended with signal SIGKILL.")

    def __call__(self, *arguments: Any, **options: Any) -> "Memory":
        self.started += 1
        return self

    def __enter__(self) -> "Memory":
        return self

    def __exit__(self, *exception: object) -> None: ...

    def ask(self, method: str, count: int = 0, steps: int = 0, deadline: float | None = None) -> Any:
        if method == "plan":
            return PLAN
        self.tried.append(count)
        if self.peak(count) > self.limit:
            raise self.failure
        return self.peak(count), [2.0] * steps


def search(monkeypatch: pytest.MonkeyPatch, memory: Memory, **options: Any) -> Any:
    """Search on a made-up machine."""
    monkeypatch.setattr(batch_size, "Worker", memory)
    return find_max_batch_size(dict, dict, ("float32",), **{"memory_limit": 100_000, "margin": 0.0, **options})


def test_a_line_is_predicted_and_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1000 + 10 * batch, 9,900 samples fit into 100,000 bytes: that is predicted, tried, and bounded from above."""
    memory = Memory(lambda count: 1000 + 10 * count, limit=100_000)
    result = search(monkeypatch, memory)
    assert result.value("predicted_batch") == 9900
    assert 9600 <= result.value("largest_batch") <= 9900
    assert result.value("trials") <= 5
    assert result.value("sample_mb") == pytest.approx(1e-5)
    assert result.value("samples_per_second") == result.value("largest_batch") * 500
    assert result.value("planned_memory_mb") == pytest.approx((400 + 7 * result.value("largest_batch")) / 1e6)
    assert max(memory.tried) <= 9900 * 1.04


def test_what_smaller_steps_left_behind_is_not_predicted_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process that doubles the batch holds twice what a fresh one needs: the prediction rests on fresh ones."""

    class Hoarding(Memory):
        def ask(self, method: str, count: int = 0, steps: int = 0, deadline: float | None = None) -> Any:
            reply = super().ask(method, count, steps)
            return (2 * reply[0], reply[1]) if method == "step" and self.started == 1 else reply

    result = search(monkeypatch, Hoarding(lambda count: 1000 + 10 * count, limit=100_000))
    assert result.value("predicted_batch") == 9900
    assert 9600 <= result.value("largest_batch") <= 9900


def test_the_margin_stays_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tenth of the limit free, a step that would fit otherwise does not."""
    result = search(monkeypatch, Memory(lambda count: 10 * count), margin=0.1)
    assert 8700 <= result.value("largest_batch") <= 9000
    assert result.value("peak_memory_mb", "float32") <= 0.09


@pytest.mark.parametrize(
    "peak", [lambda n: 1000 + 10 * n + n**1.5 / 10, lambda n: 1000 + 1024 * math.ceil(n / 64), lambda n: 50_000 + 4 * n]
)
def test_what_is_no_line_is_found_by_trying(monkeypatch: pytest.MonkeyPatch, peak: Any) -> None:
    """The largest batch fits, and one that is 4 % larger does not, with few trials."""
    result = search(monkeypatch, Memory(peak, limit=100_000))
    largest = result.value("largest_batch")
    assert peak(largest) <= 100_000 < peak(math.ceil(1.04 * largest) + 64)
    assert result.value("trials") <= 8


def test_an_allocator_decides_where_there_is_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """On an accelerator, batches are doubled until one is refused, and the rest is bisected."""
    monkeypatch.setitem(PLAN, "on_processor", False)
    memory = Memory(lambda count: 10 * count, limit=10_000)
    memory.failure = WorkerError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes")
    result = search(monkeypatch, memory, memory_limit=None)
    assert 970 <= result.value("largest_batch") <= 1000


def test_the_search_ends_at_the_largest_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The result says that memory was not what ended it."""
    result = search(monkeypatch, Memory(lambda count: count), max_batch=100)
    assert result.value("largest_batch") == 100
    assert result.notes == ("float32: the search ended at max_batch, and not at the limit of memory",)


def test_a_model_that_does_not_fit_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest batch is 0, and a note says so."""
    result = search(monkeypatch, Memory(lambda count: 200_000, limit=100_000))
    assert result.value("largest_batch") == 0
    assert result.value("samples_per_second") is None
    assert result.notes == ("float32: no batch fits",)


def test_other_failures_are_no_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that raises something else ends the search with it."""
    memory = Memory(lambda count: count, limit=20)
    memory.failure = WorkerError("Received: ValueError: shapes do not match")
    with pytest.raises(WorkerError, match="shapes do not match"):
        search(monkeypatch, memory)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"precisions": ()}, InputError, "at least one precision"),
        ({"precisions": ("int8",)}, UnknownPrecisionError, "the precision of 'int8'"),
        ({"margin": 1}, InputError, "0 <= margin < 1"),
        ({"memory_limit": 0}, InputError, "memory_limit > 0"),
        ({"max_batch": 0}, InputError, "max_batch >= 1"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    """Before any process is started."""
    with pytest.raises(error, match=message):
        find_max_batch_size(dict, dict, **options)


def trial(stack: Any, make_batch: Any) -> Trial:
    """Return a trial of the small convolutional net, without a limit."""

    def build() -> Any:
        model = nets.conv(stack.keras)
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    return Trial(None, build, make_batch, "mixed_bfloat16", None)


@pytest.mark.every_stack
def test_a_step_in_earnest(stack: Any) -> None:
    """The plan knows what is held, and a step tells its peak and its times."""
    small = trial(stack, lambda count: (np.ones((count, 12, 12, 1), "float32"), np.zeros(count, "int32")))
    plan = small.plan()
    parameters = sum(int(np.prod(variable.shape)) for variable in small._model.trainable_variables)
    assert plan["gradients"] == 4 * parameters
    assert plan["optimizer"] >= 8 * parameters
    # stem, norm and ReLU, depthwise, pointwise, sum: 12 x 12 x 8 each; pool and drop: 8 each; head: 3; in two bytes.
    assert plan["activations"] == 2 * (6 * 12 * 12 * 8 + 2 * 8 + 3)
    peak, times = small.step(4, 3)
    assert peak > 1e6
    assert len(times) == 3
    assert min(times) > 0


@pytest.mark.parametrize(
    ("make_batch", "message"),
    [
        (lambda count: np.ones(count), r"make_batch\(n\) to return \(x, y\). Received: ndarray"),
        (lambda count: (np.ones((count + 1, 12, 12, 1)), np.ones(count)), r"to return 4 samples. Received: \[4, 5\]"),
    ],
)
def test_batches_of_another_size_are_refused(stack: Any, make_batch: Any, message: str) -> None:
    """The message says what came."""
    with pytest.raises(DataError, match=message):
        trial(stack, make_batch).step(4)


@pytest.mark.slow
def test_a_limit_of_memory_is_kept(stack: Any) -> None:
    """In earnest: more than the limit is never reported, and the caller lives."""

    def build() -> Any:
        import keras

        model = keras.Sequential([keras.Input((65536,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        return model

    def make_batch(count: int) -> Any:
        import numpy as np

        return np.ones((count, 65536), "float32"), np.ones((count, 1), "float32")

    limit = 1_500_000_000
    result = find_max_batch_size(build, make_batch, ("float32",), memory_limit=limit)
    assert result.value("largest_batch") > 0
    assert result.value("peak_memory_mb", "float32") <= 0.95 * limit / 1e6
    assert result.notes == ()
