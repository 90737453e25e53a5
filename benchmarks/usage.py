"""Time spent outside the model: importing the library, loading weights, reading images.

    python -m benchmarks.usage [--photographs 200]

The program prints the import time of `mobilenet_v4` after Keras, the time to build a model with weights from the Hub's
cache compared with a model without weights, and the fraction of the time in which `mobilenet-zoo predict` keeps the
model busy.
"""

import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

NAME = "mobilenetv4_conv_medium.e500_r256_in1k"
COMMIT = "0" * 40

_IMPORTS = """
import time
import keras
start = time.perf_counter()
import mobilenet_v4
print(time.perf_counter() - start)
"""


def main(
    photographs: Annotated[int, typer.Option(help="Number of images to read.")] = 200,
    repeats: Annotated[int, typer.Option(help="Repetitions of each measurement, whose median is printed.")] = 5,
) -> None:
    """Measure importing, loading and reading images under the current backend."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_HOME"] = folder
        import keras

        print(f"backend: {keras.backend.backend()}")
        seconds = [_import_seconds() for _ in range(repeats + 1)][1:]
        print(f"importing mobilenet_v4 after keras: {statistics.median(seconds):.3f} s")
        plain, loading = _loading(Path(folder), repeats)
        print(
            f"conv_medium: built in {plain:.2f} s, with cached weights in {loading:.2f} s: {loading / plain:.2f} times"
        )
        busy = _busy(Path(folder), photographs)
        print(f"predict on {photographs} photographs: the model is busy for {busy:.0%} of the time")


def _import_seconds():
    # Import with bytecode, as in an installed package. The first import writes it and is discarded.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    result = subprocess.run([sys.executable, "-c", _IMPORTS], env=environment, check=True, capture_output=True)
    return float(result.stdout)


def _loading(folder, repeats):
    """Return the median seconds of building a model without weights and with cached weights, measured in turns."""
    from mobilenet_v4 import create_mobilenetv4

    options = {"input_shape": (256, 256, 3)}
    _fill_cache(folder, create_mobilenetv4("conv_medium", **options))
    times = {None: [], NAME: []}
    for _ in range(repeats + 1):
        for weights, seconds in times.items():
            start = time.perf_counter()
            create_mobilenetv4("conv_medium", weights=weights, **options)
            seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds[1:]) for seconds in times.values()]  # The first measurement is the warm-up.


def _fill_cache(folder, model):
    """Fill a cache in the format of the Hugging Face Hub's client, with a file of the model's own weights."""
    from mobilenet_common.checkpoints import state_dict, write

    repository = folder / "hub" / f"models--timm--{NAME}"
    file = folder / "model.safetensors"
    write(file, state_dict(model, "timm"), {"format": "pt"})
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    snapshot = repository / "snapshots" / COMMIT
    for path in (repository / "blobs", repository / "refs", snapshot):
        path.mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    file.rename(repository / "blobs" / digest)
    (snapshot / "model.safetensors").symlink_to(repository / "blobs" / digest)


def _busy(folder, count):
    """Return the fraction of the time in which the model is busy, after its first batch."""
    import mobilenet_zoo
    from mobilenet_runtime.reading import run

    paths = _photographs(folder / "photographs", count)
    model = mobilenet_zoo.create_model(NAME)
    busy_seconds = 0.0
    start = None

    def timed(images):
        nonlocal busy_seconds, start
        begin = time.perf_counter()
        outputs = predict_on_batch(images)
        if start is None:  # The first batch compiles the model.
            start = time.perf_counter()
        else:
            busy_seconds += time.perf_counter() - begin
        return outputs

    predict_on_batch, model.predict_on_batch = model.predict_on_batch, timed
    for _ in run(model.predict_on_batch, mobilenet_zoo.preprocessing(model), paths, 32):
        pass
    return busy_seconds / (time.perf_counter() - start)


def _photographs(folder, count):
    """Write JPEG files of 640×427 pixels, cropped from scikit-learn's two sample photographs."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    folder.mkdir()
    images = [Image.fromarray(image) for image in load_sample_images().images]
    paths = []
    for i in range(count):
        image = images[i % 2].crop((i % 40, i % 30, 600 + i % 40, 397 + i % 30)).resize((640, 427))
        paths.append(str(folder / f"{i}.jpg"))
        image.save(paths[-1], quality=90)
    return paths


if __name__ == "__main__":
    typer.run(main)
