"""The command `mobilenet-zoo`.

A package of its own: importing `mobilenet_zoo` imports Keras, and for that a backend must have been chosen.
"""

import importlib.util
import os
import sys

BACKENDS = ("tensorflow", "jax", "torch")


def main():
    """Runs the command; picks a backend that is installed where neither KERAS_BACKEND nor Keras's settings name one."""
    missing = [name for name in ("typer", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"mobilenet-zoo needs {' and '.join(missing)}: pip install 'mobilenet-zoo[cli]'.")
    choose_backend()
    from mobilenet_cli.app import app

    app()


def choose_backend():
    """Set KERAS_BACKEND to an installed one if nobody has chosen.

    Keras's own choice, without settings, is TensorFlow, and fails where that isn't installed.
    """
    home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
    if "KERAS_BACKEND" in os.environ or os.path.exists(os.path.join(home, "keras.json")):
        return
    installed = [name for name in BACKENDS if importlib.util.find_spec(name) is not None]
    if not installed:
        sys.exit("mobilenet-zoo needs a backend: pip install 'mobilenet-zoo[torch]', or [jax], or [tensorflow].")
    os.environ["KERAS_BACKEND"] = installed[0]
