"""Operations of the layers, each with the same signature on every backend.

The layers call these functions for convolutions, normalization, attention and pooling. By default, they run Keras's
own operations. `formulations/` contains faster implementations and the table that selects one by backend, platform and
data format.
"""

from mobilenet_common.choices import PADDINGS
from mobilenet_common.ops.attention import channel_attention, spatial_attention
from mobilenet_common.ops.convolutions import convolution, depthwise_convolution
from mobilenet_common.ops.geometry import output_size
from mobilenet_common.ops.normalization import (
    activate,
    affine,
    batch_norm,
    batch_norm_training,
    group_norm,
    layer_norm,
    pointwise_batch_norm_training,
)
from mobilenet_common.ops.sampling import average_pool, blur_pool, mean_pool, upsample

__all__ = [
    "PADDINGS",
    "activate",
    "affine",
    "average_pool",
    "batch_norm",
    "batch_norm_training",
    "blur_pool",
    "channel_attention",
    "convolution",
    "depthwise_convolution",
    "group_norm",
    "layer_norm",
    "mean_pool",
    "output_size",
    "pointwise_batch_norm_training",
    "spatial_attention",
    "upsample",
]
