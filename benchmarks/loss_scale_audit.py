"""Whether PrecisionProfiler counts skipped steps exactly and finds failing loss scaling, and what the bounds save.

Run: python benchmarks/loss_scale_audit.py --what all --stack all --seeds 10

- skips: overflows are planted in 8 of 100 batches; every cell of stack x jit_compile x steps_per_execution x
  gradient accumulation must count 8.
- audit: five failures of loss scaling are planted wherever they can occur, and each must be found; runs in which
  nothing is wrong must have no finding.
- storms: 200 bad batches, then 20 clean ones: how many models end with NaN in their weights.

A bad batch holds infinities. Each stack has a process of its own. What was planted is checked on the optimizer
itself, without the profiler.
"""

import argparse
import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from side_by_side import STACKS, answer, arguments_of, chosen, in_child, keras_of, machine, markdown

import keras_precision as kp

BATCH = 8
BAD = (3, 4, 17, 40, 41, 42, 77, 99)  # of 100 batches
STORM, CALM = 200, 20  # bad batches, and the clean ones after them
KERAS_3 = ("tensorflow", "jax", "torch")
_LARGE = 300.0  # finite in float16, as the loss of it is; the scaled gradients are not
WHAT = ("skips", "audit", "storms")
WAYS = ("plain Keras", "kp.LossScaleGuard", "kp.LossScaleOptimizer")

Data = tuple[np.ndarray, np.ndarray]


def main() -> None:
    """Run what is asked for on the stacks that are asked for, and print a table of each."""
    parser = arguments_of(__doc__, stacks=True)
    parser.add_argument("--what", choices=(*WHAT, "all"), default="all", help="which part")
    parser.add_argument("--seeds", type=int, default=10, help="storms a backend; there are twice as many healthy runs")
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error("expected --seeds >= 1")
    if options.answer:
        answer(options.answer, {"skips": skips, "audit": audit, "storms": storms}[options.what](options))
        return
    for what in chosen(options.what, WHAT):
        stacks = [stack for stack in chosen(options.stack, STACKS) if what != "storms" or stack in KERAS_3]
        sizes = ("--what", what, "--seeds", options.seeds)
        answers = {stack: in_child(__file__, "--stack", stack, *sizes, backend=stack) for stack in stacks}
        if not answers:
            continue  # tf_keras has no storms: its scale has a floor
        print({"skips": skips_table, "audit": audit_table, "storms": storms_table}[what](answers), flush=True)
    print(machine())


# What is trained


def network(keras: Any, policy: str, seed: int = 0) -> Any:
    """Return a network in ``policy``, with a head in float32; it is not compiled yet."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    with kp.precision(policy):
        hidden = [layers.Dense(16, "relu"), layers.Dense(16, "relu")]
        return keras.Sequential([layers.Input((16,)), *hidden, layers.Dense(1, dtype="float32")])


def batches(count: int, bad: Iterable[int] = (), seed: int = 0, value: float = np.inf) -> Data:
    """Return samples and targets of ``count`` batches, some of which overflow: all their samples have one value."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, BATCH, 16)).astype("float32")
    y = x.mean(axis=2) + 0.1 * rng.normal(size=(count, BATCH)).astype("float32")
    x[list(bad)] = value
    return x.reshape(-1, 16), y.reshape(-1, 1)


def profiled(model: Any, data: Data, epochs: int = 1) -> kp.PrecisionProfiler:
    """Fit with a profiler, in order; return it."""
    profiler = kp.PrecisionProfiler(verbose=0)
    model.fit(*data, batch_size=BATCH, epochs=epochs, shuffle=False, verbose=0, callbacks=[profiler])
    return profiler


def scaler(keras: Any) -> type:
    """Return Keras's own LossScaleOptimizer."""
    module = keras.mixed_precision if keras.__name__ == "tf_keras" else keras.optimizers
    return module.LossScaleOptimizer


def scale_of(model: Any) -> float | None:
    """Read the scale from the optimizer, without the profiler; None where there is none."""
    optimizer = model.optimizer
    return next((float(getattr(optimizer, n)) for n in ("dynamic_scale", "loss_scale") if hasattr(optimizer, n)), None)


def in_float16(model: Any) -> bool:
    """Whether a layer computes in float16."""
    return any(layer.compute_dtype == "float16" for layer in model.layers)


# Skips


def skips(options: argparse.Namespace) -> list[tuple[str, str, str, str]]:
    """Return, for each cell, jit_compile, steps_per_execution, accumulation, and the count or why there is none."""
    cells = itertools.product((False, True), (1, 5), (1, 4))
    return [
        ("on" if jit else "off", str(steps), str(accumulation), counted(options.stack, jit, steps, accumulation))
        for jit, steps, accumulation in cells
    ]


def counted(stack: str, jit: bool, steps: int, accumulation: int) -> str:
    """Return the skips that the profiler counted in one cell."""
    if stack == "torch" and steps > 1:
        return "not there: steps_per_execution is 1 on torch"
    if stack == "torch" and jit:
        return "left out: torch.compile takes minutes"
    if stack == "tf_keras" and accumulation > 1:
        return "not there: no gradient accumulation in tf_keras"
    keras = keras_of(stack)
    model = network(keras, "mixed_float16")
    more = {"gradient_accumulation_steps": accumulation} if accumulation > 1 else {}
    optimizer = keras.optimizers.Adam(1e-3, **more)
    model.compile(optimizer, "mse", jit_compile=jit, steps_per_execution=steps)
    return str(profiled(model, batches(100, BAD)).result.value("skipped_steps"))


def skips_table(answers: dict[str, list[list[str]]]) -> str:
    """Return one line a cell, and how many are exact."""
    truth = str(len(BAD))
    rows = [(stack, *cell, verdict(cell[-1], truth)) for stack, cells in answers.items() for cell in cells]
    measured = [row for row in rows if row[-1] != "-"]
    exact = sum(row[-1] == "exact" for row in measured)
    header = ("Stack", "jit_compile", "Steps per execution", "Accumulation", "Counted", f"Against {truth}")
    return markdown("Skipped steps, counted", header, rows, f"Exact: {exact} of {len(measured)} cells that there are.")


def verdict(count: str, truth: str) -> str:
    """Return how a cell compares; a dash where there is no such cell."""
    if ":" in count:
        return "-"
    return "exact" if count == truth else "WRONG"


# Audit


class Failure(NamedTuple):
    """A failure of loss scaling.

    Attributes:
        name: What is planted.
        code: What the profiler must find.
        stacks: Where it can occur.
        plant: From a Keras, a compiled model and data that bring it about.
        happened: Whether it did, from the model after the fit.
    """

    name: str
    code: str
    stacks: tuple[str, ...]
    plant: Callable[[Any], tuple[Any, Data]]
    happened: Callable[[Any], bool]


def compiled(model: Any, optimizer: Any = "adam") -> Any:
    """Compile and return the model."""
    model.compile(optimizer, "mse")
    return model


def zero_gradients(keras: Any) -> tuple[Any, Data]:
    """Inputs and targets are 0, so that every gradient is, and the scale doubles at each step."""
    optimizer = scaler(keras)(keras.optimizers.Adam(), dynamic_growth_steps=1)
    x, y = batches(150)
    return compiled(network(keras, "mixed_float16"), optimizer), (0 * x, 0 * y)


def one_by_one(keras: Any) -> tuple[Any, Data]:
    """The layers are in float16, the model's own policy is not."""
    layers = keras.layers
    hidden = [layers.Dense(16, "relu", dtype="mixed_float16") for _ in range(2)]
    model = keras.Sequential([layers.Input((16,)), *hidden, layers.Dense(1)])
    return compiled(model), batches(20)


def by_map(keras: Any) -> tuple[Any, Data]:
    """The global policy is a map whose default is mixed_float16."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(keras.dtype_policies.DTypePolicyMap(default_policy="mixed_float16"))
    try:
        layers = keras.layers
        hidden = [layers.Dense(16, "relu"), layers.Dense(16, "relu")]
        model = keras.Sequential([layers.Input((16,)), *hidden, layers.Dense(1, dtype="float32")])
    finally:
        keras.config.set_dtype_policy(before)
    return compiled(model), batches(20)


def reloaded(keras: Any) -> tuple[Any, Data]:
    """A model that Keras scaled is saved, and loaded while the global policy is float32."""
    model = compiled(network(keras, "mixed_float16"))
    model.fit(*batches(5), batch_size=BATCH, verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return keras.models.load_model(path), batches(20)


def at_own_floor(keras: Any) -> tuple[Any, Data]:
    """Every batch overflows, and kp.LossScaleOptimizer holds its floor of 1."""
    model = network(keras, "mixed_float16")
    return compiled(model, kp.LossScaleOptimizer(keras.optimizers.Adam())), batches(60, range(60))


def idle_in(policy: str) -> Callable[[Any], tuple[Any, Data]]:
    """The loss is scaled, and every layer is in ``policy``, which is not float16."""
    return lambda keras: (compiled(network(keras, policy), scaler(keras)(keras.optimizers.Adam())), batches(20))


def overflowing(count: int) -> Callable[[Any], tuple[Any, Data]]:
    """Every batch overflows, in a model that Keras scaled by itself."""
    return lambda keras: (compiled(network(keras, "mixed_float16")), batches(count, range(count)))


def is_scaled(model: Any) -> bool:
    """Whether the optimizer scales the loss."""
    return scale_of(model) is not None


def unscaled_float16(model: Any) -> bool:
    """Whether layers compute in float16 without loss scaling."""
    return in_float16(model) and not is_scaled(model)


def idle(model: Any) -> bool:
    """Whether the loss is scaled for nothing."""
    return is_scaled(model) and not in_float16(model)


FAILURES = (
    Failure(
        "collapse to 0", "loss-scale-collapsed", KERAS_3, overflowing(180), lambda model: scale_of(model) == 0
    ),
    Failure(
        "infinite scale", "loss-scale-infinite", KERAS_3, zero_gradients, lambda model: scale_of(model) == float("inf")
    ),
    Failure("stuck at 1", "loss-scale-stuck", ("tf_keras",), overflowing(60), lambda model: scale_of(model) == 1),
    Failure(
        "stuck at kp.LossScaleOptimizer's floor", "loss-scale-stuck", KERAS_3, at_own_floor,
        lambda model: scale_of(model) == 1,
    ),
    Failure("no scaling: layers one by one", "loss-scale-missing", STACKS, one_by_one, unscaled_float16),
    Failure("no scaling: DTypePolicyMap", "loss-scale-missing", KERAS_3, by_map, unscaled_float16),
    Failure("no scaling: reload under float32", "loss-scale-missing", STACKS, reloaded, unscaled_float16),
    Failure("idle: layers in float32", "loss-scale-idle", STACKS, idle_in("float32"), idle),
    Failure("idle: layers in mixed_bfloat16", "loss-scale-idle", STACKS, idle_in("mixed_bfloat16"), idle),
)  # fmt: skip


def audit(options: argparse.Namespace) -> dict[str, Any]:
    """Return the planted failures with what was found, and the healthy runs with what was found in them."""
    keras = keras_of(options.stack)
    planted = [found_in(failure, keras) for failure in FAILURES if options.stack in failure.stacks]
    runs = [healthy(keras, seed) for seed in range(2 * options.seeds)]
    return {"planted": planted, "healthy": runs}


def found_in(failure: Failure, keras: Any) -> dict[str, Any]:
    """Plant one failure; return its name and code, whether it happened, and the codes that were found."""
    model, data = failure.plant(keras)
    codes = found_by(profiled(model, data))
    return {"name": failure.name, "code": failure.code, "happened": failure.happened(model), "found": codes}


def healthy(keras: Any, seed: int) -> dict[str, Any]:
    """Train with nothing wrong: another policy, optimizer and data for each seed; a few overflows in float16."""
    policy = ("float32", "mixed_bfloat16", "mixed_float16")[seed % 3]
    optimizers = keras.optimizers
    optimizer = (optimizers.Adam, optimizers.SGD, optimizers.RMSprop, optimizers.AdamW)[seed % 4](1e-3)
    bad: Sequence[int] = ()
    if policy == "mixed_float16":
        bad = np.random.default_rng(seed).choice(60, 4, replace=False).tolist()
        if keras.__name__ == "keras" and seed % 2:
            optimizer = kp.LossScaleOptimizer(optimizer)
    name = f"{policy}, {type(optimizer).__name__}, seed {seed}"
    model = compiled(network(keras, policy, seed), optimizer)
    profiler = profiled(model, batches(60, bad, seed, _LARGE), epochs=1 + seed % 2)
    return {"name": name, "found": found_by(profiler)}


def found_by(profiler: Any) -> list[str]:
    """Return the findings, but for one that is of the machine: data wait where other work takes the processor."""
    return [finding.code for finding in profiler.findings if finding.code != "input-bound"]


def audit_table(answers: dict[str, dict[str, Any]]) -> str:
    """Return one line a planted failure, one line a stack for the healthy runs, and how many were found."""
    rows = [row for stack, given in answers.items() for row in audit_rows(stack, given)]
    verdicts = [row[-1] for row in rows]
    real = len(rows) - len(answers) - verdicts.count("does not occur")
    alarms = [
        f"{stack}: {run['name']}: {', '.join(run['found'])}"
        for stack, given in answers.items() for run in given["healthy"] if run["found"]
    ]  # fmt: skip
    found = verdicts.count("found")
    notes = [f"Found: {found} of {real} failures that occurred. Healthy runs with a finding: {len(alarms)}."]
    header = ("Stack", "Planted", "Expected", "Found", "Verdict")
    return markdown("Audit of loss scaling", header, rows, *notes, *(f"False alarm: {alarm}." for alarm in alarms))


CAUSES = ("non-finite", "non-finite-loss", "non-finite-weights", "no-updates")
"""What the profiler says, beside the scale, of the batches of infinite inputs with which failures are planted."""


def audit_rows(stack: str, given: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the lines of one stack."""
    for each in given["planted"]:
        extra = [code for code in each["found"] if code not in (each["code"], *CAUSES)]
        if not each["happened"]:
            word = "does not occur" if not each["found"] else "FALSE ALARM"
        elif each["code"] not in each["found"]:
            word = "MISSED"
        else:
            word = "found, AND MORE" if extra else "found"
        yield stack, each["name"], each["code"], ", ".join(each["found"]) or "nothing", word
    runs = given["healthy"]
    alarms = sum(bool(run["found"]) for run in runs)
    yield stack, f"nothing ({len(runs)} runs)", "nothing", f"{alarms} findings", "FALSE ALARM" if alarms else "right"


# Storms


def storms(options: argparse.Namespace) -> dict[str, int]:
    """Return how many models ended with NaN in their weights, each way."""
    keras = keras_of(options.stack)
    return {way: sum(ruined(keras, way, seed) for seed in range(options.seeds)) for way in WAYS}


def ruined(keras: Any, way: str, seed: int) -> bool:
    """Train through a storm; tell whether a weight is NaN."""
    optimizer = keras.optimizers.Adam(1e-3)
    if way == "kp.LossScaleOptimizer":
        optimizer = kp.LossScaleOptimizer(optimizer)
    callbacks = [kp.LossScaleGuard(patience=10_000)] if way == "kp.LossScaleGuard" else []
    model = compiled(network(keras, "mixed_float16", seed), optimizer)
    data = batches(STORM + CALM, range(STORM), seed)
    model.fit(*data, batch_size=BATCH, shuffle=False, verbose=0, callbacks=callbacks)
    return any(bool(np.isnan(weight).any()) for weight in model.get_weights())


def storms_table(answers: dict[str, dict[str, int]]) -> str:
    """Return one line a backend."""
    rows = [(stack, *(counts[way] for way in WAYS)) for stack, counts in answers.items()]
    title = f"Models with NaN weights after {STORM} bad batches and {CALM} clean ones"
    return markdown(title, ("Backend", *WAYS), rows)


if __name__ == "__main__":
    main()
