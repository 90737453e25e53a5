"""Attention products over positions (MobileNetV4) and over channels (the compact family)."""

from keras import ops

from mobilenet_common.ops.formulations import fastest
from mobilenet_common.ops.formulations.keras_default import as_float32
from mobilenet_common.ops.layout import join_shape, split_shape


def spatial_attention(query, key, value, *, heads, multi_query, data_format, dropout=None):
    """Return scaled dot-product attention between the positions of feature maps.

    With `multi_query`, all heads of the query share one key and one value (Shazeer, 2019), as in MobileNetV4 (Qin et
    al., 2024, section 4). The height and width can have any size, can be unknown, and can differ between query and key.

    Args:
        query: Tensor of shape `(batch, height, width, heads * key_size)`, or channels first.
        key: Tensor of shape `(batch, rows, columns, key_size)`, or channels first. Without `multi_query`, it has
            `heads * key_size` channels.
        value: Tensor like `key`, with `value_size` in place of `key_size`.
        heads: Number of heads.
        multi_query: Whether the heads share key and value.
        data_format: Data format of all arguments and of the output.
        dropout: Function to apply to the attention weights, or None.

    Returns:
        Tensor of shape `(batch, height, width, heads * value_size)`, or channels first.
    """
    batch, height, width, _ = split_shape(ops.shape(query), data_format)
    kv_heads = 1 if multi_query else heads
    query = _split_heads(query, heads, data_format)
    key = _split_heads(key, kv_heads, data_format)
    value = _split_heads(value, kv_heads, data_format)
    if multi_query:
        # Treat the heads as positions of a single head: one matrix product replaces `heads` small ones.
        query = ops.reshape(query, (batch, 1, heads * height * width, query.shape[-1]))
    y = fastest("attend", data_format)(query, key, value, dropout)
    y = ops.reshape(y, (batch, heads, height, width, value.shape[-1]))
    order = (0, 2, 3, 1, 4) if data_format == "channels_last" else (0, 1, 4, 2, 3)
    shape = join_shape(batch, height, width, heads * value.shape[-1], data_format)
    return ops.reshape(ops.transpose(y, order), shape)


def channel_attention(query, key, value, *, heads, data_format):
    """Return attention between the channels of each head, without scaling.

    The output is `softmax(Q Kᵀ) V`, where Q, K and V are matrices of channels × positions. The cost grows only linearly
    with the number of positions. All three arguments and the output have the shape `(batch, height, width, channels)`,
    or channels first, where `channels` is a multiple of `heads`.
    """
    batch, height, width, channels = split_shape(ops.shape(query), data_format)
    query, key, value = (_split_heads(x, heads, data_format) for x in (query, key, value))
    # The unscaled sum over the positions could overflow in float16. bfloat16 has too few digits for the softmax.
    weights = ops.matmul(ops.transpose(as_float32(query), (0, 1, 3, 2)), as_float32(key))  # channels x channels
    weights = ops.cast(ops.softmax(weights), value.dtype)
    y = ops.matmul(value, ops.transpose(weights, (0, 1, 3, 2)))  # positions x channels
    y = ops.reshape(y, (batch, heads, height, width, channels // heads))
    order = (0, 2, 3, 1, 4) if data_format == "channels_last" else (0, 1, 4, 2, 3)
    return ops.reshape(ops.transpose(y, order), join_shape(batch, height, width, channels, data_format))


def _split_heads(x, heads, data_format):
    """Return `x` in the shape `(batch, heads, positions, channels per head)`."""
    batch, height, width, channels = split_shape(ops.shape(x), data_format)
    size = channels // heads
    if data_format == "channels_last":
        return ops.transpose(ops.reshape(x, (batch, height * width, heads, size)), (0, 2, 1, 3))
    return ops.transpose(ops.reshape(x, (batch, heads, size, height * width)), (0, 1, 3, 2))
