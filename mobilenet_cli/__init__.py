"""The command `mobilenet-zoo`.

This is a separate package because importing `mobilenet_zoo` imports Keras, which requires a backend. Commands that need
no Keras don't import it.
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
    from mobilenet_cli.streams import configured_streams

    with configured_streams():
        from mobilenet_cli.commands import app

        app()
