"""`save_pretrained`, `push_to_hub` and `from_pretrained`: folders, repositories and names of published weights."""

import json
import shutil
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import mobilenet_zoo
from mobilenet_common import Architecture
from mobilenet_common.architecture import Conv, Dense, Head, Universal
from mobilenet_common.errors import CheckpointError, DownloadError
from mobilenet_common.facts import Facts, remember
from mobilenet_v2 import create_mobilenetv2
from mobilenet_v3 import create_mobilenetv3
from mobilenet_v4 import create_mobilenetv4
from mobilenet_zoo import pretrained
from mobilenet_zoo.names import check_model
from tests import seeded

across = pytest.mark.across
NAMES = ["daisy", "rose", "tulip"]
REPOSITORY = "someone/flowers"
CARD_OPTIONS = {
    "class_names": NAMES,
    "dataset": "300 photographs of three flowers",
    "metrics": {"top-1 accuracy": 0.875},
    "license": "cc-by-4.0",
    "description": "Tells three flowers apart.",
}


def flower_model(**options):
    """Return a compiled model with image facts, and with moving statistics that aren't 0 and 1."""
    model = create_mobilenetv2("0.35", 3, (32, 32, 3), **({"name": "flowers"} | options))
    for variable in model.weights:
        if "moving_" in variable.path:
            variable.assign(seeded.generator(variable.path).uniform(0.5, 1.0, variable.shape))
    model.compile("adam", "sparse_categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)
    return remember(model, Facts((32, 32), 0.9, "bilinear", (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), base=None))


def assert_same_predictions(model, other):
    x = seeded.image(32, 32)
    np.testing.assert_allclose(other.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)


@across
def test_head_with_convolution_and_dense_layer_is_restored(tmp_path):
    """timm has no such head, so the convolution before the dense layer is saved as one more stage."""
    stages = ((Universal(0, 3, 16, 16, 2),),)
    architecture = Architecture("own", Conv(8, stride=2), stages, Head(conv=Conv(24, kernel=1), dense=Dense(32)))
    model = seeded.randomized(create_mobilenetv4(architecture, 3, (32, 32, 3)))
    folder = mobilenet_zoo.save_pretrained(model, tmp_path / "own", class_names=NAMES)
    assert_same_predictions(model, mobilenet_zoo.from_pretrained(folder))
    tensors = load_file(folder / "model.safetensors")
    assert tensors["blocks.1.0.conv.weight"].shape == (24, 16, 1, 1)
    assert tensors["conv_head.weight"].shape == (32, 24, 1, 1)


@across
def test_folder_restores_predictions_preprocessing_and_class_names(tmp_path):
    model = flower_model()
    folder = mobilenet_zoo.save_pretrained(model, tmp_path / "a" / "flowers", **CARD_OPTIONS)
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "config.json",
        "metadata.json",
        "mobilenet.json",
        "model.safetensors",
        "model.weights.h5",
    }
    loaded = mobilenet_zoo.from_pretrained(folder)
    assert_same_predictions(model, loaded)
    assert getattr(loaded, "optimizer", None) is None
    assert mobilenet_zoo.preprocessing(loaded) == mobilenet_zoo.preprocessing(model)
    assert mobilenet_zoo.class_names_of(loaded) == NAMES
    assert_same_predictions(model, keras.saving.load_model(folder))


@across
class TestSavedFiles:
    def test_tensors_have_the_names_of_timm(self, tmp_path):
        model = flower_model()
        mobilenet_zoo.save_pretrained(model, tmp_path, **CARD_OPTIONS)
        tensors = load_file(tmp_path / "model.safetensors")
        np.testing.assert_array_equal(tensors["classifier.weight"], model.get_layer("classifier").kernel.numpy().T)
        assert json.loads((tmp_path / "mobilenet.json").read_text())["layout"] == "timm"

    @pytest.mark.parametrize(
        "change, layout",
        [
            (mobilenet_zoo.fuse, "native"),
            (lambda model: keras.Model(model.input, model.get_layer("pool").output), "native"),
            (lambda model: create_mobilenetv4("compact_nano", 3, (32, 32, 3)), "compact"),
        ],
        ids=["fused", "no top", "compact"],
    )
    def test_models_unknown_to_timm_are_saved_in_other_layouts(self, change, layout, tmp_path):
        model = flower_model()
        model.trainable = False
        model = change(model)
        mobilenet_zoo.save_pretrained(model, tmp_path)
        assert json.loads((tmp_path / "mobilenet.json").read_text())["layout"] == layout
        assert_same_predictions(model, mobilenet_zoo.from_pretrained(tmp_path))

    def test_card_describes_the_model(self, tmp_path):
        mobilenet_zoo.save_pretrained(flower_model(), tmp_path, **CARD_OPTIONS)
        card = (tmp_path / "README.md").read_text()
        for text in (
            'license: "cc-by-4.0"',
            "library_name: keras",
            "pipeline_tag: image-classification",
            "Tells three flowers apart.",
            "Trained on: 300 photographs of three flowers",
            "| top-1 accuracy | 0.875 |",
            "32 × 32 pixels: resized (bilinear)",
            "daisy, rose, tulip",
        ):
            assert text in card

    def test_card_names_published_weights_as_base_model(self, tmp_path):
        model = create_mobilenetv3("small", 3, (32, 32, 3), name="mobilenetv3_small_100.lamb_in1k")
        mobilenet_zoo.save_pretrained(model, tmp_path)
        card = (tmp_path / "README.md").read_text()
        assert 'base_model: "timm/mobilenetv3_small_100.lamb_in1k"' in card
        assert 'license: "apache-2.0"' in card
        loaded = mobilenet_zoo.from_pretrained(tmp_path)
        assert mobilenet_zoo.preprocessing(loaded).mean == (0.485, 0.456, 0.406)

    def test_saving_again_replaces_only_files_of_the_model(self, tmp_path):
        (tmp_path / "mine.txt").write_text("stays")
        mobilenet_zoo.save_pretrained(flower_model(), tmp_path)
        model = flower_model()
        mobilenet_zoo.save_pretrained(model, tmp_path, class_names=NAMES)
        assert_same_predictions(model, mobilenet_zoo.from_pretrained(tmp_path))
        assert len(list(tmp_path.iterdir())) == 7

    def test_wrong_number_of_class_names_raises(self, tmp_path):
        with pytest.raises(ValueError, match="class_names has 2 names, but flowers has 3 outputs"):
            mobilenet_zoo.save_pretrained(flower_model(), tmp_path / "new", class_names=["a", "b"])
        assert not (tmp_path / "new").exists()


@across
class TestHub:
    def test_pushed_model_can_be_loaded(self, hub):
        model = flower_model()
        address = mobilenet_zoo.push_to_hub(model, REPOSITORY, **CARD_OPTIONS)
        assert address.startswith(f"{hub.address}/{REPOSITORY}/commit/")
        for name in (REPOSITORY, f"hf://{REPOSITORY}"):
            loaded = mobilenet_zoo.from_pretrained(name)
            assert_same_predictions(model, loaded)
            assert mobilenet_zoo.class_names_of(loaded) == NAMES
        assert_same_predictions(model, keras.saving.load_model(f"hf://{REPOSITORY}"))

    def test_branch_is_loaded_as_revision(self, hub):
        mobilenet_zoo.push_to_hub(flower_model(), REPOSITORY, branch="trial")
        assert "trial" in hub.revisions
        mobilenet_zoo.from_pretrained(REPOSITORY, revision="trial")
        with pytest.raises(DownloadError, match="no such revision"):
            mobilenet_zoo.from_pretrained(REPOSITORY, revision="other")

    def test_folder_saved_by_keras_can_be_loaded(self, hub, tmp_path):
        model = flower_model()
        model.save(tmp_path / "saved", zipped=False)
        for path in (tmp_path / "saved").glob("*.*"):
            hub.files[REPOSITORY, path.name] = path
        loaded = mobilenet_zoo.from_pretrained(REPOSITORY)
        assert_same_predictions(model, loaded)
        assert getattr(loaded, "optimizer", None) is None

    def test_private_repository_needs_a_token(self, hub):
        hub.private[REPOSITORY] = "secret"
        with pytest.raises(DownloadError, match="can't be written to.*HF_TOKEN"):
            mobilenet_zoo.push_to_hub(flower_model(), REPOSITORY, token="wrong")
        mobilenet_zoo.push_to_hub(flower_model(), REPOSITORY, token="secret")
        with pytest.raises(DownloadError, match="log in"):
            mobilenet_zoo.from_pretrained(REPOSITORY)
        mobilenet_zoo.from_pretrained(REPOSITORY, token="secret")

    def test_server_error_names_the_hub(self, hub, quick_retries):
        hub.faults.status, hub.faults.refusals = 500, -1
        with pytest.raises(DownloadError, match=f"can't be written to: {hub.address} has a server error"):
            mobilenet_zoo.push_to_hub(flower_model(), REPOSITORY)

    def test_broken_file_is_downloaded_again(self, hub):
        mobilenet_zoo.push_to_hub(flower_model(), REPOSITORY)
        hub.faults.broken = 1
        mobilenet_zoo.from_pretrained(REPOSITORY)
        hub.faults.broken = -1
        mobilenet_zoo.from_pretrained(REPOSITORY)  # The cache has intact files.

    def test_unknown_repository_raises(self, hub):
        with pytest.raises(DownloadError, match="has no such repository"):
            mobilenet_zoo.from_pretrained("someone/nothing")


@pytest.fixture(scope="module")
def saved_flowers(tmp_path_factory):
    """Folder of a saved `flower_model`, for tests that damage a copy of it."""
    folder = tmp_path_factory.mktemp("saved") / "flowers"
    return mobilenet_zoo.save_pretrained(flower_model(), folder, **CARD_OPTIONS)


@across
class TestLoadErrors:
    @pytest.fixture
    def folder(self, saved_flowers, tmp_path):
        return Path(shutil.copytree(saved_flowers, tmp_path / "flowers"))

    def assert_load_raises(self, folder, match):
        with pytest.raises(CheckpointError, match=match):
            mobilenet_zoo.from_pretrained(folder)

    def test_missing_files_raise_checkpoint_error(self, folder):
        (folder / "model.safetensors").unlink()
        mobilenet_zoo.from_pretrained(folder)  # model.weights.h5 has the same weights
        (folder / "model.weights.h5").unlink()
        self.assert_load_raises(folder, "model.weights.h5")
        (folder / "config.json").unlink()
        self.assert_load_raises(folder, "config.json does not exist")

    @pytest.mark.parametrize("file", ["config.json", "mobilenet.json", "model.safetensors"])
    def test_damaged_file_raises_checkpoint_error(self, folder, file):
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: len(content) // 2])
        self.assert_load_raises(folder, file)

    def test_weights_with_nan_raise_checkpoint_error(self, folder):
        tensors = load_file(folder / "model.safetensors")
        tensors["conv_stem.weight"][0] = np.nan
        save_file(tensors, folder / "model.safetensors")
        self.assert_load_raises(folder, "Not finite.*conv_stem.weight")

    @pytest.mark.parametrize(
        "config",
        [
            {"class_name": "Dense", "module": "keras.layers", "config": {"units": 3}, "registered_name": None},
            {"class_name": "Functional", "module": "keras.src.models.functional", "config": {}},
            {"class_name": "system", "module": "os", "config": "true"},
            {
                "class_name": "__lambda__",
                "config": {"value": "4wEAAAAAAAAAAAAAAAEAAAADAAAA8wQAAAB8AFMA", "defaults": None, "closure": None},
            },
            [],
        ],
        ids=["layer", "empty", "module", "lambda", "list"],
    )
    def test_config_without_a_model_raises_checkpoint_error(self, folder, config):
        (folder / "config.json").write_text(json.dumps(config))
        self.assert_load_raises(folder, "config.json (describes|doesn't describe)")

    @pytest.mark.parametrize(
        "change, match",
        [
            ({"format": 99}, "newer mobilenet-zoo"),
            ({"preprocessing": {}}, "mobilenet.json is damaged"),
            ({"preprocessing": None}, "mobilenet.json is damaged"),
            ({"layout": "unknown"}, "layout='unknown'"),
        ],
    )
    def test_wrong_record_raises(self, folder, change, match):
        record = json.loads((folder / "mobilenet.json").read_text())
        (folder / "mobilenet.json").write_text(json.dumps(record | change))
        with pytest.raises(ValueError, match=match):
            mobilenet_zoo.from_pretrained(folder)

    def test_unknown_name_raises(self, tmp_path):
        for name in ("flowers", "a/b/c", str(tmp_path / "absent"), "./absent", "./a@b/c", "~/absent"):
            with pytest.raises(ValueError, match="is not an existing folder, a model name, or a repository"):
                mobilenet_zoo.from_pretrained(name)

    @pytest.mark.parametrize("prefix", ["", "hf-hub:", "hf://"])
    def test_unknown_timm_repository_raises_without_download(self, prefix, monkeypatch):
        monkeypatch.setattr(pretrained, "download_from_hub", None)
        name = f"{prefix}timm/mobilenetv4_conv_smal.e2400_r224_in1k"
        for function in (mobilenet_zoo.from_pretrained, lambda name: check_model("model", name)):
            with pytest.raises(ValueError, match="Did you mean 'mobilenetv4_conv_small.e2400_r224_in1k'"):
                function(name)
        with pytest.raises(ValueError, match="a model name without weights: add a tag, such as 'mobilenetv3_s"):
            mobilenet_zoo.from_pretrained(f"{prefix}timm/mobilenetv3_small_100")

    def test_revision_is_passed_to_the_download(self, monkeypatch):
        requests = []

        def download(repository, file, revision, token):
            requests.append((repository, revision))
            raise mobilenet_zoo.DownloadError("it is not there", absent=file == "mobilenet.json")

        monkeypatch.setattr(pretrained, "download_from_hub", download)
        for name, options in (("me/mine@v2", {}), ("hf://me/mine@v2", {"revision": "v2"}), ("me/mine", {})):
            with pytest.raises(mobilenet_zoo.DownloadError):
                mobilenet_zoo.from_pretrained(name, **options)
        assert dict.fromkeys(requests) == dict.fromkeys([("me/mine", "v2"), ("me/mine", None)])

    def test_name_with_parent_folder_raises(self, hub):
        for name in ("../secrets", "someone/..", "hf://../x"):
            with pytest.raises(ValueError):
                mobilenet_zoo.from_pretrained(name)

    def test_options_for_a_folder_raise(self, folder):
        with pytest.raises(ValueError, match="num_classes: allowed only for published weights"):
            mobilenet_zoo.from_pretrained(folder, num_classes=2)


@across
def test_published_weights_load_by_name(monkeypatch):
    calls = []
    monkeypatch.setattr("mobilenet_zoo.pretrained.create_model", lambda name, **options: calls.append((name, options)))
    name = "mobilenetv3_small_100.lamb_in1k"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mobilenet_zoo.from_pretrained(f"timm/{name}", num_classes=3)
        mobilenet_zoo.from_pretrained(f"hf://timm/{name}", revision="main")
        mobilenet_zoo.from_pretrained(name)
        mobilenet_zoo.from_pretrained(f"hf-hub:timm/{name}@main")
        mobilenet_zoo.from_pretrained(f"{name}@main", revision="main")
    assert calls == [(name, {"num_classes": 3}), (f"{name}@main", {}), (name, {}), *[(f"{name}@main", {})] * 2]
    with pytest.raises(ValueError, match=f"revision='other' contradicts the revision in {name}@main"):
        mobilenet_zoo.from_pretrained(f"{name}@main", revision="other")
    assert not Path(name).exists()
