"""How each library names its tensors: rules that turn a model of ours into the names that a checkpoint must hold.

A rule goes by a layer's kind and place and never lists names, so it serves every variant, width and custom
architecture. `LAYOUTS` is in the order in which a checkpoint's names are tried.
"""

from mobilenet_common.checkpoints.layouts.compact import COMPACT
from mobilenet_common.checkpoints.layouts.huggingface import HUGGINGFACE
from mobilenet_common.checkpoints.layouts.keras_applications import KERAS
from mobilenet_common.checkpoints.layouts.native import NATIVE
from mobilenet_common.checkpoints.layouts.timm import TIMM
from mobilenet_common.checkpoints.layouts.torchvision import TORCHVISION

LAYOUTS = {layout.name: layout for layout in (HUGGINGFACE, TIMM, COMPACT, TORCHVISION, NATIVE, KERAS)}
