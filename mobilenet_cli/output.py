"""How results are printed, and how errors end a command."""

import base64
import functools
import inspect
import json
import os
import re
import sys
import warnings

import typer
from rich.console import Console
from rich.markup import escape

from mobilenet_common.errors import MobileNetError, MobileNetWarning, printable

messages = Console(stderr=True, highlight=False)


def report_errors(command):
    """Return a command that this library's errors, which say what to do, end as a message in place of a traceback.

    So do the system's own, about files and disks. Any other error is a bug, and keeps its traceback.

    An error about an argument of the library names the option of the command.
    """
    options = _options_of(command)

    @functools.wraps(command)
    def run(*args, **kwargs):
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _shown_as_message(warnings.showwarning)
                return command(*args, **kwargs)
        except BrokenPipeError:
            raise
        except (MobileNetError, OSError) as error:
            messages.print(f"[red]Error:[/red] {escape(_with_options(str(error), options))}", soft_wrap=True)
            raise typer.Exit(2) from None

    return run


def _options_of(command):
    """Return `{name of a parameter: its option}` of a command."""
    found = {}
    for name, parameter in inspect.signature(command).parameters.items():
        for declared in getattr(parameter.annotation, "__metadata__", ()):
            if isinstance(declared, typer.models.OptionInfo):
                spelled = [decl for decl in declared.param_decls or () if decl.startswith("--")]
                option = spelled[0].partition("/")[0] if spelled else f"--{name.strip('_').replace('_', '-')}"
                found[name.strip("_")] = option
    return found


def _with_options(message, options):
    """Return a message in which the arguments of a command are written as its options.

    A name of one word may be any word elsewhere, and is taken for an argument where it begins the message only.
    """

    def option(found):
        return options[found[0]]

    for name in options:
        pattern = rf"(?<![\w.-]){name}(?![\w.])" if "_" in name else rf"^{name}(?==)"
        message = re.sub(pattern, option, message)
    return re.sub("^override ", f"{options['set']} ", message) if "set" in options else message


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
    """Return a record as JSON that `stream` can write: with escapes for letters that its encoding may lack.

    JSON is Unicode, and a file's name need not be. Such a name is written as `printable` shows it, and a field that is
    the name alone gets another one beside it with the name's own bytes in Base64: `image` and `image_base64`.
    """
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return json.dumps(_as_unicode(record), ensure_ascii=not encoding.lower().startswith("utf"), **options)


def _as_unicode(value):
    """Return a record in which all texts are Unicode."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, (list, tuple)):
        return [_as_unicode(part) for part in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for name, part in value.items():
        name = printable(name) if isinstance(name, str) else name
        found[name] = _as_unicode(part)
        if isinstance(part, str) and found[name] != part:
            found[f"{name}_base64"] = base64.b64encode(_bytes_of(part)).decode("ascii")
    return found


def _bytes_of(text):
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:  # surrogates that stand for no bytes of a file's name
        return text.encode("utf-8", "surrogatepass")
