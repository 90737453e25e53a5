"""Errors and the wording that they share: what was given, what is allowed, what was probably meant."""

import difflib
import numbers
import re


class CheckpointError(ValueError):
    """A checkpoint that can't be read or doesn't fit the model, which is left as it was.

    The tensors at fault are attributes as well as part of the message, so that a program can act on them.

    Attributes:
        missing: Names that the model needs and the checkpoint lacks.
        left_over: Names in the checkpoint that the model has no place for.
        misshapen: `{name: (shape found, shape needed)}`.
        not_finite: Names of tensors that hold NaN or infinity.
    """

    def __init__(self, message, *, missing=(), left_over=(), misshapen=None, not_finite=()):
        super().__init__(message)
        self.missing = tuple(missing)
        self.left_over = tuple(left_over)
        self.misshapen = dict(misshapen or {})
        self.not_finite = tuple(not_finite)


class DownloadError(CheckpointError):
    """Something that can't be fetched from, or sent to, where models are published; nothing half-fetched is left.

    Attributes:
        absent: Whether it is known that there is no such file.
    """

    def __init__(self, message, *, absent=False):
        super().__init__(message)
        self.absent = absent


class ExportError(ValueError):
    """A model that could not be exported, or whose file doesn't answer as the model does.

    What was at the path before is still there.

    Attributes:
        rejected: Where a file is that was written and then found wrong, or None.
        block: The layer from which on the file departs from the model, or None.
        report: The `ExportReport` of that file, or None.
    """

    def __init__(self, message, *, rejected=None, block=None, report=None):
        super().__init__(message)
        self.rejected = rejected
        self.block = block
        self.report = report


_SURROGATES = re.compile("[\ud800-\udfff]")
_NOT_ESCAPED_BYTES = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def printable(name):
    r"""Return a name or path as text that can be written in UTF-8.

    Most systems take any bytes as a file's name. Those that are not UTF-8 reach Python as lone surrogates, which no
    encoding takes. Here they read as escapes: `caf\xe9.png`.
    """
    text = str(name)
    if text.isascii() or not _SURROGATES.search(text):
        return text
    text = _NOT_ESCAPED_BYTES.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def install_hint(extra):
    """Return the command that installs what an extra of this library brings."""
    return f"pip install '.[{extra}]' in a clone of mobilenet-zoo"


UPDATE_HINT = "update it by git pull in your clone"  # for files that a newer version of this library wrote


def unknown_name(argument, value, names):
    """The `ValueError` for a `value` that is none of `names`, with the nearest ones first."""
    names = [str(name) for name in names]
    near = difflib.get_close_matches(str(value), names, n=3, cutoff=0.5)
    hint = f" Did you mean {_either(near)}?" if near else ""
    return ValueError(f"{argument}={value!r} is not known.{hint} Allowed: {', '.join(names)}.")


def one_of(argument, value, allowed):
    """Returns `value` if it is one of `allowed`, else raises the `ValueError` that lists them."""
    if value not in allowed:
        raise ValueError(f"{argument}={value!r} is not offered. Allowed: {', '.join(map(repr, allowed))}.")
    return value


def integer(argument, value, minimum):
    """Returns `value` as an `int` of at least `minimum`, else raises a `ValueError`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < minimum:
        raise ValueError(f"{argument}={value!r} is not allowed: it must be an integer of at least {minimum}.")
    return int(value)


def number(argument, value, low, high, *, low_open=False, high_open=False):
    """Returns `value` as a `float` between `low` and `high`, else raises a `ValueError`."""
    fits = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if fits:
        fits = (low < value if low_open else low <= value) and (value < high if high_open else value <= high)
    if not fits:  # NaN compares false with everything, so it ends here too
        span = f"{'(' if low_open else '['}{low}, {high}{')' if high_open else ']'}"
        raise ValueError(f"{argument}={value!r} is not allowed: it must be a number in {span}.")
    return float(value)


def odd_kernel(argument, value, *, zero_is_none=False):
    """Returns an odd kernel size, or None for 0 and None where `zero_is_none`; else raises a `ValueError`."""
    if zero_is_none and (value is None or (value == 0 and not isinstance(value, bool))):
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1 or value % 2 == 0:
        alternative = ", or 0 to leave it out" if zero_is_none else ""
        raise ValueError(
            f"{argument}={value!r} is not allowed: a kernel size must be an odd positive integer, "
            f"such as 1, 3, 5 or 7{alternative}."
        )
    return int(value)


def _either(names):
    quoted = [repr(name) for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"
