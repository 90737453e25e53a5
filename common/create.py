"""The create function of a generation: checks its arguments, builds the model, loads weights."""

import dataclasses
import functools

import keras

from mobilenet_common.architecture import Architecture, check_activation, model_name
from mobilenet_common.builder import ModelBuilder
from mobilenet_common.checkpoints import load_into, open_weights
from mobilenet_common.checkpoints.images import image_facts
from mobilenet_common.choices import NORMALIZATIONS, PADDINGS
from mobilenet_common.errors import ArgumentError, flag, integer, is_integer, number, one_of, plain_value, unknown_name
from mobilenet_common.facts import SET_PREPROCESSING, remember, warn_if_assumed
from mobilenet_common.foreign import explains_arguments, without_hub
from mobilenet_common.inputs import image_input, preprocess, resize, resize_target, resolve_input_shape
from mobilenet_common.layers.initialization import blank_kernels
from mobilenet_common.notices import warn

OUTPUT_STRIDES = (32, 16, 8)
POOLINGS = {
    "avg": keras.layers.GlobalAveragePooling2D,
    "max": keras.layers.GlobalMaxPooling2D,
}

_ARGUMENTS = """
    Args:
        variant: A name of `VARIANTS`, or an `Architecture` of your own.
        num_classes: Outputs of the classifier, at least 1. None: those of `weights`, else 1000. Used with the top only.
        input_shape: `(height, width, channels)`, or `(channels, height, width)` under channels_first; None in place of
            height or width leaves it free. At least 32 pixels a side (8 for V4's compact family). None: the size that
            `weights` were trained for, else 224 by 224 pixels, and 3 channels.
        width_multiplier: In (0, 4]; multiplies the variant's own width.
        include_top: Whether pool and classifier follow the feature map. Without them the model is a feature
            extractor.
        weights: None for random ones. `"imagenet"` for the published ImageNet-1k checkpoint that scores best for this
            variant and width; or a name or a tag of `WEIGHTS`, with `@revision` behind it for another state of its
            repository. Or the path of a safetensors, PyTorch or Keras file, in this library's own layout or in that of
            timm, torchvision, keras.applications, transformers or the compact family. A file with a published name is
            those published weights. With other `num_classes` than theirs, or a file without classifier, the classifier
            is fresh; other channels than 3 get a stem made from theirs: the sum of its kernels for one channel,
            repeated and rescaled ones for more.
        pooling: Without top: None for the feature map, `"avg"` or `"max"` for a vector.
        pyramid_levels: Without top: integers such as `(2, 3, 4, 5)`; the model then returns a dict with the last map
            at each published stride, `"P2"` at 4 to `"P5"` at 32.
        output_stride: 32 for the published strides; under 16 or 8 later strides become dilation, and a pyramid level
            keeps its stage.
        classifier_activation: Anything that Keras knows; None for logits. Used with the top only.
        dropout_rate: Before the classifier, in [0, 1); None for the published one. Used with the top only.
        drop_path_rate: Stochastic depth, in [0, 1): the share of pictures that skip a residual path in training,
            growing linearly from 0 at the first block to this at the last.
        include_preprocessing: Whether the model takes pixels in 0..255 and normalises them itself, as `weights` need
            it, else to -1..1. A size, one integer or `(height, width)`, also resizes them to that size inside;
            `input_shape` is then the pictures' own, by default of any height and width. Where the pixels matter,
            resize them by `mobilenet_zoo.preprocessing` instead.
        padding: `"same"` as TensorFlow pads, `"symmetric"` as PyTorch models do; None for what `weights` bring, else
            the variant's own.
        norm_epsilon: Added to variances, in (0, 1]; None for what `weights` bring, else the variant's own.
        norm_momentum: Share of the old moving statistics that a training step keeps, in [0, 1).
        activation: Replaces every activation but the gates of squeeze-and-excitation; anything that Keras knows.
        normalization: Replaces every normalisation: `"batch"`, `"group"` or `"layer"`.
        input_tensor: A Keras tensor to build on, in place of a new input.
        data_format: `"channels_last"` or `"channels_first"`; None for `keras.config.image_data_format()`.
        dtype: A dtype policy such as `"mixed_bfloat16"`; None for Keras's global one.
        name: Of the model; None for one that says variant and width.

    Returns:
        A functional `keras.Model`. Its layers are called `stem`, `stage1_block1`, ..., `head_conv`, `pool`,
        `head_dense`, `dropout`, `classifier` and `predictions`, as far as the variant has them.

    Raises:
        ValueError: An argument is wrong; the message says what is allowed.
        CheckpointError: `weights` can't be had, can't be read or doesn't fit the model.

    Warns:
        MobileNetWarning: The classifier is fresh, because `weights` are for another number of classes or have none; of
            several networks in a file one was loaded; something beside the network was left out; or the images that
            `weights` need are not known and a normalization had to be assumed for `include_preprocessing`.
    """


def creator(function_name, module, variants, published, default, description):
    """The create function of one generation.

    Args:
        function_name: `create_mobilenetv4`.
        module: The package it is public in.
        variants: `{name: Architecture}`.
        published: `{name: Checkpoint}`, the generation's `WEIGHTS`.
        default: The variant that is built if none is named.
        description: First lines of its docstring.
    """

    def create(
        variant=default,
        num_classes=None,
        input_shape=None,
        width_multiplier=1.0,
        include_top=True,
        *,
        weights=None,
        pooling=None,
        pyramid_levels=None,
        output_stride=32,
        classifier_activation="softmax",
        dropout_rate=None,
        drop_path_rate=0.0,
        include_preprocessing=False,
        padding=None,
        norm_epsilon=None,
        norm_momentum=0.99,
        activation=None,
        normalization=None,
        input_tensor=None,
        data_format=None,
        dtype=None,
        name=None,
    ):
        architecture = find_variant(variant, variants)
        width_multiplier = number("width_multiplier", width_multiplier, 0, 4, low_open=True)
        include_top = flag("include_top", include_top)
        scaled = _overridden(architecture.scaled(width_multiplier), activation, normalization)
        state = open_weights(weights, published, fitting(architecture, width_multiplier, variants), include_top)
        checkpoint = state and state.checkpoint
        brought = state.conventions(architecture) if state else {}
        if state and not brought and (padding is None or norm_epsilon is None):
            _warn_of_conventions(state, padding or scaled.padding, norm_epsilon or scaled.norm_epsilon)
        padding = brought.get("padding", scaled.padding) if padding is None else padding
        norm_epsilon = brought.get("norm_epsilon", scaled.norm_epsilon) if norm_epsilon is None else norm_epsilon
        if num_classes is None:
            num_classes = (state.num_classes if state else None) or 1000
        if is_integer(num_classes) and num_classes == 0:  # timm's way to leave the classifier out
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
        default_size = checkpoint.input_size if checkpoint else 224
        if resized:
            default_size = None
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
            x = resize(x, resized, facts, data_format, dtype)
        if include_preprocessing:
            x = preprocess(x, facts, data_format, dtype)
        # Every kernel has to come from the file, unless that lacks the head.
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
                warn_if_assumed(model, facts, f"build it without include_preprocessing, and {SET_PREPROCESSING}")
        return model

    create.__name__ = create.__qualname__ = function_name
    create.__module__ = module
    create.__doc__ = description.rstrip() + "\n" + _ARGUMENTS
    return explains_arguments(create)


def _warn_of_conventions(state, padding, norm_epsilon):
    """Say what is assumed where a file doesn't record how the model of its weights pads and normalizes."""
    warn(
        f"{state.source} does not record the padding and the epsilon of its model: padding={padding!r} and "
        f"norm_epsilon={norm_epsilon:g} are assumed. If it was saved from a model with others, pass them; models that "
        'are named as in timm have padding="symmetric", norm_epsilon=1e-5.'
    )


def fitting(architecture, width_multiplier, variants):
    """Whether a published checkpoint's tensors are those of `architecture` at that width."""
    wanted = _table(architecture, width_multiplier)
    return lambda checkpoint: _table(variants[checkpoint.variant], checkpoint.width) == wanted


@functools.lru_cache
def _table(architecture, width):
    return dataclasses.replace(architecture.scaled(width), name="any")


def find_variant(variant, variants):
    """The architecture that `variant` names; `0.5`, `"0.5"` and `"0.50"` are one. An `Architecture` is itself."""
    if isinstance(variant, Architecture):
        return variant
    if isinstance(variant, str) and variant in variants:
        return variants[variant]
    variant = plain_value(variant)
    if isinstance(variant, (int, float, str)) and not isinstance(variant, bool):
        for name, architecture in variants.items():
            if _as_number(name) is not None and _as_number(name) == _as_number(variant):
                return architecture
    if isinstance(variant, (tuple, list)) and not any(isinstance(each, str) for each in variant):
        # The shape is the first argument of keras.applications.
        raise ArgumentError(f"variant={variant!r} is not allowed: name the shape, input_shape={tuple(variant)}.")
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
        floating = "float" in policy.compute_dtype
    except (ValueError, TypeError):
        floating = False
    if not floating:
        raise ArgumentError(
            f"dtype={dtype!r} is not a floating-point dtype policy of Keras: use one such as 'float32', "
            "'mixed_bfloat16' or 'mixed_float16'."
        )
    if getattr(policy, "quantization_mode", None) is not None:
        raise ArgumentError(
            f"dtype={dtype!r} asks for the dtype policy {policy.name!r}, which quantizes: the convolutions in this "
            "library ignore it. Use a floating-point policy such as 'float32', and for 8-bit integers "
            "mobilenet_zoo.export(model, path, quantization='int8')."
        )


def _check_top(include_top, architecture, pooling, pyramid_levels):
    one_of("pooling", pooling, (None, *POOLINGS))
    if include_top:
        for argument, value in (("pooling", pooling), ("pyramid_levels", pyramid_levels)):
            if value is not None:
                raise ArgumentError(f"{argument}={value!r} is for feature extractors: pass include_top=False with it.")
        if architecture.head is None:
            raise ArgumentError(
                "include_top=True needs an architecture with a head: pass include_top=False, or add one."
            )
    elif pooling is not None and pyramid_levels is not None:
        raise ArgumentError(
            f"pooling={pooling!r} and pyramid_levels={pyramid_levels!r} exclude each other: a pyramid's maps keep "
            "their size."
        )


def _check_levels(pyramid_levels, builder):
    if pyramid_levels is None:
        return None
    offered = sorted({place.level for place in builder.placements if place.level})
    try:
        levels = [plain_value(level) for level in pyramid_levels]
    except TypeError:
        levels = []
    if not levels or len(set(levels)) != len(levels) or any(level not in offered for level in levels):
        raise ArgumentError(
            f"pyramid_levels={pyramid_levels!r} is not offered. Allowed: one or more of {tuple(offered)}, each once; "
            "level n is the last map at stride 2 ** n."
        )
    return levels


def _as_number(text):
    try:
        return float(text)
    except ValueError:
        return None
