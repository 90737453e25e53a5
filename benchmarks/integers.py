"""What 8-bit integers cost: one digits model a generation, in float32 and int8, in each runtime.

    python -m benchmarks.integers --output bench_output/integers

It trains the models (KERAS_BACKEND chooses where), exports them, and writes a table as `integers.md`, the numbers as
`integers.json` and a plot as `integers.png`. Every figure is of the held-out fifth of scikit-learn's digits.
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

MODELS = {  # variant, width multiplier, epochs
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
    """Return a model of `variant` that has learned the digits."""
    images, held_out, classes, held_out_classes = load_data()
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
    """Return a row for each format: sizes, latencies and accuracies before and after."""
    images, held_out, classes, held_out_classes = load_data()
    rows = []
    # `export` holds a fifth out by itself; every figure here is of digits that neither training nor it has seen.
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
                "accuracy": accuracy(folder / f"{stem}{ending}", held_out, held_out_classes),
                "accuracy_int8": accuracy(folder / f"{stem}_int8{ending}", held_out, held_out_classes),
                "size": small.bytes / plain.bytes,
                "agreement": small.agreement,
                "float_blocks": list(small.float_blocks),
            }
        )
        print(rows[-1], flush=True)
    return rows


def accuracy(path, images, classes):
    """Return the fraction of images that an exported file gets right."""
    from mobilenet_runtime.measure import measure as run

    (answers,) = run(path, images)[1].values()
    return float((np.asarray(answers).argmax(1) == classes).mean())


def table(rows):
    """Return the rows in Markdown."""
    lines = [
        "| model | runtime | float32 | int8 | difference, points | same class | size ratio | kept in float |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        before, after = (f"{row[name]:.1%}" for name in ("accuracy", "accuracy_int8"))
        points = f"{100 * (row['accuracy_int8'] - row['accuracy']):+.1f}"
        kept = ", ".join(row["float_blocks"])
        cells = (row["model"], row["runtime"], before, after, points, f"{row['agreement']:.1%}", f"{row['size']:.2f}")
        lines.append(f"| {' | '.join(cells)} | {kept} |")
    return "\n".join(lines) + "\n"


def draw(rows, path):
    """Draw the accuracy of each model in float32 and, in each runtime, in int8."""
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
        places = np.arange(len(names)) + 0.2 * (i - 1.5)
        bars = axis.bar(places, [100 * value for value in values], 0.18, label=label, color=color)
        axis.bar_label(bars, fmt="%.1f", fontsize=7, padding=1)
    axis.set_xticks(range(len(names)), names)
    axis.set(ylabel="validation digits right, %", ylim=(85, 101))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    figure.savefig(path, dpi=140)


def main():
    """Return train, export, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("bench_output/integers"))
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
