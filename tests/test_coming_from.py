"""Arguments, weights and names of timm, keras.applications and torchvision behave as docs/coming-from.md says."""

import enum
import inspect
import re
from pathlib import Path

import keras
import numpy as np
import pytest

import mobilenet_zoo
from mobilenet_common.foreign import ARGUMENTS, without_hub
from mobilenet_v1 import create_mobilenetv1
from mobilenet_v2 import create_mobilenetv2
from mobilenet_v3 import create_mobilenetv3
from mobilenet_v4 import create_mobilenetv4
from tests import peers, references, seeded

pytestmark = pytest.mark.across

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "coming-from.md").read_text(encoding="utf-8")
NAME = "mobilenetv1_025"


def table_rows():
    """Return `(theirs, ours)` for each row of the page's tables, as dictionaries of arguments.

    `ours` is None if users have to leave the argument out.
    """
    rows = []
    for line in PAGE.splitlines():
        cells = [cell.strip().strip("`") for cell in line.split("|")[1:-1]]
        if len(cells) == 3 and re.match(r"\w+=", cells[0]):
            rows.append((eval(f"dict({cells[0]})"), eval(f"dict({cells[1]})") if cells[1] else None))
    return rows


ROWS = table_rows()


def create_small(**options):
    """Create a V3 model if the options choose a V3 variant, otherwise a V1 model."""
    if "variant" in options or "minimalistic" in options:
        return create_mobilenetv3(**{"input_shape": (32, 32, 3), **options})
    return mobilenet_zoo.create_model(NAME, **{"input_shape": (32, 32, 3), **options})


@pytest.mark.parametrize("theirs, ours", ROWS, ids=[next(iter(theirs)) for theirs, _ in ROWS])
def test_foreign_argument_behaves_as_the_page_says(theirs, ours):
    """An argument of both libraries is accepted. For others, the error says what to pass instead or to omit it."""
    if theirs == ours:
        assert create_small(**theirs)
        return
    with pytest.raises((TypeError, ValueError)) as error:
        create_small(**theirs)
    message = str(error.value).replace("'", '"')
    for name, value in (ours or {}).items():
        shown = f'"{value}"' if isinstance(value, str) else repr(value)
        assert f"{name}={shown}" in message, message
    if ours is None:
        assert "leave it out" in message
    elif not set(ours) & {"weights"}:
        assert create_small(**ours)


def test_page_lists_every_foreign_argument():
    assert {name for theirs, _ in ROWS for name in theirs} >= ARGUMENTS.keys() - {
        "model_name",  # the first argument
        "pretrained_cfg",
        "exportable",  # treated like scriptable
        "norm_layer",  # a class in torchvision
    }
    for name in ARGUMENTS:
        assert name in PAGE or name in ("model_name", "exportable", "norm_layer", "pretrained_cfg")


FUNCTIONS = [create_mobilenetv1, create_mobilenetv2, create_mobilenetv3, create_mobilenetv4]


@pytest.mark.parametrize("create", FUNCTIONS, ids=lambda function: function.__name__)
def test_foreign_argument_raises(create):
    for name in ARGUMENTS:
        value = 0.5 if name == "bn_momentum" else True
        with pytest.raises(TypeError, match=rf"{create.__name__}\(\) has no argument '{name}', which is \w"):
            create(**{name: value})
    with pytest.raises(
        TypeError, match=rf"{create.__name__}\(\) has no argument 'num_class'. Did you mean 'num_classes'"
    ):
        create(num_class=3)
    # Editors and `help()` show the signature and docstring of the function itself.
    assert list(inspect.signature(create).parameters)[:2] == ["variant", "num_classes"]
    assert "num_classes: Number of classes" in inspect.getdoc(create)


def test_create_model_rejects_foreign_arguments():
    with pytest.raises(
        TypeError, match=r"create_model\(\) has no argument 'in_chans', which is timm's: pass input_shape"
    ):
        mobilenet_zoo.create_model(NAME, in_chans=1)
    with pytest.raises(TypeError, match=r"create_model\(\) has no argument 'droput_rate'. Did you mean 'dropout_rate'"):
        mobilenet_zoo.create_model(NAME, droput_rate=0.1)
    with pytest.raises(
        TypeError, match=r"'pretraind'. Did you mean 'pretrained'\? That is timm's: pass weights=.imagenet.. Allowed: "
    ):
        mobilenet_zoo.create_model(NAME, pretraind=True)
    with pytest.raises(TypeError, match=r"pass the name first, create_model\('mobilenetv1_025'\)"):
        mobilenet_zoo.create_model(model_name=NAME)
    with pytest.raises(TypeError, match=r"takes only name by position, got 2 .* weights='imagenet'"):
        mobilenet_zoo.create_model(NAME, True)
    assert list(inspect.signature(mobilenet_zoo.create_model).parameters) == ["name", "kwargs"]


class MobileNet_V2_Weights(enum.Enum):
    """Enumeration like torchvision's."""

    IMAGENET1K_V1 = "first"
    IMAGENET1K_V2 = "second"
    DEFAULT = IMAGENET1K_V2


@pytest.mark.parametrize(
    "weights, message",
    [
        ("DEFAULT", "weights='DEFAULT' is torchvision's name: pass weights='imagenet'."),
        ("IMAGENET1K_V1", "pass weights='tv_v1_in1k', or weights=\"imagenet\" for the most accurate ones."),
        (MobileNet_V2_Weights.IMAGENET1K_V1, "pass weights='tv_v1_in1k'"),
        (MobileNet_V2_Weights.DEFAULT, "pass weights='tv_v2_in1k'"),
        (True, 'weights=True is not allowed: pass weights="imagenet".'),
        (False, "weights=False is not allowed: pass weights=None."),
    ],
)
def test_foreign_weights_raise(weights, message):
    for call in (lambda: create_mobilenetv2(weights=weights), lambda: create_small(weights=weights)):
        with pytest.raises(ValueError) as error:
            call()
        assert message in str(error.value)


def test_calls_in_the_style_of_other_libraries_raise():
    with pytest.raises(ValueError, match=r"pass the shape by name, input_shape=\(96, 96, 3\)"):  # keras.applications
        create_mobilenetv2((96, 96, 3), 0.5)
    with pytest.raises(ValueError, match="is the name of a model: pass it to mobilenet_zoo.create_model"):
        create_mobilenetv4("mobilenetv4_conv_small")
    with pytest.raises(ValueError, match='num_classes=0 .* pass include_top=False, pooling="avg"'):
        create_mobilenetv4(num_classes=0)


@pytest.mark.parametrize("prefix", ["timm/", "hf_hub:timm/", "hf-hub:timm/", "hf://timm/"])
def test_names_with_a_hub_prefix_are_accepted(prefix):
    assert without_hub(f"{prefix}{NAME}") == NAME
    assert mobilenet_zoo.create_model(prefix + NAME, input_shape=(32, 32, 3)).name == NAME
    tagged = "mobilenetv4_conv_small.e2400_r224_in1k"
    assert mobilenet_zoo.preprocessing(prefix + tagged) == mobilenet_zoo.preprocessing(tagged)
    assert mobilenet_zoo.list_models(f"{prefix}mobilenetv4*") == mobilenet_zoo.list_models("mobilenetv4*")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["mobilenetv1_100", "mobilenetv2_050", "mobilenetv3_small_100", "mobilenetv4_conv_small"]
)
def test_features_before_the_classifier_match_timm(name):
    """The page's replacements for `forward_features`, `num_classes=0` and `forward_head(pre_logits=True)` agree."""
    import torch

    theirs = peers.timm().create_model(name).eval()
    shapes = {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
    theirs.load_state_dict({key: torch.from_numpy(value) for key, value in seeded.state_dict(shapes).items()})
    model = mobilenet_zoo.create_model(name, input_shape=(65, 65, 3))
    mobilenet_zoo.load_checkpoint(model, theirs.state_dict(), layout="timm")
    x = seeded.image(65, 65)
    with torch.no_grad():
        maps = theirs.forward_features(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
        vector = theirs.forward_head(maps, pre_logits=True).numpy()
        theirs.reset_classifier(0)
        headless = theirs.forward_head(maps).numpy()
    feature_map = keras.ops.convert_to_numpy(keras.Model(model.input, model.get_layer("pool").input)(x))
    features = keras.ops.convert_to_numpy(keras.Model(model.input, model.get_layer("flatten").output)(x))
    np.testing.assert_array_equal(vector, headless)
    for ours, expected in ((feature_map, maps.numpy().transpose(0, 2, 3, 1)), (features, vector)):
        assert ours.shape == expected.shape
        assert np.abs(ours - expected).max() <= references.TOLERANCE * np.abs(expected).max()
