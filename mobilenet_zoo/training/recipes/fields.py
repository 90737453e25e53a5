"""Fields that say what they are for and what they may hold, and the groups that check them."""

import dataclasses
import math
from typing import Any

from mobilenet_common.errors import ArgumentError, integer, number, one_of, plain_value

_ANY = math.inf


@dataclasses.dataclass(frozen=True)
class Allowed:
    """What a field may hold.

    Attributes:
        kind: "integer", "number", "pair" (two numbers, the smaller first), "text", "boolean", "choice", or a class of
            fields.
        low, high: Of numbers, included unless `low_open` or `high_open`.
        choices: Of a choice.
        null: Whether null is allowed too.
    """

    kind: Any
    low: float = 0
    high: float = _ANY
    low_open: bool = False
    high_open: bool = False
    choices: tuple = ()
    null: bool = False

    def check(self, name, value):
        """Return `value` in its type, else raises a `ValueError` that says what `name` may be."""
        if value is None and self.null:
            return None
        try:
            return self._check(name, value)
        except ArgumentError as error:
            raise ArgumentError(f"{str(error).rstrip('.')}, or null." if self.null else str(error)) from None

    def _check(self, name, value):
        if self.kind == "integer":
            return integer(name, value, self.low)
        if self.kind == "number":
            high_open = self.high_open or self.high == _ANY
            return number(name, value, self.low, self.high, low_open=self.low_open, high_open=high_open)
        if self.kind == "choice":
            return one_of(name, value, self.choices) if isinstance(value, str) else one_of(name, repr(value), ())
        if self.kind == "pair":
            if not isinstance(value, (list, tuple)) or len(value) != 2:
                raise ArgumentError(f"{name}={value!r} is not allowed: it must be two numbers, such as [0.5, 1.0].")
            pair = tuple(number(name, n, self.low, self.high, low_open=True, high_open=n == _ANY) for n in value)
            if pair[0] > pair[1]:
                raise ArgumentError(f"{name}={list(value)} is not allowed: the smaller number comes first.")
            return pair
        kinds: dict[Any, tuple[type, str]] = {"text": (str, "text"), "boolean": (bool, "true or false")}
        kind, words = kinds.get(self.kind) or (self.kind, "a mapping of fields")
        value = plain_value(value)
        if not isinstance(value, kind):
            raise ArgumentError(f"{name}={value!r} is not allowed: it must be {words}.")
        return value

    def __str__(self) -> str:
        if isinstance(self.kind, type):
            words = "fields"
        elif self.kind == "choice":
            words = ", ".join(self.choices)
        elif self.kind == "boolean":
            words = "true, false"
        elif self.kind == "integer":
            words = f"integer ≥ {self.low}"
        elif self.kind in ("number", "pair"):
            low = f"> {self.low}" if self.low_open or self.kind == "pair" else f"≥ {self.low}"
            high = "" if self.high == _ANY else f", {'<' if self.high_open else '≤'} {self.high}"
            words = f"{'number' if self.kind == 'number' else 'two numbers'} {low}{high}"
        else:
            words = str(self.kind)
        return f"{words}, or null" if self.null else words


def described(sentence, kind, default, **limits) -> Any:
    """Return a field of a part: its purpose, the values it may hold (see `Allowed`), and its default."""
    allowed = Allowed(kind, **limits)
    how: dict[str, Any] = {"default_factory": default} if isinstance(default, type) else {"default": default}
    return dataclasses.field(metadata={"sentence": sentence, "allowed": allowed}, **how)


@dataclasses.dataclass(frozen=True)
class Part:
    """A group of fields: checks each when it is made."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = field.metadata["allowed"].check(field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
