"""Run a worker module without libraries that it doesn't need: `python -m tests.lean MODULE [ARGUMENTS]`.

Keras imports other backends, matplotlib, pandas and scikit-learn if they are installed. It works without them, and
importing them takes half of a worker's start-up time. KERAS_BACKEND must be tensorflow, jax or torch. It can't be
openvino, because that backend uses scipy, which fails if the other backends are blocked.
"""

import os
import runpy
import sys

_OPTIONAL = {"jax", "matplotlib", "pandas", "sklearn", "tensorflow", "torch"}


def main(module, *arguments):
    sys.modules.update(dict.fromkeys(_OPTIONAL - {os.environ["KERAS_BACKEND"]}))
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
