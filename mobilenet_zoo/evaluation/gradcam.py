"""Grad-CAM: where a classifier looks (Selvaraju et al., 2017, section 3), under every backend."""

import contextlib
import dataclasses
import threading
from collections.abc import Sequence
from typing import Any

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

_POOLS = (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What `explain` found out about one image.

    Attributes:
        class_index: The class that is explained.
        probability: Of that class, as the model gives it.
        heat: `(rows, columns)` float32 of the last feature map, in 0..1; all 0 where nothing speaks for the class.
        image: PIL image, as the model saw it: resized and cropped.
        overlay: PIL image, the photograph as it was given, upright, with the heat where the model looked and the rest
            dimmed; at most 2048 pixels a side.
    """

    class_index: int
    probability: float
    heat: np.ndarray
    image: object
    overlay: object


def explain(
    model: keras.Model, image: ImageLike, class_index: int | None = None, *, transform: Preprocessing | None = None
) -> Any:
    """Show which part of an image speaks for a class.

    Args:
        model: A classifier of this library, or another with a global pool over its last feature map; its body may be
            a layer of it.
        image: A path, a PIL image, an array `(height, width[, channels])` of pixels in 0..255, the bytes of an image
            file, or an open file.
        class_index: The class, as a number or as a name that the model was saved with; None for the likeliest.
        transform: A `Preprocessing`; None for `mobilenet_zoo.preprocessing(model)`.

    Returns:
        An `Explanation`.

    Raises:
        ValueError: The model has no feature map before a pool, or the class is none of its.
        ImageError: The image can't be read.
    """
    transform = transform or preprocessing(model)
    image = open_image(image, transform.channels)  # once, as a stream can't be read twice
    wanted = None if class_index is None else [_class_number(class_index, model)]
    with lock_of(model):
        (heat,), (logits,) = grad_cam(model, transform(image)[None], wanted)
        number = int(logits.argmax()) if wanted is None else wanted[0]
        probability = _probability(model, logits, number)
    shown = photograph_overlay(image, heat, transform)
    return Explanation(number, probability, scaled(heat), transform.pixels(image), shown)


def grad_cam(
    model: keras.Model, images: Any, classes: Sequence[int] | np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the maps of a batch: the last feature maps, summed with the mean gradients of a class's logit as weights.

    Args:
        model: As for `explain`.
        images: As the model takes them: `(batch, height, width, channels)`, or channels first. Integers are pixels in
            0..255, which are normalized for a model of this library.
        classes: `(batch,)` integers; None for the likeliest of each image.

    Returns:
        `(maps, logits)`: `(batch, rows, columns)` float32, at least 0 and not scaled, and `(batch, classes)` float32.

    Raises:
        ValueError: The model has no feature map before a pool, or a class is none of its.

    Warns:
        MobileNetWarning: The images' floats are not in the range that the model takes; once for a model.
    """
    pool = _pool(model)
    count, outputs = len(images), model.output_shape[-1]
    classes = None if classes is None else np.asarray(classes)
    if classes is not None and (classes.shape != (count,) or ((classes < 0) | (classes >= outputs)).any()):
        raise ArgumentError(
            f"classes={classes.tolist()} are not allowed: give one in 0..{outputs - 1} for each of the {count} images."
        )

    def score(logits):
        chosen = keras.ops.argmax(logits, axis=-1) if classes is None else classes
        return keras.ops.sum(keras.ops.cast(logits, "float32") * keras.ops.one_hot(chosen, outputs))

    images = _as_input(images, model)
    # Other threads may call the model meanwhile, whose layers compute for them what they always do.
    with lock_of(model), _logits_of(last_layer(model)):
        found = _GRADIENTS[keras.backend.backend()](model, pool, keras.ops.convert_to_tensor(images), score)
    maps, gradients, logits = map(_numpy, found)
    if pool.data_format == "channels_first":
        maps, gradients = (np.moveaxis(array, 1, -1) for array in (maps, gradients))
    weights = gradients.mean((1, 2), keepdims=True)  # equation 1
    return np.maximum((weights * maps).sum(-1), 0), logits  # equation 2


def scaled(heat):
    """Return a map with its largest value as 1, or all 0."""
    return heat / heat.max() if heat.max() > 0 else heat


def _as_input(images, model):
    """Return images as floats that the model takes; another library's model says nothing about that."""
    try:
        transform = preprocessing(model)
    except ArgumentError:
        return images
    return as_model_input(keras.ops.convert_to_numpy(images), transform, model, model.name)


def _tensorflow_gradients(model, pool, images, score):
    """Return what goes into the pool, the score's gradients by it, and the logits."""
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

    def run(added, images, state):
        with _tapped(pool, lambda x: x if added is None else x + added) as seen:
            logits, _ = model.stateless_call(*state, images, training=False)
        return score(logits), (seen[-1], logits)

    _, (maps, _) = jax.eval_shape(lambda *given: run(None, *given), images, state)
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
    """Pass the input of the pool through `tap` first; yield the list of its outputs."""
    seen, call = [], pool.call

    def tapped(x, *args, **kwargs):
        seen.append(tap(x))
        return call(seen[-1], *args, **kwargs)

    with _replaced(pool, "call", tapped, call):
        yield seen


def _logits_of(layer):
    """Let the model's last layer give logits in place of probabilities."""
    if isinstance(layer, keras.layers.Softmax):
        return _replaced(layer, "call", lambda x, *args, **kwargs: x, layer.call)
    if getattr(layer, "activation", None) not in (None, keras.activations.linear):
        return _replaced(layer, "activation", keras.activations.linear, layer.activation)
    return contextlib.nullcontext()


@contextlib.contextmanager
def _replaced(layer, name, function, usual):
    """Have a layer call `function` in place of `usual` for a while, in this thread alone.

    Sets the attribute past Keras's tracking, which has no hooks for what flows through a layer.
    """
    own, thread = vars(layer), threading.get_ident()
    before = own.get(name)

    def chosen(*args, **kwargs):
        return (function if threading.get_ident() == thread else usual)(*args, **kwargs)

    own[name] = chosen
    try:
        yield
    finally:
        if before is None:
            del own[name]
        else:
            own[name] = before


def _pool(model):
    """Return the last global pool, be it in a model within the model."""
    layers = all_layers(model) if isinstance(model, keras.Model) else ()
    pools = [layer for layer in layers if isinstance(layer, _POOLS)]
    output = getattr(model, "output_shape", None)
    if not pools or not isinstance(output, tuple) or len(output) != 2:
        raise ArgumentError(
            f"{getattr(model, 'name', model)!r} can't be explained: Grad-CAM needs a classifier, with one output of "
            "(batch, classes), and a global average or max pool over its last feature map. Flattened maps have no "
            "such pool: build the model with include_top=True, or put GlobalAveragePooling2D before a head of your own."
        )
    return pools[-1]


def _class_number(given, model):
    names, classes = class_names_of(model), model.output_shape[-1]
    if isinstance(given, str):
        if names is None:
            raise ArgumentError(f"class_index={given!r}: {model.name} has no names for its classes, give a number.")
        if given not in names:
            raise unknown_name("class_index", given, names)
        return names.index(given)
    if not is_integer(given) or not 0 <= given < classes:
        raise ArgumentError(f"class_index={given!r} is not allowed: {model.name} has the classes 0..{classes - 1}.")
    return int(given)


def _probability(model, logits, number):
    activation = getattr(last_layer(model), "activation", None)
    if activation in (None, keras.activations.linear):
        activation = keras.activations.softmax
    return float(_numpy(activation(keras.ops.convert_to_tensor(logits[None])))[0, number])


def _numpy(tensor):
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32"))
