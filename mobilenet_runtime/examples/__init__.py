"""Images with labels, from whatever users have them in. Without Keras, so that exported models can be evaluated too."""

from mobilenet_runtime.examples.examples import Data, Examples
from mobilenet_runtime.examples.sources import read_data, read_examples
from mobilenet_runtime.examples.splitting import split

__all__ = ["Data", "Examples", "read_data", "read_examples", "split"]
