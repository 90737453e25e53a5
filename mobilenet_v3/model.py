"""The create function of this generation."""

import os
from collections.abc import Callable, Iterable, Sequence

import keras

from mobilenet_common.architecture import Architecture
from mobilenet_common.create import build_model
from mobilenet_common.foreign import explains_arguments
from mobilenet_v3.architectures import VARIANTS
from mobilenet_v3.weights import WEIGHTS


@explains_arguments
def create_mobilenetv3(
    variant: str | float | Architecture = "large",
    num_classes: int | None = None,
    input_shape: Sequence[int | None] | None = None,
    width_multiplier: float = 1.0,
    include_top: bool = True,
    *,
    weights: str | os.PathLike[str] | None = None,
    pooling: str | None = None,
    pyramid_levels: Iterable[int] | None = None,
    output_stride: int = 32,
    classifier_activation: str | Callable | None = "softmax",
    dropout_rate: float | None = None,
    drop_path_rate: float = 0.0,
    include_preprocessing: bool | int | tuple[int, int] = False,
    padding: str | None = None,
    norm_epsilon: float | None = None,
    norm_momentum: float = 0.99,
    activation: str | Callable | None = None,
    normalization: str | None = None,
    input_tensor: keras.KerasTensor | None = None,
    data_format: str | None = None,
    dtype: str | keras.DTypePolicy | None = None,
    name: str | None = None,
) -> keras.Model:
    """Build a MobileNet V3 (Howard et al., 2019, arXiv:1905.02244).

    `keras.applications.MobileNetV3Large` and `MobileNetV3Small` normalize inside by default; here as in all other
    generations `include_preprocessing` is False by default: pass True for the same.

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
        drop_path_rate: Stochastic depth, in [0, 1): the fraction of images that skip a residual path in training,
            growing linearly from 0 at the first block to this at the last.
        include_preprocessing: Whether the model takes pixels in 0..255 and normalizes them itself, as `weights` need
            it, else to -1..1. A size, one integer or `(height, width)`, also resizes them to that size inside;
            `input_shape` is then the images' own, by default of any height and width. Where the pixels matter,
            resize them by `mobilenet_zoo.preprocessing` instead.
        padding: `"same"` as TensorFlow pads, `"symmetric"` as PyTorch models do; None for what `weights` bring, else
            the variant's own.
        norm_epsilon: Added to variances, in (0, 1]; None for what `weights` bring, else the variant's own.
        norm_momentum: Fraction of the old moving statistics that a training step keeps, in [0, 1).
        activation: Replaces every activation but the gates of squeeze-and-excitation; anything that Keras knows.
        normalization: Replaces every normalization: `"batch"`, `"group"` or `"layer"`.
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
    return build_model(VARIANTS, WEIGHTS, **locals())
