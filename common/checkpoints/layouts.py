"""How each library names its tensors: rules that turn a model of ours into the names that a checkpoint must hold.

A rule goes by a layer's kind and place and never lists names, so it serves every variant, width and custom
architecture.
"""

import dataclasses
import re

from mobilenet_common.layers import (
    ChannelAttention,
    ConvNormActivation,
    DepthwiseSeparable,
    FusedInvertedBottleneck,
    InvertedResidual,
    LayerScale,
    MobileAttention,
    SqueezeExcite,
    UniversalInvertedBottleneck,
)

BLOCK_NAME = re.compile(r"stage(\d+)_block(\d+)")


@dataclasses.dataclass(frozen=True)
class Unit:
    """A layer of ours that holds variables, and what its two halves are called elsewhere.

    Attributes:
        layer: A `ConvNormActivation`, `NormActivation`, `LayerScale` or Keras `Dense`.
        convolution: Name of the part with kernel and bias; for a `LayerScale` the name of the factors.
        normalization: Name of the part with scale, shift and statistics.
    """

    layer: object
    convolution: str | None = None
    normalization: str | None = None


@dataclasses.dataclass(frozen=True)
class Entry:
    """One variable of a model and the name of its tensor in a checkpoint.

    `kind` is `"convolution"`, `"depthwise"`, `"dense"` or `"vector"`, which says how its axes are ordered elsewhere.
    """

    variable: object
    name: str
    kind: str


@dataclasses.dataclass(frozen=True)
class Layout:
    """The naming of one library.

    Attributes:
        name: What users call it.
        entries: Function of a model that lists its `Entry`s.
        recognises: Function of a checkpoint's names that tells whether they are this library's.
        head: Pattern of names that belong to pool and classifier, which a model without top does not need.
        classifier: Pattern of the name of the classifier's bias.
        dropped: Pattern of names that hold nothing to load.
        torch_axes: Whether kernels are (out, in, rows, columns) and dense ones (out, in).
    """

    name: str
    entries: object
    recognises: object
    head: re.Pattern
    classifier: re.Pattern
    dropped: re.Pattern = re.compile(r"(?!)")
    torch_axes: bool = False


_TORCH_SUFFIXES = {
    "kernel": ".weight",
    "bias": ".bias",
    "gamma": ".weight",
    "beta": ".bias",
    "moving_mean": ".running_mean",
    "moving_variance": ".running_var",
}
_KERAS_SUFFIXES = {
    "kernel": "/0",
    "bias": "/1",
    "gamma": "/0",
    "beta": "/1",
    "moving_mean": "/2",
    "moving_variance": "/3",
}
_COUNTERS = re.compile(r"(^|\.)num_batches_tracked$")
_IN_CONVOLUTION = ("kernel", "bias")
_IN_NORMALIZATION = ("gamma", "beta", "moving_mean", "moving_variance")


def blocks(model):
    """`(stage, block, layer)` of the model's blocks, counted from 1, in the order in which they run."""
    found = []
    for layer in model.layers:
        match = BLOCK_NAME.fullmatch(layer.name)
        if match:
            found.append((int(match[1]), int(match[2]), layer))
    return sorted(found, key=lambda block: block[:2])


def part(model, name):
    """The model's layer called `name`, or None."""
    return next((layer for layer in model.layers if layer.name == name), None)


def _units_of(pairs):
    """`Unit`s for those `(layer, convolution, normalization)` whose layer is there."""
    return [Unit(*pair) for pair in pairs if pair[0] is not None]


def _entries_of(units, suffixes):
    """The entries of a model, made from its `Unit`s and the endings of the variables' names."""

    def entries(model):
        found = []
        for unit in units(model):
            if isinstance(unit.layer, LayerScale):
                found.append(Entry(unit.layer.gamma, unit.convolution, "vector"))
                continue
            for part_name, variables in ((unit.convolution, _IN_CONVOLUTION), (unit.normalization, _IN_NORMALIZATION)):
                for name in variables:
                    variable = getattr(unit.layer, name, None)
                    if variable is not None:
                        kind = _kernel_kind(unit.layer) if name == "kernel" else "vector"
                        found.append(Entry(variable, f"{part_name}{suffixes[name]}", kind))
        return found

    return entries


def _kernel_kind(layer):
    if not isinstance(layer, ConvNormActivation):
        return "dense"
    return "depthwise" if layer.filters is None else "convolution"


# --- timm ----------------------------------------------------------------------------------------------------------


def _timm_units(model):
    units = _units_of([(part(model, "stem"), "conv_stem", "bn1")])
    for stage, block, layer in blocks(model):
        prefix = f"blocks.{stage - 1}.{block - 1}."
        units += _timm_block(layer, prefix)
    return units + _units_of(
        [
            (part(model, "head_conv"), "conv_head", "bn2"),
            (part(model, "head_dense"), "conv_head", "norm_head"),
            (part(model, "classifier"), "classifier"),
        ]
    )


def _timm_block(layer, prefix):
    def named(*pairs):
        return _units_of([(unit, *(prefix + name for name in names)) for unit, *names in pairs])

    if isinstance(layer, ConvNormActivation):
        return named((layer, "conv", "bn1"))
    if isinstance(layer, SqueezeExcite):
        return named((layer.reduce, "se.conv_reduce"), (layer.expand, "se.conv_expand"))
    if isinstance(layer, DepthwiseSeparable):
        return named(
            (layer.depthwise, "conv_dw", "bn1"),
            (layer.project, "conv_pw", "bn2"),
            (layer.layer_scale, "layer_scale.gamma"),
        )
    if isinstance(layer, InvertedResidual):
        squeeze = _timm_block(layer.squeeze_excite, prefix) if layer.squeeze_excite else []
        scale = named((layer.layer_scale, "layer_scale.gamma"))
        if layer.expand is None:
            return named((layer.depthwise, "conv_dw", "bn1"), (layer.project, "conv_pw", "bn2")) + squeeze + scale
        return (
            named(
                (layer.expand, "conv_pw", "bn1"),
                (layer.depthwise, "conv_dw", "bn2"),
                (layer.project, "conv_pwl", "bn3"),
            )
            + squeeze
            + scale
        )
    if isinstance(layer, FusedInvertedBottleneck):
        return named(
            (layer.expand, "conv_exp", "bn1"),
            (layer.project, "conv_pwl", "bn2"),
            (layer.layer_scale, "layer_scale.gamma"),
        )
    if isinstance(layer, UniversalInvertedBottleneck):
        return named(
            (layer.start, "dw_start.conv", "dw_start.bn"),
            (layer.expand, "pw_exp.conv", "pw_exp.bn"),
            (layer.middle, "dw_mid.conv", "dw_mid.bn"),
            (layer.project, "pw_proj.conv", "pw_proj.bn"),
            (layer.end, "dw_end.conv", "dw_end.bn"),
            (layer.layer_scale, "layer_scale.gamma"),
        )
    if isinstance(layer, MobileAttention):
        return named(
            (layer.norm, "", "norm"),
            (layer.query_norm, "", "attn.query.norm"),
            (layer.query, "attn.query.proj"),
            (layer.key_down, "attn.key.down_conv", "attn.key.norm"),
            (layer.key, "attn.key.proj"),
            (layer.value_down, "attn.value.down_conv", "attn.value.norm"),
            (layer.value, "attn.value.proj"),
            (layer.output_projection, "attn.output.proj"),
            (layer.layer_scale, "layer_scale.gamma"),
        )
    return _unnamed(layer, "timm")


# --- torchvision ---------------------------------------------------------------------------------------------------


def _torchvision_units(model):
    """V2 numbers a block's steps under `conv`, with the projection flat; V3 under `block`."""
    units = _units_of([(part(model, "stem"), "features.0.0", "features.0.1")])
    index = 0
    version3 = _ends_in_convolution(model)
    for index, (_, _, layer) in enumerate(blocks(model), 1):
        prefix = f"features.{index}."
        if isinstance(layer, ConvNormActivation):
            units.append(Unit(layer, f"{prefix}0", f"{prefix}1"))
        elif not isinstance(layer, InvertedResidual):
            _unnamed(layer, "torchvision")
        elif version3:
            units += _torchvision_v3_block(layer, prefix + "block.")
        else:
            units += _torchvision_v2_block(layer, prefix + "conv.")
    dense = part(model, "head_dense")
    return units + _units_of(
        [
            (part(model, "head_conv"), f"features.{index + 1}.0", f"features.{index + 1}.1"),
            (dense, "classifier.0"),
            (part(model, "classifier"), "classifier.3" if dense else "classifier.1"),
        ]
    )


def _torchvision_v2_block(layer, prefix):
    path = [unit for unit in (layer.expand, layer.depthwise) if unit is not None]
    units = [Unit(unit, f"{prefix}{i}.0", f"{prefix}{i}.1") for i, unit in enumerate(path)]
    return [*units, Unit(layer.project, f"{prefix}{len(path)}", f"{prefix}{len(path) + 1}")]


def _torchvision_v3_block(layer, prefix):
    units = []
    path = (layer.expand, layer.depthwise, layer.squeeze_excite, layer.project)
    for i, step in enumerate(step for step in path if step is not None):
        if isinstance(step, SqueezeExcite):
            units += [Unit(step.reduce, f"{prefix}{i}.fc1"), Unit(step.expand, f"{prefix}{i}.fc2")]
        else:
            units.append(Unit(step, f"{prefix}{i}.0", f"{prefix}{i}.1"))
    return units


# --- the compact family --------------------------------------------------------------------------------------------


def _compact_units(model):
    units = []
    stem = part(model, "stem")
    if stem is not None:
        units.append(Unit(stem, "features.0.0.stem.0", "features.0.0.stem.1"))
    for stage, block, layer in blocks(model):
        units += _compact_block(layer, f"features.{stage}.{block - 1}.")
    return units + _units_of(
        [
            (part(model, "head_dense"), "classificator.2", "classificator.3"),
            (part(model, "classifier"), "classificator.6"),
        ]
    )


def _compact_block(layer, prefix):
    def sequence(word, steps):
        """Convolution, normalisation and activation take a number each."""
        steps = [step for step in steps if step is not None]
        return [Unit(step, f"{prefix}{word}.{3 * i}", f"{prefix}{word}.{3 * i + 1}") for i, step in enumerate(steps)]

    if isinstance(layer, FusedInvertedBottleneck):
        return sequence("fused_ib", (layer.expand, layer.project))
    if isinstance(layer, UniversalInvertedBottleneck):
        word = "uib" if layer.middle is None else "extra_dw"
        return sequence(word, (layer.start, layer.expand, layer.middle, layer.project))
    if isinstance(layer, SqueezeExcite):
        return [Unit(layer.reduce, f"{prefix}SE.1"), Unit(layer.expand, f"{prefix}SE.3")]
    if isinstance(layer, ChannelAttention):
        return _units_of(
            [
                (layer.query_down, f"{prefix}downsample_query"),
                (layer.kv_down, f"{prefix}downsample_kv"),
                (layer.query, f"{prefix}query_conv"),
                (layer.key, f"{prefix}key_conv"),
                (layer.value, f"{prefix}value_conv"),
            ]
        )
    return _unnamed(layer, "compact")


# --- keras.applications --------------------------------------------------------------------------------------------


def _keras_units(model):
    first = next((layer for _, _, layer in blocks(model)), None)
    if isinstance(first, DepthwiseSeparable):
        return _keras_v1_units(model)
    return _keras_v3_units(model) if _ends_in_convolution(model) else _keras_v2_units(model)


def _keras_v1_units(model):
    units = _units_of([(part(model, "stem"), "conv1", "conv1_bn")])
    for i, (_, _, layer) in enumerate(blocks(model), 1):
        if not isinstance(layer, DepthwiseSeparable):
            _unnamed(layer, "keras")
        units.append(Unit(layer.depthwise, f"conv_dw_{i}", f"conv_dw_{i}_bn"))
        units.append(Unit(layer.project, f"conv_pw_{i}", f"conv_pw_{i}_bn"))
    return units + _units_of([(part(model, "classifier"), "conv_preds")])


def _keras_v2_units(model):
    units = _units_of([(part(model, "stem"), "Conv1", "bn_Conv1")])
    for i, (_, _, layer) in enumerate(blocks(model)):
        prefix = f"block_{i}_" if i else "expanded_conv_"
        units += _keras_inverted(layer, prefix, "BN")
    return units + _units_of(
        [(part(model, "head_conv"), "Conv_1", "Conv_1_bn"), (part(model, "classifier"), "predictions")]
    )


def _keras_v3_units(model):
    units = _units_of([(part(model, "stem"), "conv", "conv_bn")])
    for i, (_, _, layer) in enumerate(blocks(model)):
        if isinstance(layer, ConvNormActivation):
            units.append(Unit(layer, "conv_1", "conv_1_bn"))
        else:
            units += _keras_inverted(layer, f"expanded_conv_{i}_" if i else "expanded_conv_", "bn")
    return units + _units_of([(part(model, "head_dense"), "conv_2"), (part(model, "classifier"), "logits")])


def _keras_inverted(layer, prefix, norm):
    if not isinstance(layer, InvertedResidual):
        _unnamed(layer, "keras")
    pairs = []
    if layer.squeeze_excite is not None:
        pairs.append((layer.squeeze_excite.reduce, f"{prefix}squeeze_excite_conv"))
        pairs.append((layer.squeeze_excite.expand, f"{prefix}squeeze_excite_conv_1"))
    for step in ("expand", "depthwise", "project"):
        pairs.append((getattr(layer, step), f"{prefix}{step}", f"{prefix}{step}_{norm}"))
    return _units_of(pairs)


# --- this library's own files --------------------------------------------------------------------------------------


def _native_entries(model):
    """A layer's path and the number of the variable in it, which is how Keras's files keep them."""
    found, counts = [], {}
    for layer in model.layers:
        for variable in layer.weights:
            owner = variable.path.rsplit("/", 1)[0]
            index = counts[owner] = counts.get(owner, -1) + 1
            found.append(Entry(variable, f"{owner}/{index}", "vector"))
    return found


# --- the registry --------------------------------------------------------------------------------------------------


def _ends_in_convolution(model):
    """V3's stages end in a convolution of their own; V2 has it in the head."""
    layers = [layer for _, _, layer in blocks(model)]
    return bool(layers) and isinstance(layers[-1], ConvNormActivation)


def _unnamed(layer, layout):
    raise ValueError(
        f"layout={layout!r} has no name for {layer.name}, a {type(layer).__name__}: no model in that layout has one."
    )


def _any(pattern):
    regex = re.compile(pattern)
    return lambda names: any(regex.match(name) for name in names)


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout(
            name="timm",
            entries=_entries_of(_timm_units, _TORCH_SUFFIXES),
            recognises=_any(r"conv_stem\.|blocks\.\d+\.\d+\."),
            head=re.compile(r"(classifier|conv_head|norm_head|bn2)\."),
            classifier=re.compile(r"classifier\.bias$"),
            dropped=_COUNTERS,
            torch_axes=True,
        ),
        Layout(
            name="compact",
            entries=_entries_of(_compact_units, _TORCH_SUFFIXES),
            recognises=_any(r"features\.\d+\.\d+\.(stem|fused_ib|uib|extra_dw|SE)\."),
            head=re.compile(r"classificator\."),
            classifier=re.compile(r"classificator\.6\.bias$"),
            dropped=_COUNTERS,
            torch_axes=True,
        ),
        Layout(
            name="torchvision",
            entries=_entries_of(_torchvision_units, _TORCH_SUFFIXES),
            recognises=_any(r"features\.0\.0\.weight|features\.\d+\.(conv|block)\."),
            head=re.compile(r"classifier\."),
            classifier=re.compile(r"classifier\.[13]\.bias$"),
            dropped=_COUNTERS,
            torch_axes=True,
        ),
        Layout(
            name="native",
            entries=_native_entries,
            recognises=_any(r"(stem|stage\d+_block\d+)/"),
            head=re.compile(r"(head_conv|head_dense|classifier)/"),
            classifier=re.compile(r"classifier/1$"),
        ),
        Layout(
            name="keras",
            entries=_entries_of(_keras_units, _KERAS_SUFFIXES),
            recognises=_any(r"(conv1|Conv1|conv|conv_dw_1|expanded_conv_depthwise)/0$"),
            head=re.compile(r"(conv_preds|predictions|Conv_1|Conv_1_bn|conv_2|logits)/"),
            classifier=re.compile(r"(conv_preds|predictions|logits)/1$"),
        ),
    )
}
