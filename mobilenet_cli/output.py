"""How results are printed, and how errors end a command."""

import functools
import json
import sys

import typer
from rich.console import Console
from rich.markup import escape

from mobilenet_runtime import RuntimeMissing

messages = Console(stderr=True, highlight=False)


def told(command):
    """A command whose errors, which say what to do, end it as a message in place of a traceback."""

    @functools.wraps(command)
    def run(*args, **kwargs):
        try:
            return command(*args, **kwargs)
        except (ValueError, OSError, RuntimeMissing) as error:
            messages.print(f"[red]Error:[/red] {escape(str(error))}", soft_wrap=True)
            raise typer.Exit(2) from None

    return run


def print_json(record):
    """Print what a program would read."""
    json.dump(record, sys.stdout, indent=2, ensure_ascii=False)
    print()
