"""Model of how training scales with the number of devices: `KERAS_BACKEND=torch python -m benchmarks.scaling`.

The program measures a training step and an all-reduce on this machine with 1, 2 and 4 processes. From these times, and
from the latency and bandwidth of an interconnect, it models the images per second of 8, 64 and 512 devices.

The model has n devices, each of which computes a step on b images in C seconds:

- The gradients take a ring all-reduce (Patarasuk & Yuan, 2009): 2 (n - 1) latency + 2 (n - 1) / n bytes / bandwidth.
- The few bytes of each batch norm's statistics go up and down a tree, in the forward and in the backward pass:
  4 log2(n) latency.
- Without overlap, a step takes C plus both of these times. With overlap, the gradients are sent during the backward
  pass (2/3 of C).
"""

import json
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

PROCESSES = (1, 2, 4)
DEVICES = (1, 8, 64, 512)
BACKWARD = 2 / 3  # fraction of a step: the backward pass has two matrix products for each one of the forward pass
SIZES = (2**12, 2**16, 2**20, 2**23)  # bytes of the all-reduces to which latency and bandwidth are fitted


def ring_seconds(devices, size, latency, bandwidth):
    """Return the seconds of a ring all-reduce of `size` bytes."""
    return 2 * (devices - 1) * (latency + size / devices / bandwidth)


def step_seconds(devices, compute, size, norms, latency, bandwidth, overlap):
    """Return the seconds of a training step on several devices.

    Args:
        devices: Number of devices.
        compute: Seconds of a step on one device.
        size: Size of the gradients in bytes.
        norms: Number of batch norms in the model.
        latency: Seconds until the first byte of a message arrives.
        bandwidth: Bytes per second that each device can send.
        overlap: Whether the gradients are sent during the backward pass.
    """
    gradients = ring_seconds(devices, size, latency, bandwidth)
    if overlap:
        gradients = max(0.0, gradients - BACKWARD * compute)
    return compute + gradients + 4 * norms * math.log2(devices) * latency


def fit_link(times):
    """Fit latency and bandwidth to the times `{(processes, bytes): seconds}` of ring all-reduces.

    The fit minimizes relative errors, so that small messages have the same weight as large ones.

    Returns:
        A tuple `(latency, bandwidth)`, in seconds and in bytes per second.
    """
    rows, seconds = [], []
    for (processes, size), taken in times.items():
        rows.append([2 * (processes - 1) / taken, 2 * (processes - 1) / processes * size / taken])
        seconds.append(1.0)
    latency, per_byte = np.linalg.lstsq(np.array(rows), np.array(seconds), rcond=None)[0]
    return max(float(latency), 0.0), 1.0 / max(float(per_byte), 1e-15)


def measure(order):
    """Run one process of a measurement. The first process writes the result to the order's file."""
    import keras
    import torch
    from torch import distributed

    from mobilenet_v4 import create_mobilenetv4
    from mobilenet_zoo.training.devices import open_cluster

    with open_cluster(order["devices"]) as cluster:
        size, batch = order["image_size"], order["batch_size"]
        model = create_mobilenetv4(order["variant"], 1000, (size, size, 3))
        model.compile("sgd", "categorical_crossentropy")
        cluster.prepare(model)
        x = np.random.default_rng(0).random((batch, size, size, 3), "float32")
        y = np.eye(1000, dtype="float32")[np.arange(batch)]
        steps = [timed(lambda: model.train_on_batch(x, y)) for _ in range(order["steps"] + 2)][2:]
        gradients = sum(4 * math.prod(variable.shape) for variable in model.trainable_variables)
        reductions = {}
        for count in (*SIZES, gradients) if cluster.process_count > 1 else ():
            tensor = torch.zeros(count // 4)
            taken = [timed(lambda tensor=tensor: distributed.all_reduce(tensor)) for _ in range(order["steps"] + 2)]
            reductions[count] = statistics.median(taken[2:])
        result = {
            "step": statistics.median(steps),
            "reductions": reductions,
            "gradients": gradients,
            "norms": sum("moving_mean" in variable.path for variable in model.non_trainable_variables),
            "backend": keras.backend.backend(),
        }
        if cluster.is_chief:
            Path(order["file"]).write_text(json.dumps(result))


def timed(program):
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    program()
    return time.perf_counter() - start


def draw(path, results, batch, links):
    """Plot the modeled images per second over the number of devices, with a band from no overlap to full overlap."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    single = results[1]
    devices = [2**i for i in range(10)]
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    axes.plot(devices, [n * batch / single["step"] for n in devices], "k--", linewidth=1, label="linear")
    for name, (latency, bandwidth) in links.items():
        rates = [
            [n * batch
             / step_seconds(n, single["step"], single["gradients"], single["norms"], latency, bandwidth, overlap)
             for n in devices]
            for overlap in (False, True)
        ]  # fmt: skip
        line = axes.plot(devices, rates[1], label=name)[0]
        axes.fill_between(devices, *rates, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set(xscale="log", yscale="log", xlabel="devices", ylabel="images/s (modeled)")
    axes.set_xticks(devices, [str(n) for n in devices])
    axes.set_title("Bands: from no overlap to gradients hidden behind the backward pass", fontsize=9)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main(
    variant: Annotated[str, typer.Option(help="Variant of MobileNetV4.")] = "conv_small",
    image_size: Annotated[int, typer.Option(help="Height and width of the images in pixels.")] = 224,
    batch_size: Annotated[int, typer.Option(help="Batch size of each device.")] = 16,
    steps: Annotated[int, typer.Option(help="Steps per measurement, whose median is used.")] = 10,
    compute: Annotated[
        float, typer.Option(help="Milliseconds of a step on one device; 0 uses the measured time.")
    ] = 0.0,
    latency: Annotated[float, typer.Option(help="Latency of the modeled interconnect in microseconds.")] = 10.0,
    bandwidth: Annotated[float, typer.Option(help="Bandwidth of the modeled interconnect in Gbit/s.")] = 100.0,
    output: Annotated[Path, typer.Option(help="File of the plot.")] = Path("bench_output/scaling.png"),
) -> None:
    """Measure 1, 2 and 4 processes on this machine, and model 8, 64 and 512 devices."""
    from mobilenet_zoo.training.devices import launch

    results, times = {}, {}
    options = {"variant": variant, "image_size": image_size, "batch_size": batch_size, "steps": steps}
    with tempfile.TemporaryDirectory() as folder:
        for processes in PROCESSES:
            file = Path(folder, f"{processes}.json")
            order = options | {"devices": processes, "file": str(file)}
            if launch(["-m", "benchmarks.scaling", "--measure", json.dumps(order)], processes):
                raise typer.Exit(1)
            results[processes] = json.loads(file.read_text())
            times |= {(processes, int(size)): taken for size, taken in results[processes]["reductions"].items()}
    single = results[1]
    print(f"{variant} at {image_size}, {batch_size} images per process, PyTorch, gloo over loopback")
    print(f"{single['gradients'] / 2**20:.1f} MiB of gradients, {single['norms']} batch norms")
    for processes, row in results.items():
        reduction = row["reductions"].get(str(row["gradients"]))
        exchange = f", all-reduce of the gradients {1e3 * reduction:.1f} ms" if reduction else ""
        print(f"{processes} processes: step {1e3 * row['step']:.0f} ms{exchange}")
    here = fit_link(times)
    print(f"fitted to the all-reduces: latency {1e6 * here[0]:.0f} µs, bandwidth {8e-9 * here[1]:.1f} Gbit/s")
    if compute:
        single["step"] = compute / 1e3
    assumed = f"{latency:g} µs, {bandwidth:g} Gbit/s (assumed)"
    links = {"this machine's loopback (measured)": here, assumed: (latency / 1e6, bandwidth * 1e9 / 8)}
    for name, link in links.items():
        for devices in DEVICES:
            rates = [
                devices
                * batch_size
                / step_seconds(
                    devices,
                    single["step"],
                    single["gradients"],
                    single["norms"],
                    *link,
                    overlap,
                )
                for overlap in (False, True)
            ]
            fraction = rates[0] * single["step"] / devices / batch_size
            print(f"{name}: {devices} devices: {rates[0]:,.0f} to {rates[1]:,.0f} images/s, {fraction:.0%} of linear")
    draw(output, results, batch_size, links)
    print(output)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(json.loads(sys.argv[2]))
    else:
        typer.run(main)
