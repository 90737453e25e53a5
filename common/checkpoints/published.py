"""Resolves the argument `weights`: the name or tag of published weights, `"imagenet"` for the best ones, or a file."""

import dataclasses
import os
from pathlib import Path

from mobilenet_common.catalog import IMAGENET_1K, Checkpoint
from mobilenet_common.checkpoints.download import discard, download
from mobilenet_common.checkpoints.files import READERS
from mobilenet_common.checkpoints.image_facts import identify
from mobilenet_common.checkpoints.named_tensors import StateDict
from mobilenet_common.errors import ArgumentError, CheckpointError, unknown_name
from mobilenet_common.foreign import check_weights, without_hub

IMAGENET = "imagenet"


def open_weights(weights, published, fits, include_top=True):
    """Return the `StateDict` for a create function's `weights`, downloaded if necessary; None if `weights` is None.

    Args:
        weights: Value of the create function's argument, or an open `StateDict`. A file is treated as published weights
            if it has their name and they fit the architecture.
        published: `WEIGHTS` of the generation.
        fits: Function that returns whether a `Checkpoint` fits the architecture that is being built.
        include_top: Whether the classifier is needed.

    Raises:
        ValueError: If the weights aren't published, or not for this architecture.
        CheckpointError: If a file can't be downloaded or read.
    """
    if weights is None:
        return None
    if isinstance(weights, Checkpoint):
        weights = weights.name
    check_weights(weights)
    if isinstance(weights, str) and without_hub(weights).partition("@")[0] in published:
        weights = without_hub(weights)
    if not isinstance(weights, str) or _looks_like_a_file(weights):
        state = weights if isinstance(weights, StateDict) else StateDict.open(weights)
        fitting = {name: checkpoint for name, checkpoint in published.items() if fits(checkpoint)}
        return dataclasses.replace(state, checkpoint=state.checkpoint or identify(state, fitting))
    name, _, revision = weights.partition("@")
    return fetch(find(name, published, fits), include_top, revision or None)


def check_name(weights, published, fits):
    """Raise the error that `open_weights` would raise for an unknown name or file, without a download."""
    check_weights(weights)
    if not isinstance(weights, (str, os.PathLike)):
        return
    name = without_hub(weights).partition("@")[0] if isinstance(weights, str) else weights
    if name in published or (isinstance(name, str) and not _looks_like_a_file(weights)):
        find(name, published, fits)
    elif not Path(weights).is_file():
        raise CheckpointError(f"{weights} is not a file: pass the path of a checkpoint.")


def is_named(weights, published):
    """Return whether `weights` is `"imagenet"` or a name or tag in `published`, with or without a revision."""
    if not published or not isinstance(weights, str):
        return False
    name = without_hub(weights).partition("@")[0]
    return name == IMAGENET or name in published or any(checkpoint.tag == name for checkpoint in published.values())


def find(name, published, fits):
    """Return the `Checkpoint` for `name`: a full name, a tag, or `"imagenet"` for the best one that fits."""
    fitting = [checkpoint for checkpoint in published.values() if fits(checkpoint)]
    if name == IMAGENET:
        scored = [checkpoint for checkpoint in fitting if checkpoint.labels == IMAGENET_1K]
        if scored:
            return max(scored, key=lambda checkpoint: checkpoint.best.top1)
    elif name in published:
        if published[name] in fitting:
            return published[name]
    elif is_named(name, published):
        tagged = [checkpoint for checkpoint in fitting if checkpoint.tag == name]
        if tagged:
            return tagged[0]
    else:
        allowed = fitting or published.values()
        names = dict.fromkeys(
            [*(checkpoint.tag for checkpoint in allowed), *(checkpoint.name for checkpoint in allowed)]
        )
        raise unknown_name("weights", name, [IMAGENET, *names], "mobilenet_zoo.list_models(pretrained=True)")
    available = _availability(name, published)
    raise ArgumentError(f"weights={name!r} is not published for this variant and width. {available}")


def fetch(checkpoint, include_top=True, revision=None):
    """Return the `StateDict` of a published checkpoint; a file that can't be read is downloaded once more."""
    path = download(checkpoint, include_top, revision)
    try:
        state = StateDict.open(path, checkpoint.source)
    except CheckpointError:
        discard(path)
        path = download(checkpoint, include_top, revision)
        state = StateDict.open(path, checkpoint.source)
    return dataclasses.replace(state, source=f"{checkpoint.name} ({path})", checkpoint=checkpoint)


def _looks_like_a_file(weights):
    return os.path.sep in weights or Path(weights).suffix in READERS or Path(weights).is_file()


def _availability(name, published):
    """Return a sentence that lists the variants and widths with such weights."""
    matches = [checkpoint for checkpoint in published.values() if name in (IMAGENET, checkpoint.tag, checkpoint.name)]
    models = dict.fromkeys((checkpoint.variant, checkpoint.width) for checkpoint in matches)
    texts = [f"{variant!r}" + ("" if width == 1 else f" with width_multiplier={width:g}") for variant, width in models]
    return f"Available for: {', '.join(texts)}." if texts else "No variant of this generation has published weights."
