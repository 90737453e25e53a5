"""Recipe fields with a description and allowed values, and sections that validate their fields."""

import dataclasses
import math
from typing import Any

from mobilenet_common.errors import ArgumentError, integer, number, one_of, plain_value

_ANY = math.inf


@dataclasses.dataclass(frozen=True)
class Allowed:
    """Allowed values of a field.

    Attributes:
        kind: "integer", "number", "pair" (two numbers, the smaller one first), "text", "boolean", "choice", or a
            subclass of `Part`.
        low, high: Bounds of integers and numbers. They are allowed values unless `low_open` or `high_open` is True.
        choices: Allowed values of a "choice".
        null: Whether null (None) is allowed too.
    """

    kind: Any
    low: float = 0
    high: float = _ANY
    low_open: bool = False
    high_open: bool = False
    choices: tuple = ()
    null: bool = False

    def check(self, name, value):
        """Return `value` converted to the field's type, or raise a `ValueError` with the allowed values of `name`."""
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
        kind, description = kinds.get(self.kind) or (self.kind, "a mapping of fields")
        value = plain_value(value)
        if not isinstance(value, kind):
            raise ArgumentError(f"{name}={value!r} is not allowed: it must be {description}.")
        return value

    def __str__(self) -> str:
        if isinstance(self.kind, type):
            description = "fields"
        elif self.kind == "choice":
            description = ", ".join(self.choices)
        elif self.kind == "boolean":
            description = "true, false"
        elif self.kind == "integer":
            description = f"integer ≥ {self.low}"
        elif self.kind in ("number", "pair"):
            low = f"> {self.low}" if self.low_open or self.kind == "pair" else f"≥ {self.low}"
            high = "" if self.high == _ANY else f", {'<' if self.high_open else '≤'} {self.high}"
            description = f"{'number' if self.kind == 'number' else 'two numbers'} {low}{high}"
        else:
            description = str(self.kind)
        return f"{description}, or null" if self.null else description


def recipe_field(sentence, kind, default, **limits) -> Any:
    """Return a dataclass field with a one-sentence description, its allowed values (see `Allowed`) and a default."""
    allowed = Allowed(kind, **limits)
    default_option: dict[str, Any] = {"default_factory": default} if isinstance(default, type) else {"default": default}
    return dataclasses.field(metadata={"sentence": sentence, "allowed": allowed}, **default_option)


@dataclasses.dataclass(frozen=True)
class Part:
    """Section of a recipe. Its fields are validated when it is created."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = field.metadata["allowed"].check(field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
