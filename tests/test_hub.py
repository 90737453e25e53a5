"""Downloading published weights with the real client from a local hub, including network and file errors."""

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
FAST_CHECKPOINTS = ("mobilenetv4_conv_small_050.e3000_r224_in1k", "mobilenetv3_small_050.lamb_in1k")
SMALL = "mobilenetv4_conv_small_050.e3000_r224_in1k"
REPOSITORY, FILE = f"timm/{SMALL}", "model.safetensors"
MODEL_OPTIONS = {"input_shape": (64, 64, 3), "classifier_activation": None}
OPTIONS = {"width_multiplier": 0.5, **MODEL_OPTIONS}


def state_dict(name):
    """Return seeded tensors with the names and shapes of a published timm checkpoint."""
    shapes = dict(references.checkpoints()[f"timm/{name.partition('.')[0]}"]["shapes"])
    for tensor in ("classifier.weight", "classifier.bias"):
        shapes[tensor] = [WEIGHTS[name].num_classes, *shapes[tensor][1:]]
    return seeded.state_dict(shapes)


@pytest.fixture(scope="session")
def small_file(tmp_path_factory):
    """The file of the smallest checkpoint, with seeded tensors."""
    path = tmp_path_factory.mktemp("hub") / FILE
    save_file(state_dict(SMALL), path)
    return path


@pytest.fixture
def small(hub, small_file):
    """A hub with the smallest checkpoint."""
    hub.files[REPOSITORY, FILE] = small_file
    return hub


def cached_files():
    """Return the names of the complete and incomplete files in the cache."""
    blobs = Path(hub_client.constants.HF_HUB_CACHE).glob("models--*/blobs/*")
    return sorted(path.name for path in blobs)


def create(**options):
    return create_mobilenetv4("conv_small", weights=SMALL, **(OPTIONS | options))


def check_loaded(model):
    """Assert that the model predicts the same as a model that loads the same tensors from a dictionary."""
    expected = mobilenet_zoo.create_model("mobilenetv4_conv_small_050", **MODEL_OPTIONS)
    mobilenet_zoo.load_checkpoint(expected, state_dict(SMALL), layout="timm")
    x = seeded.image(64, 64)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected.predict(x, verbose=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST_CHECKPOINTS else [pytest.mark.slow]) for name in TIMM]
)
def test_checkpoint_loads_from_hub(name, hub, tmp_path):
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
class TestWeightsArgument:
    """Names, tags, `"imagenet"` and revisions of weights, with other classes, channels and sizes."""

    def test_name_tag_and_imagenet_load_the_same_weights(self, small):
        x = seeded.image(64, 64)
        outputs = [
            create_mobilenetv4("conv_small", weights=weights, **OPTIONS).predict(x, verbose=0)
            for weights in (SMALL, "e3000_r224_in1k", "imagenet", f"{SMALL}@{hub_server.COMMIT}", WEIGHTS[SMALL])
        ]
        for output in outputs[1:]:
            np.testing.assert_array_equal(output, outputs[0])
        assert len(small.downloads()) == 1, "later calls use the cache"
        check_loaded(create())

    @pytest.mark.parametrize("prefix", ["timm/", "hf-hub:timm/", "hf_hub:timm/"])
    def test_repository_names_of_timm_load(self, prefix, small):
        check_loaded(mobilenet_zoo.create_model(prefix + SMALL, **MODEL_OPTIONS))
        check_loaded(mobilenet_zoo.from_pretrained(prefix + SMALL, **MODEL_OPTIONS))
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
    def test_imagenet_selects_most_accurate_weights(self, name, best, hub):
        with pytest.raises(DownloadError, match=f"timm/{best} can't be downloaded"):
            mobilenet_zoo.create_model(name, weights="imagenet")

    def test_revision_is_requested(self, small):
        small.revisions = ("main", "v1", hub_server.COMMIT)
        create_mobilenetv4("conv_small", weights=f"{SMALL}@v1", **OPTIONS)
        assert any("/resolve/v1/" in path for _, path, _ in small.requests)
        with pytest.raises(DownloadError, match="no such revision"):
            create_mobilenetv4("conv_small", weights=f"{SMALL}@v2", **OPTIONS)
        with pytest.raises(ValueError, match="only weights on the Hugging Face Hub have revisions"):
            create_mobilenetv2("1.0", weights="mobilenetv2_100.keras_r224@v2")

    def test_other_class_count_loads_body_and_warns(self, small):
        with pytest.warns(UserWarning, match="has 1000 classes: the classifier for 7 classes is new and must"):
            model = create(num_classes=7)
        body = create(include_top=False)
        assert model.output_shape == (None, 7)
        for variable in body.weights:
            loaded = next(weight for weight in model.weights if weight.path == variable.path)
            np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (loaded, variable)))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            create(num_classes=1000)

    @pytest.mark.parametrize("channels", [1, 2, 4, 6])
    def test_other_channel_counts_adapt_stem_kernel(self, channels, small):
        model = create(input_shape=(64, 64, channels))
        gray = seeded.image(64, 64)[..., :1]
        output = model.predict(np.repeat(gray, channels, -1), verbose=0)
        expected = create().predict(np.repeat(gray, 3, -1), verbose=0)
        if channels in (1, 6):  # a gray image gives the same output as with three channels
            np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)
        published = state_dict(SMALL)["conv_stem.weight"]
        expected_kernel = (
            published.sum(1, keepdims=True)
            if channels == 1
            else published[:, [0, 1, 2, 0, 1, 2][:channels]] * 3 / channels
        )
        kernel = keras.ops.convert_to_numpy(model.get_layer("stem").kernel)
        np.testing.assert_allclose(kernel, expected_kernel.transpose(2, 3, 1, 0), rtol=1e-6)

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
                r"Available for: 'conv_aa_large', 'conv_blur",
            ),
            ("compact_nano", {"weights": "imagenet"}, "not published for this variant"),
            ("conv_small", {"weights": "imagnet"}, "weights='imagnet' is not known. Did you mean 'imagenet'"),
            ("conv_small", {"weights": "e2400_r224"}, "is not known. Did you mean"),
        ],
    )
    def test_unpublished_weights_raise_value_error(self, variant, options, message):
        with pytest.raises(ValueError, match=message):
            create_mobilenetv4(variant, **options)

    def test_unknown_tag_raises_value_error(self):
        with pytest.raises(ValueError, match=r"Did you mean 'mobilenetv4_conv_small.e2400_r224_in1k'"):
            mobilenet_zoo.create_model("mobilenetv4_conv_small.e240_r224_in1k")

    def test_include_preprocessing_uses_normalization_of_checkpoint(self, small):
        pixels = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
        checkpoint = WEIGHTS[SMALL]
        scaled = (pixels / 255 - np.array(checkpoint.mean)) / np.array(checkpoint.std)
        from_pixels = create(include_preprocessing=True).predict(pixels, verbose=0)
        np.testing.assert_allclose(
            from_pixels, create().predict(scaled.astype("float32"), verbose=0), rtol=1e-3, atol=1e-4
        )


@pytest.mark.across
class TestFaults:
    """Partial files are neither used nor kept, the message says what to do, and the next attempt succeeds."""

    def check_error(self, *parts):
        """Assert that loading fails with these parts in the message and an empty cache; return the message."""
        with pytest.raises(DownloadError) as caught:
            create()
        message = str(caught.value)
        for part in (REPOSITORY, *parts):
            assert part in message
        assert cached_files() == []
        return message

    def test_broken_connection_is_resumed(self, small, quick_retries, monkeypatch):
        monkeypatch.setattr(hub_client.constants, "DOWNLOAD_CHUNK_SIZE", 100_000)  # bytes per write
        small.faults = hub_server.Faults(cut=450_000, cuts=2)
        check_loaded(create())
        ranges = [range_header for method, _, range_header in small.requests if method == "GET"]
        # The hub's client before 2.4 begins with two requests without a range.
        assert ranges[0] is None and list(filter(None, ranges)) == ["bytes=400000-", "bytes=800000-"]

    def test_file_with_wrong_hash_is_downloaded_again(self, small):
        small.faults = hub_server.Faults(broken=1)
        check_loaded(create())
        assert len(small.downloads()) == 2
        assert len(cached_files()) == 1

    def test_file_that_stays_corrupt_raises_download_error(self, small):
        small.faults = hub_server.Faults(broken=-1)
        self.check_error("was corrupt after two downloads")
        small.faults = hub_server.Faults()
        check_loaded(create())

    def test_truncated_file_raises_download_error(self, small, quick_retries):
        small.faults = hub_server.Faults(truncated=-1)
        self.check_error("can't be downloaded")
        small.faults = hub_server.Faults()
        check_loaded(create())

    @pytest.mark.parametrize(
        "status, message",
        [
            (401, "log in with `hf auth login`"),
            (403, "log in with `hf auth login`"),
            (404, "404"),
            (429, "too many requests (429)"),
            (500, "has a server error (500). Try again later"),
            (503, "has a server error (503). Try again later"),
        ],
    )
    def test_http_errors_name_the_hub(self, status, message, small, quick_retries):
        small.faults = hub_server.Faults(status=status, refusals=-1)
        assert small.address in self.check_error(message)
        small.faults = hub_server.Faults()
        check_loaded(create())

    def test_temporary_server_errors_are_retried(self, small, quick_retries):
        small.faults = hub_server.Faults(status=503, refusals=2)
        check_loaded(create())

    def test_missing_repositories_and_files_raise_download_error(self, hub, small_file):
        self.check_error("has no such repository, or you have no access to it (401)")
        hub.files[REPOSITORY, "other.txt"] = b"something"
        self.check_error("no such file")
        hub.files[REPOSITORY, FILE] = small_file
        hub.private[REPOSITORY] = "secret"
        self.check_error("set HF_TOKEN")

    def test_token_gives_access_to_private_repository(self, small, monkeypatch):
        small.private[REPOSITORY] = "secret"
        monkeypatch.setenv("HF_TOKEN", "secret")
        check_loaded(create())

    def test_unreachable_hub_raises_download_error(self, small, monkeypatch, quick_retries):
        constants = hub_client.constants
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        self.check_error("http://127.0.0.1:9 can't be reached", "HF_ENDPOINT")

    def test_offline_mode_requires_cached_file(self, small, monkeypatch):
        monkeypatch.setattr(hub_client.constants, "HF_HUB_OFFLINE", True)
        self.check_error("offline mode is on")
        monkeypatch.setattr(hub_client.constants, "HF_HUB_OFFLINE", False)
        create()
        monkeypatch.setattr(hub_client.constants, "HF_HUB_OFFLINE", True)
        request_count = len(small.requests)
        check_loaded(create())
        assert len(small.requests) == request_count

    def test_slow_hub(self, small):
        small.faults = hub_server.Faults(delay=0.5)
        check_loaded(create())

    @pytest.mark.parametrize("number, message", [(errno.ENOSPC, "is full"), (errno.EROFS, "is not writable")])
    def test_disk_errors_raise_download_error(self, number, message, small, monkeypatch):
        def fail(*_, **__):
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patched:
            patched.setattr(hub_client.file_download, "http_get", fail)
            self.check_error(message, "Set HF_HOME" if number == errno.EROFS else "set HF_HOME")
        check_loaded(create())

    def test_corrupt_cached_file_is_downloaded_again(self, small):
        create()
        (blob,) = Path(hub_client.constants.HF_HUB_CACHE).glob("models--*/blobs/*")
        content = bytearray(blob.read_bytes())
        content[len(content) // 2] ^= 1
        blob.write_bytes(content)
        check_loaded(create())
        assert len(small.downloads()) == 2

    def test_partial_file_of_killed_process_is_deleted(self, small):
        create()
        (blob,) = Path(hub_client.constants.HF_HUB_CACHE).glob("models--*/blobs/*")
        partial = blob.with_name(f"{blob.name}.deadbeef.incomplete")
        partial.write_bytes(b"half")
        create()
        assert not partial.exists()

    def test_partial_file_of_running_process_is_kept(self, small):
        import filelock

        create()
        cache = Path(hub_client.constants.HF_HUB_CACHE)
        (blob,) = cache.glob("models--*/blobs/*")
        partial = blob.with_name(f"{blob.name}.cafecafe.incomplete")
        partial.write_bytes(b"half")
        lock = cache / ".locks" / blob.parent.parent.name / f"{blob.name}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(lock):
            create()
            assert partial.exists()

    def start(self, address, home, offline="0"):
        """Start a program that loads the checkpoint and prints its input shape."""
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
    def test_two_processes_download_one_file(self, small, tmp_path):
        small.faults = hub_server.Faults(delay=0.5)
        for process in [self.start(small.address, tmp_path / "home") for _ in range(2)]:
            self.check_printed(process)
        blobs = list((tmp_path / "home" / "hub").glob("models--timm--*/blobs/*"))
        assert len(blobs) == 1 and blobs[0].name == hashlib.sha256(blobs[0].read_bytes()).hexdigest()

    @pytest.mark.slow
    def test_environment_variables_of_hub_client_apply(self, small, tmp_path):
        for offline in ("0", "1"):
            self.check_printed(self.start(small.address, tmp_path / "home", offline))
        assert list((tmp_path / "home" / "hub").glob("models--timm--*/snapshots/*/model.safetensors"))
        assert len(small.downloads()) == 1


@pytest.mark.across
class TestOtherSources:
    """Files of keras.applications and torchvision, downloaded into the caches of these libraries."""

    @pytest.fixture
    def publish(self, hub, monkeypatch, tmp_path):
        """Return a function that publishes a local file as a checkpoint on the running hub."""
        monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

        def publish_file(module, name, path, **fields):
            fields = {"repository": f"{hub.address}/plain/"} | fields
            monkeypatch.setitem(module.WEIGHTS, name, dataclasses.replace(module.WEIGHTS[name], **fields))
            checkpoint = module.WEIGHTS[name]
            hub.files["plain", checkpoint.no_top_file if "no_top" in path.name else checkpoint.file] = path
            return checkpoint

        return publish_file

    @pytest.mark.parametrize("include_top", [True, False])
    def test_keras_applications_file_loads(self, include_top, publish, hub, tmp_path):
        name, x = "mobilenetv1_025.keras_r128", seeded.image(128, 128)
        reference = keras.applications.MobileNet(
            (128, 128, 3), alpha=0.25, weights=None, include_top=include_top, classifier_activation=None
        )
        reference.save(tmp_path / ("top.h5" if include_top else "no_top.h5"))
        checkpoint = publish(mobilenet_v1, name, tmp_path / ("top.h5" if include_top else "no_top.h5"))
        options = {"include_top": include_top, "classifier_activation": None}
        model = mobilenet_v1.create_mobilenetv1("0.25", weights="keras_r128", **options)
        expected = reference.predict(x, verbose=0)
        np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-4 * np.abs(expected).max())
        assert model.input_shape == (None, 128, 128, 3)
        file = tmp_path / "keras" / "models" / (checkpoint.file if include_top else checkpoint.no_top_file)
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])  # as a killed Keras process leaves it
        mobilenet_v1.create_mobilenetv1("0.25", weights="keras_r128", **options)
        assert file.read_bytes() == content
        assert [path.name for path in file.parent.iterdir()] == [file.name]
        mobilenet_v1.create_mobilenetv1("0.25", weights="keras_r128", **options)
        assert len([path for _, path, _ in hub.requests]) == 2

    def test_torchvision_file_loads(self, publish, hub, tmp_path):
        import torch

        shapes = references.checkpoints()["torchvision/mobilenet_v2"]["shapes"]
        state = {key: torch.from_numpy(value) for key, value in seeded.state_dict(shapes).items()}
        torch.save(state, tmp_path / "v2.pth")
        sha256 = hashlib.sha256((tmp_path / "v2.pth").read_bytes()).hexdigest()
        name = "mobilenetv2_100.tv_v1_in1k"
        checkpoint = publish(mobilenet_v2, name, tmp_path / "v2.pth", file=f"mobilenet_v2-{sha256[:8]}.pth")
        model = create_mobilenetv2("1.0", weights="tv_v1_in1k", input_shape=(64, 64, 3))
        assert model.get_layer("stem").padding == "symmetric"
        kernel = keras.ops.convert_to_numpy(model.get_layer("stem").kernel)
        np.testing.assert_array_equal(kernel, state["features.0.0.weight"].numpy().transpose(2, 3, 1, 0))
        file = tmp_path / "torch" / "hub" / "checkpoints" / checkpoint.file
        file.write_bytes(b"half")
        create_mobilenetv2("1.0", weights="tv_v1_in1k", input_shape=(64, 64, 3))
        assert hashlib.sha256(file.read_bytes()).hexdigest() == sha256
        assert len(hub.requests) == 2

    def test_missing_file_raises_download_error(self, publish, hub, tmp_path):
        (tmp_path / "other.h5").write_bytes(b"")
        publish(mobilenet_v1, "mobilenetv1_025.keras_r128", tmp_path / "other.h5")
        hub.files.clear()
        with pytest.raises(DownloadError, match="mobilenet_2_5_128_tf.h5 can't be downloaded: .*404"):
            mobilenet_v1.create_mobilenetv1("0.25", weights="keras_r128")
        assert not any((tmp_path / "keras" / "models").iterdir())
