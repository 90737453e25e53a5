"""Every MobileNet of timm, compared with timm itself.

With the same weights and an odd image size, the logits, all values of the feature maps, and the gradients agree.
"""

import pytest

import mobilenet_zoo
from mobilenet_common.checkpoints import LAYOUTS, state_dict
from mobilenet_zoo.registry import registry
from tests import peers, references, seeded

pytestmark = [pytest.mark.across, pytest.mark.slow]

SIZE = (97, 81)
NAMES = [name for name in registry() if f"timm/{name}" in references.checkpoints()]
# Together these models have every kind of block, padding and anti-aliasing.
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
# Models compute gradients in float64, except normalization statistics. In float32, rounding can move an activation
# across a kink.
GRADIENT_TOLERANCE = 1e-5


def timm_model(name, **options):
    """Return timm's model with seeded tensors, in inference mode."""
    import torch

    model = peers.timm().create_model(name, **options).eval()
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    model.load_state_dict({key: torch.from_numpy(value) for key, value in seeded.state_dict(shapes).items()})
    return model


def zoo_model(name, tensors, **options):
    """Return the library's model with timm's tensors."""
    model = mobilenet_zoo.create_model(name, input_shape=(*SIZE, 3), **options)
    mobilenet_zoo.load_checkpoint(model, tensors, layout="timm")
    return model


def image_pair():
    """Return the same image channels last and, for timm, channels first."""
    import torch

    x = seeded.image(*SIZE)
    return torch.from_numpy(x), torch.from_numpy(x.transpose(0, 3, 1, 2).copy())


def to_channels_first(feature_map):
    """Convert a channels-last tensor to a channels-first array."""
    return feature_map.detach().numpy().transpose(0, 3, 1, 2)


@pytest.mark.parametrize("name", NAMES)
def test_feature_maps_match_timm(name, deviation):
    """Compare the last feature map before the classifier's layers, and the five levels of the pyramid."""
    x, timm_x = image_pair()
    classifier, pyramid = timm_model(name), timm_model(name, features_only=True)
    feature_map = to_channels_first(zoo_model(name, classifier.state_dict(), include_top=False)(x))
    expected = classifier.forward_features(timm_x).detach().numpy()
    deviation(name, "last map", feature_map, expected, references.TOLERANCE)
    levels = (1, 2, 3, 4, 5)
    maps = zoo_model(name, classifier.state_dict(), include_top=False, pyramid_levels=levels)(x)
    for level, expected in zip(levels, pyramid(timm_x), strict=True):
        feature_map = to_channels_first(maps[f"P{level}"])
        deviation(name, f"P{level}", feature_map, expected.detach().numpy(), references.TOLERANCE)


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("name", DILATED)
def test_dilated_feature_maps_match_timm(name, output_stride, deviation):
    """Compare the five levels of the pyramid, with dilation in place of later strides."""
    x, timm_x = image_pair()
    options = {"output_stride": output_stride}
    classifier, pyramid = timm_model(name), timm_model(name, features_only=True, **options)
    levels = (1, 2, 3, 4, 5)
    maps = zoo_model(name, classifier.state_dict(), include_top=False, pyramid_levels=levels, **options)(x)
    for level, expected in zip(levels, pyramid(timm_x), strict=True):
        row = f"{name}, output stride {output_stride}"
        feature_map = to_channels_first(maps[f"P{level}"])
        deviation(row, f"P{level}", feature_map, expected.detach().numpy(), references.TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_gradients_match_timm(name, deviation):
    """Compare the gradients of a weighted sum of the logits with respect to the image and every parameter."""
    import torch

    x, timm_x = image_pair()
    reference = timm_model(name)
    tensors = reference.state_dict()
    logits = zoo_model(name, tensors, classifier_activation=None)(x)
    deviation(name, "logits", logits.detach().numpy(), reference(timm_x).detach().numpy(), references.TOLERANCE)

    model = zoo_model(name, tensors, classifier_activation=None, dtype="float64")
    x, timm_x = (value.double().requires_grad_(True) for value in (x, timm_x))
    logits, expected = model(x, training=False), reference.double()(timm_x)
    assert logits.dtype == torch.float64

    weights = torch.from_numpy(seeded.tensor("direction", expected.shape))
    (logits * weights).sum().backward()
    (expected * weights).sum().backward()
    deviation(name, "image's gradient", to_channels_first(x.grad), timm_x.grad.numpy(), GRADIENT_TOLERANCE)

    parameters = dict(reference.named_parameters())
    for entry in LAYOUTS["timm"].entries(model):
        if entry.name in parameters:
            # Assign each gradient to its variable, so that `state_dict` below converts it to timm's layout.
            entry.variable.assign(entry.variable.value.grad.clone())
    gradients = state_dict(model, "timm")
    # Vanishing gradients, such as those of a kernel before a saturated gate, are only rounding errors.
    floor = 1e-4 * max(float(value.grad.abs().max()) for value in parameters.values())
    for key, value in parameters.items():
        deviation(name, "parameters' gradients", gradients[key], value.grad.numpy(), GRADIENT_TOLERANCE, floor)


def test_registry_has_every_mobilenet_of_timm():
    """timm's EdgeTPU and V5 models belong to other families."""
    other_families = ("mobilenet_edgetpu", "mobilenetv5")
    assert sorted(NAMES) == [
        name for name in peers.timm().list_models() if "mobilenet" in name and not name.startswith(other_families)
    ]
