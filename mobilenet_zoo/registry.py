"""Every model by one name: timm's where timm has one, else a name of the same scheme."""

import inspect
from typing import Any

import keras

import mobilenet_v1
import mobilenet_v2
import mobilenet_v3
import mobilenet_v4
from mobilenet_common.checkpoints import check_name, is_named, open_weights
from mobilenet_common.create import fitting
from mobilenet_common.errors import ArgumentError, number, unknown_name
from mobilenet_common.foreign import check_arguments, explains_arguments, without_hub
from mobilenet_zoo.names import WEIGHTS, Entry, matching, registry

__all__ = ["GENERATIONS", "WEIGHTS", "Entry", "create_model", "is_timm_name", "list_models", "registry"]

GENERATIONS = {
    "v1": (mobilenet_v1.create_mobilenetv1, mobilenet_v1.VARIANTS, mobilenet_v1.WEIGHTS),
    "v2": (mobilenet_v2.create_mobilenetv2, mobilenet_v2.VARIANTS, mobilenet_v2.WEIGHTS),
    "v3": (mobilenet_v3.create_mobilenetv3, mobilenet_v3.VARIANTS, mobilenet_v3.WEIGHTS),
    "v4": (mobilenet_v4.create_mobilenetv4, mobilenet_v4.VARIANTS, mobilenet_v4.WEIGHTS),
}


def is_timm_name(name: str) -> bool:
    """Return whether timm has a model of this name."""
    return name in registry() and bool(registry()[name].options)


def list_models(pattern: str = "*", pretrained: bool = False) -> list[str]:
    """Return the names that `create_model` knows, sorted.

    Args:
        pattern: As in a shell: `"*v4*"`, `"mobilenetv2_???"`. One without `*`, `?` and `[` matches anywhere in a name.
            Case is ignored.
        pretrained: Whether to list published weights instead, by model and tag:
            `"mobilenetv4_conv_small.e2400_r224_in1k"`.

    >>> list_models("mobilenetv4_hybrid*")  # doctest: +NORMALIZE_WHITESPACE
    ['mobilenetv4_hybrid_large', 'mobilenetv4_hybrid_large_075', 'mobilenetv4_hybrid_medium',
     'mobilenetv4_hybrid_medium_075']
    """
    if not isinstance(pattern, str):
        raise ArgumentError(f'pattern={pattern!r} is not allowed: it must be a string, such as "*v4*".')
    return matching(WEIGHTS if pretrained else registry(), pattern)


def check_weights_of(name: Any, weights: Any) -> None:
    """Raise the `ValueError` for `weights` that `create_model(name, weights=weights)` can't have, before any are read.

    A `name` that is none of a model here says nothing about weights.
    """
    base = without_hub(name).partition(".")[0] if isinstance(name, str) else name
    if base in registry():
        check_name(weights, *_offered(base, weights, registry()[base].width))


def _offered(name, weights, width):
    """Return the published weights that `weights` may mean, and whether one of them fits the model's width."""
    entry = registry()[name]
    _, variants, published = GENERATIONS[entry.generation]
    own = {key: value for key, value in published.items() if key.startswith(f"{name}.")}
    return own if is_named(weights, own) else published, fitting(entry.architecture, width, variants)


@explains_arguments
def create_model(name: str, **kwargs: Any) -> keras.Model:
    """Build a model by its name in timm, or by ours where timm has none.

    A timm name brings timm's padding and epsilon: PyTorch's, and TensorFlow's for names that start with `tf_`. The
    other names build what the generation's create function builds. Weights from elsewhere than timm bring their own.

    Args:
        name: One of `list_models()`, such as `"mobilenetv4_conv_small_050"`; or one of
            `list_models(pretrained=True)`, such as `"mobilenetv4_conv_small.e2400_r224_in1k"`, which loads those
            weights, unless `weights` says otherwise. As in timm there may be `timm/` or `hf-hub:timm/` before it.
        **kwargs: Arguments of the create functions, such as `num_classes`, `input_shape`, `include_top`, `weights`;
            they go before what the name brings. `width_multiplier` multiplies the name's own width. Under
            `weights="imagenet"` or a tag, weights of this very name go before others that would fit.

    Returns:
        A functional `keras.Model`; see `create_mobilenetv4` and its siblings.

    Raises:
        ValueError: An unknown name; the message has the nearest ones. And what the create functions raise.
        TypeError: An unknown argument; the message says what those of other libraries are called here.
    """
    name = without_hub(name)
    base, _, tag = name.partition(".") if isinstance(name, str) else (name, "", "")
    entries = registry()
    if base not in entries:
        raise unknown_name("name", base, entries, "mobilenet_zoo.list_models()")
    if tag and name.partition("@")[0] not in WEIGHTS:
        raise unknown_name("name", name, [weight for weight in WEIGHTS if weight.startswith(f"{base}.")] or [base])
    if "variant" in kwargs:
        raise ArgumentError("variant is not an argument of create_model: the name says it.")
    entry, options = entries[base], entries[base].options
    check_arguments("create_model", kwargs, inspect.signature(entry.create).parameters)
    width = entry.width * number("width_multiplier", kwargs.pop("width_multiplier", 1.0), 0, 4, low_open=True)
    weights = kwargs.pop("weights", name if tag else None)
    if weights is not None:
        weights: Any = open_weights(weights, *_offered(base, weights, width), kwargs.get("include_top", True))
        if weights.checkpoint or weights.recorded or weights.layout.name != "timm":  # timm's own file knows less
            options = {**options, **weights.conventions(entry.architecture)}
    return entry.create(entry.architecture, width_multiplier=width, weights=weights, **{**options, **kwargs})
