"""One process of a run of `train` over devices: `python -m tests.training.train_worker '{"folder": ..., ...}'`.

The order's fields are those of `DEFAULTS`. What the run comes to is in its folder, `run` in the order's.
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
    "signal": None,  # [process, step, number]: that process sends itself this signal when so many steps are trained
}
STOPPED = 3
RECIPE = {"batch_size": 8, "epochs": 3, "mixing__probability": 1.0, "model__drop_path_rate": 0.0}


def strike(index, step, number):
    """Has a process send itself a signal, when what it has saved so far is written."""
    plain = Saving.on_train_batch_end

    def end(self, batch, logs=None):
        if self._cluster.process_index == index and self.position.step == step:
            self.checkpoints.wait()
            os.kill(os.getpid(), number)
        plain(self, batch, logs)

    Saving.on_train_batch_end = end


def main(order):
    """Trains; returns the exit status."""
    order = DEFAULTS | order
    if order["signal"] is not None:
        strike(*order["signal"])
    folder = Path(order["folder"])
    try:
        train(
            Data(tiny.examples(26), tiny.examples(8)),
            folder / "model.keras",
            folder / order["run"],
            recipe=tiny.recipe(**RECIPE),
            resume=True,
            checkpoint_seconds=0,
            devices=order["devices"],
            hosts=order["hosts"],
            host_index=order["host_index"],
            progress=False,
            report=False,
        )
    except Terminated:
        return STOPPED
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.exit(main(json.loads(sys.argv[1])))
