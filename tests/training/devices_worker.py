"""One process of a distributed `fit` on fixed arrays: `python -m tests.training.devices_worker '{"folder": ..., ...}'`.

It writes its results to `folder/result.process<index>.json`. `DEFAULTS` lists the fields of the configuration.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import keras
import numpy as np

from mobilenet_common import Architecture, Head
from mobilenet_common.architecture import Conv, Universal
from mobilenet_v4 import create_mobilenetv4
from mobilenet_zoo.training.devices import Agreed, open_cluster

DEFAULTS = {
    "devices": 1,
    "hosts": None,
    "host_index": None,
    "timeout": 60,
    "batch_size": 16,
    "steps": 3,
    "epochs": 2,
    "seeds": [0],  # one per process; PyTorch copies the first process's initial weights to the others
    "kill": None,  # [process, step]: the process kills itself after this step
    "wait_at": None,  # step from which all processes wait for SIGTERM, agree on it and exit with status 3
}
CLASSES, SIZE, BATCHES = 5, 32, 4
# `TINY` has pointwise convolutions with and without doubled channels, depthwise ones, and a standalone batch norm.
TINY = Architecture(
    name="tiny",
    stem=Conv(8, stride=2),
    stages=((Universal(3, 3, 16, 8),), (Universal(0, 5, 24, 16, 2),)),
    head=Head(conv=Conv(32, kernel=1)),
)


def images(batch_size):
    """Return `BATCHES` batches. The second half of each is brighter, so that parts differ from the whole batch."""
    rng = np.random.default_rng(1)
    x = rng.random((BATCHES, batch_size, SIZE, SIZE, 3)).astype(keras.config.floatx())
    x[:, batch_size // 2 :] *= 3.0
    classes = rng.integers(0, CLASSES, (BATCHES, batch_size))
    classes[:, : batch_size // 2] = 0
    return x, np.eye(CLASSES, dtype=keras.config.floatx())[classes]


class Recorder(keras.callbacks.Callback):
    """Records each step's loss, and kills or stops the process as configured."""

    def __init__(self, config, cluster):
        super().__init__()
        self.config, self.cluster, self.losses, self.stopped = config, cluster, [], False
        signal.signal(signal.SIGTERM, self.stop)

    def stop(self, *_):
        self.stopped = True

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(logs["loss"]))
        step = len(self.losses)
        write_json(self.config, self.cluster, f"step{step}", {})
        if self.config["kill"] == [self.cluster.process_index, step]:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.config["wait_at"] is not None and step >= self.config["wait_at"]:
            time.sleep(0.2)
            if self.cluster.any(self.stopped):
                write_json(self.config, self.cluster, "stopped", {"step": step})
                raise Agreed


def use_float64():
    """Compute in float64: in float32, rounding decides on which side of ReLU's kink some activations are."""
    keras.config.set_floatx("float64")
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)


def write_json(config, cluster, name, content):
    Path(config["folder"], f"{name}.process{cluster.process_index}.json").write_text(json.dumps(content))


def main(config):
    config = DEFAULTS | config
    options = {name: config[name] for name in ("devices", "hosts", "host_index", "timeout")}
    use_float64()
    with open_cluster(**options) as cluster:
        keras.utils.set_random_seed(config["seeds"][cluster.process_index % len(config["seeds"])])
        with cluster.scope():
            model = create_mobilenetv4(TINY, CLASSES, (SIZE, SIZE, 3), dropout_rate=0.0)
            model.compile(keras.optimizers.SGD(0.1, 0.9), "categorical_crossentropy", metrics=["accuracy"])
        cluster.prepare(model)
        x, y = images(config["batch_size"])
        local_size = cluster.share(config["batch_size"])
        local = slice(cluster.process_index * local_size, (cluster.process_index + 1) * local_size)
        endless = config["wait_at"] is not None

        def batches(count):
            for step in range(count):
                yield x[step % BATCHES, local], y[step % BATCHES, local]

        steps = 10**6 if endless else config["steps"]
        recorder = Recorder(config, cluster)
        history = model.fit(
            cluster.feed(batches(config["epochs"] * steps)),
            steps_per_epoch=steps,
            epochs=config["epochs"],
            callbacks=[recorder],
            verbose=0,
        )
        evaluated = model.evaluate(cluster.feed(batches(2)), steps=2, verbose=0, return_dict=True)
        write_json(
            config,
            cluster,
            "result",
            {
                "devices": cluster.devices,
                "processes": cluster.process_count,
                "chief": cluster.is_chief,
                "losses": recorder.losses,
                "history": history.history,
                "evaluated": evaluated,
                "weights": [float(np.abs(keras.ops.convert_to_numpy(weight)).sum()) for weight in model.weights],
                "gathered": cluster.gather({"index": cluster.process_index, "long": "é" * cluster.process_index}),
                "broadcast": cluster.broadcast_value(f"of {cluster.process_index}"),
                "any": [cluster.any(cluster.process_index == 1), cluster.any(False)],
                "equal": [cluster.all_equal(7), cluster.all_equal(cluster.process_index)],
            },
        )
        cluster.barrier()


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except Agreed:
        sys.exit(3)
