"""Errors for argument names of timm, keras.applications and torchvision, with this library's equivalents."""

import difflib
import enum
import functools
import inspect
import typing
from typing import Any, cast

from mobilenet_common.errors import ArgumentError, UnknownArgumentError, did_you_mean, plain_value

_F = typing.TypeVar("_F", bound=typing.Callable)


def _same(name):
    return lambda value: f"pass {name}={value!r}"


def _without_classifier(value):
    if value in ("avg", "max"):
        return (
            f"pass include_top=False, pooling={value!r} for a vector; "
            "models with a classifier always use average pooling"
        )
    return "pass include_top=False for the feature map; models with a classifier always use average pooling"


def _levels(value):
    try:
        levels = tuple(int(index) + 1 for index in value)
    except (TypeError, ValueError):
        levels = (1, 2, 3, 4, 5)
    return f"pass include_top=False, pyramid_levels={levels!r}, where level n has stride 2 ** n"


def _padding(value):
    return f"pass padding={'same' if value == 'same' else 'symmetric'!r}"


# {argument: (library that has it, function of its value that returns the advice)}
ARGUMENTS = {
    "model_name": ("timm", lambda value: f"pass the name first, create_model({value!r})"),
    "pretrained": (
        "timm",
        lambda value: 'pass weights="imagenet"' if value else "leave it out: weights=None is the default",
    ),
    "checkpoint_path": ("timm", _same("weights")),
    "pretrained_cfg": ("timm", lambda value: "pass weights= with a tag or a file"),
    "in_chans": ("timm", lambda value: f"pass input_shape=(224, 224, {value!r})"),
    "img_size": ("timm", lambda value: f"pass input_shape=({value!r}, {value!r}, 3)"),
    "drop_rate": ("timm", _same("dropout_rate")),
    "global_pool": ("timm", _without_classifier),
    "features_only": ("timm", lambda value: _levels(range(5)) if value else "leave it out"),
    "out_indices": ("timm", _levels),
    "scriptable": ("timm", lambda value: "leave it out, and export with mobilenet_zoo.export"),
    "exportable": ("timm", lambda value: "leave it out, and export with mobilenet_zoo.export"),
    "act_layer": ("timm", lambda value: f"pass activation={value!r}" if isinstance(value, str) else "pass activation="),
    "bn_eps": ("timm", _same("norm_epsilon")),
    "bn_momentum": (
        "timm",
        lambda value: f"pass norm_momentum={1 - value:g}, the fraction of the old value that is kept",
    ),
    "pad_type": ("timm", _padding),
    "alpha": ("keras.applications", _same("width_multiplier")),
    "depth_multiplier": ("keras.applications", lambda value: "leave it out: only 1 is supported"),
    "minimalistic": (
        "keras.applications",
        lambda value: 'pass variant="large_minimalistic" or "small_minimalistic"' if value else "leave it out",
    ),
    "classes": ("keras.applications", _same("num_classes")),
    "dropout": ("keras.applications", _same("dropout_rate")),
    "width_mult": ("torchvision", _same("width_multiplier")),
    "norm_layer": ("torchvision", lambda value: 'pass normalization="batch", "group" or "layer", and norm_epsilon'),
    "progress": ("torchvision", lambda value: "leave it out"),
}

# torchvision's names of weights, and this library's.
_WEIGHTS = {"DEFAULT": "imagenet", "IMAGENET1K_V1": "tv_v1_in1k", "IMAGENET1K_V2": "tv_v2_in1k"}

_HUB = ("hf://", "hf-hub:", "hf_hub:")


def explains_arguments(function: _F) -> _F:
    """Wrap `function` so that its errors for unknown arguments name this library's equivalent or similar arguments.

    The wrapper has the signature and the docstring of `function`.
    """
    parameters = inspect.signature(function).parameters
    positional = [name for name, parameter in parameters.items() if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    takes_options = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())

    @functools.wraps(function)
    def wrapper(*arguments, **options):
        if len(arguments) > len(positional):
            raise UnknownArgumentError(
                f"{function.__name__}() takes only {', '.join(positional)} by position, got {len(arguments)} "
                "positional arguments: pass others by name, such as weights='imagenet' instead of timm's pretrained."
            )
        known = dict.fromkeys(parameters, None) | (
            dict.fromkeys(options.keys() - ARGUMENTS.keys()) if takes_options else {}
        )
        check_arguments(function.__name__, options, known)
        return function(*arguments, **options)

    return cast(_F, wrapper)


def check_arguments(function, options, known):
    """Raise a `TypeError` for the first unknown argument; the message says what to pass instead.

    Args:
        function: Name of the function.
        options: `{argument: value}` that the function was called with.
        known: Names of the function's arguments.
    """
    for name, value in options.items():
        if name in known:
            continue
        if name in ARGUMENTS:
            library, advice = ARGUMENTS[name]
            raise UnknownArgumentError(
                f"{function}() has no argument {name!r}, which is {library}'s: {advice(plain_value(value))}."
            )
        matches = difflib.get_close_matches(name.lower(), [*known, *ARGUMENTS], n=1, cutoff=0.8)
        if matches and matches[0] not in known:
            library, advice = ARGUMENTS[matches[0]]
            hint = f" Did you mean {matches[0]!r}? That is {library}'s: {advice(plain_value(value))}."
        else:
            hint = did_you_mean(name, known)
        raise UnknownArgumentError(f"{function}() has no argument {name!r}.{hint} Allowed: {', '.join(known)}.")


def check_weights(weights: Any) -> None:
    """Raise a `ValueError` for timm's and torchvision's values of `weights`; the message says what to pass instead."""
    if isinstance(weights, bool):
        instead = '"imagenet"' if weights else "None"
        raise ArgumentError(f"weights={weights!r} is not allowed: pass weights={instead}.")
    name = weights.name if isinstance(weights, enum.Enum) else weights
    if isinstance(name, str) and name in _WEIGHTS:
        raise ArgumentError(
            f"weights={str(weights)!r} is torchvision's name: pass weights={_WEIGHTS[name]!r}"
            + ("." if name == "DEFAULT" else ', or weights="imagenet" for the most accurate ones.')
        )


def without_hub(name: str) -> str:
    """Return a name without its Hugging Face Hub prefix, such as `"hf-hub:timm/"` or `"timm/"`."""
    return repository_of(name).removeprefix("timm/") if isinstance(name, str) else name


def repository_of(name):
    """Return a repository without `"hf-hub:"`, `"hf_hub:"` or `"hf://"` before it, such as `"user/name"`."""
    for prefix in _HUB:
        name = name.removeprefix(prefix)
    return name
