"""Published weights through the real client, from a hub on loopback: what arrives, what goes wrong, what stays."""

import dataclasses
import errno
import hashlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import huggingface_hub as hub_client
import huggingface_hub.constants
import huggingface_hub.file_download
import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

import mobilenet_v1
import mobilenet_v2
import mobilenet_zoo
from mobilenet_common.errors import DownloadError
from mobilenet_v2 import create_mobilenetv2
from mobilenet_v4 import create_mobilenetv4
from mobilenet_zoo.registry import WEIGHTS
from tests import hub_server, references, seeded

TIMM = [name for name, checkpoint in WEIGHTS.items() if checkpoint.source == "timm"]
QUICK = ("mobilenetv4_conv_small_050.e3000_r224_in1k", "mobilenetv3_small_050.lamb_in1k")
SMALL = "mobilenetv4_conv_small_050.e3000_r224_in1k"
REPOSITORY, FILE = f"timm/{SMALL}", "model.safetensors"
BY_NAME = {"input_shape": (64, 64, 3), "classifier_activation": None}
OPTIONS = {"width_multiplier": 0.5, **BY_NAME}


def state_dict(name):
    """The seeded tensors of a published checkpoint, by timm's names and shapes."""
    shapes = dict(references.checkpoints()[f"timm/{name.partition('.')[0]}"]["shapes"])
    for tensor in ("classifier.weight", "classifier.bias"):
        shapes[tensor] = [WEIGHTS[name].num_classes, *shapes[tensor][1:]]
    return seeded.state_dict(shapes)


@pytest.fixture(scope="session")
def small_file(tmp_path_factory):
    """The smallest checkpoint's file."""
    path = tmp_path_factory.mktemp("hub") / FILE
    save_file(state_dict(SMALL), path)
    return path


@pytest.fixture
def small(hub, small_file):
    """A hub that has the smallest checkpoint."""
    hub.files[REPOSITORY, FILE] = small_file
    return hub


def cached():
    """What the cache holds of files, whole or not."""
    blobs = Path(hub_client.constants.HF_HUB_CACHE).glob("models--*/blobs/*")
    return sorted(path.name for path in blobs)


def create(**options):
    return create_mobilenetv4("conv_small", weights=SMALL, **(OPTIONS | options))


def check_loaded(model):
    """Assert that the model answers as one into which the same tensors were loaded from a mapping."""
    expected = mobilenet_zoo.create_model("mobilenetv4_conv_small_050", **BY_NAME)
    mobilenet_zoo.load_checkpoint(expected, state_dict(SMALL), layout="timm")
    x = seeded.image(64, 64)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected.predict(x, verbose=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in TIMM]
)
def test_every_checkpoint_loads_through_the_hub(name, hub, tmp_path):
    tensors = state_dict(name)
    save_file(tensors, tmp_path / FILE)
    hub.files[f"timm/{name}", FILE] = tmp_path / FILE
    model = mobilenet_zoo.create_model(name, classifier_activation=None)
    checkpoint = WEIGHTS[name]
    assert model.name == name
    assert model.input_shape == (None, checkpoint.input_size, checkpoint.input_size, 3)
    assert model.output_shape == (None, checkpoint.num_classes)
    kernel = keras.ops.convert_to_numpy(model.get_layer("stem").kernel)
    np.testing.assert_array_equal(kernel, tensors["conv_stem.weight"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(model.get_layer("classifier").kernel), tensors["classifier.weight"].T
    )
    assert model.get_layer("stem").padding == checkpoint.padding
    assert model.get_layer("stem").norm_epsilon == checkpoint.norm_epsilon


@pytest.mark.across
class TestWhatIsAskedFor:
    """Names, tags, the best, revisions; classes, channels and sizes of one's own."""

    def test_by_name_tag_and_best(self, small):
        x = seeded.image(64, 64)
        answers = [
            create_mobilenetv4("conv_small", weights=weights, **OPTIONS).predict(x, verbose=0)
            for weights in (SMALL, "e3000_r224_in1k", "imagenet", f"{SMALL}@{hub_server.COMMIT}", WEIGHTS[SMALL])
        ]
        for answer in answers[1:]:
            np.testing.assert_array_equal(answer, answers[0])
        assert len(small.downloads()) == 1, "the rest came from the cache"
        check_loaded(create())

    @pytest.mark.parametrize("prefix", ["timm/", "hf-hub:timm/", "hf_hub:timm/"])
    def test_by_timms_names_for_its_repositories(self, prefix, small):
        check_loaded(mobilenet_zoo.create_model(prefix + SMALL, **BY_NAME))
        check_loaded(mobilenet_zoo.from_pretrained(prefix + SMALL, **BY_NAME))
        check_loaded(create_mobilenetv4("conv_small", weights=prefix + SMALL, **OPTIONS))

    @pytest.mark.parametrize(
        "name, best",
        [
            ("mobilenetv4_conv_medium", "mobilenetv4_conv_medium.e250_r384_in12k_ft_in1k"),
            ("mobilenetv3_large_100", "mobilenetv3_large_100.miil_in21k_ft_in1k"),
            ("tf_mobilenetv3_large_100", "tf_mobilenetv3_large_100.in1k"),
            ("mobilenetv1_100", "mobilenetv1_100.ra4_e3600_r224_in1k"),
        ],
    )
    def test_imagenet_is_the_best_that_fits(self, name, best, hub):
        with pytest.raises(DownloadError, match=f"timm/{best} can't be had"):
            mobilenet_zoo.create_model(name, weights="imagenet")

    def test_a_revision_is_asked_for(self, small):
        small.revisions = ("main", "v1", hub_server.COMMIT)
        create_mobilenetv4("conv_small", weights=f"{SMALL}@v1", **OPTIONS)
        assert any("/resolve/v1/" in path for _, path, _ in small.requests)
        with pytest.raises(DownloadError, match="no such revision"):
            create_mobilenetv4("conv_small", weights=f"{SMALL}@v2", **OPTIONS)
        with pytest.raises(ValueError, match="only weights on the Hugging Face Hub have revisions"):
            create_mobilenetv2("1.0", weights="mobilenetv2_100.keras_r224@v2")

    def test_other_classes_keep_the_body_and_say_so(self, small):
        with pytest.warns(UserWarning, match="has 1000 classes: the classifier for 7 classes is new and must"):
            model = create(num_classes=7)
        body = create(include_top=False)
        assert model.output_shape == (None, 7)
        for variable in body.weights:
            same = next(weight for weight in model.weights if weight.path == variable.path)
            np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (same, variable)))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            create(num_classes=1000)

    @pytest.mark.parametrize("channels", [1, 2, 4, 6])
    def test_other_channels_adapt_the_stem(self, channels, small):
        model = create(input_shape=(64, 64, channels))
        gray = seeded.image(64, 64)[..., :1]
        answer = model.predict(np.repeat(gray, channels, -1), verbose=0)
        expected = create().predict(np.repeat(gray, 3, -1), verbose=0)
        if channels in (1, 6):  # a gray image in all channels is what three of it were
            np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5)
        theirs = state_dict(SMALL)["conv_stem.weight"]
        wanted = (
            theirs.sum(1, keepdims=True) if channels == 1 else theirs[:, [0, 1, 2, 0, 1, 2][:channels]] * 3 / channels
        )
        kernel = keras.ops.convert_to_numpy(model.get_layer("stem").kernel)
        np.testing.assert_allclose(kernel, wanted.transpose(2, 3, 1, 0), rtol=1e-6)

    @pytest.mark.parametrize(
        "variant, options, message",
        [
            (
                "conv_small",
                {"weights": SMALL},
                r"not published for this variant and width.*'conv_small' with width_multiplier=0.5",
            ),
            (
                "conv_small",
                {"weights": "imagenet", "width_multiplier": 0.7},
                r"There are some for 'conv_aa_large', 'conv_blur",
            ),
            ("compact_nano", {"weights": "imagenet"}, "not published for this variant"),
            ("conv_small", {"weights": "imagnet"}, "weights='imagnet' is not known. Did you mean 'imagenet'"),
            ("conv_small", {"weights": "e2400_r224"}, "is not known. Did you mean"),
        ],
    )
    def test_what_is_not_published_is_an_error(self, variant, options, message):
        with pytest.raises(ValueError, match=message):
            create_mobilenetv4(variant, **options)

    def test_an_unknown_tag_is_an_error(self):
        with pytest.raises(ValueError, match=r"Did you mean 'mobilenetv4_conv_small.e2400_r224_in1k'"):
            mobilenet_zoo.create_model("mobilenetv4_conv_small.e240_r224_in1k")

    def test_pixels_are_normalized_as_the_checkpoint_needs(self, small):
        pixels = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
        checkpoint = WEIGHTS[SMALL]
        scaled = (pixels / 255 - np.array(checkpoint.mean)) / np.array(checkpoint.std)
        inside = create(include_preprocessing=True).predict(pixels, verbose=0)
        np.testing.assert_allclose(inside, create().predict(scaled.astype("float32"), verbose=0), rtol=1e-3, atol=1e-4)


@pytest.mark.across
class TestFaults:
    """Nothing half-written is used or stays; the message says what to do; a second try works."""

    def fails(self, *parts):
        """The message of a load that fails; the cache holds nothing of it."""
        with pytest.raises(DownloadError) as caught:
            create()
        message = str(caught.value)
        for part in (REPOSITORY, *parts):
            assert part in message
        assert cached() == []
        return message

    def test_a_connection_that_breaks_is_resumed(self, small, quick_retries, monkeypatch):
        monkeypatch.setattr(hub_client.constants, "DOWNLOAD_CHUNK_SIZE", 100_000)  # what it writes at once
        small.faults = hub_server.Faults(cut=450_000, cuts=2)
        check_loaded(create())
        ranges = [asked for method, _, asked in small.requests if method == "GET"]
        assert ranges == [None, "bytes=400000-", "bytes=800000-"]

    def test_a_wrong_hash_is_fetched_once_more(self, small):
        small.faults = hub_server.Faults(broken=1)
        check_loaded(create())
        assert len(small.downloads()) == 2
        assert len(cached()) == 1

    def test_a_file_that_stays_broken_is_refused(self, small):
        small.faults = hub_server.Faults(broken=-1)
        self.fails("arrived broken twice")
        small.faults = hub_server.Faults()
        check_loaded(create())

    def test_a_truncated_file(self, small, quick_retries):
        small.faults = hub_server.Faults(truncated=-1)
        self.fails("can't be had")
        small.faults = hub_server.Faults()
        check_loaded(create())

    @pytest.mark.parametrize(
        "status, message",
        [
            (401, "log in by `hf auth login`"),
            (403, "log in by `hf auth login`"),
            (404, "404"),
            (429, "too many requests (429)"),
            (500, "is failing (500). Try again later"),
            (503, "is failing (503). Try again later"),
        ],
    )
    def test_a_hub_that_refuses_is_named(self, status, message, small, quick_retries):
        small.faults = hub_server.Faults(status=status, refusals=-1)
        assert small.address in self.fails(message)
        small.faults = hub_server.Faults()
        check_loaded(create())

    def test_a_hub_that_recovers_is_asked_again(self, small, quick_retries):
        small.faults = hub_server.Faults(status=503, refusals=2)
        check_loaded(create())

    def test_what_the_hub_does_not_have(self, hub, small_file):
        self.fails("knows no such repository, or doesn't show it to you (401)")
        hub.files[REPOSITORY, "other.txt"] = b"something"
        self.fails("no such file")
        hub.files[REPOSITORY, FILE] = small_file
        hub.private[REPOSITORY] = "secret"
        self.fails("set HF_TOKEN")

    def test_a_token_opens_a_private_repository(self, small, monkeypatch):
        small.private[REPOSITORY] = "secret"
        monkeypatch.setenv("HF_TOKEN", "secret")
        check_loaded(create())

    def test_no_hub_at_all(self, small, monkeypatch, quick_retries):
        constants = hub_client.constants
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        self.fails("http://127.0.0.1:9 can't be reached", "HF_ENDPOINT")

    def test_offline_without_a_cache_and_with_one(self, small, monkeypatch):
        monkeypatch.setattr(hub_client.constants, "HF_HUB_OFFLINE", True)
        self.fails("offline mode is on")
        monkeypatch.setattr(hub_client.constants, "HF_HUB_OFFLINE", False)
        create()
        monkeypatch.setattr(hub_client.constants, "HF_HUB_OFFLINE", True)
        asked = len(small.requests)
        check_loaded(create())
        assert len(small.requests) == asked

    def test_a_slow_hub(self, small):
        small.faults = hub_server.Faults(delay=0.5)
        check_loaded(create())

    @pytest.mark.parametrize("number, message", [(errno.ENOSPC, "is full"), (errno.EROFS, "can't be written to")])
    def test_a_disk_that_refuses(self, number, message, small, monkeypatch):
        def refuse(*_, **__):
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patched:
            patched.setattr(hub_client.file_download, "http_get", refuse)
            self.fails(message, "Set HF_HOME" if number == errno.EROFS else "set HF_HOME")
        check_loaded(create())

    def test_a_cached_file_that_breaks_is_fetched_again(self, small):
        create()
        (blob,) = Path(hub_client.constants.HF_HUB_CACHE).glob("models--*/blobs/*")
        content = bytearray(blob.read_bytes())
        content[len(content) // 2] ^= 1
        blob.write_bytes(content)
        check_loaded(create())
        assert len(small.downloads()) == 2

    def test_leftovers_of_a_killed_process_go(self, small):
        create()
        (blob,) = Path(hub_client.constants.HF_HUB_CACHE).glob("models--*/blobs/*")
        left = blob.with_name(f"{blob.name}.deadbeef.incomplete")
        left.write_bytes(b"half")
        create()
        assert not left.exists()

    def test_a_file_that_another_process_fetches_stays(self, small):
        import filelock

        create()
        cache = Path(hub_client.constants.HF_HUB_CACHE)
        (blob,) = cache.glob("models--*/blobs/*")
        part = blob.with_name(f"{blob.name}.cafecafe.incomplete")
        part.write_bytes(b"half")
        lock = cache / ".locks" / blob.parent.parent.name / f"{blob.name}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(lock):
            create()
            assert part.exists()

    def start(self, address, home, offline="0"):
        """A program of a user's that loads the checkpoint and prints its input's shape."""
        program = (
            "import mobilenet_zoo, json\n"
            f"model = mobilenet_zoo.create_model({SMALL!r}, include_top=False, pooling='avg')\n"
            "print(json.dumps(model.input_shape))"
        )
        settings = {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_OFFLINE": offline, "KERAS_BACKEND": "torch"}
        environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_CACHE"} | settings
        return subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parents[1],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def check_printed(self, process):
        output, errors = process.communicate()
        assert process.returncode == 0, errors[-2000:]
        assert json.loads(output) == [None, 224, 224, 3]

    @pytest.mark.slow
    def test_two_processes_at_once(self, small, tmp_path):
        small.faults = hub_server.Faults(delay=0.5)
        for process in [self.start(small.address, tmp_path / "home") for _ in range(2)]:
            self.check_printed(process)
        blobs = list((tmp_path / "home" / "hub").glob("models--timm--*/blobs/*"))
        assert len(blobs) == 1 and blobs[0].name == hashlib.sha256(blobs[0].read_bytes()).hexdigest()

    @pytest.mark.slow
    def test_settings_are_the_clients_own(self, small, tmp_path):
        for offline in ("0", "1"):
            self.check_printed(self.start(small.address, tmp_path / "home", offline))
        assert list((tmp_path / "home" / "hub").glob("models--timm--*/snapshots/*/model.safetensors"))
        assert len(small.downloads()) == 1


@pytest.mark.across
class TestOtherSources:
    """keras.applications' and torchvision's files, fetched as those libraries do, into their own caches."""

    @pytest.fixture
    def place(self, hub, monkeypatch, tmp_path):
        """A function that publishes a file of one's own as a checkpoint, on the running hub."""
        monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

        def publish(module, name, path, **facts):
            facts = {"repository": f"{hub.address}/plain/"} | facts
            monkeypatch.setitem(module.WEIGHTS, name, dataclasses.replace(module.WEIGHTS[name], **facts))
            checkpoint = module.WEIGHTS[name]
            hub.files["plain", checkpoint.no_top_file if "no_top" in path.name else checkpoint.file] = path
            return checkpoint

        return publish

    @pytest.mark.parametrize("include_top", [True, False])
    def test_keras_applications(self, include_top, place, hub, tmp_path):
        name, x = "mobilenetv1_025.keras_r128", seeded.image(128, 128)
        theirs = keras.applications.MobileNet(
            (128, 128, 3), alpha=0.25, weights=None, include_top=include_top, classifier_activation=None
        )
        theirs.save(tmp_path / ("top.h5" if include_top else "no_top.h5"))
        checkpoint = place(mobilenet_v1, name, tmp_path / ("top.h5" if include_top else "no_top.h5"))
        options = {"include_top": include_top, "classifier_activation": None}
        ours = mobilenet_v1.create_mobilenetv1("0.25", weights="keras_r128", **options)
        expected = theirs.predict(x, verbose=0)
        np.testing.assert_allclose(ours.predict(x, verbose=0), expected, atol=1e-4 * np.abs(expected).max())
        assert ours.input_shape == (None, 128, 128, 3)
        file = tmp_path / "keras" / "models" / (checkpoint.file if include_top else checkpoint.no_top_file)
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])  # as a killed process of Keras's leaves it
        mobilenet_v1.create_mobilenetv1("0.25", weights="keras_r128", **options)
        assert file.read_bytes() == content
        assert [path.name for path in file.parent.iterdir()] == [file.name]
        mobilenet_v1.create_mobilenetv1("0.25", weights="keras_r128", **options)
        assert len([path for _, path, _ in hub.requests]) == 2

    def test_torchvision(self, place, hub, tmp_path):
        import torch

        shapes = references.checkpoints()["torchvision/mobilenet_v2"]["shapes"]
        state = {key: torch.from_numpy(value) for key, value in seeded.state_dict(shapes).items()}
        torch.save(state, tmp_path / "v2.pth")
        sha256 = hashlib.sha256((tmp_path / "v2.pth").read_bytes()).hexdigest()
        name = "mobilenetv2_100.tv_v1_in1k"
        checkpoint = place(mobilenet_v2, name, tmp_path / "v2.pth", file=f"mobilenet_v2-{sha256[:8]}.pth")
        model = create_mobilenetv2("1.0", weights="tv_v1_in1k", input_shape=(64, 64, 3))
        assert model.get_layer("stem").padding == "symmetric"
        kernel = keras.ops.convert_to_numpy(model.get_layer("stem").kernel)
        np.testing.assert_array_equal(kernel, state["features.0.0.weight"].numpy().transpose(2, 3, 1, 0))
        file = tmp_path / "torch" / "hub" / "checkpoints" / checkpoint.file
        file.write_bytes(b"half")
        create_mobilenetv2("1.0", weights="tv_v1_in1k", input_shape=(64, 64, 3))
        assert hashlib.sha256(file.read_bytes()).hexdigest() == sha256
        assert len(hub.requests) == 2

    def test_what_is_not_there_is_an_error(self, place, hub, tmp_path):
        (tmp_path / "other.h5").write_bytes(b"")
        place(mobilenet_v1, "mobilenetv1_025.keras_r128", tmp_path / "other.h5")
        hub.files.clear()
        with pytest.raises(DownloadError, match="mobilenet_2_5_128_tf.h5 can't be had: .*404"):
            mobilenet_v1.create_mobilenetv1("0.25", weights="keras_r128")
        assert not any((tmp_path / "keras" / "models").iterdir())
