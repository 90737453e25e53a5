"""Reproducible, resumable training: data pipelines, recipes, runs, and training on several devices.

    import mobilenet_zoo.training

    run = mobilenet_zoo.training.train("photos/", "mobilenetv4_conv_small", "runs/first")

The parts are also available for your own `fit`: `read_data` and `Pipeline`, `load_recipe` and `compile_model`,
`Checkpoints`.
"""

from mobilenet_runtime.evaluation import read_predictions, save_predictions
from mobilenet_zoo.training.averaging import averaged_weights
from mobilenet_zoo.training.callbacks import NotFinite, Terminated
from mobilenet_zoo.training.checkpoints import Checkpoint, Checkpoints
from mobilenet_zoo.training.compiling import compile_model, make_loss, rematerialize
from mobilenet_zoo.training.data import Data, Examples, Pipeline, read_data, read_examples, split
from mobilenet_zoo.training.distillation import Distiller, blend_targets
from mobilenet_zoo.training.optimization import make_optimizer
from mobilenet_zoo.training.recipes import Recipe, difference, list_recipes, load_recipe
from mobilenet_zoo.training.state import StateError, capture, restore
from mobilenet_zoo.training.trainer import Run, train

__all__ = [
    "Checkpoint",
    "Checkpoints",
    "Data",
    "Distiller",
    "Examples",
    "NotFinite",
    "Pipeline",
    "Recipe",
    "Run",
    "StateError",
    "Terminated",
    "averaged_weights",
    "blend_targets",
    "capture",
    "compile_model",
    "difference",
    "list_recipes",
    "load_recipe",
    "make_loss",
    "make_optimizer",
    "read_data",
    "read_examples",
    "read_predictions",
    "rematerialize",
    "restore",
    "save_predictions",
    "split",
    "train",
]
