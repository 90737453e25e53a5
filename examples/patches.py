"""Cut photographs into patches: a folder of class folders to try training with, without a download.

    python examples/patches.py photos

The photographs are those that scikit-learn and matplotlib bring: a temple, a flower and a portrait. Which of them a
patch is from is its class. Patches don't overlap, so that held-out ones are new.
"""

import argparse
from pathlib import Path

import matplotlib.cbook
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image


def photographs():
    """Return `{class: image}`, each `(height, width, 3)` of uint8."""
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        portrait = np.asarray(Image.open(file).convert("RGB"))
    return {"flower": load_sample_image("flower.jpg"), "portrait": portrait, "temple": load_sample_image("china.jpg")}


def cut(image, size):
    """Return its patches of `size` pixels, row by row."""
    rows, columns = (side // size for side in image.shape[:2])
    return [
        image[row * size : (row + 1) * size, column * size : (column + 1) * size]
        for row in range(rows)
        for column in range(columns)
    ]


def main(arguments=None):
    """Write the patches."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="where to; made if it isn't there")
    parser.add_argument("--size", type=int, default=40, help="of a patch in pixels (default: 40)")
    options = parser.parse_args(arguments)
    counts = {}
    for name, image in photographs().items():
        patches = cut(image, options.size)
        (options.folder / name).mkdir(parents=True, exist_ok=True)
        for i, patch in enumerate(patches):
            Image.fromarray(patch).save(options.folder / name / f"{i:03d}.jpg", quality=95)
        counts[name] = len(patches)
    print(", ".join(f"{count} of {name}" for name, count in counts.items()), f"written to {options.folder}")


if __name__ == "__main__":
    main()
