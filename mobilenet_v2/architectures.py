"""Architecture of MobileNet V2 (arXiv:1801.04381, table 2), its published widths, and timm's deeper variants."""

import dataclasses

from mobilenet_common.architecture import Architecture, Conv, Head, Inverted


def _stages(rows, stem):
    """Return the stages for rows of the paper's table: t (expansion), c (filters), n (repeats) and s (stride)."""
    stages, channels = [], stem
    for t, c, n, s in rows:
        stage = []
        for i in range(n):
            expanded = channels * t if t > 1 else None
            stage.append(Inverted(3, expanded, c, stride=s if i == 0 else 1))
            channels = c
        stages.append(tuple(stage))
    return tuple(stages)


MOBILENET_V2 = Architecture(
    name="mobilenetv2_{width}",
    stem=Conv(32, stride=2),
    stages=_stages(
        [
            # t, c, n, s
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ],
        stem=32,
    ),
    head=Head(conv=Conv(1280, kernel=1, scaling="grow")),
    activation="relu6",
)

# timm's "d" variants are wider and deeper, with the stem and head of V2 at width 1.
MOBILENET_V2_110D = dataclasses.replace(
    MOBILENET_V2,
    name="mobilenetv2_110d",
    stages=_stages(
        [
            (1, 16, 1, 1),
            (6, 24, 3, 2),
            (6, 32, 4, 2),
            (6, 72, 5, 2),
            (6, 104, 4, 1),
            (6, 176, 4, 2),
            (6, 352, 1, 1),
        ],
        stem=32,
    ),
)
MOBILENET_V2_120D = dataclasses.replace(
    MOBILENET_V2,
    name="mobilenetv2_120d",
    stages=_stages(
        [
            (1, 24, 1, 1),
            (6, 32, 3, 2),
            (6, 40, 5, 2),
            (6, 80, 6, 2),
            (6, 112, 5, 1),
            (6, 192, 5, 2),
            (6, 384, 1, 1),
        ],
        stem=32,
    ),
)

VARIANTS = {
    "1.0": MOBILENET_V2,
    "0.75": dataclasses.replace(MOBILENET_V2, width=0.75),
    "0.5": dataclasses.replace(MOBILENET_V2, width=0.5),
    "0.35": dataclasses.replace(MOBILENET_V2, width=0.35),
    "1.3": dataclasses.replace(MOBILENET_V2, width=1.3),
    "1.4": dataclasses.replace(MOBILENET_V2, width=1.4),
    "1.1d": MOBILENET_V2_110D,
    "1.2d": MOBILENET_V2_120D,
}
