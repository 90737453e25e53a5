"""How training should scale: `KERAS_BACKEND=torch python -m benchmarks.scaling`.

Measures a step of training and an all-reduce on this machine with 1, 2 and 4 processes, and models from them and from
an interconnect's latency and bandwidth how many images a second 8, 64 and 512 devices train on.

The model, with n devices, b images and a step of C seconds on each:

- the gradients travel round a ring (Patarasuk & Yuan, 2009): 2 (n - 1) latency + 2 (n - 1) / n bytes / bandwidth
- the statistics of each batch norm, few bytes, through a tree there and back, forward and backward: 4 log2(n) latency
- without overlap a step takes C plus both; with overlap the gradients hide behind the backward pass, 2/3 of C
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
BACKWARD = 2 / 3  # of a step: its two products for each one of the forward pass
SIZES = (2**12, 2**16, 2**20, 2**23)  # bytes of the all-reduces that latency and bandwidth are fitted to


def ring_seconds(devices, size, latency, bandwidth):
    """Return an all-reduce of `size` bytes round a ring."""
    return 2 * (devices - 1) * (latency + size / devices / bandwidth)


def step_seconds(devices, compute, size, norms, latency, bandwidth, overlap):
    """Return a step of training on `devices`, each of which computes for `compute` seconds.

    Args:
        devices: How many.
        compute: Seconds of a step on one device.
        size: Bytes of the gradients.
        norms: Batch norms in the model.
        latency: Seconds until a message's first byte arrives.
        bandwidth: Bytes a second out of each device.
        overlap: Whether the gradients travel during the backward pass.
    """
    gradients = ring_seconds(devices, size, latency, bandwidth)
    if overlap:
        gradients = max(0.0, gradients - BACKWARD * compute)
    return compute + gradients + 4 * norms * math.log2(devices) * latency


def fit_link(times):
    """Return the latency and bandwidth that `{(processes, bytes): seconds}` of a ring come closest to.

    Relative errors count, so that the smallest message has its say.
    """
    rows, seconds = [], []
    for (processes, size), taken in times.items():
        rows.append([2 * (processes - 1) / taken, 2 * (processes - 1) / processes * size / taken])
        seconds.append(1.0)
    latency, per_byte = np.linalg.lstsq(np.array(rows), np.array(seconds), rcond=None)[0]
    return max(float(latency), 0.0), 1.0 / max(float(per_byte), 1e-15)


def measure(order):
    """Run one process of a measurement; the first leaves it in the order's file."""
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
        found = {
            "step": statistics.median(steps),
            "reductions": reductions,
            "gradients": gradients,
            "norms": sum("moving_mean" in variable.path for variable in model.non_trainable_variables),
            "backend": keras.backend.backend(),
        }
        if cluster.is_chief:
            Path(order["file"]).write_text(json.dumps(found))


def timed(program):
    """Return seconds that a call takes."""
    start = time.perf_counter()
    program()
    return time.perf_counter() - start


def draw(path, found, batch, links):
    """Draw modeled images a second over devices: for each interconnect from no overlap to full."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    one = found[1]
    devices = [2**i for i in range(10)]
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    axes.plot(devices, [n * batch / one["step"] for n in devices], "k--", linewidth=1, label="linear")
    for name, (latency, bandwidth) in links.items():
        rates = [
            [n * batch / step_seconds(n, one["step"], one["gradients"], one["norms"], latency, bandwidth, overlap)
             for n in devices]
            for overlap in (False, True)
        ]  # fmt: skip
        line = axes.plot(devices, rates[1], label=name)[0]
        axes.fill_between(devices, *rates, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set(xscale="log", yscale="log", xlabel="devices", ylabel="images a second (modeled)")
    axes.set_xticks(devices, [str(n) for n in devices])
    axes.set_title("Bands: from no overlap to gradients hidden behind the backward pass", fontsize=9)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main(
    variant: Annotated[str, typer.Option(help="Of MobileNetV4.")] = "conv_small",
    image_size: Annotated[int, typer.Option(help="Pixels.")] = 224,
    batch_size: Annotated[int, typer.Option(help="Images on each device.")] = 16,
    steps: Annotated[int, typer.Option(help="Of each measurement; the median counts.")] = 10,
    compute: Annotated[float, typer.Option(help="Milliseconds of a step on one device; 0: as measured here.")] = 0.0,
    latency: Annotated[float, typer.Option(help="Microseconds, of an interconnect to model.")] = 10.0,
    bandwidth: Annotated[float, typer.Option(help="Gbit/s, of an interconnect to model.")] = 100.0,
    output: Annotated[Path, typer.Option(help="The plot.")] = Path("bench_output/scaling.png"),
) -> None:
    """Measure with 1, 2 and 4 processes of this machine, and model 8, 64 and 512 devices."""
    from mobilenet_zoo.training.devices import launch

    found, times = {}, {}
    options = {"variant": variant, "image_size": image_size, "batch_size": batch_size, "steps": steps}
    with tempfile.TemporaryDirectory() as folder:
        for processes in PROCESSES:
            file = Path(folder, f"{processes}.json")
            order = options | {"devices": processes, "file": str(file)}
            if launch(["-m", "benchmarks.scaling", "--measure", json.dumps(order)], processes):
                raise typer.Exit(1)
            found[processes] = json.loads(file.read_text())
            times |= {(processes, int(size)): taken for size, taken in found[processes]["reductions"].items()}
    one = found[1]
    print(f"{variant} at {image_size}, {batch_size} images a process, PyTorch, gloo over loopback")
    print(f"{one['gradients'] / 2**20:.1f} MiB of gradients, {one['norms']} batch norms")
    for processes, row in found.items():
        reduction = row["reductions"].get(str(row["gradients"]))
        exchange = f", all-reduce of the gradients {1e3 * reduction:.1f} ms" if reduction else ""
        print(f"{processes} processes: a step {1e3 * row['step']:.0f} ms{exchange}")
    here = fit_link(times)
    print(f"fitted to the all-reduces: latency {1e6 * here[0]:.0f} µs, bandwidth {8e-9 * here[1]:.1f} Gbit/s")
    if compute:
        one["step"] = compute / 1e3
    named = f"{latency:g} µs, {bandwidth:g} Gbit/s (assumed)"
    links = {"this machine's loopback (measured)": here, named: (latency / 1e6, bandwidth * 1e9 / 8)}
    for name, link in links.items():
        for devices in DEVICES:
            rates = [
                devices
                * batch_size
                / step_seconds(devices, one["step"], one["gradients"], one["norms"], *link, overlap)
                for overlap in (False, True)
            ]
            share = rates[0] * one["step"] / devices / batch_size
            print(f"{name}: {devices} devices: {rates[0]:,.0f} to {rates[1]:,.0f} images/s, {share:.0%} of linear")
    draw(output, found, batch_size, links)
    print(output)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(json.loads(sys.argv[2]))
    else:
        typer.run(main)
