"""How images are prepared goes with a model's weights, wherever these came from and whatever becomes of the model."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

import mobilenet_zoo
from mobilenet_common.checkpoints import LAYOUTS, StateDict
from mobilenet_common.checkpoints.files import own_options
from mobilenet_common.checkpoints.image_facts import identify
from mobilenet_common.facts import Facts, facts_of, remember
from mobilenet_v1 import create_mobilenetv1
from mobilenet_v2 import create_mobilenetv2
from mobilenet_v3 import create_mobilenetv3
from mobilenet_v4 import create_mobilenetv4
from mobilenet_zoo.exporting.plan import make_plan
from mobilenet_zoo.registry import WEIGHTS
from tests import peers, trained

pytestmark = pytest.mark.across

# From torchvision's and timm's sources, and transformers' image processors.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
SMALL = (32, 32, 3)
TIMM = {"padding": "symmetric", "norm_epsilon": 1e-5}
TIMM_TF = {"padding": "same", "norm_epsilon": 1e-3}
ASSUMED = "does not say how its images were prepared"


def scale(model):
    found = mobilenet_zoo.preprocessing(model)
    return (found.mean, found.std), found.interpolation


def written(folder, model, layout, name="weights.pth"):
    """The path of the weights of `model` in another library's layout; a .pth says nothing else."""
    mobilenet_zoo.export_checkpoint(model, folder / name, layout=layout)
    return folder / name


def facts_in(record):
    return (tuple(record["mean"]), tuple(record["std"])), record["interpolation"]


def named(layout, path, outputs=None):
    """An open checkpoint with a name, and with a classifier of so many outputs."""
    bias = {"timm": "classifier.bias", "torchvision": "classifier.1.bias", "keras": "predictions/1"}[layout]
    return StateDict({} if outputs is None else {bias: np.zeros(outputs)}, LAYOUTS[layout], str(path))


class TestPublishedNames:
    @pytest.mark.parametrize("name", WEIGHTS)
    def test_every_published_file_is_known_by_its_name(self, name):
        checkpoint = WEIGHTS[name]
        if checkpoint.source == "timm":
            cache = f"/home/me/hub/models--timm--{name}/snapshots/0a1b2c/model.safetensors"
            paths = [f"{name}.safetensors", f"timm/{name}/model.safetensors", f"{name}/pytorch_model.bin", cache]
            others = [f"{name}/last.safetensors", "model.safetensors", f"{name}/other/model.safetensors"]
        else:
            paths = [f"/home/me/{file}" for file in (checkpoint.file, checkpoint.no_top_file) if file]
            paths.append(str(Path(checkpoint.file).with_suffix(".safetensors")))
            others = [f"my_{checkpoint.file}"]
        for path in paths:
            assert identify(named(checkpoint.source, path)) is checkpoint
            assert identify(named(checkpoint.source, path, checkpoint.num_classes)) is checkpoint
            assert identify(named(checkpoint.source, path, 7)) is None, "somebody's own, under the same name"
        for path in others:
            assert identify(named(checkpoint.source, path)) is None

    def test_the_layout_has_to_be_that_of_the_name(self):
        assert identify(named("timm", trained.TORCHVISION_FILE)) is None


@pytest.fixture(scope="module")
def torchvision_file():
    return trained.torchvision_v2()


class TestTorchvisionsFile:
    """Its weights are of ImageNet's mean and deviation, resized bilinearly to 256 and cropped to 224."""

    def check(self, model, size=(224, 224)):
        found = mobilenet_zoo.preprocessing(model)
        assert (found.size, found.crop, found.interpolation) == (size, 224 / 256, "bilinear")
        assert (found.mean, found.std) == IMAGENET

    def test_create_functions_and_names(self, torchvision_file, tmp_path):
        model = create_mobilenetv2("1.0", weights=torchvision_file, name="mine")
        self.check(model)
        self.check(mobilenet_zoo.create_model("mobilenetv2_100", weights=str(torchvision_file)))
        renamed = tmp_path / "downloaded.pth"
        shutil.copy(torchvision_file, renamed)
        self.check(create_mobilenetv2("1.0", weights=renamed))  # its layout says as much

    def test_loading_into_a_model(self, torchvision_file):
        model = create_mobilenetv2("1.0", padding="symmetric", norm_epsilon=1e-5)
        assert scale(model) == (HALF, "bicubic")
        self.check(mobilenet_zoo.load_checkpoint(model, torchvision_file))
        fresh = create_mobilenetv2("1.0", padding="symmetric", norm_epsilon=1e-5)
        tensors = StateDict.open(torchvision_file).tensors
        self.check(mobilenet_zoo.load_checkpoint(fresh, tensors))

    def test_what_becomes_of_the_model(self, torchvision_file, tmp_path):
        model = create_mobilenetv2("1.0", 5, weights=torchvision_file, name="flowers")
        model.save(tmp_path / "flowers.keras")
        mobilenet_zoo.save_pretrained(model, tmp_path / "flowers")
        mobilenet_zoo.export_checkpoint(model, tmp_path / "flowers.safetensors")
        own = keras.Sequential([model, keras.layers.Dense(2)])
        own.save(tmp_path / "own.keras")
        others = {
            "fused": mobilenet_zoo.fuse(model),
            "with another classifier": mobilenet_zoo.reset_classifier(model, 2),
            "cloned": keras.models.clone_model(model),
            "saved": keras.saving.load_model(tmp_path / "flowers.keras"),
            "a part of another, saved": keras.saving.load_model(tmp_path / "own.keras").layers[0],
            "as weights": create_mobilenetv2("1.0", weights=tmp_path / "flowers.keras"),
            "as timm's": create_mobilenetv2("1.0", weights=tmp_path / "flowers.safetensors"),
            "pretrained": mobilenet_zoo.from_pretrained(tmp_path / "flowers"),
            "tensors of a folder": create_mobilenetv2("1.0", weights=tmp_path / "flowers" / "model.safetensors"),
        }
        for other in others.values():
            self.check(other)
        record = json.loads((tmp_path / "flowers" / "mobilenet.json").read_text())
        assert facts_in(record["preprocessing"]) == (IMAGENET, "bilinear")
        assert record["base"] == "mobilenetv2_100.tv_v1_in1k"
        exported = make_plan(model).record
        assert facts_in(dataclasses.asdict(exported)) == (IMAGENET, "bilinear")
        assert exported.source == "mobilenetv2_100.tv_v1_in1k"

    def test_normalized_inside(self, torchvision_file, tmp_path):
        options = {"input_shape": (64, 64, 3), "weights": torchvision_file, "classifier_activation": None}
        plain = create_mobilenetv2("1.0", **options)
        inside = create_mobilenetv2("1.0", include_preprocessing=True, **options)
        pixels = trained.crops(2, side=64)
        normalized = (pixels / 255 - np.array(IMAGENET[0])) / np.array(IMAGENET[1])
        expected = plain.predict(normalized.astype("float32"), verbose=0)
        found = inside.predict(pixels, verbose=0)
        np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())
        mobilenet_zoo.save_pretrained(inside, tmp_path / "inside")
        again = mobilenet_zoo.from_pretrained(tmp_path / "inside")
        assert mobilenet_zoo.preprocessing(again).mean is None
        assert mobilenet_zoo.preprocessing(again).interpolation == "bilinear"
        outside = create_mobilenetv2("1.0", weights=tmp_path / "inside" / "model.safetensors")
        assert scale(outside) == (IMAGENET, "bilinear")

    def test_a_part_of_another_model(self, torchvision_file):
        """Inside or outside, the larger model gets what the smaller one needs."""
        options = {"weights": torchvision_file, "include_top": False, "pooling": "avg"}
        plain = create_mobilenetv2("1.0", input_shape=(64, 64, 3), **options)
        self.check(keras.Sequential([plain, keras.layers.Dense(2)]), (64, 64))
        inside = create_mobilenetv2("1.0", include_preprocessing=(64, 96), **options)
        found = mobilenet_zoo.preprocessing(keras.Sequential([inside, keras.layers.Dense(2)]))
        assert (found.size, found.mean, found.interpolation) == ((64, 96), None, "bilinear")

    def test_images_are_torchvisions(self, torchvision_file):
        """Against the formula of torchvision's transform, with Pillow and NumPy."""
        model = create_mobilenetv2("1.0", weights=torchvision_file)
        pixels = [*trained.crops(6, side=300), *map(trained.photograph, ("chelsea", "rocket"))]
        expected = np.stack([as_torchvision(image) for image in pixels])
        found = mobilenet_zoo.preprocessing(model)(pixels)
        assert np.abs((found - expected) * np.array(IMAGENET[1]) * 255).max() < 1e-3

    @pytest.mark.slow
    def test_torchvision_live(self, torchvision_file):
        """Photographs through torchvision's own transform and network."""
        models, functional, torch = torchvision_live()
        network = models.mobilenet_v2()
        network.load_state_dict(torch.load(torchvision_file, weights_only=True))
        network.eval()
        transform = models.MobileNet_V2_Weights.IMAGENET1K_V1.transforms()
        images = [Image.fromarray(pixels) for pixels in trained.crops(120, side=320)]
        with torch.no_grad():
            theirs = network(torch.stack([transform(image) for image in images])).numpy()
        model = create_mobilenetv2("1.0", weights=torchvision_file, classifier_activation=None)
        ours = model.predict(mobilenet_zoo.preprocessing(model)(images), verbose=0)
        assert np.abs(ours - theirs).max() <= 2e-4 * np.abs(theirs).max()
        assert (ours.argmax(1) == theirs.argmax(1)).all()


def as_torchvision(pixels):
    """`(224, 224, 3)` float32 of `pixels` as torchvision's ImageClassification transform makes it."""
    image = Image.fromarray(pixels)
    short = min(image.size)
    image = image.resize([int(256 * side / short) for side in image.size], Image.Resampling.BILINEAR)
    left, top = (round((side - 224) / 2) for side in image.size)
    values = np.asarray(image.crop((left, top, left + 224, top + 224)), "float32") / 255
    return (values - np.float32(IMAGENET[0])) / np.float32(IMAGENET[1])


def torchvision_live():
    peers.timm()  # which makes torchvision importable beside a CPU build of PyTorch
    import torch
    from torchvision import models
    from torchvision.transforms import functional

    return models, functional, torch


class TestLayoutsAlone:
    """Small and unpublished widths, so that nothing but the layout tells."""

    @pytest.mark.parametrize(
        ("create", "variant", "layout", "options", "expected"),
        [
            (create_mobilenetv2, "0.35", "torchvision", {}, (IMAGENET, "bilinear")),
            (create_mobilenetv3, "small", "torchvision", {}, (IMAGENET, "bilinear")),
            (create_mobilenetv1, "0.25", "huggingface", {}, (HALF, "bilinear")),
            (create_mobilenetv2, "0.35", "huggingface", {}, (HALF, "bilinear")),
            (create_mobilenetv2, "0.5", "timm", TIMM, (IMAGENET, "bicubic")),
            (create_mobilenetv1, "1.0", "timm", TIMM, (HALF, "bicubic")),
            (
                create_mobilenetv3,
                "small",
                "timm",
                {"padding": "symmetric", "norm_epsilon": 1e-5},
                (IMAGENET, "bicubic"),
            ),
            (create_mobilenetv3, "small", "timm", TIMM_TF, (HALF, "bilinear")),
        ],
    )
    def test_what_that_library_does(self, create, variant, layout, options, expected, tmp_path, recwarn):
        path = written(tmp_path, create(variant, 7, SMALL), layout)
        assert scale(create(variant, None, SMALL, weights=path, **options)) == expected
        assert scale(mobilenet_zoo.load_checkpoint(create(variant, 7, SMALL, **options), path)) == expected
        assert not [warning for warning in recwarn if "prepared" in str(warning.message)]

    def test_keras_applications(self, tmp_path):
        theirs = keras.applications.MobileNet(SMALL, alpha=0.25, weights=None, classes=7)
        theirs.save_weights(tmp_path / "theirs.weights.h5")
        model = create_mobilenetv1("0.25", None, SMALL, weights=tmp_path / "theirs.weights.h5")
        assert scale(model) == (HALF, "bilinear")

    def test_a_name_of_timms_tf_models(self, tmp_path):
        path = written(tmp_path, create_mobilenetv3("small", 7, SMALL), "timm")
        options = {"input_shape": SMALL, "weights": path}
        assert scale(mobilenet_zoo.create_model("tf_mobilenetv3_small_100", **options)) == (HALF, "bilinear")
        assert scale(mobilenet_zoo.create_model("mobilenetv3_small_100", **options)) == (IMAGENET, "bicubic")


def large(num_classes=None, **options):
    """A V3 as timm has none of that width."""
    return create_mobilenetv3("large", num_classes, SMALL, 0.35, **options)


class TestWhatIsNotKnown:
    @pytest.fixture
    def path(self, tmp_path):
        """A file of timm's, whose name and width it has published no weights of."""
        return written(tmp_path, large(7), "timm")

    def test_it_is_said_once(self, path):
        model = large(weights=path)
        with pytest.warns(UserWarning, match=f"weights.pth {ASSUMED}.*0.485.*bicubic.*set_preprocessing") as given:
            assert scale(model) == (IMAGENET, "bicubic")
            mobilenet_zoo.preprocessing(model)
            mobilenet_zoo.preprocessing(mobilenet_zoo.reset_classifier(model, 3))
        assert len(given) == 1
        assert given[0].filename == __file__

    def test_timms_own_differ(self, tmp_path):
        path = written(tmp_path, create_mobilenetv3("large", 7, SMALL), "timm")
        with pytest.warns(UserWarning, match=ASSUMED):
            assert scale(create_mobilenetv3("large", None, SMALL, weights=path)) == (IMAGENET, "bicubic")

    def test_it_is_said_when_it_is_built_in(self, path):
        with pytest.warns(UserWarning, match=f"{ASSUMED}.*without include_preprocessing"):
            large(weights=path, include_preprocessing=True)

    @pytest.mark.parametrize("layout", ["compact", "native"])
    def test_other_layouts(self, layout, tmp_path):
        model = create_mobilenetv4("compact_nano", 7, (16, 16, 3))
        if layout == "native":
            model.save_weights(tmp_path / "weights.weights.h5")
            path = tmp_path / "weights.weights.h5"
        else:
            path = written(tmp_path, model, layout)
        loaded = create_mobilenetv4("compact_nano", None, (16, 16, 3), weights=path)
        with pytest.warns(UserWarning, match=ASSUMED):
            assert scale(loaded) == (HALF, "bicubic")

    def test_setting_it(self, path, tmp_path, recwarn):
        model = large(weights=path)
        name = "mobilenetv3_large_100.miil_in21k_ft_in1k"
        assert mobilenet_zoo.set_preprocessing(model, f"hf-hub:timm/{name}@main") is model
        unit = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        assert scale(model) == (unit, "bilinear")
        own = dataclasses.replace(mobilenet_zoo.preprocessing(model), mean=(0.1, 0.2, 0.3), crop=0.9)
        mobilenet_zoo.set_preprocessing(model, own)
        model.save(tmp_path / "model.keras")
        assert mobilenet_zoo.preprocessing(keras.saving.load_model(tmp_path / "model.keras")) == own
        assert not [warning for warning in recwarn if "prepared" in str(warning.message)]

    def test_wrong_settings(self):
        plain = create_mobilenetv2("0.35", 2, SMALL)
        inside = create_mobilenetv2("0.35", 2, SMALL, include_preprocessing=True)
        for model, transform, match in (
            (plain, "mobilenetv2_100", "is not known"),
            (plain, 3, "int is not allowed"),
            (plain, mobilenet_zoo.preprocessing(inside), "has no normalization inside"),
            (inside, "mobilenetv2_100.ra_in1k", "normalizes images inside"),
        ):
            before = mobilenet_zoo.preprocessing(model)
            with pytest.raises(ValueError, match=match):
                mobilenet_zoo.set_preprocessing(model, transform)
            assert mobilenet_zoo.preprocessing(model) == before
        mobilenet_zoo.set_preprocessing(inside, dataclasses.replace(before, interpolation="lanczos"))
        assert mobilenet_zoo.preprocessing(inside).interpolation == "lanczos"

    @pytest.mark.parametrize(
        ("layers", "allowed"),
        [
            ((keras.layers.Rescaling(1 / 127.5, -1),), HALF),
            ((keras.layers.Normalization(mean=(127.5,) * 3, variance=(127.5**2,) * 3),), HALF),
            ((keras.layers.Rescaling(1 / 255),), ((0.0,) * 3, (1.0,) * 3)),
            ((keras.layers.Rescaling(1 / 255), keras.layers.Rescaling(2, -1)), None),
            ((keras.layers.Normalization(),), None),
        ],
    )
    def test_a_users_own_normalization(self, layers, allowed):
        image = keras.Input(SMALL)
        x = image
        for layer in layers:
            x = layer(x)
        model = keras.Model(image, create_mobilenetv2("0.35", 2, SMALL)(x))
        plain = mobilenet_zoo.preprocessing(model)
        assert plain.mean is None
        for mean, std in (HALF, IMAGENET, ((0.0,) * 3, (1.0,) * 3)):
            wanted = dataclasses.replace(plain, mean=mean, std=std, interpolation="nearest")
            if (mean, std) == allowed:
                mobilenet_zoo.set_preprocessing(model, wanted)
                assert mobilenet_zoo.preprocessing(model).interpolation == "nearest"
            else:
                message = "does not say how. Set mean=None" if allowed is None else "normalizes images inside by"
                with pytest.raises(ValueError, match=message):
                    mobilenet_zoo.set_preprocessing(model, wanted)

    def test_what_can_be_set_can_be_saved_and_loaded(self, tmp_path):
        model = create_mobilenetv4("compact_nano", 2, (16, 16, 3))
        scale = {"mean": np.float32((1e3, 0, -1e3)), "std": (1e3, 1e-9, 1)}
        own = dataclasses.replace(mobilenet_zoo.preprocessing(model), crop=np.float64(0.5), **scale)
        mobilenet_zoo.set_preprocessing(model, own).save(tmp_path / "model.keras")
        assert mobilenet_zoo.preprocessing(keras.saving.load_model(tmp_path / "model.keras")) == own

    def test_weights_that_need_another_normalization_than_the_one_inside(self, tmp_path):
        path = written(tmp_path, create_mobilenetv2("0.35", 2, SMALL), "torchvision")
        model = create_mobilenetv2("0.35", 2, SMALL, include_preprocessing=True)
        with pytest.warns(UserWarning, match=r"normalizes images inside, by a mean of \(0.5\).*trained with \(0.4"):
            mobilenet_zoo.load_checkpoint(model, path)


class TestLoadingIntoAModelThatIsKnown:
    OWN = Facts((32, 32), 0.9, "bilinear", (0.1, 0.2, 0.3), (0.2, 0.2, 0.2))
    NAMES = ("a", "b", "c", "d", "e", "f", "g")

    def test_a_guess_replaces_nothing_and_the_class_names_stay(self, tmp_path, recwarn):
        model = remember(large(7), dataclasses.replace(self.OWN, class_names=self.NAMES))
        mobilenet_zoo.load_checkpoint(model, written(tmp_path, large(7), "timm"))
        assert facts_of(model) == dataclasses.replace(self.OWN, class_names=self.NAMES)
        mobilenet_zoo.preprocessing(model)
        assert not [warning for warning in recwarn if "prepared" in str(warning.message)]

    def test_another_guess_replaces_a_guess(self, tmp_path):
        model = large(weights=written(tmp_path, large(7), "timm"))
        mobilenet_zoo.load_checkpoint(model, written(tmp_path, large(7), "timm", "second.pth"))
        assert facts_of(model).assumed.startswith("second.pth")

    def test_what_a_file_tells_replaces_what_was_known(self, tmp_path):
        model = create_mobilenetv2("0.35", 7, SMALL)
        path = written(tmp_path, model, "torchvision")
        remember(model, dataclasses.replace(self.OWN, class_names=self.NAMES))
        mobilenet_zoo.load_checkpoint(model, path)
        assert scale(model) == (IMAGENET, "bilinear")
        assert mobilenet_zoo.class_names_of(model) == list(self.NAMES)

    def test_a_model_of_the_librarys_own_way_does_not_get_the_way_of_its_name(self, tmp_path):
        options = {"num_classes": 7, "input_shape": SMALL, "width_multiplier": 0.35}
        create_mobilenetv4("conv_small", **options).save(tmp_path / "own.keras")
        model = create_mobilenetv4("conv_small", **options, name="mobilenetv4_conv_small.e2400_r224_in1k")
        assert scale(model) == (IMAGENET, "bicubic")
        assert scale(mobilenet_zoo.load_checkpoint(model, tmp_path / "own.keras")) == (HALF, "bicubic")


class TestFilesByOtherNames:
    """What a file records counts whatever it is called."""

    @pytest.mark.parametrize("kind", ["keras", "safetensors", "h5"])
    @pytest.mark.parametrize("name", ["weights", "weights.pth"])
    @pytest.mark.parametrize("facts", [TestLoadingIntoAModelThatIsKnown.OWN, None])
    def test_recorded_facts(self, kind, name, facts, tmp_path, recwarn):
        model = remember(create_mobilenetv2("0.35", 7, SMALL), facts)
        path = tmp_path / f"saved.{kind}"
        if kind == "safetensors":
            mobilenet_zoo.export_checkpoint(model, path, layout="timm")
        else:
            model.save(path)
        path.rename(tmp_path / name)
        loaded = create_mobilenetv2("0.35", None, SMALL, weights=tmp_path / name)
        facts = facts or Facts()
        assert scale(loaded) == ((facts.mean, facts.std), facts.interpolation)
        assert not [warning for warning in recwarn if "prepared" in str(warning.message)]

    def test_a_damaged_header_tells_nothing(self, tmp_path):
        path = tmp_path / "weights.safetensors"
        path.write_bytes((100).to_bytes(8, "little") + b"{" + b"x" * 200)
        assert own_options(path) == {}
        tensors = {"a": np.zeros(1, "float32")}
        for header in ({"image_facts": "no JSON"}, {"padding": "same", "norm_epsilon": "small"}):
            safetensors.numpy.save_file(tensors, path, header)
            assert own_options(path) == {}


class TestTimmsConfiguration:
    GIVEN = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "interpolation": "bilinear", "crop_pct": 0.9}

    def folder(self, tmp_path, text):
        model = large(7)
        path = written(tmp_path, model, "timm", "pytorch_model.bin")
        (tmp_path / "config.json").write_text(text)
        return large(weights=path)

    @pytest.mark.parametrize("nested", [True, False])
    def test_it_counts(self, nested, tmp_path):
        given = {**self.GIVEN, "input_size": [3, 64, 64]}
        found = mobilenet_zoo.preprocessing(
            self.folder(tmp_path, json.dumps({"pretrained_cfg": given} if nested else given))
        )
        assert (found.mean, found.std) == ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
        assert (found.interpolation, found.crop) == ("bilinear", 0.9)

    @pytest.mark.parametrize(
        "text",
        [
            "no JSON",
            "[]",
            "{}",
            json.dumps({"pretrained_cfg": {**GIVEN, "std": [0, 0, 0], "input_size": [3, 9, 9]}}),
        ],
    )
    def test_one_that_is_damaged_tells_nothing(self, text, tmp_path):
        model = self.folder(tmp_path, text)
        with pytest.warns(UserWarning, match=f"pytorch_model.bin {ASSUMED}"):
            assert scale(model) == (IMAGENET, "bicubic")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"std": [0.2, math.nan, 0.2]}, "std=nan"),
        ({"std": [0.2, 0, 0.2]}, "std=0"),
        ({"std": [0.2]}, "mean=.* and std=.* are not allowed"),
        ({"mean": 3}, "mean=3 and std=.* are not allowed"),
        ({"mean": []}, "mean=.* and std=.* are not allowed"),
        ({"mean": None, "std": None}, "mean=None and std=None"),
        ({"std": [0.2, 2000, 0.2]}, "std=2000"),
        ({"mean": [0.2, 0.2, -math.inf]}, "mean=-inf"),
        ({"interpolation": "cubic"}, "interpolation='cubic'"),
        ({"base": ["some"]}, "base="),
        ({"crop": 2}, "crop=2"),
        ({"size": [0, 3]}, "size=0"),
        ({"size": 3}, "does not describe"),
    ],
)
def test_facts_in_a_file_are_checked(change, match):
    config = Facts((32, 48), 0.9, "bilinear", *IMAGENET, base="some").as_config()
    assert Facts.from_config(json.loads(json.dumps(config))).as_config() == config
    with pytest.raises(ValueError, match=match):
        Facts.from_config(config | change)
