"""The universal inverted bottleneck of MobileNetV4."""

from typing import Any

import keras

from mobilenet_common.errors import ArgumentError, flag, integer, odd_kernel
from mobilenet_common.layers.block import Block


@keras.saving.register_keras_serializable(package="mobilenet")
class UniversalInvertedBottleneck(Block):
    """Inverted bottleneck with optional depthwise convolutions (UIB; Qin et al., 2024, section 3).

    depthwise `start` → pointwise expansion → depthwise `middle` → linear pointwise projection → depthwise `end`.
    In the paper, `start` and `middle` are both optional, which gives four blocks:

    | block         | start | middle |
    |---------------|-------|--------|
    | IB            |       | ✓      |
    | ConvNext-like | ✓     |        |
    | ExtraDW       | ✓     | ✓      |
    | FFN           |       |        |

    With `linear=True`, only the expansion and the middle convolution have an activation. The stride is applied by the
    middle convolution; without one, by the start convolution; without either, by the end convolution.

    Input: `(batch, height, width, channels)`, or channels first. Output: `(batch, ceil(height / strides),
    ceil(width / strides), filters)`, or channels first.

    Args:
        filters: Number of output channels.
        expanded_filters: Number of channels of the expansion.
        start_kernel_size: Kernel size of the depthwise convolution before the expansion, odd. 0 or None: no such
            convolution.
        middle_kernel_size: Kernel size of the depthwise convolution after the expansion, odd. 0 or None: no such
            convolution.
        strides: Stride of the block, 1 or 2.
        end_kernel_size: Kernel size of the depthwise convolution after the projection, odd. 0 or None: no such
            convolution, as in all published variants.
        linear: Whether start, projection and end have no activation, as in the paper. The compact family uses False.
        **kwargs: Arguments of `Block`.

    Raises:
        ValueError: If a kernel size is even, or if `strides` is 2 and there is no depthwise convolution.
    """

    def __init__(
        self,
        filters: int,
        expanded_filters: int | None,
        start_kernel_size: int | None = None,
        middle_kernel_size: int | None = 3,
        strides: int = 1,
        *,
        end_kernel_size: int | None = None,
        linear: bool = True,
        **kwargs: Any,
    ):
        super().__init__(filters, strides, **kwargs)
        self.expanded_filters = integer("expanded_filters", expanded_filters, 1)
        self.start_kernel_size = odd_kernel("start_kernel_size", start_kernel_size, zero_is_none=True)
        self.middle_kernel_size = odd_kernel("middle_kernel_size", middle_kernel_size, zero_is_none=True)
        self.end_kernel_size = odd_kernel("end_kernel_size", end_kernel_size, zero_is_none=True)
        self.linear = flag("linear", linear)
        strided = next((name for name in ("middle", "start", "end") if getattr(self, f"{name}_kernel_size")), None)
        if self.strides > 1 and strided is None:
            raise ArgumentError(
                f"strides={strides} needs a depthwise convolution to apply the stride: "
                "pass start_kernel_size, middle_kernel_size or end_kernel_size."
            )
        outer = None if self.linear else self.activation
        self.start = self._depthwise("start", strided, activation=outer)
        self.expand = self._convolution("expand", expanded_filters)
        self.middle = self._depthwise("middle", strided, activation=self.activation)
        self.project = self._convolution("project", filters, activation=outer)
        self.end = self._depthwise("end", strided, activation=outer)

    def _depthwise(self, name, strided, activation):
        kernel_size = getattr(self, f"{name}_kernel_size")
        if kernel_size is None:
            return None
        strides = self.strides if name == strided else 1
        return self._convolution(
            name, None, kernel_size, strides, dilation_rate=self.dilation_rate, activation=activation
        )

    def _steps(self):
        path = (self.start, self.expand, self.middle, self.project, self.end, self.layer_scale)
        return [layer for layer in path if layer is not None]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "expanded_filters": self.expanded_filters,
            "start_kernel_size": self.start_kernel_size,
            "middle_kernel_size": self.middle_kernel_size,
            "end_kernel_size": self.end_kernel_size,
            "linear": self.linear,
        }
