"""Write initial.json.gz: distributions of the initial parameters of timm's models.

Usage, from the root of the repository and with timm installed: `python -m tests.reference.make_initial`
"""

import gzip
import json
from pathlib import Path

from tests import initial_values, peers

# These models contain all of timm's blocks: depthwise separable, inverted residual with and without
# squeeze-and-excitation, fused and universal bottlenecks, and attention with and without convolutions on key and value.
MODELS = ("mobilenetv1_100", "mobilenetv2_035", "mobilenetv3_small_050", "mobilenetv4_hybrid_medium")
DRAWS = 10


def main():
    """Draw parameters, fit their distributions and write the file."""
    timm = peers.timm()
    table = {}
    for name in MODELS:
        draws = [initial_values.parameters(timm.create_model(name)) for _ in range(DRAWS)]
        table[name] = {
            key: initial_values.fit_distribution([values[key] for values in draws]) for key in sorted(draws[0])
        }
    with gzip.GzipFile(Path(__file__).with_name("initial.json.gz"), "wb", mtime=0) as file:
        file.write(json.dumps(table, indent=0).encode())


if __name__ == "__main__":
    main()
