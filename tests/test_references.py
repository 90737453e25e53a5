"""Outputs agree with those of timm, torchvision and the compact family's original implementation."""

import keras
import pytest

import mobilenet_zoo
from mobilenet_common.checkpoints import LAYOUTS
from tests import references, seeded

FORMATS = ("channels_last", "channels_first")


def cases():
    """Yield every combination of a reference with recorded outputs, an image size and a data format.

    One combination per reference is fast, alternately the first size in channels-last format and the second, odd size
    in channels-first format. The others are slow.
    """
    for turn, key in enumerate(references.keys_with_outputs()):
        for i, size in enumerate(references.checkpoints()[key]["sizes"]):
            for j, data_format in enumerate(FORMATS):
                marks = [] if i == j == turn % 2 else [pytest.mark.slow]
                yield pytest.param(key, size, data_format, id=f"{key}-{size[0]}x{size[1]}-{data_format}", marks=marks)


@pytest.mark.parametrize(("key", "size", "data_format"), list(cases()))
def test_outputs_agree_with_the_reference(key, size, data_format, deviation, request):
    # Feature extractors and pyramids end with the same layers under each backend, so the fast tests compare them only
    # under PyTorch.
    compared = (
        ("logits",) if "not slow" in request.config.option.markexpr and keras.backend.backend() != "torch" else None
    )
    deviations = references.deviations(key, size, data_format, compared)
    for name, value in deviations.items():
        deviation.keep(key, name, value)
    assert max(deviations.values()) <= references.TOLERANCE, deviations


@pytest.mark.across
@pytest.mark.parametrize("key", sorted(references.checkpoints()))
def test_every_tensor_has_one_variable_of_its_shape(key):
    facts = references.checkpoints()[key]
    model = references.build(key, include_top=not facts.get("features_only", False))
    entries = LAYOUTS[key.partition("/")[0]].entries(model)
    names = [entry.name for entry in entries]
    counters = {name for name in facts["shapes"] if name.endswith("num_batches_tracked")}
    assert len(names) == len(set(names)), "a tensor is used twice"
    assert set(names) == set(facts["shapes"]) - counters
    assert {id(entry.variable) for entry in entries} == {id(variable) for variable in model.weights}
    if "params" in facts:
        assert mobilenet_zoo.profile(model).parameters == facts["params"]
    mobilenet_zoo.load_checkpoint(model, seeded.state_dict(facts["shapes"]))


@pytest.mark.across
@pytest.mark.parametrize("key", ["timm/mobilenetv2_050", "timm/mobilenetv3_small_075", "timm/mobilenetv4_conv_small"])
@pytest.mark.parametrize("options", [{}, {"pyramid_levels": (2, 5)}], ids=["features", "pyramid"])
def test_model_without_top_ignores_the_tensors_of_the_classifier(key, options):
    state = seeded.state_dict(references.checkpoints()[key]["shapes"])
    model = references.build(key, include_top=False, **options)
    mobilenet_zoo.load_checkpoint(model, state, layout="timm")
    kernel = keras.ops.convert_to_numpy(model.get_layer("stem").kernel)
    assert (kernel == state["conv_stem.weight"].transpose(2, 3, 1, 0)).all()
