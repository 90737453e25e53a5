"""Import `mobilenet_zoo` when a command first needs it.

The import also loads Keras and a backend, which takes seconds. Commands that only run exported files don't need them.
"""

import functools
import importlib
import importlib.util
import os
import sys

from mobilenet_common.errors import install_hint

BACKENDS = ("tensorflow", "jax", "torch")


def choose_backend() -> None:
    """Set KERAS_BACKEND to an installed backend if none is configured, and exit if none is installed.

    Without a configured backend, Keras itself chooses TensorFlow and fails if TensorFlow isn't installed.
    """
    if not _is_installed("keras"):
        sys.exit("mobilenet-zoo needs Keras for this: pip install keras.")
    chosen = os.environ.get("KERAS_BACKEND")
    if chosen in BACKENDS and not _is_installed(chosen):
        sys.exit(f"KERAS_BACKEND={chosen} is not installed: {install_hint(chosen)}.")
    if chosen is not None and chosen not in BACKENDS:
        sys.exit(f"KERAS_BACKEND={chosen} is not supported: set it to {', '.join(BACKENDS)}.")
    home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
    if chosen is not None or os.path.exists(os.path.join(home, "keras.json")):
        return
    installed = [name for name in BACKENDS if _is_installed(name)]
    if not installed:
        sys.exit(f"mobilenet-zoo needs a backend: {install_hint('torch')}, or [jax], or [tensorflow].")
    os.environ["KERAS_BACKEND"] = installed[0]


def _is_installed(name):
    return importlib.util.find_spec(name) is not None


def fix_operation_order() -> None:
    """Make TensorFlow run operations in a fixed order, so that runs are bit-identical.

    Call this before TensorFlow starts.
    """
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")


def begin_with_huge_pages() -> None:
    """Restart this program, with the same process id, so that glibc uses huge pages.

    A training step allocates and frees hundreds of megabytes. With pages of 4 kB, this takes a large part of the step's
    time (docs/benchmarks.md). glibc reads GLIBC_TUNABLES at program start. If the variable is set already, even to an
    empty string, nothing changes.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
        os.execv(sys.executable, sys.orig_argv)


@functools.cache
def zoo():
    """Return the package `mobilenet_zoo`, imported with an installed backend."""
    choose_backend()
    return importlib.import_module("mobilenet_zoo")
