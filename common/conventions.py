"""How each library's models pad and normalize, which the tensors of a checkpoint don't show."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Convention:
    """How a model pads and normalizes.

    Attributes:
        padding: `"same"` as TensorFlow pads, `"symmetric"` as PyTorch models do.
        norm_epsilon: Added to variances.
    """

    padding: str
    norm_epsilon: float

    @property
    def options(self) -> dict[str, Any]:
        """The convention as arguments of the create functions."""
        return dataclasses.asdict(self)


TENSORFLOW = Convention("same", 1e-3)
PYTORCH = Convention("symmetric", 1e-5)
PYTORCH_V3 = Convention("symmetric", 1e-3)  # ported with PyTorch's padding and the epsilon of TensorFlow's V3

# The conventions that the models of a library have whatever their names, by the layout of its checkpoints.
BY_LAYOUT = {
    "torchvision": (PYTORCH, PYTORCH_V3),
    "keras": (TENSORFLOW,),
    "huggingface": (TENSORFLOW,),  # transformers' V1 and V2 were converted from TF-Slim
    "compact": (PYTORCH,),
}


def of_timm(model: str) -> Convention:
    """Return the convention of timm's `model`, named without a tag; `tf_` models were converted from TensorFlow."""
    if model.startswith("tf_"):
        return TENSORFLOW
    return PYTORCH_V3 if model == "mobilenetv3_rw" else PYTORCH


def of_torchvision(is_v3: bool) -> Convention:
    """Return the convention of torchvision's V3, or of its V2."""
    return PYTORCH_V3 if is_v3 else PYTORCH
