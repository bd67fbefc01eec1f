"""Kernels: the lines of oneDNN's log, and traces of the backends' own profilers."""

from pathlib import Path
from typing import Any

import nets
import numpy as np
import pytest

from keras_precision.experiments.aggregation import trace_rows
from keras_precision.experiments.onednn_log import BEGIN, END, VERBOSE, Kernels, kernels_of
from keras_precision.experiments.run import Run
from keras_precision.experiments.task import Task
from keras_precision.experiments.worker import Worker, serialize

# As oneDNN 3 writes them.
LINES = """\
onednn_verbose,v1,info,oneDNN v3.7.1
onednn_verbose,v1,primitive,exec,cpu,matmul,brg:avx512_core,undef,src:f32::blocked:ab::f0 dst:f32::blocked:ab::f0,,,8x8,9.0
{begin}
onednn_verbose,v1,primitive,create:cache_miss,cpu,matmul,brg:avx512_core,undef,src:f32::blocked:ab::f0,,,8x8,9.0
onednn_verbose,v1,primitive,exec,cpu,matmul,brg:avx512_core,undef,src:f32::blocked:ab::f0 dst:f32::blocked:ab::f0,,,8x8,1.5
onednn_verbose,v1,primitive,exec,cpu,convolution,brg:avx512_core_bf16,forward_training,src:bf16::blocked:acdb::f0 wei:bf16::blocked,,,mb8,0.5
onednn_verbose,v1,primitive,exec,cpu,reorder,jit:uni,undef,src:f32::blocked:ab::f0 dst:bf16::blocked:ab::f0,,,8x8,0.1
onednn_verbose,v1,primitive,exec,cpu,reorder,jit:uni,undef,src:f32::blocked:ab::f0 dst:f32::blocked:ba::f0,,,8x8,0.1
something else, exec
{end}
onednn_verbose,v1,primitive,exec,cpu,matmul,brg:avx512_core_bf16,undef,src:bf16::blocked:ab::f0 dst:bf16::blocked:ab::f0,,,8x8,9.0
"""


def test_the_kernels_of_the_trace_are_counted() -> None:
    """Products between the marks, those that read 16 bits, and casts; creation, layout changes and the rest are not."""
    kernels = kernels_of(LINES.format(begin=BEGIN, end=END).splitlines())
    assert kernels == Kernels(products=2, low_precision=1, milliseconds=2.0, low_precision_milliseconds=0.5, casts=1)
    assert [row.value for row in trace_rows(kernels, 5.0, 3.0)] == [2, 1, 0.25, 1, 5.0, 3.0, 2.0]
    assert [row.value for row in trace_rows(Kernels(), 5.0, None)] == [0, 0, None, 0, 5.0, None, None]


@pytest.mark.slow
@pytest.mark.every_stack
def test_a_trace_in_earnest(stack: Any, rng: np.random.Generator, tmp_path: Path) -> None:
    """The backend's own trace is there; on TensorFlow, the lower precision shows in the kernels where the processor has it."""
    legacy = stack.name == "tf_keras"

    def build() -> Any:
        import importlib

        keras = importlib.import_module("tf_keras" if legacy else "keras")
        model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(64), keras.layers.Dense(3, "softmax")])
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    task = Task(build, nets.classes(rng, 64), nets.classes(rng, 64), batch_size=32)

    def serve(channel: Any) -> Run:
        return Run(channel, task, "bf16", "mixed_bfloat16", 0)

    backend = "tensorflow" if legacy else stack.name
    with Worker(serialize(serve, "the run"), "bf16", backend, VERBOSE) as worker:
        took, computing = worker.ask("trace", str(tmp_path))
        log = worker.log()
    assert [line for line in log if line in (BEGIN, END)] == [BEGIN, END]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) > 1000
    assert computing is not None
    assert 0 < computing < took
    kernels = kernels_of(log)
    assert kernels.low_precision <= kernels.products
