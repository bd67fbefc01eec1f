"""Children that take no end: a limit for each, and a file that has reached it is refused at once."""

import time
from pathlib import Path

import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import FileFormatError, InputError, WorkerError
from keras_precision.runtimes.registry import open_runtime


def looped(path: Path, count: int) -> Path:
    """Write an ONNX file that adds 1 to its input so many times."""
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    value = [helper.make_tensor_value_info(name, kinds.FLOAT, (1, 2)) for name in ("x", "y", "inner", "next")]
    going = [helper.make_tensor_value_info(name, kinds.BOOL, ()) for name in ("going", "goes_on")]
    number = helper.make_tensor_value_info("number", kinds.INT64, ())
    body = helper.make_graph(
        [helper.make_node("Add", ["inner", "one"], ["next"]), helper.make_node("Identity", ["going"], ["goes_on"])],
        "body", [number, going[0], value[2]], [going[1], value[3]],
    )  # fmt: skip
    constants = [
        helper.make_tensor("count", kinds.INT64, (), [count]),
        helper.make_tensor("start", kinds.BOOL, (), [True]),
        helper.make_tensor("one", kinds.FLOAT, (1, 2), [1.0, 1.0]),
    ]
    loop = helper.make_node("Loop", ["count", "start", "x"], ["y"], body=body)
    graph = helper.make_graph([loop], "looped", [value[0]], [value[1]], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


def test_a_file_with_a_loop_runs_in_a_child_first(tmp_path: Path) -> None:
    """One that ends is opened here; one that does not is refused, at once the second time, in a process that goes on."""
    path = looped(tmp_path / "ends.onnx", 3)
    np.testing.assert_array_equal(open_runtime(path).predict(np.zeros((4, 2), "float32")), np.full((4, 2), 3.0))
    endless = looped(tmp_path / "endless.onnx", 2**60)
    with pytest.raises(
        FileFormatError, match="runs once within 3 s. Received: one with a loop, and no answer within 3 s"
    ):
        open_runtime(endless, limit_s=3)
    with pytest.raises(FileFormatError, match="no answer within 3 s"):
        open_runtime(endless, limit_s=2)


def test_a_file_with_a_loop_that_cannot_run_is_refused(tmp_path: Path) -> None:
    """With what the child has said."""
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"Loop")
    with pytest.raises(FileFormatError, match="expected a file that runs. Received: FileFormatError: .*broken"):
        open_runtime(path)


def endless_batch(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Never return."""
    while True:
        time.sleep(0.1)


def small() -> object:
    """A compiled model."""
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    return model


def test_runs_of_others_code_end_in_time() -> None:
    """A batch that is never made ends with the time limit, and no process is left."""
    with pytest.raises(WorkerError, match="to end within its time"):
        kp.find_max_batch_size(small, endless_batch, ("float32",), time_limit=1, verbose=False)
    data = np.zeros((8, 4), "float32"), np.zeros((8, 2), "float32")
    with pytest.raises(WorkerError, match="to end within its time"):
        kp.compare_paths(small, data, time_limit=0.2)
    with pytest.raises(
        InputError, match="Expected time_limit to be a number above 0, in seconds, or None. Received: 0"
    ):
        kp.compare_paths(small, data, time_limit=0)
