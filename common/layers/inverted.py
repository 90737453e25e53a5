"""Blocks of MobileNet V1, V2 and V3, and the fused bottleneck of V4's first stage."""

from typing import Any

import keras

from mobilenet_common.errors import flag, integer, odd_kernel
from mobilenet_common.layers.block import Block
from mobilenet_common.layers.squeeze_excite import SqueezeExcite
from mobilenet_common.types import Activation


@keras.saving.register_keras_serializable(package="mobilenet")
class DepthwiseSeparable(Block):
    """Depthwise and pointwise convolution, each with normalization and activation (Howard et al., 2017, section 3.1).

    V1 has no shortcuts, so `shortcut` is False by default.

    Input: `(batch, height, width, channels)`, or channels first. Output: `(batch, ceil(height / strides),
    ceil(width / strides), filters)`, or channels first.

    Args:
        filters: Number of output channels.
        kernel_size: Kernel size of the depthwise convolution, odd.
        strides: Stride of the depthwise convolution, 1 or 2.
        **kwargs: Arguments of `Block`.
    """

    def __init__(self, filters: int, kernel_size: int = 3, strides: int = 1, *, shortcut: bool = False, **kwargs: Any):
        super().__init__(filters, strides, shortcut=shortcut, **kwargs)
        self.kernel_size = odd_kernel("kernel_size", kernel_size)
        self.depthwise = self._convolution("depthwise", None, kernel_size, strides, dilation_rate=self.dilation_rate)
        self.project = self._convolution("project", filters)

    def _steps(self):
        return [layer for layer in (self.depthwise, self.project, self.layer_scale) if layer is not None]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
        }


@keras.saving.register_keras_serializable(package="mobilenet")
class InvertedResidual(Block):
    """Pointwise expansion, depthwise convolution and linear projection (Sandler et al., 2018, section 3.3).

    MobileNetV3 adds squeeze-and-excitation after the depthwise convolution (Howard et al., 2019, section 5.3).

    Input: `(batch, height, width, channels)`, or channels first. Output: `(batch, ceil(height / strides),
    ceil(width / strides), filters)`, or channels first.

    Args:
        filters: Number of output channels.
        expanded_filters: Number of channels after the expansion. None: no expansion, so the depthwise convolution has
            as many channels as the input.
        kernel_size: Kernel size of the depthwise convolution, odd.
        strides: Stride of the depthwise convolution, 1 or 2.
        squeeze_filters: Number of channels inside squeeze-and-excitation. None: no squeeze-and-excitation.
        squeeze_activation, squeeze_gate: Arguments `activation` and `gate` of `SqueezeExcite`.
        **kwargs: Arguments of `Block`.
    """

    def __init__(
        self,
        filters: int,
        expanded_filters: int | None,
        kernel_size: int = 3,
        strides: int = 1,
        *,
        squeeze_filters: int | None = None,
        squeeze_activation: Activation = "relu",
        squeeze_gate: Activation = "hard_sigmoid",
        **kwargs: Any,
    ):
        super().__init__(filters, strides, **kwargs)
        self.expanded_filters = None if expanded_filters is None else integer("expanded_filters", expanded_filters, 1)
        self.kernel_size = odd_kernel("kernel_size", kernel_size)
        self.squeeze_filters = None if squeeze_filters is None else integer("squeeze_filters", squeeze_filters, 1)
        self.squeeze_activation = keras.activations.get(squeeze_activation)
        self.squeeze_gate = keras.activations.get(squeeze_gate)
        self.expand = self.squeeze_excite = None
        if expanded_filters is not None:
            self.expand = self._convolution("expand", expanded_filters)
        self.depthwise = self._convolution("depthwise", None, kernel_size, strides, dilation_rate=self.dilation_rate)
        if squeeze_filters is not None:
            self.squeeze_excite = SqueezeExcite(
                squeeze_filters,
                activation=self.squeeze_activation,
                gate=self.squeeze_gate,
                data_format=self.data_format,
                dtype=self.dtype_policy,
                name="squeeze_excite",
            )
        self.project = self._convolution("project", filters, activation=None)

    def _steps(self):
        path = (self.expand, self.depthwise, self.squeeze_excite, self.project, self.layer_scale)
        return [layer for layer in path if layer is not None]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "expanded_filters": self.expanded_filters,
            "kernel_size": self.kernel_size,
            "squeeze_filters": self.squeeze_filters,
            "squeeze_activation": keras.activations.serialize(self.squeeze_activation),
            "squeeze_gate": keras.activations.serialize(self.squeeze_gate),
        }


@keras.saving.register_keras_serializable(package="mobilenet")
class FusedInvertedBottleneck(Block):
    """Full convolution in place of expansion and depthwise convolution, then a linear projection (FusedIB).

    The block comes from EfficientNet-EdgeTPU. Most variants of MobileNetV4 use it in their first stage (Qin et al.,
    2024, section 3 and appendix D).

    Input: `(batch, height, width, channels)`, or channels first. Output: `(batch, ceil(height / strides),
    ceil(width / strides), filters)`, or channels first.

    Args:
        filters: Number of output channels.
        expanded_filters: Number of channels between the two convolutions.
        kernel_size: Kernel size of the first convolution, odd.
        strides: Stride of the first convolution, 1 or 2.
        linear: Whether the projection has no activation, as in the paper. The compact family uses False.
        **kwargs: Arguments of `Block`.
    """

    def __init__(
        self,
        filters: int,
        expanded_filters: int | None,
        kernel_size: int = 3,
        strides: int = 1,
        *,
        linear: bool = True,
        **kwargs: Any,
    ):
        super().__init__(filters, strides, **kwargs)
        self.expanded_filters = integer("expanded_filters", expanded_filters, 1)
        self.kernel_size = odd_kernel("kernel_size", kernel_size)
        self.linear = flag("linear", linear)
        self.expand = self._convolution(
            "expand", expanded_filters, kernel_size, strides, dilation_rate=self.dilation_rate
        )
        self.project = self._convolution("project", filters, activation=None if self.linear else self.activation)

    def _steps(self):
        return [layer for layer in (self.expand, self.project, self.layer_scale) if layer is not None]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "expanded_filters": self.expanded_filters,
            "kernel_size": self.kernel_size,
            "linear": self.linear,
        }
