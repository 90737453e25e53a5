"""Training run in a separate process, which a test kills: `python -m tests.training.killed_worker FOLDER`.

It starts a new run, or resumes the one in FOLDER. At the end, it writes the bytes of all weights to FOLDER.weights.
"""

import sys
from pathlib import Path

import keras

from mobilenet_zoo.training import train
from tests.training import tiny


def main(folder):
    """Train, and write the weights."""
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
    partial_file = Path(f"{folder}.part")
    partial_file.write_bytes(weights)
    partial_file.rename(f"{folder}.weights")


if __name__ == "__main__":
    main(sys.argv[1])
