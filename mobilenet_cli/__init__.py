"""The command `mobilenet-zoo`.

A package of its own: importing `mobilenet_zoo` imports Keras, and for that a backend must have been chosen. Commands
that need neither import neither.
"""

import importlib.util
import sys

from mobilenet_common.errors import install_hint


def main() -> None:
    """Run the command."""
    missing = [name for name in ("typer", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"mobilenet-zoo needs {' and '.join(missing)}: {install_hint('cli')}.")
    if sys.argv[1:2] == ["train"]:
        from mobilenet_cli.zoo import begin_with_huge_pages

        begin_with_huge_pages()
    from mobilenet_cli.streams import prepared

    with prepared():
        from mobilenet_cli.commands import app

        app()
