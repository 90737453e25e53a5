"""The universal inverted bottleneck of MobileNetV4."""

from typing import Any

import keras

from mobilenet_common.errors import ArgumentError, flag, integer, odd_kernel
from mobilenet_common.layers.block import Block


@keras.saving.register_keras_serializable(package="mobilenet")
class UniversalInvertedBottleneck(Block):
    """An inverted bottleneck with optional depthwise convolutions around it (Qin et al., 2024, section 3).

    depthwise `start` → pointwise expansion → depthwise `middle` → linear pointwise projection → depthwise `end`.
    The two kernels of the paper give its four shapes:

    | shape         | start | middle |
    |---------------|-------|--------|
    | IB            |       | ✓      |
    | ConvNext-like | ✓     |        |
    | ExtraDW       | ✓     | ✓      |
    | FFN           |       |        |

    Only the expansion and the middle depthwise convolution are activated. The stride is the middle convolution's,
    else the start's, else the end's.

    Input: `(batch, height, width, in)` or channels first. Output: `(batch, ceil(height / strides),
    ceil(width / strides), filters)` or channels first.

    Args:
        filters: Output channels.
        expanded_filters: Channels of the expansion.
        start_kernel_size: Of the depthwise convolution before the expansion, odd; 0 or None for none.
        middle_kernel_size: Of the one after it; 0 or None for none.
        strides: 1 or 2.
        end_kernel_size: Of one after the projection, which published variants don't use; 0 or None for none.
        linear: Whether start, projection and end have no activation, as published; the compact family activates them.
        **kwargs: See `Block`.

    Raises:
        ValueError: An even kernel size, or strides without a depthwise convolution that could stride.
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
        strider = next((place for place in ("middle", "start", "end") if getattr(self, f"{place}_kernel_size")), None)
        if self.strides > 1 and strider is None:
            raise ArgumentError(
                f"strides={strides} needs a depthwise convolution that can stride: "
                "give start_kernel_size, middle_kernel_size or end_kernel_size."
            )
        outer = None if self.linear else self.activation
        self.start = self._depthwise("start", strider, activation=outer)
        self.expand = self._convolution("expand", expanded_filters)
        self.middle = self._depthwise("middle", strider, activation=self.activation)
        self.project = self._convolution("project", filters, activation=outer)
        self.end = self._depthwise("end", strider, activation=outer)

    def _depthwise(self, place, strider, activation):
        kernel_size = getattr(self, f"{place}_kernel_size")
        if kernel_size is None:
            return None
        strides = self.strides if place == strider else 1
        return self._convolution(
            place, None, kernel_size, strides, dilation_rate=self.dilation_rate, activation=activation
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
