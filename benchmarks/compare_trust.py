"""Whether verdicts of kp.compare_training can be trusted: A against A, against itself slowed, and against the truth.

Run: python benchmarks/compare_trust.py

Five parts, each also alone by --what. "verdicts": tiny networks compared with themselves in earnest, and with
themselves behind a planted wait in each step; 2,000 comparisons more are drawn from the recorded turns. "plain" stands
beside it: the means of two runs, one after the other, and a threshold of 3 %, on the same steps. "recommendation":
four architectures on three backends, against the fastest run that keeps the metric. "batch": the largest batch,
predicted and verified, and a doubling loop beside it. "kernels": the 16-bit kernels that oneDNN ran in each precision.
"""

import argparse
import itertools
import os
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from side_by_side import answer, arguments_of, chosen, in_child, machine, markdown

import keras_precision as kp
from keras_precision._adapters.training.callback import Callback

PARTS = ("verdicts", "recommendation", "batch", "kernels")
BACKENDS = ("tensorflow", "jax", "torch")
WAITS = {"slow5": 0.05, "slow10": 0.10}  # of the time of a step
PLAIN_THRESHOLD = 0.03
CLOSE = 1.03


def main() -> None:
    """Run the parts that are asked for, and print a table of each."""
    parser = arguments_of(__doc__, stacks=False)
    parser.add_argument("--what", choices=(*PARTS, "all"), default="all", help="the part to run")
    parser.add_argument("--backend", choices=BACKENDS, default="jax", help="of the verdicts and the batch")
    parser.add_argument("--comparisons", type=int, default=5, help="comparisons in earnest")
    parser.add_argument("--equal", type=int, default=5, help="equal runs in each: one verdict less than that")
    parser.add_argument("--processes", type=int, default=8, help="processes of each run that take turns")
    parser.add_argument("--draws", type=int, default=2000, help="comparisons drawn from the recorded turns")
    parser.add_argument("--seconds", type=float, default=12.0, help="turns of one comparison, all processes together")
    parser.add_argument("--cases", type=int, default=4, help="architectures of the recommendation, on each backend")
    options = parser.parse_args()
    if options.answer:
        answer(options.answer, PART[options.what](options))
        return
    common = [
        f"--{name}={getattr(options, name)}"
        for name in ("comparisons", "equal", "processes", "draws", "seconds", "cases")
    ]
    for part in chosen(options.what, PARTS):
        backends = BACKENDS if part in ("recommendation", "kernels") else (options.backend,)
        began = time.monotonic()
        told = [in_child(__file__, "--what", part, "--backend", name, *common, backend=name) for name in backends]
        print(REPORT[part](told, options))
        print(f"({part}: {time.monotonic() - began:.0f} s)\n", flush=True)
    print(machine())


class Wait(Callback):
    """Waits a share of each step's time inside the step, without giving the processor away."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share, self.began = share, 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Note the time."""
        self.began = time.perf_counter_ns()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Wait."""
        now = time.perf_counter_ns()
        end = now + self.share * (now - self.began)
        while time.perf_counter_ns() < end:
            pass


def waits(run: str) -> list[Wait]:
    """Return the callbacks of a run: its name says how long it waits."""
    return [Wait(WAITS.get(run, 0.0))]


def network() -> Any:
    """Return a tiny compiled network."""
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [layers.Input((32,)), *(layers.Dense(256, "relu") for _ in range(2)), layers.Dense(10, "softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def clusters(count: int, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Return samples around ten centres, and which one."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 10, count)
    centres = rng.normal(size=(10, *shape))
    return (centres[kinds] + rng.normal(size=(count, *shape))).astype("float32"), kinds


def verdicts(options: argparse.Namespace) -> dict[str, Any]:
    """Compare runs with themselves, and with themselves slowed; return real verdicts, drawn ones, and plain ones."""
    x, y = clusters(1024, 32)
    equal = [f"a{number}" for number in range(options.equal)]
    sets: list[dict[str, list[float]]] = []
    real: Counter[str] = Counter()
    widths = []
    for number in range(options.comparisons):
        comparison = kp.compare_training(
            network, (x[:768], y[:768]), (x[768:], y[768:]), dict.fromkeys([*equal, *WAITS], "float32"), seeds=(number,),
            steps=20, batch_size=128, callbacks=waits, processes=options.processes, timing_seconds=options.seconds,
        )  # fmt: skip
        for other in comparison.others:
            verdict = comparison.verdict("step_time_ms", other.name)
            real[f"{'A' if other.name in equal else other.name} {verdict}"] += 1
            interval = comparison.interval("step_time_ms", other.name)
            widths.append(float(np.log(interval.high / interval.low) / 2))
        sets += recorded(comparison)
    return {
        "real": real,
        "drawn": drawn(sets, equal, options),
        "plain": plain(sets, equal),
        "widths": widths,
        "slower": {name: slower(sets, equal, name) for name in WAITS},
        "sets": len(sets),
    }


def slower(sets: Sequence[dict[str, list[float]]], equal: Sequence[str], run: str) -> float:
    """Return how many times as long the steps of a run that waits really take: over all sets, against all equal runs."""
    return float(
        np.exp(np.mean([np.log(np.median(each[run]) / np.median(each[name])) for each in sets for name in equal]))
    )


def recorded(comparison: kp.Comparison) -> Iterator[dict[str, list[float]]]:
    """Yield, for each set of processes, run to the times of its rounds."""
    subjects = dict.fromkeys(row.subject for row in comparison.baseline.select("step_time_ms") if row.step is not None)
    for subject in subjects:
        yield {run.name: list(run.series("step_time_ms", subject)[1]) for run in comparison.results}


def drawn(
    sets: Sequence[dict[str, list[float]]], equal: Sequence[str], options: argparse.Namespace
) -> dict[str, dict[str, int]]:
    """Return the verdicts of comparisons whose sets of processes are drawn from those that were recorded."""
    rng = np.random.default_rng(0)
    told: dict[str, Counter[str]] = {name: Counter() for name in ("A", *WAITS)}
    count = min(options.processes, len(sets))
    for name, counter in told.items():
        for _ in range(options.draws):
            chosen_sets = [sets[index] for index in rng.choice(len(sets), count, replace=False)]
            runs: tuple[list[Any], list[Any]] = ([], [])
            for number, each in enumerate(chosen_sets):
                first, second = rng.choice(equal, 2, replace=False)
                rounds = each[str(first)], each[str(second) if name == "A" else name]
                for rows, times in zip(runs, rounds, strict=True):
                    rows += [
                        kp.Measurement(f"process {number}", "step_time_ms", value, step)
                        for step, value in enumerate(times)
                    ]
            results = [
                kp.Result(run, (*rows, kp.Measurement("fit", "session", "drawn")))
                for run, rows in zip("ab", runs, strict=True)
            ]
            counter[kp.Comparison(results[0], results[1:]).verdict("step_time_ms", "b")] += 1
    return {name: dict(counter) for name, counter in told.items()}


def plain(sets: Sequence[dict[str, list[float]]], equal: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return what means of two runs say that were measured one after the other, by a threshold of 3 %."""
    told: dict[str, Counter[str]] = {name: Counter() for name in ("A", *WAITS)}
    for before, after in itertools.pairwise(sets):
        for name, counter in told.items():
            for first, second in itertools.permutations(equal, 2):
                ratio = np.mean(after[second if name == "A" else name]) / np.mean(before[first])
                word = (
                    "worse"
                    if ratio > 1 + PLAIN_THRESHOLD
                    else "better"
                    if ratio < 1 - PLAIN_THRESHOLD
                    else "inconclusive"
                )
                counter[word] += 1
    return {name: dict(counter) for name, counter in told.items()}


def report_verdicts(told: Sequence[dict[str, Any]], options: argparse.Namespace) -> str:
    """Return the table of the verdicts, and whether the aims are met."""
    found = told[0]
    real = {
        name: {key.partition(" ")[2]: count for key, count in found["real"].items() if key.startswith(f"{name} ")}
        for name in ("A", *WAITS)
    }
    rows = []
    for how, verdicts_ in (("in earnest", real), ("drawn", found["drawn"]), ("plain way", found["plain"])):
        for name, counts in verdicts_.items():
            total = sum(counts.values()) or 1
            row = [counts.get(word, 0) for word in ("better", "worse", "inconclusive")]
            what = "A against A" if name == "A" else f"A against A slowed by {100 * WAITS[name]:.0f} %"
            wrong = row[0] + row[1] if name == "A" else total - row[1]
            rows.append((what, how, total, *row, f"{100 * wrong / total:.1f} %"))
    drawn_ = found["drawn"]
    false = 1 - drawn_["A"].get("inconclusive", 0) / options.draws
    caught = {name: drawn_[name].get("worse", 0) / options.draws for name in WAITS}
    width = 100 * float(np.median(found["widths"]))
    notes = [
        (
            f"{options.processes} processes of each run a comparison. Half width of the interval: median {width:.1f} %. "
            f"With the 1 % that is never called a difference, one of {width + 1:.1f} % is shown in half of the comparisons."
        ),
        "The waits made steps longer by "
        + " and ".join(f"{100 * (found['slower'][name] - 1):.1f} % ({name})" for name in WAITS)
        + ", over all sets.",
        f"Aim: at most 5 % of A against A name a winner: {100 * false:.1f} %: {'met' if false <= 0.05 else 'NOT met'}.",
        f"Aim: 5 % slower is worse in at least 95 %: {100 * caught['slow5']:.1f} %: {'met' if caught['slow5'] >= 0.95 else 'NOT met'}.",
        f"Aim: 10 % slower is worse always: {100 * caught['slow10']:.1f} %: {'met' if caught['slow10'] == 1 else 'NOT met'}.",
    ]
    header = ("What", "How", "Comparisons", "better", "worse", "inconclusive", "Wrong or missed")
    return markdown(f"Verdicts on {options.backend}", header, rows, *notes)


def mlp() -> Any:
    """Return three wide layers."""
    return _compiled([_layers().Flatten(), *(_layers().Dense(512, "relu") for _ in range(3))])


def convnet() -> Any:
    """Return a small convolutional net."""
    return _compiled(
        [
            *(_layers().Conv2D(32, 3, padding="same", activation="relu") for _ in range(3)),
            _layers().GlobalAveragePooling2D(),
        ]
    )


def separable() -> Any:
    """Return depthwise separable convolutions, which low precision seldom helps."""
    return _compiled(
        [
            *(_layers().SeparableConv2D(32, 3, padding="same", activation="relu") for _ in range(2)),
            _layers().GlobalAveragePooling2D(),
        ]
    )


def recurrent() -> Any:
    """Return a small recurrent net over the rows of an image."""
    return _compiled([_layers().Reshape((12, 12)), _layers().GRU(64)])


def _layers() -> Any:
    import keras

    return keras.layers


def _compiled(body: Sequence[Any]) -> Any:
    import keras

    layers = keras.layers
    model = keras.Sequential([layers.Input((12, 12, 1)), *body, layers.Dense(10, "softmax", dtype="float32")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


ARCHITECTURES = (mlp, convnet, separable, recurrent)


def recommendation(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Compare three precisions of each architecture; return what is recommended, and what was fastest."""
    x, y = clusters(768, 12, 12, 1)
    cases = []
    for build in ARCHITECTURES[: options.cases]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", kp.PrecisionWarning)  # a run that cannot be is left out
            comparison = kp.compare_training(
                build, (x[:512], y[:512]), (x[512:], y[512:]), seeds=(0, 1, 2), steps=24, batch_size=64, processes=3,
                timing_seconds=options.seconds, margin=0.1,
            )  # fmt: skip
        speeds = {comparison.baseline.name: 1.0}
        for other in comparison.others:
            speeds[other.name] = 1 / comparison.interval("step_time_ms", other.name).estimate
        metrics = {run.name: float(run.value("val_accuracy", "fit")) for run in comparison.results}
        kept = [name for name in speeds if metrics[name] >= metrics[comparison.baseline.name] - 0.1]
        cases.append({
            "case": build.__name__, "backend": os.environ["KERAS_BACKEND"], "recommended": comparison.recommended,
            "fastest": max(kept, key=lambda name: speeds[name]), "speeds": speeds, "metrics": metrics,
        })  # fmt: skip
    return cases


def report_recommendation(told: Sequence[list[dict[str, Any]]], _: argparse.Namespace) -> str:
    """Return the table of the cases, and whether the aim is met."""
    rows, close = [], 0
    cases = [case for each in told for case in each]
    for case in cases:
        loss = case["speeds"][case["fastest"]] / case["speeds"][case["recommended"]]
        close += loss <= CLOSE
        speeds = ", ".join(f"{name} {speed:.2f}x" for name, speed in case["speeds"].items())
        accuracies = ", ".join(f"{100 * value:.0f}" for value in case["metrics"].values())
        rows.append(
            (
                f"{case['case']}, {case['backend']}",
                speeds,
                accuracies,
                case["fastest"],
                case["recommended"],
                f"{100 * (loss - 1):.1f} %",
            )
        )
    header = (
        "Case",
        "Speed against float32",
        "Accuracy, %",
        "Fastest that keeps the metric",
        "Recommended",
        "Slower than it by",
    )
    aim = f"Aim: within 3 % of the fastest that keeps the metric, in every case: {close} of {len(cases)}: {'met' if close == len(cases) else 'NOT met'}."
    return markdown(
        "Recommendation",
        header,
        rows,
        "The fastest is by the estimates of all turns, whatever their intervals are.",
        aim,
    )


def picture_net() -> Any:
    """Return a net whose activations are most of its memory."""
    import keras

    layers = keras.layers
    convolutions = [layers.Conv2D(32, 3, padding="same", activation="relu") for _ in range(3)]
    model = keras.Sequential(
        [layers.Input((32, 32, 3)), *convolutions, layers.GlobalAveragePooling2D(), layers.Dense(10, "softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def pictures(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a batch for it."""
    return np.ones((count, 32, 32, 3), "float32"), np.zeros(count, "int32")


def batch(_: argparse.Namespace) -> dict[str, Any]:
    """Find the largest batch within a limit of memory."""
    result = kp.find_max_batch_size(picture_net, pictures, ("float32", "mixed_bfloat16"), memory_limit=2_000_000_000)
    names = dict.fromkeys(row.subject for row in result)
    return {name: {metric: result.value(metric, name) for metric in BATCH_METRICS} for name in names}


BATCH_METRICS = (
    "largest_batch",
    "predicted_batch",
    "trials",
    "sample_mb",
    "planned_sample_mb",
    "peak_memory_mb",
    "samples_per_second",
)


def report_batch(told: Sequence[dict[str, Any]], options: argparse.Namespace) -> str:
    """Return the table of largest batches, the doubling loop beside it, and whether the aim is met."""
    rows, notes = [], []
    for name, found in told[0].items():
        largest, predicted = found["largest_batch"], found["predicted_batch"]
        off = abs(predicted / largest - 1) if largest else float("inf")
        doubled = 2 ** int(np.log2(largest)) if largest else 0
        rows.append((
            name, predicted, largest, f"{100 * off:.1f} %", found["trials"], f"{doubled} ({100 * doubled / max(1, largest):.0f} %)",
            int(np.log2(doubled)) + 2 if doubled else 1, f"{found['sample_mb']:.2f}", f"{found['planned_sample_mb']:.2f}",
        ))  # fmt: skip
        notes.append(
            f"Aim: predicted within 5 % of verified, {name}: {100 * off:.1f} %: {'met' if off <= 0.05 else 'NOT met'}."
        )
    header = (
        "Precision",
        "Predicted",
        "Verified",
        "Off by",
        "Fresh processes",
        "Doubling loop ends at",
        "Its trials",
        "MB a sample, measured",
        "planned",
    )
    return markdown(f"Largest batch in 2 GB on {options.backend}", header, rows, *notes)


def kernels(_: argparse.Namespace) -> dict[str, Any]:
    """Trace a convolutional net in float32 and in mixed_bfloat16; return which kernels ran."""
    x, y = clusters(256, 12, 12, 1)
    with tempfile.TemporaryDirectory() as folder:
        comparison = kp.compare_training(
            convnet, (x, y), (x[:64], y[:64]), ("float32", "mixed_bfloat16"), seeds=(0,), steps=4, batch_size=64,
            processes=1, timing_seconds=0.1, trace=folder,
        )  # fmt: skip
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    told = {run.name: {metric: run.value(metric, "fit") for metric in KERNEL_METRICS} for run in comparison.results}
    return {"backend": os.environ["KERAS_BACKEND"], "size": size, "told": told}


KERNEL_METRICS = ("traced_products", "low_precision_products", "low_precision_share", "traced_casts")


def report_kernels(told: Sequence[dict[str, Any]], _: argparse.Namespace) -> str:
    """Return the table of the kernels."""
    rows = []
    for each in told:
        for name, found in each["told"].items():
            share = found["low_precision_share"]
            shown = "-" if share is None else f"{100 * share:.0f} %"
            counts = (found["traced_products"], found["low_precision_products"], shown, found["traced_casts"])
            rows.append((f"{each['backend']}, {name}", *counts, f"{each['size'] / 1e6:.1f} MB"))
    header = ("Run", "Products by oneDNN", "In 16 bits", "Of their time", "Casts", "Both traces")
    return markdown("Kernels in five traced steps", header, rows)


PART = {"verdicts": verdicts, "recommendation": recommendation, "batch": batch, "kernels": kernels}
REPORT = {
    "verdicts": report_verdicts,
    "recommendation": report_recommendation,
    "batch": report_batch,
    "kernels": report_kernels,
}


if __name__ == "__main__":
    main()
