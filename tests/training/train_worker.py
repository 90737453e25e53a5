"""One process of a distributed run of `train`: `python -m tests.training.train_worker '{"folder": ..., ...}'`.

`DEFAULTS` lists the fields of the configuration. The run writes its results to the sub-folder `run` of `folder`.
"""

import json
import os
import signal
import sys
from pathlib import Path

from mobilenet_zoo.training import Data, Terminated, train
from mobilenet_zoo.training.callbacks import Saving
from tests.training import tiny

DEFAULTS = {
    "devices": 1,
    "hosts": None,
    "host_index": None,
    "run": "run",
    "signal": None,  # [process, step, number]: the process sends itself signal `number` after `step` steps
}
STOPPED = 3
RECIPE = {"batch_size": 8, "epochs": 3, "mixing__probability": 1.0, "model__drop_path_rate": 0.0}


def send_signal_after(index, step, number):
    """Make a process send itself a signal after a step, once its checkpoints are written."""
    original = Saving.on_train_batch_end

    def patched(self, batch, logs=None):
        if self._cluster.process_index == index and self.position.step == step:
            self.checkpoints.wait()
            os.kill(os.getpid(), number)
        original(self, batch, logs)

    Saving.on_train_batch_end = patched


def main(config):
    """Train, and return the exit status."""
    config = DEFAULTS | config
    if config["signal"] is not None:
        send_signal_after(*config["signal"])
    folder = Path(config["folder"])
    try:
        train(
            Data(tiny.examples(26), tiny.examples(8)),
            folder / "model.keras",
            folder / config["run"],
            recipe=tiny.recipe(**RECIPE),
            resume=True,
            checkpoint_seconds=0,
            devices=config["devices"],
            hosts=config["hosts"],
            host_index=config["host_index"],
            progress=False,
            report=False,
        )
    except Terminated:
        return STOPPED
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.exit(main(json.loads(sys.argv[1])))
