"""Determines how the training images of a checkpoint's weights were prepared, from its name, layout and file."""

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

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # names of the weights file in repositories on the hub
_HUB_CACHE = "models--timm--"
_MOST_BYTES = 1 << 20  # size limit of a configuration file
_DEFAULTS = {
    "keras": Facts(interpolation="bilinear", mean=HALF[0], std=HALF[1]),
    "huggingface": Facts(interpolation="bilinear", mean=HALF[0], std=HALF[1]),
    "torchvision": Facts(interpolation="bilinear", mean=IMAGENET[0], std=IMAGENET[1]),
}


def identify(state, published=PUBLISHED):
    """Return the published `Checkpoint` that `state` was read from, identified by file and folder names, or None.

    Files of torchvision and keras.applications have unique names. timm's weights are identified by the name of their
    repository: the file, its folder, or a folder in the Hugging Face Hub's cache must have this name.
    """
    path = Path(state.source)
    folders = [path.parent.name] if path.name in _HUB_FILES else []
    folders += [part.removeprefix(_HUB_CACHE) for part in path.parts if part.startswith(_HUB_CACHE)]
    for checkpoint in published.values():
        if checkpoint.source != state.layout.name or state.num_classes not in (None, checkpoint.num_classes):
            continue  # Whatever the file is called, it doesn't contain these weights.
        if checkpoint.source == TIMM:
            is_match = checkpoint.name in (path.stem, *folders)
        else:
            stems = [Path(name).stem for name in (checkpoint.file, checkpoint.no_top_file) if name]
            is_match = path.stem in stems
        if is_match:
            return checkpoint
    return None


def image_facts(state, name, padding, norm_epsilon):
    """Return the `Facts` of a checkpoint's training images, or None for this library's defaults.

    Args:
        state: The `StateDict`.
        name: Name of the model that the checkpoint is loaded into, in timm's scheme, without a tag.
        padding: Padding of the model. Padding and epsilon distinguish timm's `tf_` models, whose images were prepared
            differently, from its other models.
        norm_epsilon: Epsilon of the model's normalizations.
    """
    checkpoint = state.checkpoint or identify(state)
    if checkpoint is not None:
        return Facts.of_checkpoint(checkpoint)
    path = Path(state.source)
    recorded = _recorded(path)
    if recorded is not None:
        return recorded
    layout = state.layout.name
    if layout == "native" and layer_configs(path):  # A saved model without a record uses the defaults.
        return None
    if layout == "timm":
        return _timm_config(path) or _timm_facts(name, padding, norm_epsilon, path.name)
    return _DEFAULTS.get(layout) or Facts(assumed=f"{path.name} does not record how its images were prepared")


def header_of(model):
    """Return the `{key: text}` that the header of a `.safetensors` file records about a model and its images."""
    header = {"image_facts": json.dumps((facts_of(model) or Facts()).as_config())}
    stem = stem_of(model)
    if hasattr(stem, "padding") and hasattr(stem, "norm_epsilon"):
        header |= {"padding": stem.padding, "norm_epsilon": str(stem.norm_epsilon)}
    return header


def note_image_facts(model, state):
    """Attach the facts about the training images of `state` to the model that `state` was loaded into.

    Assumed facts don't replace known ones, and the class names stay. If the model contains a normalization of images,
    it doesn't change; a warning is issued if the weights need a different one.
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
    current = normalization_inside(model)
    if current is None:
        return
    expected = [for_channels(values, len(current[0])) for values in (facts.mean, facts.std)]
    if facts.assumed is None and not np.allclose(current, expected, rtol=0, atol=1e-4):
        warn(
            f"{model.name} normalizes images itself, with a mean of {_format(current[0])} and a standard deviation of "
            f"{_format(current[1])}, but the weights of {state.source} were trained with {_format(expected[0])} and "
            f"{_format(expected[1])}: build the model with weights= and include_preprocessing=True instead."
        )


def _format(values):
    return f"({', '.join(f'{value:.4g}' for value in values)})"


def _recorded(path):
    """Return the facts that this library recorded in a file, or None."""
    try:
        config = own_options(path).get("image_facts")
        return None if config is None else Facts.from_config(config)
    except (OSError, ValueError):
        return None


def _timm_config(path):
    """Return the facts in the `config.json` that timm saves next to its weights, or None."""
    file = path.with_name("config.json")
    if path.name not in _HUB_FILES or not file.is_file() or file.stat().st_size > _MOST_BYTES:
        return None
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        config = record.get("pretrained_cfg", record)  # Older files have all keys at the top level.
        channels, height, width = config["input_size"]
        return Facts.from_config(
            {
                "size": (height, width),
                "crop": config["crop_pct"],
                "interpolation": config["interpolation"],
                "mean": config["mean"],
                "std": config["std"],
            }
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _timm_facts(name, padding, norm_epsilon, file):
    """Return the facts that timm's published weights of a model share; assumed facts if they differ or don't exist."""
    candidates = [
        checkpoint for checkpoint in PUBLISHED.values() if checkpoint.source == TIMM and _plain_name(checkpoint) == name
    ]
    matches = [candidate for candidate in candidates if candidate.convention == Convention(padding, norm_epsilon)]
    candidates = matches or candidates
    if len({(checkpoint.mean, checkpoint.std, checkpoint.interpolation) for checkpoint in candidates}) == 1:
        crop = statistics.mode(checkpoint.evaluations[0].crop for checkpoint in candidates)
        return Facts(None, crop, candidates[0].interpolation, candidates[0].mean, candidates[0].std)
    assumed = f"{file} does not record how its images were prepared, and timm's MobileNets differ in this"
    return Facts(mean=IMAGENET[0], std=IMAGENET[1], assumed=assumed)


def _plain_name(checkpoint):
    return checkpoint.name.partition(".")[0].removeprefix("tf_")
