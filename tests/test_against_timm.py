"""Every model that timm has, next to timm itself.

Logits, feature maps at every position and gradients of the same tensors, at an odd size.
"""

import pytest

import mobilenet_zoo
from mobilenet_common.checkpoints import LAYOUTS, state_dict
from mobilenet_zoo.registry import registry
from tests import peers, references, seeded

pytestmark = [pytest.mark.across, pytest.mark.slow]

SIZE = (97, 81)
NAMES = [name for name in registry() if f"timm/{name}" in references.checkpoints()]
# Every kind of block, padding and anti-aliasing.
DILATED = (
    "mobilenetv1_100",
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "tf_mobilenetv3_large_100",
    "mobilenetv4_conv_small",
    "mobilenetv4_conv_aa_medium",
    "mobilenetv4_conv_blur_medium",
    "mobilenetv4_hybrid_medium",
)
# In float64, but for the statistics of normalization: in float32 rounding may take an activation across a kink.
GRADIENTS = 1e-5


def theirs(name, **options):
    """timm's model with the seeded tensors, in inference mode."""
    import torch

    model = peers.timm().create_model(name, **options).eval()
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    model.load_state_dict({key: torch.from_numpy(value) for key, value in seeded.state_dict(shapes).items()})
    return model


def ours(name, tensors, **options):
    """Our model with timm's tensors."""
    model = mobilenet_zoo.create_model(name, input_shape=(*SIZE, 3), **options)
    mobilenet_zoo.load_checkpoint(model, tensors, layout="timm")
    return model


def image():
    """The same image for us and, channels first, for timm."""
    import torch

    x = seeded.image(*SIZE)
    return torch.from_numpy(x), torch.from_numpy(x.transpose(0, 3, 1, 2).copy())


def last(map_):
    """A feature map as timm arranges it."""
    return map_.detach().numpy().transpose(0, 3, 1, 2)


@pytest.mark.parametrize("name", NAMES)
def test_feature_maps(name, deviation):
    """At every position: the last map before the classifier's own layers, and the five levels of the pyramid."""
    x, x_theirs = image()
    whole, pyramid = theirs(name), theirs(name, features_only=True)
    found = last(ours(name, whole.state_dict(), include_top=False)(x))
    deviation(name, "last map", found, whole.forward_features(x_theirs).detach().numpy(), references.TOLERANCE)
    levels = (1, 2, 3, 4, 5)
    maps = ours(name, whole.state_dict(), include_top=False, pyramid_levels=levels)(x)
    for level, expected in zip(levels, pyramid(x_theirs), strict=True):
        deviation(name, f"P{level}", last(maps[f"P{level}"]), expected.detach().numpy(), references.TOLERANCE)


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("name", DILATED)
def test_an_output_stride(name, output_stride, deviation):
    """The five levels of the pyramid, at every position, with dilation in the place of later strides."""
    x, x_theirs = image()
    options = {"output_stride": output_stride}
    whole, pyramid = theirs(name), theirs(name, features_only=True, **options)
    levels = (1, 2, 3, 4, 5)
    maps = ours(name, whole.state_dict(), include_top=False, pyramid_levels=levels, **options)(x)
    for level, expected in zip(levels, pyramid(x_theirs), strict=True):
        row = f"{name}, output stride {output_stride}"
        deviation(row, f"P{level}", last(maps[f"P{level}"]), expected.detach().numpy(), references.TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_gradients(name, deviation):
    """Gradients of a weighted sum of the logits, by the image and by every parameter."""
    import torch

    x, x_theirs = image()
    reference = theirs(name)
    tensors = reference.state_dict()
    logits = ours(name, tensors, classifier_activation=None)(x)
    deviation(name, "logits", logits.detach().numpy(), reference(x_theirs).detach().numpy(), references.TOLERANCE)

    model = ours(name, tensors, classifier_activation=None, dtype="float64")
    x, x_theirs = (value.double().requires_grad_(True) for value in (x, x_theirs))
    logits, expected = model(x, training=False), reference.double()(x_theirs)
    assert logits.dtype == torch.float64

    weights = torch.from_numpy(seeded.tensor("direction", expected.shape))
    (logits * weights).sum().backward()
    (expected * weights).sum().backward()
    deviation(name, "image's gradient", last(x.grad), x_theirs.grad.numpy(), GRADIENTS)

    parameters = dict(reference.named_parameters())
    for entry in LAYOUTS["timm"].entries(model):
        if entry.name in parameters:  # a variable takes its gradient's place, and goes to timm's axes as one
            entry.variable.assign(entry.variable.value.grad.clone())
    gradients = state_dict(model, "timm")
    # Where a gradient vanishes, as that of a kernel before a saturated gate, what rounding leaves has no own scale.
    floor = 1e-4 * max(float(value.grad.abs().max()) for value in parameters.values())
    for key, value in parameters.items():
        deviation(name, "parameters' gradients", gradients[key], value.grad.numpy(), GRADIENTS, floor)


def test_timm_has_no_other():
    """What it calls EdgeTPU and V5 are other families."""
    others = ("mobilenet_edgetpu", "mobilenetv5")
    assert sorted(NAMES) == [
        name for name in peers.timm().list_models() if "mobilenet" in name and not name.startswith(others)
    ]
