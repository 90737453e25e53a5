"""Recipes from YAML and from overrides. An error names the file, the line, the field, the value and what is allowed."""

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from mobilenet_common.errors import ArgumentError, unknown_name
from mobilenet_common.types import PathLike
from mobilenet_common.yaml_lines import LoaderWithoutAliases, line_of, problem_of, value_of
from mobilenet_zoo.training.recipes.recipe import Recipe

FOLDER = Path(__file__).parent


@dataclasses.dataclass
class _Source:
    """Where values come from, for messages."""

    name: str
    lines: dict = dataclasses.field(default_factory=dict)

    def error(self, path, message):
        line = self.lines.get(path)
        return ArgumentError(f"{self.name}{f', line {line}' if line else ''}: {message}")


def list_recipes() -> dict[str, str]:
    """Return `{name: one-line summary}` of the recipes that come with the library."""
    return {path.stem: load_recipe(path.stem).summary for path in sorted(FOLDER.glob("*.yaml"))}


def load_recipe(
    recipe: PathLike | Mapping[str, Any] | Recipe = "finetune",
    overrides: Mapping[str, Any] | Iterable[str] | None = None,
) -> Recipe:
    """Return a recipe, checked.

    Args:
        recipe: The name of one that comes with the library (see `list_recipes`), the path of a YAML file, a dictionary
            of fields, or a `Recipe`. A file and a dictionary say only what differs from the recipe that `extends`
            names (a name, or a path beside the file), or from the defaults of the fields.
        overrides: Fields to set: `{"optimizer.learning_rate": 1e-3}`, or texts as of the option `--set`,
            `["optimizer.learning_rate=1e-3", "ema=null"]`, whose values are read as YAML. A field of a part that is
            null gives the part its defaults first.

    Returns:
        A `Recipe`.

    Raises:
        ValueError: Something is unknown, of a wrong type or out of range; the message says where and what is allowed.
    """
    fields = recipe.as_dict() if isinstance(recipe, Recipe) else _read(recipe)
    for path, value in _assignments(overrides):
        source = _Source(f"override {path}")
        tree = value
        for name in reversed(path.split(".")):
            tree = {name: tree}
        fields = _checked(Recipe, fields, tree, source)
    try:
        return _made(Recipe, fields)
    except ArgumentError as error:
        where = f"with {', '.join(path for path, _ in _assignments(overrides))}: " if overrides else ""
        raise ArgumentError(f"{_title(recipe)}: {where}{error}") from None


def _read(recipe, seen=()):
    """Return the fields of a recipe as plain nested dictionaries, each checked by itself."""
    if isinstance(recipe, Mapping):
        tree, source, folder, stem = dict(recipe), _Source("recipe"), Path(), None
    elif isinstance(recipe, (str, os.PathLike)):
        path = _find(recipe)
        if path in seen:
            raise ArgumentError(f"{path}: extends itself, through {', '.join(recipe.name for recipe in seen)}.")
        tree, source = _parsed(path)
        folder, stem, seen = path.parent, path.stem, (*seen, path)
    else:
        raise ArgumentError(
            f"recipe of type {type(recipe).__name__} is not allowed: give a name, a path, a dict or a Recipe."
        )
    base = tree.pop("extends", None)
    if base is None:
        fields = Recipe().as_dict()
    else:
        if not isinstance(base, str):
            raise source.error(("extends",), f"extends={base!r} is not allowed: it must be a recipe's name or path.")
        beside = folder / base
        try:
            fields = _read(beside if beside.is_file() else base, seen)
        except ArgumentError as error:
            raise source.error(("extends",), f"extends {error}") from None
    if stem and "name" not in tree:
        tree["name"] = stem
    return _checked(Recipe, fields, tree, source)


def _find(recipe):
    text = os.fspath(recipe)
    shipped = FOLDER / f"{text}.yaml"
    if re.fullmatch(r"\w+", text) and shipped.is_file():
        return shipped
    path = Path(text)
    if path.is_file():
        return path.resolve()
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise ArgumentError(f"recipe={text!r} is not there: give the path of a YAML file, or a name of {_names()}.")
    raise unknown_name("recipe", text, _names())


def _names():
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def _title(recipe):
    return f"recipe {recipe}" if isinstance(recipe, (str, os.PathLike)) else "recipe"


def _parsed(path):
    """Return `(tree, source)` of a YAML file; the source knows the line of each field."""
    source = _Source(str(path))
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=LoaderWithoutAliases)
        if not isinstance(node, yaml.MappingNode):
            raise ArgumentError(f"{path}: is no recipe: it must hold lines such as `epochs: 20`.")
        return _tree(node, (), source), source
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{path}: is no text in UTF-8: {error.reason} at byte {error.start}.") from None
    except RecursionError:
        raise ArgumentError(f"{path}: is nested too deeply for a recipe.") from None
    except yaml.YAMLError as error:
        line, problem = problem_of(error)
        where = f", line {line}" if line else ""
        raise ArgumentError(f"{path}{where}: is not YAML: {problem}.") from None


def _tree(node, path, source):
    if not isinstance(node, yaml.MappingNode):
        return value_of(node)
    tree = {}
    for key_node, value_node in node.value:
        name = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
        inside, line = (*path, name), line_of(key_node)
        if inside in source.lines:
            raise ArgumentError(
                f"{source.name}, line {line}: {'.'.join(inside)} is set twice, first in line {source.lines[inside]}."
            )
        source.lines[inside] = line
        tree[name] = _tree(value_node, inside, source)
    return tree


def _checked(part, fields, tree, source, path=()):
    """Return `fields` with those of `tree` in their place; a part that was null begins with its defaults."""
    known = {field.name: field.metadata["allowed"] for field in dataclasses.fields(part)}
    result = dict(fields)
    for name, value in tree.items():
        inside = (*path, str(name))
        title = ".".join(inside)
        if name not in known:
            where = ".".join(path) or "field"
            raise source.error(inside, str(unknown_name(where, name, known)))
        kind = known[name].kind
        if isinstance(kind, type) and isinstance(value, Mapping):
            result[name] = _checked(kind, result[name] or dataclasses.asdict(kind()), value, source, inside)
            continue
        if isinstance(kind, type) and isinstance(value, kind):
            value = dataclasses.asdict(value)
        elif isinstance(kind, type) and value is not None:
            names = ", ".join(field.name for field in dataclasses.fields(kind))
            raise source.error(inside, f"{title}={value!r} is not allowed: it must be a mapping of {names}.")
        else:
            try:
                value = known[name].check(title, value)
            except ArgumentError as error:
                raise source.error(inside, str(error)) from None
        result[name] = value
    return result


def _made(part, fields, path=""):
    values = dict(fields)
    for field in dataclasses.fields(part):
        kind = field.metadata["allowed"].kind
        if isinstance(kind, type) and values[field.name] is not None:
            values[field.name] = _made(kind, values[field.name], f"{path}{field.name}.")
    try:
        return part(**values)
    except ArgumentError as error:
        raise ArgumentError(f"{path}{error}" if path and not str(error).startswith(path) else str(error)) from None


def _assignments(overrides):
    """Return `[(path, value)]` of overrides in either form."""
    if overrides is None:
        return []
    if isinstance(overrides, Mapping):
        return [(str(path), value) for path, value in overrides.items()]
    found = []
    for text in [overrides] if isinstance(overrides, str) else overrides:
        path, equals, value = text.partition("=")
        if not equals or not path.strip():
            raise ArgumentError(
                f"override {text!r} is not allowed: write field=value, such as optimizer.learning_rate=1e-3."
            )
        try:
            found.append((path.strip(), yaml.load(value, LoaderWithoutAliases)))
        except yaml.YAMLError:
            raise ArgumentError(f"override {text!r} is not allowed: its value is not YAML; quote a text.") from None
    return found
