"""Cut photographs into patches, and write them as an image folder for a first training run without a download.

    python examples/patches.py photos

The photographs are sample images of scikit-learn and matplotlib: a temple, a flower and a portrait. The class of a
patch is its photograph. The patches don't overlap, so the validation set shares no pixels with the training set.
"""

import argparse
from pathlib import Path

import matplotlib.cbook
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image


def photographs():
    """Return `{class: image}`, with uint8 arrays of shape `(height, width, 3)`."""
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        portrait = np.asarray(Image.open(file).convert("RGB"))
    return {"flower": load_sample_image("flower.jpg"), "portrait": portrait, "temple": load_sample_image("china.jpg")}


def cut(image, size):
    """Return the square patches of an image, `size` pixels a side, row by row."""
    rows, columns = (side // size for side in image.shape[:2])
    return [
        image[row * size : (row + 1) * size, column * size : (column + 1) * size]
        for row in range(rows)
        for column in range(columns)
    ]


def main(arguments=None):
    """Cut the photographs into patches, and write one folder per class."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="folder to write; created if it doesn't exist")
    parser.add_argument("--size", type=int, default=40, help="height and width of a patch in pixels (default: 40)")
    options = parser.parse_args(arguments)
    counts = {}
    for name, image in photographs().items():
        patches = cut(image, options.size)
        (options.folder / name).mkdir(parents=True, exist_ok=True)
        for i, patch in enumerate(patches):
            Image.fromarray(patch).save(options.folder / name / f"{i:03d}.jpg", quality=95)
        counts[name] = len(patches)
    print(f"Patches in {options.folder}:", ", ".join(f"{count} {name}" for name, count in counts.items()))


if __name__ == "__main__":
    main()
