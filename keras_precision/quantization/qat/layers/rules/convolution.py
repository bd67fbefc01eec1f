"""Convolutions: CONV_2D, DEPTHWISE_CONV_2D and TRANSPOSE_CONV, the latter two without a 4-bit kernel."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from keras_precision.quantization.qat.layers.quantize_rule import Quantize, QuantizeRule, register_quantize_rule
from keras_precision.quantization.qat.layers.rules.fused_activation import Activated, apply_activation

__all__ = ["SeparableRule"]

# ``_kernel`` is the variable; the public property may add LoRA weights to it:
# https://github.com/keras-team/keras/blob/v3.15.1/keras/src/layers/convolutional/base_conv.py.
for _layer_class in (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D):
    register_quantize_rule(_layer_class, Activated({"_kernel": (-1,)}))


for _layer_class in (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D):
    register_quantize_rule(_layer_class, Activated({"kernel": (-2, -1)}, narrow=False))


_DEPTHWISE = QuantizeRule({"depthwise_kernel": (-2, -1)}, narrow=False)
_POINTWISE = QuantizeRule({"pointwise_kernel": (-1,)})


class SeparableRule(Activated):
    """The rule of a separable convolution, which computes its two convolutions one by one."""

    @contextlib.contextmanager
    def quantized_weights(self, layer: Any, precision: str, active: Any) -> Iterator[None]:
        """Fake-quantize both kernels within the block; the depthwise one has no 4-bit form."""
        with (
            _DEPTHWISE.quantized_weights(layer, precision, active),
            _POINTWISE.quantized_weights(layer, precision, active),
        ):
            yield

    def inner(self, layer: Any) -> tuple[str, ...]:
        """Return the output of the depthwise convolution, and the input of the activation."""
        return ("depthwise", *super().inner(layer))

    def call(self, layer: Any, quantize: Quantize, *inputs: Any, **kwargs: Any) -> Any:
        """Compute both convolutions, then the bias and the activation."""
        values = ops.cast(inputs[0], layer.compute_dtype)
        depthwise, pointwise = (
            ops.cast(kernel, layer.compute_dtype) for kernel in (layer.depthwise_kernel, layer.pointwise_kernel)
        )
        first = ops.depthwise_conv(
            values, depthwise, layer.strides, layer.padding, layer.data_format, layer.dilation_rate
        )
        linear = ops.conv(quantize("depthwise", first), pointwise, 1, "valid", layer.data_format)
        if layer.use_bias:
            shape = [1] * len(linear.shape)
            shape[-1 if layer.data_format == "channels_last" else 1] = layer.filters
            linear = linear + ops.cast(ops.reshape(layer.bias, shape), linear.dtype)
        if "linear" in self.inner(layer):
            linear = quantize("linear", linear)
        return apply_activation(layer.activation, linear)


register_quantize_rule(keras.layers.SeparableConv2D, SeparableRule({"depthwise_kernel": (), "pointwise_kernel": ()}))


for _layer_class in (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose):
    register_quantize_rule(_layer_class, Activated({"_kernel": (-2,)}, narrow=False))
