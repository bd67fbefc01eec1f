"""Experiment trackers: the profiler's figures reach them through Keras's own callbacks."""

from pathlib import Path
from typing import Any

import nets
import numpy as np
import pytest

import keras_precision as kp

KEYS = ("step_time_ms", "samples_per_second", "peak_memory_mb", "skipped_steps")


def events(folder: Path) -> dict[str, list[float]]:
    """Return what TensorBoard's own reader finds in a folder: tag to the value of every epoch."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    reader = EventAccumulator(str(folder))
    reader.Reload()
    tags = reader.Tags()["tensors"]
    return {tag: [float(make_ndarray(event.tensor_proto)) for event in reader.Tensors(tag)] for tag in tags}


@pytest.mark.every_stack
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of protobuf, under TensorBoard's summaries
def test_tensorboard_records_the_figures(stack: Any, rng: np.random.Generator, tmp_path: Path) -> None:
    """The event files contain every key once an epoch, with the values of the history and of the result."""
    with kp.precision("mixed_float16"):
        model = nets.mlp(stack.keras, head="float32")
    model.compile("adam", "sparse_categorical_crossentropy")
    x, y = nets.classes(rng, 64)
    profiler = kp.PrecisionProfiler(log_metrics=True, verbose=0)
    board = stack.keras.callbacks.TensorBoard(tmp_path, write_graph=False)
    history = model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[profiler, board]).history
    scalars = events(tmp_path / "train")
    expected = [key for key in (*KEYS, "loss_scale") if key in history]
    assert {"step_time_ms", "samples_per_second", "loss_scale", "skipped_steps"} <= set(expected)
    for key in expected:
        assert scalars[f"epoch_{key}"] == pytest.approx(history[key], rel=1e-6)
    assert scalars["epoch_loss_scale"][-1] == profiler.result.value("loss_scale")
    assert scalars["epoch_skipped_steps"][-1] == profiler.result.value("skipped_steps")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_behind_the_profiler_is_the_place(stack: Any, rng: np.random.Generator, tmp_path: Path) -> None:
    """A callback that stands before the profiler does not see its keys: the page says so."""
    model = nets.mlp(stack.keras)
    model.compile("sgd", "sparse_categorical_crossentropy")
    x, y = nets.classes(rng, 32)
    board = stack.keras.callbacks.TensorBoard(tmp_path, write_graph=False)
    profiler = kp.PrecisionProfiler(log_metrics=True, verbose=0)
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[board, profiler])
    assert "epoch_loss" in events(tmp_path / "train")
    assert "epoch_step_time_ms" not in events(tmp_path / "train")
