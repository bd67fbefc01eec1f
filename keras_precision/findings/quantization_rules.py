"""What is wrong with a quantized file: rules over a quantization report, and over what explain_drop found."""

from collections.abc import Iterator

from keras_precision.core.result import Result
from keras_precision.findings.finding import Finding, Rule, judge

__all__ = ["drop_findings", "quantization_findings"]

# The ranges of an activation settle with some hundred samples; below this, the tails are a matter of luck.
_FEW = 100
# One value in a hundred beyond the range is no tail: the ranges come from other data.
_CLIPPED = 0.01
# A range four times as wide as the data leaves them 6 of 8 bits.
_WIDE = 0.25
# A tenth of the channels always 0: weights and time that could be saved, and perhaps an input that is missing.
_DEAD = 0.1
# Noise a tenth of the signal (20 dB) moves answers that are close; a layer that adds half of that stands out.
_NOISY_DB, _LOSS_DB = 20.0, 6.0
# A step of 0.25 in a softmax input is a factor of 1.28 in a probability.
_COARSE = 0.25
_CHANCE = 0.05


def quantization_findings(report: Result) -> tuple[Finding, ...]:
    """Judge the calibration of a quantized file, layer by layer.

    Args:
        report: The result of ``kp.quantization_report``.

    Returns:
        What is wrong with it, the worst first, layers that lose most first; nothing where all is well.

    Example:
        >>> from keras_precision.core.result import Measurement
        >>> rows = (Measurement("head", "snr_db", 9.0), Measurement("head", "snr_loss_db", 20.0))
        >>> [finding.code for finding in quantization_findings(Result("layers", rows))]
        ['layer-loses-signal']
    """
    return judge(report, _RULES)


def _few_samples(report: Result) -> Iterator[Finding]:
    count = report.get("calibration_samples")
    if count is not None and count < _FEW:
        yield Finding(
            code="calibration-few-samples",
            severity="warning",
            subject=report.name,
            message=f"The ranges were chosen from {count} samples: which values are rare, so few cannot tell.",
            advice="kp.export_tflite(model, path, 'int8', representative_dataset=x_train[:500])  # drawn at random",
        )


def _other_data(report: Result) -> Iterator[Finding]:
    """A range that calibration and test data do not share."""
    layers = _layers(report)
    clipped = {
        name: row["clipped_share"]
        for name, row in layers.items()
        if row.get("clipped_share", 0) > _CLIPPED and "exp_input_step" not in row  # whose range the operator fixes
    }
    if clipped:
        worst = max(clipped, key=lambda name: clipped[name])
        yield Finding(
            code="calibration-other-data",
            severity="warning",
            subject=worst,
            message=(
                f"{100 * clipped[worst]:.1f} % of the values of '{worst}' lie outside the range in the file "
                f"({_span(layers[worst])}){_others(clipped, worst)}: the samples that set it were not like these."
            ),
            advice="Calibrate on data like those in use, preprocessed alike: kp.export_tflite(..., representative_dataset=...)",
        )
    wide = {name: part for name, row in layers.items() if (part := _filled(row)) is not None and part < _WIDE}
    if wide:
        worst = min(wide, key=lambda name: wide[name])
        yield Finding(
            code="calibration-too-wide",
            severity="warning",
            subject=worst,
            message=(
                f"These samples fill {100 * wide[worst]:.0f} % of the range of '{worst}' ({_span(layers[worst])}; "
                f"they take {layers[worst]['seen_low']:.3g} to {layers[worst]['seen_high']:.3g}){_others(wide, worst)}: "
                "the rest of the integers is not used."
            ),
            advice="Look for other scaling or single extreme values in the calibration data, or calibration='mse'",
        )


def _outliers(report: Result) -> Iterator[Finding]:
    for name, row in _layers(report).items():
        if row.get("outlier_channels", 0) and row.get("snr_db", 99) < _NOISY_DB:
            yield Finding(
                code="outlier-channels",
                severity="warning",
                subject=name,
                message=(
                    f"{row['outlier_channels']} of {row['channels']} channels of '{name}' reach more than 8 times as far as the "
                    f"others, which share their step: the output keeps {row['snr_db']:.0f} dB."
                ),
                advice=f"kp.PrecisionPlan.deployment('int8', layers={{'{name}': 'int16x8'}})  # or 'float32', or export with cross_layer_equalization=True",
            )


def _dead(report: Result) -> Iterator[Finding]:
    for name, row in _layers(report).items():
        if row.get("dead_channels", 0) >= max(1, _DEAD * row.get("channels", 0)):
            yield Finding(
                code="dead-channels",
                severity="info",
                subject=name,
                message=f"{row['dead_channels']} of {row['channels']} channels of '{name}' are 0 on all samples.",
                advice="They cost time and size and say nothing: train with fewer, or see whether the samples lack something",
            )


def _saturated(report: Result) -> Iterator[Finding]:
    for name, row in _layers(report).items():
        step = row.get("exp_input_step", 0)
        if step > _COARSE:
            yield Finding(
                code="softmax-input-coarse",
                severity="warning",
                subject=name,
                message=(
                    f"What goes into the exponential of '{name}' has steps of {step:.2g}, each a factor of {2.718281828**step:.2f} "
                    "in a probability: its inputs are so large that close answers are not told apart."
                ),
                advice=f"kp.PrecisionPlan.deployment('int8', layers={{'{name}': 'float32'}})  # or train with label smoothing",
            )


def _noise(report: Result) -> Iterator[Finding]:
    """The layers that lose the signal, the one that loses most first."""
    layers = _layers(report)
    lost = {
        name: row["snr_loss_db"]
        for name, row in layers.items()
        if row.get("snr_db", 99) < _NOISY_DB and row.get("snr_loss_db", 0) > _LOSS_DB
    }
    for name in sorted(lost, key=lambda name: -lost[name]):
        yield Finding(
            code="layer-loses-signal",
            severity="warning",
            subject=name,
            message=(
                f"'{name}' puts out {layers[name]['snr_db']:.0f} dB of signal over noise; "
                f"what it reads has {layers[name]['snr_db'] + lost[name]:.0f} dB."
            ),
            advice=f"kp.PrecisionPlan.deployment('int8', layers={{'{name}': 'int16x8'}})  # kp.explain_drop tells what that wins",
        )


def drop_findings(explained: Result) -> tuple[Finding, ...]:
    """Judge what a quantized file does to answers.

    Args:
        explained: The result of ``kp.explain_drop``.

    Returns:
        Groups that lose more than chance explains, and the layers to blame.

    Example:
        >>> from keras_precision.core.result import Measurement
        >>> lost = {"samples": 99, "changed_samples": 9, "lost_samples": 9, "won_samples": 0, "p_value": 0.004}
        >>> rows = tuple(Measurement("class 3", metric, value) for metric, value in lost.items())
        >>> [finding.subject for finding in drop_findings(Result("drop", rows))]
        ['class 3']
    """
    return judge(explained, (_hurt, _to_blame))


def _hurt(explained: Result) -> Iterator[Finding]:
    """Groups that lose; with many groups, one of them would by chance: Bonferroni's correction."""
    groups = [row.subject for row in explained.select("p_value") if row.subject != "plan"]
    for name in groups:
        lost, won, chance = (explained.value(metric, name) for metric in ("lost_samples", "won_samples", "p_value"))
        if lost > won and chance * len(groups) < _CHANCE:
            yield Finding(
                code="group-hurt",
                severity="warning",
                subject=name,
                message=(
                    f"Of {explained.value('samples', name)} samples of '{name}', {lost} that were right are now wrong, and {won} the "
                    f"other way round (p = {chance:.2g}, of {len(groups)} groups)."
                ),
                advice="kp.export_tflite(model, path, explained.plan, representative_dataset=...)",
            )


def _to_blame(explained: Result) -> Iterator[Finding]:
    """A layer without whose lowering half of the changed answers come back, or more."""
    whole = explained.value("changed_share", "whole plan") if explained.select("changed_share", "whole plan") else 0.0
    for row in explained.select("changed_kept_alone"):
        if isinstance(row.value, int | float) and row.value <= whole / 2 and whole > 0:
            yield Finding(
                code="layer-to-blame",
                severity="warning",
                subject=row.subject,
                message=(
                    f"With '{row.subject}' alone kept in float, {100 * row.value:.2f} % of the answers are changed, not "
                    f"{100 * whole:.2f} %."
                ),
                advice=f"kp.PrecisionPlan.deployment('int8', layers={{'{row.subject}': 'float32'}})",
            )


_RULES: tuple[Rule, ...] = (_few_samples, _other_data, _noise, _outliers, _saturated, _dead)


def _layers(report: Result) -> dict[str, dict[str, float]]:
    """Layer to its figures, in the order in which they run."""
    found: dict[str, dict[str, float]] = {}
    for row in report:
        if row.metric != "calibration_samples" and isinstance(row.value, int | float):
            found.setdefault(row.subject, {})[row.metric] = row.value
    return found


def _filled(row: dict[str, float]) -> float | None:
    """The part of a range that the data reach; None where the range is fixed by the operator, or nothing is seen."""
    if "exp_input_step" in row or not {"range_low", "range_high", "seen_low", "seen_high"} <= set(row):
        return None
    span = row["range_high"] - row["range_low"]
    return (max(row["seen_high"], 0.0) - min(row["seen_low"], 0.0)) / span if span > 0 else None


def _span(row: dict[str, float]) -> str:
    return f"{row['range_low']:.3g} to {row['range_high']:.3g}"


def _others(found: dict[str, float], worst: str) -> str:
    names = [f"'{name}'" for name in found if name != worst][:5]
    return f", and likewise in {', '.join(names)}" if names else ""
