"""Read labeled images from folders, manifests, arrays and Hugging Face datasets. Requires no Keras."""

from mobilenet_runtime.examples.examples import Data, Examples
from mobilenet_runtime.examples.sources import read_data, read_examples
from mobilenet_runtime.examples.splitting import split

__all__ = ["Data", "Examples", "read_data", "read_examples", "split"]
