"""`fuse`: the same outputs without batch norm for every variant, and models that raise."""

import keras
import numpy as np
import pytest

import mobilenet_zoo
from mobilenet_common import Architecture
from mobilenet_common import layers as mobilenet_layers
from mobilenet_common.architecture import Attention, Conv, Fused, Universal
from mobilenet_v4 import create_mobilenetv4
from tests import seeded

NAMES = [name for name in mobilenet_zoo.list_models() if "_large_150d" not in name]
FAST_NAMES = {
    "mobilenetv1_025": pytest.mark.neutral,
    "mobilenetv2_035": pytest.mark.neutral,
    "mobilenetv3_small_075": [],
    "mobilenetv4_compact_nano": pytest.mark.neutral,
}


def images(size=64, channels=3, dtype="float32"):
    """Return two images of waves and noise."""
    samples = [seeded.image(size + extra, size + extra, channels)[:, :size, :size] for extra in (0, 1)]
    return np.concatenate(samples).astype(dtype)


def assert_same_outputs(model, fused, x, tolerance=1e-5):
    """Assert that both models predict the same, relative to the largest output; return the fused model's outputs."""
    expected, outputs = (keras.tree.flatten(candidate.predict(x, verbose=0)) for candidate in (model, fused))
    for output, expected_output in zip(outputs, expected, strict=True):
        assert np.abs(output - expected_output).max() <= tolerance * np.abs(expected_output).max()
    return outputs


every_name = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=FAST_NAMES.get(name, pytest.mark.slow)) for name in NAMES]
)


@every_name
def test_fuse_keeps_outputs_and_removes_batch_norm(name):
    options = {"input_shape": (64, 64, 3), "num_classes": 5, "classifier_activation": None}
    model = seeded.randomized(mobilenet_zoo.create_model(name, **options))
    before = model.get_weights()
    fused = mobilenet_zoo.fuse(model)
    assert_same_outputs(model, fused, images())
    assert not [w.path for w in fused.weights if "moving" in w.path or ("scale" in w.path and "conv" in name)]
    assert [layer.name for layer in fused.layers] == [layer.name for layer in model.layers]
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow computes means in float64")
def test_folding_is_exact(name):
    """Batch statistics make the outputs depend on the images but amplify rounding errors, so use float64."""
    options = {"input_shape": (64, 64, 3), "num_classes": 5, "classifier_activation": None}
    model = seeded.randomized(mobilenet_zoo.create_model(name, dtype="float64", norm_momentum=0.0, **options))
    x = images(dtype="float64")
    model(x, training=True)
    outputs = assert_same_outputs(model, mobilenet_zoo.fuse(model), x, 1e-9)[0]
    assert np.ptp(outputs, axis=0).max() > 0.1 * np.abs(outputs).max()


@pytest.mark.neutral
def test_layer_scale_is_folded_into_the_projection():
    options = {"width_multiplier": 0.25, "classifier_activation": None}
    model = seeded.randomized(create_mobilenetv4("hybrid_medium", 3, (64, 64, 3), **options))
    for variable in model.weights:
        if "layer_scale" in variable.path:
            variable.assign(np.random.default_rng(2).uniform(0.5, 1.5, variable.shape))
    fused = mobilenet_zoo.fuse(model)
    assert any("layer_scale" in w.path for w in model.weights)
    assert not any("layer_scale" in w.path for w in fused.weights)
    assert_same_outputs(model, fused, images())


@pytest.mark.across
@pytest.mark.parametrize(
    "options",
    [
        {"activation": "silu", "padding": "symmetric", "norm_epsilon": 0.1},
        {"normalization": "group"},
        {"normalization": "layer"},
        {"include_top": False, "pyramid_levels": (2, 4)},
        {"data_format": "channels_first", "input_shape": (3, 64, 64)},
        {"include_preprocessing": True, "drop_path_rate": 0.2},
    ],
    ids=str,
)
def test_options_are_kept(options):
    model = seeded.randomized(create_mobilenetv4("conv_small", 3, **{"input_shape": (64, 64, 3)} | options))
    x = images() if "data_format" not in options else images().transpose(0, 3, 1, 2)
    fused = mobilenet_zoo.fuse(model)
    assert_same_outputs(model, fused, x)
    assert any("gamma" in w.path for w in fused.weights) == (options.get("normalization") is not None)


@pytest.mark.across
def test_unusual_blocks_are_fused():
    """Test biases before batch norm, final depthwise kernels, activated projections with layer scale, lone norms."""
    architecture = Architecture(
        stem=Conv(8, stride=2),
        stages=(
            (Fused(3, 16, 8, 2, linear=False),),
            (
                Universal(3, 5, 16, 12, 2, end=3, layer_scale=0.5),
                Universal(0, 3, 24, 12, linear=False, layer_scale=0.5),
            ),
            (Attention(12, 2, 4, query_stride=2, layer_scale=0.5), Attention(12, 2, 4, kv_kernel=3, kv_stride=2)),
        ),
    )
    model = seeded.randomized(create_mobilenetv4(architecture, 3, (64, 64, 3)))
    assert_same_outputs(model, mobilenet_zoo.fuse(model), images())
    inputs = keras.Input((8, 8, 4))
    y = mobilenet_layers.ConvNormActivation(6, 3, use_bias=True, activation="relu", name="convolution")(inputs)
    model = seeded.randomized(keras.Model(inputs, mobilenet_layers.NormActivation(activation="silu", name="norm")(y)))
    fused = mobilenet_zoo.fuse(model)
    assert_same_outputs(model, fused, images(8, 4))
    assert [w.path for w in fused.weights] == ["convolution/kernel", "convolution/bias", "norm/gamma", "norm/beta"]


@pytest.mark.across
def test_nested_model_is_fused():
    body = create_mobilenetv4(
        "conv_small", input_shape=(64, 64, 3), include_top=False, width_multiplier=0.25, pooling="avg"
    )
    inputs = keras.Input((64, 64, 3))
    outputs = keras.layers.Dense(3)(body(keras.layers.Rescaling(2.0)(inputs)))
    model = seeded.randomized(keras.Model(inputs, outputs))
    fused = mobilenet_zoo.fuse(model)
    assert_same_outputs(model, fused, images())
    assert not any("moving" in w.path for w in fused.weights)


@pytest.mark.across
def test_fused_model_saves_and_loads(tmp_path):
    model = seeded.randomized(create_mobilenetv4("hybrid_medium", 3, (64, 64, 3), width_multiplier=0.25))
    fused = mobilenet_zoo.fuse(model)
    fused.save(tmp_path / "fused.keras")
    assert_same_outputs(fused, keras.saving.load_model(tmp_path / "fused.keras"), images(), 1e-6)
    assert mobilenet_zoo.profile(fused).macs == mobilenet_zoo.profile(model).macs


@pytest.mark.across
def test_compiled_model_raises_unless_allowed():
    model = seeded.randomized(create_mobilenetv4("conv_small", 3, (64, 64, 3), width_multiplier=0.25))
    model.compile(optimizer="adam", loss="categorical_crossentropy")
    with pytest.raises(ValueError, match=r"is compiled for training.*model.trainable = False.*allow_training=True"):
        mobilenet_zoo.fuse(model)
    assert_same_outputs(model, mobilenet_zoo.fuse(model, allow_training=True), images())
    model.trainable = False
    assert_same_outputs(model, mobilenet_zoo.fuse(model), images())


@pytest.mark.across
def test_unsupported_model_raises():
    with pytest.raises(ValueError, match=r"functional keras.Model.*not a Dense"):
        mobilenet_zoo.fuse(keras.layers.Dense(1))
