"""The way back to the library that the weights came from."""

from typing import Any

import keras

from mobilenet_common.checkpoints import state_dict, write
from mobilenet_common.checkpoints.image_facts import header_of
from mobilenet_common.checkpoints.layouts.base import part
from mobilenet_common.conventions import BY_LAYOUT, Convention
from mobilenet_common.notices import warn
from mobilenet_common.types import PathLike
from mobilenet_zoo.registry import is_timm_name, registry


def export_checkpoint(model: keras.Model, path: PathLike, layout: str = "timm") -> dict[str, Any]:
    """Write a model's weights as a file that another library loads, every number as it is.

    timm loads it with `strict=True`: a model that was trained here goes on in PyTorch. With the result of this function
    it builds the model that the weights belong to:

        arguments = mobilenet_zoo.export_checkpoint(model, "flowers.safetensors")
        theirs = timm.create_model(**arguments, checkpoint_path="flowers.safetensors")

    A `.safetensors` file also records how images are prepared, which this library reads back; other endings can't.
    A model that includes preprocessing normalizes outside of it afterwards, and softmax isn't part of theirs: their
    logits are what ours gives with `classifier_activation=None`.

    Args:
        model: A model with top that a create function built, or that was loaded from its file.
        path: Ends with `.safetensors`, or with `.pth`, `.pt` or `.bin` for a PyTorch file. An existing file is replaced
            when the new one is whole.
        layout: The library whose names and shapes to write: `"timm"`, `"torchvision"` (V2, V3), `"huggingface"`
            (transformers; V1, V2) or `"compact"`.

    Returns:
        What `timm.create_model` needs to build the same model: `{"model_name", "num_classes", "in_chans"}` and, where
        the model is not padded or normalized as timm's own of that name, `"pad_type"` and `"bn_eps"`. For a model that
        is not called as timm's are, `"model_name"` is missing. For other layouts an empty dict.

    Raises:
        ValueError: The other library has no such model, or the path has another ending.

    Warns:
        MobileNetWarning: torchvision's, transformers' or the compact family's own models are padded in another way or
            have another epsilon, so that their outputs will differ.
    """
    tensors = state_dict(model, layout)
    stem = part(model, "stem")
    write(path, tensors, {"format": "pt", "layout": layout, "model": model.name, **header_of(model)})
    if layout == "timm":
        return _timm_arguments(model, stem)
    own, theirs = Convention(stem.padding, stem.norm_epsilon), BY_LAYOUT[layout]
    if own not in theirs:
        epsilons = " or ".join(f"{convention.norm_epsilon:g}" for convention in theirs)
        warn(
            f"{model.name} has padding={own.padding!r} and norm_epsilon={own.norm_epsilon:g}, but {layout}'s models "
            f"have {theirs[0].padding!r} and {epsilons}: the outputs will differ."
        )
    return {}


def _timm_arguments(model, stem):
    name = model.name.partition(".")[0]
    names = [candidate for candidate in (name, f"tf_{name}") if is_timm_name(candidate)]
    own = Convention(stem.padding, stem.norm_epsilon).options
    same = [name for name in names if registry()[name].options == own]
    arguments = {"num_classes": model.get_layer("classifier").kernel.shape[-1], "in_chans": stem.kernel.shape[2]}
    if same:
        return {"model_name": same[0], **arguments}
    if names:
        arguments = {"model_name": names[0], **arguments}
    return {
        **arguments,
        "pad_type": "same" if stem.padding == "same" else "",
        "bn_eps": stem.norm_epsilon,
    }
