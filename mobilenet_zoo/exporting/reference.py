"""What the model itself computes, under the backend that runs here, in float32 or better."""

import functools

import keras
import numpy as np

from mobilenet_common.nesting import all_layers, as_functional
from mobilenet_common.ops.layout import join_shape, split_shape
from mobilenet_runtime.images import as_numpy
from mobilenet_zoo.exporting.prepared import block_outputs, data_format_of, ends_in_softmax, without_softmax


class Reference:
    """Answers of a model to images of one size, in NumPy, channels last.

    Args:
        model: A functional model.
        size: `(height, width)` of the images, which the model may have been built for or not.
        softmax: True or False for probabilities or logits; None for what the model gives.
    """

    def __init__(self, model, size, softmax=None):
        self.data_format = data_format_of(model)
        self.model = _of_size(model, size, self.data_format)
        self.softmax = softmax

    def __call__(self, images):
        """Return the outputs, in order."""
        gives_probabilities = ends_in_softmax(self.model)
        drops_softmax = gives_probabilities and self.softmax is False
        answers = self._run(without_softmax(self.model) if drops_softmax else self.model, images)
        if self.softmax and not gives_probabilities:
            answers = [softmax(answers[0])]
        return answers

    def block_outputs(self, images):
        """Return `{layer's name: its output}`, in order."""
        outputs = block_outputs(self.model)
        answers = self._run(keras.Model(self.model.inputs, list(outputs.values())), images)
        return dict(zip(outputs, answers, strict=True))

    def _run(self, model, images, batch_size=16):
        parts = []
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            if self.data_format == "channels_first":
                batch = np.ascontiguousarray(batch.transpose(0, 3, 1, 2))
            parts.append([self._channels_last(answer) for answer in _answers(model, batch)])
        return [np.concatenate(batches) for batches in zip(*parts, strict=True)]

    def _channels_last(self, answer):
        answer = as_numpy(answer).astype("float32")
        if answer.ndim == 4 and self.data_format == "channels_first":
            return answer.transpose(0, 2, 3, 1)
        return answer


def softmax(logits):
    """Return probabilities, along the last axis."""
    values = np.exp(logits - logits.max(-1, keepdims=True))
    return values / values.sum(-1, keepdims=True)


def _answers(model, batch):
    if keras.backend.backend() == "jax":  # operation by operation it would compile each
        outputs = model.predict_on_batch(batch)
        return outputs if isinstance(outputs, (list, tuple)) else [outputs]
    if keras.backend.backend() == "torch":
        import torch

        with torch.no_grad():
            return keras.tree.flatten(model(keras.ops.convert_to_tensor(batch), training=False))
    return keras.tree.flatten(model(keras.ops.convert_to_tensor(batch), training=False))


def _of_size(model, size, data_format):
    """Return `model`, or one with its weights that takes images of `size` and doesn't round to 16 bits on the way."""
    _, *own, channels = split_shape(model.inputs[0].shape, data_format)
    fits = all(n in (None, wanted) for n, wanted in zip(own, size, strict=True))
    if fits and not any(map(_is_half, [model, *all_layers(model)])):
        return model
    shape = join_shape(None, size[0], size[1], channels, data_format)
    image = keras.Input(batch_shape=shape, dtype="float32", name="image")
    other = keras.models.clone_model(model, image, clone_function=functools.cache(_copied))
    other.set_weights(model.get_weights())
    return other


def _is_half(layer):
    return layer.compute_dtype in ("float16", "bfloat16")


def _copied(layer):
    if isinstance(layer, keras.Model):
        return keras.models.clone_model(as_functional(layer, "export"), clone_function=functools.cache(_copied))
    config = layer.get_config()
    if isinstance(layer, keras.layers.Layer) and _is_half(layer):
        config["dtype"] = "float32"
    return layer.from_config(config)
