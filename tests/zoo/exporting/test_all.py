"""Exported files next to their models, from every backend to every format.

Models with the statistics of images; sizes, batches and quantization that differ from what is usual.
"""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import mobilenet_runtime
import mobilenet_zoo
from mobilenet_common.architecture import Conv, Dense, Head
from mobilenet_v4 import create_mobilenetv4
from mobilenet_zoo.exporting import export_all, process
from tests.across_worker import BACKENDS
from tests.zoo.exporting import shared
from tests.zoo.exporting.shared import PLACES, answers, images, relative

pytestmark = [pytest.mark.across, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[3]
MODELS = {
    "mobilenetv1_025": {},
    "mobilenetv2_035": {},
    "mobilenetv3_small_050": {},
    "mobilenetv4_conv_small_035": {},
    "mobilenetv4_hybrid_medium": {"input_shape": (96, 96, 3)},
    "mobilenetv4_compact_nano": {"classifier_activation": None},
}
TOLERANCE = 1e-4
# Most of its weights are in few layers, so that they are most of the file.
LEARNER = dataclasses.replace(shared.TINY, head=Head(conv=Conv(256, kernel=1), dense=Dense(512)))


def built(name, **options):
    """A model of 64 × 64 pixels and seven classes."""
    options = {"num_classes": 7, "input_shape": (64, 64, 3)} | MODELS[name] | options
    model = mobilenet_zoo.create_model(name, norm_momentum=0.0, **options)
    height, width, _ = options["input_shape"]
    return shared.learned(model, images(8, height or 64, width or 64))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_to_every_format(backend, name, tmp_path, deviation):
    model = built(name)
    model.save(tmp_path / "model.keras")
    command = [sys.executable, "-m", "tests.zoo.exporting.worker", str(tmp_path / "model.keras"), str(tmp_path)]
    environment = os.environ | {"KERAS_BACKEND": backend}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, f"{name} under {backend}:\n{result.stderr[-3000:]}"
    reports = {load["format"]: load for load in json.loads((tmp_path / "reports.json").read_text())}
    assert reports.keys() == PLACES.keys()
    x = images(2, *model.input_shape[1:3])
    expected = answers(model, x)
    assert np.ptp(expected, axis=0).max() > 0.01 * np.abs(expected).max(), "images make a difference"
    for format, place in PLACES.items():
        row = f"{name}, {backend}"
        deviation.keep(row, format, reports[format]["deviation"])
        assert reports[format]["deviation"] <= TOLERANCE
        found = mobilenet_runtime.load(tmp_path / place)(x)
        deviation(row, format, found, expected, TOLERANCE)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "mobilenetv4_hybrid_medium"])
def test_another_size_that_is_not_square(name, tmp_path, deviation):
    """Of a model for one size, and of one for any; as a model answers that was built for it."""
    size = (96, 128)
    fixed = built(name)
    other, free = (built(name, input_shape=shape) for shape in ((*size, 3), (None, None, 3)))
    x = images(2, *size)
    for model, label in ((fixed, "of 64 or 96"), (free, "of any size")):
        model.set_weights(other.get_weights())
        paths = {tmp_path / label / place: None for place in PLACES.values()}
        for report in export_all(model, paths, image_size=size):
            assert report.input_shape in ((1, *size, 3), (1, 3, *size))
            deviation.keep(f"{name} {label}, 96 × 128", report.format, report.deviation)
            assert report.deviation <= TOLERANCE
            file = mobilenet_runtime.load(report.path)
            assert file.size == file.metadata.size == size
            deviation(f"{name} {label}, 96 × 128", report.format, file(x), answers(other, x), TOLERANCE)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "mobilenetv4_hybrid_medium"])
def test_any_number_of_images(name, tmp_path, deviation):
    model = built(name)
    size = model.input_shape[1:3]
    paths = {tmp_path / place: None for format, place in PLACES.items() if format != "litert"}
    x = images(5, *size)
    expected = answers(model, x)
    for report in export_all(model, paths, batch_size=None):
        assert report.input_shape[0] is None
        file = mobilenet_runtime.load(report.path)
        assert file.batch_size is None
        for count in (1, 5):
            deviation(f"{name}, batches of any size", report.format, file(x[:count]), expected[:count], TOLERANCE)


def test_pyramids_in_every_format(tmp_path):
    """They keep their keys, also those that somebody gave in no order."""
    levels = {"include_top": False, "pyramid_levels": (1, 2)}
    body = shared.learned(shared.tiny(norm_momentum=0.0, **levels), images(8))
    maps = {"last": body.output["P2"], "first": body.output["P1"], "again": 2.0 * body.output["P2"]}
    own = keras.Model(body.input, {name: keras.layers.ReLU()(map_) for name, map_ in maps.items()}, name="own")
    x = images(4)
    for model in (body, own):
        expected = answers(model, x)
        paths = {tmp_path / model.name / place: None for place in PLACES.values()}
        for report in export_all(model, paths, batch_size=3):
            found = mobilenet_runtime.load(report.path)(x)
            assert found.keys() == expected.keys(), report.format
            for key, value in expected.items():
                assert relative(found[key], value) <= TOLERANCE, (report.format, key)


# Quantized


@pytest.fixture(scope="module")
def digits():
    """A model that has learned digits for a few seconds, and the held-out ones with their classes."""
    from examples.digits import ShiftedDigits, load_data

    keras.utils.set_random_seed(0)
    learned, held_out, classes, held_out_classes = load_data()
    model = create_mobilenetv4(LEARNER, 10, held_out.shape[1:], width_multiplier=4, norm_momentum=0.9)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(ShiftedDigits(learned, classes), epochs=5, verbose=0)
    model.trainable = False
    accuracy = (model.predict(held_out, verbose=0).argmax(1) == held_out_classes).mean()
    assert accuracy > 0.9
    return model, learned, classes, held_out


QUANTIZED = [
    (format, quantization)
    for format, quantizations in (
        ("litert", ("float16", "dynamic", "int8")),
        ("onnx", ("float16", "dynamic", "int8")),
        ("openvino", ("float16", "int8")),
    )
    for quantization in quantizations
]


@pytest.mark.parametrize(("format", "quantization"), QUANTIZED)
def test_fewer_bits(format, quantization, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "run", shared.here)
    model, learned, classes, held_out = digits
    calibration = (learned[:1000], classes[:1000]) if quantization == "int8" else None
    report = mobilenet_zoo.export(model, tmp_path / PLACES[format], quantization=quantization, calibration=calibration)
    share = report.bytes / report.float_bytes
    assert 0.45 < share < 0.6 if quantization == "float16" else share <= 0.4
    expected = model.predict(held_out, verbose=0)
    found = mobilenet_runtime.load(report.path)(held_out)
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.97
    assert 0 < np.abs(found - expected).max(), "something was rounded"
    if quantization == "int8":
        assert report.images == 200
        assert report.accuracy >= report.float_accuracy - 0.01


@pytest.mark.parametrize("format", ["litert", "onnx", "openvino"])
def test_layers_that_stay_in_float(format, digits, tmp_path, monkeypatch):
    """They make the file larger, and the outputs no worse than allowed."""
    monkeypatch.setattr(process, "run", shared.here)
    model, learned, _, _ = digits
    sizes = []
    for blocks in ((), ("stage2_block1", "stage2_block2")):
        report = mobilenet_zoo.export(
            model, tmp_path / PLACES[format], quantization="int8", calibration=learned[:100], float_blocks=blocks
        )
        assert report.float_blocks == blocks
        sizes.append(report.bytes)
    kernels = [w for name in blocks for w in model.get_layer(name).weights if w.path.endswith("kernel")]
    assert sizes[1] - sizes[0] > 2 * sum(int(np.prod(w.shape)) for w in kernels), "four bytes for one"
