"""Layouts: the names that each library gives its tensors, derived from the layers of a model of this library.

The names are derived from a layer's type and position, so a layout works for every variant, width and custom
architecture. `LAYOUTS` is in the order in which they are tried to detect a checkpoint's layout.
"""

from mobilenet_common.checkpoints.layouts.compact import COMPACT
from mobilenet_common.checkpoints.layouts.huggingface import HUGGINGFACE
from mobilenet_common.checkpoints.layouts.keras_applications import KERAS
from mobilenet_common.checkpoints.layouts.native import NATIVE
from mobilenet_common.checkpoints.layouts.timm import TIMM
from mobilenet_common.checkpoints.layouts.torchvision import TORCHVISION

LAYOUTS = {layout.name: layout for layout in (HUGGINGFACE, TIMM, COMPACT, TORCHVISION, NATIVE, KERAS)}
