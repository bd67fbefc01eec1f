"""Tensor functions: which functions of TensorFlow a model file of tf_keras may call.

A ``TFOpLambda`` layer of a file may name any symbol of TensorFlow's API, such as ``io.write_file``, and loading
calls it: https://github.com/keras-team/tf-keras/blob/v2.21.0/tf_keras/layers/core/tf_op_layer.py. The functions listed
here compute tensors from tensors, and read and write nothing else. Functions that take functions are excluded, and
``tf.print``, which can write to a file.
"""

import re

__all__ = ["INSTANCE_METHODS", "INSTANCE_PROPERTIES", "OPERATIONS", "RAGGED_CONSTRUCTORS", "is_tensor_function"]

_NAMESPACES = r"__operators__|bitwise|linalg|math|nn|quantization|signal"
# The samplers read a file (vocab_file of nn.fixed_unigram_candidate_sampler), the loops of RNNs take functions.
_EXCEPT = r"nn\.(\w+_sampler|\w*rnn|with_space_to_batch)"

_TOP_LEVEL = """
argsort bitcast boolean_mask broadcast_to cast clip_by_global_norm clip_by_norm clip_by_value concat constant
convert_to_tensor dynamic_partition dynamic_stitch einsum ensure_shape expand_dims extract_volume_patches eye fill
gather gather_nd identity linspace meshgrid norm one_hot ones ones_like pad range rank realdiv repeat reshape reverse
reverse_sequence roll scatter_nd searchsorted sequence_mask shape shape_n size slice sort space_to_batch
space_to_batch_nd batch_to_space split squeeze stack stop_gradient strided_slice tensor_scatter_nd_add
tensor_scatter_nd_max tensor_scatter_nd_min tensor_scatter_nd_sub tensor_scatter_nd_update tensordot tile transpose
truncatediv truncatemod unique unravel_index unstack where zeros zeros_like
"""

_DTYPES = "as_string cast complex saturate_cast"

_IMAGE = """
adjust_brightness adjust_contrast adjust_gamma adjust_hue adjust_saturation central_crop
combined_non_max_suppression convert_image_dtype crop_and_resize crop_to_bounding_box extract_glimpse extract_patches
flip_left_right flip_up_down grayscale_to_rgb hsv_to_rgb image_gradients non_max_suppression pad_to_bounding_box
per_image_standardization psnr resize resize_bicubic resize_bilinear resize_nearest_neighbor
resize_with_crop_or_pad resize_with_pad rgb_to_grayscale rgb_to_hsv rgb_to_yiq rgb_to_yuv rot90 sobel_edges ssim
ssim_multiscale total_variation transpose yiq_to_rgb yuv_to_rgb
"""

_RANDOM = "categorical gamma normal poisson shuffle stateless_normal stateless_uniform truncated_normal uniform"

_SPARSE = "add concat expand_dims reduce_sum reorder reshape slice softmax sparse_dense_matmul to_dense transpose"

_KERAS_BACKEND = """
abs all any arange argmax argmin batch_dot batch_flatten binary_crossentropy cast categorical_crossentropy clip
concatenate constant conv1d conv2d conv3d cos cumprod cumsum depthwise_conv2d dot dropout elu equal exp expand_dims
eye flatten gather greater greater_equal hard_sigmoid identity int_shape l2_normalize less less_equal log logsumexp
max maximum mean min minimum ndim not_equal one_hot ones_like permute_dimensions pool2d pool3d pow prod
random_bernoulli random_normal random_uniform relu repeat repeat_elements reshape resize_images reverse round
separable_conv2d shape sigmoid sign sin softmax softplus softsign spatial_2d_padding sqrt square squeeze stack std
stop_gradient sum switch tanh temporal_padding tile transpose truncated_normal var zeros_like
"""


def _any_of(names: str) -> str:
    return "|".join(names.split())


def _set_of(names: str) -> frozenset[str]:
    return frozenset(names.split())


_ALLOWED = re.compile(
    rf"(compat\.v1\.)?(((?!{_EXCEPT})({_NAMESPACES})\.[a-z_][a-z0-9_]*)|({_any_of(_TOP_LEVEL)})|dtypes\.({_any_of(_DTYPES)})"
    rf"|image\.({_any_of(_IMAGE)})|random\.({_any_of(_RANDOM)})|sparse\.({_any_of(_SPARSE)}))"
    rf"|keras\.(backend\.({_any_of(_KERAS_BACKEND)})"
    r"|(activations|losses|metrics)\.(?!get$|serialize$|deserialize$)[a-z_][a-z0-9_]*)"
)

# What tf_keras itself wraps in layers: the loops at the end of the file linked above.
INSTANCE_PROPERTIES = _set_of("values flat_values row_splits nested_row_splits indices dense_shape")
INSTANCE_METHODS = _set_of("""
value_rowids nested_value_rowids nrows row_starts row_limits row_lengths nested_row_lengths bounding_shape
with_values with_flat_values with_row_splits_dtype merge_dims to_tensor to_sparse
""")
RAGGED_CONSTRUCTORS = _set_of("""
from_value_rowids from_row_splits from_row_lengths from_row_starts from_row_limits from_uniform_row_length
from_nested_value_rowids from_nested_row_splits from_nested_row_lengths from_tensor from_sparse
""")

# Operations of TensorFlow's graphs that files of TensorFlow 2.0 to 2.3 have as ``TensorFlowOpLayer``.
OPERATIONS = _set_of("""
Abs Add AddV2 All Any ArgMax ArgMin BatchMatMul BatchMatMulV2 BiasAdd BroadcastTo Cast ConcatV2 Cos Cumsum DivNoNan
Elu Equal Erf Exp ExpandDims Fill Floor FloorDiv FloorMod Gather GatherNd GatherV2 Greater GreaterEqual Identity
LeakyRelu Less LessEqual Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr MatMul Max Maximum Mean Min Minimum
Mul Neg NotEqual OneHot OnesLike Pack Pad PadV2 Pow Prod RealDiv Reciprocal Relu Relu6 Reshape ResizeBilinear
ResizeNearestNeighbor ReverseV2 Round Rsqrt Select SelectV2 Selu Shape Sigmoid Sign Sin Slice Softmax Softplus
Softsign Split SplitV Sqrt Square SquaredDifference Squeeze StopGradient StridedSlice Sub Sum Tan Tanh Tile TopKV2
Transpose Unpack ZerosLike
""")


def is_tensor_function(name: object) -> bool:
    """Tell whether a symbol of TensorFlow's API, such as ``"math.add"``, computes tensors and does nothing else.

    Example:
        >>> is_tensor_function("nn.relu"), is_tensor_function("io.write_file")
        (True, False)
    """
    return isinstance(name, str) and _ALLOWED.fullmatch(name) is not None
