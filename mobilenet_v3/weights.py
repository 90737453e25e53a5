"""Published weights of MobileNet V3."""

import functools

from mobilenet_common import catalog
from mobilenet_common.catalog import HALF, IMAGENET_21K, UNIT, At

_PAPER = "Howard et al., Searching for MobileNetV3, 2019, arXiv:1905.02244"
_timm = functools.partial(catalog.timm, paper=_PAPER)
_torchvision = functools.partial(catalog.torchvision, paper=_PAPER)

_TIMM = (
    _timm(
        "mobilenetv3_large_100.miil_in21k",
        "large",
        At(224, 0.875),
        scale=UNIT,
        interpolation="bilinear",
        labels=IMAGENET_21K,
    ),
    _timm(
        "mobilenetv3_large_100.miil_in21k_ft_in1k",
        "large",
        At(224, 0.875, 77.92, 92.894),
        scale=UNIT,
        interpolation="bilinear",
    ),
    _timm(
        "mobilenetv3_large_100.ra4_e3600_r224_in1k",
        "large",
        At(224, 0.95, 76.31, 92.842),
        At(256, 1.0, 77.182, 93.328),
        scale=HALF,
    ),
    _timm("mobilenetv3_large_100.ra_in1k", "large", At(224, 0.875, 75.784, 92.528)),
    _timm(
        "mobilenetv3_large_150d.ra4_e3600_r256_in1k",
        "large_1.5d",
        At(256, 0.95, 80.994, 95.474),
        At(320, 1.0, 81.832, 95.878),
        scale=HALF,
        interpolation="bilinear",
    ),
    _timm("mobilenetv3_rw.rmsp_in1k", "large_rw", At(224, 0.875, 75.616, 92.696)),
    _timm("mobilenetv3_small_050.lamb_in1k", "small", At(224, 0.875, 57.918, 80.144), width=0.5),
    _timm("mobilenetv3_small_075.lamb_in1k", "small", At(224, 0.875, 65.284, 85.462), width=0.75),
    _timm("mobilenetv3_small_100.lamb_in1k", "small", At(224, 0.875, 67.636, 87.638)),
    _timm(
        "tf_mobilenetv3_large_075.in1k",
        "large",
        At(224, 0.875, 73.442, 91.332),
        width=0.75,
        scale=HALF,
        interpolation="bilinear",
    ),
    _timm("tf_mobilenetv3_large_100.in1k", "large", At(224, 0.875, 75.51, 92.6), scale=HALF, interpolation="bilinear"),
    _timm(
        "tf_mobilenetv3_large_minimal_100.in1k",
        "large_minimalistic",
        At(224, 0.875, 72.27, 90.664),
        scale=HALF,
        interpolation="bilinear",
    ),
    _timm(
        "tf_mobilenetv3_small_075.in1k",
        "small",
        At(224, 0.875, 65.706, 86.13),
        width=0.75,
        scale=HALF,
        interpolation="bilinear",
    ),
    _timm(
        "tf_mobilenetv3_small_100.in1k", "small", At(224, 0.875, 67.922, 87.686), scale=HALF, interpolation="bilinear"
    ),
    _timm(
        "tf_mobilenetv3_small_minimal_100.in1k",
        "small_minimalistic",
        At(224, 0.875, 62.892, 84.27),
        scale=HALF,
        interpolation="bilinear",
    ),
)

_TORCHVISION = (
    _torchvision(
        "mobilenetv3_large_100.tv_v1_in1k",
        "large",
        At(224, 0.875, 74.042, 91.34),
        file="mobilenet_v3_large-8738ca79.pth",
    ),
    _torchvision(
        "mobilenetv3_large_100.tv_v2_in1k",
        "large",
        At(224, 0.965, 75.274, 92.566),
        file="mobilenet_v3_large-5c1a4163.pth",
    ),
    _torchvision(
        "mobilenetv3_small_100.tv_v1_in1k",
        "small",
        At(224, 0.875, 67.668, 87.402),
        file="mobilenet_v3_small-047dcff4.pth",
    ),
)


def _keras(name, variant, file, top1, md5, width=1.0):
    return catalog.keras_application(
        f"{name}.keras_r224",
        variant,
        At(224, 0.875, top1),
        folder="mobilenet_v3",
        file=f"weights_mobilenet_v3_{file}_float.h5",
        no_top_file=f"weights_mobilenet_v3_{file}_float_no_top_v2.h5",
        md5=md5,
        width=width,
        scores_from="the documentation of keras.applications.MobileNetV3Large and MobileNetV3Small",
        paper=_PAPER,
    )


_KERAS = (
    _keras(
        "mobilenetv3_large_075",
        "large",
        "large_224_0.75",
        73.3,
        ("765b44a33ad4005b3ac83185abf1d0eb", "40af19a13ebea4e2ee0c676887f69a2e"),
        width=0.75,
    ),
    _keras(
        "mobilenetv3_large_100",
        "large",
        "large_224_1.0",
        75.6,
        ("59e551e166be033d707958cf9e29a6a7", "07fb09a5933dd0c8eaafa16978110389"),
    ),
    _keras(
        "mobilenetv3_large_minimal_100",
        "large_minimalistic",
        "large_minimalistic_224_1.0",
        72.3,
        ("675e7b876c45c57e9e63e6d90a36599c", "ec5221f64a2f6d1ef965a614bdae7973"),
    ),
    _keras(
        "mobilenetv3_small_075",
        "small",
        "small_224_0.75",
        65.4,
        ("cb65d4e5be93758266aa0a7f2c6708b7", "ebdb5cc8e0b497cd13a7c275d475c819"),
        width=0.75,
    ),
    _keras(
        "mobilenetv3_small_100",
        "small",
        "small_224_1.0",
        68.1,
        ("8768d4c2e7dee89b9d02b2d03d65d862", "d3e8ec802a04aa4fc771ee12a9a9b836"),
    ),
    _keras(
        "mobilenetv3_small_minimal_100",
        "small_minimalistic",
        "small_minimalistic_224_1.0",
        61.9,
        ("99cd97fb2fcdad2bf028eb838de69e37", "cde8136e733e811080d9fcd8a252f7e4"),
    ),
)

WEIGHTS = catalog.by_name(_TIMM, _TORCHVISION, _KERAS)
