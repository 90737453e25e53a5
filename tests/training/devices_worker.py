"""One process of a run on fixed arrays: `python -m tests.training.devices_worker '{"folder": ..., ...}'`.

It leaves what it saw in `folder/process<index>.json`. The order's fields are those of `DEFAULTS`.
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
    "seeds": [0],  # of each process: where they differ, the first one's weights count (PyTorch)
    "kill": None,  # [process, step]: that process kills itself
    "wait_at": None,  # the step at which every process waits for SIGTERM, agrees on it and leaves with status 3
}
CLASSES, SIZE, BATCHES = 5, 32, 4
# Pointwise convolutions that double their channels, ones that don't, depthwise ones, and a normalization by itself.
TINY = Architecture(
    name="tiny",
    stem=Conv(8, stride=2),
    stages=((Universal(3, 3, 16, 8),), (Universal(0, 5, 24, 16, 2),)),
    head=Head(conv=Conv(32, kernel=1)),
)


def images(batch_size):
    """`BATCHES` batches, of which the images in the second half are brighter, so that parts differ from the whole."""
    rng = np.random.default_rng(1)
    x = rng.random((BATCHES, batch_size, SIZE, SIZE, 3)).astype(keras.config.floatx())
    x[:, batch_size // 2 :] *= 3.0
    classes = rng.integers(0, CLASSES, (BATCHES, batch_size))
    classes[:, : batch_size // 2] = 0
    return x, np.eye(CLASSES, dtype=keras.config.floatx())[classes]


class Watch(keras.callbacks.Callback):
    """Keeps each step's loss and does what the order says."""

    def __init__(self, order, cluster):
        super().__init__()
        self.order, self.cluster, self.losses, self.stopped = order, cluster, [], False
        signal.signal(signal.SIGTERM, self.stop)

    def stop(self, *_):
        self.stopped = True

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(logs["loss"]))
        step = len(self.losses)
        note(self.order, self.cluster, f"step{step}", {})
        if self.order["kill"] == [self.cluster.process_index, step]:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.order["wait_at"] is not None and step >= self.order["wait_at"]:
            time.sleep(0.2)
            if self.cluster.any(self.stopped):
                note(self.order, self.cluster, "stopped", {"step": step})
                raise Agreed


def use_float64():
    """In float32 rounding decides on which side of ReLU's corner some activation is, and so where training ends."""
    keras.config.set_floatx("float64")
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)


def note(order, cluster, name, what):
    Path(order["folder"], f"{name}.process{cluster.process_index}.json").write_text(json.dumps(what))


def main(order):
    order = DEFAULTS | order
    options = {name: order[name] for name in ("devices", "hosts", "host_index", "timeout")}
    use_float64()
    with open_cluster(**options) as cluster:
        keras.utils.set_random_seed(order["seeds"][cluster.process_index % len(order["seeds"])])
        with cluster.scope():
            model = create_mobilenetv4(TINY, CLASSES, (SIZE, SIZE, 3), dropout_rate=0.0)
            model.compile(keras.optimizers.SGD(0.1, 0.9), "categorical_crossentropy", metrics=["accuracy"])
        cluster.prepare(model)
        x, y = images(order["batch_size"])
        share = cluster.share(order["batch_size"])
        own = slice(cluster.process_index * share, (cluster.process_index + 1) * share)
        endless = order["wait_at"] is not None

        def batches(count):
            for step in range(count):
                yield x[step % BATCHES, own], y[step % BATCHES, own]

        steps = 10**6 if endless else order["steps"]
        watch = Watch(order, cluster)
        history = model.fit(
            cluster.feed(batches(order["epochs"] * steps)),
            steps_per_epoch=steps,
            epochs=order["epochs"],
            callbacks=[watch],
            verbose=0,
        )
        evaluated = model.evaluate(cluster.feed(batches(2)), steps=2, verbose=0, return_dict=True)
        note(
            order,
            cluster,
            "result",
            {
                "devices": cluster.devices,
                "processes": cluster.process_count,
                "chief": cluster.is_chief,
                "losses": watch.losses,
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
