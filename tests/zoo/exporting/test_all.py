"""Exported files compared with their models, for every backend and every format.

The models' normalization has batch statistics of images, so that outputs depend on the images. Image sizes, batch
sizes and quantization vary.
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
from tests.zoo.exporting.shared import FILE_NAMES, images, predict, relative_deviation

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
# A few large layers have most of the weights, so that the weights make up most of the file.
DIGITS_ARCHITECTURE = dataclasses.replace(shared.TINY, head=Head(conv=Conv(256, kernel=1), dense=Dense(512)))


def build_model(name, **options):
    """Return a model with seven classes, for images of 64×64 unless `MODELS` sets another size."""
    options = {"num_classes": 7, "input_shape": (64, 64, 3)} | MODELS[name] | options
    model = mobilenet_zoo.create_model(name, norm_momentum=0.0, **options)
    height, width, _ = options["input_shape"]
    return shared.with_batch_statistics(model, images(8, height or 64, width or 64))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_exports_every_format(backend, name, tmp_path, deviation):
    model = build_model(name)
    model.save(tmp_path / "model.keras")
    command = [sys.executable, "-m", "tests.zoo.exporting.worker", str(tmp_path / "model.keras"), str(tmp_path)]
    environment = os.environ | {"KERAS_BACKEND": backend}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, f"{name} under {backend}:\n{result.stderr[-3000:]}"
    reports = {report["format"]: report for report in json.loads((tmp_path / "reports.json").read_text())}
    assert reports.keys() == FILE_NAMES.keys()
    x = images(2, *model.input_shape[1:3])
    expected = predict(model, x)
    assert np.ptp(expected, axis=0).max() > 0.01 * np.abs(expected).max(), "the outputs must depend on the images"
    for format, file_name in FILE_NAMES.items():
        row = f"{name}, {backend}"
        deviation.keep(row, format, reports[format]["deviation"])
        assert reports[format]["deviation"] <= TOLERANCE
        outputs = mobilenet_runtime.load(tmp_path / file_name)(x)
        deviation(row, format, outputs, expected, TOLERANCE)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "mobilenetv4_hybrid_medium"])
def test_image_size_replaces_the_size_of_the_model(name, tmp_path, deviation):
    """Models for one size and for any size predict like a model that was built for the exported size."""
    size = (96, 128)
    fixed = build_model(name)
    other, free = (build_model(name, input_shape=shape) for shape in ((*size, 3), (None, None, 3)))
    x = images(2, *size)
    for model, label in ((fixed, "of 64 or 96"), (free, "of any size")):
        model.set_weights(other.get_weights())
        paths = {tmp_path / label / file_name: None for file_name in FILE_NAMES.values()}
        for report in export_all(model, paths, image_size=size):
            assert report.input_shape in ((1, *size, 3), (1, 3, *size))
            deviation.keep(f"{name} {label}, 96 × 128", report.format, report.deviation)
            assert report.deviation <= TOLERANCE
            file = mobilenet_runtime.load(report.path)
            assert file.size == file.metadata.size == size
            deviation(f"{name} {label}, 96 × 128", report.format, file(x), predict(other, x), TOLERANCE)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "mobilenetv4_hybrid_medium"])
def test_batch_size_none_takes_any_number_of_images(name, tmp_path, deviation):
    model = build_model(name)
    size = model.input_shape[1:3]
    paths = {tmp_path / file_name: None for format, file_name in FILE_NAMES.items() if format != "litert"}
    x = images(5, *size)
    expected = predict(model, x)
    for report in export_all(model, paths, batch_size=None):
        assert report.input_shape[0] is None
        file = mobilenet_runtime.load(report.path)
        assert file.batch_size is None
        for count in (1, 5):
            deviation(f"{name}, batches of any size", report.format, file(x[:count]), expected[:count], TOLERANCE)


def test_pyramids_keep_their_keys_in_every_format(tmp_path):
    """The keys don't need to be in alphabetical order."""
    levels = {"include_top": False, "pyramid_levels": (1, 2)}
    body = shared.with_batch_statistics(shared.tiny(norm_momentum=0.0, **levels), images(8))
    maps = {"last": body.output["P2"], "first": body.output["P1"], "again": 2.0 * body.output["P2"]}
    renamed = keras.Model(body.input, {name: keras.layers.ReLU()(map_) for name, map_ in maps.items()}, name="own")
    x = images(4)
    for model in (body, renamed):
        expected = predict(model, x)
        paths = {tmp_path / model.name / file_name: None for file_name in FILE_NAMES.values()}
        for report in export_all(model, paths, batch_size=3):
            outputs = mobilenet_runtime.load(report.path)(x)
            assert outputs.keys() == expected.keys(), report.format
            for key, value in expected.items():
                assert relative_deviation(outputs[key], value) <= TOLERANCE, (report.format, key)


# Quantization


@pytest.fixture(scope="module")
def digits():
    """Return a model that was trained on digits for a few seconds, its training data, and test images."""
    from examples.digits import ShiftedDigits, load_data

    keras.utils.set_random_seed(0)
    train_images, test_images, train_labels, test_labels = load_data()
    model = create_mobilenetv4(DIGITS_ARCHITECTURE, 10, test_images.shape[1:], width_multiplier=4, norm_momentum=0.9)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(ShiftedDigits(train_images, train_labels), epochs=5, verbose=0)
    model.trainable = False
    accuracy = (model.predict(test_images, verbose=0).argmax(1) == test_labels).mean()
    assert accuracy > 0.9
    return model, train_images, train_labels, test_images


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
def test_quantized_file_is_small_and_accurate(format, quantization, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "run", shared.run_here)
    model, train_images, train_labels, test_images = digits
    calibration = (train_images[:1000], train_labels[:1000]) if quantization == "int8" else None
    report = mobilenet_zoo.export(
        model, tmp_path / FILE_NAMES[format], quantization=quantization, calibration=calibration
    )
    fraction = report.bytes / report.float_bytes
    assert 0.45 < fraction < 0.6 if quantization == "float16" else fraction <= 0.4
    expected = model.predict(test_images, verbose=0)
    outputs = mobilenet_runtime.load(report.path)(test_images)
    assert (outputs.argmax(1) == expected.argmax(1)).mean() >= 0.97
    assert 0 < np.abs(outputs - expected).max(), "the file must be quantized"
    if quantization == "int8":
        assert report.images == 200
        assert report.accuracy >= report.float_accuracy - 0.01


@pytest.mark.parametrize("format", ["litert", "onnx", "openvino"])
def test_float_blocks_enlarge_the_file(format, digits, tmp_path, monkeypatch):
    """The outputs must also pass the verification."""
    monkeypatch.setattr(process, "run", shared.run_here)
    model, train_images, _, _ = digits
    sizes = []
    for blocks in ((), ("stage2_block1", "stage2_block2")):
        report = mobilenet_zoo.export(
            model,
            tmp_path / FILE_NAMES[format],
            quantization="int8",
            calibration=train_images[:100],
            float_blocks=blocks,
        )
        assert report.float_blocks == blocks
        sizes.append(report.bytes)
    kernels = [w for name in blocks for w in model.get_layer(name).weights if w.path.endswith("kernel")]
    assert sizes[1] - sizes[0] > 2 * sum(int(np.prod(w.shape)) for w in kernels), "float32 takes four bytes, not one"
