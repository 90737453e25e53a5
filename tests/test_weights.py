"""The published weights: all are listed, have the facts of their sources, and fit the architectures."""

import json

import keras
import numpy as np
import pytest

import mobilenet_zoo
from mobilenet_common.catalog import CLASSES
from mobilenet_common.create import model_name
from mobilenet_common.inputs import preprocess
from mobilenet_zoo.registry import GENERATIONS, WEIGHTS
from tests import references

pytestmark = pytest.mark.across

TIMM = json.loads((references.FOLDER / "catalog.json").read_text())
SOURCES = ("timm", "keras", "torchvision")


def names_of(source):
    """Return the names of a source's checkpoints."""
    return [name for name, checkpoint in WEIGHTS.items() if checkpoint.source == source]


def generation_of(name):
    return name.removeprefix("tf_").removeprefix("mobilenet")[:2]


def test_all_checkpoints_of_timm_are_listed():
    assert sorted(names_of("timm")) == sorted(TIMM)


@pytest.mark.parametrize("name", TIMM)
def test_facts_match_timm(name):
    ours, theirs = WEIGHTS[name], TIMM[name]
    assert (ours.repository, ours.file) == (theirs["hub_repository"], theirs["file"])
    assert (ours.mean, ours.std) == (tuple(theirs["mean"]), tuple(theirs["std"]))
    assert ours.interpolation == theirs["interpolation"]
    assert ours.num_classes == theirs["num_classes"]
    assert ours.license.lower() == theirs["license"]
    crops = {theirs["input_size"][1]: theirs["crop_pct"]}
    if theirs["test_input_size"]:
        crops[theirs["test_input_size"][1]] = theirs["test_crop_pct"]
    assert {evaluation.size: evaluation.crop for evaluation in ours.evaluations} == crops
    assert ours.input_size == theirs["input_size"][1]
    scores = {row["size"]: (row["top1"], row["top5"]) for row in theirs["imagenet1k"]}
    assert {
        evaluation.size: (evaluation.top1, evaluation.top5)
        for evaluation in ours.evaluations
        if evaluation.top1 is not None
    } == scores


@pytest.mark.parametrize("name", WEIGHTS)
def test_checkpoint_fits_its_variant(name):
    checkpoint = WEIGHTS[name]
    generation = generation_of(name)
    architecture = GENERATIONS[generation][1][checkpoint.variant]
    assert model_name(architecture, checkpoint.width) == name.removeprefix("tf_").partition(".")[0]
    assert WEIGHTS[name] is checkpoint and checkpoint.name == name and name.endswith(f".{checkpoint.tag}")
    assert checkpoint.source in SOURCES
    assert checkpoint.labels in CLASSES
    assert checkpoint.padding in ("same", "symmetric")
    assert all(text.strip() for text in (checkpoint.paper, checkpoint.citation, checkpoint.license))
    scored = [evaluation for evaluation in checkpoint.evaluations if evaluation.top1 is not None]
    assert bool(scored) == (checkpoint.num_classes == 1000)
    assert checkpoint.best == (max(scored, key=lambda evaluation: evaluation.top1) if scored else None)
    assert all(checkpoint.top1 < (checkpoint.top5 or 100) for checkpoint in scored)


class DownloadStopped(Exception):
    """Raised in place of a download by Keras."""


def keras_download(monkeypatch, build, **options):
    """Return the file name, address and hash of the file that keras.applications would download."""

    def get_file(fname, origin, file_hash=None, **_):
        raise DownloadStopped(fname, origin, file_hash)

    monkeypatch.setattr(keras.src.utils.file_utils, "get_file", get_file)
    with pytest.raises(DownloadStopped) as stopped:
        build(weights="imagenet", **options)
    return stopped.value.args


def keras_applications():
    """Return `{name: (function, (alpha, size))}` of every checkpoint that keras.applications has."""
    checkpoints = {}
    for alpha in (0.25, 0.5, 0.75, 1.0):
        for size in (128, 160, 192, 224):
            checkpoints[f"mobilenetv1_{100 * alpha:03.0f}.keras_r{size}"] = keras.applications.MobileNet, (alpha, size)
    for alpha in (0.35, 0.5, 0.75, 1.0, 1.3, 1.4):
        for size in (96, 128, 160, 192, 224) if alpha <= 1 else (224,):
            name = f"mobilenetv2_{100 * alpha:03.0f}.keras_r{size}"
            checkpoints[name] = keras.applications.MobileNetV2, (alpha, size)
    for kind, build in (("large", keras.applications.MobileNetV3Large), ("small", keras.applications.MobileNetV3Small)):
        for alpha in (0.75, 1.0):
            checkpoints[f"mobilenetv3_{kind}_{100 * alpha:03.0f}.keras_r224"] = build, (alpha, 224)
        checkpoints[f"mobilenetv3_{kind}_minimal_100.keras_r224"] = build, (1.0, 224)
    return checkpoints


def test_all_checkpoints_of_keras_are_listed():
    assert sorted(names_of("keras")) == sorted(keras_applications())


def keras_names():
    """Return the names as parameters, slow if earlier names of the generation have the same width and the same size."""
    parameters, seen = [], set()
    for name in names_of("keras"):
        generation, (_, (width, size)) = generation_of(name), keras_applications()[name]
        values = {(generation, "width", width), (generation, "size", size)}
        is_slow = generation != "v3" and values <= seen
        seen |= values
        parameters.append(pytest.param(name, marks=[pytest.mark.slow] if is_slow else []))
    return parameters


@pytest.mark.parametrize("name", keras_names())
def test_files_equal_those_that_keras_applications_downloads(name, monkeypatch):
    checkpoint = WEIGHTS[name]
    build, (alpha, size) = keras_applications()[name]
    options = {"alpha": alpha, "input_shape": (size, size, 3)}
    if "v3" in name:
        options["minimalistic"] = "minimal" in name
    hashes = checkpoint.md5 or (None, None)
    for include_top, file, md5 in zip((True, False), (checkpoint.file, checkpoint.no_top_file), hashes, strict=True):
        _, address, expected = keras_download(monkeypatch, build, include_top=include_top, **options)
        assert address == checkpoint.repository + file
        assert md5 == expected


def test_pretrained_models_are_listed_with_their_tags():
    assert mobilenet_zoo.list_models(pretrained=True) == sorted(WEIGHTS)
    assert mobilenet_zoo.list_models("mobilenetv4_conv_small.*", pretrained=True) == [
        "mobilenetv4_conv_small.e1200_r224_in1k",
        "mobilenetv4_conv_small.e2400_r224_in1k",
        "mobilenetv4_conv_small.e3600_r256_in1k",
    ]


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    "name", ["mobilenetv2_100.ra_in1k", "mobilenetv3_large_100.miil_in21k", "mobilenetv2_100.keras_r224"]
)
def test_pixels_are_normalized_with_mean_and_std_of_the_checkpoint(name, channels, data_format):
    checkpoint = WEIGHTS[name]
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 5, 4, channels)).astype("float32")
    mean, std = (np.array(values) for values in (checkpoint.mean, checkpoint.std))
    if channels == 1:
        mean, std = mean.mean(), std.mean()
    else:
        mean, std = (np.resize(values, channels) for values in (mean, std))
    expected = (pixels / 255 - mean) / std
    if data_format == "channels_first":
        pixels, expected = (np.moveaxis(array, -1, 1) for array in (pixels, expected))
    image = keras.Input(pixels.shape[1:])
    model = keras.Model(image, preprocess(image, checkpoint, data_format, None))
    np.testing.assert_allclose(model.predict(pixels, verbose=0), expected, atol=1e-5)
