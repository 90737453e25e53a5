"""Errors, and functions that check arguments and word the messages: what was wrong, and what is allowed."""

import difflib
import numbers
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

_LISTED = 40  # the largest number of names that a message lists


class MobileNetWarning(UserWarning):
    """Warning about a choice that this library made, data that it left out, or suspicious input.

    The message says what to do about it.
    """


class MobileNetError(Exception):
    """Base class of all errors that this library raises about its input or environment.

    Each subclass also inherits from the matching built-in error, so `except ValueError` catches a wrong argument. Any
    other error is a bug in this library or in its dependencies.
    """


class ArgumentError(MobileNetError, ValueError):
    """A wrong argument, or wrong content of a file that an argument names; the message says what is allowed."""


class UnknownArgumentError(MobileNetError, TypeError):
    """An argument that a function doesn't have.

    The message names the most similar argument, or this library's equivalent of another library's argument.
    """


class CheckpointError(MobileNetError, ValueError):
    """A checkpoint that can't be read or doesn't fit the model; the model is unchanged.

    The names of the mismatched tensors are in the message and in the attributes.

    Attributes:
        missing: Names of tensors that the model needs and the checkpoint lacks.
        left_over: Names of tensors in the checkpoint that match no variable of the model.
        misshapen: `{name: (shape in the checkpoint, expected shape)}`.
        not_finite: Names of tensors that contain NaN or infinity.
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
    """A failed download from, or upload to, a model repository; no partial download is left behind.

    Attributes:
        absent: Whether the server reported that the file doesn't exist.
    """

    def __init__(self, message: str, *, absent: bool = False):
        super().__init__(message)
        self.absent = absent


class ExportError(MobileNetError, ValueError):
    """A model that can't be exported, or an exported file whose outputs differ from the model's.

    An earlier file at the same path is unchanged.

    Attributes:
        rejected: Path of the file that was written and failed verification, or None.
        block: Name of the first layer whose output in the file deviates from the model, or None.
        report: The `ExportReport` of the rejected file, or None.
    """

    def __init__(self, message: str, *, rejected: Any = None, block: str | None = None, report: Any = None):
        super().__init__(message)
        self.rejected = rejected
        self.block = block
        self.report = report


_SURROGATES = re.compile("[\ud800-\udfff]")
_NOT_ESCAPED_BYTES = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def printable(name: Any) -> str:
    r"""Return a name or path as text that can be encoded in UTF-8.

    Most systems allow any bytes in file names. Python represents bytes that aren't valid UTF-8 as lone surrogates,
    which can't be encoded. This function replaces them by escapes: `caf\xe9.png`.
    """
    text = str(name)
    if text.isascii() or not _SURROGATES.search(text):
        return text
    text = _NOT_ESCAPED_BYTES.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def install_hint(extra):
    """Return the command that installs an extra of this library, for error messages."""
    return f"pip install '.[{extra}]' in a clone of mobilenet-zoo"


UPDATE_HINT = "update it with git pull in your clone"  # for files that a newer version of this library wrote


def unknown_name(argument, value, names, see=None):
    """Return the `ValueError` for an unknown name; the message suggests the most similar names.

    Args:
        argument: Name of the argument.
        value: Value of the argument.
        names: Allowed values. The message lists them if there are at most 40.
        see: Call that lists all names, for a message that doesn't list them, such as `"mobilenet_zoo.list_models()"`.
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
    """Return a sentence with up to three of `names` that are similar to `value`, or "" if none is similar."""
    by_lower_case = {name.lower(): name for name in names}
    matches = difflib.get_close_matches(str(value).lower(), by_lower_case, n=3, cutoff=0.5)
    return f" Did you mean {either(repr(by_lower_case[name]) for name in matches)}?" if matches else ""


def one_of(argument: str, value: Any, allowed: Collection[Any]) -> Any:
    """Return the element of `allowed` that equals `value`, or raise a `ValueError` that lists the allowed values."""
    plain = plain_value(value)
    if plain is None or isinstance(plain, (str, numbers.Real)):
        for choice in allowed:
            if choice == plain and isinstance(choice, bool) == isinstance(plain, bool):
                return choice
    raise ArgumentError(f"{argument}={value!r} is not supported. Allowed: {', '.join(map(repr, allowed))}.")


def flag(argument, value):
    """Return `value`, a Python or NumPy bool, as a `bool`, or raise a `ValueError`."""
    plain = plain_value(value)
    if not isinstance(plain, bool):
        raise ArgumentError(f"{argument}={value!r} is not allowed: it must be True or False.")
    return plain


def integer(argument, value, minimum):
    """Return `value` as an `int`, or raise a `ValueError` if it isn't an integer of at least `minimum`."""
    if not is_integer(value) or value < minimum:
        raise ArgumentError(f"{argument}={value!r} is not allowed: it must be an integer of at least {minimum}.")
    return int(value)


def number(argument, value, low, high, *, low_open=False, high_open=False):
    """Return `value` as a `float`, or raise a `ValueError` if it isn't a number between `low` and `high`.

    The interval includes its limits, except for `low` if `low_open` and `high` if `high_open`.
    """
    plain = plain_value(value)
    fits = isinstance(plain, numbers.Real) and not isinstance(plain, bool)
    if fits:
        fits = (low < plain if low_open else low <= plain) and (plain < high if high_open else plain <= high)
    if not fits:  # NaN is rejected here too, because every comparison with it is false.
        interval = f"{'(' if low_open else '['}{low}, {high}{')' if high_open else ']'}"
        raise ArgumentError(f"{argument}={value!r} is not allowed: it must be a number in {interval}.")
    return float(plain)


def mean_and_std(mean: Any, std: Any) -> tuple[Any, Any]:
    """Return the mean and standard deviation of each channel as tuples of `float`s, or raise a `ValueError`.

    Both are for pixels in 0..1. If both are None, the result is `(None, None)`.
    """
    if mean is None and std is None:
        return None, None
    values: tuple[Any, Any]
    try:
        values = tuple(mean), tuple(std)  # pyright: ignore[reportArgumentType]  # None is caught
    except TypeError:  # One of the two is None or a number.
        values = (), ()
    if not values[0] or len(values[0]) != len(values[1]):
        raise ArgumentError(
            f"mean={mean!r} and std={std!r} are not allowed: pass one number per channel for both, or None for both."
        )
    return (
        tuple(number("mean", value, -1e3, 1e3) for value in values[0]),
        tuple(number("std", value, 0, 1e3, low_open=True) for value in values[1]),
    )


def odd_kernel(argument: str, value: Any, *, zero_is_none: bool = False) -> Any:
    """Return an odd kernel size as an `int`, or raise a `ValueError`.

    With `zero_is_none`, both 0 and None are allowed and give None.
    """
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
    """Return an integer or a pair of integers as a tuple of two `int`s, or raise a `ValueError`.

    Args:
        argument: Name of the argument, for the error message.
        value: An integer, which is used for both elements, or a sequence of two integers.
        minimum: Smallest allowed integer.
        names: Description of a pair, for the error message.
    """
    if is_integer(value):
        value = (value, value)
    try:
        sizes = tuple(value)
    except TypeError:  # The value is neither an integer nor a sequence.
        sizes = ()
    if isinstance(value, str) or len(sizes) != 2:
        raise ArgumentError(f"{argument}={value!r} is not allowed: it must be an integer or {names}.")
    first, second = (integer(argument, size, minimum) for size in sizes)
    return first, second


def is_integer(value: Any) -> bool:
    """Return whether `value` is a Python or NumPy integer; bools are not integers here."""
    plain = plain_value(value)
    return isinstance(plain, numbers.Integral) and not isinstance(plain, bool)


def plain_value(value):
    """Return a NumPy scalar or zero-dimensional array as a plain Python value; return anything else unchanged."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return value


def either(words: Iterable[str]) -> str:
    """Join words with commas and "or", as in `"a, b or c"`."""
    *words, last = words
    return f"{', '.join(words)} or {last}" if words else last
