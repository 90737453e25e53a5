"""All models by name: timm's name if timm has the model, else a name in the same scheme."""

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
        pattern: A shell pattern, such as `"*v4*"` or `"mobilenetv2_???"`. A pattern without `*`, `?` and `[` matches
            anywhere in a name. Case is ignored.
        pretrained: Whether to return the names of published weights (`model.tag`) instead, such as
            `"mobilenetv4_conv_small.e2400_r224_in1k"`.

    >>> list_models("mobilenetv4_hybrid*")  # doctest: +NORMALIZE_WHITESPACE
    ['mobilenetv4_hybrid_large', 'mobilenetv4_hybrid_large_075', 'mobilenetv4_hybrid_medium',
     'mobilenetv4_hybrid_medium_075']
    """
    if not isinstance(pattern, str):
        raise ArgumentError(f'pattern={pattern!r} is not allowed: it must be a string, such as "*v4*".')
    return matching(WEIGHTS if pretrained else registry(), pattern)


def check_weights_of(name: Any, weights: Any) -> None:
    """Check the `weights` of `create_model(name, weights=weights)` without downloading or reading them.

    Any weights pass if `name` isn't the name of a model.

    Raises:
        ValueError: The model can't load these weights.
    """
    base = without_hub(name).partition(".")[0] if isinstance(name, str) else name
    if base in registry():
        check_name(weights, *_offered(base, weights, registry()[base].width))


def _offered(name, weights, width):
    """Return the published weights that `weights` can select, and a function that checks whether one of them fits."""
    entry = registry()[name]
    _, variants, published = GENERATIONS[entry.generation]
    same_name = {key: value for key, value in published.items() if key.startswith(f"{name}.")}
    return same_name if is_named(weights, same_name) else published, fitting(entry.architecture, width, variants)


@explains_arguments
def create_model(name: str, **kwargs: Any) -> keras.Model:
    """Build a model by its timm name, or by this library's name if timm doesn't have the model.

    A timm name sets the padding and epsilon of timm's model: those of PyTorch, or of TensorFlow for names that start
    with `tf_`. Other names use the defaults of the generation's create function. Weights from libraries
    other than timm set their own padding and epsilon.

    Args:
        name: A name from `list_models()`, such as `"mobilenetv4_conv_small_050"`, or a name from
            `list_models(pretrained=True)`, such as `"mobilenetv4_conv_small.e2400_r224_in1k"`, which also loads these
            weights unless you pass `weights`. The prefixes `timm/` and `hf-hub:timm/` are allowed, as in timm.
        **kwargs: Arguments of the create functions, such as `num_classes`, `input_shape`, `include_top` and `weights`.
            They override the settings of the name, except `width_multiplier`, which multiplies the width of the name.
            With `weights="imagenet"` or a tag, weights of the model `name` are preferred to other weights that fit.

    Returns:
        A functional `keras.Model`; see `create_mobilenetv1` to `create_mobilenetv4`.

    Raises:
        ValueError: The name is unknown (the message suggests similar names), or an argument of the create function is
            wrong.
        TypeError: An argument is unknown. For arguments of other libraries, the message names the equivalent in this
            library.
    """
    name = without_hub(name)
    base, _, tag = name.partition(".") if isinstance(name, str) else (name, "", "")
    entries = registry()
    if base not in entries:
        raise unknown_name("name", base, entries, "mobilenet_zoo.list_models()")
    if tag and name.partition("@")[0] not in WEIGHTS:
        raise unknown_name("name", name, [weight for weight in WEIGHTS if weight.startswith(f"{base}.")] or [base])
    if "variant" in kwargs:
        raise ArgumentError("variant is not an argument of create_model: name selects the variant.")
    entry, options = entries[base], entries[base].options
    check_arguments("create_model", kwargs, inspect.signature(entry.create).parameters)
    width = entry.width * number("width_multiplier", kwargs.pop("width_multiplier", 1.0), 0, 4, low_open=True)
    weights = kwargs.pop("weights", name if tag else None)
    if weights is not None:
        weights: Any = open_weights(weights, *_offered(base, weights, width), kwargs.get("include_top", True))
        # An unpublished file in timm's layout doesn't determine padding and epsilon, so the name does.
        if weights.checkpoint or weights.recorded or weights.layout.name != "timm":
            options = {**options, **weights.conventions(entry.architecture)}
    return entry.create(entry.architecture, width_multiplier=width, weights=weights, **{**options, **kwargs})
