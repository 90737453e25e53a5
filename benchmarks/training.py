"""Cost of training: time and memory of the options of a recipe, and `train` compared with a plain `fit`.

    KERAS_BACKEND=jax python -m benchmarks.training options
    KERAS_BACKEND=jax python -m benchmarks.training overhead

The options run in separate processes that take turns. The best epoch of all turns counts, because other work on the
machine can only make epochs slower. `train` and `fit` run one after the other in the same processes, in alternating
order, and the median of all epochs counts: processes differ in their memory layout, which changes the speed more than
the choice between `train` and `fit`. The model is V4 conv_small.
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
CROP = 0.875  # center crop in evaluation of a model without pretrained weights


class Epochs(keras.callbacks.Callback):
    """Callback that records the duration of each epoch."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self._start)


def recipe_of(order, **changes):
    """Return the recipe of an order. It trains without augmentation."""
    from mobilenet_zoo.training import load_recipe

    settings = {"batch_size": order["batch_size"], "epochs": order["epochs"], "image_size": order["size"]}
    return load_recipe(RECIPE, settings | order.get("overrides", {}) | changes)


def images_of(order, size):
    """Return random uint8 images of `size` pixels a side, and their classes."""
    rng = np.random.default_rng(0)
    count = order["batch_size"] * order["steps"]
    images = rng.integers(0, 256, (count, size, size, 3), "uint8")
    return images, np.arange(count) % CLASSES


def bare(order):
    """Return the images per second of each epoch of `model.fit` on arrays, and the growth of the process in MB."""
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
    return {"rates": [len(x) / seconds for seconds in epochs.seconds[1:]], "grown_mb": _peak() - before}


def run(order):
    """Return the images per second of each epoch of `train` on the same images, and the seconds of each checkpoint."""
    from mobilenet_zoo.training import Data, Examples, train
    from mobilenet_zoo.training.callbacks import Saving

    blocked, original_save = [], Saving.save

    def save(self):
        start = time.perf_counter()
        original_save(self)
        blocked.append(time.perf_counter() - start)

    Saving.save = save
    # The center crop of images of this size has the model's input size, so no image is resized.
    images, labels = images_of(order, round(order["size"] / CROP))
    names = tuple(f"class{i}" for i in range(CLASSES))
    examples = Examples(list(images), labels, names)
    with tempfile.TemporaryDirectory() as folder:
        result = train(
            Data(examples, examples.subset(range(CLASSES))),
            MODEL,
            Path(folder) / "run",
            recipe=recipe_of(order),
            checkpoint_seconds=order["checkpoint_seconds"],
            progress=False,
            report=False,
        )
    Saving.save = original_save
    return {"rates": [row["images_per_second"] for row in result.history[1:]], "blocked_s": blocked}


def both(order):
    """Return the rates of `fit` and `train`, run one after the other in this process."""
    functions = {"fit": bare, "train": run}
    return {name: functions[name](order)["rates"] for name in order["turn"]}


def _resident():
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1e3


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def run_in_process(kind, order, **environment):
    """Return the result of `bare`, `run` or `both` in a new process. If it fails, print a message and return None."""
    command = [sys.executable, "-m", "benchmarks.training", "--one", kind, json.dumps(order)]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    if result.returncode:
        print(f"{order}: {result.stderr.strip().splitlines()[-1]}")
        return None
    return json.loads(result.stdout.strip().splitlines()[-1])


def options(order, rounds, only):
    """Print a table of time and memory with each option, divided by the values without options."""
    results = {name: [] for name in OPTIONS if name in ("plain", *(only or OPTIONS))}
    for _ in range(rounds):
        for name in results:
            if name.startswith("steps_per") and keras.backend.backend() == "torch":
                continue
            environment = ENVIRONMENTS.get(name, {})
            results[name].append(run_in_process("bare", order | {"overrides": OPTIONS[name]}, **environment))
            print(f"{name}: {results[name][-1]}", file=sys.stderr, flush=True)
    results = {name: [run for run in runs if run] for name, runs in results.items()}
    rate = {name: max(max(run["rates"]) for run in runs) for name, runs in results.items() if runs}
    growth = {name: min(run["grown_mb"] for run in runs) for name, runs in results.items() if runs}
    print("| option | time | memory |\n| --- | --- | --- |")
    for name in rate:
        print(f"| {name} | {rate['plain'] / rate[name]:.2f} | {growth[name] / growth['plain']:.2f} |")
    print(f"plain: {rate['plain']:.1f} images/s, {growth['plain']:.0f} MB")


def overhead(order, rounds):
    """Print the speed of `train` and `fit` between checkpoints, and how long a checkpoint pauses training."""
    names = ["fit", "train"]
    all_rates = {name: [] for name in names}
    for i in range(rounds):
        turn = names[:: -1 if i % 2 else 1]
        rates = run_in_process("both", order | {"turn": turn, "checkpoint_seconds": NEVER})
        print(f"{turn[0]} first: {rates}", file=sys.stderr, flush=True)
        for name in names:
            all_rates[name] += rates[name]
    blocked = run_in_process("run", order | {"checkpoint_seconds": CHECKPOINT_SECONDS})["blocked_s"]
    medians = {name: float(np.median(all_rates[name])) for name in names}
    for name in names:
        low, middle, high = np.percentile(all_rates[name], [25, 50, 75])
        print(f"{name}: {middle:.1f} images/s, middle half of {len(all_rates[name])} epochs {low:.1f} to {high:.1f}")
    print(f"time of train relative to fit: {medians['fit'] / medians['train'] - 1:+.1%}")
    blocked_text = ", ".join(f"{number:.3f}" for number in blocked)
    print(f"checkpoints pause training for {blocked_text} s: at most {max(blocked) / 30:.2%} of 30 s")


def main():
    """Measure the options or the overhead, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=["options", "overhead"], help="what to measure")
    parser.add_argument("--rounds", type=int, default=2, help="number of turns (default: 2)")
    parser.add_argument("--size", type=int, default=224, help="height and width of the images (default: 224)")
    parser.add_argument("--batch-size", type=int, default=32, help="images per step (default: 32)")
    parser.add_argument("--steps", type=int, default=8, help="steps per epoch (default: 8)")
    parser.add_argument("--epochs", type=int, default=4, help="epochs per run (default: 4)")
    parser.add_argument("--only", nargs="+", choices=OPTIONS, help="options to measure (default: all)")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        kind, order = arguments.one
        return print(json.dumps({"bare": bare, "run": run, "both": both}[kind](json.loads(order))))
    order = {name: getattr(arguments, name) for name in ("size", "batch_size", "steps", "epochs")}
    print(f"{keras.backend.backend()}, {order}, {arguments.rounds} turns")
    if arguments.what == "options":
        return options(order, arguments.rounds, arguments.only)
    return overhead(order, arguments.rounds)


if __name__ == "__main__":
    main()
