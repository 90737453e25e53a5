"""Grad-CAM compared with timm's models under PyTorch hooks, finite differences and models with known maps."""

from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import mobilenet_zoo
from mobilenet_common import Architecture, Head
from mobilenet_common.architecture import Attention, Conv, Dense, Fused, Universal
from mobilenet_common.facts import Facts, remember
from mobilenet_v1 import create_mobilenetv1
from mobilenet_v2 import create_mobilenetv2
from mobilenet_v3 import create_mobilenetv3
from mobilenet_v4 import create_mobilenetv4
from mobilenet_zoo.evaluation import explain, grad_cam
from mobilenet_zoo.registry import registry
from tests import photographs, references, seeded
from tests.reference.make_gradcam import MODELS, SIZE

REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "gradcam.npz")
FAST = ("mobilenetv4_conv_small_050", "hybrid")

HYBRID = Architecture(
    name="hybrid",
    stem=Conv(8, stride=2),
    stages=(
        (Fused(3, 16, 16, 2),),
        (Universal(3, 5, 32, 24, 2), Universal(0, 3, 48, 24)),
        (Attention(24, 2, 8), Attention(24, 2, 8, kv_kernel=3, kv_stride=2)),
    ),
    head=Head(dense=Dense(32)),
)
BUILDERS = {
    "v1": (create_mobilenetv1, "0.25", 1.0),
    "v2": (create_mobilenetv2, "0.35", 0.35),
    "v3": (create_mobilenetv3, "small", 0.35),
    "v4": (create_mobilenetv4, "conv_small", 0.35),
    "hybrid": (create_mobilenetv4, HYBRID, 1.0),
    "compact": (create_mobilenetv4, "compact_nano", 0.5),
}


def mark_slow(names):
    """Return parameters, all of which except `FAST` are marked as slow."""
    return [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in names]


def build(kind, size=64, **options):
    create, variant, width = BUILDERS[kind]
    channels_first = options.get("data_format") == "channels_first"
    shape = (3, size, size) if channels_first else (size, size, 3)
    return seeded.randomized(create(variant, 5, shape, width, **options))


@pytest.mark.parametrize("name", mark_slow(MODELS))
def test_matches_pytorch_hooks_on_timm_models(name):
    """The reference maps come from PyTorch's hooks and autograd on timm's model with the same weights."""
    model = mobilenet_zoo.create_model(name, input_shape=(*SIZE, 3))
    tensors = seeded.state_dict(references.checkpoints()[f"timm/{name}"]["shapes"])
    mobilenet_zoo.load_checkpoint(model, tensors, layout="timm")
    (actual,), _ = grad_cam(model, seeded.image(*SIZE), [MODELS[name]])
    assert np.abs(actual - REFERENCE[name]).max() <= 1e-3 * REFERENCE[name].max()


def finite_differences(model, images, classes, step):
    """Compute Grad-CAM with central differences: shift a whole channel to estimate its mean gradient."""
    pool = model.get_layer("pool")
    maps = keras.Model(model.input, pool.input).predict_on_batch(images)
    head = keras.Model(pool.input, model.get_layer("classifier").output)
    channels_first = pool.data_format == "channels_first"
    heat_maps = []
    for features, class_index in zip(maps, classes, strict=True):
        count = features.shape[0 if channels_first else -1]
        ones = np.eye(count, dtype="float32")
        ones = ones[:, :, None, None] if channels_first else ones[:, None, None, :]
        ahead, behind = (head.predict_on_batch(features[None] + sign * step * ones)[:, class_index] for sign in (1, -1))
        pixels = features.size / count
        weights = (ahead - behind).astype("float64") / (2 * step * pixels)
        heat_maps.append(np.maximum(np.tensordot(features, weights, axes=(0 if channels_first else -1, 0)), 0))
    return np.stack(heat_maps)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("kind", mark_slow(BUILDERS))
def test_matches_finite_differences(kind, data_format):
    model = build(kind, data_format=data_format)
    images = np.concatenate([seeded.image(64, 64), seeded.image(64, 64)[:, ::-1]])
    if data_format == "channels_first":
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    classes = [0, 2] if kind == "v3" else [1, 3]  # at least one of them has a nonzero map
    actual, logits = grad_cam(model, images, classes)
    # V4's hidden layer has kinks that a large step would cross; elsewhere, a large step reduces rounding errors.
    expected = finite_differences(model, images, classes, step=1e-3 if kind == "v4" else 1e-2)
    assert expected.max() > 0
    assert np.abs(actual - expected).max() <= 1e-2 * expected.max()
    probabilities = np.exp(logits - logits.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities, model.predict_on_batch(images), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", registry())
def test_every_model_matches_finite_differences(name):
    size = 64
    model = seeded.randomized(mobilenet_zoo.create_model(name, num_classes=5, input_shape=(size, size, 3)))
    images = seeded.image(size, size)
    actual, _ = grad_cam(model, images, [2])
    expected = finite_differences(model, images, [2], step=1e-2)
    # The head's activations have kinks, which the step crosses in some of the hundreds of channels.
    assert np.abs(actual - expected).max() <= 3e-2 * max(expected.max(), 1e-3)


def test_gradient_is_that_of_the_logit():
    """The gradient of the softmax vanishes for a confident model: with a bias of 50, it is exactly zero."""
    images = seeded.image(64, 64)
    uncertain, confident = build("hybrid"), build("hybrid")
    confident.get_layer("classifier").bias.assign_add([0.0, 50.0, 0.0, 0.0, 0.0])
    expected, _ = grad_cam(uncertain, images, [1])
    assert expected.max() > 0
    actual, logits = grad_cam(confident, images)  # for the most likely class
    assert logits.argmax() == 1
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def brightness_model(**head):
    """Return a model whose two logits are an image's mean brightness and darkness, from cells of 8×8 pixels."""
    x = inputs = keras.Input((32, 40, 3))
    x = keras.layers.AveragePooling2D(8)(x)
    x = keras.layers.Conv2D(2, 1, name="brightness")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(2, **head)(x))
    model.get_layer("brightness").set_weights([np.array([[[[1, -1]] * 3]], "float32") / 3, np.zeros(2, "float32")])
    model.layers[-1].set_weights([np.eye(2, dtype="float32"), np.zeros(2, "float32")])
    return model


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_brightness_model_has_the_known_map(activation):
    image = np.zeros((1, 32, 40, 3), "float32")
    image[0, 8:16, 24:32] = 1
    image[0, 24:32, 0:8] = -3
    maps, logits = grad_cam(brightness_model(activation=activation), np.repeat(image, 2, 0), [0, 1])
    bright, dark = np.zeros((4, 5)), np.zeros((4, 5))
    bright[1, 3], dark[3, 0] = 1 / 20, 3 / 20  # the mean is over 20 cells
    np.testing.assert_allclose(maps, [bright, dark], atol=1e-7)
    np.testing.assert_allclose(logits[0], [-2 / 20, 2 / 20], atol=1e-6)


def test_most_likely_class_is_the_default():
    image = np.zeros((1, 32, 40, 3), "float32")
    image[0, 8:16, 24:32] = 1
    maps, logits = grad_cam(brightness_model(), image)
    assert logits.argmax() == 0 and maps[0].argmax() == 1 * 5 + 3


@pytest.mark.neutral
@pytest.mark.parametrize("kind", ["map", "vector", "sequential"])
def test_nested_backbone_is_supported(kind):
    """The map of a backbone within another model matches the one computed from its features."""
    body = build("hybrid", include_top=False, **({} if kind == "map" else {"pooling": "avg"}))
    dense = keras.layers.Dense(5, activation="softmax")
    if kind == "sequential":
        nested = keras.Sequential([keras.Input((64, 64, 3)), body, dense])
    else:
        inputs = keras.Input((64, 64, 3))
        x = body(inputs)
        nested = keras.Model(inputs, dense(x if kind == "vector" else keras.layers.GlobalAveragePooling2D()(x)))
    images = seeded.image(64, 64)
    features = body.predict_on_batch(images) if kind == "map" else None
    if features is None:
        features = keras.Model(body.input, body.get_layer("pool").input).predict_on_batch(images)
    kernel, bias = dense.get_weights()
    kernel[:, 4] = features.mean((0, 1, 2))  # makes the map nonzero
    dense.set_weights([kernel, bias])
    (actual,), _ = grad_cam(nested, images, [4])
    # The model ends in a mean and a matrix product.
    expected = np.maximum(features[0] @ kernel[:, 4], 0) / features[0, ..., 0].size
    assert expected.max() > 0
    np.testing.assert_allclose(actual, expected, atol=1e-4 * expected.max())


@pytest.mark.neutral
def test_free_size_and_mixed_precision_are_supported():
    fixed = build("hybrid")
    images = seeded.image(64, 64)
    expected, _ = grad_cam(fixed, images, [2])
    free = create_mobilenetv4(HYBRID, 5, (None, None, 3))
    free.set_weights(fixed.get_weights())
    np.testing.assert_allclose(grad_cam(free, images, [2])[0], expected, rtol=1e-3, atol=1e-5)
    mixed = create_mobilenetv4(HYBRID, 5, (64, 64, 3), dtype="mixed_bfloat16")
    mixed.set_weights(fixed.get_weights())
    actual, _ = grad_cam(mixed, images, [2])
    assert np.abs(actual - expected).max() <= 0.15 * expected.max()


def test_model_is_unchanged():
    model = build("hybrid")
    images = seeded.image(64, 64)
    before, attributes = model.predict_on_batch(images), [sorted(vars(layer)) for layer in model.layers]
    grad_cam(model, images)
    assert [sorted(vars(layer)) for layer in model.layers] == attributes
    np.testing.assert_array_equal(model.predict_on_batch(images), before)
    assert len(model.get_layer("pool")._inbound_nodes) == 1


@pytest.mark.across
class TestExplain:
    def model(self):
        return remember(build("hybrid"), Facts((64, 64), class_names=("ant", "bee", "cat", "dog", "elk")))

    def test_photograph_is_explained(self, tmp_path):
        photographs.photograph().save(tmp_path / "china.png")
        model = self.model()
        explanation = explain(model, tmp_path / "china.png")
        transform = mobilenet_zoo.preprocessing(model)
        image = transform(tmp_path / "china.png")[None]
        (probabilities,) = model.predict_on_batch(image)
        assert explanation.class_index == probabilities.argmax()
        assert explanation.probability == pytest.approx(probabilities.max(), abs=1e-5)
        (heat,), _ = grad_cam(model, image)
        np.testing.assert_allclose(explanation.heat, heat / heat.max(), atol=1e-6)
        assert np.array_equal(np.asarray(explanation.image), np.asarray(transform.pixels(tmp_path / "china.png")))
        assert explanation.overlay.size == (640, 427) and explanation.overlay.mode == "RGB"

    def test_class_is_given_by_name_or_index(self):
        model, image = self.model(), photographs.photograph()
        named, numbered = explain(model, image, "dog"), explain(model, image, 3)
        assert named.class_index == numbered.class_index == 3
        np.testing.assert_array_equal(named.heat, numbered.heat)
        assert not np.allclose(named.heat, explain(model, image, 0).heat)
        with pytest.raises(ValueError, match="class_index='dgo' is not known. Did you mean 'dog'"):
            explain(model, image, "dgo")
        with pytest.raises(ValueError, match=r"class_index=5 is not allowed: hybrid has the classes 0..4"):
            explain(model, image, 5)
        with pytest.raises(ValueError, match="has no class names"):
            explain(build("hybrid"), image, "dog")

    def test_gray_images_are_supported(self):
        model = seeded.randomized(create_mobilenetv4(HYBRID, 5, (64, 64, 1)))
        explanation = explain(model, Image.fromarray(np.arange(4096, dtype="uint32").reshape(64, 64).astype("uint8")))
        assert explanation.image.mode == "L" and explanation.overlay.mode == "RGB"


@pytest.mark.across
@pytest.mark.parametrize("kind", ["flattened", "features", "detector"])
def test_model_without_global_pooling_raises(kind):
    body = build("hybrid", include_top=False)
    x = body.output
    outputs = {
        "flattened": lambda: keras.layers.Dense(3)(keras.layers.Flatten()(x)),
        "features": lambda: x,
        "detector": lambda: keras.layers.Conv2D(4, 1)(x * keras.layers.GlobalMaxPooling2D(keepdims=True)(x)),
    }[kind]()
    with pytest.raises(ValueError, match="global average or max pool after the last feature map"):
        grad_cam(keras.Model(body.input, outputs, name="mine"), seeded.image(64, 64))


@pytest.mark.across
def test_wrong_classes_raise():
    model = build("hybrid")
    for classes in ([0, 1], [5], [-1]):
        with pytest.raises(ValueError, match=r"pass one class in 0..4 for each of the 1 images"):
            grad_cam(model, seeded.image(64, 64), classes)


@pytest.mark.across
def test_object_that_is_not_a_model_raises():
    with pytest.raises(ValueError, match="can't be explained"):
        grad_cam(print, seeded.image(64, 64))


@pytest.mark.neutral
def test_integer_inputs_are_pixels():
    model = build("v2", 32)
    remember(model, Facts((32, 32), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("uint8")
    normalized = ((pixels / 255 - np.array((0.4, 0.5, 0.6))) / np.array((0.2, 0.25, 0.3))).astype("float32")
    for actual, expected in zip(grad_cam(model, pixels), grad_cam(model, normalized), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-4 * np.abs(expected).max())
    with pytest.warns(UserWarning, match="images range from.*look like pixels in 0..255"):
        grad_cam(model, pixels.astype("float32"))


@pytest.mark.across
def test_stream_is_read_once(tmp_path):
    """`explain` needs the image twice: as the model's input and for the overlay."""
    photographs.photograph().save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()

    class Stream:
        def __init__(self):
            self.contents = [content]

        def read(self):
            return self.contents.pop()

    model = build("v2", 32)
    actual, expected = explain(model, Stream(), 0), explain(model, tmp_path / "a.png", 0)
    np.testing.assert_array_equal(actual.heat, expected.heat)
    np.testing.assert_array_equal(np.asarray(actual.image), np.asarray(expected.image))
