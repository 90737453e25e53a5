"""Inference of the compact family in NumPy and float64, written from its formulas and its tensors' names.

It shares no code with the library. The tests compare it with the outputs of the original implementation, and use it as
the reference for models without recorded outputs: attention that halves its feature map, output strides, custom sizes.
"""

import re

import numpy as np

EPSILON = 1e-5
CHANNELS_PER_GROUP = 8


def logits(state, image, heads, output_stride=None):
    """Return the logits of one channels-last `image`.

    Args:
        state: Tensors as `{name: tensor}`, in PyTorch's layouts and with the names of the original implementation.
        image: Array of shape `(1, height, width, channels)`.
        heads: Number of attention heads.
        output_stride: Largest total stride of the feature maps. Dilation replaces all further strides.
    """
    state = {name: np.asarray(value, "float64") for name, value in state.items()}
    x = np.asarray(image[0], "float64")
    strides = _Strides(output_stride)
    for prefix, kind in _blocks(state):
        x = _BLOCKS[kind](_Block(state, prefix, kind), x, strides, heads)
    x = _dense(state, "classificator.2.", x.mean((0, 1)))
    mean, variance = (state[f"classificator.3.running_{name}"] for name in ("mean", "var"))
    x = (x - mean) / np.sqrt(variance + EPSILON)
    x = _silu(x * state["classificator.3.weight"] + state["classificator.3.bias"])
    return _dense(state, "classificator.6.", x)


def attention(block, x, stride, dilation, heads):
    """Apply attention between the channels of each head.

    The input `x` has the shape `(height, width, channels)`. `block` holds the tensors under the names of the original
    implementation.
    """
    query, key, value = (convolve(x, *block.kernel(f"{name}_conv")) for name in ("query", "key", "value"))
    if block.has("downsample_query"):
        query = convolve(query, *block.kernel("downsample_query"), stride, dilation)
        key, value = (convolve(y, *block.kernel("downsample_kv"), stride, dilation) for y in (key, value))
    height, width, channels = query.shape
    query, key, value = (y.reshape(height * width, heads, channels // heads) for y in (query, key, value))
    scores = np.einsum("phc,phd->hcd", query, key)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("hcd,phd->phc", weights, value).reshape(height, width, channels)


def convolve(x, kernel, bias=None, stride=1, dilation=1):
    """Convolve `x` of shape `(height, width, in)` with an OIHW kernel, padded equally on both sides."""
    outputs, inputs, rows, columns = kernel.shape
    depthwise = inputs == 1 and outputs == x.shape[-1] > 1
    padding = [dilation * (size - 1) // 2 for size in (rows, columns)]
    padded = np.pad(x, [(padding[0], padding[0]), (padding[1], padding[1]), (0, 0)])
    height, width = (-(-size // stride) for size in x.shape[:2])
    y = np.zeros((height, width, outputs))
    for i in range(rows):
        for j in range(columns):
            top, left = i * dilation, j * dilation
            tap = padded[top : top + stride * height : stride, left : left + stride * width : stride]
            tap = tap[:height, :width]
            y += tap * kernel[:, 0, i, j] if depthwise else tap @ kernel[:, :, i, j].T
    return y if bias is None else y + bias


class _Strides:
    """Strides and dilation rates of successive blocks under an output stride."""

    def __init__(self, output_stride):
        self.limit = output_stride or np.inf
        self.total_stride = self.dilation = 1

    def take(self, stride):
        """Return `(stride, dilation)` of the next block, whose published stride is `stride`."""
        dilation = self.dilation
        if stride == 1:
            return 1, dilation
        if self.total_stride * stride > self.limit:
            self.dilation *= stride
            return 1, dilation
        self.total_stride *= stride
        return stride, dilation


class _Block:
    """Tensors of one block."""

    def __init__(self, state, prefix, kind):
        self.state, self.prefix, self.kind = state, prefix, kind

    def has(self, name):
        return f"{self.prefix}{name}.weight" in self.state

    def kernel(self, name):
        """Return the kernel and, if it exists, the bias."""
        return [self.state[key] for part in ("weight", "bias") if (key := f"{self.prefix}{name}.{part}") in self.state]

    def sequence(self, x, strides, dilation):
        """Apply convolution, group norm and SiLU (layers 0, 1 and 2, then 3, 4 and 5, and so on) for each stride."""
        for i, stride in enumerate(strides):
            x = convolve(x, *self.kernel(f"{self.kind}.{3 * i}"), stride=stride, dilation=dilation)
            x = _silu(_group_norm(x, *self.kernel(f"{self.kind}.{3 * i + 1}")))
        return x


def _blocks(state):
    """Return `(prefix, kind)` of every block, in order."""
    blocks = {}
    for name in state:
        match = re.match(r"features\.(\d+)\.(\d+)\.([a-z_A-Z]+)", name)
        if match:
            kind = "attention" if match[3].endswith(("_conv", "_query", "_kv")) else match[3]
            blocks[int(match[1]), int(match[2])] = (f"features.{match[1]}.{match[2]}.", kind)
    return [blocks[position] for position in sorted(blocks)]


def _stem(block, x, strides, heads):
    return block.sequence(x, [1], 1)


def _fused(block, x, strides, heads):
    stride, dilation = strides.take(2)
    return block.sequence(x, [stride, 1], dilation)


def _universal(block, x, strides, heads):
    _, dilation = strides.take(1)
    return block.sequence(x, [1] * (3 if block.kind == "uib" else 4), dilation)


def _squeeze_excite(block, x, strides, heads):
    squeezed = _silu(convolve(x.mean((0, 1), keepdims=True), *block.kernel("SE.1")))
    return x / (1 + np.exp(-convolve(squeezed, *block.kernel("SE.3"))))


def _attention(block, x, strides, heads):
    stride, dilation = strides.take(2 if block.has("downsample_query") else 1)
    return attention(block, x, stride, dilation, heads)


def _group_norm(x, gamma, beta):
    height, width, channels = x.shape
    groups = x.reshape(height, width, -1, CHANNELS_PER_GROUP)
    mean, variance = (f(groups, axis=(0, 1, 3), keepdims=True) for f in (np.mean, np.var))
    return ((groups - mean) / np.sqrt(variance + EPSILON)).reshape(x.shape) * gamma + beta


def _silu(x):
    return x / (1 + np.exp(-x))


def _dense(state, prefix, x):
    return state[f"{prefix}weight"] @ x + state[f"{prefix}bias"]


_BLOCKS = {
    "stem": _stem,
    "fused_ib": _fused,
    "uib": _universal,
    "extra_dw": _universal,
    "SE": _squeeze_excite,
    "attention": _attention,
}
