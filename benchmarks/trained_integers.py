"""Accuracy of int8 files of a MobileNetV2 trained on ImageNet, compared with each runtime's own quantization tool.

    python -m benchmarks.trained_integers --output bench_output/trained_integers

The network has torchvision's published weights. It is calibrated on random crops of photographs and evaluated on other
crops, and every layer computes in integers. The signal-to-noise ratio is 10·log10 of the variance over the images
divided by the mean squared error. The program writes the table to `trained_integers.md`.
"""

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

import mobilenet_runtime
import mobilenet_zoo
from mobilenet_common.conventions import PYTORCH
from mobilenet_runtime.file_formats import FILE_FORMATS
from mobilenet_v2 import create_mobilenetv2
from tests.trained import crops, torchvision_v2

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
ENDINGS = {name: FILE_FORMATS[name].ending for name in ("litert", "onnx", "openvino")}


def images(count, seed, side):
    """Return crops of photographs, normalized for the network."""
    return (crops(count, seed, side=side) / np.float32(255) - MEAN) / STD


def network(side):
    """Return the trained network, with the pooled features and the logits as outputs."""
    options = {"classifier_activation": None, **PYTORCH.options}
    model = create_mobilenetv2("1.0", 1000, (side, side, 3), **options)
    mobilenet_zoo.load_checkpoint(model, torchvision_v2(), layout="torchvision")
    outputs = {"features": model.get_layer("flatten").output, "logits": model.output}
    return keras.Model(model.input, outputs, name="mobilenetv2_100")


def signal_to_noise(outputs, expected):
    """Return the signal-to-noise ratio in dB. The mean over all images isn't part of the signal."""
    outputs, expected = (array.astype("float64") for array in (outputs, expected))
    signal = ((expected - expected.mean(0)) ** 2).sum()
    return float(10 * np.log10(signal / ((outputs - expected) ** 2).sum()))


def measure(path, evaluated, expected):
    """Return `{"features": dB, "logits": dB, "agreement": fraction}` of an exported file."""
    outputs = mobilenet_runtime.load(path)(evaluated)
    by_size = {array[0].size: array.reshape(len(evaluated), -1) for array in outputs.values()}
    predicted = {name: by_size[array.shape[1]] for name, array in expected.items()}
    is_same_class = predicted["logits"].argmax(1) == expected["logits"].argmax(1)
    return {
        "features": signal_to_noise(predicted["features"], expected["features"]),
        "logits": signal_to_noise(predicted["logits"], expected["logits"]),
        "agreement": float(is_same_class.mean()),
    }


def litert_tool(source, path, calibration):
    """Write a file with each setting of AI Edge Quantizer to `path`. Yield `(setting, seconds)` after each file."""
    from ai_edge_quantizer import quantizer, recipe

    for algorithm in ("OCTAV", "default"):
        start = time.monotonic()
        tool = quantizer.Quantizer(str(source))
        options = {} if algorithm == "default" else {"algorithm_key": algorithm}
        tool.load_quantization_recipe(recipe.static_wi8_ai8(**options))
        ranges = tool.calibrate({"serving_default": [{"image": image[None]} for image in calibration]})
        tool.quantize(ranges).export_model(str(path), overwrite=True)
        yield algorithm, time.monotonic() - start


def onnx_tool(source, path, calibration):
    """Write a file with each setting of ONNX Runtime's tool to `path`. Yield `(setting, seconds)` after each file."""
    from onnxruntime import quantization as tools

    from mobilenet_zoo.exporting.quantizing import _Reader

    prepared = Path(source).with_name("prepared.onnx")
    tools.quant_pre_process(source, prepared)
    settings = {
        "moving average": {"extra_options": {"CalibMovingAverage": True}},
        "default": {},
        "percentile": {"calibrate_method": tools.CalibrationMethod.Percentile},
    }
    for name, options in settings.items():
        start = time.monotonic()
        # The percentile method keeps every activation in memory, so it gets fewer images.
        selected = calibration if name != "percentile" else calibration[:32]
        reader = _Reader(selected.transpose(0, 3, 1, 2))
        tools.quantize_static(prepared, path, reader, per_channel=True, **options)
        yield name, time.monotonic() - start


def openvino_tool(source, path, calibration):
    """Write a file with each setting of NNCF to `path`. Yield `(setting, seconds)` after each file."""
    import nncf
    import openvino

    nncf.set_log_level("ERROR")
    samples = [np.ascontiguousarray(image[None].transpose(0, 3, 1, 2)) for image in calibration]
    settings = {
        "mixed preset, accurate bias correction": {
            "fast_bias_correction": False,
            "preset": nncf.QuantizationPreset.MIXED,
        },
        "accurate bias correction": {"fast_bias_correction": False},
        "default": {},
    }
    for name, options in settings.items():
        start = time.monotonic()
        model = openvino.Core().read_model(source)
        quantized = nncf.quantize(model, nncf.Dataset(samples), subset_size=len(samples), **options)
        openvino.save_model(quantized, path, compress_to_fp16=False)
        yield name, time.monotonic() - start


TOOLS = {"litert": litert_tool, "onnx": onnx_tool, "openvino": openvino_tool}


def compare(format, folder, calibration, evaluated, side, settings=None):
    """Yield one row for each setting of the format's own tool, and one for `mobilenet_zoo.export`.

    Args:
        format: `"litert"`, `"onnx"` or `"openvino"`.
        folder: Folder for the exported files.
        calibration: Images for calibration, normalized for the network.
        evaluated: Images for evaluation, normalized for the network.
        side: Height and width of the images in pixels.
        settings: Number of settings of the tool to measure, starting with the best; None for all.
    """
    model, ending = network(side), ENDINGS[format]
    expected = model.predict(evaluated, batch_size=16, verbose=0)
    options = {"metadata": False, "verify": False}
    source, path = folder / f"float{ending}", folder / f"tool{ending}"
    mobilenet_zoo.export(model, source, **options)
    for number, (setting, seconds) in enumerate(TOOLS[format](source, path, calibration)):
        yield {"runtime": format, "by": setting, "seconds": seconds} | measure(path, evaluated, expected)
        if settings is not None and number + 1 >= settings:
            break
    path = folder / f"ours{ending}"
    # `export` excludes a fifth of its images from calibration. With these additional images, it calibrates on as many
    # images as the tool.
    additional = images(len(calibration) // 4, seed=3, side=side)
    samples = np.concatenate([calibration, additional])
    start = time.monotonic()
    mobilenet_zoo.export(model, path, quantization="int8", calibration=samples, float_blocks=(), **options)
    seconds = time.monotonic() - start
    yield {"runtime": format, "by": "mobilenet_zoo", "seconds": seconds} | measure(path, evaluated, expected)


def table(rows):
    """Return the rows as a Markdown table."""
    lines = [
        "| runtime | quantized by | features, dB | logits, dB | same class |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (f"{row['features']:.1f}", f"{row['logits']:.1f}", f"{row['agreement']:.1%}")
        lines.append(f"| {row['runtime']} | {row['by']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main():
    """Export and measure the network with all settings, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=Path("bench_output/trained_integers"), help="folder for the results"
    )
    parser.add_argument("--formats", nargs="*", choices=list(ENDINGS), default=list(ENDINGS), metavar="FORMAT")
    parser.add_argument("--calibration", type=int, default=96, help="number of crops for calibration")
    parser.add_argument("--images", type=int, default=120, help="number of crops for evaluation")
    parser.add_argument("--side", type=int, default=224, help="height and width of the crops in pixels")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    logging.getLogger().setLevel(logging.ERROR)
    calibration = images(options.calibration, seed=1, side=options.side)
    evaluated = images(options.images, seed=2, side=options.side)
    rows = []
    for format in options.formats:
        with tempfile.TemporaryDirectory() as folder:
            for row in compare(format, Path(folder), calibration, evaluated, options.side):
                rows.append(row)
                print(row, flush=True)
    (options.output / "trained_integers.json").write_text(json.dumps(rows, indent=2) + "\n")
    (options.output / "trained_integers.md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
