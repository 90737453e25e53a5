"""The function that builds MobileNet V1 models."""

import os
from collections.abc import Callable, Iterable, Sequence

import keras

from mobilenet_common.architecture import Architecture
from mobilenet_common.create import build_model
from mobilenet_common.foreign import explains_arguments
from mobilenet_v1.architectures import VARIANTS
from mobilenet_v1.weights import WEIGHTS


@explains_arguments
def create_mobilenetv1(
    variant: str | float | Architecture = "1.0",
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
    """Build a MobileNet V1 (Howard et al., 2017, arXiv:1704.04861).

    Args:
        variant: Name of an entry of `VARIANTS`, or a custom `Architecture`.
        num_classes: Number of classes, at least 1. None: the number of classes of `weights`, else 1000. Used only if
            `include_top` is True.
        input_shape: Shape of an image without the batch: `(height, width, channels)`, or `(channels, height, width)`
            if the model is channels first. A height or width of None accepts any size. The minimum is 32 pixels per
            side (8 in V4's compact family). None: the size that `weights` were trained at, else 224×224, and 3
            channels.
        width_multiplier: Factor in (0, 4] that multiplies the variant's own width.
        include_top: Whether to add the pool and the classifier after the feature map. Without them, the model is a
            feature extractor.
        weights: None for random initialization. `"imagenet"` for the published ImageNet-1k checkpoint with the best
            accuracy for this variant and width. Or a name or tag of `WEIGHTS`; append `@revision` to load another
            revision of its repository. Or the path of a safetensors, PyTorch or Keras file in the layout of this
            library, timm, torchvision, keras.applications, transformers or the compact family's own code. A file with
            a published name is treated as the published weights of that name. If the weights have no classifier, or
            their number of classes isn't `num_classes`, the classifier is newly initialized. If the model doesn't have
            3 input channels, the stem's kernel is adapted: summed over the 3 channels for 1 channel, else repeated and
            rescaled.
        pooling: Pooling if `include_top` is False: None for the feature map, `"avg"` or `"max"` for a vector.
        pyramid_levels: Levels to return if `include_top` is False, such as `(2, 3, 4, 5)`. The model then returns a
            dict with one feature map per level: `"P2"` is the last one at the published stride 4, `"P5"` at 32.
        output_stride: 32 for the published strides; 16 or 8 replaces later strides with dilation. Pyramid levels stay
            at the same stages.
        classifier_activation: Any activation that Keras knows; None for logits. Used only if `include_top` is True.
        dropout_rate: Dropout rate before the classifier, in [0, 1). None: the published rate. Used only if
            `include_top` is True.
        drop_path_rate: Rate of stochastic depth at the last block, in [0, 1): the fraction of images that skip the
            block's residual path in training. It grows linearly from 0 at the first block.
        include_preprocessing: Whether the model takes pixels in 0..255 and normalizes them itself, as `weights`
            require, else to -1..1. An integer or `(height, width)` also resizes the images to that size inside the
            model; `input_shape` is then the shape before resizing, by default of any height and width. Each
            framework resizes differently: if exact pixels matter, resize with `mobilenet_zoo.preprocessing` instead.
        padding: `"same"` for TensorFlow's padding, `"symmetric"` for PyTorch's. None: the padding of `weights`, else of
            the variant.
        norm_epsilon: Number added to variances, in (0, 1]. None: the epsilon of `weights`, else of the variant.
        norm_momentum: Fraction of the moving statistics that a training step keeps, in [0, 1).
        activation: Activation that replaces all activations except the gates of squeeze-and-excitation; any that Keras
            knows. None: the activations of the variant.
        normalization: Normalization that replaces all normalizations: `"batch"`, `"group"` or `"layer"`. None: the
            normalizations of the variant.
        input_tensor: Keras tensor to build the model on. None: a new input.
        data_format: `"channels_last"`, `"channels_first"`, or None for `keras.config.image_data_format()`.
        dtype: Dtype policy, such as `"mixed_bfloat16"`. None: Keras's global policy.
        name: Name of the model. None: the name of the published `weights`, else a name with the variant and the width.

    Returns:
        A functional `keras.Model`. Its layers are named `stem`, `stage1_block1`, ..., `head_conv`, `pool`,
        `head_dense`, `dropout`, `classifier` and `predictions`, if the variant has them.

    Raises:
        ValueError: If an argument is invalid; the message states what is allowed.
        CheckpointError: If `weights` can't be downloaded, can't be read, or don't fit the model.

    Warns:
        MobileNetWarning: If the classifier is newly initialized because `weights` have a different number of classes or
            no classifier, if a file holds several networks, of which one was loaded, if tensors outside the network
            were left out, if a file doesn't record its padding and epsilon, or if the normalization that `weights` need
            is unknown and `include_preprocessing` had to assume one.
    """
    return build_model(VARIANTS, WEIGHTS, **locals())
