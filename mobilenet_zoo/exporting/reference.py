"""Reference outputs of the Keras model, computed with the current backend in float32 or higher precision."""

import functools

import keras
import numpy as np

from mobilenet_common.nesting import all_layers, as_functional
from mobilenet_common.ops.layout import join_shape, split_shape
from mobilenet_runtime.images import as_numpy
from mobilenet_zoo.exporting.prepared import block_outputs, data_format_of, ends_in_softmax, without_softmax


class Reference:
    """Callable that returns a model's outputs for images of one size, as NumPy arrays, channels last.

    Args:
        model: Functional model.
        size: `(height, width)` of the images. It can differ from the size that the model was built for.
        softmax: Whether to return probabilities (True) or logits (False). None for the model's own output.
    """

    def __init__(self, model, size, softmax=None):
        self.data_format = data_format_of(model)
        self.model = _with_size(model, size, self.data_format)
        self.softmax = softmax

    def __call__(self, images):
        """Return the model's outputs for `images`, channels last, as a list of arrays."""
        has_softmax = ends_in_softmax(self.model)
        drops_softmax = has_softmax and self.softmax is False
        outputs = self._run(without_softmax(self.model) if drops_softmax else self.model, images)
        if self.softmax and not has_softmax:
            outputs = [softmax(outputs[0])]
        return outputs

    def block_outputs(self, images):
        """Return the output of every layer for `images`, as `{layer name: array}`, in the order of computation."""
        tensors = block_outputs(self.model)
        outputs = self._run(keras.Model(self.model.inputs, list(tensors.values())), images)
        return dict(zip(tensors, outputs, strict=True))

    def _run(self, model, images, batch_size=16):
        parts = []
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            if self.data_format == "channels_first":
                batch = np.ascontiguousarray(batch.transpose(0, 3, 1, 2))
            parts.append([self._channels_last(output) for output in _outputs(model, batch)])
        return [np.concatenate(batches) for batches in zip(*parts, strict=True)]

    def _channels_last(self, output):
        output = as_numpy(output).astype("float32")
        if output.ndim == 4 and self.data_format == "channels_first":
            return output.transpose(0, 2, 3, 1)
        return output


def softmax(logits):
    """Return the softmax of `logits` over the last axis."""
    values = np.exp(logits - logits.max(-1, keepdims=True))
    return values / values.sum(-1, keepdims=True)


def _outputs(model, batch):
    if keras.backend.backend() == "jax":  # A direct call would compile every operation separately.
        outputs = model.predict_on_batch(batch)
        return outputs if isinstance(outputs, (list, tuple)) else [outputs]
    if keras.backend.backend() == "torch":
        import torch

        with torch.no_grad():
            return keras.tree.flatten(model(keras.ops.convert_to_tensor(batch), training=False))
    return keras.tree.flatten(model(keras.ops.convert_to_tensor(batch), training=False))


def _with_size(model, size, data_format):
    """Return `model`, or a copy that takes images of `size` and computes in float32 instead of 16 bits."""
    _, *model_size, channels = split_shape(model.inputs[0].shape, data_format)
    fits = all(n in (None, expected) for n, expected in zip(model_size, size, strict=True))
    if fits and not any(map(_is_half_precision, [model, *all_layers(model)])):
        return model
    shape = join_shape(None, size[0], size[1], channels, data_format)
    image = keras.Input(batch_shape=shape, dtype="float32", name="image")
    copy = keras.models.clone_model(model, image, clone_function=functools.cache(_float32_copy))
    copy.set_weights(model.get_weights())
    return copy


def _is_half_precision(layer):
    return layer.compute_dtype in ("float16", "bfloat16")


def _float32_copy(layer):
    if isinstance(layer, keras.Model):
        return keras.models.clone_model(as_functional(layer, "export"), clone_function=functools.cache(_float32_copy))
    config = layer.get_config()
    if isinstance(layer, keras.layers.Layer) and _is_half_precision(layer):
        config["dtype"] = "float32"
    return layer.from_config(config)
