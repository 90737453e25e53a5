"""The compact family, including downsampling attention, agrees with its implementation in NumPy."""

import numpy as np
import pytest

import mobilenet_zoo
from mobilenet_common.checkpoints import state_dict
from mobilenet_v4 import VARIANTS, compact_architecture, create_mobilenetv4
from tests import compact_numpy, references, seeded

HEADS = {"nano": 4, "small": 6, "medium": 8, "large": 14, "hybrid_large": 16}
FORMATS = ("channels_last", "channels_first")
# Five blocks have stride 2: two fused blocks and three with attention. An output stride affects the later ones.
CUSTOM = compact_architecture(16, 24, 6, 2, 2, 1, 1, 3, 32, downsampling=True, name="custom")


def model_logits(architecture, state, size, data_format, **options):
    """Return the logits of the library's model for the seeded image."""
    image, shape = seeded.image(*size), (*size, 3)
    if data_format == "channels_first":
        image, shape = image.transpose(0, 3, 1, 2), (3, *size)
    classes = len(state["classificator.6.bias"])
    model = create_mobilenetv4(
        architecture, classes, shape, data_format=data_format, classifier_activation=None, **options
    )
    mobilenet_zoo.load_checkpoint(model, state, layout="compact")
    return references.infer(model, image)


def seeded_state(architecture, **options):
    """Return seeded tensors with the names of the original implementation."""
    model = create_mobilenetv4(architecture, 10, (32, 32, 3), **options)
    return seeded.state_dict({name: value.shape for name, value in state_dict(model, "compact").items()})


@pytest.mark.across
@pytest.mark.parametrize("name", ["nano", pytest.param("medium", marks=pytest.mark.slow)])
def test_numpy_agrees_with_the_original_implementation(name, deviation):
    key = f"compact/{name}"
    facts = references.checkpoints()[key]
    for size in facts["sizes"]:
        expected = references.outputs()[f"{key}/{size[0]}x{size[1]}/logits"]
        logits = compact_numpy.logits(seeded.state_dict(facts["shapes"]), seeded.image(*size), HEADS[name])
        deviation(key, "NumPy", logits[None], expected, 1e-4)


@pytest.mark.parametrize(
    ("name", "size", "data_format"),
    [
        (name, tuple(size), data_format)
        for name in ("small", "large", "hybrid_large")
        for size in references.checkpoints()[f"compact/{name}"]["sizes"]
        for data_format in FORMATS
    ],
)
@pytest.mark.slow
def test_variants_without_recorded_outputs_agree_with_numpy(name, size, data_format, deviation):
    state = seeded.state_dict(references.checkpoints()[f"compact/{name}"]["shapes"])
    expected = compact_numpy.logits(state, seeded.image(*size), HEADS[name])
    logits = model_logits(f"compact_{name}", state, size, data_format)
    deviation(f"compact/{name}", "logits", logits, expected[None], references.TOLERANCE)


def test_narrow_hybrid_large_agrees_with_numpy(deviation):
    state = seeded_state("compact_hybrid_large", width_multiplier=0.125)
    expected = compact_numpy.logits(state, seeded.image(64, 64), HEADS["hybrid_large"])
    logits = model_logits("compact_hybrid_large", state, (64, 64), "channels_last", width_multiplier=0.125)
    deviation("compact/hybrid_large", "width 0.125", logits, expected[None], references.TOLERANCE)


@pytest.mark.parametrize(
    ("output_stride", "data_format"),
    [(None, "channels_last"), (None, "channels_first"), (8, "channels_first"), (16, "channels_last")],
)
def test_downsampling_attention_agrees_with_numpy(output_stride, data_format, deviation):
    size, state = (51, 38), seeded_state(CUSTOM)
    expected = compact_numpy.logits(state, seeded.image(*size), heads=2, output_stride=output_stride)
    options = {} if output_stride is None else {"output_stride": output_stride}
    logits = model_logits(CUSTOM, state, size, data_format, **options)
    deviation("custom", f"output stride {output_stride}", logits, expected[None], references.TOLERANCE)


@pytest.mark.across
def test_output_stride_changes_the_numpy_logits():
    """If the logits did not change, comparing them under output strides would prove nothing."""
    state, image = seeded_state(CUSTOM), seeded.image(64, 64)
    stride_32, stride_16, stride_8 = (compact_numpy.logits(state, image, 2, stride) for stride in (None, 16, 8))
    for first, second in ((stride_32, stride_16), (stride_16, stride_8)):
        assert np.abs(first - second).max() > 0.01 * np.abs(first).max()


def test_fused_model_agrees_with_numpy():
    state, image = seeded_state(CUSTOM), seeded.image(51, 38)
    model = create_mobilenetv4(CUSTOM, 10, (51, 38, 3), classifier_activation=None)
    mobilenet_zoo.load_checkpoint(model, state, layout="compact")
    expected = compact_numpy.logits(state, image, heads=2)
    logits = references.infer(mobilenet_zoo.fuse(model), image)
    assert np.abs(logits - expected).max() <= references.TOLERANCE * np.abs(expected).max()


@pytest.mark.across
def test_only_hybrid_large_downsamples_in_attention():
    """The test also checks that `HEADS` has the numbers of heads of the variants."""
    for name, heads in HEADS.items():
        attention = VARIANTS[f"compact_{name}"].stages[-1][-1]
        assert (attention.heads, attention.stride) == (heads, 2 if name == "hybrid_large" else 1)
