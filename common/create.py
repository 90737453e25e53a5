"""Implementation of the create functions: checks the arguments, builds the model and loads the weights."""

import dataclasses
import functools

import keras

from mobilenet_common.architecture import Architecture, check_activation, model_name
from mobilenet_common.builder import ModelBuilder
from mobilenet_common.checkpoints import load_into, open_weights
from mobilenet_common.checkpoints.image_facts import image_facts
from mobilenet_common.choices import NORMALIZATIONS, PADDINGS
from mobilenet_common.conventions import PYTORCH
from mobilenet_common.errors import ArgumentError, flag, integer, is_integer, number, one_of, plain_value, unknown_name
from mobilenet_common.facts import SET_PREPROCESSING, remember, warn_if_assumed
from mobilenet_common.foreign import without_hub
from mobilenet_common.inputs import image_input, preprocess, resize, resize_target, resolve_input_shape
from mobilenet_common.layers.initialization import blank_kernels
from mobilenet_common.notices import warn

OUTPUT_STRIDES = (32, 16, 8)
POOLINGS = {
    "avg": keras.layers.GlobalAveragePooling2D,
    "max": keras.layers.GlobalMaxPooling2D,
}


def build_model(
    variants,
    published,
    *,
    variant,
    num_classes,
    input_shape,
    width_multiplier,
    include_top,
    weights,
    pooling,
    pyramid_levels,
    output_stride,
    classifier_activation,
    dropout_rate,
    drop_path_rate,
    include_preprocessing,
    padding,
    norm_epsilon,
    norm_momentum,
    activation,
    normalization,
    input_tensor,
    data_format,
    dtype,
    name,
) -> keras.Model:
    """Build the model for a generation's create function.

    `variants` is the generation's `{name: Architecture}` and `published` its `{name: Checkpoint}`. All other arguments
    are those of the create function.
    """
    architecture = find_variant(variant, variants)
    width_multiplier = number("width_multiplier", width_multiplier, 0, 4, low_open=True)
    include_top = flag("include_top", include_top)
    scaled = _overridden(architecture.scaled(width_multiplier), activation, normalization)
    state = open_weights(weights, published, fitting(architecture, width_multiplier, variants), include_top)
    checkpoint = state and state.checkpoint
    convention = state.conventions(architecture) if state else {}
    if state and not convention and (padding is None or norm_epsilon is None):
        _warn_of_assumed_convention(state, padding or scaled.padding, norm_epsilon or scaled.norm_epsilon)
    padding = convention.get("padding", scaled.padding) if padding is None else padding
    norm_epsilon = convention.get("norm_epsilon", scaled.norm_epsilon) if norm_epsilon is None else norm_epsilon
    if num_classes is None:
        num_classes = (state.num_classes if state else None) or 1000
    if is_integer(num_classes) and num_classes == 0:  # In timm, this leaves out the classifier.
        raise ArgumentError(
            "num_classes=0 is not allowed: it must be an integer of at least 1. For a model without a classifier, "
            'pass include_top=False, pooling="avg".'
        )
    num_classes = integer("num_classes", num_classes, 1)
    if dropout_rate is None:
        dropout_rate = scaled.dropout_rate
    dropout_rate = number("dropout_rate", dropout_rate, 0, 1, high_open=True)
    check_activation("classifier_activation", classifier_activation)
    data_format = keras.config.image_data_format() if data_format is None else data_format
    one_of("data_format", data_format, ("channels_last", "channels_first"))
    _check_dtype(dtype)
    one_of("padding", padding, PADDINGS)
    output_stride = one_of("output_stride", output_stride, OUTPUT_STRIDES)
    resized = resize_target(include_preprocessing, scaled)
    _check_top(include_top, scaled, pooling, pyramid_levels)
    default_size = None if resized else checkpoint.input_size if checkpoint else 224
    input_shape = resolve_input_shape(input_shape, input_tensor, data_format, scaled, default_size, bool(resized))

    builder = ModelBuilder(
        scaled,
        output_stride=output_stride,
        padding=padding,
        norm_epsilon=number("norm_epsilon", norm_epsilon, 0, 1, low_open=True),
        norm_momentum=number("norm_momentum", norm_momentum, 0, 1, high_open=True),
        drop_path_rate=number("drop_path_rate", drop_path_rate, 0, 1, high_open=True),
        data_format=data_format,
        dtype=dtype,
    )
    levels = _check_levels(pyramid_levels, builder)
    inputs, x = image_input(input_shape, input_tensor, dtype)
    facts = state and image_facts(state, model_name(architecture, width_multiplier), padding, norm_epsilon)
    if resized:
        x = resize(x, (resized[0], resized[1]), facts, data_format, dtype)
    if include_preprocessing:
        x = preprocess(x, facts, data_format, dtype)
    # Skip random initialization if the file has all kernels; it may lack those of the head.
    with blank_kernels(state is not None and (state.num_classes is not None or not include_top)):
        x, maps = builder.body(x)
        if levels is not None:
            outputs = {f"P{level}": maps[level] for level in levels}
        elif include_top:
            outputs = builder.classifier(builder.head_conv(x), num_classes, classifier_activation, dropout_rate)
        else:
            outputs = builder.head_conv(x)
            if pooling is not None:
                outputs = POOLINGS[pooling](name="pool", **builder.bare)(outputs)
    name = name or (checkpoint.name if checkpoint else model_name(architecture, width_multiplier))
    model = keras.Model(inputs, outputs, name=name)
    if state is not None:
        load_into(model, state, adapt=True)
        remember(model, facts)
        if include_preprocessing:
            warn_if_assumed(model, facts, f"build the model without include_preprocessing, and {SET_PREPROCESSING}")
    return model


def _warn_of_assumed_convention(state, padding, norm_epsilon):
    """Warn that padding and epsilon are assumed, because the file doesn't record them."""
    warn(
        f"{state.source} does not record the padding and the epsilon of its model: padding={padding!r} and "
        f"norm_epsilon={norm_epsilon:g} are assumed. If the model had other values, pass them, such as "
        f'padding="{PYTORCH.padding}", norm_epsilon={PYTORCH.norm_epsilon:g} for most models from '
        "mobilenet_zoo.create_model."
    )


def fitting(architecture, width_multiplier, variants):
    """Return a predicate that tells whether a published `Checkpoint` fits `architecture` at that width."""
    wanted = _table(architecture, width_multiplier)
    return lambda checkpoint: _table(variants[checkpoint.variant], checkpoint.width) == wanted


@functools.lru_cache
def _table(architecture, width):
    return dataclasses.replace(architecture.scaled(width), name="any")


def find_variant(variant, variants):
    """Return the architecture called `variant`, or `variant` itself if it is an `Architecture`.

    Numbers are compared by value: `0.5`, `"0.5"` and `"0.50"` are the same variant.
    """
    if isinstance(variant, Architecture):
        return variant
    if isinstance(variant, str) and variant in variants:
        return variants[variant]
    variant = plain_value(variant)
    if isinstance(variant, (int, float, str)) and not isinstance(variant, bool):
        for name, architecture in variants.items():
            if _as_number(name) is not None and _as_number(name) == _as_number(variant):
                return architecture
    if isinstance(variant, (tuple, list)) and not any(isinstance(part, str) for part in variant):
        # In keras.applications, the shape is the first argument.
        raise ArgumentError(
            f"variant={variant!r} is not allowed: pass the shape by name, input_shape={tuple(variant)}."
        )
    if isinstance(variant, str) and without_hub(variant).startswith(("mobilenetv", "tf_mobilenetv")):
        raise ArgumentError(
            f"variant={variant!r} is the name of a model: pass it to mobilenet_zoo.create_model. Allowed here: "
            f"{', '.join(variants)}."
        )
    raise unknown_name("variant", variant, variants)


def _overridden(architecture, activation, normalization):
    if activation is not None:
        check_activation("activation", activation)
        architecture = architecture.with_activation(activation)
    if normalization is not None:
        one_of("normalization", normalization, NORMALIZATIONS)
        architecture = architecture.with_normalization(normalization)
    return architecture


def _check_dtype(dtype):
    try:
        policy = keras.dtype_policies.get(keras.config.dtype_policy() if dtype is None else dtype)
    except (ValueError, TypeError):
        policy = None
    if policy is None or "float" not in policy.compute_dtype:
        raise ArgumentError(
            f"dtype={dtype!r} is not a floating-point dtype policy of Keras: use one such as 'float32', "
            "'mixed_bfloat16' or 'mixed_float16'."
        )
    if getattr(policy, "quantization_mode", None) is not None:
        raise ArgumentError(
            f"dtype={dtype!r} is not supported: the dtype policy {policy.name!r} quantizes layers, but the "
            "convolutions of this library ignore that. Use a floating-point policy such as 'float32', and for 8-bit "
            "integers mobilenet_zoo.export(model, path, quantization='int8')."
        )


def _check_top(include_top, architecture, pooling, pyramid_levels):
    one_of("pooling", pooling, (None, *POOLINGS))
    if include_top:
        for argument, value in (("pooling", pooling), ("pyramid_levels", pyramid_levels)):
            if value is not None:
                raise ArgumentError(f"{argument}={value!r} is for feature extractors: also pass include_top=False.")
        if architecture.head is None:
            raise ArgumentError(
                "include_top=True needs an architecture with a head: pass include_top=False, or add a head."
            )
    elif pooling is not None and pyramid_levels is not None:
        raise ArgumentError(
            f"pooling={pooling!r} and pyramid_levels={pyramid_levels!r} can't be combined: pass only one of them."
        )


def _check_levels(pyramid_levels, builder):
    if pyramid_levels is None:
        return None
    allowed = sorted({place.level for place in builder.placements if place.level})
    try:
        levels = [plain_value(level) for level in pyramid_levels]
    except TypeError:
        levels = []
    if not levels or len(set(levels)) != len(levels) or any(level not in allowed for level in levels):
        raise ArgumentError(
            f"pyramid_levels={pyramid_levels!r} is not supported. Allowed: one or more of {tuple(allowed)}, without "
            "duplicates; level n is the last feature map at stride 2 ** n."
        )
    return levels


def _as_number(text):
    try:
        return float(text)
    except ValueError:
        return None
