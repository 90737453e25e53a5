"""Speed of the data pipeline alone, compared with the training step of V4 conv_small.

    KERAS_BACKEND=jax python -m benchmarks.pipeline

The program makes JPEG files of 256 to 500 pixels a side from scikit-learn's sample photographs, in a temporary folder.
The results are only valid on an otherwise idle machine.
"""

import argparse
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

import mobilenet_zoo
from benchmarks.timing import cores, turn
from mobilenet_v4 import create_mobilenetv4
from mobilenet_zoo.training.data import Augmentation, Mixing, Pipeline, RandAugment, read_examples
from mobilenet_zoo.training.data.decoding import open_crop

GOAL = 1.5  # minimum ratio of the pipeline's rate to the training rate
CLASSES = 10


def write_images(folder, count):
    """Write an image folder of JPEG files: random crops of the photographs, 256 to 500 pixels a side, at quality 90."""
    rng, photographs = np.random.default_rng(0), [Image.fromarray(image) for image in load_sample_images().images]
    for i in range(count):
        photograph = photographs[i % len(photographs)]
        left, top = (int(rng.integers(n // 3)) for n in photograph.size)
        size = tuple(int(n) for n in rng.integers(256, 501, 2))
        box = (left, top, left + photograph.width * 2 // 3, top + photograph.height * 2 // 3)
        path = folder / f"class{i % CLASSES}" / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        photograph.resize(size, Image.Resampling.BICUBIC, box=box).save(path, quality=90)


def milliseconds_per_part(pipeline, paths, augmentation, size):
    """Return the milliseconds per image that each part of the work takes on one core."""
    rng = np.random.default_rng(0)
    plain, whole = Augmentation(augmentation.crop_scale), lambda width, height: (0, 0, width, height)
    out = np.empty((*size, 3), "float32")
    crops = [open_crop(path, path, 3, size, "bicubic", whole) for path in paths]
    parts = {
        "decode": lambda: [Image.open(path).load() for path in paths],
        "decode, crop and resize": lambda: [
            open_crop(path, path, 3, size, "bicubic", lambda w, h: augmentation.crop(w, h, rng)) for path in paths
        ],
        "flip and RandAugment": lambda: [augmentation(crop, rng) for crop in crops],
        "flip": lambda: [plain(crop, rng) for crop in crops],
        "normalize": lambda: [pipeline._loader._normalize(np.asarray(crop), out) for crop in crops],
    }
    return {name: 1e3 * turn(part) / len(paths) for name, part in parts.items()}


def training_rate(batch_size):
    """Return the images per second of training V4 conv_small at 224×224, on a single batch held in memory."""
    model = create_mobilenetv4("conv_small", num_classes=CLASSES)
    model.compile(keras.optimizers.AdamW(1e-3), "categorical_crossentropy")
    images = np.random.default_rng(0).normal(size=(batch_size, 224, 224, 3)).astype("float32")
    targets = np.eye(CLASSES, dtype="float32")[np.arange(batch_size) % CLASSES]
    return batch_size / turn(lambda: model.train_on_batch(images, targets), least=10)


def pipeline_rate(pipeline, steps):
    """Return the images per second of the pipeline, not counting the first batches, which are loaded at startup."""
    batches = iter(pipeline.batches())
    for _ in range(2 + 2 * cores()):
        next(batches)
    start = time.perf_counter()
    count = sum(len(next(batches)[0]) for _ in range(steps))
    seconds = time.perf_counter() - start
    batches.close()
    return count / seconds


def main():
    """Measure the parts, the pipeline and the training step, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=512, help="number of files to write (default: 512)")
    parser.add_argument("--batch-size", type=int, default=32, help="images per batch (default: 32)")
    parser.add_argument("--steps", type=int, default=40, help="batches to measure (default: 40)")
    parser.add_argument(
        "--workers",
        type=int,
        nargs="*",
        default=[0, cores()],
        help="numbers of worker processes to compare; 0 uses threads (default: 0 and the number of cores)",
    )
    options = parser.parse_args()
    augmentation, mixing = Augmentation(randaugment=RandAugment(2, 9, 0.5)), Mixing()
    preprocessing = mobilenet_zoo.preprocessing("mobilenetv4_conv_small", input_size=224)
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), options.images)
        data = read_examples(folder)
        settings = {"batch_size": options.batch_size, "training": True, "augmentation": augmentation, "mixing": mixing}
        pipelines = {n: Pipeline(data, preprocessing, **settings, workers=n) for n in options.workers}
        print(f"{keras.backend.backend()}, {cores()} cores, batches of {options.batch_size}")
        for part, milliseconds in milliseconds_per_part(
            pipelines[options.workers[0]], data.images[:64], augmentation, (224,) * 2
        ).items():
            print(f"{part}: {milliseconds:.2f} ms per image on one core")
        rates = {n: pipeline_rate(pipeline, options.steps) for n, pipeline in pipelines.items()}
    training = training_rate(options.batch_size)
    print(f"training: {training:.0f} images/s")
    for n, rate in rates.items():
        workers = f"{n} processes" if n else "threads"
        outcome = "reached" if rate >= GOAL * training else "missed"
        ratio = f"{rate / training:.1f} times the training rate"
        print(f"the pipeline alone, {workers}: {rate:.0f} images/s, {ratio} (goal {GOAL}: {outcome})")


if __name__ == "__main__":
    main()
