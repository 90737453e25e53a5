"""What training costs: the options of a recipe in time and memory, and `train` next to a bare `fit`.

    KERAS_BACKEND=jax python -m benchmarks.training options
    KERAS_BACKEND=jax python -m benchmarks.training overhead

Each option has a process of its own, they take turns, and the best epoch of all turns counts, since what else a machine
does only ever makes it slower. `train` and `fit` share processes, in each of which the other one begins, and the median
of all epochs counts: processes differ, by where their memory lies, by more than the two do. The model is V4 conv_small.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

MODEL, CLASSES = "mobilenetv4_conv_small", 10
OPTIONS = {
    "plain": {},
    "mixed_bfloat16": {"precision": "mixed_bfloat16"},
    "mixed_float16": {"precision": "mixed_float16"},
    "accumulation_steps=4": {"optimizer.accumulation_steps": 4},
    "clip_norm=1": {"optimizer.clip_norm": 1.0},
    "steps_per_execution=4": {"steps_per_execution": 4},
    "rematerialization": {"rematerialization": True},
    "huge pages": {},
}
ENVIRONMENTS = {"huge pages": {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}}
RECIPE = {
    "name": "measured",
    "optimizer": {"name": "adamw"},
    "schedule": {"name": "constant"},
    "augmentation": {"crop_scale": None, "flip": 0.0},
}
CHECKPOINT_SECONDS, NEVER = 3.0, 1e9
CROP = 0.875  # the fraction of an image that a model from scratch sees in evaluation


class Epochs(keras.callbacks.Callback):
    """Keeps how long each epoch took."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self._began)


def recipe_of(order, **changes):
    """Return the recipe of an order, which trains on its images as they are."""
    from mobilenet_zoo.training import load_recipe

    own = {"batch_size": order["batch_size"], "epochs": order["epochs"], "image_size": order["size"]}
    return load_recipe(RECIPE, own | order.get("overrides", {}) | changes)


def images_of(order, size):
    """Return uint8 images and their classes."""
    rng = np.random.default_rng(0)
    count = order["batch_size"] * order["steps"]
    images = rng.integers(0, 256, (count, size, size, 3), "uint8")
    return images, np.arange(count) % CLASSES


def bare(order):
    """Return images a second of each epoch of `model.fit` on arrays, and by how many MB the process grew in it."""
    import mobilenet_zoo
    from mobilenet_zoo.training import compile_model

    recipe = recipe_of(order)
    images, labels = images_of(order, order["size"])
    shape = (order["size"], order["size"], 3)
    model = mobilenet_zoo.create_model(MODEL, num_classes=CLASSES, input_shape=shape, dtype=recipe.precision)
    compile_model(model, recipe, order["steps"])
    x, y = (images / np.float32(127.5) - 1).astype("float32"), np.eye(CLASSES, dtype="float32")[labels]
    epochs, before = Epochs(), _resident()
    model.fit(x, y, batch_size=order["batch_size"], epochs=order["epochs"], callbacks=[epochs], verbose=0)
    return {"rates": [len(x) / second for second in epochs.seconds[1:]], "grown_mb": _peak() - before}


def run(order):
    """Return images a second of each epoch of `train` on the same images, and how long each checkpoint stopped it."""
    from mobilenet_zoo.training import Data, Examples, train
    from mobilenet_zoo.training.callbacks import Saving

    blocked, plain = [], Saving.save

    def save(self):
        start = time.perf_counter()
        plain(self)
        blocked.append(time.perf_counter() - start)

    Saving.save = save
    # Of the size that they are cropped from, so that there is nothing to resize.
    images, labels = images_of(order, round(order["size"] / CROP))
    names = tuple(f"class{i}" for i in range(CLASSES))
    learned = Examples(list(images), labels, names)
    with tempfile.TemporaryDirectory() as folder:
        found = train(
            Data(learned, learned.subset(range(CLASSES))),
            MODEL,
            Path(folder) / "run",
            recipe=recipe_of(order),
            checkpoint_seconds=order["checkpoint_seconds"],
            progress=False,
            report=False,
        )
    Saving.save = plain
    return {"rates": [row["images_per_second"] for row in found.history[1:]], "blocked_s": blocked}


def both(order):
    """Return the rates of `fit` and `train` in one process, one after the other."""
    kinds = {"fit": bare, "train": run}
    return {name: kinds[name](order)["rates"] for name in order["turn"]}


def _resident():
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1e3


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def in_a_process(kind, order, **environment):
    """Return what `bare`, `run` or `both` returns, from a process of its own; None if it fails, with a message."""
    command = [sys.executable, "-m", "benchmarks.training", "--one", kind, json.dumps(order)]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    if result.returncode:
        print(f"{order}: {result.stderr.strip().splitlines()[-1]}")
        return None
    return json.loads(result.stdout.strip().splitlines()[-1])


def options(order, rounds, only):
    """Print a table of the options, next to none of them."""
    found = {name: [] for name in OPTIONS if name in ("plain", *(only or OPTIONS))}
    for _ in range(rounds):
        for name in found:
            if name.startswith("steps_per") and keras.backend.backend() == "torch":
                continue
            environment = ENVIRONMENTS.get(name, {})
            found[name].append(in_a_process("bare", order | {"overrides": OPTIONS[name]}, **environment))
            print(f"{name}: {found[name][-1]}", file=sys.stderr, flush=True)
    found = {name: [run for run in all_of if run] for name, all_of in found.items()}
    rate = {name: max(max(run["rates"]) for run in all_of) for name, all_of in found.items() if all_of}
    grown = {name: min(run["grown_mb"] for run in all_of) for name, all_of in found.items() if all_of}
    print("| option | time | memory |\n| --- | --- | --- |")
    for name in rate:
        print(f"| {name} | {rate['plain'] / rate[name]:.2f} | {grown[name] / grown['plain']:.2f} |")
    print(f"plain: {rate['plain']:.1f} images a second, {grown['plain']:.0f} MB")


def overhead(order, rounds):
    """Print how a run compares with `fit` while no checkpoint is due, and how long a checkpoint stops it."""
    names = ["fit", "train"]
    found = {name: [] for name in names}
    for i in range(rounds):
        turn = names[:: -1 if i % 2 else 1]
        rates = in_a_process("both", order | {"turn": turn, "checkpoint_seconds": NEVER})
        print(f"{turn[0]} first: {rates}", file=sys.stderr, flush=True)
        for name in names:
            found[name] += rates[name]
    blocked = in_a_process("run", order | {"checkpoint_seconds": CHECKPOINT_SECONDS})["blocked_s"]
    medians = {name: float(np.median(found[name])) for name in names}
    for name in names:
        low, middle, high = np.percentile(found[name], [25, 50, 75])
        print(f"{name}: {middle:.1f} images a second, half of {len(found[name])} epochs in {low:.1f} to {high:.1f}")
    print(f"train costs {medians['fit'] / medians['train'] - 1:+.1%}")
    shown = ", ".join(f"{number:.3f}" for number in blocked)
    print(f"checkpoints stop it for {shown} s: at most {max(blocked) / 30:.2%} of 30 s")


def main():
    """Return measure, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=["options", "overhead"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--only", nargs="+", choices=OPTIONS, help="options, next to none of them (default: all)")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        kind, order = given.one
        return print(json.dumps({"bare": bare, "run": run, "both": both}[kind](json.loads(order))))
    order = {name: getattr(given, name) for name in ("size", "batch_size", "steps", "epochs")}
    print(f"{keras.backend.backend()}, {order}, {given.rounds} turns")
    if given.what == "options":
        return options(order, given.rounds, given.only)
    return overhead(order, given.rounds)


if __name__ == "__main__":
    main()
