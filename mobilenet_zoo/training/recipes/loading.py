"""Loading recipes from YAML and overrides. Errors name the file, the line, the field, the value and what is allowed."""

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
    """Source of values, for error messages."""

    name: str
    lines: dict = dataclasses.field(default_factory=dict)

    def error(self, path, message):
        line = self.lines.get(path)
        return ArgumentError(f"{self.name}{f', line {line}' if line else ''}: {message}")


def list_recipes() -> dict[str, str]:
    """Return `{name: summary}` of the recipes that come with the library; a summary is one sentence."""
    return {path.stem: load_recipe(path.stem).summary for path in sorted(FOLDER.glob("*.yaml"))}


def load_recipe(
    recipe: PathLike | Mapping[str, Any] | Recipe = "finetune",
    overrides: Mapping[str, Any] | Iterable[str] | None = None,
) -> Recipe:
    """Load and validate a recipe.

    Args:
        recipe: Name of a recipe that comes with the library (see `list_recipes`), path of a YAML file, dictionary of
            fields, or `Recipe`. A file or dictionary contains only the fields that differ from the recipe that its
            field `extends` names (a name, or a path relative to the file), or else from the defaults.
        overrides: Fields to set, either `{"optimizer.learning_rate": 1e-3}` or strings as for the option `--set`, such
            as `["optimizer.learning_rate=1e-3", "ema=null"]`, whose values are parsed as YAML. If the section that
            contains the field is null, its other fields get their defaults.

    Returns:
        A `Recipe`.

    Raises:
        ValueError: A name is unknown, or a value has the wrong type or is out of range. The message says where, and
            what is allowed.
    """
    fields = recipe.as_dict() if isinstance(recipe, Recipe) else _read_fields(recipe)
    for path, value in _assignments(overrides):
        source = _Source(f"override {path}")
        tree = value
        for name in reversed(path.split(".")):
            tree = {name: tree}
        fields = _merge(Recipe, fields, tree, source)
    try:
        return _build(Recipe, fields)
    except ArgumentError as error:
        location = f"with {', '.join(path for path, _ in _assignments(overrides))}: " if overrides else ""
        raise ArgumentError(f"{_title(recipe)}: {location}{error}") from None


def _read_fields(recipe, seen=()):
    """Return the fields of a recipe as nested dictionaries of plain values, each validated on its own."""
    if isinstance(recipe, Mapping):
        tree, source, folder, default_name = dict(recipe), _Source("recipe"), Path(), None
    elif isinstance(recipe, (str, os.PathLike)):
        path = _find_file(recipe)
        if path in seen:
            raise ArgumentError(f"{path} extends itself, through {', '.join(recipe.name for recipe in seen)}.")
        tree, source = _parse(path)
        folder, default_name, seen = path.parent, path.stem, (*seen, path)
    else:
        raise ArgumentError(
            f"recipe of type {type(recipe).__name__} is not allowed: pass a name, a path, a dict or a Recipe."
        )
    base = tree.pop("extends", None)
    if base is None:
        fields = Recipe().as_dict()
    else:
        if not isinstance(base, str):
            raise source.error(("extends",), f"extends={base!r} is not allowed: it must be a recipe's name or path.")
        sibling = folder / base
        try:
            fields = _read_fields(sibling if sibling.is_file() else base, seen)
        except ArgumentError as error:
            raise source.error(("extends",), f"extends: {error}") from None
    if default_name and "name" not in tree:
        tree["name"] = default_name
    return _merge(Recipe, fields, tree, source)


def _find_file(recipe):
    text = os.fspath(recipe)
    bundled = FOLDER / f"{text}.yaml"
    if re.fullmatch(r"\w+", text) and bundled.is_file():
        return bundled
    path = Path(text)
    if path.is_file():
        return path.resolve()
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise ArgumentError(
            f"recipe={text!r} does not exist: pass the path of a YAML file, or one of {', '.join(_bundled_names())}."
        )
    raise unknown_name("recipe", text, _bundled_names())


def _bundled_names():
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def _title(recipe):
    return f"recipe {recipe}" if isinstance(recipe, (str, os.PathLike)) else "recipe"


def _parse(path):
    """Return `(tree, source)` of a YAML file; the source contains the line of each field."""
    source = _Source(str(path))
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=LoaderWithoutAliases)
        if not isinstance(node, yaml.MappingNode):
            raise ArgumentError(f"{path} is not a recipe: it must contain lines such as `epochs: 20`.")
        return _tree(node, (), source), source
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}.") from None
    except RecursionError:
        raise ArgumentError(f"{path} is nested too deeply for a recipe.") from None
    except yaml.YAMLError as error:
        line, problem = problem_of(error)
        location = f", line {line}" if line else ""
        raise ArgumentError(f"{path}{location}: not YAML: {problem}.") from None


def _tree(node, path, source):
    if not isinstance(node, yaml.MappingNode):
        return value_of(node)
    tree = {}
    for key_node, value_node in node.value:
        name = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
        field_path, line = (*path, name), line_of(key_node)
        if field_path in source.lines:
            raise ArgumentError(
                f"{source.name}, line {line}: {'.'.join(field_path)} is set twice, first in line "
                f"{source.lines[field_path]}."
            )
        source.lines[field_path] = line
        tree[name] = _tree(value_node, field_path, source)
    return tree


def _merge(part, fields, tree, source, path=()):
    """Return `fields` updated with the values of `tree`; a section that was null starts with its defaults."""
    allowed = {field.name: field.metadata["allowed"] for field in dataclasses.fields(part)}
    result = dict(fields)
    for name, value in tree.items():
        field_path = (*path, str(name))
        title = ".".join(field_path)
        if name not in allowed:
            location = ".".join(path) or "field"
            raise source.error(field_path, str(unknown_name(location, name, allowed)))
        kind = allowed[name].kind
        if isinstance(kind, type) and isinstance(value, Mapping):
            result[name] = _merge(kind, result[name] or dataclasses.asdict(kind()), value, source, field_path)
            continue
        if isinstance(kind, type) and isinstance(value, kind):
            value = dataclasses.asdict(value)
        elif isinstance(kind, type) and value is not None:
            names = ", ".join(field.name for field in dataclasses.fields(kind))
            raise source.error(field_path, f"{title}={value!r} is not allowed: it must be a mapping of {names}.")
        else:
            try:
                value = allowed[name].check(title, value)
            except ArgumentError as error:
                raise source.error(field_path, str(error)) from None
        result[name] = value
    return result


def _build(part, fields, path=""):
    values = dict(fields)
    for field in dataclasses.fields(part):
        kind = field.metadata["allowed"].kind
        if isinstance(kind, type) and values[field.name] is not None:
            values[field.name] = _build(kind, values[field.name], f"{path}{field.name}.")
    try:
        return part(**values)
    except ArgumentError as error:
        raise ArgumentError(f"{path}{error}" if path and not str(error).startswith(path) else str(error)) from None


def _assignments(overrides):
    """Return a list of `(path, value)` from overrides in either form."""
    if overrides is None:
        return []
    if isinstance(overrides, Mapping):
        return [(str(path), value) for path, value in overrides.items()]
    assignments = []
    for text in [overrides] if isinstance(overrides, str) else overrides:
        path, equals, value = text.partition("=")
        if not equals or not path.strip():
            raise ArgumentError(
                f"override {text!r} is not allowed: write field=value, such as optimizer.learning_rate=1e-3."
            )
        try:
            assignments.append((path.strip(), yaml.load(value, LoaderWithoutAliases)))
        except yaml.YAMLError:
            raise ArgumentError(
                f"override {text!r} is not allowed: its value is not YAML; put strings in quotes."
            ) from None
    return assignments
