"""Run: one training as a child does it, done here, with a channel that only listens."""

import warnings
from collections import deque
from pathlib import Path
from typing import Any

import nets
import numpy as np
import pytest

from keras_precision.core.errors import DataError, InputError, ModelError
from keras_precision.core.plan import PrecisionPlan
from keras_precision.experiments.run import Run
from keras_precision.experiments.task import Task, check_build, check_data, import_function

pytestmark = pytest.mark.every_stack


class ScriptedChannel:
    """A channel with its requests written down beforehand."""

    def __init__(self, *requests: tuple[str, tuple[Any, ...]]) -> None:
        self.requests, self.replies = deque(requests), []

    def receive(self) -> tuple[str, tuple[Any, ...]]:
        return self.requests.popleft()

    def reply(self, value: Any) -> None:
        self.replies.append(value)


def compiled(stack: Any, **options: Any) -> Any:
    """Return a function that builds a small classifier of a stack."""

    def build() -> Any:
        model = nets.mlp(stack.keras, **options)
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    return build


def run_of(
    stack: Any,
    data: Any,
    precision: Any = "float32",
    *,
    seed: int = 0,
    channel: Any = None,
    build: Any = None,
    **task: Any,
) -> Run:
    """Return a run on some data, which are the validation data, too."""
    return Run(
        channel or ScriptedChannel(),
        Task(build or compiled(stack), data, data, batch_size=16, **task),
        "the run",
        precision,
        seed,
    )


@pytest.fixture
def data(rng: np.random.Generator) -> Any:
    """Samples and labels."""
    return nets.classes(rng, 80)


def test_only_precision_differs(stack: Any, data: Any) -> None:
    """Weights, order and configuration are the same in each precision, plans included; another seed has others."""
    plan = PrecisionPlan.training("mixed_bfloat16", layers={"head": "float32"})
    runs = [run_of(stack, data, precision) for precision in ("float32", "mixed_float16", plan)]
    first, *others = (run.prepare() for run in runs)
    assert others == [first, first]
    assert first["metric"] == "val_accuracy"
    assert runs[2]._model.get_layer("hidden").compute_dtype == "bfloat16"
    assert runs[2]._model.get_layer("head").compute_dtype == "float32"
    other_seed, other_batch = run_of(stack, data, seed=1).prepare(), run_of(stack, data, steps=3).prepare()
    assert other_seed["initial_weights"] != first["initial_weights"]
    assert other_seed["data_order"] != first["data_order"]
    assert other_seed["configuration"] == first["configuration"] != other_batch["configuration"]


def test_training_tells_the_metric_and_the_classes(stack: Any, data: Any) -> None:
    """The result has the final metric, whether it diverged, and each class's accuracy; the data were shuffled."""
    result = run_of(stack, data, epochs=2).train()
    assert result.value("val_accuracy", "fit") == result.series("val_accuracy", "epoch")[1][-1]
    assert result.value("diverged_share") == 0
    assert result.value("batch_size") == 16
    assert [row.subject for row in result.select("class_accuracy")] == ["class 0", "class 1", "class 2"]
    sizes = [np.mean(data[1] == kind) for kind in range(3)]
    weighted = sum(size * row.value for size, row in zip(sizes, result.select("class_accuracy"), strict=True))
    assert weighted == pytest.approx(result.value("val_accuracy", "fit"), abs=1e-5)


def test_a_run_that_diverges_says_so(stack: Any, data: Any) -> None:
    """A learning rate beyond all bounds ends in NaN."""

    def build() -> Any:
        model = stack.keras.Sequential([stack.keras.Input((8,)), stack.keras.layers.Dense(3)])
        model.compile(stack.keras.optimizers.SGD(1e38), "mse", metrics=["accuracy"])
        return model

    x, y = data
    one_hot = np.eye(3, dtype="float32")[y]
    assert run_of(stack, (1e3 * x, one_hot), build=build).train().value("diverged_share") == 1


def test_steps_end_a_training(stack: Any, data: Any) -> None:
    """Seven steps are seven, over the end of an epoch of five."""
    assert run_of(stack, data, steps=7).train().value("batches") == 7


def test_every_block_has_its_reply(stack: Any, data: Any) -> None:
    """Every block has the requested number of times, over the ends of epochs, and the last is a stop."""
    channel = ScriptedChannel(("block", (8,)), ("block", (3,)), ("stop", ()))
    run_of(stack, data, channel=channel).train_interleaved(4)
    assert [len(times) for times in channel.replies] == [4, 8, 3]
    assert all(time > 0 for times in channel.replies for time in times)


def test_callbacks_are_told_the_run(stack: Any, data: Any) -> None:
    """They are made for each run, and watch it."""
    epochs: list[str] = []

    class Noting(stack.keras.callbacks.Callback):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            epochs.append(self.name)

    run_of(stack, data, epochs=2, callbacks=lambda name: [Noting(name)]).train()
    assert epochs == ["the run", "the run"]


def test_data_may_be_made_in_the_child(stack: Any, data: Any) -> None:
    """Batches from a function train as well, and are scored."""

    class Batches(getattr(stack.keras.utils, "PyDataset", stack.keras.utils.Sequence)):
        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: int) -> Any:
            return tuple(array[16 * index : 16 * index + 16] for array in data)

    run = run_of(stack, Batches)
    assert run.prepare()["data_order"] == run_of(stack, Batches).prepare()["data_order"]
    assert run.train().value("batches") == 5


def test_data_that_run_out_are_told(stack: Any, data: Any) -> None:
    """A generator of three batches does not train for eight steps; in turns, it is made anew."""
    x, y = data

    def batches() -> Any:
        return ((x[:16], y[:16]) for _ in range(3))

    task = Task(compiled(stack), batches, data, batch_size=16, steps=8)
    run = Run(ScriptedChannel(), task, "the run", "float32", 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Keras says that the data ran out, on some backends
        with pytest.raises(DataError, match="data for 8 training steps. Received: data that ended after 3 steps"):
            run.train()


def test_a_metric_that_is_not_compiled_is_refused(stack: Any, data: Any) -> None:
    """The message lists those that are, and the nearest; ``val_`` in front is understood."""
    assert run_of(stack, data, metric="val_loss").prepare()["metric"] == "val_loss"
    with pytest.raises(
        InputError, match="compiled with: .*accuracy.*loss. Received: 'accurcy'. Did you mean 'accuracy'?"
    ):
        run_of(stack, data, metric="accurcy").prepare()


def test_what_is_built_must_be_a_compiled_model(stack: Any, data: Any) -> None:
    """A model that was not compiled, or whose input is not known, is refused."""
    with pytest.raises(ModelError, match="a compiled model. Received: Sequential, not compiled. Call model.compile"):
        run_of(stack, data, build=lambda: nets.mlp(stack.keras))
    with pytest.raises(ModelError, match="Keras model. Received: an object of type builtins.int"):
        run_of(stack, data, build=lambda: 3)

    def unbuilt() -> Any:
        model = stack.keras.Sequential([stack.keras.layers.Dense(3)], name="open")
        model.compile("sgd", "sparse_categorical_crossentropy")
        return model

    with pytest.raises(ModelError, match="Expected build to return a built model. Received: 'open'.*Add an Input"):
        run_of(stack, data, build=unbuilt).prepare()


def test_a_file_is_a_build(stack: Any, data: Any, tmp_path: Path) -> None:
    """A .keras file is loaded with its optimizer, in each precision."""
    if stack.name == "tf_keras":
        pytest.skip("files are those of Keras 3")
    path = tmp_path / "model.keras"
    model = compiled(stack)()
    model.fit(*data, verbose=0)
    model.save(path)
    runs = [run_of(stack, data, precision, build=check_build(path)) for precision in ("float32", "mixed_bfloat16")]
    assert runs[0].prepare() == runs[1].prepare()
    assert runs[1]._model.get_layer("hidden").compute_dtype == "bfloat16"


def test_wrong_builds_and_data_are_refused(stack: Any, tmp_path: Path) -> None:
    """Before any process is started, each message says what was expected."""
    model = compiled(stack)()
    for wrong, message in (
        (model, "Received: a model. Every run builds its own"),
        (3, "Received: 3."),
        ("m.h5", "the path of a .keras file. Received: 'm.h5'"),
    ):
        with pytest.raises(InputError, match=message):
            check_build(wrong)
    with pytest.raises(FileNotFoundError, match="'gone.keras', which does not exist"):
        check_build("gone.keras")
    for wrong, message in (
        (None, r"Expected data: \(x, y\)"),
        ((np.ones((3, 2)), np.ones(2)), r"as many labels as samples.*\[2, 3\]"),
    ):
        with pytest.raises(DataError, match=message):
            check_data(wrong, "data")
    assert import_function("json:dumps")([1]) == "[1]"
    for name in ("no_such_module:build", "json:no_such_function"):
        with pytest.raises(InputError, match=f"'module:function', to import in another process. Received: '{name}'"):
            import_function(name)


@pytest.mark.parametrize(
    "name", [":build", "module:", "..module:build", "a module:build", "module:build:more", "a:b.c", "\0:f"]
)
def test_names_that_python_cannot_import_are_refused(name):
    """They are refused before a process is started, wherever a function is named."""
    for take in (check_build, import_function, lambda name: check_data(name, "data")):
        with pytest.raises(InputError, match="Expected 'module:function', such as 'package.module:build'. Received: '"):
            take(name)


def test_data_that_train_no_step_end_the_blocks(stack: Any, data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An iterator that is exhausted would be asked for steps for ever."""
    run = run_of(stack, data, channel=ScriptedChannel())
    monkeypatch.setattr(run, "_fit", lambda callbacks, **settings: None)
    with pytest.raises(DataError, match="for another epoch. Received: data that have run out. Pass a function"):
        run.train_interleaved(4)
