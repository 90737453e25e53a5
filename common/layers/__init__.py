"""Keras layers that all four generations are built from. Each is registered and can be rebuilt from its config."""

from mobilenet_common.layers.attention import ChannelAttention, MobileAttention
from mobilenet_common.layers.convolution import ConvNormActivation
from mobilenet_common.layers.inverted import DepthwiseSeparable, FusedInvertedBottleneck, InvertedResidual
from mobilenet_common.layers.normalization import NormActivation
from mobilenet_common.layers.regularization import DropPath, LayerScale
from mobilenet_common.layers.resizing import Resize
from mobilenet_common.layers.squeeze_excite import SqueezeExcite
from mobilenet_common.layers.universal import UniversalInvertedBottleneck

__all__ = [
    "ChannelAttention",
    "ConvNormActivation",
    "DepthwiseSeparable",
    "DropPath",
    "FusedInvertedBottleneck",
    "InvertedResidual",
    "LayerScale",
    "MobileAttention",
    "NormActivation",
    "Resize",
    "SqueezeExcite",
    "UniversalInvertedBottleneck",
]
