"""Accuracy of int8 quantization: one digits model per generation, in float32 and int8, in each runtime.

    python -m benchmarks.integers --output bench_output/integers

The program trains the models under the backend in KERAS_BACKEND, exports them, and writes a table (`integers.md`), the
numbers (`integers.json`) and a plot (`integers.png`). The accuracies are measured on the test set, a fifth of
scikit-learn's digits.
"""

import argparse
import json
from pathlib import Path

import keras
import numpy as np

import mobilenet_zoo
from examples.digits import SIZE, ShiftedDigits, load_data
from mobilenet_runtime.file_formats import FILE_FORMATS
from mobilenet_v1 import create_mobilenetv1
from mobilenet_v2 import create_mobilenetv2
from mobilenet_v3 import create_mobilenetv3
from mobilenet_v4 import create_mobilenetv4

MODELS = {  # create function, variant, width multiplier, epochs
    "V1 0.25": (create_mobilenetv1, "0.25", 1.0, 40),
    "V2 0.35": (create_mobilenetv2, "0.35", 1.0, 40),
    "V3 small": (create_mobilenetv3, "small", 0.5, 20),
    "V4 conv_small": (create_mobilenetv4, "conv_small", 0.5, 20),
}
FORMATS = {
    runtime: FILE_FORMATS[name].ending
    for runtime, name in {"LiteRT": "litert", "ONNX Runtime": "onnx", "OpenVINO": "openvino"}.items()
}


def train(create, variant, width, epochs):
    """Return a model of `variant` trained on the digits."""
    images, _, classes, _ = load_data()
    keras.utils.set_random_seed(0)
    model = create(
        variant,
        num_classes=10,
        input_shape=(SIZE, SIZE, 1),
        width_multiplier=width,
        norm_momentum=0.9,
        dropout_rate=0.0,
    )
    data = ShiftedDigits(images, classes)
    steps = epochs * len(data)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, decay_steps=steps - steps // 5, warmup_target=4e-3, warmup_steps=max(1, steps // 5)
    )
    model.compile(keras.optimizers.AdamW(rate, weight_decay=1e-4), "sparse_categorical_crossentropy")
    model.fit(data, epochs=epochs, verbose=0)
    return model


def measure(name, model, folder):
    """Return one row per format that compares the float32 file with the int8 file."""
    images, test_images, classes, test_classes = load_data()
    rows = []
    # `export` itself splits these images for calibration and comparison. The accuracies are those of the test set.
    for runtime, ending in FORMATS.items():
        stem = name.replace(" ", "_")
        plain = mobilenet_zoo.export(model, folder / f"{stem}{ending}")
        small = mobilenet_zoo.export(
            model, folder / f"{stem}_int8{ending}", quantization="int8", calibration=(images, classes)
        )
        rows.append(
            {
                "model": name,
                "runtime": runtime,
                "accuracy": accuracy(folder / f"{stem}{ending}", test_images, test_classes),
                "accuracy_int8": accuracy(folder / f"{stem}_int8{ending}", test_images, test_classes),
                "size": small.bytes / plain.bytes,
                "agreement": small.agreement,
                "float_blocks": list(small.float_blocks),
            }
        )
        print(rows[-1], flush=True)
    return rows


def accuracy(path, images, classes):
    """Return the accuracy of an exported file on the images."""
    from mobilenet_runtime.measure import measure as run

    (outputs,) = run(path, images)[1].values()
    return float((np.asarray(outputs).argmax(1) == classes).mean())


def table(rows):
    """Return the rows as a Markdown table."""
    lines = [
        "| model | runtime | float32 | int8 | difference, points | same class | size ratio | left in float32 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        before, after = (f"{row[name]:.1%}" for name in ("accuracy", "accuracy_int8"))
        points = f"{100 * (row['accuracy_int8'] - row['accuracy']):+.1f}"
        float_blocks = ", ".join(row["float_blocks"])
        cells = (row["model"], row["runtime"], before, after, points, f"{row['agreement']:.1%}", f"{row['size']:.2f}")
        lines.append(f"| {' | '.join(cells)} | {float_blocks} |")
    return "\n".join(lines) + "\n"


def draw(rows, path):
    """Plot the accuracy of each model in float32, and in int8 in each runtime."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    names = list(dict.fromkeys(row["model"] for row in rows))
    series = {"float32": ("accuracy", None, "#777777")}
    colors = ("#4477aa", "#ee6677", "#228833")
    series |= {f"int8, {runtime}": ("accuracy_int8", runtime, c) for runtime, c in zip(FORMATS, colors, strict=True)}
    for i, (label, (key, runtime, color)) in enumerate(series.items()):
        values = [
            next(r[key] for r in rows if r["model"] == name and runtime in (None, r["runtime"])) for name in names
        ]
        positions = np.arange(len(names)) + 0.2 * (i - 1.5)
        bars = axis.bar(positions, [100 * value for value in values], 0.18, label=label, color=color)
        axis.bar_label(bars, fmt="%.1f", fontsize=7, padding=1)
    axis.set_xticks(range(len(names)), names)
    axis.set(ylabel="test accuracy (%)", ylim=(85, 101))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    figure.savefig(path, dpi=140)


def main():
    """Train, export and measure the models, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("bench_output/integers"), help="folder for the results")
    parser.add_argument("--models", nargs="*", choices=list(MODELS), default=list(MODELS), metavar="MODEL")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in options.models:
        file = options.output / f"{name.replace(' ', '_')}.keras"
        if not file.exists():
            train(*MODELS[name]).save(file)
        rows += measure(name, keras.saving.load_model(file, compile=False), options.output)
    (options.output / "integers.json").write_text(json.dumps(rows, indent=2) + "\n")
    (options.output / "integers.md").write_text(table(rows))
    draw(rows, options.output / "integers.png")
    print(table(rows))


if __name__ == "__main__":
    main()
