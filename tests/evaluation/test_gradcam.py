"""Grad-CAM, next to timm's models under PyTorch's hooks, finite differences, and models whose place is known."""

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

TRUTH = np.load(Path(__file__).parents[1] / "reference" / "gradcam.npz")
QUICK = ("mobilenetv4_conv_small_050", "hybrid")

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
MADE = {
    "v1": (create_mobilenetv1, "0.25", 1.0),
    "v2": (create_mobilenetv2, "0.35", 0.35),
    "v3": (create_mobilenetv3, "small", 0.35),
    "v4": (create_mobilenetv4, "conv_small", 0.35),
    "hybrid": (create_mobilenetv4, HYBRID, 1.0),
    "compact": (create_mobilenetv4, "compact_nano", 0.5),
}


def quick_ones(names):
    """Parameters, of which only some run when it has to be quick."""
    return [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in names]


def made(kind, size=64, **options):
    create, variant, width = MADE[kind]
    channels_first = options.get("data_format") == "channels_first"
    shape = (3, size, size) if channels_first else (size, size, 3)
    return seeded.randomized(create(variant, 5, shape, width, **options))


@pytest.mark.parametrize("name", quick_ones(MODELS))
def test_as_hooks_on_timms_models(name):
    """The maps that PyTorch's own hooks and autograd gave on timm's model with the same tensors."""
    model = mobilenet_zoo.create_model(name, input_shape=(*SIZE, 3))
    tensors = seeded.state_dict(references.checkpoints()[f"timm/{name}"]["shapes"])
    mobilenet_zoo.load_checkpoint(model, tensors, layout="timm")
    (found,), _ = grad_cam(model, seeded.image(*SIZE), [MODELS[name]])
    assert np.abs(found - TRUTH[name]).max() <= 1e-3 * TRUTH[name].max()


def by_differences(model, images, classes, step):
    """Grad-CAM with the mean gradient of each channel as the logits' change when all of the channel changes."""
    pool = model.get_layer("pool")
    maps = keras.Model(model.input, pool.input).predict_on_batch(images)
    head = keras.Model(pool.input, model.get_layer("classifier").output)
    first = pool.data_format == "channels_first"
    found = []
    for each, number in zip(maps, classes, strict=True):
        count = each.shape[0 if first else -1]
        ones = np.eye(count, dtype="float32")
        ones = ones[:, :, None, None] if first else ones[:, None, None, :]
        ahead, behind = (head.predict_on_batch(each[None] + sign * step * ones)[:, number] for sign in (1, -1))
        pixels = each.size / count
        weights = (ahead - behind).astype("float64") / (2 * step * pixels)
        found.append(np.maximum(np.tensordot(each, weights, axes=(0 if first else -1, 0)), 0))
    return np.stack(found)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("kind", quick_ones(MADE))
def test_as_finite_differences(kind, data_format):
    model = made(kind, data_format=data_format)
    images = np.concatenate([seeded.image(64, 64), seeded.image(64, 64)[:, ::-1]])
    if data_format == "channels_first":
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    classes = [0, 2] if kind == "v3" else [1, 3]  # of which one at least has heat
    found, logits = grad_cam(model, images, classes)
    # V4's hidden layer has kinks, between which a step has to stay; elsewhere a large one rounds less.
    expected = by_differences(model, images, classes, step=1e-3 if kind == "v4" else 1e-2)
    assert expected.max() > 0
    assert np.abs(found - expected).max() <= 1e-2 * expected.max()
    probabilities = np.exp(logits - logits.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities, model.predict_on_batch(images), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", registry())
def test_every_model(name):
    size = 64
    model = seeded.randomized(mobilenet_zoo.create_model(name, num_classes=5, input_shape=(size, size, 3)))
    images = seeded.image(size, size)
    found, _ = grad_cam(model, images, [2])
    expected = by_differences(model, images, [2], step=1e-2)
    # The head's activations have kinks, across which some of the hundreds of channels step.
    assert np.abs(found - expected).max() <= 3e-2 * max(expected.max(), 1e-3)


def test_it_is_the_gradient_of_the_logit():
    """Softmax's own gradient vanishes where the model is sure: with a bias of 50 it is nothing but zeros."""
    images = seeded.image(64, 64)
    unsure, sure = made("hybrid"), made("hybrid")
    sure.get_layer("classifier").bias.assign_add([0.0, 50.0, 0.0, 0.0, 0.0])
    expected, _ = grad_cam(unsure, images, [1])
    assert expected.max() > 0
    found, logits = grad_cam(sure, images)  # of the likeliest class
    assert logits.argmax() == 1
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def looker(**head):
    """Classes are how bright and how dark an image is: its cells of 8×8 pixels, averaged."""
    x = inputs = keras.Input((32, 40, 3))
    x = keras.layers.AveragePooling2D(8)(x)
    x = keras.layers.Conv2D(2, 1, name="brightness")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(2, **head)(x))
    model.get_layer("brightness").set_weights([np.array([[[[1, -1]] * 3]], "float32") / 3, np.zeros(2, "float32")])
    model.layers[-1].set_weights([np.eye(2, dtype="float32"), np.zeros(2, "float32")])
    return model


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_a_model_that_looks_at_what_is_bright(activation):
    image = np.zeros((1, 32, 40, 3), "float32")
    image[0, 8:16, 24:32] = 1
    image[0, 24:32, 0:8] = -3
    maps, logits = grad_cam(looker(activation=activation), np.repeat(image, 2, 0), [0, 1])
    bright, dark = np.zeros((4, 5)), np.zeros((4, 5))
    bright[1, 3], dark[3, 0] = 1 / 20, 3 / 20  # a cell's share of the mean of 20
    np.testing.assert_allclose(maps, [bright, dark], atol=1e-7)
    np.testing.assert_allclose(logits[0], [-2 / 20, 2 / 20], atol=1e-6)


def test_the_likeliest_class_is_explained():
    image = np.zeros((1, 32, 40, 3), "float32")
    image[0, 8:16, 24:32] = 1
    maps, logits = grad_cam(looker(), image)
    assert logits.argmax() == 0 and maps[0].argmax() == 1 * 5 + 3


@pytest.mark.neutral
@pytest.mark.parametrize("kind", ["map", "vector", "sequential"])
def test_a_body_that_is_a_layer(kind):
    """The same weights nested in another model have the same map."""
    body = made("hybrid", include_top=False, **({} if kind == "map" else {"pooling": "avg"}))
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
    kernel[:, 4] = features.mean((0, 1, 2))  # so that something speaks for the class
    dense.set_weights([kernel, bias])
    (found,), _ = grad_cam(nested, images, [4])
    expected = np.maximum(features[0] @ kernel[:, 4], 0) / features[0, ..., 0].size  # a mean and a matrix
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.max())


@pytest.mark.neutral
def test_a_free_size_and_mixed_precision():
    whole = made("hybrid")
    images = seeded.image(64, 64)
    expected, _ = grad_cam(whole, images, [2])
    free = create_mobilenetv4(HYBRID, 5, (None, None, 3))
    free.set_weights(whole.get_weights())
    np.testing.assert_allclose(grad_cam(free, images, [2])[0], expected, rtol=1e-3, atol=1e-5)
    mixed = create_mobilenetv4(HYBRID, 5, (64, 64, 3), dtype="mixed_bfloat16")
    mixed.set_weights(whole.get_weights())
    found, _ = grad_cam(mixed, images, [2])
    assert np.abs(found - expected).max() <= 0.15 * expected.max()


def test_the_model_stays_as_it_was():
    model = made("hybrid")
    images = seeded.image(64, 64)
    before, attributes = model.predict_on_batch(images), [sorted(vars(layer)) for layer in model.layers]
    grad_cam(model, images)
    assert [sorted(vars(layer)) for layer in model.layers] == attributes
    np.testing.assert_array_equal(model.predict_on_batch(images), before)
    assert len(model.get_layer("pool")._inbound_nodes) == 1


@pytest.mark.across
class TestExplain:
    def model(self):
        return remember(made("hybrid"), Facts((64, 64), class_names=("ant", "bee", "cat", "dog", "elk")))

    def test_a_photograph(self, tmp_path):
        photographs.photograph().save(tmp_path / "china.png")
        model = self.model()
        found = explain(model, tmp_path / "china.png")
        transform = mobilenet_zoo.preprocessing(model)
        image = transform(tmp_path / "china.png")[None]
        (probabilities,) = model.predict_on_batch(image)
        assert found.class_index == probabilities.argmax()
        assert found.probability == pytest.approx(probabilities.max(), abs=1e-5)
        (heat,), _ = grad_cam(model, image)
        np.testing.assert_allclose(found.heat, heat / heat.max(), atol=1e-6)
        assert np.array_equal(np.asarray(found.image), np.asarray(transform.pixels(tmp_path / "china.png")))
        assert found.overlay.size == (640, 427) and found.overlay.mode == "RGB"

    def test_a_class_by_name_or_number(self):
        model, image = self.model(), photographs.photograph()
        named, numbered = explain(model, image, "dog"), explain(model, image, 3)
        assert named.class_index == numbered.class_index == 3
        np.testing.assert_array_equal(named.heat, numbered.heat)
        assert not np.allclose(named.heat, explain(model, image, 0).heat)
        with pytest.raises(ValueError, match="class_index='dgo' is not known. Did you mean 'dog'"):
            explain(model, image, "dgo")
        with pytest.raises(ValueError, match=r"class_index=5 is not allowed: hybrid has the classes 0..4"):
            explain(model, image, 5)
        with pytest.raises(ValueError, match="no names for its classes"):
            explain(made("hybrid"), image, "dog")

    def test_gray_images(self):
        model = seeded.randomized(create_mobilenetv4(HYBRID, 5, (64, 64, 1)))
        found = explain(model, Image.fromarray(np.arange(4096, dtype="uint32").reshape(64, 64).astype("uint8")))
        assert found.image.mode == "L" and found.overlay.mode == "RGB"


@pytest.mark.across
@pytest.mark.parametrize("kind", ["flattened", "features", "detector"])
def test_a_model_without_a_map_before_a_pool(kind):
    body = made("hybrid", include_top=False)
    x = body.output
    outputs = {
        "flattened": lambda: keras.layers.Dense(3)(keras.layers.Flatten()(x)),
        "features": lambda: x,
        "detector": lambda: keras.layers.Conv2D(4, 1)(x * keras.layers.GlobalMaxPooling2D(keepdims=True)(x)),
    }[kind]()
    with pytest.raises(ValueError, match="global average or max pool over its last feature map"):
        grad_cam(keras.Model(body.input, outputs, name="mine"), seeded.image(64, 64))


@pytest.mark.across
def test_classes_are_checked():
    model = made("hybrid")
    for classes in ([0, 1], [5], [-1]):
        with pytest.raises(ValueError, match=r"give one in 0..4 for each of the 1 images"):
            grad_cam(model, seeded.image(64, 64), classes)


@pytest.mark.across
def test_what_is_no_model():
    with pytest.raises(ValueError, match="can't be explained"):
        grad_cam(print, seeded.image(64, 64))


@pytest.mark.neutral
def test_integers_are_pixels():
    model = made("v2", 32)
    remember(model, Facts((32, 32), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("uint8")
    normalized = ((pixels / 255 - np.array((0.4, 0.5, 0.6))) / np.array((0.2, 0.25, 0.3))).astype("float32")
    for found, expected in zip(grad_cam(model, pixels), grad_cam(model, normalized), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    with pytest.warns(UserWarning, match="images range from.*look like pixels in 0..255"):
        grad_cam(model, pixels.astype("float32"))


@pytest.mark.across
def test_a_stream_is_read_once(tmp_path):
    """An explanation shows the image as well as running the model on it."""
    photographs.photograph().save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()

    class Stream:
        def __init__(self):
            self.rest = [content]

        def read(self):
            return self.rest.pop()

    model = made("v2", 32)
    found, expected = explain(model, Stream(), 0), explain(model, tmp_path / "a.png", 0)
    np.testing.assert_array_equal(found.heat, expected.heat)
    np.testing.assert_array_equal(np.asarray(found.image), np.asarray(expected.image))
