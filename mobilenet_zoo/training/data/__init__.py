"""Labeled images for training, from the user's files to the batches that a model trains on."""

from mobilenet_runtime.examples.examples import Data, Examples
from mobilenet_runtime.examples.sources import read_data, read_examples
from mobilenet_runtime.examples.splitting import split
from mobilenet_zoo.training.data.augmentation import Augmentation
from mobilenet_zoo.training.data.mixing import Mixing
from mobilenet_zoo.training.data.pipeline import BALANCES, Pipeline
from mobilenet_zoo.training.data.randaugment import RandAugment

__all__ = [
    "BALANCES",
    "Augmentation",
    "Data",
    "Examples",
    "Mixing",
    "Pipeline",
    "RandAugment",
    "read_data",
    "read_examples",
    "split",
]
