"""How the layers compute. Each operation has one signature on every backend; layers call these and nothing below.

Keras's own operation is the default formulation. Where a backend can't run one (TensorFlow has no channels-first
convolution on a CPU), the way round it stands here, and never in a layer.
"""

from mobilenet_common.ops.attention import channel_attention, spatial_attention
from mobilenet_common.ops.convolution import convolution, depthwise_convolution, output_size
from mobilenet_common.ops.normalization import (
    batch_moments,
    batch_norm,
    group_norm,
    layer_norm,
)
from mobilenet_common.ops.sampling import average_pool, blur_pool, mean_pool, upsample

__all__ = [
    "average_pool",
    "batch_moments",
    "batch_norm",
    "blur_pool",
    "channel_attention",
    "convolution",
    "depthwise_convolution",
    "group_norm",
    "layer_norm",
    "mean_pool",
    "output_size",
    "spatial_attention",
    "upsample",
]
