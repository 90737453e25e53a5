"""Published weights of MobileNet V2."""

import functools

from mobilenet_common import catalog
from mobilenet_common.catalog import At

_PAPER = "Sandler et al., MobileNetV2, 2018, arXiv:1801.04381"
_timm = functools.partial(catalog.timm, paper=_PAPER)
_torchvision = functools.partial(catalog.torchvision, paper=_PAPER)

_TIMM = (
    _timm("mobilenetv2_050.lamb_in1k", "0.5", At(224, 0.875, 65.928, 86.114)),
    _timm("mobilenetv2_100.ra_in1k", "1.0", At(224, 0.875, 72.91, 91.0)),
    _timm("mobilenetv2_110d.ra_in1k", "1.1d", At(224, 0.875, 75.056, 92.186)),
    _timm("mobilenetv2_120d.ra_in1k", "1.2d", At(224, 0.875, 77.3, 93.516)),
    _timm("mobilenetv2_140.ra_in1k", "1.4", At(224, 0.875, 76.528, 93.008)),
)

_TORCHVISION = (
    _torchvision("mobilenetv2_100.tv_v1_in1k", "1.0", At(224, 0.875, 71.878, 90.286), file="mobilenet_v2-b0353104.pth"),
    _torchvision("mobilenetv2_100.tv_v2_in1k", "1.0", At(224, 0.965, 72.154, 90.822), file="mobilenet_v2-7ebf99e0.pth"),
)

# {(width, image size): (top-1, top-5 accuracy)} of keras.applications' checkpoints. They were converted from TF-Slim's
# checkpoints, and the accuracies are from TF-Slim's table.
_SCORES = {
    ("1.4", 224): (75.0, 92.5),
    ("1.3", 224): (74.4, 92.1),
    ("1.0", 224): (71.8, 91.0),
    ("1.0", 192): (70.7, 90.1),
    ("1.0", 160): (68.8, 89.0),
    ("1.0", 128): (65.3, 86.9),
    ("1.0", 96): (60.3, 83.2),
    ("0.75", 224): (69.8, 89.6),
    ("0.75", 192): (68.7, 88.9),
    ("0.75", 160): (66.4, 87.3),
    ("0.75", 128): (63.2, 85.3),
    ("0.75", 96): (58.8, 81.6),
    ("0.5", 224): (65.4, 86.4),
    ("0.5", 192): (63.9, 85.4),
    ("0.5", 160): (61.0, 83.2),
    ("0.5", 128): (57.7, 80.8),
    ("0.5", 96): (51.2, 75.8),
    ("0.35", 224): (60.3, 82.9),
    ("0.35", 192): (58.2, 81.2),
    ("0.35", 160): (55.7, 79.1),
    ("0.35", 128): (50.8, 75.0),
    ("0.35", 96): (45.5, 70.4),
}


def _keras(variant, size, top1, top5):
    stem = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{variant}_{size}"
    return catalog.keras_application(
        f"mobilenetv2_{round(100 * float(variant)):03d}.keras_r{size}",
        variant,
        At(size, 0.875, top1, top5),
        folder="mobilenet_v2",
        file=f"{stem}.h5",
        no_top_file=f"{stem}_no_top.h5",
        scores_from="TF-Slim's table of the MobileNet v2 checkpoints",
        paper=_PAPER,
    )


_KERAS = (_keras(variant, size, *scores) for (variant, size), scores in _SCORES.items())

WEIGHTS = catalog.by_name(_TIMM, _TORCHVISION, _KERAS)
