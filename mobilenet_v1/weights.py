"""Published weights of MobileNet V1."""

import functools

from mobilenet_common import catalog
from mobilenet_common.catalog import HALF, At

_PAPER = "Howard et al., MobileNets, 2017, arXiv:1704.04861"
_timm = functools.partial(catalog.timm, paper=_PAPER, scale=HALF)

_TIMM = (
    _timm("mobilenetv1_100.ra4_e3600_r224_in1k", "1.0", At(224, 0.875, 75.388, 92.31), At(256, 0.95, 76.088, 93.006)),
    _timm(
        "mobilenetv1_100h.ra4_e3600_r224_in1k", "1.0h", At(224, 0.875, 75.664, 92.522), At(256, 0.95, 76.598, 93.272)
    ),
    _timm("mobilenetv1_125.ra4_e3600_r224_in1k", "1.25", At(224, 0.9, 76.92, 93.232), At(256, 1.0, 77.612, 93.754)),
)

# {(width, image size): (top-1, top-5 accuracy)} of keras.applications' checkpoints. They were converted from TF-Slim's
# checkpoints, and the accuracies are from TF-Slim's table.
_SCORES = {
    ("1.0", 224): (70.9, 89.9),
    ("1.0", 192): (70.0, 89.2),
    ("1.0", 160): (68.0, 87.7),
    ("1.0", 128): (65.2, 85.8),
    ("0.75", 224): (68.4, 88.2),
    ("0.75", 192): (67.2, 87.3),
    ("0.75", 160): (65.3, 86.0),
    ("0.75", 128): (62.1, 83.9),
    ("0.5", 224): (63.3, 84.9),
    ("0.5", 192): (61.7, 83.6),
    ("0.5", 160): (59.1, 81.9),
    ("0.5", 128): (56.3, 79.4),
    ("0.25", 224): (49.8, 74.2),
    ("0.25", 192): (47.7, 72.3),
    ("0.25", 160): (45.5, 70.3),
    ("0.25", 128): (41.5, 66.3),
}
_FILES = {"1.0": "1_0", "0.75": "7_5", "0.5": "5_0", "0.25": "2_5"}  # {width: width in the file names}


def _keras(variant, size, top1, top5):
    stem = f"mobilenet_{_FILES[variant]}_{size}_tf"
    return catalog.keras_application(
        f"mobilenetv1_{round(100 * float(variant)):03d}.keras_r{size}",
        variant,
        At(size, 0.875, top1, top5),
        folder="mobilenet",
        file=f"{stem}.h5",
        no_top_file=f"{stem}_no_top.h5",
        scores_from="TF-Slim's table of the MobileNet v1 checkpoints",
        paper=_PAPER,
    )


_KERAS = (_keras(variant, size, *scores) for (variant, size), scores in _SCORES.items())

WEIGHTS = catalog.by_name(_TIMM, _KERAS)
