"""edge: .tflite files with NumPy and an interpreter alone."""

import os
import random
import subprocess
import sys
from pathlib import Path

import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision import edge
from keras_precision.core.errors import DataError, FileFormatError, InputError, MissingExtraError
from keras_precision.runtimes.tflite import file
from keras_precision.runtimes.tflite.sandbox import Child, ChildTimeout, FileChild


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A float32, a float16 and an int8 file of one net, with its predictions on images."""
    import keras

    folder = tmp_path_factory.mktemp("files")
    keras.utils.set_random_seed(5)
    model = nets.conv(keras)
    x, y = nets.images(np.random.default_rng(2), 40)
    for precision in ("float32", "float16", "int8"):
        kp.export_tflite(model, folder / f"{precision}.tflite", precision, x)
    return folder, x, y, model.predict(x, verbose=0)


def test_inspect_reads_inputs_outputs_and_operators(files):
    """What a file holds is told with shapes, types, quantization and the number format of each operator."""
    folder, x, *_ = files
    model = edge.inspect(folder / "int8.tflite")
    assert [(tensor.name, tensor.shape, tensor.dtype) for tensor in model.inputs] == [("image", (1, 12, 12, 1), "int8")]
    assert model.inputs[0].scale == pytest.approx(np.ptp(np.append(x, 0)) / 255, rel=1e-3)
    assert model.outputs[0].described == "int8 (scale 0.003906, zero point -128)"
    assert {operator.precision for operator in model.operators} == {"int8"}
    assert model.operator_counts["CONV_2D int8"] == 2
    assert model.size_bytes == os.path.getsize(folder / "int8.tflite")
    weights = [operator for operator in edge.inspect(folder / "float16.tflite").operators if operator.weights]
    assert {operator.precision for operator in weights} == {"float16", "cast"}


def test_tensor_quantizes_as_the_runtime_does():
    """x = scale * (q - zero_point), rounded and clipped; what is not quantized is cast."""
    tensor = edge.Tensor("x", (1,), "int8", 0.5, 3)
    np.testing.assert_array_equal(tensor.quantize(np.array([0.0, 0.6, -100, 100])), np.array([3, 4, -128, 127], "int8"))
    np.testing.assert_array_equal(tensor.dequantize(np.array([3, 4], "int8")), np.array([0.0, 0.5], "float32"))
    ready = np.array([7], "int8")
    assert tensor.quantize(ready) is ready
    assert edge.Tensor("x", (1,), "float32").quantize(np.array([1])).dtype == np.float32


def test_predictions_are_those_of_keras(files):
    """Each file answers as the model does, within what its number format allows."""
    folder, x, _, expected = files
    for precision, tolerance in (("float32", 1e-6), ("float16", 2e-3), ("int8", 0.03)):
        np.testing.assert_allclose(edge.predict(folder / f"{precision}.tflite", x), expected, atol=tolerance)


def test_evaluate_and_benchmark(files):
    """Scores, agreement, latency and size come as results."""
    folder, x, y, expected = files
    result = edge.evaluate(folder / "float32.tflite", x, y, ["accuracy"], reference=expected)
    assert result.value("accuracy") == np.mean(expected.argmax(-1) == y)
    assert result.value("agreement") == 1.0
    assert result.environment.backend.startswith("litert")
    timed = edge.benchmark(folder / "int8.tflite", warmup=1, min_calls=3, min_seconds=0)
    assert timed.value("latency_samples") == 3
    assert timed.value("samples_per_second") == pytest.approx(1e3 / timed.value("latency_ms"))


def usual_loop(path, x):
    """One call after the other, as TensorFlow's documentation has it."""
    from ai_edge_litert.interpreter import Interpreter

    opened = Interpreter(model_path=str(path))
    opened.allocate_tensors()
    (into,), (out,) = opened.get_input_details(), opened.get_output_details()
    answers = []
    for sample in x:
        if into["dtype"] == np.int8:
            scale, zero_point = into["quantization"]
            sample = np.clip(np.round(sample / scale + zero_point), -128, 127).astype(np.int8)
        opened.set_tensor(into["index"], sample[np.newaxis])
        opened.invoke()
        answers.append(opened.get_tensor(out["index"])[0])
    scale, zero_point = out["quantization"]
    answers = np.stack(answers)
    return (answers.astype("float32") - zero_point) * np.float32(scale) if scale else answers


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_several_interpreters_answer_as_one_does(files, precision):
    """Side by side, interpreters give the bits of the usual loop, in order, whatever their number."""
    folder, x, *_ = files
    many = np.concatenate([x, x[::-1], x[:7]])  # several spans for each, the last one short
    expected = usual_loop(folder / f"{precision}.tflite", many)
    for threads in (1, 2, 3):
        np.testing.assert_array_equal(edge.predict(folder / f"{precision}.tflite", many, threads=threads), expected)
    twice = edge.Session(folder / f"{precision}.tflite", workers=4)
    np.testing.assert_array_equal(twice.predict(many[:1]), expected[:1])
    np.testing.assert_array_equal(twice.predict(many), expected)


def test_halves_are_rounded_to_even_and_never_shift():
    """The division is one of float64: what lies just beside a half goes to its own side."""
    tensor = edge.Tensor("x", (1,), "int8", float(np.float32(0.1)), 0)
    scale = tensor.scale
    halves = np.array([0.5, 1.5, 2.5, -0.5, -1.5]) * scale
    np.testing.assert_array_equal(tensor.quantize(halves), np.array([0, 2, 2, 0, -2], "int8"))
    steps = np.arange(-127, 127) + 0.5
    above = np.nextafter((steps * scale).astype("float32"), np.float32(np.inf))
    exact = [int(np.ceil(step)) for step in steps]  # just above a half
    off = np.round(above / np.float32(scale)) != exact
    assert off.any()  # in float32, some of them are taken for the half itself
    np.testing.assert_array_equal(tensor.quantize(above), np.array(exact, "int8"))


def test_each_operator_is_timed_alone(files):
    """Every operator has a time of its own, under its number and kernel; the result says how it was got."""
    path = files[0] / "int8.tflite"
    timed = edge.benchmark(path, warmup=0, min_calls=2, min_seconds=0, per_operator=True)
    rows = timed.select("operator_ms")
    assert [row.subject for row in rows] == [
        f"{number}:{operator.kernel}" for number, operator in enumerate(edge.inspect(path).operators)
    ]
    assert all(row.value > 0 for row in rows)
    assert "alone in a file of its own" in timed.environment.sources["operator_ms"]
    whole = kp.benchmark(path, warmup=0, min_calls=2, min_seconds=0, threads=2, per_operator=True)
    assert len(whole.select("operator_ms")) == len(rows)
    assert whole.environment.sources["latency_ms"].endswith("on 2 threads")
    assert any("the operators alone take" in note for note in whole.notes)


def test_an_operator_that_does_not_run_alone_is_unknown(files, monkeypatch):
    """Where a file of one operator is refused, its time is unknown, and the others are measured."""
    monkeypatch.setattr(
        "keras_precision.runtimes.tflite.operator_times._cut_operators",
        lambda content: (b"TFL3" * 9 if number == 1 else content for number in range(3)),
    )
    rows = edge.benchmark(files[0] / "int8.tflite", warmup=0, min_calls=1, min_seconds=0, per_operator=True).select(
        "operator_ms"
    )
    assert [row.value is None for row in rows] == [False, True, False]


def test_recurrent_state_and_loops_are_cut_out_too(tmp_path):
    """Operators with a state, and those that hold graphs of their own, have a time as well."""
    import tf_keras

    layers, path = tf_keras.layers, tmp_path / "model.tflite"
    series = layers.Input((6, 4))
    x = layers.Concatenate()([layers.LSTM(3)(series), layers.GRU(3)(series)])
    kp.export_tflite(tf_keras.Model(series, layers.Dense(2)(x)), path, "float32")
    assert {"UNIDIRECTIONAL_SEQUENCE_LSTM", "WHILE"} <= {operator.kernel for operator in edge.inspect(path).operators}
    timed = edge.benchmark(path, warmup=0, min_calls=1, min_seconds=0, per_operator=True).select("operator_ms")
    assert all(row.value is not None for row in timed)


def test_damaged_files_are_refused_and_never_crash(files, tmp_path):
    """Empty, truncated, foreign and random files are a clean error, however they are broken."""
    content = (files[0] / "int8.tflite").read_bytes()
    rng = random.Random(4)
    damaged = {"empty": b"", "short": content[:6], "text": b"not a model", "head": content[:8] + rng.randbytes(300)}
    damaged |= {f"cut at {share} %": content[: len(content) * share // 100] for share in (5, 40, 70, 95)}
    for name, data in damaged.items():
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(data)
        with pytest.raises(FileFormatError, match=r"expected a TensorFlow Lite file.*Received"):
            edge.inspect(path)
    with pytest.raises(FileFormatError, match="expected a TensorFlow Lite file. Received: a folder"):
        edge.inspect(tmp_path)


def test_a_file_that_does_not_take_zeros_is_not_damaged(tmp_path):
    """A mean over the tokens of a text divides by their number, in integers: only other samples run."""
    import keras

    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 50, (64, 8)).astype("int32")
    inputs = keras.Input((8,), dtype="int32")
    embedded = keras.layers.Embedding(50, 16, mask_zero=True, embeddings_initializer="random_normal")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling1D()(embedded)))
    path = tmp_path / "model.tflite"
    kp.export_tflite(model, path, "int8", tokens)
    assert edge.inspect(path).inputs[0].shape == (1, 8)
    with pytest.raises(RuntimeError):
        edge.Session(path).run([np.zeros((1, 8), "int32")])
    for benchmark in (edge.benchmark, kp.benchmark):
        assert benchmark(path, warmup=0, min_calls=1, min_seconds=0).value("latency_samples") == 1
    assert kp.evaluate(path, tokens, reference=model).value("snr_db") > 20


def test_bytes_that_were_changed_never_crash_this_process(files, tmp_path):
    """A file with random bytes in it either runs or is refused; this process lives on."""
    content = bytearray((files[0] / "int8.tflite").read_bytes())
    rng = random.Random(11)
    refused = 0
    for attempt in range(8):
        broken = bytearray(content)
        for _ in range(40):
            broken[rng.randrange(8, len(broken))] = rng.randrange(256)
        path = tmp_path / f"{attempt}.tflite"
        path.write_bytes(broken)
        try:
            edge.inspect(path)
        except FileFormatError:
            refused += 1
    assert refused > 0


@pytest.fixture
def planted(files, tmp_path, monkeypatch):
    """A function that lets a program of its own read files; it returns the child, and a file that was not read before."""

    def plant(program):
        child, path = FileChild(program), tmp_path / "planted.tflite"
        monkeypatch.setattr("keras_precision.runtimes.tflite.file._CHILD", child)
        path.write_bytes((files[0] / "int8.tflite").read_bytes())
        return child, path

    return plant


def test_file_that_ends_the_process_is_named(planted):
    """A file that kills the interpreter kills a child, and the message names the signal."""
    _, path = planted("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(FileFormatError, match="it ended the process with signal SIGSEGV"):
        edge.inspect(path)


def test_a_file_that_reached_the_limit_is_refused_at_once(planted, monkeypatch):
    """It costs its limit once in a process, not once per function, until the limit is longer or the file changes."""
    sound = file._CHILD
    endless, path = planted("import threading; threading.Event().wait()")
    with pytest.raises(FileFormatError, match="no answer within 0.1 s"):
        edge.inspect(path, limit_s=0.1)
    monkeypatch.setattr(endless, "ask", pytest.fail)  # from here on, no process is asked
    for limit_s in (0.1, 0.05):
        with pytest.raises(FileFormatError, match="no answer within 0.1 s"):
            edge.inspect(path, limit_s=limit_s)
    monkeypatch.setattr(endless, "ask", sound.ask)
    assert edge.inspect(path).operators  # with a longer limit
    assert edge.inspect(path, limit_s=0.05).operators  # which is known by now
    with pytest.raises(InputError, match=r"Expected limit_s above 0, in seconds. Received: 0."):
        edge.inspect(path, limit_s=0)


def test_a_file_that_reaches_the_limit_is_not_tried_twice(monkeypatch):
    """A child that has crashed is asked again, one that was too slow is not."""
    program = (
        "from keras_precision.runtimes.tflite.sandbox import serve; import threading; "
        "serve(lambda request: request if request == 'quick' else threading.Event().wait())"
    )
    child, asked = Child(program), []
    assert child.ask("quick", 60) == "quick"
    monkeypatch.setattr(child, "_ask", lambda *request, ask=child._ask: asked.append(request) or ask(*request))
    with pytest.raises(ChildTimeout, match="no answer within 0.1 s"):
        child.ask("slow", 0.1)
    child.close()
    assert len(asked) == 1


def test_a_file_that_was_replaced_is_read_again(files, tmp_path):
    """What was known of a path is forgotten when the file changes."""
    path = tmp_path / "model.tflite"
    path.write_bytes((files[0] / "float32.tflite").read_bytes())
    before = edge.inspect(path)
    path.write_bytes((files[0] / "int8.tflite").read_bytes())
    assert edge.inspect(path).operator_counts != before.operator_counts


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            np.zeros((2, 12, 12)),
            r"Expected samples of shape \(n, 12, 12, 1\) for the input 'image'. Received: \(2, 12, 12\)",
        ),
        (np.zeros((0, 12, 12, 1)), r"Received: \(0, 12, 12, 1\)"),
        ([np.zeros((2, 12, 12, 1))] * 2, r"Expected 1 array\(s\), for 'image'. Received: a list of 2"),
        ({"picture": np.zeros((2, 12, 12, 1))}, r"Expected a dict with the keys \['image'\]. Received: \['picture'\]"),
        (np.full((2, 12, 12, 1), "a"), "Expected numbers for the input 'image'"),
    ],
)
def test_inputs_that_do_not_fit(files, inputs, message):
    """Inputs are checked against the file before it runs."""
    with pytest.raises(DataError, match=message):
        edge.predict(files[0] / "int8.tflite", inputs)


def test_bad_arguments(files, monkeypatch):
    """Unknown metrics, impossible thread counts and files of several outputs are refused."""
    with monkeypatch.context() as patched, pytest.raises(DataError, match="with one output. Received: .* with 2. Use"):
        patched.setattr(edge.Session, "predict", lambda session, x: [x, x])
        edge.evaluate(files[0] / "int8.tflite", files[1], files[2])
    with pytest.raises(InputError, match=r"Expected metrics among .*Received: 'auc'. kp.evaluate takes any"):
        edge.evaluate(files[0] / "int8.tflite", files[1], files[2], ["auc"])
    with pytest.raises(InputError, match="Expected threads >= 1. Received: 0"):
        edge.Session(files[0] / "int8.tflite", threads=0)
    with pytest.raises(InputError, match="Expected workers >= 1. Received: 0"):
        edge.Session(files[0] / "int8.tflite", workers=0)


def test_missing_interpreter_names_the_pip_line(files, monkeypatch):
    """Without any interpreter, the message says how to get one."""
    monkeypatch.setattr("keras_precision.runtimes.tflite.file.available", lambda module: False)
    with pytest.raises(MissingExtraError, match=r'pip install "keras-precision\[edge\]"'):
        edge.inspect(files[0] / "int8.tflite")


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A folder of packages that holds NumPy, LiteRT and this package, and nothing else."""
    import ai_edge_litert

    import keras_precision

    folder = tmp_path_factory.mktemp("bare")
    installed = Path(np.__file__).parent.parent
    needed = (
        "numpy",
        "numpy.libs",
        "ai_edge_litert",
        "flatbuffers",
        "backports",
        "tqdm",
        "typing_extensions.py",
        "google",
    )
    for name in needed:
        if (installed / name).exists():
            (folder / name).symlink_to(installed / name)
    (folder / "keras_precision").symlink_to(Path(keras_precision.__file__).parent)
    assert Path(ai_edge_litert.__file__).parent.parent == installed
    return folder


def run_bare(folder, code, *arguments):
    """Run Python with that folder alone on its path."""
    start = f"import sys; sys.path.insert(0, {str(folder)!r}); {code}"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", start, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_edge_works_without_keras(files, bare):
    """With NumPy and LiteRT alone, the command describes and times a file."""
    code = "import runpy; runpy.run_module('keras_precision.edge', run_name='__main__', alter_sys=True)"
    done = run_bare(bare, code, files[0] / "int8.tflite")
    assert done.returncode == 0, done.stderr
    for part in ("image  [1, 12, 12, 1]  int8 (scale", "CONV_2D int8", "latency:", "output_0"):
        assert part in done.stdout
    missing = run_bare(bare, code, files[0] / "none.tflite")
    assert (missing.returncode, "none.tflite" in missing.stderr) == (2, True)


def test_edge_gives_the_same_answers_without_keras(files, bare, tmp_path):
    """Predictions on a bare device are those of this process, bit by bit."""
    folder, x, *_ = files
    np.save(tmp_path / "x.npy", x)
    code = (
        "import numpy as np; from keras_precision import edge; np.save(sys.argv[3], edge.predict(sys.argv[1], np.load(sys.argv[2]))); "
        "assert not {'keras', 'tensorflow', 'rich', 'scipy'} & set(sys.modules)"
    )
    done = run_bare(bare, code, folder / "int8.tflite", tmp_path / "x.npy", tmp_path / "answers.npy")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "answers.npy"), edge.predict(folder / "int8.tflite", x))
