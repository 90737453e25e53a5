"""The attention products of the two families that have them."""

from keras import ops

from mobilenet_common.ops.formulations import fastest
from mobilenet_common.ops.formulations.keras_default import as_float32
from mobilenet_common.ops.layout import join_shape, split_shape


def spatial_attention(query, key, value, *, heads, multi_query, data_format, dropout=None):
    """Return scaled dot-product attention between the positions of feature maps.

    With `multi_query` all heads of the query share one key and one value (Shazeer, 2019), which is what MobileNetV4
    uses (Qin et al., 2024, section 4). Any height and width work, known or not, and they may differ between query
    and key.

    Args:
        query: `(batch, height, width, heads * key_size)`, or channels first.
        key: `(batch, rows, columns, key_size)`, or `heads * key_size` channels without `multi_query`.
        value: As `key`, with `value_size` in place of `key_size`.
        heads: Number of heads.
        multi_query: Whether key and value are shared by the heads.
        data_format: Of all three and of the result.
        dropout: A function applied to the attention weights, or None.

    Returns:
        `(batch, height, width, heads * value_size)`, or channels first.
    """
    batch, height, width, _ = split_shape(ops.shape(query), data_format)
    kv_heads = 1 if multi_query else heads
    query = _split_heads(query, heads, data_format)
    key = _split_heads(key, kv_heads, data_format)
    value = _split_heads(value, kv_heads, data_format)
    if multi_query:
        # The heads become further positions of a single head: one matrix product instead of `heads` small ones.
        query = ops.reshape(query, (batch, 1, heads * height * width, query.shape[-1]))
    y = fastest("attend", data_format)(query, key, value, dropout)
    y = ops.reshape(y, (batch, heads, height, width, value.shape[-1]))
    order = (0, 2, 3, 1, 4) if data_format == "channels_last" else (0, 1, 4, 2, 3)
    shape = join_shape(batch, height, width, heads * value.shape[-1], data_format)
    return ops.reshape(ops.transpose(y, order), shape)


def channel_attention(query, key, value, *, heads, data_format):
    """Return attention between the channels of each head, without scaling.

    It is `softmax(Q Kᵀ) V` with Q, K, V channels × positions, and its cost grows with the positions only linearly. All
    arguments and the result are `(batch, height, width, channels)`, or channels first, with `channels` a multiple of
    `heads`.
    """
    batch, height, width, channels = split_shape(ops.shape(query), data_format)
    query, key, value = (_split_heads(x, heads, data_format) for x in (query, key, value))
    # The sum over the positions is not scaled: float16 would overflow, bfloat16 keeps too few digits for a softmax.
    weights = ops.matmul(ops.transpose(as_float32(query), (0, 1, 3, 2)), as_float32(key))  # channels x channels
    weights = ops.cast(ops.softmax(weights), value.dtype)
    y = ops.matmul(value, ops.transpose(weights, (0, 1, 3, 2)))  # positions x channels
    y = ops.reshape(y, (batch, heads, height, width, channels // heads))
    order = (0, 2, 3, 1, 4) if data_format == "channels_last" else (0, 1, 4, 2, 3)
    return ops.reshape(ops.transpose(y, order), join_shape(batch, height, width, channels, data_format))


def _split_heads(x, heads, data_format):
    """Return `(batch, heads, positions, channels of a head)`."""
    batch, height, width, channels = split_shape(ops.shape(x), data_format)
    size = channels // heads
    if data_format == "channels_last":
        return ops.transpose(ops.reshape(x, (batch, height * width, heads, size)), (0, 2, 1, 3))
    return ops.transpose(ops.reshape(x, (batch, heads, size, height * width)), (0, 1, 3, 2))
