"""METRICS: the meaning of every figure of this package, its unit, and which direction is better."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

__all__ = ["METRICS", "Metric", "metric_of"]


@dataclass(frozen=True)
class Metric:
    """The meaning of a figure.

    Attributes:
        name: The name that measurements carry.
        unit: Its unit, as printed; empty if it is a pure number.
        better: ``"higher"``, ``"lower"``, or None if neither is better.
        meaning: One sentence.
    """

    name: str
    unit: str
    better: Literal["higher", "lower"] | None
    meaning: str


_ROWS: tuple[tuple[str, str, Literal["higher", "lower"] | None, str], ...] = (
    (
        "step_time_ms",
        "ms",
        "lower",
        "Median time of one training step, from the trainer's begin hook to its end hook, warm-up left out.",
    ),
    ("step_time_p5_ms", "ms", "lower", "5th percentile of the same steps."),
    ("step_time_p95_ms", "ms", "lower", "95th percentile of the same steps."),
    ("steps_measured", "", None, "Steps that the step time rests on."),
    ("warmup_steps", "", None, "Steps left out at the start of the fit: they trace and compile."),
    ("warmup_time_ms", "ms", "lower", "Total time of the steps left out."),
    (
        "data_wait_ms",
        "ms",
        "lower",
        "Mean time of one of the same steps in which the trainer waited for its batch; unknown where the compiled step fetches it.",
    ),
    (
        "data_wait_share",
        "",
        "lower",
        "The part of the time of these steps, the wait included, that was waiting for data: 0.25 is a quarter.",
    ),
    (
        "between_steps_ms",
        "ms",
        "lower",
        "Mean time from the end of a step to the start of the next, in a custom loop: fetching data, and all else that it does.",
    ),
    (
        "samples_per_second",
        "1/s",
        "higher",
        "Samples trained in a second of the measured steps (for inference: predicted in a second, at the median latency).",
    ),
    (
        "peak_memory_mb",
        "MB",
        "lower",
        "Peak memory, 1 MB = 10^6 bytes; its source is in the environment, and two sources are never compared.",
    ),
    ("weights_mb", "MB", "lower", "Weights, by the types of the variables: float32 under mixed precision."),
    ("gradients_mb", "MB", "lower", "Gradients, one per trainable weight, in its type."),
    ("optimizer_mb", "MB", "lower", "Slots and counters of the optimizer."),
    (
        "activations_mb",
        "MB",
        "lower",
        "Peak memory less weights, gradients and optimizer: activations and workspace; known only where an accelerator's allocator was read.",
    ),
    ("loss_scale", "", None, "The scale of the LossScaleOptimizer; unknown where there is none."),
    ("skipped_steps", "", "lower", "Training steps whose update was not applied, because a gradient overflowed."),
    ("skipped_loss_finite", "", None, "Skipped steps with a finite loss: the loss scale is adjusting, harmless."),
    (
        "skipped_loss_not_finite",
        "",
        "lower",
        "Skipped steps whose loss was NaN or infinite: an overflow in the forward pass, or bad data.",
    ),
    (
        "skipped_loss_unknown",
        "",
        "lower",
        "Skipped steps whose loss was not recorded; if there is one, the two counts above are unknown.",
    ),
    (
        "skipped_in_window",
        "",
        "lower",
        "Skipped steps among those that the row's subject names: 'step' is that step itself, 'steps 65 to 128' one or more of these.",
    ),
    ("batches", "", None, "Batches trained."),
    ("samples", "", None, "Samples trained or evaluated."),
    ("profiler_us_per_step", "us", "lower", "Time that the profiler itself took per step."),
    ("loss", "", "lower", "Training loss."),
    ("batch_size", "", None, "Samples in a batch."),
    ("largest_batch", "", "higher", "Largest batch that a training step fits with, tried in a process of its own."),
    (
        "predicted_batch",
        "",
        None,
        "The largest batch that the line through smaller ones predicts: peak = a + c * batch.",
    ),
    ("trials", "", None, "Fresh processes that it took to verify a prediction."),
    ("sample_mb", "MB", "lower", "Memory that one more sample in a batch takes, measured."),
    (
        "planned_sample_mb",
        "MB",
        "lower",
        "The same, computed before anything runs: the outputs of all layers, in their compute dtypes.",
    ),
    (
        "planned_memory_mb",
        "MB",
        "lower",
        "Weights, gradients, optimizer and the outputs of all layers at the largest batch, as planned.",
    ),
    ("traced_products", "", None, "Matrix products and convolutions that oneDNN ran while five steps were traced."),
    ("low_precision_products", "", None, "Those of them that read 16-bit floats."),
    ("low_precision_share", "", None, "The share of time that those took; unknown where oneDNN ran none."),
    ("traced_casts", "", None, "Reorders from one type to another that oneDNN ran in these steps."),
    ("traced_ms", "ms", "lower", "Time of the five traced steps, with what tracing itself takes."),
    (
        "traced_device_ms",
        "ms",
        None,
        "The part of it in which an operator ran: on the accelerator, or in the processor's own threads where there is none.",
    ),
    (
        "traced_host_ms",
        "ms",
        "lower",
        "The rest of it: Python, dispatching and waiting for data, while nothing was computed.",
    ),
    ("diverged_share", "", "lower", "Share of the seeds whose loss or weights end as NaN or infinity."),
    ("class_accuracy", "", "higher", "Share of the samples of one class that are predicted correctly."),
    ("session", "", None, "Name of the session of interleaved runs: times of one session are compared in pairs."),
    ("initial_weights", "", None, "Hash of the weights before training: equal in runs that are otherwise identical."),
    ("data_order", "", None, "Hash of the data in their order: equal in runs that are otherwise identical."),
    (
        "configuration",
        "",
        None,
        "Hash of layers, optimizer, loss and settings, without precision: equal in runs that are otherwise identical.",
    ),
    (
        "answers_right",
        "",
        None,
        "Which samples were predicted correctly: their count, and a hexadecimal digit for every four.",
    ),
    ("accuracy", "", "higher", "Share of samples whose most probable class is the true one."),
    ("agreement", "", "higher", "Share of samples whose predicted class is that of the reference."),
    (
        "snr_db",
        "dB",
        "higher",
        "Signal-to-noise ratio of outputs p, of a model or a layer, against the reference's r: 10 log10(sum r^2 / sum (r - p)^2).",
    ),
    (
        "channel_snr_db",
        "dB",
        "higher",
        "Signal-to-noise ratio of a channel of an output, by its own spread: 20 log10(std(r) / rms(r - p)); unknown if it is constant.",
    ),
    ("channel_spread", "", None, "Standard deviation of one channel of an output, in the reference."),
    (
        "channel_snr_with_plan_db",
        "dB",
        "higher",
        "The same ratio of a channel in the file of the recovery plan.",
    ),
    ("mean_absolute_error", "", "lower", "Mean of |prediction - truth|."),
    ("mean_squared_error", "", "lower", "Mean of (prediction - truth)^2."),
    ("latency_ms", "ms", "lower", "Median time of one call, warm-up left out."),
    ("latency_p95_ms", "ms", "lower", "95th percentile of the same calls."),
    (
        "snr_loss_db",
        "dB",
        "lower",
        "How much of the signal-to-noise ratio a layer loses: the lowest among its inputs, less that of its output.",
    ),
    (
        "cosine",
        "",
        "higher",
        "Cosine of the angle between a layer's output and that of the float run, over all values.",
    ),
    ("range_low", "", None, "The smallest number that a quantized tensor represents."),
    ("range_high", "", None, "The largest number that a quantized tensor represents."),
    ("seen_low", "", None, "The smallest number that a tensor takes in the float run."),
    ("seen_high", "", None, "The largest number that a tensor takes in the float run."),
    ("clipped_share", "", "lower", "Share of the values of the float run that lie outside the range of the file."),
    (
        "filled_share",
        "",
        "higher",
        "Share of the range in the file that the float run fills, with all tensors that must have the same scale.",
    ),
    ("channels", "", None, "Channels of a layer's output."),
    ("dead_channels", "", "lower", "Channels that are 0 on all samples."),
    (
        "outlier_channels",
        "",
        "lower",
        "Channels whose largest absolute value is over 8 times that of the median channel.",
    ),
    (
        "exp_input_step",
        "",
        "lower",
        "Step of the quantized input of a softmax or a sigmoid, which takes its exponential.",
    ),
    ("changed_samples", "", "lower", "Samples for which the file predicts another class than the float model."),
    ("changed_share", "", "lower", "The same, as a share."),
    ("changed_answer", "", None, "The classes that the float model and the file predict for a sample."),
    ("lost_samples", "", "lower", "Samples that the float model predicts correctly, and the file wrongly."),
    ("won_samples", "", "higher", "Samples that the float model predicts wrongly, and the file correctly."),
    ("float_accuracy", "", "higher", "Accuracy of the float model on the same samples."),
    ("float_mean_absolute_error", "", "lower", "Mean absolute error of the float model on the same samples."),
    (
        "p_value",
        "",
        None,
        "How likely such a difference in accuracy is by chance: exact McNemar test, two-sided, not corrected for many groups.",
    ),
    (
        "changed_lowered_alone",
        "",
        "lower",
        "Share of changed answers of a float file in which this layer alone is lowered.",
    ),
    ("changed_kept_alone", "", "lower", "Share of changed answers of the file with this layer alone kept in float."),
    ("divergence_lowered_alone", "", "lower", "Divergence of a float file in which this layer alone is lowered."),
    ("divergence_only_layer_in_float", "", "lower", "Divergence of the file with only this layer in float."),
    ("size_kept_alone", "B", "lower", "Size of the file with this layer alone kept in float."),
    ("latency_ratio", "", "lower", "Latency against that of the file that is explained."),
    (
        "operator_ms",
        "ms",
        "lower",
        "Median time of one operator, alone in a file of its own, on random input.",
    ),
    ("latency_samples", "", None, "Calls that the latency rests on."),
    ("size_bytes", "B", "lower", "Size of the file."),
    ("step_time_ratio", "", "lower", "Step time, as a share of the baseline's; 1 where no difference is shown."),
    ("peak_memory_ratio", "", "lower", "Peak memory, as a share of the baseline's; 1 where no difference is shown."),
    (
        "divergence",
        "",
        "lower",
        "Mean Kullback-Leibler divergence from the float model's predictions, in nats, probabilities below 1/512 taken as that; for outputs that are no probabilities, the mean squared difference, as a share of the float outputs' variance, channel by channel.",
    ),
    ("metric_drop", "", "lower", "By how much the metric of a search is worse than that of the float model."),
    (
        "bit_operations",
        "",
        "lower",
        "Multiply-accumulates of one sample, each times the bits of its weight and the bits of its activation.",
    ),
    (
        "operator",
        "",
        None,
        "Kernel, number format, and types read and written of one operator of the file, such as 'CONV_2D int8 (int8,int8,int32->int8)'.",
    ),
    ("operator_count", "", None, "Operators of the file with this kernel and number format."),
    ("input_type", "", None, "Element type, and quantization if there is one, of one input of the file."),
    ("output_type", "", None, "Element type, and quantization if there is one, of one output of the file."),
    ("export_time_s", "s", "lower", "Time that conversion and reading back took."),
    ("calibration_samples", "", None, "Samples that set the ranges of the activations."),
    ("calibration_method", "", None, "How the ranges of the activations were estimated from the calibration data."),
    ("calibration_minimum", "", None, "The smallest value of an input in the calibration data."),
    ("calibration_maximum", "", None, "The largest value of an input in the calibration data."),
    ("foreign_ranges", "", "lower", "Activations of the file whose scale comes from none of the calibrated ranges."),
    ("equalized_pairs", "", None, "Pairs of layers between which channels were scaled to equal weight ranges."),
    ("engine", "", None, "What quantized the file: AI Edge Quantizer (aeq), or TFLiteConverter (converter)."),
    ("runs", "", "higher", "Whether the runtime, or the accelerator, runs the file: 1 or 0; notes say why not."),
    (
        "max_difference",
        "",
        "lower",
        "Largest absolute difference of an output from that of the reference, over the same samples.",
    ),
    ("rules_broken", "", "lower", "Rules of a toolchain that the file breaks."),
    ("rule", "", None, "Whether the file satisfies a rule of a toolchain, and what breaks it."),
    ("arena_bytes", "B", "lower", "Memory that TensorFlow Lite Micro needs for all tensors of the file."),
    ("arena_head_bytes", "B", "lower", "The part of the arena that operators share: activations and scratch buffers."),
    ("arena_tail_bytes", "B", "lower", "The part of the arena that stays: the interpreter's own tables."),
    (
        "npu_inferences_per_second",
        "1/s",
        "higher",
        "Calls in a second of the part that runs on the accelerator, by its compiler's model of it.",
    ),
    ("npu_sram_bytes", "B", "lower", "Fast memory that the accelerator's part needs."),
    ("npu_dram_bytes", "B", "lower", "Slow memory that it needs."),
    ("npu_flash_bytes", "B", "lower", "Flash memory that its encoded weights need."),
    ("npu_macs", "", None, "Multiply-accumulates of one call on the accelerator."),
    ("npu_operators", "", "higher", "Operators on the accelerator, as its compiler counts them after lowering."),
    ("cpu_operators", "", "lower", "Operators that fall back to the processor."),
    ("cpu_operator", "", None, "Layer and tensor that an operator on the processor computes, and why it is there."),
    ("layer_operators", "", None, "Numbers of the operators that compute a layer."),
    ("accelerated", "", "higher", "Whether the hardware reports that it multiplies in the number format: 1 or 0."),
    ("matmul_ms", "ms", "lower", "Median time of a product of two square matrices in the number format."),
    ("convolution_ms", "ms", "lower", "Median time of a 3 x 3 convolution in the number format."),
    ("depthwise_ms", "ms", "lower", "Median time of a 3 x 3 depthwise convolution in the number format."),
)

_WHAT = {
    "activation": "the layer's output",
    "gradient": "the gradient with respect to the layer's output, divided by the loss scale",
    "weight_gradient": "the gradients with respect to the layer's weights, divided by the loss scale",
}
_STATISTICS: tuple[tuple[str, Literal["higher", "lower"] | None, str], ...] = (
    ("mean", None, "Mean of"),
    ("deviation", None, "Standard deviation of"),
    ("minimum", None, "Smallest value of"),
    ("maximum", None, "Largest value of"),
    ("non_finite", "lower", "Share of NaN and infinity in"),
    ("zero", None, "Share of zeros in"),
    ("float16_underflow", "lower", "Share that is not 0, and is or would be 0 in float16, of"),
    ("float16_overflow", "lower", "Share that is or would be infinite in float16 of"),
    ("bfloat16_underflow", "lower", "Share that is not 0, and is or would be 0 in bfloat16, of"),
    ("bfloat16_overflow", "lower", "Share that is or would be infinite in bfloat16 of"),
    ("float16_error", "lower", "Error of rounding to float16 (root mean square, relative to the values) in"),
    ("bfloat16_error", "lower", "Error of rounding to bfloat16 (root mean square, relative to the values) in"),
)
_ACTIONS: tuple[tuple[str, str, Literal["higher", "lower"] | None, str], ...] = (
    ("precision_set", "", None, "The policy of most layers from the epoch of the row on."),
    ("precision_raised", "", None, "The policy of the layer of the row after its training step diverged."),
    ("lowered_layers", "", None, "Layers that computed in the lower precision in this run."),
    ("stable", "", "higher", "Whether the run did not diverge from its baseline: 1 or 0."),
    (
        "loss_difference",
        "",
        "lower",
        "Largest difference of the loss of a step from that of the same step of the baseline, as a share of it.",
    ),
)
_ORIGINS: tuple[tuple[str, str, Literal["higher", "lower"] | None, str], ...] = (
    ("origins_found", "", None, "Steps with a NaN or infinity whose origin was searched for."),
    (
        "first_non_finite",
        "",
        None,
        "The origin of the first NaN or infinity: data, weights, forward, loss, backward or update; the subject is the layer.",
    ),
    (
        "first_non_finite_layer",
        "",
        None,
        "The class of that layer, and its name if it is inside the one of the subject.",
    ),
    (
        "first_non_finite_from",
        "",
        None,
        "The smallest value of its input (backward: of the gradient that flows into it).",
    ),
    ("first_non_finite_to", "", None, "The largest value of the same."),
    ("first_non_finite_loss", "", None, "Whether the loss of that step was finite."),
    ("non_finite_loss", "", None, "The mean of the losses of the epoch, when it ceased to be finite."),
    ("non_finite_weights", "", None, "Some weight was NaN or infinite after the step of the row: 1."),
    (
        "no_updates",
        "",
        None,
        "Steps up to the end of the epoch of the row, at least 16, each of which loss scaling skipped.",
    ),
    (
        "constant_outputs",
        "",
        None,
        "Samples of a batch for which the model's outputs are all the same; the subject is the first layer whose outputs are one number.",
    ),
    ("finite", "", "higher", "Whether the losses so far, and the weights after the epoch, are finite: 1 or 0."),
    ("breaks_in_float32", "", None, "The step of the row, repeated in float32, was not finite: 1."),
    (
        "rehearsed_step",
        "",
        None,
        "The step that broke when training was repeated from new weights on the next batches.",
    ),
    ("cause", "", None, "What a trial on a copy of the model has shown to be the cause."),
    ("cured_by_rate", "", None, "The part of the learning rate with which a trial was finite."),
    ("tried", "", None, "What was tried and did not cure the step."),
    ("cured_in", "", None, "The precision of the layer of the row in which that step was finite."),
    (
        "activation_int8_error",
        "",
        "lower",
        "Error of rounding the layer's output to int8, with one scale over its whole range (root mean square, relative to the values).",
    ),
    (
        "gradient_scaled_underflow",
        "",
        "lower",
        "As gradient_float16_underflow, after multiplication by a loss scale of 2^15.",
    ),
    (
        "weight_gradient_scaled_underflow",
        "",
        "lower",
        "As weight_gradient_float16_underflow, after multiplication by a loss scale of 2^15.",
    ),
)
_LAYER_ROWS = tuple(
    (f"{what}_{name}", "", better, f"{words} {of}.")
    for what, of in _WHAT.items()
    for name, better, words in _STATISTICS
)

METRICS: MappingProxyType[str, Metric] = MappingProxyType(
    {row[0]: Metric(*row) for row in (*_ROWS, *_ORIGINS, *_ACTIONS, *_LAYER_ROWS)}
)
"""Name to metric, for every figure of this package. A user's own Keras metrics may be measured too."""


def metric_of(name: str) -> Metric:
    """Return a metric of ``METRICS``, also behind ``val_``; one of the user's own gets no unit and no direction.

    Example:
        >>> metric_of("val_accuracy").better
        'higher'
    """
    known = METRICS.get(name.removeprefix("val_"))
    if known is None:
        return Metric(name, "", None, "A metric of the user's own.")
    meaning = known.meaning if known.name == name else f"On the validation data: {known.meaning}"
    return Metric(name, known.unit, known.better, meaning)
