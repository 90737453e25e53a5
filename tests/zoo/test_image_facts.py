"""Image facts of models: where they come from, how they are saved, and when they are replaced."""

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

# From the sources of torchvision and timm, and from the image processors of transformers.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
SMALL = (32, 32, 3)
TIMM = {"padding": "symmetric", "norm_epsilon": 1e-5}
TIMM_TF = {"padding": "same", "norm_epsilon": 1e-3}
ASSUMED = "does not record how its images were prepared"


def normalization_of(model):
    """Return `((mean, std), interpolation)` of a model's preprocessing."""
    transform = mobilenet_zoo.preprocessing(model)
    return (transform.mean, transform.std), transform.interpolation


def export_weights(folder, model, layout, name="weights.pth"):
    """Export the weights of `model` in another library's layout; return the path. A .pth file has no metadata."""
    mobilenet_zoo.export_checkpoint(model, folder / name, layout=layout)
    return folder / name


def normalization_in(record):
    return (tuple(record["mean"]), tuple(record["std"])), record["interpolation"]


def checkpoint_named(layout, path, outputs=None):
    """Return a checkpoint with a path and, unless `outputs` is None, with a classifier of that many outputs."""
    bias = {"timm": "classifier.bias", "torchvision": "classifier.1.bias", "keras": "predictions/1"}[layout]
    return StateDict({} if outputs is None else {bias: np.zeros(outputs)}, LAYOUTS[layout], str(path))


class TestPublishedNames:
    @pytest.mark.parametrize("name", WEIGHTS)
    def test_published_file_is_identified_by_its_name(self, name):
        checkpoint = WEIGHTS[name]
        if checkpoint.source == "timm":
            cache = f"/home/me/hub/models--timm--{name}/snapshots/0a1b2c/model.safetensors"
            paths = [f"{name}.safetensors", f"timm/{name}/model.safetensors", f"{name}/pytorch_model.bin", cache]
            other_paths = [f"{name}/last.safetensors", "model.safetensors", f"{name}/other/model.safetensors"]
        else:
            paths = [f"/home/me/{file}" for file in (checkpoint.file, checkpoint.no_top_file) if file]
            paths.append(str(Path(checkpoint.file).with_suffix(".safetensors")))
            other_paths = [f"my_{checkpoint.file}"]
        for path in paths:
            assert identify(checkpoint_named(checkpoint.source, path)) is checkpoint
            assert identify(checkpoint_named(checkpoint.source, path, checkpoint.num_classes)) is checkpoint
            assert identify(checkpoint_named(checkpoint.source, path, 7)) is None, "other weights under the same name"
        for path in other_paths:
            assert identify(checkpoint_named(checkpoint.source, path)) is None

    def test_published_name_with_another_layout_is_not_identified(self):
        assert identify(checkpoint_named("timm", trained.TORCHVISION_FILE)) is None


@pytest.fixture(scope="module")
def torchvision_file():
    return trained.torchvision_v2()


class TestTorchvisionFile:
    """torchvision normalizes with ImageNet's mean and standard deviation, resizes bilinearly to 256, crops to 224."""

    def assert_facts(self, model, size=(224, 224)):
        transform = mobilenet_zoo.preprocessing(model)
        assert (transform.size, transform.crop, transform.interpolation) == (size, 224 / 256, "bilinear")
        assert (transform.mean, transform.std) == IMAGENET

    def test_created_model_has_the_facts_of_the_file(self, torchvision_file, tmp_path):
        model = create_mobilenetv2("1.0", weights=torchvision_file, name="mine")
        self.assert_facts(model)
        self.assert_facts(mobilenet_zoo.create_model("mobilenetv2_100", weights=str(torchvision_file)))
        renamed = tmp_path / "downloaded.pth"
        shutil.copy(torchvision_file, renamed)
        self.assert_facts(create_mobilenetv2("1.0", weights=renamed))  # The layout implies the same facts.

    def test_load_checkpoint_sets_the_facts(self, torchvision_file):
        model = create_mobilenetv2("1.0", padding="symmetric", norm_epsilon=1e-5)
        assert normalization_of(model) == (HALF, "bicubic")
        self.assert_facts(mobilenet_zoo.load_checkpoint(model, torchvision_file))
        fresh = create_mobilenetv2("1.0", padding="symmetric", norm_epsilon=1e-5)
        tensors = StateDict.open(torchvision_file).tensors
        self.assert_facts(mobilenet_zoo.load_checkpoint(fresh, tensors))

    def test_copies_and_saved_files_keep_the_facts(self, torchvision_file, tmp_path):
        model = create_mobilenetv2("1.0", 5, weights=torchvision_file, name="flowers")
        model.save(tmp_path / "flowers.keras")
        mobilenet_zoo.save_pretrained(model, tmp_path / "flowers")
        mobilenet_zoo.export_checkpoint(model, tmp_path / "flowers.safetensors")
        outer = keras.Sequential([model, keras.layers.Dense(2)])
        outer.save(tmp_path / "own.keras")
        copies = {
            "fused": mobilenet_zoo.fuse(model),
            "with a new classifier": mobilenet_zoo.reset_classifier(model, 2),
            "cloned": keras.models.clone_model(model),
            "saved": keras.saving.load_model(tmp_path / "flowers.keras"),
            "saved inside another model": keras.saving.load_model(tmp_path / "own.keras").layers[0],
            "loaded as weights": create_mobilenetv2("1.0", weights=tmp_path / "flowers.keras"),
            "loaded as weights in timm's layout": create_mobilenetv2("1.0", weights=tmp_path / "flowers.safetensors"),
            "pretrained": mobilenet_zoo.from_pretrained(tmp_path / "flowers"),
            "loaded as weights from a folder": create_mobilenetv2(
                "1.0", weights=tmp_path / "flowers" / "model.safetensors"
            ),
        }
        for copy in copies.values():
            self.assert_facts(copy)
        record = json.loads((tmp_path / "flowers" / "mobilenet.json").read_text())
        assert normalization_in(record["preprocessing"]) == (IMAGENET, "bilinear")
        assert record["base"] == "mobilenetv2_100.tv_v1_in1k"
        exported = make_plan(model).record
        assert normalization_in(dataclasses.asdict(exported)) == (IMAGENET, "bilinear")
        assert exported.source == "mobilenetv2_100.tv_v1_in1k"

    def test_model_that_normalizes_keeps_the_facts(self, torchvision_file, tmp_path):
        options = {"input_shape": (64, 64, 3), "weights": torchvision_file, "classifier_activation": None}
        plain = create_mobilenetv2("1.0", **options)
        normalizing = create_mobilenetv2("1.0", include_preprocessing=True, **options)
        pixels = trained.crops(2, side=64)
        normalized = (pixels / 255 - np.array(IMAGENET[0])) / np.array(IMAGENET[1])
        expected = plain.predict(normalized.astype("float32"), verbose=0)
        outputs = normalizing.predict(pixels, verbose=0)
        np.testing.assert_allclose(outputs, expected, atol=2e-4 * np.abs(expected).max())
        mobilenet_zoo.save_pretrained(normalizing, tmp_path / "inside")
        loaded = mobilenet_zoo.from_pretrained(tmp_path / "inside")
        assert mobilenet_zoo.preprocessing(loaded).mean is None
        assert mobilenet_zoo.preprocessing(loaded).interpolation == "bilinear"
        restored = create_mobilenetv2("1.0", weights=tmp_path / "inside" / "model.safetensors")
        assert normalization_of(restored) == (IMAGENET, "bilinear")

    def test_outer_model_has_the_facts_of_the_inner_model(self, torchvision_file):
        """The outer model has the facts of the inner model, whether or not the latter normalizes images itself."""
        options = {"weights": torchvision_file, "include_top": False, "pooling": "avg"}
        plain = create_mobilenetv2("1.0", input_shape=(64, 64, 3), **options)
        self.assert_facts(keras.Sequential([plain, keras.layers.Dense(2)]), (64, 64))
        normalizing = create_mobilenetv2("1.0", include_preprocessing=(64, 96), **options)
        transform = mobilenet_zoo.preprocessing(keras.Sequential([normalizing, keras.layers.Dense(2)]))
        assert (transform.size, transform.mean, transform.interpolation) == ((64, 96), None, "bilinear")

    def test_images_equal_those_of_torchvision(self, torchvision_file):
        """Compare with the formula of torchvision's transform in Pillow and NumPy."""
        model = create_mobilenetv2("1.0", weights=torchvision_file)
        pixels = [*trained.crops(6, side=300), *map(trained.photograph, ("chelsea", "rocket"))]
        expected = np.stack([torchvision_transform(image) for image in pixels])
        images = mobilenet_zoo.preprocessing(model)(pixels)
        assert np.abs((images - expected) * np.array(IMAGENET[1]) * 255).max() < 1e-3

    @pytest.mark.slow
    def test_predictions_equal_those_of_torchvision(self, torchvision_file):
        """Compare with torchvision's transform and network on photographs."""
        models, functional, torch = import_torchvision()
        network = models.mobilenet_v2()
        network.load_state_dict(torch.load(torchvision_file, weights_only=True))
        network.eval()
        transform = models.MobileNet_V2_Weights.IMAGENET1K_V1.transforms()
        images = [Image.fromarray(pixels) for pixels in trained.crops(120, side=320)]
        with torch.no_grad():
            expected = network(torch.stack([transform(image) for image in images])).numpy()
        model = create_mobilenetv2("1.0", weights=torchvision_file, classifier_activation=None)
        outputs = model.predict(mobilenet_zoo.preprocessing(model)(images), verbose=0)
        assert np.abs(outputs - expected).max() <= 2e-4 * np.abs(expected).max()
        assert (outputs.argmax(1) == expected.argmax(1)).all()


def torchvision_transform(pixels):
    """Return `pixels` as torchvision's `ImageClassification` transforms them: `(224, 224, 3)` float32."""
    image = Image.fromarray(pixels)
    short = min(image.size)
    image = image.resize([int(256 * side / short) for side in image.size], Image.Resampling.BILINEAR)
    left, top = (round((side - 224) / 2) for side in image.size)
    values = np.asarray(image.crop((left, top, left + 224, top + 224)), "float32") / 255
    return (values - np.float32(IMAGENET[0])) / np.float32(IMAGENET[1])


def import_torchvision():
    peers.timm()  # This makes torchvision importable with a CPU build of PyTorch.
    import torch
    from torchvision import models
    from torchvision.transforms import functional

    return models, functional, torch


class TestLayoutImpliesFacts:
    """These widths have no published weights, so only the layout implies the facts."""

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
    def test_facts_are_those_of_the_library(self, create, variant, layout, options, expected, tmp_path, recwarn):
        path = export_weights(tmp_path, create(variant, 7, SMALL), layout)
        assert normalization_of(create(variant, None, SMALL, weights=path, **options)) == expected
        assert normalization_of(mobilenet_zoo.load_checkpoint(create(variant, 7, SMALL, **options), path)) == expected
        assert not [warning for warning in recwarn if "prepared" in str(warning.message)]

    def test_facts_are_those_of_keras_applications(self, tmp_path):
        reference = keras.applications.MobileNet(SMALL, alpha=0.25, weights=None, classes=7)
        reference.save_weights(tmp_path / "theirs.weights.h5")
        model = create_mobilenetv1("0.25", None, SMALL, weights=tmp_path / "theirs.weights.h5")
        assert normalization_of(model) == (HALF, "bilinear")

    def test_tf_name_of_timm_has_other_facts(self, tmp_path):
        path = export_weights(tmp_path, create_mobilenetv3("small", 7, SMALL), "timm")
        options = {"input_shape": SMALL, "weights": path}
        assert normalization_of(mobilenet_zoo.create_model("tf_mobilenetv3_small_100", **options)) == (HALF, "bilinear")
        assert normalization_of(mobilenet_zoo.create_model("mobilenetv3_small_100", **options)) == (IMAGENET, "bicubic")


def narrow_v3(num_classes=None, **options):
    """Return a MobileNetV3 of a width that timm doesn't have."""
    return create_mobilenetv3("large", num_classes, SMALL, 0.35, **options)


class TestAssumedFacts:
    @pytest.fixture
    def path(self, tmp_path):
        """Return a file in timm's layout for a width that has no published weights."""
        return export_weights(tmp_path, narrow_v3(7), "timm")

    def test_assumption_warns_once(self, path):
        model = narrow_v3(weights=path)
        with pytest.warns(UserWarning, match=f"weights.pth {ASSUMED}.*0.485.*bicubic.*set_preprocessing") as record:
            assert normalization_of(model) == (IMAGENET, "bicubic")
            mobilenet_zoo.preprocessing(model)
            mobilenet_zoo.preprocessing(mobilenet_zoo.reset_classifier(model, 3))
        assert len(record) == 1
        assert record[0].filename == __file__

    def test_assumption_warns_where_weights_of_timm_differ(self, tmp_path):
        path = export_weights(tmp_path, create_mobilenetv3("large", 7, SMALL), "timm")
        with pytest.warns(UserWarning, match=ASSUMED):
            assert normalization_of(create_mobilenetv3("large", None, SMALL, weights=path)) == (IMAGENET, "bicubic")

    def test_include_preprocessing_with_assumed_facts_warns(self, path):
        with pytest.warns(UserWarning, match=f"{ASSUMED}.*without include_preprocessing"):
            narrow_v3(weights=path, include_preprocessing=True)

    @pytest.mark.parametrize("layout", ["compact", "native"])
    def test_layouts_without_known_facts_warn(self, layout, tmp_path):
        model = create_mobilenetv4("compact_nano", 7, (16, 16, 3))
        if layout == "native":
            model.save_weights(tmp_path / "weights.weights.h5")
            path = tmp_path / "weights.weights.h5"
        else:
            path = export_weights(tmp_path, model, layout)
        loaded = create_mobilenetv4("compact_nano", None, (16, 16, 3), weights=path)
        with pytest.warns(UserWarning, match=ASSUMED):
            assert normalization_of(loaded) == (HALF, "bicubic")

    def test_set_preprocessing_replaces_assumed_facts(self, path, tmp_path, recwarn):
        model = narrow_v3(weights=path)
        name = "mobilenetv3_large_100.miil_in21k_ft_in1k"
        assert mobilenet_zoo.set_preprocessing(model, f"hf-hub:timm/{name}@main") is model
        unit = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        assert normalization_of(model) == (unit, "bilinear")
        transform = dataclasses.replace(mobilenet_zoo.preprocessing(model), mean=(0.1, 0.2, 0.3), crop=0.9)
        mobilenet_zoo.set_preprocessing(model, transform)
        model.save(tmp_path / "model.keras")
        assert mobilenet_zoo.preprocessing(keras.saving.load_model(tmp_path / "model.keras")) == transform
        assert not [warning for warning in recwarn if "prepared" in str(warning.message)]

    def test_set_preprocessing_with_wrong_argument_raises(self):
        plain = create_mobilenetv2("0.35", 2, SMALL)
        normalizing = create_mobilenetv2("0.35", 2, SMALL, include_preprocessing=True)
        for model, transform, match in (
            (plain, "mobilenetv2_100", "is not known"),
            (plain, 3, "int is not allowed"),
            (plain, mobilenet_zoo.preprocessing(normalizing), "doesn't normalize images itself"),
            (normalizing, "mobilenetv2_100.ra_in1k", "already normalizes images"),
        ):
            before = mobilenet_zoo.preprocessing(model)
            with pytest.raises(ValueError, match=match):
                mobilenet_zoo.set_preprocessing(model, transform)
            assert mobilenet_zoo.preprocessing(model) == before
        mobilenet_zoo.set_preprocessing(normalizing, dataclasses.replace(before, interpolation="lanczos"))
        assert mobilenet_zoo.preprocessing(normalizing).interpolation == "lanczos"

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
    def test_set_preprocessing_must_match_layers_that_normalize(self, layers, allowed):
        image = keras.Input(SMALL)
        x = image
        for layer in layers:
            x = layer(x)
        model = keras.Model(image, create_mobilenetv2("0.35", 2, SMALL)(x))
        plain = mobilenet_zoo.preprocessing(model)
        assert plain.mean is None
        for mean, std in (HALF, IMAGENET, ((0.0,) * 3, (1.0,) * 3)):
            transform = dataclasses.replace(plain, mean=mean, std=std, interpolation="nearest")
            if (mean, std) == allowed:
                mobilenet_zoo.set_preprocessing(model, transform)
                assert mobilenet_zoo.preprocessing(model).interpolation == "nearest"
            else:
                message = "can't be determined. Set mean=None" if allowed is None else "already normalizes images, with"
                with pytest.raises(ValueError, match=message):
                    mobilenet_zoo.set_preprocessing(model, transform)

    def test_preprocessing_that_was_set_is_saved(self, tmp_path):
        model = create_mobilenetv4("compact_nano", 2, (16, 16, 3))
        values = {"mean": np.float32((1e3, 0, -1e3)), "std": (1e3, 1e-9, 1)}
        transform = dataclasses.replace(mobilenet_zoo.preprocessing(model), crop=np.float64(0.5), **values)
        mobilenet_zoo.set_preprocessing(model, transform).save(tmp_path / "model.keras")
        assert mobilenet_zoo.preprocessing(keras.saving.load_model(tmp_path / "model.keras")) == transform

    def test_weights_with_another_normalization_than_the_model_warn(self, tmp_path):
        path = export_weights(tmp_path, create_mobilenetv2("0.35", 2, SMALL), "torchvision")
        model = create_mobilenetv2("0.35", 2, SMALL, include_preprocessing=True)
        with pytest.warns(UserWarning, match=r"normalizes images itself, with a mean of \(0.5\).*trained with \(0.4"):
            mobilenet_zoo.load_checkpoint(model, path)


class TestLoadingReplacesFacts:
    FACTS = Facts((32, 32), 0.9, "bilinear", (0.1, 0.2, 0.3), (0.2, 0.2, 0.2))
    NAMES = ("a", "b", "c", "d", "e", "f", "g")

    def test_assumed_facts_replace_nothing(self, tmp_path, recwarn):
        model = remember(narrow_v3(7), dataclasses.replace(self.FACTS, class_names=self.NAMES))
        mobilenet_zoo.load_checkpoint(model, export_weights(tmp_path, narrow_v3(7), "timm"))
        assert facts_of(model) == dataclasses.replace(self.FACTS, class_names=self.NAMES)
        mobilenet_zoo.preprocessing(model)
        assert not [warning for warning in recwarn if "prepared" in str(warning.message)]

    def test_assumed_facts_replace_assumed_facts(self, tmp_path):
        model = narrow_v3(weights=export_weights(tmp_path, narrow_v3(7), "timm"))
        mobilenet_zoo.load_checkpoint(model, export_weights(tmp_path, narrow_v3(7), "timm", "second.pth"))
        assert facts_of(model).assumed.startswith("second.pth")

    def test_recorded_facts_replace_facts_of_the_model(self, tmp_path):
        model = create_mobilenetv2("0.35", 7, SMALL)
        path = export_weights(tmp_path, model, "torchvision")
        remember(model, dataclasses.replace(self.FACTS, class_names=self.NAMES))
        mobilenet_zoo.load_checkpoint(model, path)
        assert normalization_of(model) == (IMAGENET, "bilinear")
        assert mobilenet_zoo.class_names_of(model) == list(self.NAMES)

    def test_recorded_facts_replace_facts_of_the_name(self, tmp_path):
        options = {"num_classes": 7, "input_shape": SMALL, "width_multiplier": 0.35}
        create_mobilenetv4("conv_small", **options).save(tmp_path / "own.keras")
        model = create_mobilenetv4("conv_small", **options, name="mobilenetv4_conv_small.e2400_r224_in1k")
        assert normalization_of(model) == (IMAGENET, "bicubic")
        assert normalization_of(mobilenet_zoo.load_checkpoint(model, tmp_path / "own.keras")) == (HALF, "bicubic")


class TestFilesWithOtherNames:
    """The facts that a file records are used, whatever the name of the file is."""

    @pytest.mark.parametrize("kind", ["keras", "safetensors", "h5"])
    @pytest.mark.parametrize("name", ["weights", "weights.pth"])
    @pytest.mark.parametrize("facts", [TestLoadingReplacesFacts.FACTS, None])
    def test_recorded_facts_are_used(self, kind, name, facts, tmp_path, recwarn):
        model = remember(create_mobilenetv2("0.35", 7, SMALL), facts)
        path = tmp_path / f"saved.{kind}"
        if kind == "safetensors":
            mobilenet_zoo.export_checkpoint(model, path, layout="timm")
        else:
            model.save(path)
        path.rename(tmp_path / name)
        loaded = create_mobilenetv2("0.35", None, SMALL, weights=tmp_path / name)
        facts = facts or Facts()
        assert normalization_of(loaded) == ((facts.mean, facts.std), facts.interpolation)
        assert not [warning for warning in recwarn if "prepared" in str(warning.message)]

    def test_damaged_header_is_ignored(self, tmp_path):
        path = tmp_path / "weights.safetensors"
        path.write_bytes((100).to_bytes(8, "little") + b"{" + b"x" * 200)
        assert own_options(path) == {}
        tensors = {"a": np.zeros(1, "float32")}
        for header in ({"image_facts": "no JSON"}, {"padding": "same", "norm_epsilon": "small"}):
            safetensors.numpy.save_file(tensors, path, header)
            assert own_options(path) == {}


class TestTimmConfig:
    CONFIG = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "interpolation": "bilinear", "crop_pct": 0.9}

    def model_with_config(self, tmp_path, text):
        model = narrow_v3(7)
        path = export_weights(tmp_path, model, "timm", "pytorch_model.bin")
        (tmp_path / "config.json").write_text(text)
        return narrow_v3(weights=path)

    @pytest.mark.parametrize("nested", [True, False])
    def test_config_sets_the_facts(self, nested, tmp_path):
        config = {**self.CONFIG, "input_size": [3, 64, 64]}
        transform = mobilenet_zoo.preprocessing(
            self.model_with_config(tmp_path, json.dumps({"pretrained_cfg": config} if nested else config))
        )
        assert (transform.mean, transform.std) == ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
        assert (transform.interpolation, transform.crop) == ("bilinear", 0.9)

    @pytest.mark.parametrize(
        "text",
        [
            "no JSON",
            "[]",
            "{}",
            json.dumps({"pretrained_cfg": {**CONFIG, "std": [0, 0, 0], "input_size": [3, 9, 9]}}),
        ],
    )
    def test_damaged_config_is_ignored(self, text, tmp_path):
        model = self.model_with_config(tmp_path, text)
        with pytest.warns(UserWarning, match=f"pytorch_model.bin {ASSUMED}"):
            assert normalization_of(model) == (IMAGENET, "bicubic")


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
def test_wrong_facts_in_a_file_raise(change, match):
    config = Facts((32, 48), 0.9, "bilinear", *IMAGENET, base="some").as_config()
    assert Facts.from_config(json.loads(json.dumps(config))).as_config() == config
    with pytest.raises(ValueError, match=match):
        Facts.from_config(config | change)
