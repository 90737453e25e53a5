"""Grad-CAM heatmaps of classifiers (Selvaraju et al., 2017, section 3), for all Keras backends."""

import contextlib
import dataclasses
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from mobilenet_common.errors import ArgumentError, is_integer, unknown_name
from mobilenet_common.nesting import all_layers, last_layer
from mobilenet_common.types import ImageLike
from mobilenet_runtime.evaluation.overlays import photograph_overlay
from mobilenet_runtime.images import open_image
from mobilenet_runtime.inputs import as_model_input
from mobilenet_runtime.transform import Preprocessing
from mobilenet_zoo.locks import lock_of
from mobilenet_zoo.model_preprocessing import preprocessing
from mobilenet_zoo.pretrained import class_names_of

if TYPE_CHECKING:
    from PIL import Image

_POOLS = (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Result of `explain` for one image.

    Attributes:
        class_index: Index of the explained class.
        probability: Probability of that class according to the model.
        heat: Array `(rows, columns)` in float32 with the resolution of the last feature map and values in 0..1; all 0
            if no part of the image supports the class.
        image: The resized and cropped image that the model saw, a PIL image.
        overlay: The original photograph, upright, with the heat drawn on the part that the model saw and the rest
            dimmed; a PIL image of at most 2048 pixels a side.
    """

    class_index: int
    probability: float
    heat: np.ndarray
    image: "Image.Image"
    overlay: "Image.Image"


def explain(
    model: keras.Model,
    image: ImageLike,
    class_index: int | str | None = None,
    *,
    transform: Preprocessing | None = None,
) -> Explanation:
    """Return a Grad-CAM heatmap of the parts of an image that support a class.

    Args:
        model: A classifier of this library, or another classifier with a global pool after its last feature map. The
            body can be a nested model.
        image: A path, a PIL image, an array `(height, width[, channels])` of pixels in 0..255, the bytes of an image
            file, or an open file.
        class_index: Index of the class, or one of the class names that the model was saved with; None for the most
            likely class.
        transform: The `Preprocessing` of the image; None for `mobilenet_zoo.preprocessing(model)`.

    Returns:
        An `Explanation`.

    Raises:
        ValueError: The model has no global pool, or doesn't have the class.
        ImageError: The image can't be read.
    """
    transform = transform or preprocessing(model)
    image = open_image(image, transform.channels)  # Open the image once, because a stream can't be read twice.
    classes = None if class_index is None else [_class_index(class_index, model)]
    with lock_of(model):
        (heat,), (logits,) = grad_cam(model, transform(image)[None], classes)
        index = int(logits.argmax()) if classes is None else classes[0]
        probability = _probability(model, logits, index)
    overlay = photograph_overlay(image, heat, transform)
    return Explanation(index, probability, scaled(heat), transform.pixels(image), overlay)


def grad_cam(
    model: keras.Model, images: Any, classes: Sequence[int] | np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the Grad-CAM maps of a batch of images.

    A map is the positive part of the weighted sum of the last feature map's channels. The weight of a channel is the
    mean gradient of the class's logit with respect to that channel.

    Args:
        model: A classifier, as for `explain`.
        images: A batch in the model's data format: `(batch, height, width, channels)`, or channels first. Floats are
            normalized values. Integers are pixels in 0..255, which are normalized for models of this library.
        classes: One class index for each image, `(batch,)`; None for the most likely class of each image.

    Returns:
        `(maps, logits)`, both float32: maps of shape `(batch, rows, columns)`, at least 0 and not scaled, and logits of
        shape `(batch, classes)`.

    Raises:
        ValueError: The model has no global pool, or doesn't have one of the classes.

    Warns:
        MobileNetWarning: Float images are outside the range that the model takes. The warning is given once per model.
    """
    pool = _pool(model)
    count, outputs = len(images), model.output_shape[-1]
    classes = None if classes is None else np.asarray(classes)
    if classes is not None and (classes.shape != (count,) or ((classes < 0) | (classes >= outputs)).any()):
        raise ArgumentError(
            f"classes={classes.tolist()} is not allowed: pass one class in 0..{outputs - 1} for each of the {count} "
            "images."
        )

    def score(logits):
        chosen = keras.ops.argmax(logits, axis=-1) if classes is None else classes
        return keras.ops.sum(keras.ops.cast(logits, "float32") * keras.ops.one_hot(chosen, outputs))

    images = _as_input(images, model)
    # Only this thread sees the replaced attributes, so other threads can call the model at the same time.
    with lock_of(model), _logits_of(last_layer(model)):
        tensors = _GRADIENTS[keras.backend.backend()](model, pool, keras.ops.convert_to_tensor(images), score)
    maps, gradients, logits = map(_numpy, tensors)
    if pool.data_format == "channels_first":
        maps, gradients = (np.moveaxis(array, 1, -1) for array in (maps, gradients))
    weights = gradients.mean((1, 2), keepdims=True)  # equation 1
    return np.maximum((weights * maps).sum(-1), 0), logits  # equation 2


def scaled(heat):
    """Return a map divided by its largest value; a map of zeros is returned unchanged."""
    return heat / heat.max() if heat.max() > 0 else heat


def _as_input(images, model):
    """Return images as normalized floats. Without a known preprocessing, images are returned unchanged."""
    try:
        transform = preprocessing(model)
    except ArgumentError:
        return images
    return as_model_input(keras.ops.convert_to_numpy(images), transform, model, model.name)


def _tensorflow_gradients(model, pool, images, score):
    """Return the input of the pool, the gradients of the score with respect to it, and the logits."""
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:

        def watch(x):
            tape.watch(x)
            return x

        with _tapped(pool, watch) as seen:
            logits = model(images, training=False)
        value = score(logits)
    return seen[-1], tape.gradient(value, seen[-1]), logits


def _jax_gradients(model, pool, images, score):
    import jax

    state = [
        [variable.value for variable in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    ]

    # The gradient with respect to zeros that are added to the pool's input is the gradient with respect to that input.
    def run(added, images, state):
        with _tapped(pool, lambda x: x if added is None else x + added) as seen:
            logits, _ = model.stateless_call(*state, images, training=False)
        return score(logits), (seen[-1], logits)

    _, (maps, _) = jax.eval_shape(lambda *arguments: run(None, *arguments), images, state)
    gradients, (maps, logits) = jax.jit(jax.grad(run, has_aux=True))(
        jax.numpy.zeros(maps.shape, maps.dtype), images, state
    )
    return maps, gradients, logits


def _torch_gradients(model, pool, images, score):
    import torch

    with torch.enable_grad(), _tapped(pool, lambda x: x.detach().requires_grad_()) as seen:
        logits = model(images, training=False)
        (gradients,) = torch.autograd.grad(score(logits), seen[-1])
    return seen[-1], gradients, logits


_GRADIENTS = {"tensorflow": _tensorflow_gradients, "jax": _jax_gradients, "torch": _torch_gradients}


@contextlib.contextmanager
def _tapped(pool, tap):
    """Apply `tap` to the pool's input while the context is active; yield the list of values that `tap` returns."""
    seen, call = [], pool.call

    def tapped(x, *args, **kwargs):
        seen.append(tap(x))
        return call(seen[-1], *args, **kwargs)

    with _replaced(pool, "call", tapped, call):
        yield seen


def _logits_of(layer):
    """Return a context in which the model's last layer returns logits instead of probabilities."""
    if isinstance(layer, keras.layers.Softmax):
        return _replaced(layer, "call", lambda x, *args, **kwargs: x, layer.call)
    if getattr(layer, "activation", None) not in (None, keras.activations.linear):
        return _replaced(layer, "activation", keras.activations.linear, layer.activation)
    return contextlib.nullcontext()


@contextlib.contextmanager
def _replaced(layer, name, replacement, original):
    """Replace a layer's attribute `name`, in this thread and while the context is active.

    Keras has no hooks for the inputs and outputs of a layer, so this sets the attribute itself, in `vars(layer)`, to
    bypass Keras's tracking.

    Args:
        layer: A Keras layer.
        name: Name of an attribute that is a function.
        replacement: Function that this thread calls.
        original: Function that all other threads call.
    """
    attributes, thread = vars(layer), threading.get_ident()
    previous = attributes.get(name)

    def dispatch(*args, **kwargs):
        return (replacement if threading.get_ident() == thread else original)(*args, **kwargs)

    attributes[name] = dispatch
    try:
        yield
    finally:
        if previous is None:
            del attributes[name]
        else:
            attributes[name] = previous


def _pool(model):
    """Return the last global pool, which can be in a nested model."""
    layers = all_layers(model) if isinstance(model, keras.Model) else ()
    pools = [layer for layer in layers if isinstance(layer, _POOLS)]
    output = getattr(model, "output_shape", None)
    if not pools or not isinstance(output, tuple) or len(output) != 2:
        raise ArgumentError(
            f"{getattr(model, 'name', model)!r} can't be explained: Grad-CAM needs a classifier with one output of "
            "shape (batch, classes) and a global average or max pool after the last feature map. Build the model with "
            "include_top=True, or use GlobalAveragePooling2D instead of Flatten before your own head."
        )
    return pools[-1]


def _class_index(class_index, model):
    names, classes = class_names_of(model), model.output_shape[-1]
    if isinstance(class_index, str):
        if names is None:
            raise ArgumentError(
                f"class_index={class_index!r} is not allowed: {model.name} has no class names. Pass an index in "
                f"0..{classes - 1}."
            )
        if class_index not in names:
            raise unknown_name("class_index", class_index, names)
        return names.index(class_index)
    if not is_integer(class_index) or not 0 <= class_index < classes:
        raise ArgumentError(
            f"class_index={class_index!r} is not allowed: {model.name} has the classes 0..{classes - 1}."
        )
    return int(class_index)


def _probability(model, logits, index):
    activation = getattr(last_layer(model), "activation", None)
    if activation in (None, keras.activations.linear):
        activation = keras.activations.softmax
    return float(_numpy(activation(keras.ops.convert_to_tensor(logits[None])))[0, index])


def _numpy(tensor):
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32"))
