"""A model of one's own: saved as a folder, pushed to a hub, loaded again here, by Keras and by timm's names."""

import json
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
DESCRIBED = {
    "class_names": NAMES,
    "dataset": "300 photographs of three flowers",
    "metrics": {"top-1 accuracy": 0.875},
    "license": "cc-by-4.0",
    "description": "Tells three flowers apart.",
}


def flowers(**options):
    """A model that has something to keep: statistics that are not 0 and 1, facts of its own, an optimizer."""
    model = create_mobilenetv2("0.35", 3, (32, 32, 3), **({"name": "flowers"} | options))
    for variable in model.weights:
        if "moving_" in variable.path:
            variable.assign(seeded.generator(variable.path).uniform(0.5, 1.0, variable.shape))
    model.compile("adam", "sparse_categorical_crossentropy")
    model.train_on_batch(np.zeros((2, 32, 32, 3)), np.zeros(2))
    return remember(model, Facts((32, 32), 0.9, "bilinear", (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), base=None))


def assert_same(model, other):
    x = seeded.image(32, 32)
    np.testing.assert_allclose(other.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)


@across
def test_a_head_with_a_convolution_and_a_dense_layer(tmp_path):
    """timm has none: a convolution before its dense layer is a stage of its own."""
    stages = ((Universal(0, 3, 16, 16, 2),),)
    own = Architecture("own", Conv(8, stride=2), stages, Head(conv=Conv(24, kernel=1), dense=Dense(32)))
    model = seeded.randomized(create_mobilenetv4(own, 3, (32, 32, 3)))
    folder = mobilenet_zoo.save_pretrained(model, tmp_path / "own", class_names=NAMES)
    assert_same(model, mobilenet_zoo.from_pretrained(folder))
    names = load_file(folder / "model.safetensors")
    assert names["blocks.1.0.conv.weight"].shape == (24, 16, 1, 1)
    assert names["conv_head.weight"].shape == (32, 24, 1, 1)


@across
def test_a_folder_holds_all_that_belongs_to_a_model(tmp_path):
    model = flowers()
    folder = mobilenet_zoo.save_pretrained(model, tmp_path / "a" / "flowers", **DESCRIBED)
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "config.json",
        "metadata.json",
        "mobilenet.json",
        "model.safetensors",
        "model.weights.h5",
    }
    loaded = mobilenet_zoo.from_pretrained(folder)
    assert_same(model, loaded)
    assert getattr(loaded, "optimizer", None) is None
    assert mobilenet_zoo.preprocessing(loaded) == mobilenet_zoo.preprocessing(model)
    assert mobilenet_zoo.class_names_of(loaded) == NAMES
    assert_same(model, keras.saving.load_model(folder))


@across
class TestTheFiles:
    def test_the_tensors_have_timms_names(self, tmp_path):
        model = flowers()
        mobilenet_zoo.save_pretrained(model, tmp_path, **DESCRIBED)
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
    def test_models_that_timm_lacks(self, change, layout, tmp_path):
        model = flowers()
        model.trainable = False
        model = change(model)
        mobilenet_zoo.save_pretrained(model, tmp_path)
        assert json.loads((tmp_path / "mobilenet.json").read_text())["layout"] == layout
        assert_same(model, mobilenet_zoo.from_pretrained(tmp_path))

    def test_the_card(self, tmp_path):
        mobilenet_zoo.save_pretrained(flowers(), tmp_path, **DESCRIBED)
        card = (tmp_path / "README.md").read_text()
        for said in (
            'license: "cc-by-4.0"',
            "library_name: keras",
            "pipeline_tag: image-classification",
            "Tells three flowers apart.",
            "Trained on: 300 photographs of three flowers",
            "| top-1 accuracy | 0.875 |",
            "32 × 32 pixels: resized (bilinear)",
            "daisy, rose, tulip",
        ):
            assert said in card

    def test_the_card_of_a_model_from_published_weights(self, tmp_path):
        model = create_mobilenetv3("small", 3, (32, 32, 3), name="mobilenetv3_small_100.lamb_in1k")
        mobilenet_zoo.save_pretrained(model, tmp_path)
        card = (tmp_path / "README.md").read_text()
        assert 'base_model: "timm/mobilenetv3_small_100.lamb_in1k"' in card
        assert 'license: "apache-2.0"' in card
        loaded = mobilenet_zoo.from_pretrained(tmp_path)
        assert mobilenet_zoo.preprocessing(loaded).mean == (0.485, 0.456, 0.406)

    def test_saving_again_replaces_and_leaves_nothing(self, tmp_path):
        (tmp_path / "mine.txt").write_text("stays")
        mobilenet_zoo.save_pretrained(flowers(), tmp_path)
        model = flowers()
        mobilenet_zoo.save_pretrained(model, tmp_path, class_names=NAMES)
        assert_same(model, mobilenet_zoo.from_pretrained(tmp_path))
        assert len(list(tmp_path.iterdir())) == 7

    def test_names_must_be_as_many_as_outputs(self, tmp_path):
        with pytest.raises(ValueError, match="class_names has 2 names, but flowers has 3 outputs"):
            mobilenet_zoo.save_pretrained(flowers(), tmp_path / "new", class_names=["a", "b"])
        assert not (tmp_path / "new").exists()


@across
class TestTheHub:
    def test_a_pushed_model_comes_back(self, hub):
        model = flowers()
        address = mobilenet_zoo.push_to_hub(model, REPOSITORY, **DESCRIBED)
        assert address.startswith(f"{hub.address}/{REPOSITORY}/commit/")
        for name in (REPOSITORY, f"hf://{REPOSITORY}"):
            loaded = mobilenet_zoo.from_pretrained(name)
            assert_same(model, loaded)
            assert mobilenet_zoo.class_names_of(loaded) == NAMES
        assert_same(model, keras.saving.load_model(f"hf://{REPOSITORY}"))

    def test_a_branch(self, hub):
        mobilenet_zoo.push_to_hub(flowers(), REPOSITORY, branch="trial")
        assert "trial" in hub.revisions
        mobilenet_zoo.from_pretrained(REPOSITORY, revision="trial")
        with pytest.raises(DownloadError, match="no such revision"):
            mobilenet_zoo.from_pretrained(REPOSITORY, revision="other")

    def test_what_keras_itself_pushed(self, hub, tmp_path):
        model = flowers()
        model.save(tmp_path / "saved", zipped=False)
        for path in (tmp_path / "saved").glob("*.*"):
            hub.files[REPOSITORY, path.name] = path
        loaded = mobilenet_zoo.from_pretrained(REPOSITORY)
        assert_same(model, loaded)
        assert getattr(loaded, "optimizer", None) is None

    def test_a_token(self, hub):
        hub.private[REPOSITORY] = "secret"
        with pytest.raises(DownloadError, match="can't be written to.*HF_TOKEN"):
            mobilenet_zoo.push_to_hub(flowers(), REPOSITORY, token="wrong")
        mobilenet_zoo.push_to_hub(flowers(), REPOSITORY, token="secret")
        with pytest.raises(DownloadError, match="log in"):
            mobilenet_zoo.from_pretrained(REPOSITORY)
        mobilenet_zoo.from_pretrained(REPOSITORY, token="secret")

    def test_a_hub_that_fails_is_named(self, hub, quick_retries):
        hub.faults.status, hub.faults.refusals = 500, -1
        with pytest.raises(DownloadError, match=f"can't be written to: {hub.address} is failing"):
            mobilenet_zoo.push_to_hub(flowers(), REPOSITORY)

    def test_a_broken_file_is_fetched_once_more(self, hub):
        mobilenet_zoo.push_to_hub(flowers(), REPOSITORY)
        hub.faults.broken = 1
        mobilenet_zoo.from_pretrained(REPOSITORY)
        hub.faults.broken = -1
        mobilenet_zoo.from_pretrained(REPOSITORY)  # from the cache

    def test_there_is_no_such_repository(self, hub):
        with pytest.raises(DownloadError, match="knows no such repository"):
            mobilenet_zoo.from_pretrained("someone/nothing")


@across
class TestWhatCantBeLoaded:
    @pytest.fixture
    def folder(self, tmp_path):
        return mobilenet_zoo.save_pretrained(flowers(), tmp_path / "flowers", **DESCRIBED)

    def refused(self, folder, match):
        with pytest.raises(CheckpointError, match=match):
            mobilenet_zoo.from_pretrained(folder)

    def test_files_that_are_missing(self, folder):
        (folder / "model.safetensors").unlink()
        mobilenet_zoo.from_pretrained(folder)  # Keras's file has the same weights
        (folder / "model.weights.h5").unlink()
        self.refused(folder, "model.weights.h5")
        (folder / "config.json").unlink()
        self.refused(folder, "config.json is not there")

    @pytest.mark.parametrize("file", ["config.json", "mobilenet.json", "model.safetensors"])
    def test_files_that_are_damaged(self, folder, file):
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: len(content) // 2])
        self.refused(folder, file)

    def test_weights_that_do_not_fit(self, folder):
        tensors = load_file(folder / "model.safetensors")
        tensors["conv_stem.weight"][0] = np.nan
        save_file(tensors, folder / "model.safetensors")
        self.refused(folder, "Not finite.*conv_stem.weight")

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
    def test_configurations_that_are_no_model(self, folder, config):
        (folder / "config.json").write_text(json.dumps(config))
        self.refused(folder, "config.json describes")

    @pytest.mark.parametrize(
        "change, match",
        [
            ({"format": 99}, "newer mobilenet-zoo"),
            ({"preprocessing": {}}, "mobilenet.json is damaged"),
            ({"preprocessing": None}, "mobilenet.json is damaged"),
            ({"layout": "unknown"}, "layout='unknown'"),
        ],
    )
    def test_facts_that_are_wrong(self, folder, change, match):
        record = json.loads((folder / "mobilenet.json").read_text())
        (folder / "mobilenet.json").write_text(json.dumps(record | change))
        with pytest.raises(ValueError, match=match):
            mobilenet_zoo.from_pretrained(folder)

    def test_names_that_are_none(self, tmp_path):
        for name in ("flowers", "a/b/c", str(tmp_path / "absent"), "./absent", "./a@b/c", "~/absent"):
            with pytest.raises(ValueError, match="is not an existing folder, a model name, or a repository"):
                mobilenet_zoo.from_pretrained(name)

    @pytest.mark.parametrize("prefix", ["", "hf-hub:", "hf://"])
    def test_timms_repositories_without_a_mobilenet_are_unknown_at_once(self, prefix, monkeypatch):
        monkeypatch.setattr(pretrained, "download_from_hub", None)
        name = f"{prefix}timm/mobilenetv4_conv_smal.e2400_r224_in1k"
        for ask in (mobilenet_zoo.from_pretrained, lambda name: check_model("model", name)):
            with pytest.raises(ValueError, match="Did you mean 'mobilenetv4_conv_small.e2400_r224_in1k'"):
                ask(name)
        with pytest.raises(ValueError, match="a model name without weights: add a tag, such as 'mobilenetv3_s"):
            mobilenet_zoo.from_pretrained(f"{prefix}timm/mobilenetv3_small_100")

    def test_a_revision_of_a_repository(self, monkeypatch):
        asked = []

        def download(repository, file, revision, token):
            asked.append((repository, revision))
            raise mobilenet_zoo.DownloadError("it is not there", absent=file == "mobilenet.json")

        monkeypatch.setattr(pretrained, "download_from_hub", download)
        for name, options in (("me/mine@v2", {}), ("hf://me/mine@v2", {"revision": "v2"}), ("me/mine", {})):
            with pytest.raises(mobilenet_zoo.DownloadError):
                mobilenet_zoo.from_pretrained(name, **options)
        assert dict.fromkeys(asked) == dict.fromkeys([("me/mine", "v2"), ("me/mine", None)])

    def test_a_path_out_of_the_folder(self, hub):
        for name in ("../secrets", "someone/..", "hf://../x"):
            with pytest.raises(ValueError):
                mobilenet_zoo.from_pretrained(name)

    def test_options_are_for_published_weights(self, folder):
        with pytest.raises(ValueError, match="num_classes: options are for published weights"):
            mobilenet_zoo.from_pretrained(folder, num_classes=2)


@across
def test_published_weights_by_their_names(monkeypatch):
    asked = []
    monkeypatch.setattr("mobilenet_zoo.pretrained.create_model", lambda name, **options: asked.append((name, options)))
    name = "mobilenetv3_small_100.lamb_in1k"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mobilenet_zoo.from_pretrained(f"timm/{name}", num_classes=3)
        mobilenet_zoo.from_pretrained(f"hf://timm/{name}", revision="main")
        mobilenet_zoo.from_pretrained(name)
        mobilenet_zoo.from_pretrained(f"hf-hub:timm/{name}@main")
        mobilenet_zoo.from_pretrained(f"{name}@main", revision="main")
    assert asked == [(name, {"num_classes": 3}), (f"{name}@main", {}), (name, {}), *[(f"{name}@main", {})] * 2]
    with pytest.raises(ValueError, match=f"revision='other' is not the one in {name}@main"):
        mobilenet_zoo.from_pretrained(f"{name}@main", revision="other")
    assert not Path(name).exists()
