"""Speed and size of exported files, compared with files that other libraries export from the same architecture.

    python -m benchmarks.exported --threads 2

The program writes `exported.json` and `exported.md` to the output folder. Each file runs in its own process, and the
files take turns. A ratio is the time of the peer's fastest call over all rounds, divided by the time of our fastest
call. The fastest calls count because other work on the machine can only make calls slower. The peer of an int8 file is
our own float32 file.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.contenders import IMAGE_SIZE, MODELS, create, create_keras_application, create_timm
from mobilenet_runtime.file_formats import FILE_FORMATS
from mobilenet_runtime.measure import measure

KERAS, TIMM, FLOAT = "keras.applications", "timm", "ours, float32"
# `{(runtime, peer): models}`.
COMPARISONS = {
    ("litert", KERAS): ("mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_large_100", "mobilenetv3_small_100"),
    ("onnx", TIMM): (
        "mobilenetv2_100",
        "mobilenetv3_large_100",
        "mobilenetv4_conv_medium",
        "mobilenetv4_hybrid_medium",
    ),
    ("openvino", TIMM): (
        "mobilenetv2_100",
        "mobilenetv3_large_100",
        "mobilenetv4_conv_medium",
        "mobilenetv4_hybrid_medium",
    ),
    ("litert int8", FLOAT): ("mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_large_100", "mobilenetv3_small_100"),
}
_BACKENDS = {KERAS: "tensorflow"}  # backend that writes the contender's files; PyTorch for all others


def write(runtime, contender, name, path):
    """Write the exported file of one contender."""
    model = next(entry for entry in MODELS if entry.name == name)
    if contender == KERAS:
        _write_keras(model, path)
    elif contender == TIMM:
        _write_timm(model, path)
    else:
        import mobilenet_zoo

        options = {"include_softmax": False if runtime in ("onnx", "openvino") else None}
        if runtime == "litert int8" and contender == "ours":
            images = np.random.default_rng(0).uniform(-1, 1, (32, IMAGE_SIZE, IMAGE_SIZE, 3)).astype("float32")
            options |= {"quantization": "int8", "calibration": images}
            options["verify"] = False  # Rounding changes an untrained network's predictions.
        # timm's models use PyTorch's padding, so our models do too when they are compared with timm's.
        ours = mobilenet_zoo.create_model(name) if runtime in ("onnx", "openvino") else create(model)
        print(mobilenet_zoo.export(ours, path, **options))


def _write_keras(model, path):
    """Convert keras.applications' model with TensorFlow, with the fixed batch size that LiteRT's delegate needs."""
    import keras
    import tensorflow as tf

    theirs = create_keras_application(model)
    image = keras.Input(batch_shape=(1, IMAGE_SIZE, IMAGE_SIZE, 3))
    logits = keras.Model(theirs.input, theirs.output)(image)
    fixed = keras.Model(image, logits)
    fixed.export(path.with_suffix(""), format="tf_saved_model", verbose=False)
    path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(path.with_suffix(""))).convert())


def _write_timm(model, path):
    import torch

    theirs, onnx = create_timm(model).eval(), path.with_suffix(".onnx")
    image = torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE)
    program = torch.onnx.export(theirs, (image,), dynamo=True, verbose=False)
    program.save(onnx, external_data=False)
    if path.suffix == ".xml":
        import openvino

        openvino.save_model(openvino.convert_model(onnx), path, compress_to_fp16=False)


def compare(runtime, peer, name, folder, threads, rounds, runs):
    """Return a row that compares the time and size of our file with those of the peer's file."""
    ending = FILE_FORMATS[runtime.split()[0]].ending
    paths = {}
    for contender in ("ours", peer):
        path = folder / f"{name}_{runtime}_{contender}{ending}".replace(" ", "_").replace(",", "")
        if not path.exists():
            command = [sys.executable, "-m", "benchmarks.exported", "--write", runtime, contender, name, str(path)]
            environment = os.environ | {"KERAS_BACKEND": _BACKENDS.get(contender, "torch"), "TF_CPP_MIN_LOG_LEVEL": "3"}
            subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        paths[contender] = path
    times = {contender: [] for contender in paths}
    for _ in range(rounds):
        for contender, path in paths.items():
            record, _ = measure(path, threads=threads, runs=runs)
            times[contender].append(record["fastest_ms"])
    ratios = [theirs / ours for ours, theirs in zip(times["ours"], times[peer], strict=True)]
    return {
        "runtime": runtime,
        "peer": peer,
        "model": name,
        "ours_ms": min(times["ours"]),
        "peer_ms": min(times[peer]),
        "ratio": min(times[peer]) / min(times["ours"]),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "bytes": _bytes(paths["ours"]) / _bytes(paths[peer]),
    }


def _bytes(path):
    return sum(file.stat().st_size for file in (path, path.with_suffix(".bin")) if file.is_file())


def table(rows):
    """Return the rows as a Markdown table."""
    lines = ["| runtime | model | peer | time ratio | in single rounds | size ratio |", "|---|---|---|---|---|---|"]
    for row in rows:
        span = f"{min(row['ratios']):.2f} to {max(row['ratios']):.2f}"
        lines.append(
            f"| {row['runtime']} | {row['model']} | {row['peer']} | {row['ratio']:.2f} | {span} | {row['bytes']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main():
    """Write and measure the selected files, or write the single file of `--write`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("bench_output/exported"), help="folder for the results")
    parser.add_argument("--threads", type=int, default=2, help="threads of the runtime (default: 2)")
    parser.add_argument("--rounds", type=int, default=15, help="processes per file (default: 15)")
    parser.add_argument("--runs", type=int, default=30, help="calls per process (default: 30)")
    parser.add_argument(
        "--only", nargs="*", default=None, help="runtimes to measure: litert, onnx, openvino, 'litert int8'"
    )
    parser.add_argument("--write", nargs=4, metavar=("RUNTIME", "CONTENDER", "MODEL", "PATH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        runtime, contender, name, path = options.write
        return write(runtime, contender, name, Path(path))
    options.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for (runtime, peer), names in COMPARISONS.items():
        for name in names if options.only is None or runtime in options.only else ():
            rows.append(compare(runtime, peer, name, options.output, options.threads, options.rounds, options.runs))
            print(json.dumps(rows[-1]), flush=True)
    (options.output / "exported.json").write_text(json.dumps(rows, indent=2) + "\n")
    (options.output / "exported.md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
