"""How good the precision search is: against every plan there is, against KerasTuner's oracles, and as layers grow.

Run: python benchmarks/search.py --data DATA --keep NETS

``truth`` runs the file of every plan of two nets (1,024 and 256), int8 or int4 for each layer, and compares what each
method finds within four budgets of size: divergence reached, as a ratio to the best of all plans, plans run, and time.
KerasTuner's oracles read outcomes from that table, so that their time is their own; the time that running their plans
would take is added. ``growth`` searches untrained chains of 10 to 100 layers, and MobileNetV2. ``promise`` evaluates
the plans of a front on images that the search has not seen. ``aware`` looks for the smallest file within half a percent of
accuracy, with and without a training of the finalists.
"""

import argparse
import contextlib
import hashlib
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras_tuner
import numpy as np
from search_nets import NETS, Task, chain, settle, task
from side_by_side import machine, markdown

import keras_precision as kp
from keras_precision.search.evaluation.evaluator import Evaluator, prepare_evaluator
from keras_precision.search.evaluation.validation_set import read_validation_set

SHARES = (0.75, 0.7, 0.65, 0.6)  # of the size of the all-int8 file
SAMPLES, CALIBRATION = 256, 256
WITHIN = 1.02
SEEDS = 5


class Outcome(NamedTuple):
    """What the file of a plan was found to be."""

    figures: dict[str, float]


class Truth(NamedTuple):
    """Every plan of a net."""

    evaluator: Evaluator
    plans: list[tuple[str, ...]]
    outcomes: dict[tuple[str, ...], Outcome]
    per_plan_s: float

    def allowed(self, limit: float) -> dict[tuple[str, ...], float]:
        """Return the divergence of each plan that is within a size."""
        figures = {plan: self.outcomes[plan].figures for plan in self.plans}
        return {plan: each["divergence"] for plan, each in figures.items() if each["size_bytes"] <= limit}


def main() -> None:
    """Run what is asked for, and print a table of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()), help="where trained nets are kept")
    parser.add_argument("--parts", nargs="+", default=["truth", "growth", "promise", "aware"])
    parser.add_argument("--nets", nargs="+", default=list(NETS))
    parser.add_argument("--layers", nargs="+", type=int, default=[10, 25, 50, 100])
    parser.add_argument("--bayesian-trials", type=int, default=60)
    parser.add_argument("--no-mobilenet", action="store_true")
    options = parser.parse_args()
    print(machine())
    options.keep.mkdir(parents=True, exist_ok=True)
    if "truth" in options.parts:
        for name in options.nets:
            truth(name, task(name, options.data, options.keep), options.bayesian_trials, options.keep)
    if "promise" in options.parts:
        for name in options.nets:
            promise(name, task(name, options.data, options.keep))
    if "aware" in options.parts:
        for name in options.nets:
            aware(name, task(name, options.data, options.keep))
    if "growth" in options.parts:
        growth(options.layers, mobilenet=not options.no_mobilenet)


def truth(name: str, given: Task, trials: int, keep: Path) -> None:
    """Compare methods against all plans of a net."""
    known = everything(name, given, keep)
    base = known.outcomes[known.evaluator.space.start].figures["size_bytes"]
    rows = []
    for share in SHARES:
        limit = share * base
        allowed = known.allowed(limit)
        if not allowed:
            rows.append([f"{share}", "no plan is so small", "-", "-", "-", "-"])
            continue
        best = min(allowed.values())
        methods: dict[str, Callable[[], tuple[float, float, float]]] = {
            "ours": lambda limit=limit: ours(given, known, limit),
            "RandomSearch": lambda limit=limit, best=best: random(known, limit, best),
            "BayesianOptimization": lambda limit=limit, best=best: bayesian(known, limit, best, trials),
            "greedy": lambda limit=limit: greedy(known, limit),
        }
        for method, run in methods.items():
            reached, plans, seconds = run()
            print(f"{name} {share} {method}: {reached / best:.3f} after {plans:.0f} plans", file=sys.stderr, flush=True)
            rows.append(
                [f"{share}", method, f"{reached:.4g}", f"{reached / best:.3f}", f"{plans:.0f}", f"{seconds:.1f}"]
            )
    title = f"{name}: {len(known.plans)} plans, {known.per_plan_s * 1e3:.0f} ms each"
    print(
        markdown(title, ["size, of int8", "method", "divergence", "ratio to the best", "plans run", "time (s)"], rows)
    )


def everything(name: str, given: Task, keep: Path) -> Truth:
    """Run the file of every plan, or read what an earlier run kept of the same weights and samples."""
    validation = read_validation_set(given.model, given.x_test[:SAMPLES], None)
    evaluator = prepare_evaluator(given.model, given.x[:CALIBRATION], validation, ("int8", "int4"))
    plans = list(itertools.product(*(unit.choices for unit in evaluator.space.units)))
    weights = hashlib.sha256(b"".join(np.ascontiguousarray(each).tobytes() for each in given.model.get_weights()))
    path = keep / f"{name}-{weights.hexdigest()[:12]}-{CALIBRATION}-{SAMPLES}.npz"
    if not path.exists():
        began = time.perf_counter()
        found = [evaluator(plan).figures for plan in plans]
        took = (time.perf_counter() - began) / len(plans)
        table = {metric: [each[metric] for each in found] for metric in found[0]}
        np.savez(path, took=took, **{f"figure {metric}": values for metric, values in table.items()})
    with np.load(path) as kept:
        columns = {key.removeprefix("figure "): kept[key] for key in kept.files if key != "took"}
        per_plan = float(kept["took"])
    figures = [dict(zip(columns, map(float, row), strict=True)) for row in zip(*columns.values(), strict=True)]
    return Truth(evaluator, plans, dict(zip(plans, map(Outcome, figures), strict=True)), per_plan)


def ours(given: Task, known: Truth, limit: float) -> tuple[float, float, float]:
    """Divergence, plans and seconds of a search of ours, calibration and all."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        tuner = kp.PrecisionTuner(
            given.model, given.x[:CALIBRATION], given.x_test[:SAMPLES], ("int8", "int4"),
            budget=kp.Budget(max_size_bytes=limit), directory=folder, verbose=False,
        )  # fmt: skip
        tuner.search()
        took = time.perf_counter() - began
        best = known.evaluator.space.assignment(
            {unit.name: tuner.best_plan.precision_of(unit.name) for unit in tuner.space.units}
        )
        return known.outcomes[best].figures["divergence"], len(tuner.oracle.trials), took


def random(known: Truth, limit: float, best: float) -> tuple[float, float, float]:
    """The median over seeds of what 100 trials of KerasTuner's random search reach, and the time of one of them."""
    oracle = keras_tuner.oracles.RandomSearchOracle
    found = [tuned(oracle, known, limit, best, min(100, len(known.plans)), seed, stop=False) for seed in range(SEEDS)]
    reached, plans, took = (float(np.median(each)) for each in zip(*found, strict=True))
    return reached, plans, took


def bayesian(known: Truth, limit: float, best: float, trials: int) -> tuple[float, float, float]:
    """What KerasTuner's own search reaches until it is within two percent, or has spent its trials."""
    return tuned(keras_tuner.oracles.BayesianOptimizationOracle, known, limit, best, trials, 1, stop=True)


class EnoughError(Exception):
    """The search is within two percent."""


def tuned(
    kind: Any, known: Truth, limit: float, best: float, trials: int, seed: int, *, stop: bool
) -> tuple[float, float, float]:
    """Divergence, plans and seconds of a search with an oracle of KerasTuner, whose outcomes are read from the table."""
    space = keras_tuner.HyperParameters()
    for unit in known.evaluator.space.units:
        space.Choice(unit.name, list(unit.choices))
    goal = kp.Budget(max_size_bytes=limit)

    class Table(keras_tuner.Tuner):
        def run_trial(self, trial: Any, *args: Any, **options: Any) -> dict[str, float]:
            figures = known.outcomes[known.evaluator.space.assignment(trial.hyperparameters.values)].figures
            return {"score": figures["divergence"] + (1 + goal.excess(figures) if goal.excess(figures) else 0.0)}

        def on_trial_end(self, trial: Any) -> None:
            super().on_trial_end(trial)
            if stop and self.oracle.get_best_trials(1)[0].score <= WITHIN * best:
                raise EnoughError

    with tempfile.TemporaryDirectory() as folder:
        objective = keras_tuner.Objective("score", "min")
        oracle = kind(objective, max_trials=trials, hyperparameters=space, seed=seed)
        tuner = Table(oracle, directory=folder, project_name="table")
        began = time.perf_counter()
        with contextlib.suppress(EnoughError):
            tuner.search(verbose=0)
        plans = len(oracle.end_order)
        reached = oracle.get_best_trials(1)[0].score
        took = time.perf_counter() - began + plans * known.per_plan_s
    return (reached if reached < 1 else np.inf), plans, took


def greedy(known: Truth, limit: float) -> tuple[float, float, float]:
    """Lower the layer that saves most for its divergence alone, until the size is met."""
    start = known.evaluator.space.start
    base = known.outcomes[start].figures

    def worth(number: int) -> float:
        alone = known.outcomes[(*start[:number], "int4", *start[number + 1 :])].figures
        return (base["size_bytes"] - alone["size_bytes"]) / max(alone["divergence"] - base["divergence"], 1e-9)

    plan, plans = list(start), len(start) + 1
    for number in sorted(range(len(start)), key=worth, reverse=True):
        if known.outcomes[tuple(plan)].figures["size_bytes"] <= limit:
            break
        plan[number] = "int4"
        plans += 1
    return known.outcomes[tuple(plan)].figures["divergence"], plans, plans * known.per_plan_s


def growth(counts: Sequence[int], *, mobilenet: bool) -> None:
    """Plans and time of a search as layers grow, and of the front of MobileNetV2."""
    rows = []
    for count in counts:
        samples = np.random.default_rng(0).normal(size=(64, 16, 16, 8)).astype("float32")
        rows.append([f"chain of {count}", *timed(chain(count), samples)])
    if mobilenet:
        import keras

        keras.utils.set_random_seed(1)
        model = keras.applications.MobileNetV2((96, 96, 3), weights=None, classes=100)
        samples = np.random.default_rng(0).uniform(-1, 1, (64, 96, 96, 3)).astype("float32")
        settle(model, samples)
        rows.append(["MobileNetV2 (96 x 96)", *timed(model, samples)])
    header = ["net", "layers with a choice", "plans run", "time (s)", "per layer (s)", "points of the front"]
    print(markdown("growth: the front of int8 and int4, 64 samples", header, rows))


def timed(model: Any, samples: np.ndarray) -> list[str]:
    """Search, and return layers, plans, seconds and points."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        tuner = kp.PrecisionTuner(
            model, samples, samples, ("int8", "int4"), directory=folder, verbose=False, objective="front"
        )
        tuner.search()
        took = time.perf_counter() - began
        layers = sum(len(unit.choices) > 1 for unit in tuner.space.units)
        points = len(tuner.pareto_front())
        return [str(layers), str(len(tuner.oracle.trials)), f"{took:.1f}", f"{took / layers:.2f}", str(points)]


def promise(name: str, given: Task) -> None:
    """What a front promises on the validation data, and what it holds on others."""
    held = min(500, len(given.x_test) // 2)
    validation = (given.x_test[:held], given.y_test[:held])
    with tempfile.TemporaryDirectory() as folder:
        tuner = kp.PrecisionTuner(
            given.model, given.x[:CALIBRATION], validation, ("int8", "int4"), directory=folder, verbose=False,
            objective="front", metric="accuracy",
        )  # fmt: skip
        tuner.search()
        full = np.mean(given.model.predict(given.x_test[held:], verbose=0).argmax(1) == given.y_test[held:])
        rows = []
        for each in tuner.pareto_front():
            path = Path(folder) / "plan.tflite"
            kp.export_tflite(given.model, path, each.plan, tuner.mode.evaluator.calibration)
            tested = kp.evaluate(path, given.x_test[held:], given.y_test[held:]).value("accuracy")
            lost = each.value("metric_drop")
            rows.append(
                [
                    f"{each.value('size_bytes'):,}",
                    f"{100 * lost:.2f}",
                    f"{100 * (full - tested):.2f}",
                    f"{100 * (full - tested - lost):+.2f}",
                ]
            )
    title = f"{name}: accuracy lost on {held} validation samples, and on {len(given.x_test) - held} others"
    print(markdown(title, ["size (bytes)", "promised (%)", "held (%)", "difference"], rows))


def aware(name: str, given: Task) -> None:
    """The smallest file within half a percent of accuracy, of plans as they are and of finalists that were trained."""
    held, rows = min(500, len(given.x_test) // 2), []
    validation, rest = (given.x_test[:held], given.y_test[:held]), (given.x_test[held:], given.y_test[held:])
    full = np.mean(given.model.predict(rest[0], verbose=0).argmax(1) == rest[1])
    for evaluation in ("post_training", "quantization_aware"):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            tuner = kp.PrecisionTuner(
                given.model, given.x[:CALIBRATION], validation, ("int8", "int4"), directory=folder, verbose=False,
                budget=kp.Budget(max_metric_drop=0.005), metric="accuracy", evaluation=evaluation,
            )  # fmt: skip
            trains = evaluation == "quantization_aware"
            tuner.search(given.x[:12000], given.y[:12000], **({"epochs": 2, "batch_size": 64} if trains else {}))
            took = time.perf_counter() - began
            written = tuner.export_best(Path(folder) / "best.tflite")
            tested = kp.evaluate(Path(folder) / "best.tflite", *rest).value("accuracy")
            base = tuner.results()[0].value("size_bytes")
        size = written.value("size_bytes")
        rows.append([evaluation, f"{size:,}", f"{size / base:.3f}", f"{100 * (full - tested):+.2f}", f"{took:.0f}"])
    title = f"{name}: the smallest file within 0.5 % of accuracy on {held} samples"
    print(markdown(title, ["evaluation", "size (bytes)", "of int8", "lost on others (%)", "time (s)"], rows))


if __name__ == "__main__":
    main()
