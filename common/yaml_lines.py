"""YAML loaded as nodes by PyYAML's safe loader; nodes know their lines, so errors can name the line of a mistake."""

import re
from typing import Any

import yaml


class Loader(yaml.SafeLoader):
    """Safe YAML 1.1 loader that also reads `1e-3` as a number; plain YAML 1.1 reads it as text."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


class LoaderWithoutAliases(Loader):
    """A `Loader` that rejects aliases."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="an alias is not allowed here", problem_mark=mark)
        return super().compose_node(parent, index)


def value_of(node: yaml.Node) -> Any:
    """Return the Python value of a node."""
    return Loader("").construct_object(node, deep=True)


def line_of(node: yaml.Node) -> int:
    """Return the number of the line in which a node begins, counted from 1."""
    return node.start_mark.line + 1


def problem_of(error: yaml.YAMLError) -> tuple[int | None, Any]:
    """Return `(line, reason)` for an error of PyYAML, with the number of the line, or None if the error has no line."""
    mark = getattr(error, "problem_mark", None)
    return mark and mark.line + 1, getattr(error, "problem", None) or error
