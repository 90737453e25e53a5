"""Reading and writing architectures as YAML, in this library's own format or MobileNetV4's `stage_params` format."""

import dataclasses
import pathlib

import keras
import yaml

from mobilenet_common.architecture import Architecture, Head
from mobilenet_common.errors import ArgumentError, integer, unknown_name
from mobilenet_common.rows import KINDS, Attention, Conv, Dense, Fused, Universal
from mobilenet_common.types import PathLike
from mobilenet_common.yaml_lines import Loader, line_of, problem_of, value_of


def read(source: PathLike) -> Architecture:
    """Read an architecture from YAML; see `Architecture.from_yaml`."""
    text = _text(source)
    try:
        node = yaml.compose(text, Loader=Loader)
    except yaml.YAMLError as error:
        line, problem = problem_of(error)
        place = f"Line {line}: " if line else ""
        raise ArgumentError(f"{place}the text is not valid YAML: {problem}.") from None
    if node is None:
        raise ArgumentError("The YAML text is empty: an architecture needs at least the field stages.")
    document = _fields(node, "an architecture")
    if not {"model", "architecture", "backbone", "stage_params"}.isdisjoint(document):
        return _read_stage_params(node)
    return _read_own(node, document)


def write(architecture: Architecture) -> str:
    """Return an architecture as YAML text; see `Architecture.to_yaml`."""
    document = _changed(architecture, ("name",))
    for part in ("stem", "head", "stages"):
        document.pop(part, None)
    document["stem"] = architecture.stem and _Flow(_changed(architecture.stem, ("filters",)))
    document["stages"] = [[_write_row(row) for row in stage] for stage in architecture.stages]
    head = architecture.head
    document["head"] = None
    if head is not None:
        parts = {name: getattr(head, name) for name in ("conv", "dense")}
        document["head"] = {name: _Flow(_changed(row, ("filters",))) for name, row in parts.items() if row}
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=120)


# --- this library's own format -------------------------------------------------------------------------------------


def _read_own(node, document):
    fields = {}
    for name, value in _known_fields(document, Architecture, "an architecture").items():
        if name == "stem":
            fields[name] = _read_row(value, Conv, "the stem")
        elif name == "head":
            fields[name] = _read_head(value)
        elif name == "stages":
            fields[name] = [
                [_read_block(row) for row in _items(stage, "a stage, with one item per row")]
                for stage in _items(value, "stages, with one item per stage")
            ]
        else:
            fields[name] = _value(value)
    return _make(Architecture, fields, node, document)


def _read_head(node):
    if _value(node) is None:
        return None
    kinds = {"conv": Conv, "dense": Dense}
    parts = {
        name: _read_row(value, kinds[name], f"the head's {name}")
        for name, value in _known_fields(_fields(node, "the head"), Head, "the head").items()
    }
    return _make(Head, parts, node)


def _read_block(node):
    fields = _fields(node, "a row")
    if "block" not in fields:
        raise ArgumentError(f"{_line(node)}a row needs the field block. Allowed: {', '.join(KINDS)}.")
    _, kind = fields.pop("block")
    if not isinstance(_value(kind), str) or _value(kind) not in KINDS:
        raise ArgumentError(f"{_line(kind)}{unknown_name('block', _value(kind), KINDS)}")
    return _read_row(node, KINDS[_value(kind)], f"block {_value(kind)!r}", fields)


def _read_row(node, kind, what, fields=None):
    if fields is None:
        if _value(node) is None:
            return None
        fields = _fields(node, what)
    values = {name: _value(value) for name, value in _known_fields(fields, kind, what).items()}
    return _make(kind, values, node)


def _write_row(row):
    kind = next(name for name, cls in KINDS.items() if type(row) is cls)
    return _Flow({"block": kind} | _changed(row))


def _changed(instance, always=()):
    """Return the fields of a dataclass that have no default or differ from it, and the fields named in `always`."""
    return {
        field.name: _plain(getattr(instance, field.name))
        for field in dataclasses.fields(instance)
        if field.name in always or getattr(instance, field.name) != field.default
    }


def _plain(value):
    if callable(value):
        value = keras.activations.serialize(value)
    return list(value) if isinstance(value, tuple) else value


# --- the stage_params format ---------------------------------------------------------------------------------------


def _read_stage_params(node):
    for name in ("model", "architecture", "backbone"):
        fields = _fields(node, "the model")
        node = fields[name][1] if name in fields else node
    backbone = _fields(node, "the backbone")
    for name, (key, _) in backbone.items():
        if name not in ("name", "params", "stage_params"):
            raise ArgumentError(
                f"{_line(key)}{unknown_name('field of the backbone', name, ('name', 'params', 'stage_params'))}"
            )
    if "stage_params" not in backbone:
        raise ArgumentError(f"{_line(node)}the backbone needs the field stage_params, a list of stages.")
    params, given = dict(_STAGE_DEFAULTS), {}
    if "params" in backbone:
        given = _fields(backbone["params"][1], "params")
        for name, (key, value) in given.items():
            if name not in params:
                raise ArgumentError(f"{_line(key)}{unknown_name('field of params', name, params)}")
            params[name] = _value(value)
    stages = [
        [_read_stage_row(row) for row in _items(stage, "a stage, with one item per row")]
        for stage in _items(backbone["stage_params"][1], "stage_params, with one item per stage")
    ]
    if params["return_stage_idx"] is not None:
        raise ArgumentError(
            f"{_line(given['return_stage_idx'][0])}return_stage_idx={params['return_stage_idx']!r} is not supported: "
            "leave it empty and pass pyramid_levels= when you build the model."
        )
    norm = params["norm_type"]
    if not isinstance(norm, str) or norm not in _NORM_TYPES:
        raise ArgumentError(f"{_line(given['norm_type'][0])}{unknown_name('norm_type', norm, _NORM_TYPES)}")

    def convolution(part, **options):
        names = {"filters": "out_channel", "kernel": "kernel_size", "stride": "stride"}
        columns = {field: params[f"{part}_{name}"] for field, name in names.items()}
        nodes = {field: given[f"{part}_{name}"] for field, name in names.items() if f"{part}_{name}" in given}
        return _make(Conv, columns | options, node, nodes)

    name = backbone["name"][1] if "name" in backbone else None
    return _make(
        Architecture,
        {
            "name": _value(name) if name is not None else "mobilenetv4",
            "stem": convolution("stem", scaling="grow"),
            "stages": [*stages, [convolution("final_conv")]],
            "head": Head(dense=Dense(1280)),
            "activation": params["act_type"],
            "normalization": _NORM_TYPES[norm],
            "layer_scale": params["layer_scale"],
        },
        node,
    )


_STAGE_DEFAULTS = {
    "stem_out_channel": 32,
    "stem_kernel_size": 3,
    "stem_stride": 2,
    "final_conv_out_channel": 960,
    "final_conv_kernel_size": 1,
    "final_conv_stride": 1,
    "norm_type": "batch_norm",
    "act_type": "relu",
    "return_stage_idx": None,
    "layer_scale": None,
}
_NORM_TYPES = {"batch_norm": "batch", "group_norm": "group", "layer_norm": "layer"}


def _conv(out, kernel, stride):
    return Conv(out, kernel, stride)


def _fused(out, hidden, kernel, stride):
    return Fused(kernel, hidden, out, stride)


def _universal(out, hidden, has_start, start, has_middle, middle, stride):
    return Universal(start if has_start else 0, middle if has_middle else 0, hidden, out, stride)


def _attention(out, channels, heads, query_stride, has_down, kv_kernel, kv_stride, stride):
    if stride != 1:
        raise ArgumentError(
            f"stride={stride!r} is not allowed: it must be 1, because attention keeps the size of the feature map."
        )
    if channels % integer("heads", heads, 1):
        raise ArgumentError(f"heads={heads} is not allowed: it must divide the {channels} attention channels.")
    return Attention(
        out,
        heads,
        channels // heads,
        kv_kernel=kv_kernel if has_down else 0,
        kv_stride=(kv_stride or 1) if has_down else 1,
        query_stride=query_stride or 1,
    )


_STAGE_ROWS = {"conv": (_conv, 3), "fi": (_fused, 4), "uir": (_universal, 7), "mmqa": (_attention, 8)}


def _read_stage_row(node):
    kind, *columns = (_value(item) for item in _items(node, "a row, with its kind and its columns") or [None])
    if not isinstance(kind, str) or kind not in _STAGE_ROWS:
        raise ArgumentError(f"{_line(node)}{unknown_name('row kind', kind, _STAGE_ROWS)}")
    make, count = _STAGE_ROWS[kind]
    if len(columns) != count:
        raise ArgumentError(
            f"{_line(node)}a row of kind {kind!r} must have {count} columns after its kind, got {len(columns)}."
        )
    try:
        return make(*columns)
    except (ValueError, TypeError) as error:
        raise ArgumentError(f"{_line(node)}{error}") from None


# --- reading nodes, with line numbers in the errors ----------------------------------------------------------------


def _text(source):
    if isinstance(source, pathlib.PurePath):
        return pathlib.Path(source).read_text(encoding="utf-8")
    if not isinstance(source, str):
        raise ArgumentError(
            f"source of type {type(source).__name__} is not allowed: pass the path of a YAML file or YAML text."
        )
    if "\n" in source or not source.rstrip().endswith((".yaml", ".yml")):
        return source
    return pathlib.Path(source).read_text(encoding="utf-8")


def _line(node):
    return f"Line {line_of(node)}: "


def _value(node):
    try:
        return value_of(node)
    except yaml.YAMLError as error:
        raise ArgumentError(f"{_line(node)}{problem_of(error)[1]}.") from None


def _items(node, what):
    if not isinstance(node, yaml.SequenceNode):
        raise ArgumentError(f"{_line(node)}expected a list for {what}.")
    return node.value


def _fields(node, what):
    """Return `{name: (key node, value node)}` of a mapping node."""
    if not isinstance(node, yaml.MappingNode):
        raise ArgumentError(f"{_line(node)}expected fields and values for {what}.")
    fields = {}
    for key, value in node.value:
        if _value(key) in fields:
            raise ArgumentError(f"{_line(key)}the field {_value(key)!r} appears twice.")
        fields[_value(key)] = (key, value)
    return fields


def _known_fields(fields, kind, what):
    """Return `{name: value node}` after checking that every name is a field of the dataclass `kind`."""
    known = [field.name for field in dataclasses.fields(kind)]
    for name, (key, _) in fields.items():
        if name not in known:
            raise ArgumentError(f"{_line(key)}{unknown_name(f'field of {what}', name, known)}")
    return {name: value for name, (_, value) in fields.items()}


def _make(kind, values, node, nodes=None):
    """Return `kind(**values)`; an error names the line of the wrong field in `nodes`, or else the line of `node`."""
    try:
        return kind(**values)
    except (ValueError, TypeError) as error:
        message = str(error)
        if isinstance(error, TypeError) and "missing" in message:
            message = f"a row of kind {kind.__name__} needs {message.split(':')[-1].strip()}."
        field = message.partition("=")[0]
        wrong_node = nodes[field][0] if nodes and field in nodes else node
        raise ArgumentError(message if message.startswith("Line ") else f"{_line(wrong_node)}{message}") from None


class _Flow(dict):
    """A mapping that is written on one line."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(
    _Flow, lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:map", data, flow_style=True)
)
