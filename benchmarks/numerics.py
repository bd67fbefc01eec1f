"""Whether the layer at fault is named, what an FP32 run foretells of float16, what looking costs, how many runs bisection takes.

    python benchmarks/numerics.py                       # everything, on every stack
    python benchmarks/numerics.py --what faults --stack torch
    python benchmarks/numerics.py --what cost --pairs 5

Faults: each net of planted_faults.py is given to kp.diagnose, and its twin without the fault. The first finding must name
the layer; the twins may give no error. Healthy: the nets of healthy_nets.py may give no error and no warning. Foretelling: nets
with random gains between their layers are looked at in float32, and then run in float16. Cost: fits of one net take turns, with and without each way to look.
"""

import argparse
import contextlib
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from healthy_nets import KINDS, healthy_nets, net_of
from planted_faults import FAULTS, WIDTH, Bench, Ops
from side_by_side import STACKS, Clock, answer, arguments_of, chosen, in_child, keras_of, machine, markdown

import keras_precision as kp
from keras_precision._adapters import adapter_of
from keras_precision._adapters.tracing.step_observer import Batch, StepObserver
from keras_precision.core.system.timing import spread
from keras_precision.experiments.unstable_layers import smallest_high

WHATS = ("faults", "healthy", "foretold", "plans", "cost", "bisection")
BATCH, CADENCE = 64, 200


def main() -> None:
    """Run what is asked for, and print its tables."""
    parser = arguments_of(__doc__, stacks=True)
    parser.add_argument("--what", choices=(*WHATS, "all"), default="all")
    parser.add_argument("--only", default="", help="faults, and healthy nets, whose name has this")
    parser.add_argument("--nets", type=int, default=40, help="small healthy nets, and nets with random gains")
    parser.add_argument("--pairs", type=int, default=8, help="rounds of the cost, forth and back")
    options = parser.parse_args()
    if options.answer:
        measures = {"faults": faults, "healthy": healthy, "foretold": foretold, "plans": plans, "cost": cost}
        answer(options.answer, measures[options.what](options))
        return
    for what in chosen(options.what, WHATS):
        if what == "bisection":
            print(bisection(), flush=True)
            continue
        stacks = [each for each in chosen(options.stack, STACKS) if what != "cost" or each in ("tensorflow", "torch")]
        for stack in stacks:
            arguments = (
                "--what",
                what,
                "--stack",
                stack,
                "--nets",
                options.nets,
                "--pairs",
                options.pairs,
                "--only",
                options.only,
            )
            print(TABLES[what](stack, in_child(__file__, *arguments, backend=stack)), flush=True)
    print(machine())


def faults(options: argparse.Namespace) -> dict[str, Any]:
    """Diagnose each fault and its twin."""
    keras = keras_of(options.stack)
    seen = {name: one_fault(keras, name) for name in FAULTS if options.only in name}
    return {"faults": seen}


def one_fault(keras: Any, name: str) -> dict[str, Any]:
    """Diagnose a fault and its twin."""
    found: dict[str, Any] = {}
    for key, is_healthy in (("faulty", False), ("twin", True)):
        keras.utils.set_random_seed(7)
        bench = Bench(keras, Ops(keras), is_healthy, np.random.default_rng(7))
        with np.errstate(all="ignore"):
            model, x, path = FAULTS[name](bench)
            findings = kp.diagnose(model, (x, np.ones((len(x), 1), "float32")))
        errors = [each for each in findings if each.severity == "error"]
        told = findings if key == "faulty" else errors
        found[key] = [[each.code, each.subject, each.severity] for each in told[:3]]
        found["path"] = path
    return found


def healthy(options: argparse.Namespace) -> dict[str, Any]:
    """Diagnose nets with nothing wrong; return their warnings and errors."""
    wrong, count = [], 0
    for net in healthy_nets(keras_of(options.stack), options.nets, options.only):
        findings = [finding for finding in kp.diagnose(net.model, net.data) if finding.severity != "info"]
        wrong += [[net.name, finding.severity, finding.code, finding.subject] for finding in findings]
        count += 1
    return {"nets": count, "false alarms": wrong}


def table_of_healthy(stack: str, seen: dict[str, Any]) -> str:
    """Return the warnings and errors of nets with nothing wrong."""
    header = ("Net", "Severity", "Finding", "Layer")
    return markdown(
        f"False alarms in {seen['nets']} healthy nets on {stack}",
        header,
        seen["false alarms"],
        f"{len(seen['false alarms'])} in all.",
    )


def foretold(options: argparse.Namespace) -> dict[str, list[int]]:
    """Compare what a look in float32 says of each layer with what float16 then does: [right, too much, missed, silent]."""
    keras, rng = keras_of(options.stack), np.random.default_rng(0)
    counts = {"overflow": [0, 0, 0, 0], "underflow": [0, 0, 0, 0]}
    for number in range(options.nets):
        keras.utils.set_random_seed(number)
        model = random_net(keras, rng)
        batch = Batch(rng.normal(size=(32, WIDTH)).astype("float32"), np.ones((32, 1), "float32"))
        before = seen_by_layer(model, batch)
        half = kp.apply_plan(model, kp.PrecisionPlan.training("mixed_float16", layers={"last": "float32"}))
        after = seen_by_layer(half, batch)
        for path in before:
            if path == "last":
                continue
            expected, happened = before[path], after[path]
            if happened["reached"]:
                tally(counts["overflow"], expected["over"], happened["broke"])
            if happened["flows"]:
                lost = happened["zero"] - expected["zero"] >= 0.1
                tally(counts["underflow"], expected["under"] >= 0.1, lost)
    return counts


def random_net(keras: Any, rng: np.random.Generator) -> Any:
    """Return a net in float32 with random gains between its layers."""
    layers = [keras.layers.Input((WIDTH,))]
    for number in range(5):
        layers.append(keras.layers.Dense(WIDTH, name=f"dense{number}"))
        layers.append(keras.layers.Rescaling(float(10.0 ** rng.uniform(-3, 3)), name=f"gain{number}"))
    model = keras.Sequential([*layers, keras.layers.Dense(1, name="last")])
    model.compile("sgd", "mse", **({"auto_scale_loss": False} if hasattr(keras, "ops") else {}))
    return model


def seen_by_layer(model: Any, batch: Batch) -> dict[str, dict[str, Any]]:
    """Return, for each layer, what one step without loss scaling shows."""
    with np.errstate(all="ignore"):
        observation = StepObserver(adapter_of(model), model).observe(batch)
    seen = {}
    for call, _ in observation.outer():
        (before,), (after,), (back,) = call.inputs, call.outputs, call.output_gradients
        seen[call.path] = {
            "reached": before.is_finite, "over": after.float16_overflow > 0, "broke": not after.is_finite,
            "flows": back is not None and back.is_finite and observation.loss is not None and math.isfinite(observation.loss),
            "under": 0 if back is None else back.float16_underflow, "zero": 1 if back is None else back.zero,
        }  # fmt: skip
    return seen


def tally(counts: list[int], expected: bool, happened: bool) -> None:
    """Count one layer."""
    counts[0 if expected and happened else 1 if expected else 2 if happened else 3] += 1


PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def plans(options: argparse.Namespace) -> dict[str, int]:
    """Apply random plans to nets, fresh and reloaded; count those that are realised, refused, and neither."""
    keras, rng = keras_of(options.stack), np.random.default_rng(0)
    counts = {"fresh, realised": 0, "reloaded, realised": 0, "refused": 0, "another plan": 0}
    for build in (*(lambda kind=kind: plain_net(keras, kind) for kind in KINDS[:7]), *composite_nets(keras)):
        for _ in range(options.nets // 4):
            model = build()
            paths = list(kp.layer_paths(model))
            wanted = dict(zip(paths, map(str, rng.choice(PRECISIONS, len(paths))), strict=True))
            plan = kp.PrecisionPlan.training("float32", layers=wanted)
            try:
                lowered = kp.apply_plan(model, plan)
            except kp.errors.PrecisionError:
                counts["refused"] += 1
                continue
            with tempfile.TemporaryDirectory() as folder:
                lowered.save(Path(folder) / "model.keras")
                loaded = keras.models.load_model(Path(folder) / "model.keras")
            for how, each in (("fresh", lowered), ("reloaded", loaded)):
                is_so = kp.plan_of(each).resolve(paths) == plan.resolve(paths)
                counts[f"{how}, realised" if is_so else "another plan"] += 1
    return counts


def plain_net(keras: Any, kind: str) -> Any:
    """Return a net with nothing wrong."""
    model, _, loss = net_of(keras, kind)
    model.compile("adam", loss)
    return model


def composite_nets(keras: Any) -> Iterator[Any]:
    """Yield what builds nets with layers inside layers."""
    layers = keras.layers

    def nested(depth: int) -> Any:
        inner = keras.Sequential([layers.Input((4,)), layers.Dense(4, name="in")], name="bottom")
        for number in range(depth):
            inner = keras.Sequential([layers.Input((4,)), inner, layers.Dense(4)], name=f"level{number}")
        return keras.Sequential([layers.Input((4,)), inner, layers.Dense(1)])

    def sequence(layer: Any) -> Any:
        series = layers.Input((6, 4))
        hidden = layer(series, series) if isinstance(layer, layers.MultiHeadAttention) else layer(series)
        return keras.Model(series, layers.Dense(1)(layers.Flatten()(hidden)))

    yield lambda: nested(0)
    yield lambda: nested(2)
    yield lambda: sequence(layers.MultiHeadAttention(2, 4))
    yield lambda: sequence(layers.Bidirectional(layers.LSTM(4)))
    yield lambda: sequence(layers.TimeDistributed(layers.Dense(4)))


def table_of_plans(stack: str, counts: dict[str, int]) -> str:
    """Return how random plans ended."""
    note = "Twelve nets: dense, convolutional, recurrent, nested, attention, Bidirectional, TimeDistributed, and more."
    return markdown(f"Random plans applied on {stack}", ("Model", "Count"), list(counts.items()), note)


def cost(options: argparse.Namespace) -> list[dict[str, float]]:
    """Fit in turns with each way to look; return microseconds a step of each round."""
    keras = keras_of(options.stack)
    arms = {"nothing": None, "every step": 1, f"every {CADENCE}th": CADENCE, "checks": None}
    rng = np.random.default_rng(0)
    steps = 2 * CADENCE + 20
    data = (
        rng.normal(size=(BATCH * steps, 256)).astype("float32"),
        rng.normal(size=(BATCH * steps, 1)).astype("float32"),
    )
    short = tuple(array[: BATCH * 40] for array in data)
    models = {arm: network(keras) for arm in arms}
    rounds = []
    for number in range(2 * options.pairs + 1):
        order = list(arms) if number % 2 else list(reversed(arms))
        times = {}
        for arm in order:
            clock, callbacks = Clock(), []
            if arms[arm]:
                callbacks = [kp.PrecisionProfiler(probes=[kp.NumericsProbe(arms[arm])], verbose=0)]
            with checked(options.stack) if arm == "checks" else contextlib.nullcontext():
                is_long = arm in ("nothing", f"every {CADENCE}th")
                given = data if is_long else short
                models[arm].fit(*given, batch_size=BATCH, shuffle=False, verbose=0, callbacks=[*callbacks, clock])
            # The first look of a fit traces and compiles: of a long fit, the steps behind it count, and the second look.
            times[arm] = float(clock.steps_us(CADENCE + 10 if is_long else 10).mean())
            if arm == f"every {CADENCE}th":
                times["first look"] = float(clock.steps_us(0)[CADENCE - 10 : CADENCE + 10].max())
        rounds.append(times)
    return rounds[1:]  # the first compiles


def network(keras: Any) -> Any:
    """Return the net whose fits take turns."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([layers.Input((256,)), *[layers.Dense(512, "relu") for _ in range(4)], layers.Dense(1)])
    model.compile("adam", "mse")
    return model


@contextlib.contextmanager
def checked(stack: str) -> Iterator[None]:
    """Look with what the framework itself has."""
    if stack == "torch":
        import torch

        with torch.autograd.detect_anomaly(check_nan=True):
            yield
    else:
        import tensorflow as tf

        tf.debugging.enable_check_numerics()
        try:
            yield
        finally:
            tf.debugging.disable_check_numerics()


def bisection() -> str:
    """Return the table of runs that bisection takes, over random places of the bad layers."""
    rows = []
    for count in (8, 16, 32, 64, 128):
        for bad in (1, 2, 3):
            runs, exact = zip(*(runs_of(count, bad, seed) for seed in range(100)), strict=True)
            rows.append(
                (count, bad, f"{np.mean(runs):.1f}", max(runs), f"{bad * math.log2(count):.1f}", f"{sum(exact)} of 100")
            )
    header = ("Layers", "Bad", "Runs (mean)", "Runs (most)", "k log2 n", "Found exactly")
    return markdown(
        "Bisection", header, rows, "Places drawn at random, 100 times; a run is stable unless a bad layer is lowered."
    )


def runs_of(count: int, bad: int, seed: int) -> tuple[int, bool]:
    """Return how many runs were needed, and whether the very layers were found."""
    names = [str(number) for number in range(count)]
    planted = set(np.random.default_rng(seed).choice(names, bad, replace=False))
    runs = []

    def is_stable(lowered: Sequence[str]) -> bool:
        runs.append(lowered)
        return not planted & set(lowered)

    found = smallest_high(names, is_stable)
    return len(runs), set(found) == planted


def table_of_faults(stack: str, seen: dict[str, Any]) -> str:
    """Return the table of planted faults."""
    rows, named, quiet = [], 0, 0
    for name, case in seen["faults"].items():
        code, subject, severity = case["faulty"][0] if case["faulty"] else ("nothing", "-", "-")
        right = subject == case["path"]
        named, quiet = named + right, quiet + (not case["twin"])
        rows.append(
            (
                name,
                f"{code} ({severity})",
                "yes" if right else f"NO: {subject}",
                "no error" if not case["twin"] else str(case["twin"]),
            )
        )
    count = len(seen["faults"])
    notes = [f"Named first: {named} of {count}. Twins without an error: {quiet} of {count}."]
    return markdown(
        f"Faults on {stack}",
        ("Fault", "First finding", "The layer", "Its twin"),
        rows,
        *notes,
    )


def table_of_foretold(stack: str, counts: dict[str, list[int]]) -> str:
    """Return precision and recall."""
    rows = []
    for what, (right, too_much, missed, silent) in counts.items():
        precision = right / (right + too_much) if right + too_much else math.nan
        recall = right / (right + missed) if right + missed else math.nan
        rows.append((what, right, too_much, missed, silent, f"{precision:.3f}", f"{recall:.3f}"))
    header = ("Layers with", "Foretold, and so", "Foretold, not so", "Not foretold", "Neither", "Precision", "Recall")
    return markdown(f"Foretold from float32 on {stack}", header, rows)


def table_of_cost(stack: str, rounds: list[dict[str, float]]) -> str:
    """Return what each way to look takes."""
    peer = "torch.autograd.detect_anomaly" if stack == "torch" else "tf.debugging.enable_check_numerics"
    names = {
        "nothing": "nothing",
        "every step": "NumericsProbe(1)",
        f"every {CADENCE}th": f"NumericsProbe({CADENCE})",
        "checks": peer,
    }
    rows = []
    for arm, name in names.items():
        times, ratios = spread(each[arm] for each in rounds), spread(each[arm] / each["nothing"] for each in rounds)
        rows.append((name, f"{times.median:.0f}", f"{ratios.median:.3f}", f"{ratios.p5:.3f}", f"{ratios.p95:.3f}"))
    first = spread(each["first look"] for each in rounds).median / 1e3
    note = (
        f"Microseconds a step: medians over {len(rounds)} rounds; the ratio is taken within a round. Five dense layers of 512, "
        f"batch {BATCH}. The first look of a fit, which compiles, took {first:.0f} ms and is not in these."
    )
    return markdown(f"Cost of looking on {stack}", ("Looking with", "Step", "Against nothing", "p5", "p95"), rows, note)


TABLES = {
    "faults": table_of_faults,
    "healthy": table_of_healthy,
    "foretold": table_of_foretold,
    "plans": table_of_plans,
    "cost": table_of_cost,
}

if __name__ == "__main__":
    main()
