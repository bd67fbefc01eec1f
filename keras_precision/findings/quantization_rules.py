"""Rules for quantized files: over the results of ``kp.quantization_report``, ``kp.explain_drop`` and ``kp.evaluate``."""

import math
from collections.abc import Iterator

from keras_precision.core.channel_errors import ChannelErrors, channel_list
from keras_precision.core.result import Result
from keras_precision.findings.finding import Finding, Rule, apply_rules, by_severity

__all__ = ["drop_findings", "quantization_findings"]

# Activation ranges converge with some hundred samples; with fewer, their tails are random.
_MIN_SAMPLES = 100
# If 1 % of the values are outside the range, they are no tail: the range comes from other data.
_MAX_CLIPPED = 0.01
# A range four times as wide as the data leaves 6 of 8 bits for them.
_MIN_FILLED = 0.25
# A tenth of the channels always 0: wasted weights and time, and perhaps an input that is missing.
_MIN_DEAD = 0.1
# Noise of a tenth of the signal (20 dB) changes close predictions; a layer that adds half of it is an outlier.
_MIN_SNR_DB, _MAX_LOSS_DB = 20.0, 6.0
# A step of 0.25 in a softmax input is a factor of 1.28 in a probability.
_MAX_EXP_STEP, _LARGE_STEP = 0.25, 20.0
_SIGNIFICANCE = 0.05


def quantization_findings(report: Result) -> tuple[Finding, ...]:
    """Return the findings of a comparison with the float model by severity, layers with the largest loss first.

    It is a result of ``kp.quantization_report``; those of ``kp.evaluate`` and ``kp.explain_drop`` have channels, too.

    Example:
        >>> from keras_precision.core.result import Measurement
        >>> rows = (Measurement("head", "snr_db", 9.0), Measurement("head", "snr_loss_db", 20.0))
        >>> [finding.code for finding in quantization_findings(Result("layers", rows))]
        ['layer-loses-signal']
    """
    causes = apply_rules(report, _RULES)
    explained = {finding.subject for finding in causes if finding.code in _CAUSES}
    noise = [finding for finding in _noise(report) if finding.subject not in explained]
    return by_severity((*causes, *noise))


def _few_samples(report: Result) -> Iterator[Finding]:
    count = report.get("calibration_samples")
    if count is not None and count < _MIN_SAMPLES:
        yield Finding(
            code="calibration-few-samples",
            severity="warning",
            subject=report.name,
            message=f"The ranges were chosen from {count} samples, too few to estimate the tails of the distribution.",
            advice=f"kp.export_tflite(model, path, {_default(report)!r}, representative_dataset=x_train[:500])  # a random sample",
        )


def _other_data(report: Result) -> Iterator[Finding]:
    """A calibration mismatch: the data exceed the range in the file, or fill only a small part of it."""
    layers = _layers(report)
    clipped = {
        name: row["clipped_share"]
        for name, row in layers.items()
        if row.get("clipped_share", 0) > _MAX_CLIPPED
        and "exp_input_step" not in row  # its range is fixed by the operator
    }
    if clipped:
        worst = max(clipped, key=lambda name: clipped[name])
        yield Finding(
            code="calibration-other-data",
            severity="warning",
            subject=worst,
            message=(
                f"{100 * clipped[worst]:.1f} % of the values of '{worst}' lie outside the range in the file "
                f"({_span(layers[worst])}){_others(clipped, worst)}: the calibration samples were different."
            ),
            advice="# Calibrate on data as in production, with the same preprocessing: representative_dataset= of the export",
        )
    filled = {name: row["filled_share"] for name, row in layers.items() if row.get("filled_share", 1.0) < _MIN_FILLED}
    if filled:
        worst = min(filled, key=lambda name: filled[name])
        yield Finding(
            code="calibration-too-wide",
            severity="warning",
            subject=worst,
            message=(
                f"These samples fill {100 * filled[worst]:.0f} % of the range of '{worst}' ({_span(layers[worst])}; "
                f"their range is {layers[worst]['seen_low']:.3g} to {layers[worst]['seen_high']:.3g}){_others(filled, worst)}: "
                "the other integers are not used."
            ),
            advice="# Check the calibration data for different scaling and single extreme values, or use calibration='mse'",
        )


def _outliers(report: Result) -> Iterator[Finding]:
    for name, row in _layers(report).items():
        if row.get("outlier_channels", 0) and row.get("snr_db", 99) < _MIN_SNR_DB:
            yield Finding(
                code="outlier-channels",
                severity="warning",
                subject=name,
                message=(
                    f"{row['outlier_channels']} of {row['channels']} channels of '{name}' have more than 8 times the range of "
                    f"the others, which share their scale: the signal-to-noise ratio of the output is {row['snr_db']:.0f} dB."
                ),
                advice=f"plan = kp.PrecisionPlan.deployment({_default(report)!r}, layers={{{name!r}: 'int16x8'}})  # or 'float32', or export with cross_layer_equalization=True",
            )


def _dead(report: Result) -> Iterator[Finding]:
    for name, row in _layers(report).items():
        if row.get("dead_channels", 0) >= max(1, _MIN_DEAD * row.get("channels", 0)):
            yield Finding(
                code="dead-channels",
                severity="info",
                subject=name,
                message=f"{row['dead_channels']} of {row['channels']} channels of '{name}' are 0 on all samples.",
                advice="# They cost time and size without effect: train with fewer, or check whether the samples lack a kind of input",
            )


def _saturated(report: Result) -> Iterator[Finding]:
    for name, row in _layers(report).items():
        step = row.get("exp_input_step", 0)
        if step > _MAX_EXP_STEP:
            yield Finding(
                code="softmax-input-coarse",
                severity="warning",
                subject=name,
                message=(
                    f"The inputs of the exponential of '{name}' have steps of {step:.2g}, a factor of {_factor(step)} in a "
                    "probability: the inputs are so large that close predictions cannot be distinguished."
                ),
                advice=f"plan = kp.PrecisionPlan.deployment({_default(report)!r}, layers={{{name!r}: 'float32'}})  # or train with label smoothing",
            )


def _factor(step: float) -> str:
    """What one step of its input is to an exponential; a float has no number for that of a large step."""
    return f"{math.exp(step):.2f}" if step < _LARGE_STEP else f"e to the power of {step:.3g}"


def _noise(report: Result) -> Iterator[Finding]:
    """Layers that lose signal, those with the largest loss first; where the reason is known, that is the finding."""
    layers = _layers(report)
    losses = {
        name: row["snr_loss_db"]
        for name, row in layers.items()
        if row.get("snr_db", 99) < _MIN_SNR_DB and row.get("snr_loss_db", 0) > _MAX_LOSS_DB
    }
    for name in sorted(losses, key=lambda name: -losses[name]):
        yield Finding(
            code="layer-loses-signal",
            severity="warning",
            subject=name,
            message=(
                f"The signal-to-noise ratio of '{name}' is {layers[name]['snr_db']:.0f} dB at its outputs and "
                f"{layers[name]['snr_db'] + losses[name]:.0f} dB at its inputs."
            ),
            advice=f"plan = kp.PrecisionPlan.deployment({_default(report)!r}, layers={{{name!r}: 'int16x8'}})  # kp.explain_drop measures the gain",
        )


def _drowned_channels(compared: Result) -> Iterator[Finding]:
    """Channels that are lost in the steps of a scale that they share with one of a much larger spread."""
    planned = {errors.output: errors for errors in ChannelErrors.from_result(compared, "channel_snr_with_plan_db")}
    for errors in ChannelErrors.from_result(compared):
        lost, widest = errors.drowned(), errors.widest
        if not lost:
            continue
        best = max(lost, key=lambda channel: errors.snr_db[channel] or 0.0)
        yield Finding(
            code="drowned-channels",
            severity="warning",
            subject=errors.output,
            message=(
                f"{channel_list(lost)} of '{errors.output}' {'is' if len(lost) == 1 else 'are'} lost: the signal-to-noise ratio "
                f"is {errors.snr_db[best]:.0f} dB{' at most' if len(lost) > 1 else ''} by the channel's own spread "
                f"({errors.spreads[best]:.2g}). Channel {widest}, with a spread of {errors.spreads[widest]:.2g}, shares their scale."
            ),
            advice=_channel_advice(lost, planned.get(errors.output)),
        )


def _channel_advice(lost: list[int], planned: ChannelErrors | None) -> str:
    ratios = [] if planned is None else [planned.snr_db[channel] for channel in lost]
    known = [ratio for ratio in ratios if ratio is not None]
    if not known:
        return (
            "plan = kp.explain_drop(model, path, x, y).plan  # for a model of one output: layers in float32 that recover them, "
            "verified, as the warning of kp.export_tflite names them for several; or give them an output of their own, or divide each "
            "channel by its spread"
        )
    if planned is not None and not set(lost) & set(planned.drowned()):
        return (
            "kp.export_tflite(model, path, explained.plan, representative_dataset=x)"
            f"  # its file has {min(known):.0f} dB there, or more; or give them an output of their own"
        )
    return "# Give these channels an output of their own, or divide each by its spread: no plan that was tried recovers them"


def drop_findings(explained: Result) -> tuple[Finding, ...]:
    """Return the findings of a result of ``kp.explain_drop``: significant accuracy drops of groups, and their causes.

    A calibration mismatch comes alone, since it explains every group's drop, and no layer is the cause.

    Example:
        >>> from keras_precision.core.result import Measurement
        >>> lost = {"samples": 99, "changed_samples": 9, "lost_samples": 9, "won_samples": 0, "p_value": 0.004}
        >>> rows = tuple(Measurement("class 3", metric, value) for metric, value in lost.items())
        >>> [finding.subject for finding in drop_findings(Result("drop", rows))]
        ['class 3']
    """
    if explained.select("changed_share", "calibration"):
        return apply_rules(explained, (_calibration_mismatch,))
    return apply_rules(explained, (_group_drops, _coarse_io, _sensitive_layers))


def _calibration_mismatch(explained: Result) -> Iterator[Finding]:
    """Ranges from other data: calibrated on the samples of the explanation, the same plan recovers the predictions."""
    changed, count = explained.value("changed_samples", "all"), explained.value("samples", "all")
    yield Finding(
        code="calibration-mismatch",
        severity="warning",
        subject=explained.name,
        message=(
            f"{changed} of {count} predictions change; calibrated on these samples, the same plan changes "
            f"{100 * explained.value('changed_share', 'calibration'):.2f} %: the calibration samples of the file were different."
        ),
        advice="kp.export_tflite(model, path, explained.plan, representative_dataset=x)  # samples as in production",
    )


def _coarse_io(explained: Result) -> Iterator[Finding]:
    """Inputs and outputs whose integers change the predictions with every layer in float."""
    if explained.select("changed_share", "keep 1: inputs and outputs"):
        yield Finding(
            code="io-coarse",
            severity="warning",
            subject="inputs and outputs",
            message=(
                f"Integers at inputs and outputs change too many predictions, even with every layer in float: with float32 there "
                f"alone, {100 * explained.value('changed_share', 'keep 1: inputs and outputs'):.2f} % change instead of "
                f"{100 * explained.value('changed_share', 'whole plan'):.2f} %. Features of unlike scale in one input are a cause."
            ),
            advice="kp.export_tflite(model, path, explained.plan, representative_dataset=x)  # its io is 'float32'",
        )


def _group_drops(explained: Result) -> Iterator[Finding]:
    """Groups whose accuracy drops significantly, with Bonferroni's correction for the number of groups."""
    groups = [row.subject for row in explained.select("lost_samples") if row.subject != "plan"]
    for name in groups:
        lost, won, p_value = (explained.value(metric, name) for metric in ("lost_samples", "won_samples", "p_value"))
        if lost > won and p_value * len(groups) < _SIGNIFICANCE:
            yield Finding(
                code="group-hurt",
                severity="warning",
                subject=name,
                message=(
                    f"Of {explained.value('samples', name)} samples of '{name}', {lost} correct predictions became wrong, and {won} "
                    f"wrong ones became correct (p = {p_value:.2g}, one of {len(groups)} groups)."
                ),
                advice="kp.export_tflite(model, path, explained.plan, representative_dataset=x)",
            )


def _sensitive_layers(explained: Result) -> Iterator[Finding]:
    """Layers that, alone in float, recover half of the changed predictions or more, beyond chance.

    Bonferroni's correction is for the number of layers. Results of earlier versions have no test, and blame no layer.
    """
    first = next(
        (row for row in explained.select("changed_share") if row.subject.endswith(": inputs and outputs")), None
    )
    subject = "whole plan" if first is None else first.subject
    whole = explained.value("changed_share", subject) if explained.select("changed_share", subject) else 0.0
    layers = explained.select("changed_kept_alone")
    for row in layers:
        known = [float(test.value) for test in explained.select("p_value", row.subject) if test.value is not None]
        is_shown = bool(known) and known[0] * len(layers) < _SIGNIFICANCE
        if isinstance(row.value, int | float) and row.value <= whole / 2 and whole > 0 and is_shown:
            yield Finding(
                code="sensitive-layer",
                severity="warning",
                subject=row.subject,
                message=(
                    f"With only '{row.subject}' in float, {100 * row.value:.2f} % of the predictions change instead of "
                    f"{100 * whole:.2f} %."
                ),
                advice=f"plan = kp.PrecisionPlan.deployment({_default(explained)!r}, layers={{{row.subject!r}: 'float32'}})",
            )


_RULES: tuple[Rule, ...] = (_few_samples, _other_data, _drowned_channels, _outliers, _saturated, _dead)
_CAUSES = ("calibration-other-data", "drowned-channels", "outlier-channels", "softmax-input-coarse")


def _default(result: Result) -> str:
    """Return the default precision of the file; int8 for results without a plan."""
    return "int8" if result.plan is None else result.plan.default


def _layers(report: Result) -> dict[str, dict[str, float]]:
    """Return the metrics of the layers by name, in order of execution."""
    layers: dict[str, dict[str, float]] = {}
    for row in report:
        if row.metric != "calibration_samples" and isinstance(row.value, int | float):
            layers.setdefault(row.subject, {})[row.metric] = row.value
    return layers


def _span(row: dict[str, float]) -> str:
    return f"{row['range_low']:.3g} to {row['range_high']:.3g}"


def _others(layers: dict[str, float], worst: str) -> str:
    names = [f"'{name}'" for name in layers if name != worst][:5]
    return f", and likewise in {', '.join(names)}" if names else ""
