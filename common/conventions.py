"""Padding and epsilon of each library's models, which the tensors of a checkpoint don't record."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Convention:
    """Padding and epsilon of a model.

    Attributes:
        padding: `"same"` for TensorFlow's padding, `"symmetric"` for that of PyTorch models.
        norm_epsilon: Number that the normalizations add to the variance.
    """

    padding: str
    norm_epsilon: float

    @property
    def options(self) -> dict[str, Any]:
        """The convention as keyword arguments of the create functions."""
        return dataclasses.asdict(self)


TENSORFLOW = Convention("same", 1e-3)
PYTORCH = Convention("symmetric", 1e-5)
PYTORCH_V3 = Convention("symmetric", 1e-3)  # PyTorch's padding with the epsilon of TensorFlow's V3

# All conventions that the models of a layout use. Those of timm's models depend on the name; see `of_timm`.
BY_LAYOUT = {
    "torchvision": (PYTORCH, PYTORCH_V3),
    "keras": (TENSORFLOW,),
    "huggingface": (TENSORFLOW,),  # transformers' V1 and V2 were converted from TF-Slim
    "compact": (PYTORCH,),
}


def of_timm(model: str) -> Convention:
    """Return the convention of a timm model.

    Args:
        model: Name of the model without a tag. Names that start with `tf_` are models converted from TensorFlow.
    """
    if model.startswith("tf_"):
        return TENSORFLOW
    return PYTORCH_V3 if model == "mobilenetv3_rw" else PYTORCH


def of_torchvision(is_v3: bool) -> Convention:
    """Return the convention of torchvision's V3 models, or of its V2 model."""
    return PYTORCH_V3 if is_v3 else PYTORCH
