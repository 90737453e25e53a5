"""Time of each operation in a call: `python -m benchmarks.operations BACKEND MODEL`.

The program shows our model and its peer in the same backend: timm under PyTorch, otherwise keras.applications or
zeromodels. Neither can be faster than the framework's own kernels, in which both spend their time.
"""

import collections
import os
import re
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.contenders import MODELS, MODES

CALLS = 3


def main(
    backend: Annotated[str, typer.Argument(help=f"Backend: {', '.join(MODES)}.")],
    model: Annotated[str, typer.Argument(help=f"Model: {', '.join(entry.name for entry in MODELS)}.")],
    mode: Annotated[
        str | None,
        typer.Option(
            help="Execution mode: eager or compiled (torch), graph or jit_compile (tensorflow). Default: the first."
        ),
    ] = None,
    training: Annotated[bool, typer.Option(help="Measure a training step instead of inference.")] = False,
    batch: Annotated[int, typer.Option(min=1, help="Batch size.")] = 16,
    rows: Annotated[int, typer.Option(min=1, help="Number of operations to show.")] = 12,
) -> None:
    """Show how much time each operation takes in one call, for our model and for its peer."""
    choices = [("BACKEND", backend, MODES), ("MODEL", model, [entry.name for entry in MODELS])]
    for name, value, allowed in (*choices, ("--mode", mode, (None, *MODES.get(backend, ())))):
        if value not in allowed:
            allowed = filter(None, allowed)
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(allowed)}.", param_hint=name)
    os.environ["KERAS_BACKEND"] = backend
    from benchmarks import contenders, programs

    entry, mode = contenders.find(model), mode or MODES[backend][0]
    measure = "training" if training else "inference"
    names = [name for name in contenders.names(entry, backend, mode, measure) if name != contenders.FUSED]
    ours = contenders.OURS_PADDED if contenders.TIMM in names else contenders.OURS
    for name in [ours, *(name for name in names if name not in (contenders.OURS, contenders.OURS_PADDED))]:
        program = programs.program(name, entry, mode, measure, batch)
        for _ in range(2):
            program()  # The first call compiles the program.
        times = _MEASURES[backend](program)
        total = sum(times.values())
        table = Table("operation", "ms per call", "fraction", title=f"{name}: {total:.1f} ms in operations")
        for operation, milliseconds in times.most_common(rows):
            table.add_row(operation, f"{milliseconds:.1f}", f"{milliseconds / total:.0%}")
        Console().print(table)


def _torch(program):
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(CALLS):
            program()
    times = collections.Counter()
    for event in profiler.key_averages():
        # A compiled program has guard checks (Dynamo) and generated kernels (Compiled).
        if re.search("aten::|Dynamo|Compiled", event.key):
            times[re.sub(r" f\w{20,} ##$", "", event.key)] += event.self_cpu_time_total / 1e3 / CALLS
    return times


def _tensorflow(program):
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for _ in range(CALLS):
            program()
        tf.profiler.experimental.stop()
        space = xplane_pb2.XSpace.FromString(next(Path(folder).rglob("*.xplane.pb")).read_bytes())
    times = collections.Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                operation = re.fullmatch("[^:]+:([A-Za-z0-9_]+)", plane.event_metadata[event.metadata_id].name)
                if operation:
                    times[operation[1]] += event.duration_ps / 1e9 / CALLS
    return times


def _jax(program):
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(CALLS):
                program()
        data = jax.profiler.ProfileData.from_file(str(next(Path(folder).rglob("*.xplane.pb"))))
    times = collections.Counter()
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                if any(key == "hlo_op" for key, _ in event.stats):
                    times[re.sub(r"[.\d]+$", "", event.name)] += event.duration_ns / 1e6 / CALLS
    return times


_MEASURES = {"torch": _torch, "tensorflow": _tensorflow, "jax": _jax}

if __name__ == "__main__":
    typer.run(main)
