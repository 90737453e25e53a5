"""Preprocessing of models, compared with timm's transforms, and models that normalize and resize images."""

from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import mobilenet_zoo
from mobilenet_common.architecture import Architecture, Conv, Head, Inverted
from mobilenet_common.facts import Facts, remember
from mobilenet_v2 import create_mobilenetv2
from mobilenet_v4 import create_mobilenetv4
from mobilenet_zoo.registry import WEIGHTS
from tests import peers, photographs
from tests.reference import make_preprocessing

across = pytest.mark.across
NAME = "mobilenetv4_conv_small.e2400_r224_in1k"
TINY = Architecture("tiny", Conv(8, stride=2), ((Inverted(3, 16, 8, stride=2),),), Head(None))


@across
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, weight in WEIGHTS.items() if weight.source == "timm"])
def test_preprocessing_equals_timm_for_every_checkpoint(name, deviation):
    timm = peers.timm()
    config = timm.get_pretrained_cfg(name)
    sizes = {"input_size": config.input_size, "crop": config.crop_pct}
    settings = [sizes]
    if config.test_input_size:
        settings.append({"input_size": config.test_input_size, "crop": config.test_crop_pct or config.crop_pct})
    for setting in settings:
        size = setting["input_size"][1]
        pipeline = make_preprocessing.transform(
            timm, size, setting["crop"], config.interpolation, config.mean, config.std
        )
        transform = mobilenet_zoo.preprocessing(name, input_size=size)
        for image in sample_images():
            expected = pipeline(image.convert("RGB")).numpy().transpose(1, 2, 0)
            levels = np.abs(transform(image) - expected) * np.array(config.std) * 255
            deviation.keep(name, "gray levels of 255", levels.max())
            assert levels.max() <= 1 + 1e-3


def sample_images():
    """Return photographs of scikit-learn, those of scikit-image if it is installed, and crops of odd sizes."""
    images = [photographs.photograph(), photographs.photograph(photographs.PORTRAIT), *photographs.modes().values()]
    try:
        from skimage import data
    except ImportError:
        pass
    else:
        images += [Image.fromarray(load()) for load in (data.astronaut, data.camera, data.coffee, data.chelsea)]
    return images + [images[0].crop((3, 5, 260, 104)), images[1].crop((1, 2, 98, 333))]


@across
class TestPreprocessingOfModels:
    def test_name_of_published_weights_sets_the_transform(self):
        checkpoint = WEIGHTS["mobilenetv4_conv_medium.e500_r256_in1k"]
        transform = mobilenet_zoo.preprocessing(checkpoint.name)
        assert (transform.size, transform.crop) == ((256, 256), checkpoint.evaluation(256).crop)
        assert (transform.mean, transform.std) == (checkpoint.mean, checkpoint.std)
        assert mobilenet_zoo.preprocessing(f"{checkpoint.name}@main") == transform
        larger = checkpoint.evaluations[1]
        assert mobilenet_zoo.preprocessing(checkpoint.name, input_size=larger.size).crop == larger.crop

    def test_model_named_after_published_weights_has_their_transform(self):
        model = create_mobilenetv4("conv_small", 4, (96, 96, 3), width_multiplier=0.35, name=NAME)
        transform = mobilenet_zoo.preprocessing(model)
        assert transform.size == (96, 96)
        assert transform.mean == WEIGHTS[NAME].mean

    def test_other_models_normalize_to_minus_1_to_1(self):
        transform = mobilenet_zoo.preprocessing(create_mobilenetv2("0.35", 4, (64, 80, 3)))
        assert (transform.size, transform.crop) == ((64, 80), 0.875)
        assert (transform.mean, transform.std) == ((0.5,) * 3, (0.5,) * 3)
        assert mobilenet_zoo.preprocessing("mobilenetv2_035").size == (224, 224)

    def test_channels_first_gray_image(self):
        model = create_mobilenetv2("0.35", 4, (1, 32, 48), data_format="channels_first")
        image = mobilenet_zoo.preprocessing(model)(photographs.photograph())
        assert image.shape == (1, 32, 48)

    def test_facts_survive_fuse_and_reset_classifier(self):
        model = create_mobilenetv2("0.35", 4, (32, 32, 3))
        remember(model, Facts((32, 32), 0.9, "bilinear", class_names=("a", "b", "c", "d")))
        for other in (mobilenet_zoo.fuse(model), mobilenet_zoo.reset_classifier(model, 2)):
            assert mobilenet_zoo.preprocessing(other).crop == 0.9
        assert mobilenet_zoo.class_names_of(mobilenet_zoo.fuse(model)) == ["a", "b", "c", "d"]
        assert mobilenet_zoo.class_names_of(mobilenet_zoo.reset_classifier(model, 2)) is None


@pytest.mark.neutral
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("channels", [1, 3])
def test_model_that_normalizes_takes_pixels_and_predicts_the_same(data_format, channels):
    shape = (40, 40, channels) if data_format == "channels_last" else (channels, 40, 40)
    options = {"input_shape": shape, "data_format": data_format, "name": NAME}
    plain = create_mobilenetv2(TINY, 4, **options)
    normalizing = create_mobilenetv2(TINY, 4, include_preprocessing=True, **options)
    normalizing.set_weights(plain.get_weights())
    image = [photographs.photograph()]
    pixels = mobilenet_zoo.preprocessing(normalizing)(image)
    assert pixels.min() >= 0 and pixels.max() > 100
    if channels == 3:  # The published means have three channels.
        normalized = (pixels / 255 - 0.5) / 0.5
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(normalizing(pixels)), keras.ops.convert_to_numpy(plain(normalized)), atol=1e-5
        )
    assert mobilenet_zoo.preprocessing(plain)(image).max() < 5


@pytest.mark.neutral
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_model_with_preprocessing_size_resizes_images(data_format):
    """Compare with Pillow's resizing of the whole image."""
    options = {"data_format": data_format, "classifier_activation": None}
    model = create_mobilenetv2(TINY, 4, include_preprocessing=(40, 48), **options)
    fixed = create_mobilenetv2(
        TINY,
        4,
        input_shape=(40, 48, 3) if data_format == "channels_last" else (3, 40, 48),
        include_preprocessing=True,
        **options,
    )
    fixed.set_weights(model.get_weights())
    image = np.asarray(photographs.photograph())[None].astype("float32")
    resized = np.asarray(Image.fromarray(image[0].astype("uint8")).resize((48, 40), Image.Resampling.BILINEAR))
    resized = resized[None].astype("float32")
    if data_format == "channels_first":
        image, resized = image.transpose(0, 3, 1, 2), resized.transpose(0, 3, 1, 2)
    assert model.input_shape[1:].count(None) == 2
    outputs = keras.ops.convert_to_numpy(model(image))
    expected = keras.ops.convert_to_numpy(fixed(resized))
    # Pillow rounds to integers.
    assert np.abs(outputs - expected).max() <= 0.02 * np.abs(expected).max()
    assert mobilenet_zoo.preprocessing(model).size == (40, 48)


@across
@pytest.mark.parametrize("value", ["yes", 3.5, (32,), (32, 0), 8, None])
def test_wrong_include_preprocessing_raises(value):
    with pytest.raises(ValueError, match="include_preprocessing=.* must be True or False, or a size"):
        create_mobilenetv2("0.35", 4, include_preprocessing=value)


@across
@pytest.mark.parametrize(
    "argument, options, match",
    [
        ("mobilenetv4_conv_smal", {}, "Did you mean 'mobilenetv4_conv_small'"),
        (NAME, {"input_size": 0}, "input_size=0"),
        (NAME, {"input_size": (1, 2, 3)}, "integer or .height, width"),
        (NAME, {"crop": 0}, "crop=0"),
        (NAME, {"interpolation": "cubic"}, "interpolation='cubic'.*'bicubic'"),
        (3, {}, "int is not allowed"),
    ],
)
def test_wrong_argument_raises(argument, options, match):
    with pytest.raises(ValueError, match=match):
        mobilenet_zoo.preprocessing(argument, **options)


@across
def test_unsupported_model_raises():
    with pytest.raises(ValueError, match="not a model of this library"):
        mobilenet_zoo.preprocessing(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
    model = create_mobilenetv2("0.35", 4, (32, 32, 5))
    with pytest.raises(ValueError, match="takes 5"):
        mobilenet_zoo.preprocessing(model)(Path("any.png"))
