"""One profiler, two fits at once: the first is recorded, the other is left alone and says so."""

import contextlib
import threading
import warnings

import nets
import pytest

import keras_precision as kp
from keras_precision.callbacks.fit_frame import FitFrame

pytestmark = pytest.mark.every_stack


def compiled(stack):
    """A small net, ready to train."""
    model = nets.mlp(stack.keras, head="float32")
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@contextlib.contextmanager
def busy():
    """One warning of the profiler, among those that the backend may have of its own."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    ours = [str(warning.message) for warning in caught if warning.category is kp.PrecisionWarning]
    assert len(ours) == 1
    assert "expected one fit at a time" in ours[0]


def at_epoch_end(stack, action):
    """A callback that does something once, after the first epoch."""

    class Once(stack.keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                action()

    return Once()


def test_a_fit_inside_a_fit_is_left_alone(stack, rng):
    """A callback that trains another model with the same profiler gets a warning; the outer counts are right."""
    x, y = nets.classes(rng, 64)
    profiler, inner = kp.PrecisionProfiler(verbose=0), compiled(stack)

    def train_inside():
        with busy():
            inner.fit(x, y, batch_size=4, verbose=0, callbacks=[profiler])

    outer = compiled(stack)
    outer.fit(x, y, batch_size=16, epochs=3, verbose=0, callbacks=[profiler, at_epoch_end(stack, train_inside)])
    assert (profiler.result.value("batches"), profiler.result.value("samples")) == (12, 192)


def test_a_fit_in_another_thread_is_left_alone(stack, rng):
    """Two fits overlap in two threads: one is recorded, with its own counts, and the other warned about."""
    x, y = nets.classes(rng, 64)
    profiler, other = kp.PrecisionProfiler(verbose=0), compiled(stack)

    def train_beside():
        with busy():
            thread = threading.Thread(target=lambda: other.fit(x, y, batch_size=4, verbose=0, callbacks=[profiler]))
            thread.start()
            thread.join(120)
        assert not thread.is_alive()

    model = compiled(stack)
    model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[profiler, at_epoch_end(stack, train_beside)])
    assert profiler.result.value("batches") == 8
    assert profiler.result.value("samples") == 128


def test_the_next_fit_is_recorded_again(stack, rng):
    """After two fits at once, a profiler watches the next one as ever."""
    x, y = nets.classes(rng, 32)
    profiler, inner = kp.PrecisionProfiler(verbose=0), compiled(stack)

    def train_inside():
        with busy():
            inner.fit(x, y, verbose=0, callbacks=[profiler])

    model = compiled(stack)
    model.fit(x, y, verbose=0, callbacks=[profiler, at_epoch_end(stack, train_inside)])
    inner.fit(x, y, batch_size=8, verbose=0, callbacks=[profiler])
    assert profiler.result.value("batches") == 4


def test_a_caller_that_returned_is_not_running():
    """A frame that is gone has ended, though another call of the same function may stand in its place."""

    def fit():
        return FitFrame(0)

    gone = fit()
    assert not gone.is_running()
    assert FitFrame(0).is_running()
