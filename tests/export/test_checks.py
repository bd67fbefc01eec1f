"""check_micro and check_ethos_u: what small devices make of a file, found out in a process of its own."""

import re
from pathlib import Path
from types import MappingProxyType
from typing import Any

import nets
import numpy as np
import pytest

import keras_precision as kp
from keras_precision.core.errors import FileFormatError, InputError, MissingExtraError
from keras_precision.core.system import optional
from keras_precision.export.checks import tflm
from keras_precision.runtimes.model_info import CARD
from keras_precision.runtimes.tflite.flatbuffer import Flatbuffer

pytest.importorskip("tflite_micro", reason='pip install "keras-precision[micro]"')
pytest.importorskip("ethosu.vela", reason='pip install "keras-precision[micro]"')


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> MappingProxyType[str, Path]:
    """The same small net in four formats."""
    import keras

    keras.utils.set_random_seed(0)
    model = nets.mlp(keras)
    x = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
    calibration = kp.calibrate(model, x)
    folder = tmp_path_factory.mktemp("files")
    found = {}
    for plan in ("float32", "int8", "int4", "int8_dynamic"):
        found[plan] = folder / f"{plan}.tflite"
        kp.export_tflite(model, found[plan], plan, calibration)
    return MappingProxyType(found)


@pytest.mark.parametrize("plan", ["int8", "float32"])
def test_a_file_runs_on_micro_with_the_answers_of_litert(files: MappingProxyType[str, Path], plan: str) -> None:
    """The arena holds at least the file's activations, and the two interpreters answer alike."""
    result = kp.check_micro(files[plan])
    assert result.value("runs") == 1
    assert result.notes == ()
    assert result.value("arena_bytes") == result.value("arena_head_bytes") + result.value("arena_tail_bytes")
    assert result.value("arena_bytes") > (8 + 16 + 3) * (4 if plan == "float32" else 1)
    assert result.value("max_difference") <= (1e-6 if plan == "float32" else 1 / 256)
    assert "64-bit host" in result.environment.sources["arena_bytes"]


def test_the_arena_of_floats_is_larger(files: MappingProxyType[str, Path]) -> None:
    """Activations of four bytes need more of the part that operators share."""
    heads = [kp.check_micro(files[plan]).value("arena_head_bytes") for plan in ("float32", "int8")]
    assert heads[0] > heads[1]


@pytest.mark.parametrize(
    ("plan", "reason"), [("int8_dynamic", "FULLY_CONNECTED"), ("int4", "FULLY_CONNECTED")], ids=["dynamic", "int4"]
)
def test_what_micro_refuses_is_a_finding(files: MappingProxyType[str, Path], plan: str, reason: str) -> None:
    """A file that the interpreter refuses has an unknown arena and a note with the operator."""
    result = kp.check_micro(files[plan])
    assert result.value("runs") == 0
    assert result.value("arena_bytes") is None
    assert result.value("max_difference") is None
    assert reason in result.notes[0]
    assert f"cannot run '{plan}.tflite': FULLY_CONNECTED of layer 'hidden'; " in result.notes[0]


def test_a_file_that_only_micro_runs_is_checked(files: MappingProxyType[str, Path], tmp_path: Path) -> None:
    """LiteRT refuses a bias with a quantized dimension that it does not have; the arena is that of the sound file."""
    path = _only_litert_refuses(files["int8"], tmp_path)
    result = kp.check_micro(path)
    assert result.value("runs") == 1
    assert result.value("arena_bytes") == kp.check_micro(files["int8"]).value("arena_bytes")
    assert result.value("max_difference") is None
    assert result.notes[0].startswith("LiteRT does not run 'bias.tflite'")


def test_a_file_that_only_vela_reads_is_compiled(files: MappingProxyType[str, Path], tmp_path: Path) -> None:
    """It has the figures of the sound file."""
    result = kp.check_ethos_u(_only_litert_refuses(files["int8"], tmp_path))
    assert result.value("runs") == 1
    assert result.value("npu_macs") == kp.check_ethos_u(files["int8"]).value("npu_macs")
    assert result.notes[0] == "LiteRT does not run 'bias.tflite'"


def _only_litert_refuses(sound: Path, folder: Path) -> Path:
    graph = Flatbuffer(sound.read_bytes())
    for tensor in graph._graph.tensors:
        if tensor.type == graph._schema.TensorType.INT32 and tensor.quantization is not None and len(tensor.shape) == 1:
            tensor.quantization.quantizedDimension = 3
    path = folder / "bias.tflite"
    path.write_bytes(graph.content())
    with pytest.raises(FileFormatError):
        kp.edge.inspect(path)
    return path


class _Interpreter:
    """Answers of either interpreter, by output; the same for all samples."""

    def __init__(self, *outputs: Any, steps: tuple[float, ...] = (0.0, 0.0)) -> None:
        self._outputs, self._steps = [np.asarray(output) for output in outputs], steps

    def get_output(self, number: int) -> Any:
        return self._outputs[number]

    get_tensor = get_output

    def get_output_details(self) -> list[dict[str, Any]]:
        return [{"index": number, "quantization": (step, 0)} for number, step in enumerate(self._steps)]

    def get_input_details(self) -> list[dict[str, Any]]:
        return []

    def reset_all_variables(self) -> None:
        pass

    invoke = reset_all_variables


def test_differences_are_shares_of_the_range_of_an_output() -> None:
    """Of integers that of their type, of floats the largest; what is not finite on either side is not finite."""
    lite = _Interpreter(np.int8([0, 100]), np.float32([0.5, 2.0]), steps=(0.5, 0.0))
    same, off = (_Interpreter(np.int8([0, first]), np.float32([0.5, second])) for first, second in ((100, 2), (49, 1)))
    assert tflm._differences(same, lite, []) == [(0.0, 0.0), (0.0, 0.0)]
    assert tflm._differences(off, lite, []) == [(25.5, 0.2), (1.0, 0.5)]
    broken = _Interpreter(np.int8([0, 100]), np.float32([np.nan, 2.0]))
    assert np.isnan(tflm._differences(broken, lite, [])[1]).all()


@pytest.mark.parametrize(
    ("printed", "difference", "note"),
    [
        ("[0.1, 0.019]", 0.1, None),
        ("[3.0, 0.4]", 3.0, "off by 40 % of their range"),
        ("[NaN, NaN]", None, "not finite"),
    ],
)
def test_wrong_outputs_of_micro_are_a_finding(
    files: MappingProxyType[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    printed: str,
    difference: float | None,
    note: str | None,
) -> None:
    """The file runs, and the note says not to deploy it; differences of kernels are none."""
    ended = tflm.run_python(["-c", f"print({printed!r})"], folder=files["int8"].parent)
    monkeypatch.setattr(tflm, "run_python", lambda *_, **__: ended)
    result = kp.check_micro(files["int8"])
    assert (result.value("runs"), result.value("max_difference")) == (1, difference)
    assert [note in text for text in result.notes] == ([True] if note else [])


@pytest.mark.parametrize(("largest", "runs"), [(2**28, 1), (1024, 0)])
def test_the_arena_grows_up_to_a_limit(
    files: MappingProxyType[str, Path], monkeypatch: pytest.MonkeyPatch, largest: int, runs: int
) -> None:
    """A file that does not fit at first runs in a larger arena, and is refused where none is allowed."""
    expected = kp.check_micro(files["int8"])
    monkeypatch.setattr("keras_precision.export.checks.tflm._FIRST_ARENA", 1024)
    monkeypatch.setattr("keras_precision.export.checks.tflm._LARGEST_ARENA", largest)
    result = kp.check_micro(files["int8"])
    assert result.value("runs") == runs
    assert result.value("arena_bytes") == (expected.value("arena_bytes") if runs else None)


@pytest.mark.parametrize("accelerator", ["ethos-u55-128", "ethos-u85-256"])
def test_an_int8_file_runs_on_the_accelerator(files: MappingProxyType[str, Path], accelerator: str) -> None:
    """Every operator is on the accelerator, and the figures are those of its kind."""
    result = kp.check_ethos_u(files["int8"], accelerator)
    assert (result.value("runs"), result.value("cpu_operators")) == (1, 0)
    assert result.value("npu_macs") >= 8 * 16 + 16 * 3
    assert result.value("npu_inferences_per_second") > 1000
    assert 0 < result.value("npu_sram_bytes") < 100_000
    assert result.value("npu_flash_bytes") + result.value("npu_dram_bytes") > 0
    assert accelerator in result.environment.sources["npu_inferences_per_second"]
    assert result.notes == ()


def test_a_float_file_falls_back_as_a_whole(files: MappingProxyType[str, Path]) -> None:
    """Each operator that falls back is told with Vela's reason, and nothing is claimed of the accelerator."""
    result = kp.check_ethos_u(files["float32"])
    assert (result.value("runs"), result.value("npu_operators")) == (0, 0)
    assert result.value("npu_inferences_per_second") is None
    assert result.value("npu_sram_bytes") is None
    fallen = result.select("cpu_operator")
    assert len(fallen) == result.value("cpu_operators") > 0
    assert all("Float32" in row.value for row in fallen)
    assert "FULLY_CONNECTED of layer 'head'" in result.notes[0]
    assert any(row.value.startswith("layer 'hidden', mlp") for row in fallen)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An int8 file of a net whose layers need operators that small devices lack."""
    import keras

    tokens = keras.Input((6,), dtype="int32", name="tokens")
    x = keras.layers.LayerNormalization(name="norm")(keras.layers.Embedding(20, 16, name="embed")(tokens))
    model = keras.Model(tokens, keras.layers.Dense(2, name="head")(keras.layers.Flatten(name="flat")(x)))
    path = tmp_path_factory.mktemp("mixed") / "model.tflite"
    kp.export_tflite(model, path, "int8", np.random.default_rng(0).integers(0, 20, (32, 6)).astype("int32"))
    return path


def test_what_falls_back_is_named_with_its_layer(mixed: Path) -> None:
    """The row of each operator, and the note, have the layer that it comes from; the others run on the accelerator."""
    result = kp.check_ethos_u(mixed)
    told = {row.subject.partition(":")[2]: row.value for row in result.select("cpu_operator")}
    assert told["GATHER"].startswith("layer 'embed', ")
    assert told["NEG"].startswith("layer 'norm', ")
    assert "NEG of layer 'norm'" in result.notes[0]
    assert "'head'" not in result.notes[0]
    assert result.value("npu_operators") > 0
    assert "cannot run 'model.tflite': SELECT of layer 'embed'; " in kp.check_micro(mixed).notes[0]


def test_a_file_without_a_card_names_tensors(mixed: Path, tmp_path: Path) -> None:
    """A file of others has no layers to tell, and a card of another version is passed over."""
    graph = Flatbuffer(mixed.read_bytes())
    graph.set_metadata(CARD, b'{"format": "of another day"}')
    for number, content in enumerate((mixed.read_bytes().replace(CARD.encode(), b"x" * len(CARD)), graph.content())):
        path = tmp_path / f"{number}.tflite"
        path.write_bytes(content)
        told = [row.value for row in kp.check_ethos_u(path).select("cpu_operator")]
        assert told
        assert all(value.startswith("tensor '") for value in told)
        assert re.search(r"SELECT of tensor '\w+/embed\w*/SelectV2'; ", kp.check_micro(path).notes[0])


def test_a_compiler_that_crashes_is_a_finding(files: MappingProxyType[str, Path]) -> None:
    """Vela dies of weights in int4: the caller learns it, and lives."""
    result = kp.check_ethos_u(files["int4"])
    assert result.value("runs") == 0
    assert result.value("npu_macs") is None
    assert result.value("cpu_operators") is None
    assert "signal SIGFPE" in result.notes[0]


def test_an_unknown_accelerator_is_refused(files: MappingProxyType[str, Path]) -> None:
    """The message lists those that there are, and the nearest."""
    with pytest.raises(InputError, match=r"ethos-u55-32, .*Received: 'ethos-u55-127'\. Did you mean 'ethos-u55-128'"):
        kp.check_ethos_u(files["int8"], "ethos-u55-127")


@pytest.mark.parametrize("check", [kp.check_micro, kp.check_ethos_u])
def test_a_damaged_file_is_refused(tmp_path: Path, check: Any) -> None:
    """A file that is none is told from one that the device refuses."""
    (tmp_path / "model.tflite").write_bytes(b"\0\0\0\0TFL3" + b"\xff" * 64)
    with pytest.raises(FileFormatError, match=r"expected a TensorFlow Lite file that loads"):
        check(tmp_path / "model.tflite")
    with pytest.raises(FileNotFoundError):
        check(tmp_path / "none.tflite")


@pytest.mark.parametrize(
    ("check", "module", "package"),
    [("tflm", "tflite_micro", "tflite-micro"), ("ethos_u", "ethosu.vela", "ethos-u-vela")],
)
def test_a_missing_extra_is_named(
    files: MappingProxyType[str, Path], monkeypatch: pytest.MonkeyPatch, check: str, module: str, package: str
) -> None:
    """The message has the pip line."""
    target = f"keras_precision.export.checks.{check}.available"
    monkeypatch.setattr(target, lambda name: name != module and optional.available(name))
    with pytest.raises(MissingExtraError, match=rf"'{package}'.*pip install \"keras-precision\[micro\]\""):
        {"tflm": kp.check_micro, "ethos_u": kp.check_ethos_u}[check](files["int8"])
