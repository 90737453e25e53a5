"""Print for each reference the largest deviation under the running backend: `python -m tests.deviations [key ...]`."""

import sys

import keras

from tests import references


def main(keys):
    """Print a line for each reference, size and data format; return the exit status."""
    print(f"backend {keras.backend.backend()}, tolerance {references.TOLERANCE:.0e} of each output's largest value")
    good = True
    for key in keys or references.open_keys():
        for size in references.checkpoints()[key]["sizes"]:
            for data_format in ("channels_last", "channels_first"):
                found = references.deviations(key, size, data_format)
                output, worst = max(found.items(), key=lambda item: item[1])
                good &= worst <= references.TOLERANCE
                place = f"{key} {size[0]}x{size[1]} {data_format}"
                print(f"{place:64} {worst:.1e} ({output}, the worst of {len(found)})", flush=True)
                keras.utils.clear_session()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
