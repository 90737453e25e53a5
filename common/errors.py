"""Errors and the wording that they share: what was given, what is allowed, what was probably meant."""

import difflib
import numbers
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

_LISTED = 40  # names in a message; more hide what it says


class MobileNetWarning(UserWarning):
    """What this library has chosen, left out or found suspicious; the message says what to do about it."""


class MobileNetError(Exception):
    """What this library says about its input or surroundings: every error below is one.

    Each is the built-in kind too, so `except ValueError` finds a wrong argument. Any other error is a bug here or in
    what the library is built on.
    """


class ArgumentError(MobileNetError, ValueError):
    """An argument, or what is in a file that one names, that can't be used; the message says what can."""


class UnknownArgumentError(MobileNetError, TypeError):
    """An argument that a function doesn't have; the message names the nearest, or ours for another library's."""


class CheckpointError(MobileNetError, ValueError):
    """A checkpoint that can't be read or doesn't fit the model, which is left as it was.

    The tensors at fault are attributes as well as part of the message, so that a program can act on them.

    Attributes:
        missing: Names that the model needs and the checkpoint lacks.
        left_over: Names in the checkpoint that the model has no place for.
        misshapen: `{name: (shape found, shape needed)}`.
        not_finite: Names of tensors that hold NaN or infinity.
    """

    def __init__(
        self,
        message: str,
        *,
        missing: Iterable[str] = (),
        left_over: Iterable[str] = (),
        misshapen: Mapping[str, Any] | None = None,
        not_finite: Iterable[str] = (),
    ):
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

    def __init__(self, message: str, *, absent: bool = False):
        super().__init__(message)
        self.absent = absent


class ExportError(MobileNetError, ValueError):
    """A model that could not be exported, or whose file doesn't compute what the model does.

    What was at the path before is still there.

    Attributes:
        rejected: Where a file is that was written and then found wrong, or None.
        block: The layer from which on the file deviates from the model, or None.
        report: The `ExportReport` of that file, or None.
    """

    def __init__(self, message: str, *, rejected: Any = None, block: str | None = None, report: Any = None):
        super().__init__(message)
        self.rejected = rejected
        self.block = block
        self.report = report


_SURROGATES = re.compile("[\ud800-\udfff]")
_NOT_ESCAPED_BYTES = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def printable(name: Any) -> str:
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


def unknown_name(argument, value, names, see=None):
    """Return the `ValueError` for a `value` that is none of `names`, with the nearest ones first.

    Args:
        argument: Whose value it is.
        value: What was given.
        names: What is allowed; up to 40 are listed.
        see: What lists all names where they are more, such as `"mobilenet_zoo.list_models()"`.
    """
    names = [str(name) for name in names]
    hint = did_you_mean(value, names)
    if len(names) <= _LISTED:
        allowed = f" Allowed: {', '.join(names)}."
    elif see:
        allowed = f" Allowed: {len(names)} names; list all with: {see}."
    else:
        allowed = "" if hint else f" Allowed: {len(names)} names, such as {either(map(repr, names[:3]))}."
    return ArgumentError(f"{argument}={value!r} is not known.{hint}{allowed}")


def did_you_mean(value: Any, names: Iterable[str]) -> str:
    """Return a sentence with the three of `names` that are nearest to `value`, or "" where none is near."""
    by_lower_case = {name.lower(): name for name in names}
    near = difflib.get_close_matches(str(value).lower(), by_lower_case, n=3, cutoff=0.5)
    return f" Did you mean {either(repr(by_lower_case[name]) for name in near)}?" if near else ""


def one_of(argument: str, value: Any, allowed: Collection[Any]) -> Any:
    """Return the one of `allowed` that equals `value`, else raise the `ValueError` that lists them."""
    plain = plain_value(value)
    if plain is None or isinstance(plain, (str, numbers.Real)):
        for choice in allowed:
            if choice == plain and isinstance(choice, bool) == isinstance(plain, bool):
                return choice
    raise ArgumentError(f"{argument}={value!r} is not offered. Allowed: {', '.join(map(repr, allowed))}.")


def flag(argument, value):
    """Return `value` as a `bool`, else raise a `ValueError`; NumPy's own are taken too."""
    plain = plain_value(value)
    if not isinstance(plain, bool):
        raise ArgumentError(f"{argument}={value!r} is not allowed: it must be True or False.")
    return plain


def integer(argument, value, minimum):
    """Return `value` as an `int` of at least `minimum`, else raise a `ValueError`."""
    if not is_integer(value) or value < minimum:
        raise ArgumentError(f"{argument}={value!r} is not allowed: it must be an integer of at least {minimum}.")
    return int(value)


def number(argument, value, low, high, *, low_open=False, high_open=False):
    """Return `value` as a `float` between `low` and `high`, else raise a `ValueError`."""
    plain = plain_value(value)
    fits = isinstance(plain, numbers.Real) and not isinstance(plain, bool)
    if fits:
        fits = (low < plain if low_open else low <= plain) and (plain < high if high_open else plain <= high)
    if not fits:  # NaN compares false with everything, so it ends here too
        span = f"{'(' if low_open else '['}{low}, {high}{')' if high_open else ']'}"
        raise ArgumentError(f"{argument}={value!r} is not allowed: it must be a number in {span}.")
    return float(plain)


def mean_and_std(mean: Any, std: Any) -> tuple[Any, Any]:
    """Return the mean and the standard deviation of each channel as tuples of `float`s, else raise a `ValueError`.

    Both are for pixels in 0..1. None for both is returned as it is.
    """
    if mean is None and std is None:
        return None, None
    values: tuple[Any, Any]
    try:
        values = tuple(mean), tuple(std)  # pyright: ignore[reportArgumentType]  # None is caught
    except TypeError:  # only one is None, or one is a number
        values = (), ()
    if not values[0] or len(values[0]) != len(values[1]):
        raise ArgumentError(
            f"mean={mean!r} and std={std!r} are not allowed: give a number for each channel in both, or None for both."
        )
    return (
        tuple(number("mean", value, -1e3, 1e3) for value in values[0]),
        tuple(number("std", value, 0, 1e3, low_open=True) for value in values[1]),
    )


def odd_kernel(argument: str, value: Any, *, zero_is_none: bool = False) -> Any:
    """Return an odd kernel size, or None for 0 and None where `zero_is_none`; else raise a `ValueError`."""
    if zero_is_none and (value is None or (is_integer(value) and value == 0)):
        return None
    if not is_integer(value) or value < 1 or value % 2 == 0:
        alternative = ", or 0 to leave it out" if zero_is_none else ""
        raise ArgumentError(
            f"{argument}={value!r} is not allowed: a kernel size must be an odd positive integer, "
            f"such as 1, 3, 5 or 7{alternative}."
        )
    return int(value)


def pair(argument, value, minimum, names="a pair (rows, columns)") -> tuple[Any, Any]:
    """Return an integer twice, or a pair of integers, as a tuple of two `int`s, else raise a `ValueError`."""
    if is_integer(value):
        value = (value, value)
    try:
        sizes = tuple(value)
    except TypeError:  # neither an integer nor a sequence
        sizes = ()
    if isinstance(value, str) or len(sizes) != 2:
        raise ArgumentError(f"{argument}={value!r} is not allowed: it must be an integer or {names}.")
    first, second = (integer(argument, size, minimum) for size in sizes)
    return first, second


def is_integer(value: Any) -> bool:
    """Return whether `value` is an integer of Python's or NumPy's, and not a bool."""
    plain = plain_value(value)
    return isinstance(plain, numbers.Integral) and not isinstance(plain, bool)


def plain_value(value):
    """Return what a scalar of NumPy, or an array without axes, holds, as Python's own type; all else as it is."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return value


def either(words: Iterable[str]) -> str:
    """Return one word or more as a text: `"a, b or c"`."""
    *words, last = words
    return f"{', '.join(words)} or {last}" if words else last
