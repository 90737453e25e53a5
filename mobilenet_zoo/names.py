"""The names of all models, as data: timm's name if timm has the model, else a name in the same scheme.

This module doesn't import Keras, so that the command line can list models without it.
"""

import dataclasses
import fnmatch
import functools
import importlib
import os
from pathlib import Path

from mobilenet_common.architecture import Architecture, model_name
from mobilenet_common.conventions import of_timm
from mobilenet_common.errors import ArgumentError, did_you_mean
from mobilenet_common.foreign import repository_of, without_hub
from mobilenet_common.types import PathLike
from mobilenet_v1 import architectures as v1
from mobilenet_v1 import weights as v1_weights
from mobilenet_v2 import architectures as v2
from mobilenet_v2 import weights as v2_weights
from mobilenet_v3 import architectures as v3
from mobilenet_v3 import weights as v3_weights
from mobilenet_v4 import architectures as v4
from mobilenet_v4 import weights as v4_weights

VARIANTS = {"v1": v1.VARIANTS, "v2": v2.VARIANTS, "v3": v3.VARIANTS, "v4": v4.VARIANTS}

# All published checkpoints of the four generations.
WEIGHTS = {**v1_weights.WEIGHTS, **v2_weights.WEIGHTS, **v3_weights.WEIGHTS, **v4_weights.WEIGHTS}

# Widths for which timm has a separate name, in addition to the widths of the variants.
_EXTRA_WIDTHS = {
    ("v3", "large"): (0.75,),
    ("v3", "small"): (0.75, 0.5),
    ("v4", "conv_small"): (0.35, 0.5),
    ("v4", "hybrid_medium"): (0.75,),
    ("v4", "hybrid_large"): (0.75,),
}

# Models of this library whose names follow timm's scheme, but that timm doesn't have.
_NOT_IN_TIMM = ("mobilenetv1_025", "mobilenetv1_050", "mobilenetv1_075", "mobilenetv2_130")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A named model, which `create(architecture, width_multiplier=width, **options)` builds.

    Attributes:
        generation: `"v1"`, `"v2"`, `"v3"` or `"v4"`.
        architecture: The `Architecture` of the variant.
        width: The width multiplier.
        options: Padding and epsilon of timm's model, as arguments of `create`; empty if timm has no such model.
    """

    generation: str
    architecture: Architecture
    width: float
    options: dict

    @property
    def create(self):
        """The create function of the generation. Accessing it imports Keras."""
        return getattr(importlib.import_module(f"mobilenet_{self.generation}"), f"create_mobilenet{self.generation}")


@functools.cache
def registry():
    """Return `{name: Entry}` of all models, ordered by generation."""
    entries = {}
    for generation, variants in VARIANTS.items():
        for variant, architecture in variants.items():
            for width in (1.0, *_EXTRA_WIDTHS.get((generation, variant), ())):
                name = model_name(architecture, width)
                entries[name] = Entry(generation, architecture, width, _timm_options(name))
                if generation == "v3" and variant not in ("large_1.5d", "large_rw") and width != 0.5:
                    name = f"tf_{name}"
                    entries[name] = Entry(generation, architecture, width, of_timm(name).options)
    return entries


def _timm_options(name):
    if name in _NOT_IN_TIMM or "compact" in name or "minimal" in name:
        return {}
    return of_timm(name).options


def matching(names, pattern):
    """Return the names that match a shell pattern, sorted.

    A pattern without `*`, `?` and `[` matches anywhere in a name.
    """
    pattern = without_hub(pattern).lower()
    if not any(character in pattern for character in "*?["):
        pattern = f"*{pattern}*"
    return sorted(fnmatch.filter(names, pattern))


def check_model(argument: str, name: PathLike) -> None:
    """Check that `name` can refer to a model, before anything slow starts.

    Args:
        argument: Name of the argument that is checked, for the error message.
        name: A name from `list_models`, with or without a tag, a `.keras` file, a folder, or a repository on the
            Hugging Face Hub.

    Raises:
        ValueError: `name` can't refer to a model.
    """
    name, path = os.fspath(name), Path(name)
    if path.is_dir() or (path.is_file() and path.suffix == ".keras"):
        return
    if path.is_file():
        raise ArgumentError(
            f"{argument}={name!r} is a file that doesn't describe a model: pass a .keras file, or load weights into a "
            "named model (mobilenet_zoo.create_model(..., weights=...), or mobilenet-zoo convert)."
        )
    if path.suffix == ".keras":
        raise ArgumentError(f"{argument}={name!r} does not exist.")
    if without_hub(name).partition("@")[0] not in (*registry(), *WEIGHTS) and not is_repository(name):
        raise unknown_model(argument, name)


def unknown_model(argument, name):
    """Return the `ValueError` for a `name` that isn't a model; its message suggests similar names."""
    return ArgumentError(
        f"{argument}={name!r} is not an existing folder, a model name, or a repository (user/name)."
        f"{did_you_mean(without_hub(name), [*registry(), *WEIGHTS])} To list all models, run "
        "mobilenet-zoo list or call mobilenet_zoo.list_models()."
    )


def is_repository(name: str) -> bool:
    """Return whether a name can be a repository on the Hugging Face Hub, with or without a prefix such as `hf://`.

    timm's repositories are excluded, because those that contain MobileNets are all in `WEIGHTS`.
    """
    user, _, rest = repository_of(name).partition("@")[0].partition("/")
    is_path = {user, rest} & {".", "..", "~"}
    return bool(user and rest) and "/" not in rest and user != "timm" and not is_path
