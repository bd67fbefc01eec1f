"""Step time, peak memory and accuracy of float32, TF32, BF16 and FP16 on two networks that fill a large GPU.

Run: python benchmarks/gpu.py --backend jax --steps 80
     python benchmarks/gpu.py --backend torch --small --steps 20    (on a processor)

Each network in each precision has a process of its own, so that its peak of memory is its own. There it is
trained with the profiler, which gives every figure but the last; then it is fitted on in pairs, once with the
profiler and once with a no-op callback that makes Keras wait for each step just as well, for what the profiler costs.
"""

import argparse
import importlib
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from side_by_side import Clock, answer, arguments_of, chosen, in_child, machine, markdown

import keras_precision as kp
from keras_precision.core.system.json_documents import Fields
from keras_precision.core.system.timing import spread
from keras_precision.core.table import format_value

PRECISIONS = ("float32", "tf32", "mixed_bfloat16", "mixed_float16")
NETS = ("conv", "transformer")
CLASSES = 10
WARMUP = 3
EPOCHS = 4  # of the measured fit; its accuracy is that of the last
FIGURES = ("step_time_ms", "step_time_p95_ms", "samples_per_second", "peak_memory_mb", "skipped_steps")


class Size(NamedTuple):
    """How large the two networks and their batches are."""

    conv_batch: int
    pixels: int
    widths: tuple[int, ...]  # two residual blocks each; each but the first halves the image
    batch: int
    tokens: int
    width: int
    heads: int
    blocks: int


LARGE = Size(512, 64, (128, 256, 512), 64, 512, 1024, 16, 4)  # some 11 TFLOP a step, both networks
SMALL = Size(16, 12, (8, 16), 16, 16, 32, 2, 2)


def main() -> None:
    """Train each network in each precision, and print a table of each network."""
    parser = arguments_of(__doc__, stacks=False)
    parser.add_argument("--backend", choices=("jax", "torch"), default="jax", help="backend of Keras 3")
    parser.add_argument("--small", action="store_true", help="networks for a processor")
    parser.add_argument("--steps", type=int, default=80, help="steps of the measured fit")
    parser.add_argument("--pairs", type=int, default=3, help="pairs of fits, with the profiler and without")
    parser.add_argument("--net", choices=(*NETS, "all"), default="all", help="which network")
    parser.add_argument("--precision", choices=(*PRECISIONS, "all"), default="all", help="which precision")
    options = parser.parse_args()
    least = (WARMUP + 2) * EPOCHS  # an epoch with a step time behind its first steps
    if options.steps < least or options.pairs < 1:
        parser.error(f"expected --steps >= {least} and --pairs >= 1")
    if options.answer:
        try:
            answer(options.answer, measure(options))
        except ValueError as error:  # a kernel that the device lacks: one row fails, the table does not
            answer(options.answer, {"failed": f"{error}".splitlines()[0]})
        return
    for net in chosen(options.net, NETS):
        runs = {precision: child(net, precision, options) for precision in chosen(options.precision, PRECISIONS)}
        print(report(net, runs, options), flush=True)


def child(net: str, precision: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one network in one precision in a process of its own."""
    sizes = ["--steps", options.steps, "--pairs", options.pairs, *(["--small"] if options.small else [])]
    which = ("--backend", options.backend, "--net", net, "--precision", precision)
    return in_child(__file__, *which, *sizes, backend=options.backend)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Train one network in one precision; return its figures, and the step times with and without the profiler."""
    set_tf32(options.backend, options.precision)
    import keras

    keras.utils.set_random_seed(0)
    size = SMALL if options.small else LARGE
    per_epoch = options.steps // EPOCHS
    with kp.precision(options.precision if options.precision.startswith("mixed") else "float32"):
        model = (conv if options.net == "conv" else transformer)(keras, size)
    batch = size.conv_batch if options.net == "conv" else size.batch
    x, y = (images if options.net == "conv" else sequences)(size, per_epoch * batch)
    model.compile(keras.optimizers.Adam(3e-4), "sparse_categorical_crossentropy", metrics=["accuracy"])

    def fitted(profiler: kp.PrecisionProfiler | None, epochs: int) -> tuple[Any, Clock]:
        clock = Clock()
        callbacks = [profiler, clock] if profiler else [clock]
        return model.fit(x, y, batch_size=batch, epochs=epochs, verbose=0, callbacks=callbacks), clock

    profiler = kp.PrecisionProfiler(options.precision, verbose=0)
    history, _ = fitted(profiler, EPOCHS)
    result = profiler.result
    pairs = []
    for number in range(2 * options.pairs):
        order = (True, False) if number % 2 == 0 else (False, True)
        clocks = {on: fitted(kp.PrecisionProfiler(verbose=0) if on else None, 2)[1] for on in order}
        pairs.append([float(np.median(clocks[on].steps_us(WARMUP))) / 1e3 for on in (True, False)])
    return {
        **{metric: result.get(metric) for metric in FIGURES},
        "accuracy": history.history["accuracy"][-1],
        "environment": result.environment.to_json(),
        "pairs": pairs,
    }


def set_tf32(backend: str, precision: str) -> None:
    """Forbid TF32 in the run ``float32``; allow it in all others, for what a mixed run leaves in float32, too."""
    if backend == "torch":
        torch = importlib.import_module("torch")
        torch.set_float32_matmul_precision("highest" if precision == "float32" else "high")
        # Convolutions have a switch of their own, which is on by default.
        torch.backends.cudnn.allow_tf32 = precision != "float32"
    elif not precision.startswith("mixed"):
        # JAX's default, which allows it, stays in mixed runs.
        jax = importlib.import_module("jax")
        jax.config.update("jax_default_matmul_precision", "highest" if precision == "float32" else "tensorfloat32")


# The networks, and tasks that they can learn


def conv(keras: Any, size: Size) -> Any:
    """A residual network; images come as bytes, so that moving them to the device takes little of the step."""
    layers = keras.layers
    image = layers.Input((size.pixels, size.pixels, 3), dtype="uint8")
    x = layers.Conv2D(size.widths[0], 3, padding="same")(layers.Rescaling(1 / 127.5, offset=-1)(image))
    for stage, width in enumerate(size.widths):
        if stage:
            x = layers.Conv2D(width, 2, strides=2)(x)
        for _ in range(2):
            y = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(layers.Conv2D(width, 3, padding="same")(x)))
            x = layers.Add()([x, layers.Conv2D(width, 3, padding="same")(y)])
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x)))
    return keras.Model(image, layers.Dense(CLASSES, activation="softmax", dtype="float32")(x))


def images(size: Size, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise, with a coarse pattern of the class in it."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, CLASSES, count)
    coarse = rng.integers(0, 64, (CLASSES, 4, 4, 3), dtype=np.uint8)
    patterns = coarse.repeat(size.pixels // 4, axis=1).repeat(size.pixels // 4, axis=2)
    noise = rng.integers(0, 192, (count, size.pixels, size.pixels, 3), dtype=np.uint8)
    return noise + patterns[kinds], kinds


def transformer(keras: Any, size: Size) -> Any:
    """A stack of Transformer blocks over token numbers, normalized first."""
    layers = keras.layers
    tokens = layers.Input((size.tokens,), dtype="int32")
    x = layers.Embedding(512, size.width)(tokens)
    for _ in range(size.blocks):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(size.heads, size.width // size.heads)(y, y)])
        y = layers.Dense(4 * size.width, activation="gelu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(size.width)(y)])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(tokens, layers.Dense(CLASSES, activation="softmax", dtype="float32")(x))


def sequences(size: Size, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Random tokens, one in four of them that of the class."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, CLASSES, count)
    tokens = rng.integers(CLASSES, 512, (count, size.tokens))
    return np.where(rng.random(tokens.shape) < 0.25, kinds[:, np.newaxis], tokens).astype("int32"), kinds


# The table


def report(net: str, runs: dict[str, dict[str, Any]], options: argparse.Namespace) -> str:
    """Return the table of a network, how memory was measured, and the machine."""
    measured = {precision: run for precision, run in runs.items() if "failed" not in run}
    if not measured:
        raise SystemExit(f"{net}: {runs}")
    environments = [kp.Environment.from_json(Fields(run["environment"], "answer")) for run in measured.values()]
    baseline = next(iter(measured.values()))
    rows = [row(precision, run, baseline) for precision, run in runs.items()]
    names = ("Step time", "p95", "Samples/s", "Peak memory", "Skipped", "Accuracy", "Speedup", "Profiler on/off")
    notes = [f"Memory: {source}." for source in sorted({each.sources["peak_memory_mb"] for each in environments})]
    by = f"by the step time of {2 * options.pairs} fits; profiler on/off: by the same fits in pairs"
    notes.append(f"Speedup: against {next(iter(measured))}, {by}. In parentheses: lowest to highest.")
    notes.append("Accuracy: on the training data, in the last epoch.")
    notes += [f"{name} cannot run here: {run['failed']}." for name, run in runs.items() if "failed" in run]
    if not any(each.tf32 is not None for each in environments):
        notes.append("This device has no TF32: the row tf32 repeats float32.")
    small = ", small" if options.small else ""
    title = f"{net}{small}, {options.backend}, {options.steps} steps"
    return markdown(title, ("Precision", *names), rows, *notes, machine(environments[0]))


def row(precision: str, run: dict[str, Any], baseline: dict[str, Any]) -> tuple[str, ...]:
    """Return one line of the table."""
    if "failed" in run:
        return precision, *["-"] * 8
    on, base = ([with_profiler for with_profiler, _ in each["pairs"]] for each in (run, baseline))
    speedups = [1.0] if run is baseline else [slow / fast for slow, fast in itertools.product(base, on)]
    cost = [with_profiler / without for with_profiler, without in run["pairs"]]
    figures = (format_value(metric, run[metric]) for metric in FIGURES)
    return precision, *figures, format_value("accuracy", run["accuracy"]), ratio(speedups), ratio(cost)


def ratio(values: Sequence[float]) -> str:
    """Return the median of ratios with the lowest and the highest."""
    return f"{spread(values).median:.3f}x ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
