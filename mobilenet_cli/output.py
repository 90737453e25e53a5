"""How results are printed, and how errors end a command."""

import functools
import json
import re
import sys
import warnings

import typer
from rich.console import Console
from rich.markup import escape

from mobilenet_common.errors import MobileNetWarning
from mobilenet_runtime import RuntimeMissing

_SURROGATES = re.compile("[\ud800-\udfff]")

messages = Console(stderr=True, highlight=False)


def told(command):
    """A command whose errors, which say what to do, end it as a message in place of a traceback."""

    @functools.wraps(command)
    def run(*args, **kwargs):
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _shown_as_message(warnings.showwarning)
                return command(*args, **kwargs)
        except BrokenPipeError:
            raise
        except (ValueError, OSError, RuntimeMissing) as error:
            messages.print(f"[red]Error:[/red] {escape(str(error))}", soft_wrap=True)
            raise typer.Exit(2) from None

    return run


def _shown_as_message(usual):
    """Show this library's warnings in one line, and others' as usual."""

    def show(message, category, filename, *rest):
        if issubclass(category, MobileNetWarning):
            messages.print(f"[yellow]Warning:[/yellow] {escape(str(message))}", soft_wrap=True)
        else:
            usual(message, category, filename, *rest)

    return show


def print_json(record):
    """Print what a program would read."""
    print(as_json(record, sys.stdout, indent=2))


def as_json(record, stream, **options):
    """Return a record as JSON that `stream` can write: with escapes for letters that its encoding may lack."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    text = json.dumps(record, ensure_ascii=not encoding.lower().startswith("utf"), **options)
    return _SURROGATES.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
