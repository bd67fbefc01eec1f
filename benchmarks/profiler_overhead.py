"""What PrecisionProfiler costs a step, beside TensorBoard and a callback that reads everything at every step.

Run: python benchmarks/profiler_overhead.py --stack all --pairs 25

Each stack has a process of its own. One tiny network (16-16-16-1, batch 8, mixed_float16) is compiled once and
fitted again and again, in rounds that carry the arms forth and back (A B C D D C B A ...), so that what else the
machine does falls on all alike. Every arm carries a no-op callback that overrides on_train_batch_end, so that
JAX and PyTorch wait for each step in all of them. A difference is taken within a round.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import psutil
from side_by_side import STACKS, Clock, answer, arguments_of, chosen, in_child, keras_of, machine, markdown

import keras_precision as kp
from keras_precision.core.system.timing import spread

BATCH = 8
WARMUP = 10  # steps of each fit that are left out
BUDGET_US = {"tensorflow": 15.0, "jax": 25.0, "torch": 15.0}  # the aims; tf_keras has the share alone
STEP_US = 5000.0
SHARE = 0.01
ARMS = {
    "no-op": "no-op callback",
    "profiler": "PrecisionProfiler",
    "tensorboard": 'TensorBoard(update_freq="batch")',
    "plain": "scale and memory read each step",
}


def main() -> None:
    """Measure every stack that is asked for, and print a table of each."""
    parser = arguments_of(__doc__, stacks=True)
    parser.add_argument("--pairs", type=int, default=25, help="pairs of rounds, one forth and one back")
    parser.add_argument("--steps", type=int, default=200, help="steps of one arm in one round")
    options = parser.parse_args()
    if options.pairs < 1 or options.steps < 2:
        parser.error("expected --pairs >= 1 and --steps >= 2")
    if options.answer:
        answer(options.answer, measure(options))
        return
    for stack in chosen(options.stack, STACKS):
        sizes = ("--pairs", options.pairs, "--steps", options.steps)
        rounds = in_child(__file__, "--stack", stack, *sizes, backend=stack)
        print(report(stack, rounds, options.steps), flush=True)
    print(machine())


def measure(options: argparse.Namespace) -> list[dict[str, dict[str, float]]]:
    """Fit every arm in every round; return, for each round, arm to figures."""
    keras = keras_of(options.stack)
    model = network(keras)
    rng = np.random.default_rng(0)
    count = BATCH * (options.steps + WARMUP)
    data = rng.normal(size=(count, 16)).astype("float32"), rng.normal(size=(count, 1)).astype("float32")
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        for arm in ARMS:
            fitted(model, data, arm, keras, folder)  # compiles; left out
        for number in range(2 * options.pairs):
            order = list(ARMS) if number % 2 == 0 else list(reversed(ARMS))
            rounds.append({arm: fitted(model, data, arm, keras, folder) for arm in order})
    return rounds


def network(keras: Any) -> Any:
    """Return the compiled network."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    with kp.precision("mixed_float16"):
        hidden = [layers.Dense(16, "relu"), layers.Dense(16, "relu")]
        model = keras.Sequential([layers.Input((16,)), *hidden, layers.Dense(1, dtype="float32")])
    model.compile("sgd", "mse")
    return model


def fitted(model: Any, data: tuple[Any, Any], arm: str, keras: Any, folder: str) -> dict[str, float]:
    """Fit once with the callbacks of an arm; return its figures in microseconds."""
    callbacks = {
        "no-op": list,
        "profiler": lambda: [kp.PrecisionProfiler(verbose=0)],
        "tensorboard": lambda: [keras.callbacks.TensorBoard(folder, update_freq="batch")],
        "plain": lambda: [plain(keras)],
    }[arm]()
    clock = Clock()
    model.fit(*data, batch_size=BATCH, shuffle=False, verbose=0, callbacks=[*callbacks, clock])
    figures = {"step": float(clock.steps_us(WARMUP).mean()), "epoch end": clock.epoch_end_us}
    if arm == "profiler":
        figures["reported"] = callbacks[0].result.value("profiler_us_per_step")
    return figures


def plain(keras: Any) -> Any:
    """Return the callback that one would write without this package."""
    process = psutil.Process()

    class Plain(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            optimizer = self.model.optimizer  # on JAX, Keras brings the model's state back here
            scale = optimizer.dynamic_scale if hasattr(optimizer, "dynamic_scale") else optimizer.loss_scale
            self.seen = float(scale), process.memory_info().rss

    return Plain()


def report(stack: str, rounds: Sequence[dict[str, dict[str, float]]], steps: int) -> str:
    """Return the table of a stack, and whether the aims are met."""
    rows = [row(arm, rounds) for arm in ARMS]
    header = ("Callback", "Step", "Against no-op", "p5", "p95", "Reported by itself", "Share of 5 ms", "End of epoch")
    how = f"medians over {len(rounds)} rounds of the mean of {steps - 1} steps, {WARMUP} left out in each"
    notes = [f"Microseconds: {how}. The last column is an epoch's, not a step's; it is against no-op, too."]
    if stack == "tf_keras":
        notes.append("On tf_keras every arm runs the step in which the profiler once put its count of skips.")
    return markdown(f"Callbacks on {stack}", header, rows, *notes, *aims(stack, rounds))


def row(arm: str, rounds: Sequence[dict[str, dict[str, float]]]) -> tuple[str, ...]:
    """Return one line of the table."""
    step = spread(each[arm]["step"] for each in rounds)
    if arm == "no-op":
        return ARMS[arm], f"{step.median:.1f}", *["-"] * 6
    more = spread(differences(arm, "step", rounds))
    epoch = spread(differences(arm, "epoch end", rounds))
    own = f"{spread(each[arm]['reported'] for each in rounds).median:.1f}" if arm == "profiler" else "-"
    return (
        ARMS[arm], f"{step.median:.1f}", f"{more.median:+.1f}", f"{more.p5:+.1f}", f"{more.p95:+.1f}", own,
        f"{100 * more.median / STEP_US:.2f} %", f"{epoch.median:+.0f}",
    )  # fmt: skip


def differences(arm: str, figure: str, rounds: Sequence[dict[str, dict[str, float]]]) -> list[float]:
    """Return what an arm took more than the no-op arm of the same round."""
    return [each[arm][figure] - each["no-op"][figure] for each in rounds]


def aims(stack: str, rounds: Sequence[dict[str, dict[str, float]]]) -> Iterator[str]:
    """Yield, for each aim, the figure and whether it is met; JAX's aim is a mean."""
    middle, word = (np.mean, "mean") if stack == "jax" else (np.median, "median")
    figures = {
        "reported by itself": [each["profiler"]["reported"] for each in rounds],
        "side by side": differences("profiler", "step", rounds),
    }
    for how, values in figures.items():
        value, (low, high) = float(middle(values)), interval(values, middle)
        budget = BUDGET_US.get(stack)
        known = f"{word} of rounds {value:.1f} us, 95 % interval {low:.1f} to {high:.1f}"
        if budget is not None:
            yield f"Aim: at most {budget:.0f} us a step, {how}: {known}: {verdict(value <= budget)}."
        share = value / STEP_US
        yield f"Aim: at most {100 * SHARE:.0f} % of a 5 ms step, {how}: {100 * share:.2f} %: {verdict(share <= SHARE)}."


def interval(values: Sequence[float], middle: Callable[..., Any]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean or median of ``values`` (percentile method, 2000 draws)."""
    drawn = np.random.default_rng(0).choice(np.asarray(values), size=(2000, len(values)))
    low, high = np.percentile(middle(drawn, axis=1), (2.5, 97.5))
    return float(low), float(high)


def verdict(met: bool) -> str:
    """Return how a comparison reads."""
    return "met" if met else "NOT met"


if __name__ == "__main__":
    main()
