"""The blocks of MobileNet V1, V2 and V3, and the fused bottleneck that opens V4."""

from typing import Any

import keras

from mobilenet_common.errors import flag, integer, odd_kernel
from mobilenet_common.layers.block import Block
from mobilenet_common.layers.squeeze_excite import SqueezeExcite
from mobilenet_common.types import Activation


@keras.saving.register_keras_serializable(package="mobilenet")
class DepthwiseSeparable(Block):
    """Depthwise convolution, then a pointwise one, both normalized and activated (Howard et al., 2017, section 3.1).

    Input: `(batch, height, width, in)` or channels first. Output: `(batch, ceil(height / strides),
    ceil(width / strides), filters)` or channels first. V1 has no shortcut round it, so here it is off by default.

    Args:
        filters: Output channels.
        kernel_size: Of the depthwise convolution, odd.
        strides: Of the depthwise convolution, 1 or 2.
        **kwargs: See `Block`.
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
    """Pointwise expansion, depthwise convolution, linear pointwise projection (Sandler et al., 2018, section 3.3).

    MobileNetV3 adds squeeze-and-excitation after the depthwise convolution (Howard et al., 2019, section 5.3).
    Input: `(batch, height, width, in)` or channels first. Output: `(batch, ceil(height / strides),
    ceil(width / strides), filters)` or channels first.

    Args:
        filters: Output channels.
        expanded_filters: Channels of the depthwise convolution; None for the input's own, without an expansion.
        kernel_size: Of the depthwise convolution, odd.
        strides: Of the depthwise convolution, 1 or 2.
        squeeze_filters: Channels inside squeeze-and-excitation; None for none.
        squeeze_activation, squeeze_gate: See `SqueezeExcite`.
        **kwargs: See `Block`.
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
    """One dense convolution in place of expansion and depthwise, then a linear projection (FusedIB).

    From EfficientNet-EdgeTPU; the first stage of MobileNetV4 (Qin et al., 2024, section 3 and appendix D).
    Input: `(batch, height, width, in)` or channels first. Output: `(batch, ceil(height / strides),
    ceil(width / strides), filters)` or channels first.

    Args:
        filters: Output channels.
        expanded_filters: Channels between the two convolutions.
        kernel_size: Of the first convolution, odd.
        strides: Of the first convolution, 1 or 2.
        linear: Whether the projection has no activation, as published; the compact family activates it.
        **kwargs: See `Block`.
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
