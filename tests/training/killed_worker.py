"""A run in a process of its own, to be killed: `python -m tests.training.killed_worker FOLDER`.

It begins the run or goes on with it, and in the end writes the weights, a row of bytes, to FOLDER.weights.
"""

import sys
from pathlib import Path

import keras

from mobilenet_zoo.training import train
from tests.training import tiny


def main(folder):
    """Trains, and writes the weights."""
    keras.utils.set_random_seed(0)
    run = train(
        tiny.data(),
        tiny.model(),
        folder,
        recipe=tiny.recipe(epochs=20),
        resume=(Path(folder) / "run.json").is_file(),
        checkpoint_seconds=0,
        progress=False,
        report=False,
    )
    weights = b"".join(keras.ops.convert_to_numpy(weight).tobytes() for weight in run.model.weights)
    part = Path(f"{folder}.part")
    part.write_bytes(weights)
    part.rename(f"{folder}.weights")


if __name__ == "__main__":
    main(sys.argv[1])
