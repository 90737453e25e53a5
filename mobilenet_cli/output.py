"""Print results, warnings and errors."""

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
    """Return a command that prints this library's errors as messages instead of tracebacks, and exits with status 2.

    Errors of the operating system, such as those about files and disks, are printed in the same way. Any other error is
    a bug and keeps its traceback.

    An error about an argument of a library function names the command's option instead.
    """
    options = _options_of(command)

    @functools.wraps(command)
    def run(*args, **kwargs):
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _print_as_message(warnings.showwarning)
                return command(*args, **kwargs)
        except BrokenPipeError:
            raise
        except (MobileNetError, OSError) as error:
            messages.print(f"[red]Error:[/red] {escape(_with_options(str(error), options))}", soft_wrap=True)
            raise typer.Exit(2) from None

    return run


def _options_of(command):
    """Return `{parameter name: option}` of a command."""
    options = {}
    for name, parameter in inspect.signature(command).parameters.items():
        for declared in getattr(parameter.annotation, "__metadata__", ()):
            if isinstance(declared, typer.models.OptionInfo):
                option_names = [decl for decl in declared.param_decls or () if decl.startswith("--")]
                option = option_names[0].partition("/")[0] if option_names else f"--{name.strip('_').replace('_', '-')}"
                options[name.strip("_")] = option
    return options


def _with_options(message, options):
    """Return the message with argument names replaced by the command's options.

    A name that is a single word can also occur as an ordinary word, so it is only replaced at the start of the message.
    """

    def option(match):
        return options[match[0]]

    for name in options:
        pattern = rf"(?<![\w.-]){name}(?![\w.])" if "_" in name else rf"^{name}(?==)"
        message = re.sub(pattern, option, message)
    return re.sub("^override ", f"{options['set']} ", message) if "set" in options else message


def _print_as_message(default):
    """Return a `showwarning` that prints this library's warnings as one line, and passes all others to `default`."""

    def show(message, category, filename, *rest):
        if issubclass(category, MobileNetWarning):
            messages.print(f"[yellow]Warning:[/yellow] {escape(str(message))}", soft_wrap=True)
        else:
            default(message, category, filename, *rest)

    return show


def print_json(record):
    """Print a record as JSON."""
    print(as_json(record, sys.stdout, indent=2))


def as_json(record, stream, **options):
    """Return a record as JSON that `stream` can write, with escapes for characters that its encoding may lack.

    JSON is Unicode, but the name of a file may not be. Such a name is written as `printable` shows it. A field whose
    value is such a name gets an additional field with the bytes of the name in Base64: `image` and `image_base64`.
    """
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return json.dumps(_as_unicode(record), ensure_ascii=not encoding.lower().startswith("utf"), **options)


def _as_unicode(value):
    """Return the record with all strings as valid Unicode."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, (list, tuple)):
        return [_as_unicode(part) for part in value]
    if not isinstance(value, dict):
        return value
    result = {}
    for name, part in value.items():
        name = printable(name) if isinstance(name, str) else name
        result[name] = _as_unicode(part)
        if isinstance(part, str) and result[name] != part:
            result[f"{name}_base64"] = base64.b64encode(_bytes_of(part)).decode("ascii")
    return result


def _bytes_of(text):
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:  # The surrogates don't stand for bytes of a file name.
        return text.encode("utf-8", "surrogatepass")
