"""Export of weights to the checkpoint layouts of other libraries."""

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
    """Write a model's weights to a file that another library can load. The values don't change.

    timm loads the file with `strict=True`, so you can continue to train a model in PyTorch. Pass the returned arguments
    to `timm.create_model` to build the matching model:

        arguments = mobilenet_zoo.export_checkpoint(model, "flowers.safetensors")
        timm_model = timm.create_model(**arguments, checkpoint_path="flowers.safetensors")

    A `.safetensors` file also records the preprocessing of the images, which this library reads when it loads the
    file; PyTorch files can't record it. The weights include neither the normalization of a model with
    `include_preprocessing` nor the softmax: the other library's model takes normalized images and returns the logits
    that this library's model returns with `classifier_activation=None`.

    Args:
        model: A model with top that a create function built, or that was loaded from a saved file of such a model.
        path: Path that ends with `.safetensors`, or with `.pth`, `.pt` or `.bin` for a PyTorch file. An existing file
            is replaced only after the new file is completely written.
        layout: The library whose tensor names and shapes are written: `"timm"`, `"torchvision"` (V2, V3),
            `"huggingface"` (transformers; V1, V2) or `"compact"`.

    Returns:
        A dict of the arguments with which `timm.create_model` builds the same model: `"model_name"`, `"num_classes"`
        and `"in_chans"`, and, if padding or epsilon differ from those of timm's model of that name, `"pad_type"` and
        `"bn_eps"`. `"model_name"` is missing if the model doesn't have a timm name. For other layouts, the dict is
        empty.

    Raises:
        ValueError: The other library has no such model, or the path has an unsupported file extension.

    Warns:
        MobileNetWarning: `layout` is not `"timm"`, and the models of that library use a different padding or epsilon,
            so their outputs will differ.
    """
    tensors = state_dict(model, layout)
    stem = part(model, "stem")
    write(path, tensors, {"format": "pt", "layout": layout, "model": model.name, **header_of(model)})
    if layout == "timm":
        return _timm_arguments(model, stem)
    convention, allowed = Convention(stem.padding, stem.norm_epsilon), BY_LAYOUT[layout]
    if convention not in allowed:
        epsilons = " or ".join(f"{option.norm_epsilon:g}" for option in allowed)
        warn(
            f"{model.name} has padding={convention.padding!r} and norm_epsilon={convention.norm_epsilon:g}, but models "
            f"with the {layout} layout have padding={allowed[0].padding!r} and norm_epsilon={epsilons}: the outputs "
            "will differ."
        )
    return {}


def _timm_arguments(model, stem):
    name = model.name.partition(".")[0]
    names = [candidate for candidate in (name, f"tf_{name}") if is_timm_name(candidate)]
    options = Convention(stem.padding, stem.norm_epsilon).options
    exact = [name for name in names if registry()[name].options == options]
    arguments = {"num_classes": model.get_layer("classifier").kernel.shape[-1], "in_chans": stem.kernel.shape[2]}
    if exact:
        return {"model_name": exact[0], **arguments}
    if names:
        arguments = {"model_name": names[0], **arguments}
    return {
        **arguments,
        "pad_type": "same" if stem.padding == "same" else "",
        "bn_eps": stem.norm_epsilon,
    }
