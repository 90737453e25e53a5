"""Write initial.json.gz: how timm draws each parameter of new models.

Usage, from the root of the repository and beside an installed timm: `python -m tests.reference.make_initial`
"""

import gzip
import json
from pathlib import Path

from tests import initial_values, peers

# All blocks that timm has: depthwise separable, inverted residual with and without squeeze-and-excitation, fused and
# universal bottlenecks, and attention with and without convolutions on key and value.
MODELS = ("mobilenetv1_100", "mobilenetv2_035", "mobilenetv3_small_050", "mobilenetv4_hybrid_medium")
DRAWS = 10


def main():
    """Draw, measure and write."""
    timm = peers.timm()
    table = {}
    for name in MODELS:
        drawn = [initial_values.parameters(timm.create_model(name)) for _ in range(DRAWS)]
        table[name] = {key: initial_values.described([values[key] for values in drawn]) for key in sorted(drawn[0])}
    with gzip.GzipFile(Path(__file__).with_name("initial.json.gz"), "wb", mtime=0) as file:
        file.write(json.dumps(table, indent=0).encode())


if __name__ == "__main__":
    main()
