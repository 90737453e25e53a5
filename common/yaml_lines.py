"""YAML by PyYAML's safe loader as nodes, which know their lines, so that an error can name the line at fault."""

import re
from typing import Any

import yaml


class Loader(yaml.SafeLoader):
    """YAML 1.1 without objects, in which 1e-3 is a number as everywhere else."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


class LoaderWithoutAliases(Loader):
    """The same without aliases."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="an alias is not allowed here", problem_mark=mark)
        return super().compose_node(parent, index)


def value_of(node: yaml.Node) -> Any:
    """Return what a node stands for."""
    return Loader("").construct_object(node, deep=True)


def line_of(node: yaml.Node) -> int:
    """Return the line in which a node begins, counted from 1."""
    return node.start_mark.line + 1


def problem_of(error: yaml.YAMLError) -> tuple[int | None, Any]:
    """Return the line that PyYAML refuses, or None where it gives none, and its reason."""
    mark = getattr(error, "problem_mark", None)
    return mark and mark.line + 1, getattr(error, "problem", None) or error
