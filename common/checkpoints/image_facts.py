"""How the images were prepared that a checkpoint's weights were trained on: what its name, layout and file tell."""

import dataclasses
import json
import statistics
from pathlib import Path

import numpy as np

from mobilenet_common.catalog import HALF, IMAGENET, PUBLISHED, TIMM
from mobilenet_common.checkpoints.files import own_options
from mobilenet_common.checkpoints.keras_files import layer_configs
from mobilenet_common.conventions import Convention
from mobilenet_common.facts import Facts, facts_of, remember
from mobilenet_common.inputs import for_channels, normalization_inside
from mobilenet_common.nesting import stem_of
from mobilenet_common.notices import warn

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # a folder of the Hugging Face Hub has its weights in one
_HUB_CACHE = "models--timm--"
_MOST_BYTES = 1 << 20  # of a file that only describes
_USUAL = {
    "keras": Facts(interpolation="bilinear", mean=HALF[0], std=HALF[1]),
    "huggingface": Facts(interpolation="bilinear", mean=HALF[0], std=HALF[1]),
    "torchvision": Facts(interpolation="bilinear", mean=IMAGENET[0], std=IMAGENET[1]),
}


def identify(state, published=PUBLISHED):
    """Return the `Checkpoint` of `published` whose file `state` was read from, by the names of file and folder.

    torchvision's and Keras's files have names of their own; timm's are told by the name of the repository, as a file,
    a folder or in the Hugging Face Hub's cache.
    """
    path = Path(state.source)
    folders = [path.parent.name] if path.name in _HUB_FILES else []
    folders += [part.removeprefix(_HUB_CACHE) for part in path.parts if part.startswith(_HUB_CACHE)]
    for checkpoint in published.values():
        if checkpoint.source != state.layout.name or state.num_classes not in (None, checkpoint.num_classes):
            continue  # somebody's own weights under that name
        if checkpoint.source == TIMM:
            found = checkpoint.name in (path.stem, *folders)
        else:
            stems = [Path(name).stem for name in (checkpoint.file, checkpoint.no_top_file) if name]
            found = path.stem in stems
        if found:
            return checkpoint
    return None


def image_facts(state, name, padding, norm_epsilon):
    """Return the `Facts` of the images that a checkpoint's weights were trained on, or None for this library's usual.

    Args:
        state: The `StateDict`.
        name: Of the model that it is for, in timm's scheme, without a tag.
        padding: Of that model, and so is `norm_epsilon`: timm's `tf_` models have other ones, and take other images.
        norm_epsilon: See `padding`.
    """
    checkpoint = state.checkpoint or identify(state)
    if checkpoint is not None:
        return Facts.of_checkpoint(checkpoint)
    path = Path(state.source)
    recorded = _recorded(path)
    if recorded is not None:
        return recorded
    layout = state.layout.name
    if layout == "native" and layer_configs(path):  # a whole model, which would say if its images were other ones
        return None
    if layout == "timm":
        return _timm_config(path) or _timm_facts(name, padding, norm_epsilon, path.name)
    return _USUAL.get(layout) or Facts(assumed=f"{path.name} does not say how its images were prepared")


def header_of(model):
    """Return what the header of a `.safetensors` file says about a model and its images, `{key: text}`."""
    header = {"image_facts": json.dumps((facts_of(model) or Facts()).as_config())}
    stem = stem_of(model)
    if hasattr(stem, "padding") and hasattr(stem, "norm_epsilon"):
        header |= {"padding": stem.padding, "norm_epsilon": str(stem.norm_epsilon)}
    return header


def note_image_facts(model, state):
    """Keep what `state` tells about its images with a model that it was loaded into.

    A guess does not replace what is known, and the names of the classes stay. A model that normalizes inside keeps
    doing that as it was built; a warning says so if the weights need another way.
    """
    stem = stem_of(model)
    if not hasattr(stem, "image_facts"):
        return
    name = model.name.partition(".")[0].removeprefix("tf_")
    facts = image_facts(state, name, stem.padding, stem.norm_epsilon) or Facts()
    known = facts_of(model)
    if facts.assumed and known is not None and not known.assumed:
        return
    remember(model, dataclasses.replace(facts, class_names=known.class_names if known else None))
    inside = normalization_inside(model)
    if inside is None:
        return
    wanted = [for_channels(values, len(inside[0])) for values in (facts.mean, facts.std)]
    if facts.assumed is None and not np.allclose(inside, wanted, rtol=0, atol=1e-4):
        warn(
            f"{model.name} normalizes images inside, by a mean of {_shown(inside[0])} and a standard deviation of "
            f"{_shown(inside[1])}, but the weights of {state.source} were trained with {_shown(wanted[0])} and "
            f"{_shown(wanted[1])}: build the model with weights= and include_preprocessing=True instead."
        )


def _shown(values):
    return f"({', '.join(f'{value:.4g}' for value in values)})"


def _recorded(path):
    """Return the facts that this library has written into a file, whatever it is called, or None."""
    try:
        config = own_options(path).get("image_facts")
        return None if config is None else Facts.from_config(config)
    except (OSError, ValueError):
        return None


def _timm_config(path):
    """Return what `config.json` says that timm puts beside its weights, or None."""
    file = path.with_name("config.json")
    if path.name not in _HUB_FILES or not file.is_file() or file.stat().st_size > _MOST_BYTES:
        return None
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        given = record.get("pretrained_cfg", record)  # older ones have it all on one level
        channels, height, width = given["input_size"]
        return Facts.from_config(
            {
                "size": (height, width),
                "crop": given["crop_pct"],
                "interpolation": given["interpolation"],
                "mean": given["mean"],
                "std": given["std"],
            }
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _timm_facts(name, padding, norm_epsilon, file):
    """Return what timm's published weights of a model have in common; a guess where they differ or there are none."""
    own = [
        checkpoint for checkpoint in PUBLISHED.values() if checkpoint.source == TIMM and _plain_name(checkpoint) == name
    ]
    alike = [one for one in own if one.convention == Convention(padding, norm_epsilon)]
    own = alike or own
    if len({(checkpoint.mean, checkpoint.std, checkpoint.interpolation) for checkpoint in own}) == 1:
        crop = statistics.mode(checkpoint.evaluations[0].crop for checkpoint in own)
        return Facts(None, crop, own[0].interpolation, own[0].mean, own[0].std)
    assumed = f"{file} does not say how its images were prepared, and timm's MobileNets differ in it"
    return Facts(mean=IMAGENET[0], std=IMAGENET[1], assumed=assumed)


def _plain_name(checkpoint):
    return checkpoint.name.partition(".")[0].removeprefix("tf_")
